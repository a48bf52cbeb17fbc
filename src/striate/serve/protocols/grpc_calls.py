"""Every call over gRPC as a `Call`: whatever service it is for, its id, its size, how it ended."""

import logging
import time
from typing import Any, NoReturn

import grpc

from striate.serve.calls import ID_HEADER, Call, call_of, during
from striate.serve.core import Core
from striate.serve.grpc_server import GrpcCall
from striate.serve.protocols import oip
from striate.serve.status import Code, QueueFull, ServingError

log = logging.getLogger("striate.serve")

# What waits for a place, and what it is told when there is none; else the scheduler's words
INFERENCES = {
    "/tensorflow.serving.PredictionService/Predict": "",
    "/tensorflow.serving.PredictionService/Classify": "",
    "/tensorflow.serving.PredictionService/Regress": "",
    "/inference.GRPCInferenceService/ModelInfer": oip.FULL,
}
SOON = 0.25  # seconds in which a client that was invited to send its request mostly has
OURS = ("/tensorflow.serving.", "/inference.")  # health and reflection are not worth a line


class RecordedCalls:
    """What a server does around the methods of our services; the others are left as they are."""

    def __init__(self, core: Core):
        self._core = core
        self._coming: dict[GrpcCall, float] = {}  # that were invited and are not read -> since when

    def opened(self, context: GrpcCall) -> None:
        """Refuse what there would be no place for: at many times the load, reading all that is
        refused would take the processor from what is answered. No more are invited than places are
        free, so that those who come find one."""
        if context.method not in INFERENCES:
            return
        invited = context.by_invitation
        if self._core.scheduler.places <= (self._expected() if invited else 0):
            self._refuse(context)
        if invited:
            self._coming[context] = time.monotonic()

    def _expected(self) -> int:
        """Calls that will be read any moment; who takes longer is not waited for."""
        since = time.monotonic() - SOON
        while self._coming and next(iter(self._coming.values())) < since:
            del self._coming[next(iter(self._coming))]
        return len(self._coming)

    def read(self, context: GrpcCall) -> bool:
        """Whether a call that has been read waits for its turn; then it has a place, from now on
        until it ends. Not before it is read: clients that are slow would take all places."""
        if context.method not in INFERENCES:
            return False
        self._coming.pop(context, None)
        try:
            self._core.scheduler.enter()
        except QueueFull:
            self._refuse(context)
        context.add_callback(self._core.scheduler.leave)
        return True

    def _refuse(self, context: GrpcCall) -> NoReturn:
        call = _call(context)
        try:
            with during(call):
                self._admit(call, context)
                words = INFERENCES[context.method] or str(self._core.scheduler.refusal())
                context.abort(grpc.StatusCode.UNAVAILABLE, words)
        finally:
            self._finished(call, context)

    def wrapped(self, method: str, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        if not method.startswith(OURS):
            return handler
        if handler.response_streaming:
            return handler._replace(stream_stream=self._streamed(handler.stream_stream))
        return handler._replace(
            unary_unary=self._unary(handler), request_deserializer=None, response_serializer=None
        )

    def _unary(self, handler):
        def answer(data: bytes, context) -> bytes:
            call = _call(context)
            call.received = len(data)
            try:
                with during(call):
                    self._admit(call, context)
                    request = _read(handler.request_deserializer, data, context)
                    response = handler.unary_unary(request, context)
                    sent = handler.response_serializer(response)
                call.sent = len(sent)
                return sent
            finally:
                self._finished(call, context)

        return answer

    def _streamed(self, behaviour):
        def answer(requests, context):
            call = _call(context)
            try:
                with during(call):
                    self._admit(call, context)
                    yield from behaviour(requests, context)
            finally:
                self._finished(call, context)

        return answer

    def _admit(self, call: Call, context) -> None:
        try:
            self._core.admit(call, context.headers.get("authorization"))
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


def _call(context) -> Call:
    api = context.method.rpartition("/")[2]
    call = call_of(
        context.headers, context.peer(), entrypoint="GRPC", api=api, method=context.method
    )
    call.placed, call.begun = context.queued, context.arrived
    return call


def _read(deserialize, data: bytes, context) -> Any:
    """The message in the bytes of a request; what is none is refused in gRPC's own words."""
    try:
        return deserialize(data)
    except Exception:  # protobuf's, whichever of its implementations reads
        log.info("a request that is no message: %d bytes", len(data))
        context.abort(grpc.StatusCode.INTERNAL, "Exception deserializing request!")
