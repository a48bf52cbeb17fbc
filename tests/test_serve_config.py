"""How a server is told what to do: tensorflow_model_server's flags and configuration files."""

import contextlib
import errno
import http.client
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest

from served import ServerProcess, certificate, free_port
from striate.errors import ArtifactError, UsageError
from striate.runtime import FLOAT_TOLERANCE
from striate.serve import tensors, text_configs
from striate.serve.batching import BatchingParameters
from striate.serve.client import Client, HttpClient
from striate.serve.core import Core
from striate.serve.flags import MEANINGLESS, REFUSED, flags, help_text, parse
from striate.serve.listeners import limits
from striate.serve.options import ModelConfig, ServerOptions, VersionPolicy
from striate.serve.protos import (
    model_management_pb2,
    model_server_config_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)
from striate.serve.repository import Model, Repository
from striate.serve.repository.model_config import configs_of, find_models, read_config_file
from striate.serve.scheduler import Scheduler
from striate.serve.secure import Tls
from striate.serve.status import Code, ServingError

pytest_plugins = ["serving_fixtures"]


# Flags


def test_flags_are_written_in_every_way_that_tensorflow_takes():
    line = (
        "--port=1 --rest_api_port 2 --model_name=m --model_base_path /models/m --enable_batching "
        "--noenable_model_warmup --prefer_tflite_model=false --enable_profiler=true "
        "--grpc_channel_arguments=grpc.max_connection_age_ms=2000"
    )
    found, notes = parse(line.split())
    assert found == {
        "port": 1,
        "rest_api_port": 2,
        "model_name": "m",
        "model_base_path": "/models/m",
        "enable_batching": True,
        "enable_model_warmup": False,
        "prefer_tflite_model": False,
        "grpc_channel_arguments": "grpc.max_connection_age_ms=2000",
    }
    assert notes == ["--enable_profiler is ignored: there is no profiler service"]


def test_what_the_configuration_file_says_instead_is_noted():
    found, notes = parse(["models", "--version_policy=all", "--model_config_file=models.config"])
    assert found["model_config_file"] == "models.config"
    assert notes == [
        f"--{name} is ignored: --model_config_file says it of each model"
        for name in ("model_base_path", "version_policy")
    ]


def test_a_message_length_of_minus_one_is_no_limit_as_in_grpc():
    name = "grpc.max_receive_message_length"
    found = limits(ServerOptions("models", grpc_channel_arguments=f"{name}=-1"))
    assert found.message_bytes > 1 << 30
    with pytest.raises(UsageError, match=r"grpc.max_connection_age_ms a number, got '-1'"):
        limits(ServerOptions("models", grpc_channel_arguments="grpc.max_connection_age_ms=-1"))


def test_a_model_is_called_default_as_there_and_by_its_directory_here():
    assert parse(["--model_base_path=/models/m"])[0]["model_name"] == "default"
    assert "model_name" not in parse(["/models/m"])[0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x --prot=3", "--prot is no flag of striate serve. Did you mean 'port'"),
        ("x --port=abc", "expected a whole number for --port, got 'abc'"),
        ("x --port", "expected a value after --port, got nothing"),
        ("x --enable_batching=maybe", "expected true or false for --enable_batching, got 'maybe'"),
        ("x --version_policy=newest", "expected a version policy"),
        ("x y", "expected one directory, then --flags; got 'y' as well"),
        ("--port=1", "expected the models: striate serve DIRECTORY"),
        ("x --use_alts_credentials", "--use_alts_credentials is not served: there is no ALTS here"),
    ],
)
def test_a_wrong_flag_is_one_clear_line(line, message):
    with pytest.raises(UsageError) as error:
        parse(line.split())
    assert message in str(error.value)


def test_every_flag_is_in_the_help_and_none_is_there_twice():
    text = help_text()
    assert all(
        text.count(f"\n  --{name}\n") + text.count(f"\n  --{name}=") == 1 for name in flags()
    )
    assert not MEANINGLESS.keys() & flags().keys()


