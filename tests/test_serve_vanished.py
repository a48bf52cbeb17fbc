"""Clients that go away, over real sockets: what nobody waits for any more is not computed."""

import socket
import threading
import time

import grpc
import numpy as np
import pytest

from served import free_port
from striate.serve import tensors
from striate.serve.core import Core
from striate.serve.listeners import GrpcListener, HttpListener
from striate.serve.options import ServerOptions, VersionPolicy
from striate.serve.protos import predict_pb2, prediction_service_pb2_grpc
from striate.serve.repository import Model, Repository
from striate.serve.scheduler import Scheduler
from striate.serve.signatures import DEFAULT, PREDICT, Signature, TensorSpec

FLOATS = TensorSpec(np.dtype("float32"), (-1,))


class Slow:
    """Stands for a servable with one worker: it answers when it is let go, and remembers whom."""

    engine, kernel, seconds = "none", "none", 0.5
    labels: list[str] = []  # noqa: RUF012
    item_bytes = 0
    artifact = None
    signatures = {  # noqa: RUF012
        DEFAULT: Signature(DEFAULT, PREDICT, {"x": FLOATS}, {"y": FLOATS})
    }

    def __init__(self):
        self.asked: list[float] = []
        self.go = threading.Event()

    def run(self, ask, feeds):
        self.asked.append(float(feeds["x"][0]))
        self.go.wait(20)
        return {"y": feeds["x"]}

    def close(self):
        pass


@pytest.fixture
def slow(tmp_path):
    """(servable, options) of a server in this process, on both ports."""
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").write_text("it is never read")
    servable = Slow()
    repository = Repository([Model("m", tmp_path, VersionPolicy())], lambda path: servable)
    repository.refresh()
    options = ServerOptions("", host="127.0.0.1", port=free_port(), rest_api_port=free_port(),
                            model_config_file="none", drain_seconds=5)  # fmt: skip
    core = Core(repository, Scheduler(workers=1, max_queue=8), options.max_message_bytes)
    listeners = [GrpcListener(core, options), HttpListener(core, options)]
    for listener in listeners:
        listener.start()
    yield servable, options
    servable.go.set()
    for stopped in [listener.drain(5) for listener in listeners]:
        stopped.wait(10)


def request(value: float) -> predict_pb2.PredictRequest:
    found = predict_pb2.PredictRequest()
    found.model_spec.name = "m"
    found.inputs["x"].CopyFrom(tensors.to_proto(np.float32([value])))
    return found


def wait_for(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_request_whose_client_went_away_in_the_queue_is_not_computed(slow):
    servable, options = slow
    with grpc.insecure_channel(f"127.0.0.1:{options.port}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        first = stub.Predict.future(request(1))
        wait_for(lambda: servable.asked == [1])
        patient = stub.Predict.future(request(5))  # without a deadline
        over_grpc = stub.Predict.future(request(2))
        over_http = socket.create_connection(("127.0.0.1", options.rest_api_port))
        body = b'{"instances": [3.0]}'
        head = (
            f"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        over_http.sendall(head.encode() + body)
        time.sleep(0.3)  # both wait for their turn now
        over_grpc.cancel()
        over_http.close()
        time.sleep(0.3)
        servable.go.set()
        assert list(first.result(20).outputs["y"].float_val) == [1]
        assert list(patient.result(20).outputs["y"].float_val) == [5]
    assert servable.asked == [1, 5]
