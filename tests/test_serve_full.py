"""A server whose places are all taken: every protocol says so, each in its words, and at once."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from threading import Event

import grpc
import numpy as np
import pytest
import requests
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from served import free_port
from striate.serve import Server, ServerOptions, protos, tensors
from striate.serve.client import Client

pytest_plugins = ["serving_fixtures"]

FULL = "The queue is full: 1 requests are computed and 1 wait; try again later"
AT_ONCE = 1.0  # seconds; a refusal takes milliseconds, and the busy machine of a test its time


@contextmanager
def filled(tiny, places: int, **options):
    """A server with `places` requests in it that are not answered until the block ends."""
    ports = {"port": free_port(), "rest_api_port": free_port(), "host": "127.0.0.1"}
    images, scores = tiny.goldens()
    answer = Event()
    with (
        Server(ServerOptions(tiny.path.parent, **ports, **options)) as server,
        ThreadPoolExecutor(places) as pool,
        Client(f"127.0.0.1:{server.options.port}", "tiny") as client,
    ):
        with server.repository.lease("tiny") as lease:
            run, computing = lease.servable.run, Event()

        def held(ask, feeds):
            computing.set()
            assert answer.wait(60)
            return run(ask, feeds)

        lease.servable.run = held
        waiting = []
        try:
            for number in range(places):
                waiting.append(pool.submit(client.predict, images[:1]))
                assert computing.wait(60)
                while server.repository.models["tiny"].versions[1].in_flight <= number:
                    time.sleep(0.005)
            yield server
        finally:
            answer.set()
        for each in waiting:  # those that had a place are answered all the same
            np.testing.assert_allclose(each.result(60), scores[:1], atol=1e-4)
        np.testing.assert_allclose(client.predict(images[:1]), scores[:1], atol=1e-4)


@pytest.fixture(scope="module")
def full(tiny):
    """A server that computes one request, and lets one wait."""
    with filled(tiny, 2, workers=1, max_queue=1) as server:
        yield server.options


def predict_request(images):
    request = protos.predict_pb2.PredictRequest()
    request.model_spec.name = "tiny"
    request.inputs["image"].CopyFrom(tensors.to_content(images))
    return request


def refusal(options, images) -> grpc.RpcError:
    """What TensorFlow Serving's Predict says."""
    request = predict_request(images)
    with grpc.insecure_channel(f"127.0.0.1:{options.port}") as channel:
        stub = protos.prediction_service_pb2_grpc.PredictionServiceStub(channel)
        with pytest.raises(grpc.RpcError) as error:
            stub.Predict(request)
    return error.value


def test_tensorflow_servings_grpc_says_unavailable_at_once(full, tiny):
    start = time.monotonic()
    error = refusal(full, tiny.goldens()[0][:1])
    assert time.monotonic() - start < AT_ONCE
    assert (error.code(), error.details()) == (grpc.StatusCode.UNAVAILABLE, FULL)


@pytest.mark.parametrize("body", ["json", "picture"])
def test_rest_says_503_at_once(full, tiny, picture, body):
    base = f"http://127.0.0.1:{full.rest_api_port}/v1/models/tiny"
    start = time.monotonic()
    if body == "json":
        found = requests.post(f"{base}:predict", json={"instances": tiny.goldens()[0].tolist()})
    else:
        found = requests.post(f"{base}:classify", picture, headers={"Content-Type": "image/png"})
    assert time.monotonic() - start < AT_ONCE
    assert (found.status_code, found.json()) == (503, {"error": FULL})


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_kserve_v2_says_it_in_tritons_words_at_once(full, tiny, protocol):
    triton = getattr(tritonclient, protocol)
    port = full.port if protocol == "grpc" else full.rest_api_port
    given = triton.InferInput("image", [1, 32, 32, 3], "UINT8")
    given.set_data_from_numpy(tiny.goldens()[0][:1])
    client = triton.InferenceServerClient(f"127.0.0.1:{port}")
    start = time.monotonic()
    with pytest.raises(InferenceServerException) as error:
        client.infer("tiny", [given])
    assert time.monotonic() - start < AT_ONCE
    assert error.value.message() == "Exceeds maximum queue size"
    assert error.value.status() == {"grpc": "StatusCode.UNAVAILABLE", "http": "503"}[protocol]


def test_rest_says_it_before_the_body_is_there(full):
    head = "POST /v1/models/tiny:predict HTTP/1.1\r\nHost: here\r\nContent-Length: 1000000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", full.rest_api_port)) as connection:
        connection.settimeout(30)
        connection.sendall(head.encode())
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 503 ")