def test_every_flag_is_in_the_manual():
    manual = (Path(__file__).parents[1] / "docs" / "serve.md").read_text("utf-8")
    for name, field in flags().items():
        assert f"| `--{name}` | {field.metadata['help']}" in manual
    assert [name for name in (*MEANINGLESS, *REFUSED) if f"`--{name}`" not in manual] == []


# Configuration files


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", ["", "a\nb", "\x1b[31m", "\udcff"])
def test_a_name_that_cannot_be_printed_is_refused(name, tmp_path):
    with pytest.raises(UsageError, match="model_name of characters that can be printed, at least"):
        ServerOptions(tmp_path, model_name=name)
    if name:
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "1" / "striate.json").touch()
        for path in (tmp_path, tmp_path / name, tmp_path / name / "1"):
            with pytest.raises(ArtifactError, match="give it another with --model_name"):
                find_models(path, None, VersionPolicy())
        assert find_models(tmp_path, "b", VersionPolicy())[0].name == "b"


def test_a_configuration_names_models_policies_and_labels(tmp_path):
    path = write(
        tmp_path / "models.config",
        """
        model_config_list: {
          config: { name: "a", base_path: "/models/a", model_platform: "tensorflow" },
          config: {
            name: "b"; base_path: "/models/b";
            model_version_policy: { specific: { versions: 3, versions: 5 } }
            version_labels { key: "stable" value: 3 }
          }
          config { name: "c" base_path: "/models/c" model_version_policy { all {} } }
          config { name: "d" base_path: "/models/d"
                   model_version_policy { latest { num_versions: 2 } } }
        }
        """,
    )
    assert read_config_file(path) == [
        ModelConfig("a", Path("/models/a")),
        ModelConfig(
            "b", Path("/models/b"), VersionPolicy("specific", versions=(3, 5)), {"stable": 3}
        ),
        ModelConfig("c", Path("/models/c"), VersionPolicy("all")),
        ModelConfig("d", Path("/models/d"), VersionPolicy("latest", count=2)),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense {", "Error parsing text-format tensorflow.serving.ModelServerConfig: "),
        (
            'model_config_list { config { name: "a" base_path: "/a" }'
            ' config { name: "a" base_path: "/b" } }',
            "Illegal to list model a multiple times in config list",
        ),
        (
            'model_config_list { config { name: "a" base_path: "a" } }',
            "Expected model a to have an absolute path or URI; got base_path()=a",
        ),
        (
            'model_config_list { config { name: "a" base_path: "/a" model_platform: "torch" } }',
            "Model a requests unsupported platform torch",
        ),
        ("", "model_config_list, got none"),
        ('model_config_list { config { base_path: "/a" } }', "to have a name, got one without"),
        (
            'model_config_list { config { name: "a\\nb" base_path: "/a" } }',
            r"Expected a model name of characters that can be printed, got 'a\nb'",
        ),
    ],
)
def test_a_wrong_configuration_is_one_clear_line(tmp_path, text, message):
    with pytest.raises(UsageError) as error:
        read_config_file(write(tmp_path / "models.config", text))
    assert message in str(error.value)


def test_the_small_configurations(tmp_path):
    path = write(
        tmp_path / "batching",
        "max_batch_size { value: 8 } batch_timeout_micros { value: 2000 } "
        "num_batch_threads { value: 3 } allowed_batch_sizes: 4, allowed_batch_sizes: 8",
    )
    assert BatchingParameters.read(path) == BatchingParameters(
        8, 0.002, max_enqueued_batches=10, threads=3, allowed_sizes=(4, 8)
    )
    path = write(tmp_path / "m", 'prometheus_config { enable: true path: "/metrics" }')
    found = text_configs.read(path, "MonitoringConfig").prometheus_config
    assert (found.enable, found.path) == (True, "/metrics")
    for text, message in [
        ("pad_variable_length_inputs: true", "pad_variable_length_inputs is not served"),
        ("max_batch_size { value: 8 } allowed_batch_sizes: 4", "increase up to max_batch_size"),
        ("max_batch_size { value: 0 }", "batching: expected max_batch_size of at least 1, got 0"),
        ("num_batch_threads { value: -3 }", "expected num_batch_threads of at least 0, got -3"),
        (
            "batch_timeout_micros { value: -1 }",
            "expected batch_timeout_micros of at least 0, got -1",
        ),
        ("max_size: 3", "Error parsing text-format tensorflow.serving.BatchingParameters"),
    ]:
        with pytest.raises(UsageError, match=message):
            BatchingParameters.read(write(tmp_path / "batching", text))
    with pytest.raises(UsageError, match="without --enable_batching"):
        ServerOptions("models", batching_parameters_file=path)


