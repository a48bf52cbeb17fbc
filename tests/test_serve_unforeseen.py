"""Requests that end as nobody foresaw: memory runs out, or something of ours is wrong."""

import json
import urllib.error
import urllib.request

import grpc
import numpy as np
import pytest

from served import free_port
from striate.serve import Server, ServerOptions, tensors
from striate.serve.grpc_server.calls import Call
from striate.serve.protos import predict_pb2, prediction_service_pb2_grpc
from striate.serve.repository.foreign_onnx import OnnxServable
from striate.serve.seldom import Seldom
from striate.serve.signatures import DEFAULT, PREDICT, Signature, TensorSpec
from striate.serve.status import Code, ServingError
from striate.serve.unforeseen import FULL

FLOATS = TensorSpec(np.dtype("float32"), (-1,))

# As ONNX Runtime, TensorFlow and numpy say it
NO_MEMORY = [
    MemoryError(),
    RuntimeError("[ONNXRuntimeError] : 1 : FAIL : Failed to allocate memory for requested buffer"),
    RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : std::bad_alloc"),
    RuntimeError("CUDA failure 2: out of memory"),
    RuntimeError("OOM when allocating tensor with shape[1,2]"),
]


class Failing:
    """Stands for a servable whose engine raises what it is told to."""

    engine, kernel, seconds, difference = "none", "none", 0.5, None
    labels: list[str] = []  # noqa: RUF012
    item_bytes = 0
    artifact = None
    signatures = {  # noqa: RUF012
        DEFAULT: Signature(DEFAULT, PREDICT, {"x": FLOATS}, {"y": FLOATS})
    }
    error: Exception = MemoryError()

    def run(self, ask, feeds):
        raise self.error

    def close(self):
        pass


@pytest.fixture(scope="module")
def failing(tmp_path_factory):
    """(servable, server) on both ports, in this process."""
    base = tmp_path_factory.mktemp("models") / "m"
    (base / "1").mkdir(parents=True)
    (base / "1" / "saved_model.pb").write_text("it is never read")
    servable = Failing()
    options = ServerOptions(base, host="127.0.0.1", port=free_port(), rest_api_port=free_port())
    server = Server(options)
    server.repository._open_version = lambda path: servable
    with server:
        yield servable, server


def over_grpc(server: Server) -> grpc.RpcError:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "m"
    request.inputs["x"].CopyFrom(tensors.to_proto(np.float32([1])))
    with grpc.insecure_channel(f"127.0.0.1:{server.options.port}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        with pytest.raises(grpc.RpcError) as raised:
            stub.Predict(request, timeout=20)
    return raised.value


def over_rest(server: Server, body: bytes = b'{"instances": [1]}') -> tuple[int, str]:
    url = f"http://127.0.0.1:{server.options.rest_api_port}/v1/models/m:predict"
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(url, body, timeout=20)
    return raised.value.code, json.load(raised.value)["error"]


@pytest.mark.parametrize("error", NO_MEMORY)
def test_memory_that_runs_out_is_a_line_and_a_code_of_its_own(failing, error, caplog, monkeypatch):
    monkeypatch.setattr("striate.serve.unforeseen._seldom", Seldom())
    servable, server = failing
    servable.error = error
    refused = over_grpc(server)
    assert (refused.code(), refused.details()) == (grpc.StatusCode.RESOURCE_EXHAUSTED, FULL)
    assert over_rest(server) == (429, FULL)
    assert caplog.messages == ["Predict: memory ran out"]  # of many, one line a second
    assert caplog.records[0].exc_info is None
    counts = server.core.counters.snapshot().values()
    assert any(Code.RESOURCE_EXHAUSTED in count.codes for count in counts)


def test_a_mistake_of_ours_is_a_line_for_the_client_and_all_of_it_in_the_log(failing, caplog):
    servable, server = failing
    servable.error = ZeroDivisionError("of ours")
    refused = over_grpc(server)
    said = "ZeroDivisionError: of ours"
    assert (refused.code(), refused.details()) == (grpc.StatusCode.INTERNAL, said)
    assert over_rest(server) == (500, said)
    assert caplog.messages == ["Predict", "POST /v1/models/m:predict"]
    assert all(record.exc_info[1] is servable.error for record in caplog.records)


def test_a_body_that_there_is_no_memory_for_is_refused(failing, caplog, monkeypatch):
    async def full(*given):
        raise MemoryError

    monkeypatch.setattr("striate.serve.protocols.web._body", full)
    _, server = failing
    assert over_rest(server) == (429, FULL)
    assert not any(record.exc_info for record in caplog.records)


def test_a_message_that_there_is_no_memory_for_costs_its_call_or_its_connection(
    failing, caplog, monkeypatch
):
    def full(*given):
        raise MemoryError

    _, server = failing
    monkeypatch.setattr(Call, "_only_message", full)
    assert over_grpc(server).code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    monkeypatch.setattr("striate.serve.grpc_server.http2.Connection.received", full)
    assert over_grpc(server).code() == grpc.StatusCode.UNAVAILABLE
    assert not any(record.exc_info for record in caplog.records)


@pytest.mark.parametrize(
    ("error", "raised"), [(NO_MEMORY[1], RuntimeError), (RuntimeError("sizes"), ServingError)]
)
def test_an_onnx_file_without_memory_is_not_the_clients_mistake(error, raised):
    class Session:
        def run(self, *given):
            raise error

    servable = OnnxServable.__new__(OnnxServable)
    servable._session, servable.signatures = Session(), Failing.signatures
    with pytest.raises(raised, match=str(error)[:5].replace("[", r"\[")):
        servable.run(DEFAULT, {"x": np.float32([1])})
