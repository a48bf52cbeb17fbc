"""Who may ask: API keys, over real sockets."""

import hashlib
import json
import time
import urllib.error
import urllib.request
from email.message import Message
from typing import Any

import grpc
import pytest
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_management_pb2,
)

from served import ServerProcess
from striate.errors import UsageError
from striate.serve.client import Client, HttpClient
from striate.serve.core import Core
from striate.serve.keys import Keys, read
from striate.serve.protocols.oip_protos import SERVICE, message
from striate.serve.repository import Repository
from striate.serve.scheduler import Scheduler
from striate.serve.status import Code, ServingError
from striate.serve.watched import Watched

pytest_plugins = ["serving_fixtures"]

MINE, OTHER, ADMIN, NEW = "mine-1f0c", "other-77aa", "admin-90b1", "new-3c3c"


def entry(key: str, models) -> dict:
    digest = hashlib.sha256(key.encode()).hexdigest()
    return {"name": key.partition("-")[0], "sha256": digest, "models": models}


def write(path, *entries) -> str:
    path.write_text(yaml.safe_dump({"keys": list(entries)}))
    return str(path)


ENTRIES = [entry(MINE, ["tiny"]), entry(OTHER, ["another"]), entry(ADMIN, "*")]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("keys") / "keys.yaml"


@pytest.fixture(scope="module")
def locked(tiny, file):
    """A server that asks for keys."""
    with ServerProcess(tiny.path.parent, api_keys_file=write(file, *ENTRIES)) as server:
        yield server