# A server that is told otherwise while it runs


def config(**models) -> model_server_config_pb2.ModelServerConfig:
    """name=(directory, labels, policy versions) -> the message."""
    message = model_server_config_pb2.ModelServerConfig()
    message.model_config_list.SetInParent()
    for name, (directory, labels) in models.items():
        added = message.model_config_list.config.add(name=name, base_path=str(directory))
        added.model_version_policy.all.SetInParent()
        added.version_labels.update(labels)
    return message


@pytest.fixture
def base(tiny, tmp_path) -> Path:
    shutil.copytree(tiny.path, tmp_path / "tiny" / "1")
    return tmp_path / "tiny"


def refused(call, *args) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as error:
        call(*args)
    return error.value.code(), error.value.details()


def about(images, model: str = "tiny") -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.inputs["image"].CopyFrom(tensors.to_content(images))
    return request


def predict(stub, images, *, label: str) -> int:
    """The version that answers."""
    request = about(images)
    request.model_spec.version_label = label
    return stub.Predict(request).model_spec.version.value


@pytest.mark.long
def test_models_are_added_removed_and_relabelled_without_a_restart(base, tiny):
    images, scores = tiny.goldens()
    shutil.copytree(tiny.path, base / "2")
    with ServerProcess(base) as server, grpc.insecure_channel(server.address) as channel:
        models = model_service_pb2_grpc.ModelServiceStub(channel)
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

        def reload(**configs):
            request = model_management_pb2.ReloadConfigRequest(config=config(**configs))
            return models.HandleReloadConfigRequest(request)

        labels = {"stable": 1, "canary": 2}
        assert reload(tiny=(base, labels), other=(base, {})).status.error_code == 0
        assert predict(stub, images, label="stable") == 1
        assert predict(stub, images, label="canary") == 2
        np.testing.assert_allclose(
            HttpClient(server.url, "other", version=2).predict(images), scores, atol=FLOAT_TOLERANCE
        )
        with urllib.request.urlopen(f"{server.url}/v1/models/tiny/labels/stable") as response:
            assert response.status == 200
        assert refused(lambda: reload(tiny=(base, {"stable": 7}))) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "Request to assign label to version 7 of model tiny, which is not currently available "
            "for inference",
        )
        assert predict(stub, images, label="stable") == 1  # nothing was relabelled
        assert HttpClient(server.url, "other").status() == {2: "END", 1: "END"}
        reload(tiny=(base, {"stable": 2}))
        assert predict(stub, images, label="stable") == 2
        code, text = refused(lambda: predict(stub, images, label="canary"))
        assert (code, text) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "Unrecognized servable version label: canary",
        )
        code, text = refused(lambda: reload(tiny=(base, {}), gone=(base.parent / "gone", {})))
        assert (code, text) == (
            grpc.StatusCode.UNKNOWN,
            "1 model(s) did not become available: {gone}. model gone: expected a directory of "
            f"versions at {base.parent / 'gone'}, got nothing there",
        )
        code, text = refused(lambda: reload(tiny=("relative", {})))
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert text.startswith("Expected model tiny to have an absolute path or URI")


