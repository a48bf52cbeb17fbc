"""Spans of calls, for OpenTelemetry, where `--tracing` asks for them.

    pip install "striate[tracing]"
    OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318 striate serve models/mine --tracing

A call is a span, below the one that its client names (`traceparent`, W3C Trace Context: a header,
or gRPC metadata); below it are decode, queue and compute. All these moments are known when the call
is over, so that is when its spans are made, by a thread of its own: no request waits for them.
Where they go is said by OpenTelemetry's own environment variables, or by the program that this
server is part of, where that has set a tracer provider.
"""

import logging
import os
import time
from collections.abc import Sequence
from queue import Queue
from threading import Thread
from typing import TYPE_CHECKING, Any

from striate.errors import UsageError
from striate.serve.behind import Behind
from striate.serve.calls import Call, client_of
from striate.serve.status import Code

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
    from opentelemetry.trace import Span

log = logging.getLogger("striate.serve")

PROTOCOL = "http/protobuf"
WAITING = 1000  # calls whose spans are not made yet; more are left out

# What the server did wrong, not what clients did
FAULTS = (Code.UNKNOWN, Code.DEADLINE_EXCEEDED, Code.INTERNAL, Code.UNAVAILABLE, Code.DATA_LOSS)


class Tracing:
    """Makes the spans of calls. Raises `UsageError` where OpenTelemetry is not installed."""

    def __init__(self) -> None:
        try:
            from opentelemetry import trace
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

            given = trace.get_tracer_provider()
            self._own = _provider() if isinstance(given, trace.ProxyTracerProvider) else None
        except ImportError:
            message = '--tracing needs OpenTelemetry: pip install "striate[tracing]"'
            raise UsageError(message) from None
        self._trace, self._propagator = trace, TraceContextTextMapPropagator()
        self._tracer = (self._own or given).get_tracer("striate.serve")
        self._behind = Behind("tracing", WAITING, self._work)

    def record(self, call: Call) -> None:
        """Have the spans of a call made that is over; never waits."""
        self._behind.offer(call)

    def close(self, seconds: float = 5.0) -> None:
        """Make what waits and send it, in about so many seconds at most."""
        self._behind.close(seconds)
        if self._own is not None:  # which tries for long where nobody takes what it sends
            ending = Thread(target=self._own.shutdown, daemon=True)
            ending.start()
            ending.join(seconds)

    def _work(self, waiting: "Queue[Call | None]") -> None:
        while (call := waiting.get()) is not None:
            since = time.time_ns() - time.monotonic_ns()  # from a call's clock to the world's
            span = self._tracer.start_span(
                _name(call),
                context=self._propagator.extract(call.trace),
                kind=self._trace.SpanKind.SERVER,
                attributes=_attributes(call),
                start_time=since + round(call.begun * 1e9),
            )
            if span.is_recording():
                self._add_parts(span, call, since)
            if call.code in FAULTS:
                span.set_status(self._trace.StatusCode.ERROR, call.code.name)
            span.end(since + round(call.ended * 1e9))

    def _add_parts(self, span: "Span", call: Call, since: int) -> None:
        within = self._trace.set_span_in_context(span)
        for name, start, end in call.asked.parts() if call.asked else []:
            part = self._tracer.start_span(name, within, start_time=since + round(start * 1e9))
            part.end(since + round(end * 1e9))


def _provider() -> "TracerProvider":
    """Spans sent by OTLP over HTTP, in batches, as the environment says."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get(
        "OTEL_EXPORTER_OTLP_PROTOCOL"
    )
    if protocol not in (None, "", PROTOCOL):
        log.warning(
            "tracing: spans are sent by %s, not by %s as OTEL_EXPORTER_OTLP_PROTOCOL says: "
            "OTEL_EXPORTER_OTLP_ENDPOINT has to name the port where a collector takes that, "
            "4318 in most",
            *(PROTOCOL, protocol),
        )
    said = OTELResourceDetector().detect().attributes  # by OTEL_RESOURCE_ATTRIBUTES, too
    resource = Resource.create({SERVICE_NAME: said.get(SERVICE_NAME, "striate")})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    exporter: Any = Complaining(OTLPSpanExporter(), _endpoint())
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def _endpoint() -> str:
    """Where spans are sent, by the variables that OpenTelemetry looks at."""
    base = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or "http://localhost:4318"
    every = f"{base.removesuffix('/')}/v1/traces"
    return os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or every


class Complaining:
    """An exporter of spans that says once that nobody takes them, and once that somebody does
    again; OpenTelemetry's own says it of every batch and of every try."""

    def __init__(self, exporter: "SpanExporter", endpoint: str):
        self._exporter, self._endpoint = exporter, endpoint
        self._taken = True  # what was sent last
        self._why = ""
        logging.getLogger(type(exporter).__module__).addFilter(self._hear)

    def export(self, spans: "Sequence[ReadableSpan]") -> "SpanExportResult":
        result = self._exporter.export(spans)
        taken = result.name == "SUCCESS"
        if self._taken and not taken:
            log.warning(
                "tracing: %s takes no spans (%s): start a collector there, or say by "
                "OTEL_EXPORTER_OTLP_ENDPOINT where one is; until then spans are lost",
                *(self._endpoint, self._why),
            )
        if taken and not self._taken:
            log.warning("tracing: %s takes spans again", self._endpoint)
        self._taken = taken
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)

    def _hear(self, record: logging.LogRecord) -> bool:
        """Keep what the exporter says, and let nobody else hear it."""
        self._why = record.getMessage().rstrip(".")
        return False


def _name(call: Call) -> str:
    """The RPC, or the HTTP method and path; not the path of what is not there, which may be any."""
    if call.entrypoint == "GRPC":
        return call.method.removeprefix("/")
    return call.method if call.asked else call.method.partition(" ")[0]


def _attributes(call: Call) -> dict[str, Any]:
    """By OpenTelemetry's names where it has them."""
    found: dict[str, Any] = _of_grpc(call) if call.entrypoint == "GRPC" else _of_http(call)
    found["striate.request_id"] = call.id
    found["striate.code"] = call.code.name
    _, _, port = call.peer.rpartition(":")
    if port.isdecimal():  # a UNIX socket has none
        found["client.address"], found["client.port"] = client_of(None, call.peer), int(port)
    if call.code in FAULTS:
        found["error.type"] = call.code.name
    if call.asked is not None:
        found["striate.model"] = call.asked.model
        found["striate.version"] = call.asked.version
        found["striate.signature"] = call.asked.signature
        found["striate.items"] = call.asked.items
    return found


def _of_grpc(call: Call) -> dict[str, Any]:
    service, _, method = call.method.removeprefix("/").rpartition("/")
    return {
        "rpc.system": "grpc",
        "rpc.service": service,
        "rpc.method": method,
        "rpc.grpc.status_code": int(call.code),
    }


def _of_http(call: Call) -> dict[str, Any]:
    verb, _, path = call.method.partition(" ")
    found: dict[str, Any] = {"http.request.method": verb, "url.path": path[:512]}
    if call.status is not None:
        found["http.response.status_code"] = call.status
    return found
