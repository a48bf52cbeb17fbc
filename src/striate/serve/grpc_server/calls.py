"""What gRPC says over a stream of HTTP/2: messages, metadata, deadlines, statuses.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

import logging
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote

import grpc

from striate.serve.grpc_server.http2 import WINDOW, Stream, literal
from striate.serve.unforeseen import FULL, say_full

if TYPE_CHECKING:
    from striate.serve.grpc_server.sockets import Peer

log = logging.getLogger("striate.serve")

PREFIX = struct.Struct(">?L")  # of a message: whether it is compressed, its bytes
HEAD = (
    b"\x88"  # :status 200, by its place in the static table
    + literal("content-type", "application/grpc")
    + literal("grpc-accept-encoding", "identity, deflate, gzip")
)
WINDOW_BITS = {"deflate": 15, "gzip": 31}  # of zlib
UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
MOST_UNSENT = 1 << 20  # bytes of a stream's answers that wait for the client to take them
SHORTLY = 0.01  # seconds until it is looked again whether it did


class Aborted(Exception):
    """Ends the handling of a call; its status is in the call."""


class Failure(Exception):
    """A call that ends with a status before, or instead of, its handler's answer."""

    def __init__(self, code: grpc.StatusCode, details: str):
        super().__init__(details)
        self.code = code


