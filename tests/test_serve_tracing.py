"""Spans of calls: whose child they are, what they consist of, and where they go."""

import subprocess
import sys
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import grpc
import numpy as np
import pytest

from served import ServerProcess, free_port
from striate.errors import UsageError
from striate.serve import Server, ServerOptions, protos, tensors
from striate.serve.observe.tracing import Tracing, _provider

pytest.importorskip("opentelemetry.sdk")

from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import (
    InMemorySpanExporter,
)

pytest_plugins = ["serving_fixtures"]

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE, SPAN = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331
PREDICT = "tensorflow.serving.PredictionService/Predict"


@pytest.fixture(scope="module")
def traced(tiny):
    """(a server in this process, what its spans are kept in)"""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    ports = {"port": free_port(), "rest_api_port": free_port(), "host": "127.0.0.1"}
    with Server(ServerOptions(tiny.path.parent, tracing=True, **ports)) as server:
        yield server, exporter


@pytest.fixture
def spans(traced):
    """Waits for a call's spans: () -> name -> span."""
    _, exporter = traced
    exporter.clear()

    def wait() -> dict:
        deadline = time.monotonic() + 60
        while not any(s.kind == trace.SpanKind.SERVER for s in exporter.get_finished_spans()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return {span.name: span for span in exporter.get_finished_spans()}

    return wait


def predict(address: str, images: np.ndarray, *metadata):
    request = protos.predict_pb2.PredictRequest()
    request.model_spec.name = "tiny"
    request.inputs["image"].CopyFrom(tensors.to_content(images))
    with grpc.insecure_channel(address) as channel:
        stub = protos.prediction_service_pb2_grpc.PredictionServiceStub(channel)
        return stub.Predict(request, metadata=metadata)


def test_a_call_over_grpc_is_a_child_of_its_clients_span(traced, spans, tiny):
    server, _ = traced
    address, images = f"127.0.0.1:{server.options.port}", tiny.goldens()[0]
    before = time.time_ns()
    predict(address, images, ("traceparent", PARENT), ("x-request-id", "mine"))
    found = spans()
    call = found.pop(PREDICT)
    assert (call.context.trace_id, call.parent.span_id) == (TRACE, SPAN)
    assert call.parent.is_remote
    attributes = dict(call.attributes)
    assert attributes.pop("client.port") > 0
    assert attributes == {
        "rpc.system": "grpc",
        "rpc.service": "tensorflow.serving.PredictionService",
        "rpc.method": "Predict",
        "rpc.grpc.status_code": 0,
        "client.address": "127.0.0.1",
        "striate.request_id": "mine",
        "striate.code": "OK",
        "striate.model": "tiny",
        "striate.version": 1,
        "striate.signature": "serving_default",
        "striate.items": 4,
    }
    assert list(found) == ["wait", "decode", "queue", "compute"]
    assert {part.parent.span_id for part in found.values()} == {call.context.span_id}
    moments = [call.start_time, *(t for p in found.values() for t in (p.start_time, p.end_time))]
    assert moments == sorted(moments)
    assert before - 1e6 < call.start_time < call.end_time < time.time_ns() + 1e6
    assert moments[-1] <= call.end_time


def test_a_call_over_http_is_one_too(traced, spans, picture):
    server, _ = traced
    url = f"http://127.0.0.1:{server.options.rest_api_port}/v1/models/tiny:classify"
    headers = {"Content-Type": "image/png", "Traceparent": PARENT, "Tracestate": "them=1"}
    urllib.request.urlopen(urllib.request.Request(url, picture, headers)).close()
    found = spans()
    call = found["POST /v1/models/tiny:classify"]
    assert (call.context.trace_id, call.parent.span_id) == (TRACE, SPAN)
    assert call.context.trace_state.get("them") == "1"
    assert call.attributes["http.request.method"] == "POST"
    assert call.attributes["url.path"] == "/v1/models/tiny:classify"
    assert call.attributes["http.response.status_code"] == 200
    assert call.attributes["client.address"] == "127.0.0.1"
    assert {"decode", "compute"} <= found.keys()


def test_a_call_that_names_no_span_begins_a_trace(traced, spans, tiny):
    server, _ = traced
    predict(f"127.0.0.1:{server.options.port}", tiny.goldens()[0], ("traceparent", "nonsense"))
    assert spans()[PREDICT].parent is None


def test_what_never_reached_a_model_has_no_parts_and_no_path_in_its_name(traced, spans):
    server, _ = traced
    url = f"http://127.0.0.1:{server.options.rest_api_port}/v1/models/nobody"
    with pytest.raises(urllib.request.HTTPError):
        urllib.request.urlopen(url)
    ((name, call),) = spans().items()
    assert name == "GET"
    assert call.attributes["striate.code"] == "NOT_FOUND"
    assert call.attributes["http.response.status_code"] == 404
    assert call.status.is_unset, "the client is wrong, not the server"


def test_what_the_server_does_wrong_is_an_error(traced, spans, tiny, monkeypatch):
    server, _ = traced

    def fail(*arguments):
        raise RuntimeError("broken")

    monkeypatch.setattr(server.core.scheduler, "run", fail)
    with pytest.raises(grpc.RpcError):
        predict(f"127.0.0.1:{server.options.port}", tiny.goldens()[0])
    found = spans()
    assert found[PREDICT].status.status_code == trace.StatusCode.ERROR
    assert list(found) == ["wait", "decode", PREDICT]


@pytest.mark.long
def test_spans_are_sent_where_the_environment_says(tiny, monkeypatch):
    got = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.path, ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        Thread(target=collector.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{collector.server_port}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        with ServerProcess(tiny.path.parent, tracing=True) as server:
            predict(server.address, tiny.goldens()[0], ("traceparent", PARENT))
        collector.shutdown()  # what was made before the server stopped was sent
    assert {path for path, _ in got} == {"/v1/traces"}
    resources = [resource for _, request in got for resource in request.resource_spans]
    assert {
        a.value.string_value
        for resource in resources
        for a in resource.resource.attributes
        if a.key == "service.name"
    } == {"striate"}
    names = {s.name for r in resources for scope in r.scope_spans for s in scope.spans}
    assert names == {PREDICT, "wait", "decode", "queue", "compute"}


def test_that_nobody_takes_spans_is_said_once_and_that_somebody_does_again(monkeypatch, caplog):
    class Collector(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    port = free_port()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}/")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")  # no second try
    provider = _provider()

    def send() -> None:
        provider.get_tracer("test").start_span("a").end()
        provider.force_flush()

    send()
    send()
    (said,) = caplog.records
    assert said.name == "striate.serve"
    assert f"tracing: http://127.0.0.1:{port}/v1/traces takes no spans (Failed" in said.message
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in said.message
    with ThreadingHTTPServer(("127.0.0.1", port), Collector) as collector:
        Thread(target=collector.serve_forever, daemon=True).start()
        send()
        send()
        collector.shutdown()
    send()
    ends = [record.message.split(" takes ")[1].split(" (")[0] for record in caplog.records]
    assert ends == ["no spans", "spans again", "no spans"]
    provider.shutdown()


@pytest.mark.parametrize(
    ("variable", "value", "name"),
    [
        ("OTEL_SERVICE_NAME", "shop", "shop"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=shop,deployment.environment=test", "shop"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test", "striate"),
    ],
)
def test_the_service_is_called_as_the_environment_says(monkeypatch, variable, value, name):
    monkeypatch.setenv(variable, value)
    attributes = _provider().resource.attributes
    assert attributes["service.name"] == name
    assert attributes.get("deployment.environment") == ("test" if "test" in value else None)


@pytest.mark.long
@pytest.mark.parametrize(
    "name", ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"]
)
def test_that_spans_are_not_sent_as_the_environment_says_is_a_line(monkeypatch, caplog, name):
    """Collectors take gRPC at another port, and the variable is set for all programs of a node."""
    monkeypatch.setenv(name, "http/protobuf")
    _provider().shutdown()
    assert caplog.messages == []
    monkeypatch.setenv(name, "grpc")
    _provider().shutdown()
    (line,) = caplog.messages
    assert "sent by http/protobuf, not by grpc" in line


def test_without_the_flag_nothing_of_opentelemetry_is_imported(tiny):
    code = (
        "import sys; from striate.serve import Server, ServerOptions\n"
        f"with Server(ServerOptions({str(tiny.path)!r}, port={free_port()}, "
        f"rest_api_port={free_port()})): pass\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_where_it_is_not_installed_the_flag_says_how_to(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(UsageError, match=r'pip install "striate\[tracing\]"'):
        Tracing()
