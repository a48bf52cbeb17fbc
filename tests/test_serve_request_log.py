"""The request log: what was asked and answered, kept so that it can be asked again."""

import hashlib
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.protobuf import text_format

from making import ROOT
from served import ServerProcess, certificate
from striate.errors import UsageError
from striate.serve import protos, tensors
from striate.serve.client import Client
from striate.serve.loading import WARMUP, records, warm_up
from striate.serve.observe.request_log import Logged, RequestLog, crc32c, record
from striate.serve.options import ModelConfig, Sampling, ServerOptions
from striate.serve.repository.servable import open_artifact
from striate.serve.status import Code, ServingError

pytest_plugins = ["serving_fixtures"]


ALL = Sampling(1.0)
PEM = (("cacert", "crt"), ("cert", "crt"), ("key", "key"))


def entries(directory) -> list:
    files = sorted(directory.glob("*.tfrecord"))
    parse = protos.prediction_log_pb2.PredictionLog.FromString
    return [parse(data) for file in files for data in records(file)]


def logged(model: str = "m", number: int = 0) -> Logged:
    pixels = np.full((1, 4, 4, 3), number, np.uint8)
    return Logged(model, 7, "s", 1e9, {"image": pixels}, {"scores": np.zeros((1, 2), np.float32)})


@pytest.fixture(scope="module")
def kept(tiny, picture, tmp_path_factory):
    """(server, directory) after three requests that are answered, and one that is not."""
    directory = tmp_path_factory.mktemp("requests")
    options = {"request_log_dir": str(directory), "request_log_sampling_rate": 1.0}
    with ServerProcess(tiny.path.parent, **options) as server:
        with Client(server.address, "tiny") as client:
            client.predict(tiny.goldens()[0])
            client.predict([picture])
            with pytest.raises(Exception, match="expects shape"):
                client.predict(np.zeros((1, 5, 5, 3), np.uint8))
        url = f"{server.url}/v1/models/tiny:classify"
        headers = {"Content-Type": "image/png"}
        urllib.request.urlopen(urllib.request.Request(url, picture, headers)).close()
        deadline = time.monotonic() + 60
        while len(entries(directory)) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield server, directory


def test_requests_of_every_protocol_are_kept_with_their_answers(kept, tiny, picture):
    _, directory = kept
    first, second, third = entries(directory)
    images, scores = tiny.goldens()
    asked, answered = first.predict_log.request, first.predict_log.response
    np.testing.assert_array_equal(tensors.from_proto(asked.inputs["image"], 1 << 20), images)
    found = tensors.from_proto(answered.outputs["scores"], 1 << 20)
    np.testing.assert_allclose(found, scores, atol=1e-4)
    assert first.log_metadata.model_spec.name == "tiny"
    assert first.log_metadata.model_spec.version.value == 1
    assert first.log_metadata.sampling_config.sampling_rate == 1
    assert abs(time.time() - first.log_metadata.timestamp_secs) < 600
    assert second.predict_log.request.inputs["image_bytes"].string_val == [picture]
    assert third.predict_log.request.inputs["image"].tensor_shape.dim[1].size == 32