def asked(
    server, path: str, key: str | None, body: bytes | None = None
) -> tuple[int, Message, Any]:
    """(status, headers, document) of a request over REST."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    try:
        with urllib.request.urlopen(urllib.request.Request(server.url + path, body, headers)) as r:
            text = r.read().decode()
            return r.status, r.headers, json.loads(text) if text[:1] in "{[" else {}
    except urllib.error.HTTPError as error:
        return error.code, error.headers, json.loads(error.read())


@pytest.fixture(scope="module")
def called(locked):
    """(code, details) of a call over gRPC."""
    with grpc.insecure_channel(locked.address) as channel:

        def call(method, request, key: str | None):
            metadata = [] if key is None else [("authorization", f"Bearer {key}")]
            unary = channel.unary_unary(method, type(request).SerializeToString, bytes)
            try:
                unary(request, metadata=metadata, timeout=60)
            except grpc.RpcError as error:
                return error.code(), error.details()
            return grpc.StatusCode.OK, ""

        yield call


STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
RELOAD = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"


def about_tiny():
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "tiny"
    return request


def test_without_a_key_and_with_a_wrong_one_nothing_is_answered(locked):
    for path in ("/v1/models/tiny", "/v2/models/tiny", "/v2", "/metrics", "/", "/page/models"):
        status, headers, document = asked(locked, path, None)
        assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
        assert document == {"error": "Expected an API key, sent as Authorization: Bearer KEY"}
    status, _, document = asked(locked, "/v1/models/tiny", "guessed")
    assert (status, document) == (401, {"error": "The API key is not known here"})


def test_a_key_opens_its_models_and_no_others(locked):
    assert asked(locked, "/v1/models/tiny", MINE)[0] == 200
    body = json.dumps({"instances": [1]}).encode()
    asking = [("/v1/models/tiny", None), ("/v1/models/tiny:predict", body)]
    for path, sent in [*asking, ("/v2/models/tiny/ready", None)]:
        status, _, document = asked(locked, path, OTHER, sent)
        assert (status, document) == (403, {"error": "The API key is not for model tiny"})


def test_what_concerns_all_models_wants_a_key_for_all(locked):
    for path in ("/metrics", "/page/counters", "/"):
        assert asked(locked, path, ADMIN)[0] == 200
        status, _, document = asked(locked, path, MINE)
        assert status == 403
        assert document == {"error": "The API key is not for what concerns all models"}


def test_lists_show_what_the_key_opens(locked):
    index = "/v2/repository/index"
    assert [found["name"] for found in asked(locked, index, MINE, b"{}")[2]] == ["tiny"]
    assert asked(locked, index, OTHER, b"{}")[2] == []
    assert asked(locked, "/v2/models/stats", OTHER)[2] == {"model_stats": []}


def test_grpc_says_the_same(called):
    assert called(STATUS, about_tiny(), MINE)[0] == grpc.StatusCode.OK
    assert called(STATUS, about_tiny(), None) == (
        grpc.StatusCode.UNAUTHENTICATED,
        "Expected an API key, sent as Authorization: Bearer KEY",
    )
    assert called(STATUS, about_tiny(), OTHER) == (
        grpc.StatusCode.PERMISSION_DENIED,
        "The API key is not for model tiny",
    )
    reload = model_management_pb2.ReloadConfigRequest()
    reload.config.model_config_list.SetInParent()
    assert called(RELOAD, reload, MINE)[0] == grpc.StatusCode.PERMISSION_DENIED


def test_our_clients_send_the_key_that_they_are_given(locked, picture):
    wanted = [["class 0", "class 1", "class 2", "class 3"]]
    for client, where in [(Client, locked.address), (HttpClient, locked.url)]:
        with_key = client(where, "tiny", headers={"Authorization": f"Bearer {MINE}"})
        assert with_key.status() == {1: "AVAILABLE"}
        found = with_key.classify([picture], top=4)
        assert [sorted(label for label, _ in row) for row in found] == wanted
        with pytest.raises(ServingError) as error:
            client(where, "tiny").status()
        assert error.value.code == Code.UNAUTHENTICATED


def test_streams_want_a_key_too(locked):
    request = message("ModelInferRequest")(model_name="tiny")
    with grpc.insecure_channel(locked.address) as channel:
        stream = channel.stream_stream(
            f"/{SERVICE}/ModelStreamInfer",
            type(request).SerializeToString,
            message("ModelStreamInferResponse").FromString,
        )
        with pytest.raises(grpc.RpcError) as error:
            next(stream(iter([request]), timeout=60))
        assert error.value.code() == grpc.StatusCode.UNAUTHENTICATED
        metadata = [("authorization", f"Bearer {OTHER}")]
        (answer,) = stream(iter([request]), metadata=metadata, timeout=60)
        assert answer.error_message == "The API key is not for model tiny"


def test_health_needs_no_key(locked, called):
    for path in ("/healthz", "/v2/health/live", "/v2/health/ready"):
        assert asked(locked, path, None)[0] == 200
        head = urllib.request.Request(locked.url + path, method="HEAD")
        with urllib.request.urlopen(head) as response:  # so do balancers ask
            assert response.status == 200
    for method in ("ServerLive", "ServerReady"):
        request = message(f"{method}Request")()
        assert called(f"/{SERVICE}/{method}", request, None)[0] == grpc.StatusCode.OK
    with grpc.insecure_channel(locked.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        assert health.Check(health_pb2.HealthCheckRequest()).status == 1


def test_keys_change_without_a_restart_and_a_broken_file_changes_nothing(locked, file):
    write(file, *ENTRIES[1:], entry(NEW, ["tiny"]))
    deadline = time.monotonic() + 60
    while asked(locked, "/v1/models/tiny", NEW)[0] != 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert asked(locked, "/v1/models/tiny", MINE)[0] == 401
    file.write_text("keys: [")
    while not any("the keys before it go on" in line for line in locked.errors):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert asked(locked, "/v1/models/tiny", NEW)[0] == 200


def test_a_file_that_is_mended_without_a_change_is_read_and_what_was_wrong_was_said_once(
    tmp_path, caplog
):
    """One whose permissions were wrong looks the same afterwards."""
    file, shut = tmp_path / "file", [False]
    file.write_text("one")

    def read(path):
        if shut[0]:
            raise UsageError("cannot be read")
        return path.read_text()

    watched = Watched(file, read, "keys")
    file.write_text("two, which is longer")
    shut[0] = True
    assert [watched.refresh() for _ in range(3)] == [False] * 3
    assert caplog.messages == ["cannot be read; the keys before it go on"]
    assert watched.said == "one"
    shut[0] = False
    assert [watched.refresh() for _ in range(3)] == [True, False, False]
    assert watched.said == "two, which is longer"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("keys: [", "expected YAML"),
        ("[]", "expected a list `keys`"),
        ("keys: []", "expected a list `keys`"),
        ("keys: [{name: a, key: hunter2, models: [m]}]", "expected name, sha256 and models"),
        ("keys: [{name: a, sha256: hunter2, models: [m]}]", "expected sha256 of 64"),
        (f"keys: [{{name: a, sha256: '{'0' * 64}', models: m}}]", "expected models, a list"),
    ],
)
def test_a_file_that_is_none_says_what_is_expected_and_shows_no_key(tmp_path, text, wanted):
    (tmp_path / "keys").write_text(text)
    with pytest.raises(UsageError, match=wanted) as error:
        read(tmp_path / "keys")
    assert "hunter2" not in str(error.value)


def test_the_scheme_has_no_case_and_must_be_bearer(tmp_path):
    keys = Keys(write(tmp_path / "keys", *ENTRIES))
    assert keys.identify(f"bearer {MINE}").name == "mine"
    for wrong in (None, "", MINE, f"Basic {MINE}", "Bearer", "Bearer "):
        with pytest.raises(ServingError) as error:
            keys.identify(wrong)
        assert error.value.code == Code.UNAUTHENTICATED


def test_a_server_without_keys_says_so_by_ending(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        Keys(str(tmp_path / "none"))


def test_where_keys_are_asked_for_nothing_passes_without_a_call(tmp_path):
    keys = Keys(write(tmp_path / "keys", *ENTRIES))
    core = Core(Repository([], open), Scheduler(1, 1), 1, keys=keys)
    for model in ("tiny", None):
        with pytest.raises(ServingError) as error:
            core.permit(model)
        assert error.value.code == Code.PERMISSION_DENIED


def test_a_configuration_file_that_changes_needs_no_key(tiny, tmp_path):
    models = tmp_path / "models.config"

    def name(model: str) -> None:
        where = f'name: "{model}" base_path: "{tiny.path.parent}" model_platform: "tensorflow"'
        models.write_text(f"model_config_list {{ config {{ {where} }} }}")

    name("one")
    with ServerProcess(
        "",
        model_config_file=str(models),
        model_config_file_poll_wait_seconds=0.1,
        api_keys_file=write(tmp_path / "keys.yaml", *ENTRIES),
    ) as server:
        name("two")
        deadline = time.monotonic() + 30
        while asked(server, "/v1/models/two", ADMIN)[0] != 200:
            assert time.monotonic() < deadline, "".join(server.errors)
            time.sleep(0.05)