def trailers(code: int, details: str = "", metadata: tuple[tuple[str, str], ...] = ()) -> bytes:
    block = literal("grpc-status", str(code))
    if details:
        block += literal("grpc-message", quote(details, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"))
    return block + b"".join(literal(name, value) for name, value in metadata)


def seconds(timeout: str | None) -> float | None:
    """grpc-timeout, as in 100m; None where there is none, or none that can be read."""
    if not timeout or timeout[-1] not in UNITS or not timeout[:-1].isdecimal() or len(timeout) > 9:
        return None
    return int(timeout[:-1]) * UNITS[timeout[-1]]


def length(body: bytes | bytearray) -> int:
    """Bytes of the first message in a body, with its prefix, which says so; 0 without that."""
    return PREFIX.size + PREFIX.unpack_from(body)[1] if len(body) >= PREFIX.size else 0


def prefixed(message: bytes) -> bytes:
    return PREFIX.pack(False, len(message)) + message


class Call:
    """One call; to handlers, the part of `grpc.ServicerContext` that they need.

    headers: by their names in lower case. under_way: the calls among which this one is until it
    ends.
    """

    def __init__(self, peer: "Peer", stream: Stream, most_bytes: int, under_way: "set[Call]"):
        self.headers = stream.headers
        self.method = stream.headers.get(":path", "")
        self.handler: grpc.RpcMethodHandler | None = None
        self.arrived = time.monotonic()  # when the last of it was read that there is
        self.queued = False  # whether it waits for its turn to be answered
        self._peer, self._stream, self._most_bytes = peer, stream, most_bytes
        self._under_way = under_way
        left = seconds(stream.headers.get("grpc-timeout"))
        self._deadline = None if left is None else time.monotonic() + left
        self._code: grpc.StatusCode | None = None
        self._details = ""
        self._metadata: tuple[tuple[str, str], ...] = ()
        self._begun = False  # whether something was answered
        self._callbacks: list[Callable[[], None]] = []
        self._active = True
        self._lock = threading.Lock()

    @property
    def streaming(self) -> bool:
        """Whether it is answered by any number of messages."""
        return self.handler is not None and self.handler.response_streaming

    # === What handlers ask ===

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return tuple(pair for pair in self.headers.items() if pair[0][0] != ":")

    @property
    def client(self) -> "Peer":
        """Whose call it is."""
        return self._peer

    def peer(self) -> str:
        return self._peer.name

    @property
    def by_invitation(self) -> bool:
        """Whether the client waits to be invited before it sends its request: it was refused a
        call a moment ago."""
        return self._peer.connection.narrow

    def is_active(self) -> bool:
        return self._active

    def time_remaining(self) -> float | None:
        """Seconds until the client's deadline; None where it has set none."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Have a function called when the call ends; False where it has."""
        with self._lock:
            if self._active:
                self._callbacks.append(callback)
            return self._active

    def set_code(self, code: grpc.StatusCode) -> None:
        self._code = code

    def set_details(self, details: str) -> None:
        self._details = details

    def code(self) -> grpc.StatusCode | None:
        return self._code

    def details(self) -> str:
        return self._details

    def set_trailing_metadata(self, metadata: tuple[tuple[str, str], ...]) -> None:
        self._metadata = tuple(metadata)

    def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        self._code, self._details = code, details
        raise Aborted

    def cancel(self) -> None:
        """End the call from the server's side."""
        self.finish(grpc.StatusCode.CANCELLED, "")

    # === What the connection tells ===

    def grew(self) -> None:
        """More of the request is there; raises `Failure` where it is not going to be taken."""
        self.arrived = time.monotonic()
        self._go_on()
        if 0 < length(self._stream.body) < len(self._stream.body):
            raise Failure(grpc.StatusCode.INTERNAL, "expected one message, got more")

    def ended(self) -> None:
        """The client has sent all."""
        self.arrived = time.monotonic()

    def stalls(self, since: float) -> bool:
        """Whether the request has no end yet, and nothing of it was read since then."""
        return not self._stream.ended and self.arrived < since

    def gone(self) -> None:
        """The client does not want the answer any more."""
        self._leave()

    def _go_on(self) -> None:
        """Let the client send what is missing of its next message; raises `Failure` for one that
        is too large."""
        size = length(self._stream.body)
        if size - PREFIX.size > self._most_bytes:
            raise Failure(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "SERVER: Received message larger than max "
                f"({size - PREFIX.size} vs. {self._most_bytes})",
            )
        self._peer.credit(self._stream, max(WINDOW, size))

    # === Answering ===

    def run(self) -> None:
        """Have the call answered by its handler."""
        if not self._active:
            return
        assert self.handler is not None
        try:
            if self.streaming:
                self._answer_many(self.handler)
            else:
                self._answer_one(self.handler)
        except Aborted:
            self.finish(self._code or grpc.StatusCode.UNKNOWN, self._details)
        except Failure as failure:
            self.finish(failure.code, str(failure))
        except MemoryError:
            say_full(self.method)
            self.finish(grpc.StatusCode.RESOURCE_EXHAUSTED, FULL)
        except Exception as error:  # a mistake of ours
            log.exception("%s", self.method)
            self.finish(grpc.StatusCode.UNKNOWN, f"Exception calling application: {error}"[:1000])

    def _answer_one(self, handler: grpc.RpcMethodHandler) -> None:
        request = _decoded(handler.request_deserializer, self._only_message())
        response = handler.unary_unary(request, self)
        message = _encoded(handler.response_serializer, response)
        self.finish(self._code or grpc.StatusCode.OK, self._details, prefixed(message))

    def _answer_many(self, handler: grpc.RpcMethodHandler) -> None:
        for response in self._responses(handler):
            if not self._active:
                return
            self._send(prefixed(_encoded(handler.response_serializer, response)))
        self.finish(self._code or grpc.StatusCode.OK, self._details)

    def _responses(self, handler: grpc.RpcMethodHandler) -> Iterable[Any]:
        request = _decoded(handler.request_deserializer, self._only_message())
        return handler.unary_stream(request, self)

    def finish(self, code: grpc.StatusCode, details: str, message: bytes = b"") -> None:
        """Send the last of the answer and the status, in one piece."""
        number = code.value[0]
        last = trailers(number, details, self._metadata)
        if self._begun or message:
            head = b"" if self._begun else HEAD
            self._peer.answer(self._stream, head, message if not number else b"", last)
        else:
            self._peer.answer(self._stream, trailers=HEAD + last)
        self._leave()

    def _send(self, message: bytes) -> None:
        head, self._begun = (b"" if self._begun else HEAD), True
        self._peer.answer(self._stream, head, message)
        while self._active and self._peer.unsent(self._stream) > MOST_UNSENT:
            time.sleep(SHORTLY)

    def _leave(self) -> None:
        with self._lock:
            self._active = False
            callbacks, self._callbacks = self._callbacks, []
        self._under_way.discard(self)
        self._stream.call = None  # or they would keep each other in memory
        for callback in callbacks:
            callback()

    def _only_message(self) -> bytes | bytearray:
        body = self._stream.body
        if not body or length(body) != len(body):
            raise Failure(
                grpc.StatusCode.INTERNAL, f"expected one message, got {len(body)} bytes of none"
            )
        self._stream.body = bytearray()
        compressed = body[0]
        del body[: PREFIX.size]
        return self._expanded(body) if compressed else body

    def _expanded(self, message: bytes | bytearray) -> bytes:
        """A compressed message; no longer than a message may be.

        https://github.com/grpc/grpc/blob/master/doc/compression.md
        """
        encoding = self.headers.get("grpc-encoding", "identity")
        if encoding == "identity":
            why = "a message is flagged as compressed, and grpc-encoding says that none is"
            raise Failure(grpc.StatusCode.INTERNAL, why)
        if encoding not in WINDOW_BITS:
            raise Failure(
                grpc.StatusCode.UNIMPLEMENTED,
                f"expected grpc-encoding identity, deflate or gzip, got {encoding!r}",
            )
        try:
            expanding = zlib.decompressobj(WINDOW_BITS[encoding])
            found = expanding.decompress(message, self._most_bytes + 1)
        except zlib.error as error:
            raise Failure(
                grpc.StatusCode.INTERNAL, f"a message that is no {encoding} ({error})"
            ) from None
        if len(found) > self._most_bytes:
            raise Failure(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"SERVER: Received message larger than max, expanded (vs. {self._most_bytes})",
            )
        if not expanding.eof or expanding.unused_data:
            what = "more than one stream" if expanding.eof else "it is cut off"
            raise Failure(grpc.StatusCode.INTERNAL, f"a message that is no {encoding} ({what})")
        return found


class StreamCall(Call):
    """One whose requests come one by one, whenever the client likes; they wait as bytes, a window
    of them at most."""

    def __init__(self, *given: Any):
        super().__init__(*given)
        self._changed = threading.Condition()

    def grew(self) -> None:
        self._go_on()
        self._tell()

    def ended(self) -> None:
        self._tell()

    def stalls(self, since: float) -> bool:
        return False

    def _leave(self) -> None:
        super()._leave()
        self._tell()

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _responses(self, handler: grpc.RpcMethodHandler) -> Iterable[Any]:
        return handler.stream_stream(self._messages(handler), self)

    def _messages(self, handler: grpc.RpcMethodHandler) -> Iterator[Any]:
        """The requests, as they come."""
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._whole() or self._stream.ended or not self._active
                )
            if not self._active:
                self.abort(grpc.StatusCode.CANCELLED, "")
            if not (size := self._whole()):
                return
            message = self._peer.take(self._stream, size)
            self._go_on()
            data: Any = message[PREFIX.size :]
            yield _decoded(
                handler.request_deserializer, self._expanded(data) if message[0] else data
            )

    def _whole(self) -> int:
        """Bytes of the next message, if all of them are there."""
        size = length(self._stream.body)
        return size if size <= len(self._stream.body) else 0


def _decoded(deserialize: Callable[[Any], Any] | None, message: Any) -> Any:
    if deserialize is None:
        return message
    try:
        return deserialize(message)
    except Exception:  # protobuf's, whichever of its implementations reads
        log.info("a request that is no message: %d bytes", len(message))
        raise Failure(grpc.StatusCode.INTERNAL, "Exception deserializing request!") from None


def _encoded(serialize: Callable[[Any], bytes] | None, response: Any) -> bytes:
    return response if serialize is None else serialize(response)