@pytest.mark.long
def test_a_configuration_file_is_read_again_and_a_broken_one_changes_nothing(base, tiny):
    images, scores = tiny.goldens()
    path = base.parent / "models.config"
    path.write_text(f"{config(one=(base, {}))}")
    with ServerProcess(
        "", model_config_file=str(path), model_config_file_poll_wait_seconds=0.1
    ) as server:
        assert HttpClient(server.url, "one").status() == {1: "AVAILABLE"}
        path.write_text("model_config_list {")
        wait_for(lambda: any("Error parsing" in line for line in server.errors))
        time.sleep(0.5)
        assert sum("Error parsing" in line for line in server.errors) == 1, "said at every look"
        path.write_bytes(b"\xff")  # it is being written over
        wait_for(lambda: any("can't decode" in line for line in server.errors))
        path.write_text(f"{config(two=(base, {}))}")
        wait_for(lambda: HttpClient(server.url, "two").status() == {1: "AVAILABLE"})
        wait_for(lambda: HttpClient(server.url, "one").status() == {1: "END"})
        np.testing.assert_allclose(
            HttpClient(server.url, "two").predict(images), scores, atol=FLOAT_TOLERANCE
        )


def wait_for(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds(condition):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def holds(condition) -> bool:
    try:
        return condition()
    except Exception:  # the model is not there yet
        return False


def test_labels_may_come_before_their_versions_only_when_asked_to():
    configs = configs_of(config(m=("/models/m", {"next": 5})))
    repository = Repository([Model("m", Path("/models/m"), VersionPolicy())], lambda path: None)
    with pytest.raises(ServingError) as error:
        repository.label(configs)
    assert error.value.code == Code.FAILED_PRECONDITION
    repository.label(configs, allow_unavailable=True)
    assert repository.models["m"].labels == {"next": 5}
    with pytest.raises(ServingError), repository.lease("m", label="next"):
        pass
    other = configs_of(config(m=("/models/m", {"next": 6})))
    with pytest.raises(ServingError):  # a label that exists does not move to what is not there
        repository.label(other, allow_unavailable=True)


def test_configurations_that_come_at_the_same_time_follow_one_another(monkeypatch):
    """Or models of one would be served with the labels, or the logging, of another."""
    happened = []

    def configure(configs):
        happened.append(configs)
        time.sleep(0.05)
        return []

    repository = Repository([], lambda path: None)
    monkeypatch.setattr(repository, "configure", configure)
    monkeypatch.setattr(repository, "label", lambda configs, **more: happened.append(configs))
    core = Core(repository, Scheduler(1, 1), 1)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(core.reload, [["a"], ["b"], ["c"], ["d"]]))
    assert happened[::2] == happened[1::2]


# A command line of tensorflow_model_server, with its name replaced


@pytest.mark.long
def test_a_command_line_of_tensorflow_model_server_works_as_it_is(base, tiny, tmp_path):
    port, rest_port, unix = free_port(), free_port(), tmp_path / "grpc.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(unix))  # as a server leaves it that was killed
    stale.close()
    parameters = write(tmp_path / "batching", "max_batch_size { value: 4 }")
    monitoring = write(tmp_path / "monitoring", "prometheus_config { enable: true }")
    command = [
        *(sys.executable, "-m", "striate", "serve"),
        f"--port={port}",
        f"--rest_api_port={rest_port}",
        "--rest_api_timeout_in_ms=5000",
        "--model_name=default",
        f"--model_base_path={base}",
        f"--grpc_socket_path={unix}",
        "--enable_batching",
        f"--batching_parameters_file={parameters}",
        f"--monitoring_config_file={monitoring}",
        "--grpc_channel_arguments=grpc.max_connection_age_ms=20000,grpc.lb_policy_name=grpclb",
        "--enable_profiler=false",
        "--flush_filesystem_caches",
        "--tensorflow_intra_op_parallelism=1",
        "--enable_serialization_as_tensor_content=true",
        "--rest_api_enable_cors_support",
    ]
    images, scores = tiny.goldens()
    server = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        for line in server.stdout:
            if line.startswith("REST at"):
                break
        for address in (f"127.0.0.1:{port}", f"unix:{unix}"):
            with Client(address, "default") as client:
                np.testing.assert_allclose(client.predict(images), scores, atol=FLOAT_TOLERANCE)
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            found = stub.Predict(about(images, "default")).outputs["scores"]
            assert np.frombuffer(found.tensor_content, np.float32).size == scores.size
        url = f"http://127.0.0.1:{rest_port}"
        headers = {"Origin": "http://page.example", "Access-Control-Request-Method": "POST"}
        asked = urllib.request.Request(f"{url}/v1/models/default:predict", None, headers)
        asked.method = "OPTIONS"
        with urllib.request.urlopen(asked) as response:
            assert response.headers["Access-Control-Allow-Origin"] == "*"
        np.testing.assert_allclose(
            HttpClient(url, "default").predict(images), scores, atol=FLOAT_TOLERANCE
        )
    finally:
        server.terminate()
        _, errors = server.communicate(timeout=60)
    assert server.returncode == 0
    assert not unix.exists()
    assert errors.splitlines() == [
        "striate: --enable_profiler is ignored: there is no profiler service",
        "striate: --flush_filesystem_caches is ignored: files are read once, by the engine",
        "striate: grpc_channel_arguments: grpc.lb_policy_name has no effect here",
    ]


