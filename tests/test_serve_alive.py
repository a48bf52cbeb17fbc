"""The health check of the container image: it asks as the server was told to answer."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from making import ROOT
from served import certificate, free_port
from striate.errors import StriateError
from striate.serve import Server, ServerOptions
from striate.serve.alive import check, options_of

pytest_plugins = ["serving_fixtures"]


def started(tmp_path: Path, *words: str) -> Path:
    """A process as /proc shows it."""
    (tmp_path / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in words))
    return tmp_path


@pytest.fixture
def options(tiny) -> ServerOptions:
    ports = {"port": free_port(), "rest_api_port": free_port()}
    return ServerOptions(tiny.path.parent, host="127.0.0.1", drain_seconds=1, **ports)


def test_the_image_is_checked_by_what_its_first_process_was_told(tmp_path):
    text = (ROOT / "Dockerfile").read_text()
    entry, command = (
        json.loads(re.search(rf"^{word} (\[.*\])$", text, re.MULTILINE)[1])
        for word in ("ENTRYPOINT", "CMD")
    )
    assert '["python", "-m", "striate.serve.alive"]' in text
    found = options_of(started(tmp_path, "/bin/python", *entry, *command))
    assert (found.port, found.rest_api_port, found.ssl_config_file) == (8500, 8501, "")
    with pytest.raises(StriateError, match="expected striate serve as the process"):
        options_of(started(tmp_path, "sleep", "9"))


def test_a_server_is_well_while_its_models_answer(options):
    with pytest.raises(ConnectionRefusedError):
        check(options)
    with Server(options) as server:
        check(options)
        check(replace(options, host="0.0.0.0"))
        check(replace(options, rest_api_port=0))
        server.repository.models["tiny"].versions.clear()
        with pytest.raises(StriateError, match="/healthz: 503"):
            check(options)


@pytest.mark.parametrize("client_verify", [False, True])
def test_so_is_one_with_tls_and_one_that_lets_nobody_in_without_a_certificate(
    options, tmp_path, client_verify, caplog
):
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make certificates")
    key, cert = certificate(tmp_path, "server")
    config = tmp_path / "ssl"
    config.write_text(f"server_key: {key!r} server_cert: {cert!r} custom_ca: {cert!r}\n")
    with config.open("a") as file:
        file.write(f"client_verify: {str(client_verify).lower()}")
    options = replace(options, ssl_config_file=str(config))
    with Server(options):
        check(options)
        check(replace(options, rest_api_port=0))
    assert caplog.messages == []
    with pytest.raises(ConnectionRefusedError):
        check(options)
    plain = replace(options, rest_api_ssl=False)
    with Server(plain):
        check(plain)
