"""From a directory to what answers: whose model it is, its warm-up, and what is not whole yet."""

import shutil
import signal
import socket
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from striate import runtime
from striate.errors import ArtifactError, EngineError
from striate.runtime import FLOAT_TOLERANCE
from striate.runtime.session import UNAVAILABLE, Channel
from striate.serve import loading, tensors
from striate.serve.loading import WARMUP, Loader
from striate.serve.options import ServerOptions, VersionPolicy
from striate.serve.protos import predict_pb2, prediction_log_pb2
from striate.serve.repository import Model, Repository, Retries, complete_versions, servable
from striate.serve.repository.servable import open_artifact, preferred
from striate.serve.signatures import DEFAULT, PREDICT, Signature, TensorSpec

pytest_plugins = ["serving_fixtures"]


class Remembers:
    """Stands for a servable; `asked` are the first dimensions it was asked about."""

    item_bytes = 0
    signatures = {  # noqa: RUF012
        DEFAULT: Signature(DEFAULT, PREDICT, {"x": TensorSpec(np.dtype("float32"), (-1,))}, {})
    }

    def __init__(self):
        self.asked = []

    def run(self, ask, feeds):
        self.asked.append(len(feeds["x"]))
        return {}


def predict_log(array, name="x") -> bytes:
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.model_spec.name = "m"
    log.predict_log.request.inputs[name].CopyFrom(tensors.to_proto(array))
    return log.SerializeToString()


def write_records(version: Path, *records: bytes) -> None:
    path = version / WARMUP
    path.parent.mkdir(parents=True, exist_ok=True)
    framed = [struct.pack("<QI", len(r), 0) + r + struct.pack("<I", 0) for r in records]
    path.write_bytes(b"".join(framed))


def test_warm_up_requests_are_replayed_as_often_as_asked(tmp_path):
    servable = Remembers()
    loading.warm_up(tmp_path, servable, 2)  # none is no mistake
    write_records(tmp_path, predict_log(np.zeros(3, np.float32)), predict_log(np.float32([1])))
    loading.warm_up(tmp_path, servable, 2)
    assert servable.asked == [3, 3, 1, 1]


def test_a_warm_up_that_is_refused_fails_the_version(tmp_path):
    session = prediction_log_pb2.PredictionLog()
    session.session_run_log.request.SetInParent()
    for records, message in [
        ([predict_log(np.zeros(3, np.int32))], r"record 0 is refused \(Expects arg\[0\] to be fl"),
        ([predict_log(np.float32([1]), "y")], "record 0 is refused"),
        ([session.SerializeToString()], "Unsupported log_type for warmup: session_run_log"),
        ([predict_log(np.float32([1]))] * 1001, r"exceeds the maximum \(1000\)"),
        ([b"no message"], r"record 0 is refused \(Error parsing"),
    ]:
        write_records(tmp_path, *records)
        with pytest.raises(ArtifactError, match=message):
            loading.warm_up(tmp_path, Remembers(), 1)
    for damaged in (b"\x10\x00", b"# a text that is no record\n" * 9):  # 2 ** 61 bytes, it seems
        (tmp_path / WARMUP).write_bytes(damaged)
        with pytest.raises(ArtifactError, match="is cut off"):
            loading.warm_up(tmp_path, Remembers(), 1)


def test_what_export_writes_for_warm_up_is_replayed(tiny):
    request = predict_pb2.PredictRequest()
    (record,) = loading.records(tiny.path / WARMUP)
    request.CopyFrom(prediction_log_pb2.PredictionLog.FromString(record).predict_log.request)
    assert request.model_spec.signature_name == "serving_default"
    servable = Loader(ServerOptions(tiny.path, workers=1)).open(tiny.path)
    assert servable.engine == "onnx"
    assert 0 <= servable.difference <= FLOAT_TOLERANCE


def test_a_litert_file_alone_is_served_by_its_signature(tiny, tmp_path):
    (tmp_path / "1").mkdir()
    shutil.copy(tiny.path / "model.tflite", tmp_path / "1")
    assert list(complete_versions(tmp_path)) == [1]
    servable = Loader(ServerOptions(tmp_path, workers=2)).open(tmp_path / "1")
    (signature,) = servable.signatures.values()
    assert signature.name == DEFAULT
    assert {n: s.dtype for n, s in signature.inputs.items()} == {"image": np.dtype("uint8")}
    images, scores = tiny.goldens()
    for n in (1, len(images)):
        found = servable.run(DEFAULT, {"image": images[:n]})
        np.testing.assert_allclose(found["scores"], scores[:n], atol=FLOAT_TOLERANCE)
    (tmp_path / "1" / "model.tflite").write_bytes(b"no model")
    with pytest.raises(ArtifactError, match="LiteRT cannot load it"):
        Loader(ServerOptions(tmp_path, workers=1)).open(tmp_path / "1")


@pytest.mark.parametrize("file", ["model.onnx", "model.tflite"])
def test_a_file_alone_names_its_classes(tiny, tmp_path, file):
    (tmp_path / "1").mkdir()
    shutil.copy(tiny.path / file, tmp_path / "1")
    servable = Loader(ServerOptions(tmp_path, workers=1)).open(tmp_path / "1")
    assert servable.artifact is None
    assert servable.labels == tiny.labels


@pytest.mark.parametrize("labels", [None, "cat, dog", '{"0": "cat"}', "[1, 2]"])
def test_an_onnx_file_with_no_list_of_labels_is_served_without(tiny, tmp_path, labels):
    import onnx

    model = onnx.load(tiny.path / "model.onnx")
    onnx.helper.set_model_props(model, {} if labels is None else {"labels": labels})
    (tmp_path / "1").mkdir()
    onnx.save(model, tmp_path / "1" / "model.onnx")
    assert Loader(ServerOptions(tmp_path, workers=1)).open(tmp_path / "1").labels == []


