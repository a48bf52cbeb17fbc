"""Every call over gRPC as a `Call`: whatever service it is for, its id, its size, how it ended."""

import logging
import threading
from typing import Any

import grpc

from striate.serve.calls import ID_HEADER, Call, call_of, during
from striate.serve.core import Core
from striate.serve.status import Code, ServingError

log = logging.getLogger("striate.serve")

LEAVING = 0.2  # seconds in which gRPC says that a stream which just ended was cancelled
# What waits for a place, and what it is told when there is none; else the scheduler's words
INFERENCES = {
    "/tensorflow.serving.PredictionService/Predict": "",
    "/inference.GRPCInferenceService/ModelInfer": "Exceeds maximum queue size",
}
OURS = ("/tensorflow.serving.", "/inference.")  # health and reflection are not worth a line


class CallInterceptor(grpc.ServerInterceptor):
    """Wraps the methods of our services; the others are left as they are."""

    def __init__(self, core: Core):
        self._core = core

    def intercept_service(self, continuation, details):
        handler = continuation(details)
        if handler is None or not details.method.startswith(OURS):
            return handler
        if details.method in INFERENCES and self._core.scheduler.full:
            return grpc.stream_unary_rpc_method_handler(self._refused(details))
        if handler.response_streaming:
            return handler._replace(stream_stream=self._streamed(details, handler.stream_stream))
        return handler._replace(
            unary_unary=self._unary(details, handler),
            request_deserializer=None,
            response_serializer=None,
        )

    def _unary(self, details, handler):
        def answer(data: bytes, context) -> bytes:
            headers = _headers(details)
            call = _call(details, headers, context)
            call.received = len(data)
            try:
                with during(call):
                    self._admit(call, headers, context)
                    request = _read(handler.request_deserializer, data, context)
                    response = handler.unary_unary(request, context)
                    sent = handler.response_serializer(response)
                call.sent = len(sent)
                return sent
            finally:
                self._finished(call, context)

        return answer

    def _refused(self, details):
        """What reads nothing of a request, hence takes it for a stream: at many times the load,
        reading all that is refused would take the processor from what is answered."""

        def answer(requests, context):
            headers = _headers(details)
            call = _call(details, headers, context)
            try:
                with during(call):
                    self._admit(call, headers, context)
                    words = INFERENCES[details.method] or str(self._core.scheduler.refusal())
                    context.abort(grpc.StatusCode.UNAVAILABLE, words)
            finally:
                self._finished(call, context)

        return answer

    def _streamed(self, details, behaviour):
        def answer(requests, context):
            headers, over = _headers(details), threading.Event()
            call = _call(details, headers, context)
            context.add_callback(over.set)
            try:
                with during(call):
                    self._admit(call, headers, context)
                    yield from behaviour(requests, context)
                over.wait(LEAVING)  # a cancelled stream of requests ends before it says why
            finally:
                self._finished(call, context)

        return answer

    def _admit(self, call: Call, headers: dict[str, Any], context) -> None:
        try:
            self._core.admit(call, headers.get("authorization"))
        except ServingError as error:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))

    def _finished(self, call: Call, context) -> None:
        context.set_trailing_metadata(((ID_HEADER, call.id),))
        code = context.code()
        if code is not None:
            call.code = Code(code.value[0])
        elif not context.is_active():
            call.code = Code.CANCELLED  # the client went away
        self._core.finished(call)


def _headers(details) -> dict[str, Any]:
    return dict(details.invocation_metadata or ())


def _call(details, headers: dict[str, Any], context) -> Call:
    api = details.method.rpartition("/")[2]
    return call_of(headers, context.peer(), entrypoint="GRPC", api=api, method=details.method)


def _read(deserialize, data: bytes, context) -> Any:
    """The message in the bytes of a request; what is none is refused in gRPC's own words."""
    try:
        return deserialize(data)
    except Exception:  # protobuf's, whichever of its implementations reads
        log.info("a request that is no message: %d bytes", len(data))
        context.abort(grpc.StatusCode.INTERNAL, "Exception deserializing request!")