def replay(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "serving" / "replay.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_what_was_kept_can_be_asked_again(kept):
    server, directory = kept
    before = len(entries(directory))
    files = sorted(map(str, directory.glob("*.tfrecord")))
    ran = replay(server.address, *files)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert f"{before} requests were answered, 0 refused" in ran.stdout
    assert "the best class is the same of 100.0%" in ran.stdout


@pytest.mark.long
def test_a_server_with_keys_and_tls_can_be_asked_again_and_refusals_are_no_success(
    kept, tiny, tmp_path
):
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make certificates")
    key, cert = certificate(tmp_path, "server")
    config, keys = tmp_path / "ssl", tmp_path / "keys.yaml"
    config.write_text(
        f"server_key: {key!r} server_cert: {cert!r} custom_ca: {cert!r} client_verify: true"
    )
    digest = hashlib.sha256(b"secret").hexdigest()
    keys.write_text(f'keys: [{{name: me, sha256: "{digest}", models: "*"}}]')
    files = sorted(map(str, kept[1].glob("*.tfrecord")))
    shown = [f"--{name}={tmp_path / 'server'}.{end}" for name, end in PEM]
    options = {"ssl_config_file": str(config), "api_keys_file": str(keys)}
    with ServerProcess(tiny.path.parent, **options) as server:
        address = f"localhost:{server.port}"
        ran = replay(address, *files, *shown, "--header=authorization=Bearer secret")
        assert (ran.returncode, ran.stderr) == (0, "")
        assert ", 0 refused" in ran.stdout
        for more, why in [(shown, "UNAUTHENTICATED: Expected an API key"), ([], "UNAVAILABLE: ")]:
            ran = replay(address, *files, *more)
            assert ran.returncode == 1
            count = len(entries(kept[1]))
            assert ran.stderr.startswith(f"{count} of {count} requests were refused: {why}")
            assert ran.stderr.count("\n") == 1
            assert ran.stdout == f"0 requests were answered, {count} refused\n"


@pytest.mark.long
def test_what_cannot_be_replayed_is_one_line(tmp_path):
    text = tmp_path / "text"
    text.write_text("# no records\n" * 9)
    other = tmp_path / "other"
    other.write_bytes(record(b"no message"))
    nothing = tmp_path / "nothing"
    nothing.touch()
    for arguments, line in [
        (["127.0.0.1:9", str(nothing)], "expected requests in the files, got none"),
        (["127.0.0.1:9", str(tmp_path / "none")], f"{tmp_path}/none: No such file or directory"),
        (["127.0.0.1:9", str(text)], f"{text}: expected TFRecords, whole ones; one is cut off"),
        (["127.0.0.1:9", str(other)], "expected records of PredictionLog (Error parsing message"),
    ]:
        ran = replay(*arguments)
        assert ran.returncode == 1
        assert ran.stderr.startswith(line)
        assert ran.stderr.count("\n") == 1
    ran = replay()
    assert ran.returncode == 2
    assert ran.stderr.startswith("usage: replay.py ")


def test_what_was_kept_warms_a_version_up(kept, tiny, tmp_path, monkeypatch):
    _, directory = kept
    (tmp_path / WARMUP).parent.mkdir()
    shutil.copy(min(directory.glob("*.tfrecord")), tmp_path / WARMUP)
    servable = open_artifact(tiny.path, engine="onnx", workers=1, threads=1)
    asked = []
    monkeypatch.setattr(servable, "run", lambda ask, feeds: asked.append(len(feeds["image"])))
    warm_up(tmp_path, servable, times=1)
    assert asked[:3] == [4, 1, 1]


def test_tensorflow_reads_the_files_and_their_checksums(tmp_path):
    import tensorflow as tf

    log = RequestLog(tmp_path, 1.0)
    for number in range(3):
        log.write(logged(number=number), ALL)
    log.close()
    found = list(tf.data.TFRecordDataset([str(path) for path in tmp_path.iterdir()]))
    assert len(found) == 3
    assert [found[i].numpy() for i in range(3)] == [
        e.SerializeToString() for e in entries(tmp_path)
    ]


def test_the_checksum_is_that_of_the_standard():
    assert crc32c(b"123456789") == 0xE3069283  # RFC 3720, and the catalogues of checksums
    assert crc32c(b"\0" * 32) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E


def test_files_are_begun_anew_and_the_oldest_go(tmp_path):
    (tmp_path / "another-20200101T000000.000000.tfrecord").touch()
    (tmp_path / "m-other-20200101T000000.000000.tfrecord").touch()
    log = RequestLog(tmp_path, 1.0, file_bytes=500, files=3)
    for number in range(20):
        log.write(logged(number=number), ALL)
    log.close()
    mine = sorted(tmp_path.glob("m-2*"))
    assert len(mine) == 3
    assert all(path.stat().st_size <= 500 for path in mine)
    assert len(list(tmp_path.iterdir())) == 5  # those of other models stay
    last = list(records(mine[-1]))[-1]
    entry = protos.prediction_log_pb2.PredictionLog.FromString(last).predict_log
    assert tensors.from_proto(entry.request.inputs["image"], 1 << 20).max() == 19


def test_a_models_name_is_no_path(tmp_path):
    log = RequestLog(tmp_path / "log", 1.0)
    log.write(logged("../../etc/m"), ALL)
    log.close()
    assert [path.name[:16] for path in (tmp_path / "log").iterdir()] == ["..%2F..%2Fetc%2F"]


def test_a_full_disk_costs_records_and_leaves_whole_ones(tmp_path, monkeypatch):
    log = RequestLog(tmp_path, 1.0)
    log.write(logged(number=1), ALL)
    log.close()
    (path,) = tmp_path.iterdir()
    half = RequestLog(tmp_path, 1.0)
    half._current[tmp_path / "m"] = path
    monkeypatch.setattr("striate.serve.observe.request_log.record", Torn)
    half.write(logged(number=2), ALL)
    half.close()
    assert half.counts == {("m", Code.UNAVAILABLE): 1}
    assert len(entries(tmp_path)) == 1


def test_of_records_that_are_lost_the_log_has_a_line_a_second(tmp_path, monkeypatch, caplog):
    log = RequestLog(tmp_path, 1.0)
    monkeypatch.setattr("striate.serve.observe.request_log.record", Torn)
    for number in range(9):
        log.write(logged(number=number), ALL)
    log.close()
    assert log.counts == {("m", Code.UNAVAILABLE): 9}
    assert len(caplog.messages) == 1


class Torn(bytes):
    """A record that seems longer than what is written of it, as on a disk that is full."""

    def __new__(cls, data: bytes) -> "Torn":
        return super().__new__(cls, record(data)[:-7])

    def __len__(self) -> int:
        return super().__len__() + 7


def test_the_sample_has_the_share_that_was_asked_for(tmp_path):
    assert not any(RequestLog(tmp_path, 0.0).sample("m") for _ in range(100))
    assert not any(RequestLog("", 1.0).sample("m") for _ in range(100))
    assert all(RequestLog(tmp_path, 1.0).sample("m") for _ in range(100))
    log = RequestLog(tmp_path, 0.3)
    # 2000 draws: a standard deviation of 0.01
    assert np.mean([log.sample("m") is not None for _ in range(2000)]) == pytest.approx(
        0.3, abs=0.05
    )


def test_a_models_own_share_and_files_come_before_those_of_all(tmp_path):
    log = RequestLog(tmp_path / "all", 1.0)
    mine = Sampling(1.0, str(tmp_path / "mine" / "of-m"))
    log.configure([config("m", mine), config("silent", Sampling(0.0)), config("like all")])
    assert log.sample("silent") is None
    for name in ("m", "like all"):
        log.write(logged(name), log.sample(name))
    log.configure([])
    log.close()
    assert log.sample("silent")
    assert [path.name[:5] for path in (tmp_path / "mine").iterdir()] == ["of-m-"]
    assert [path.name[:11] for path in (tmp_path / "all").iterdir()] == ["like%20all-"]


def config(name: str, sampling: Sampling | None = None) -> ModelConfig:
    return ModelConfig(name, Path("/m"), logged=sampling)


def test_a_log_that_nobody_says_where_to_write_is_refused():
    with pytest.raises(ServingError, match="Model m: expected an absolute filename_prefix"):
        RequestLog("", 0.0).configure([config("m", Sampling(0.5, "relative"))])


LOGGING = """model_config_list {{ config {{
  name: "tiny" base_path: "{path}" model_platform: "tensorflow"
  logging_config {{
    log_collector_config {{ type: "{kind}" filename_prefix: "{prefix}" }}
    sampling_config {{ sampling_rate: {share} }}
  }}
}} }}"""


def test_the_logging_config_of_a_model_is_kept_to_and_reloaded(tiny, tmp_path):
    text = {"path": tiny.path.parent, "kind": "", "share": 1.0}
    file = tmp_path / "models.config"
    file.write_text(LOGGING.format(prefix=tmp_path / "kept" / "some", **text))
    images, _ = tiny.goldens()

    def reload(prefix: str, **more) -> None:
        request = protos.model_management_pb2.ReloadConfigRequest()
        text_format.Parse(LOGGING.format(prefix=prefix, **{**text, **more}), request.config)
        stub.HandleReloadConfigRequest(request)

    options = {"model_config_file": str(file), "request_log_dir": str(tmp_path / "all")}
    with ServerProcess("", **options) as server, Client(server.address, "tiny") as client:
        client.predict(images[:1])
        with grpc.insecure_channel(server.address) as channel:
            stub = protos.model_service_pb2_grpc.ModelServiceStub(channel)
            reload("others")
            client.predict(images[:2])
            for prefix in ("/tmp/elsewhere", "a/../../b"):
                with pytest.raises(grpc.RpcError) as error:
                    reload(prefix)
                assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
                assert "expected a filename_prefix below --request_log_dir" in error.value.details()
            with pytest.raises(grpc.RpcError) as error:
                reload("", kind="elsewhere")
            wanted = "Cannot find LogCollector::Factory for type: elsewhere"
            assert error.value.details() == wanted
            reload("others", share=0.0)
            client.predict(images[:3])
        with urllib.request.urlopen(f"{server.url}/metrics") as response:
            assert "striate_request_log_lost_total 0" in response.read().decode()
    (first,), (second,) = entries(tmp_path / "kept"), entries(tmp_path / "all")
    assert first.log_metadata.sampling_config.sampling_rate == 1
    assert first.predict_log.request.inputs["image"].tensor_shape.dim[0].size == 1
    assert second.predict_log.request.inputs["image"].tensor_shape.dim[0].size == 2
    assert [path.name[:7] for path in (tmp_path / "all").iterdir()] == ["others-"]


def test_what_cannot_be_is_said_at_the_start(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="request_log_dir"):
        RequestLog(tmp_path / "file" / "log", 1.0)
    with pytest.raises(UsageError, match="request_log_sampling_rate from 0 to 1, got 2"):
        ServerOptions("m", request_log_sampling_rate=2)