def test_the_packed_form_answers_where_there_is_one():
    assert preferred(["onnx", "litert", "packed", "runner"]) == "packed"
    assert preferred(["onnx", "litert"]) == "onnx"
    assert preferred([]) == "auto"


@pytest.mark.parametrize(
    ("held", "engine", "said"),
    [
        (["keras"], None, "holds no form that a quick engine reads, so TensorFlow or Keras is"),
        (["keras"], "auto", "after `striate export "),
        (["onnx", "keras"], "keras", "the keras engine takes some seconds to load"),
        (["onnx", "keras"], None, ""),
    ],
)
def test_a_slow_engine_is_announced_before_it_is_loaded(
    tiny, monkeypatch, caplog, held, engine, said
):
    def opened(*arguments):
        said_before.extend(caplog.messages)
        raise EngineError("as slow as that")

    said_before = []
    for module in (runtime, servable):
        monkeypatch.setattr(module, "usable", lambda artifact: held)
    monkeypatch.setattr(servable, "_open_engines", opened)
    with pytest.raises(EngineError):
        open_artifact(tiny.path, engine=engine, workers=1, threads=1)
    assert len(said_before) == bool(said)
    assert all(said in line and str(tiny.path) in line for line in said_before)


def test_litert_is_preferred_when_asked_for(tiny):
    options = ServerOptions(tiny.path, workers=1, prefer_tflite_model=True)
    assert Loader(options).open(tiny.path).engine == "litert"


def test_half_of_an_artifact_is_no_model_of_somebody_else(tiny, tmp_path):
    version = tmp_path / "1"
    version.mkdir()
    shutil.copy(tiny.path / "saved_model.pb", version)
    shutil.copy(tiny.path / "model.keras", version)
    assert complete_versions(tmp_path) == {}
    (version / "model.keras").unlink()
    assert list(complete_versions(tmp_path)) == [1]


class Opened:
    engine, kernel, seconds = "none", "none at all", 0.5

    def close(self):
        pass


def put_foreign(base: Path, number: int, content: str) -> None:
    (base / str(number)).mkdir(exist_ok=True)
    (base / str(number) / "saved_model.pb").write_text(content)


def test_a_model_without_a_manifest_is_loaded_when_it_stopped_changing(tmp_path):
    put_foreign(tmp_path, 1, "whole")
    found = Repository([Model("m", tmp_path, VersionPolicy())], lambda path: Opened())
    found.refresh()
    assert found.models["m"].available() == [1]  # at the start it is waited for
    put_foreign(tmp_path, 2, "ha")
    found.refresh()
    put_foreign(tmp_path, 2, "half")
    found.refresh()
    assert found.models["m"].available() == [1]
    found.refresh()
    assert found.models["m"].available() == [2]


def test_a_version_that_failed_is_tried_again_so_many_times(tmp_path):
    put_foreign(tmp_path, 1, "whole")
    tried = []

    def opening(path):
        tried.append(path.name)
        raise OSError("out of memory")

    model = Model("m", tmp_path, VersionPolicy())
    found = Repository([model], opening, retries=Retries(most=2, seconds=0.0))
    for _ in range(5):
        found.refresh()
    assert tried == ["1"] * 3
    (version,) = found.statuses("m")
    assert (version.message, version.state.name) == ("out of memory", "END")


def test_a_retry_waits_its_time_and_may_succeed(tmp_path):
    put_foreign(tmp_path, 1, "whole")
    tried = []

    def opening(path):
        tried.append(path.name)
        if len(tried) == 1:
            raise OSError("out of memory")
        return Opened()

    model = Model("m", tmp_path, VersionPolicy())
    found = Repository([model], opening, retries=Retries(most=5, seconds=3600))
    found.refresh()
    found.refresh()
    assert tried == ["1"]
    model.versions[1].retry_at = 0.0  # an hour later
    found.refresh()
    assert model.available() == [1]


def test_versions_are_loaded_side_by_side_when_there_are_threads_for_it(tmp_path):
    import threading

    for number in (1, 2, 3):
        put_foreign(tmp_path, number, "whole")
    together = threading.Barrier(3)

    def opening(path):
        together.wait(10)
        return Opened()

    model = Model("m", tmp_path, VersionPolicy("all"))
    Repository([model], opening, load_threads=3).refresh()
    assert model.available() == [1, 2, 3]


def test_models_of_tensorflow_that_are_loaded_side_by_side_share_its_process(tmp_path, monkeypatch):
    def opened(process, path, session):
        return process

    paths = [tmp_path / str(number) for number in range(4)]
    for path in paths:
        path.mkdir()
        (path / "saved_model.pb").touch()
    monkeypatch.setattr(loading, "SavedModelServable", opened)
    loader = Loader(ServerOptions(tmp_path, enable_model_warmup=False))
    with ThreadPoolExecutor(len(paths)) as pool:
        assert len(set(pool.map(loader.open, paths))) == 1


@pytest.mark.long
def test_tensorflows_process_ends_with_the_servers_socket_and_not_by_signals():
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, "-m", "striate.runtime.session", str(theirs.fileno()), "1"]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
    channel = Channel(ours)
    for number in (None, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number is not None:
            process.send_signal(number)  # as systemd does to every process of a service
        channel.send((0, "run", 1, DEFAULT, {}))
        assert channel.recv()[1] == UNAVAILABLE
    channel.close()
    assert process.wait(20) == 0