# TLS


def ssl_config(*, client_verify: bool = False, **pem: str) -> str:
    """An SSLConfig in protobuf's text format."""
    fields = "".join(f"{name}: {value!r}\n" for name, value in pem.items())
    return fields + f"client_verify: {str(client_verify).lower()}"


@pytest.mark.long
def test_tls_on_both_ports_and_clients_must_show_their_certificate(base, tiny, tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make certificates")
    _, authority = certificate(tmp_path, "authority")
    key, cert = certificate(tmp_path, "server", "authority")
    client_key, client_cert = certificate(tmp_path, "client", "authority")
    text = ssl_config(server_key=key, server_cert=cert, custom_ca=authority, client_verify=True)
    config = write(tmp_path / "ssl", text)
    images, _ = tiny.goldens()
    request = about(images)

    def ask(server, *pair):
        credentials = grpc.ssl_channel_credentials(authority.encode(), *pair)
        with grpc.secure_channel(f"localhost:{server.port}", credentials) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            return stub.Predict(request, timeout=10).model_spec.version.value

    with ServerProcess(base, ssl_config_file=config) as server:
        assert ask(server, client_key.encode(), client_cert.encode()) == 1
        with pytest.raises(grpc.RpcError):
            ask(server)
        url = f"https://localhost:{server.rest_port}/v1/models/tiny"
        context = ssl.create_default_context(cadata=authority)
        with pytest.raises((OSError, ssl.SSLError)):
            urllib.request.urlopen(url, context=context, timeout=10)
        context.load_cert_chain(tmp_path / "client.crt", tmp_path / "client.key")
        with urllib.request.urlopen(url, context=context, timeout=10) as response:
            assert response.status == 200
        with pytest.raises(ConnectionError):
            urllib.request.urlopen(url.replace("https", "http"), timeout=10)
        pair = client_key.encode(), client_cert.encode()
        credentials = grpc.ssl_channel_credentials(authority.encode(), *pair)
        with Client(f"localhost:{server.port}", "tiny", credentials=credentials) as client:
            assert client.status() == {1: "AVAILABLE"}
        base_url = f"https://localhost:{server.rest_port}"
        assert HttpClient(base_url, "tiny", context=context).status() == {1: "AVAILABLE"}


@pytest.mark.long
def test_who_fails_to_shake_hands_is_in_the_log_and_in_the_metrics(base, tmp_path):
    """On both ports; of many a second one has a line, and who only looks at a port has none."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make certificates")
    key, cert = certificate(tmp_path, "server")
    certificate(tmp_path, "old")
    expire = ["x509", "-in", "old.crt", "-signkey", "old.key", "-days", "-1", "-out", "expired.crt"]
    subprocess.run(["openssl", *expire], check=True, capture_output=True, cwd=tmp_path)
    authorities = cert + (tmp_path / "expired.crt").read_text()
    text = ssl_config(server_key=key, server_cert=cert, custom_ca=authorities, client_verify=True)

    def shake(port: int, *pair: str) -> None:
        context = ssl.create_default_context(cadata=cert)
        context.set_alpn_protocols(["h2", "http/1.1"])
        if pair:
            context.load_cert_chain(*(tmp_path / name for name in pair))
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("localhost", port), 10) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            connection.recv(1)

    def speak(port: int, text: bytes) -> None:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("localhost", port), 10) as plain,
        ):
            plain.sendall(text)
            plain.recv(100)

    failures = [
        (speak, [b"GET / HTTP/1.1\r\n\r\n"], "it speaks no TLS"),
        (speak, [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], "it speaks no TLS"),
        (shake, [], "it shows no certificate"),
        (shake, ["expired.crt", "old.key"], "its certificate is refused (certificate has expired)"),
    ]
    context = ssl.create_default_context(cadata=cert)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    with ServerProcess(base, ssl_config_file=write(tmp_path / "ssl", text)) as server:
        for port, entrypoint in ((server.port, "GRPC"), (server.rest_port, "REST")):
            socket.create_connection(("127.0.0.1", port)).close()
            for fail, given, why in failures:
                said = len(server.errors)
                fail(port, *given)
                wait_for(lambda so_far=said: len(server.errors) > so_far)
                line = server.errors[said]
                assert re.search(rf" (ipv4:)?127.0.0.1:\d+: TLS over {entrypoint} failed: ", line)
                assert line.endswith(f"failed: {why}\n")
                time.sleep(1)
        said = len(server.errors)
        for _ in range(20):
            speak(server.port, b"GET / HTTP/1.1\r\n\r\n")
        assert len(server.errors) <= said + 5
        url = f"https://localhost:{server.rest_port}/metrics"
        with urllib.request.urlopen(url, context=context, timeout=10) as response:
            metrics = response.read().decode()
    assert 'striate_tls_failed_total{entrypoint="GRPC"} 24' in metrics
    assert 'striate_tls_failed_total{entrypoint="REST"} 4' in metrics


@pytest.mark.long
def test_a_renewed_certificate_is_met_by_who_connects_then_on_both_ports(base, tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make certificates")
    names = "first", "second", "broken"
    pairs = {name: certificate(tmp_path, name) for name in names}
    config = tmp_path / "ssl"

    def put(name: str, **more) -> None:
        """As a secret is replaced that Kubernetes mounts: whole, and at once."""
        key, cert = pairs[name]
        text = ssl_config(server_key=key, server_cert=cert, **more)
        if name == "broken":
            text = text.replace("BEGIN CERT", "BEGIN")
        new = tmp_path / "new"
        new.write_text(text)
        new.replace(config)

    def met(port: int, protocol: str) -> str:
        """Whose certificate a client meets that names no server."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols([protocol])
        with (
            socket.create_connection(("127.0.0.1", port), 10) as plain,
            context.wrap_socket(plain) as connection,
        ):
            assert connection.selected_alpn_protocol() in (protocol, None)
            assert protocol != "h2" or connection.selected_alpn_protocol() == "h2"
            shown = ssl.DER_cert_to_PEM_cert(connection.getpeercert(binary_form=True))
        return next(n for n in names if pairs[n][1].strip() == shown.strip())

    put("first")
    with ServerProcess(base, ssl_config_file=str(config)) as server:
        ports = [(server.port, "h2"), (server.rest_port, "http/1.1")]
        assert [met(*port) for port in ports] == ["first", "first"]
        context = ssl.create_default_context(cadata=pairs["first"][1])
        kept = http.client.HTTPSConnection("localhost", server.rest_port, context=context)
        kept.request("GET", "/healthz")
        assert kept.getresponse().read()
        put("second")
        wait_for(lambda: [met(*port) for port in ports] == ["second", "second"])
        kept.request("GET", "/healthz")  # who had connected goes on
        assert kept.getresponse().status == 200
        kept.close()
        put("broken")
        wait_for(lambda: any("ssl: expected server_cert as PEM" in line for line in server.errors))
        assert "the key and certificate before it go on" in "".join(server.errors)
        assert [met(*port) for port in ports] == ["second", "second"]
        put("first", custom_ca=pairs["first"][1], client_verify=True)  # whom to let in, too
        wait_for(lambda: any("new key and certificate" in line for line in server.errors[-1:]))
        context = ssl.create_default_context(cadata=pairs["first"][1])
        url = f"https://localhost:{server.rest_port}/healthz"
        with pytest.raises((OSError, ssl.SSLError)):
            urllib.request.urlopen(url, context=context, timeout=10)
        context.load_cert_chain(tmp_path / "first.crt", tmp_path / "first.key")
        wait_for(lambda: urllib.request.urlopen(url, context=context, timeout=10).status == 200)


def test_changes_of_models_do_not_wait_for_ever_for_the_one_before(monkeypatch):
    """Which waits for a disk that does not answer, say; each that waits has a thread."""
    monkeypatch.setattr("striate.serve.core.RELOADING", 0.05)
    core = Core(Repository([], open), Scheduler(1, 1), 1)
    with core._reloading, pytest.raises(ServingError, match="still being loaded") as raised:
        core.reload([])
    assert raised.value.code == Code.UNAVAILABLE
    core.reload([])


KEY, CERT = "-----BEGIN PRIVATE KEY-----", "-----BEGIN CERTIFICATE-----"


def test_an_ssl_config_that_nobody_could_connect_with_is_one_line(tmp_path):
    for text, message in [
        ("client_verify: true", "expected server_key as PEM text, -----BEGIN ... PRIVATE KEY"),
        ('server_key: "/etc/key.pem" server_cert: "/etc/cert.pem"', "expected server_key as PEM"),
        (f'server_key: "{KEY}" server_cert: "{KEY}"', "expected server_cert as PEM text"),
        (f'server_key: "{KEY}" server_cert: "{CERT}"', "server_cert is dam"),
    ]:
        with pytest.raises(UsageError, match=message):
            Tls.read(write(tmp_path / "ssl", text))


def test_a_full_disk_is_one_line_where_a_key_is_to_be_loaded(tmp_path, monkeypatch):
    """Else a certificate that is renewed meanwhile would never be taken up."""

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", full)
    with pytest.raises(UsageError, match=r"no temporary file can be written .* \(No space left"):
        Tls.read(write(tmp_path / "ssl", f'server_key: "{KEY}" server_cert: "{CERT}"'))


def test_a_certificate_that_clients_refuse_and_an_encrypted_key_are_one_line(tmp_path):
    """The key without a question at the terminal, which would hold the server up for ever."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make certificates")
    key, cert = certificate(tmp_path, "sound")
    mine = ["-in", tmp_path / "sound.crt", "-signkey", tmp_path / "sound.key"]
    locking = ["-aes256", "-passout", "pass:x", "-in", tmp_path / "sound.key"]
    old, locked = (
        subprocess.run(["openssl", *command], check=True, capture_output=True, text=True).stdout
        for command in (["x509", *mine, "-days", "-1"], ["pkey", *locking])
    )
    other, _ = certificate(tmp_path, "other")
    told = {"server_key": key, "server_cert": cert}
    for changed, message in [
        ({"server_cert": old}, "clients refuse this server_cert: .* has expired"),
        ({"server_key": locked}, "expected a server_key without a pass phrase"),
        ({"custom_ca": key}, "custom_ca holds no certificate"),
        ({"server_key": other}, "server_key is not the key of server_cert$"),
        ({"server_key": key[:300]}, "server_key is damaged, OpenSSL cannot read it"),
        ({"server_cert": cert[:300]}, "server_cert is damaged, OpenSSL cannot read it"),
        ({"server_cert": cert + cert[:300]}, "server_cert is damaged, OpenSSL cannot read it"),
    ]:
        config = write(tmp_path / "ssl", ssl_config(**{**told, **changed}))
        with pytest.raises(UsageError, match=f"ssl: {message}"):
            Tls.read(config)
    # Of those that sign it, clients may know others
    chain = f"subject=CN = Z\u00fcrich\n{cert}{old}"
    sound = ssl_config(server_key=key, server_cert=chain)
    assert Tls.read(write(tmp_path / "ssl", sound)).server_cert == chain