def test_a_client_that_was_refused_is_asked_for_no_more_bodies_than_there_are_places(
    tiny, monkeypatch
):
    monkeypatch.setattr("striate.serve.grpc_server.server.NARROW", 60.0)
    small, large = (predict_request(tiny.goldens()[0][:1].repeat(n, axis=0)) for n in (1, 300))
    ports = {"port": free_port(), "rest_api_port": 0, "host": "127.0.0.1"}
    options = ServerOptions(tiny.path.parent, workers=1, max_queue=1, **ports)
    answer = Event()
    with Server(options) as server, grpc.insecure_channel(f"127.0.0.1:{options.port}") as channel:
        predict = protos.prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
        with server.repository.lease("tiny") as lease:
            run = lease.servable.run
        lease.servable.run = lambda ask, feeds: answer.wait(60) and run(ask, feeds)
        first = [predict.future(small) for _ in range(2)]
        while server.core.scheduler.places:
            time.sleep(0.005)
        with pytest.raises(grpc.RpcError, match="The queue is full"):
            predict(small)
        answer.set()
        for each in first:
            each.result(60)

        answer.clear()
        (peer,) = server._listeners[0]._server._peers
        before = peer.connection._allowed
        asked = [predict.future(large) for _ in range(5)]
        while sum(each.done() for each in asked) < 3 or server.core.scheduler.places:
            time.sleep(0.005)
        assert before - peer.connection._allowed < 3 * large.ByteSize(), "two of the five"
        answer.set()
        codes = sorted(each.code().name for each in asked)
        assert codes == ["OK"] * 2 + ["UNAVAILABLE"] * 3


def test_over_rest_requests_wait_without_a_thread_and_no_longer_than_they_may(tiny, picture):
    limits = {"workers": 1, "max_queue": 30, "rest_api_timeout_in_ms": 1000}
    with filled(tiny, 1, **limits) as server, ThreadPoolExecutor(20) as pool:
        url = f"http://127.0.0.1:{server.options.rest_api_port}/v1/models/tiny:classify"
        post = partial(requests.post, url, picture, headers={"Content-Type": "image/png"})
        start = time.monotonic()
        waiting = [pool.submit(post) for _ in range(20)]
        time.sleep(0.5)
        names = [thread.name for thread in threading.enumerate()]
        found = [each.result(30) for each in waiting]
        assert time.monotonic() - start < 1 + AT_ONCE
        assert sum(name.startswith("http_") for name in names) <= 3
    assert [(each.status_code, each.json()["error"]) for each in found] == [
        (504, "The deadline passed before the request could be computed")
    ] * 20


def test_what_needs_no_place_is_answered_all_the_same(full):
    base = f"http://127.0.0.1:{full.rest_api_port}"
    assert requests.get(f"{base}/healthz").json() == {"ready": True}
    status = requests.get(f"{base}/v1/models/tiny").json()["model_version_status"][0]
    assert status["state"] == "AVAILABLE"
    metrics = requests.get(f"{base}/metrics").text
    assert 'striate_in_flight{model="tiny",version="1"} 2' in metrics


def test_a_full_batching_queue_is_refused_in_tensorflow_servings_words(tiny, tmp_path):
    parameters = tmp_path / "batching"
    parameters.write_text(
        "max_batch_size { value: 1 } max_enqueued_batches { value: 1 } num_batch_threads {value: 1}"
    )
    options = {"enable_batching": True, "batching_parameters_file": str(parameters)}
    with filled(tiny, 2, **options) as server:
        start = time.monotonic()
        error = refusal(server.options, tiny.goldens()[0][:1])
        assert time.monotonic() - start < AT_ONCE
    assert (error.code(), error.details()) == (
        grpc.StatusCode.UNAVAILABLE,
        "The batch scheduling queue to which this task was submitted is full; task size is 1 but "
        "scheduling capacity is only 0 (num_enqueued_batches=1, max_enqueued_batches=1, "
        "open_batch_size=1, max_execution_batch_size=1)",
    )


def test_more_calls_over_grpc_than_allowed_are_refused_before_they_are_read(tiny):
    with filled(tiny, 2, max_connections=2) as server:
        start = time.monotonic()
        error = refusal(server.options, tiny.goldens()[0][:1])
        assert time.monotonic() - start < AT_ONCE
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.details() == "Concurrent RPC limit exceeded!"
