"""HTTP/2 (RFC 9113) as a server speaks it on one connection: bytes in, streams out, no sockets.

    buffer = connection.buffer()                     # where the next bytes belong
    events = connection.received(socket.recv_into(buffer))
    connection.answer(stream, head, data, trailers)
    socket.send(connection.outgoing())

A read brings as many frames as there are and fit. A larger DATA frame is read to where it stays:
the socket writes into the stream's own memory. What a client may cost is bounded: see `Limits` and
the constants.
"""

import enum
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# For those who take this for the port of the REST API
NO_HTTP2 = (
    b"HTTP/1.1 505 HTTP Version Not Supported\r\nContent-Type: text/plain\r\n"
    b"Connection: close\r\n\r\nexpected gRPC (HTTP/2); REST has a port of its own\n"
)
LARGEST_FRAME = 1 << 20  # of DATA, from clients; others have less room
LARGEST_HEADERS = 1 << 14  # bytes of one block, encoded and decoded, that a call may have
MOST_HEADERS = 1 << 16  # the same, read all the same: what it puts into HPACK's table counts
SCRATCH = MOST_HEADERS + 9  # bytes that are read at a time: room for the longest of other frames
WINDOW = 1 << 22  # bytes that a client may send on a stream ahead of what was taken in
CONNECTION_WINDOW = 1 << 24  # the same, on all of its streams together
LARGEST_WINDOW = (1 << 31) - 1
TABLE = 4096  # bytes of HPACK's table where nothing else was said; we keep nothing in it
# Frames that bring nothing (pings, settings, resets, ...) and are not made good for by calls
PATIENCE = 10_000

MOST_DECODED = 32  # blocks of headers that are remembered
LARGEST_DECODED = 1 << 10  # bytes of one of them
TOO_LARGE: dict[str, str] = {}  # instead of headers beyond the limit

_HEAD = struct.Struct(">BHBBL")  # length (two parts), type, flags, stream
_SETTING = struct.Struct(">HL")
_LONG = struct.Struct(">L")


class Frame:
    """Types of frames (RFC 9113, 6), as whole numbers: enumerations are slow to compare."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Flag:
    END_STREAM = 0x1
    ACK = 0x1
    END_HEADERS = 0x4
    PADDED = 0x8
    PRIORITY = 0x20


class Setting:
    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class ErrorCode:
    """Why a stream is reset or a connection ended (RFC 9113, 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class ConnectionEnds(Exception):
    """The client broke the protocol; `connection.outgoing()` has the GOAWAY that tells it so."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    size = len(payload)
    return _HEAD.pack(size >> 16, size & 0xFFFF, kind, flags, stream) + payload


def literal(name: str, value: str) -> bytes:
    """One header in HPACK, in no table and without Huffman's code (RFC 7541, 6.2.2)."""
    return b"\0" + _string(name.encode("ascii")) + _string(value.encode("latin-1"))


def _string(text: bytes) -> bytes:
    size, more = len(text), b""
    if size >= 127:
        rest = size - 127
        while rest >= 128:
            more += bytes([rest & 127 | 128])
            rest >>= 7
        more += bytes([rest])
        size = 127
    return bytes([size]) + more + text


class Happening(enum.Enum):
    """What `Connection.received` tells of a stream."""

    OPENED = enum.auto()  # its headers are there
    DATA = enum.auto()  # its body grew
    ENDED = enum.auto()  # nothing more comes
    RESET = enum.auto()  # the client does not want the answer any more


@dataclass(eq=False, slots=True)
class Stream:
    """One request and its answer.

    headers: `TOO_LARGE` itself instead of more than `LARGEST_HEADERS` bytes of them. body: what
    came and was not taken away. ended: the client has sent all, or need not; closed: we have, or it
    was reset. waiting: of the answer, what the client's windows do not let pass yet; trailers: what
    ends it then.
    """

    id: int
    headers: dict[str, str]
    window: int  # the client's, for what we send
    body: bytearray = field(default_factory=bytearray)
    allowed: int = WINDOW  # ours, for what it sends; see `Connection.narrow`
    ended: bool = False
    closed: bool = False
    waiting: bytearray = field(default_factory=bytearray)
    trailers: bytes | None = None
    call: object = None  # the call over this stream


@dataclass(slots=True)
class _Unread:
    """A large DATA frame that is being read; the last `left` bytes of its payload are missing.

    It is not in the stream's body yet, from which others take what came before.
    """

    stream: Stream
    flags: int
    payload: bytearray
    left: int


class Connection:
    """The state of one client's connection; whoever uses it from several threads holds a lock.

    most_streams: that may be open at a time.
    """

    def __init__(self, most_streams: int = 128):
        self.streams: dict[int, Stream] = {}
        self.greeted = False  # whether the client has shown that it speaks HTTP/2
        self.last = 0  # the latest stream that was taken up
        self.leaving = False  # whether later streams are ignored
        self.acknowledged = 0  # pings of ours that were answered
        self.narrow = False  # whether bodies are sent by invitation only
        self._most_streams = most_streams
        self._scratch = bytearray(SCRATCH)
        self._view = memoryview(self._scratch)
        self._filled = 0
        self._unread: _Unread | None = None
        self._skip = 0
        self._block: tuple[int, int, bytearray] | None = None  # headers that go on
        self._decoder = hpack.Decoder(MOST_HEADERS)
        self._decoded: dict[bytes, dict[str, str]] = {}
        self._out: list[bytes] = []
        self._allowed = CONNECTION_WINDOW
        self._window = 65_535  # the client's, for what we send on all streams
        self._first_window = 65_535
        self._largest_frame = 1 << 14
        self._table = b""  # what the next headers begin with, if the client's table has shrunk
        self._patience = PATIENCE

    # === What comes in ===

    def buffer(self) -> memoryview:
        """Where the next bytes are to be written, at most; never empty."""
        unread = self._unread
        if unread is not None:
            return memoryview(unread.payload)[-unread.left :]
        if self._skip:
            return self._view[: min(self._skip, SCRATCH)]
        return self._view[self._filled :]

    def wanting(self) -> int:
        """Bytes without which what comes means nothing: the rest of a frame that is being read."""
        if self._unread is not None:
            return self._unread.left
        if self._filled < _HEAD.size or not self.greeted:
            return 0
        high, low, *_ = _HEAD.unpack_from(self._scratch)
        return _HEAD.size + (high << 16 | low) - self._filled

    def received(self, count: int) -> list[tuple[Happening, Stream]]:
        """So many bytes are in the buffer: what they mean. The buffer given out is void then.

        Raises `ConnectionEnds`.
        """
        events: list[tuple[Happening, Stream]] = []
        try:
            if self._unread is not None:
                self._unread.left -= count
                if not self._unread.left:
                    whole, self._unread = self._unread, None
                    self._take(whole.stream, whole.flags, whole.payload, events)
            elif self._skip:
                self._skip -= count
            else:
                self._filled += count
                self._read(events)
        except _Broken as broken:
            self._say_goaway(self.last, broken.code, str(broken))
            raise ConnectionEnds(str(broken)) from None
        return events

    def _read(self, events: list) -> None:
        """Take the frames in the scratch that are whole, and large DATA that begins there."""
        at, end = 0, self._filled
        if not self.greeted:
            if self._scratch[: min(end, len(PREFACE))] != PREFACE[:end]:
                self._out.append(NO_HTTP2)
                raise ConnectionEnds("expected HTTP/2")
            if end < len(PREFACE) + _HEAD.size:
                return
            self._greet()
            if self._scratch[len(PREFACE) + 3] != Frame.SETTINGS:
                raise _Broken(ErrorCode.PROTOCOL_ERROR, "expected settings first")
            at, self.greeted = len(PREFACE), True
        while end - at >= _HEAD.size:
            high, low, kind, flags, number = _HEAD.unpack_from(self._scratch, at)
            size, number = high << 16 | low, number & LARGEST_WINDOW
            begin = at + _HEAD.size
            if self._block and (kind != Frame.CONTINUATION or number != self._block[0]):
                raise _Broken(ErrorCode.PROTOCOL_ERROR, "expected the rest of the headers")
            if size > (LARGEST_FRAME if kind == Frame.DATA else MOST_HEADERS):
                raise _Broken(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {size} bytes is too large")
            at = begin + size
            if at > end and size + _HEAD.size <= SCRATCH:
                at = begin - _HEAD.size
                break
            if kind == Frame.DATA:
                self._data(number, flags, size, self._view[begin : min(at, end)], events)
            else:
                self._frame(kind, flags, number, bytes(self._view[begin:at]), events)
        self._filled = max(0, end - at)
        self._scratch[: self._filled] = self._scratch[at:end]

    def _greet(self) -> None:
        """Not before the client speaks HTTP/2: what else it may speak begins otherwise."""
        ours = {
            Setting.MAX_CONCURRENT_STREAMS: self._most_streams,
            Setting.INITIAL_WINDOW_SIZE: WINDOW,
            Setting.MAX_FRAME_SIZE: LARGEST_FRAME,
            Setting.MAX_HEADER_LIST_SIZE: LARGEST_HEADERS,
        }
        said = b"".join(_SETTING.pack(name, value) for name, value in ours.items())
        self._say(Frame.SETTINGS, 0, 0, said)
        self._say(Frame.WINDOW_UPDATE, 0, 0, _LONG.pack(CONNECTION_WINDOW - 65_535))

    def _frame(self, kind: int, flags: int, number: int, payload: bytes, events: list) -> None:
        if kind == Frame.HEADERS:
            self._headers(flags, number, payload, events)
        elif kind == Frame.CONTINUATION:
            self._continue(flags, payload, events)
        elif kind == Frame.WINDOW_UPDATE:
            self._update(number, payload)
        elif kind == Frame.RST_STREAM:
            self._reset(number, payload, events)
        elif kind == Frame.SETTINGS:
            self._settings(flags, number, payload)
        elif kind == Frame.PING:
            self._ping(flags, number, payload)
        elif kind == Frame.PUSH_PROMISE:
            raise _Broken(ErrorCode.PROTOCOL_ERROR, "a client does not promise")
        elif kind == Frame.PRIORITY:
            self._of_stream(number, payload, 5)
            self._bore()
        else:
            if kind == Frame.GOAWAY and number:
                raise _Broken(ErrorCode.PROTOCOL_ERROR, "a stream does not go away")
            self._bore()  # GOAWAY: it leaves when its streams end; others are to be ignored

    def _data(self, number: int, flags: int, size: int, part: memoryview, events: list) -> None:
        """A DATA frame, of which `part` is there: all but of a large one."""
        self._allowed -= size
        if self._allowed < CONNECTION_WINDOW // 2:  # thus never less than nothing
            self._say(Frame.WINDOW_UPDATE, 0, 0, _LONG.pack(CONNECTION_WINDOW - self._allowed))
            self._allowed = CONNECTION_WINDOW
        stream = self.streams.get(number)
        if stream is None:  # it is over: these were on their way
            self._opened(number)
            if not size:
                self._bore()
            self._skip = size - len(part)
            return
        if stream.ended:
            raise _Broken(ErrorCode.STREAM_CLOSED, "data after the end of a request")
        stream.allowed -= size
        if stream.allowed < -WINDOW:  # one more: the client may not know yet that it is narrower
            raise _Broken(ErrorCode.FLOW_CONTROL_ERROR, "more than the stream's window")
        if len(part) == size:
            self._take(stream, flags, part, events)
            return
        payload = bytearray(size)
        payload[: len(part)] = part
        self._unread = _Unread(stream, flags, payload, size - len(part))

    def _take(
        self, stream: Stream, flags: int, payload: bytearray | memoryview, events: list
    ) -> None:
        """A DATA frame is there as a whole."""
        if flags & Flag.PADDED:
            padding = payload[0] if payload else 0
            if padding >= len(payload):
                raise _Broken(ErrorCode.PROTOCOL_ERROR, "more padding than data")
            payload = payload[1 : len(payload) - padding]
        if payload:
            self._please(len(payload) >> 10)  # less, or a byte with each reset would do
        else:
            self._bore()
        if stream.closed:  # refused while the frame was read
            return
        if isinstance(payload, bytearray) and not stream.body:
            stream.body = payload  # the whole of most requests: one piece of memory, never moved
        else:
            stream.body += payload
        if not events or events[-1] != (Happening.DATA, stream):
            events.append((Happening.DATA, stream))
        if flags & Flag.END_STREAM:
            self._end(stream, events)

    def _end(self, stream: Stream, events: list) -> None:
        stream.ended = True
        events.append((Happening.ENDED, stream))

    def _headers(self, flags: int, number: int, payload: bytes, events: list) -> None:
        if number % 2 == 0:
            raise _Broken(ErrorCode.PROTOCOL_ERROR, "a client's streams have odd numbers")
        begin, end = 0, len(payload)
        if flags & Flag.PADDED:
            begin, end = 1, end - (payload[0] if payload else 1)
        if flags & Flag.PRIORITY:
            begin += 5
        if begin > end:
            raise _Broken(ErrorCode.PROTOCOL_ERROR, "more padding than headers")
        block = payload[begin:end]
        if flags & Flag.END_HEADERS:
            self._open(flags, number, block, events)
        else:
            self._block = (number, flags, bytearray(block))

    def _continue(self, flags: int, payload: bytes, events: list) -> None:
        if self._block is None:
            raise _Broken(ErrorCode.PROTOCOL_ERROR, "the rest of no headers")
        number, first, block = self._block
        block += payload
        self._bore()
        self._check_size(block)
        if flags & Flag.END_HEADERS:
            self._block = None
            self._open(first, number, bytes(block), events)

    def _open(self, flags: int, number: int, block: bytes, events: list) -> None:
        headers = self._decode(block)
        stream = self.streams.get(number)
        if stream is not None:  # trailers, which gRPC's clients do not send
            if stream.ended:
                raise _Broken(ErrorCode.STREAM_CLOSED, "headers after the end of a request")
            if not flags & Flag.END_STREAM:
                raise _Broken(ErrorCode.PROTOCOL_ERROR, "headers within a request")
            self._end(stream, events)
            return
        if number <= self.last:
            if ":method" in headers:
                raise _Broken(ErrorCode.PROTOCOL_ERROR, "a stream's number that is used up")
            self._bore()  # trailers of one that is over
            return
        if self.leaving:
            return
        self.last = number
        if len(self.streams) >= self._most_streams:
            self._say(Frame.RST_STREAM, 0, number, _LONG.pack(ErrorCode.REFUSED_STREAM))
            self._bore()
            return
        stream = self.streams[number] = Stream(number, headers, self._first_window)
        stream.allowed = 0 if self.narrow else WINDOW
        events.append((Happening.OPENED, stream))
        if flags & Flag.END_STREAM:
            self._end(stream, events)

    def _check_size(self, block: bytes | bytearray) -> None:
        if len(block) > MOST_HEADERS:
            why = f"more than {MOST_HEADERS} bytes of headers"
            raise _Broken(ErrorCode.ENHANCE_YOUR_CALM, why)

    def _decode(self, block: bytes) -> dict[str, str]:
        """The headers in a block. Most calls of a client repeat those of the one before, and blocks
        that are the same mean the same while HPACK's table does not change."""
        found = self._decoded.get(block)
        if found is not None:
            return found
        self._check_size(block)
        before = self._table_state()
        try:
            pairs = tuple(self._decoder.decode(block, raw=True))
        except (hpack.HPACKError, ValueError):  # the latter of 4.1, for numbers without end
            why = f"headers that cannot be read, or more than {MOST_HEADERS} bytes of them"
            raise _Broken(ErrorCode.COMPRESSION_ERROR, why) from None
        found = _headers(pairs)
        if before != self._table_state() or len(self._decoded) >= MOST_DECODED:
            self._decoded.clear()
        elif len(block) <= LARGEST_DECODED:
            self._decoded[block] = found
        return found

    def _table_state(self) -> tuple[object, ...]:
        """What every change of HPACK's table changes. An entry may be equal to the one before it,
        and is then told by its identity."""
        table = self._decoder.header_table
        newest = table.dynamic_entries[0] if table.dynamic_entries else None
        return newest, id(newest), len(table.dynamic_entries), table.maxsize

    def _reset(self, number: int, payload: bytes, events: list) -> None:
        self._of_stream(number, payload, 4)
        self._opened(number)
        self._bore()
        stream = self.streams.get(number)
        if stream is not None:
            self._over(stream)
            events.append((Happening.RESET, stream))

    def _settings(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise _Broken(ErrorCode.PROTOCOL_ERROR, "settings of a stream")
        if len(payload) % _SETTING.size or (flags & Flag.ACK and payload):
            raise _Broken(ErrorCode.FRAME_SIZE_ERROR, "settings of a wrong size")
        self._bore()
        if flags & Flag.ACK:
            return
        self._say(Frame.SETTINGS, Flag.ACK, 0)  # before what they let pass
        for name, value in _SETTING.iter_unpack(payload):
            self._bore()  # each of them may cost a look at all streams
            if name == Setting.INITIAL_WINDOW_SIZE:
                self._first_windows(value)
            elif name == Setting.MAX_FRAME_SIZE:
                if not 1 << 14 <= value < 1 << 24:
                    raise _Broken(ErrorCode.PROTOCOL_ERROR, f"frames of at most {value} bytes")
                self._largest_frame = value
            elif name == Setting.ENABLE_PUSH and value > 1:
                raise _Broken(ErrorCode.PROTOCOL_ERROR, "ENABLE_PUSH is 0 or 1")
            elif name == Setting.HEADER_TABLE_SIZE and value < TABLE:
                self._table = b"\x20"
        self._send_all_waiting()

    def _first_windows(self, size: int) -> None:
        if size > LARGEST_WINDOW:
            raise _Broken(ErrorCode.FLOW_CONTROL_ERROR, f"a window of {size}")
        for stream in self.streams.values():
            self._widen(stream, size - self._first_window)
        self._first_window = size

    def _ping(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise _Broken(ErrorCode.PROTOCOL_ERROR, "a ping on a stream")
        if len(payload) != 8:
            raise _Broken(ErrorCode.FRAME_SIZE_ERROR, "a ping of a wrong size")
        self._bore()
        if flags & Flag.ACK:
            self.acknowledged += 1
        else:
            self._say(Frame.PING, Flag.ACK, 0, payload)

    def _update(self, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise _Broken(ErrorCode.FRAME_SIZE_ERROR, "a window update of a wrong size")
        more = _LONG.unpack(payload)[0] & LARGEST_WINDOW
        if not more:
            raise _Broken(ErrorCode.PROTOCOL_ERROR, "a window update of nothing")
        self._bore()
        if number == 0:
            self._window += more
            if self._window > LARGEST_WINDOW:
                raise _Broken(ErrorCode.FLOW_CONTROL_ERROR, "a window that is too wide")
            self._send_all_waiting()
            return
        self._opened(number)
        if number in self.streams:
            stream = self.streams[number]
            self._widen(stream, more)
            if stream.waiting:
                self._send_waiting(stream)

    def _widen(self, stream: Stream, more: int) -> None:
        stream.window += more
        if stream.window > LARGEST_WINDOW:
            raise _Broken(ErrorCode.FLOW_CONTROL_ERROR, "a window that is too wide")

    def _opened(self, number: int) -> None:
        if number % 2 == 0 or (number > self.last and not self.leaving):
            raise _Broken(ErrorCode.PROTOCOL_ERROR, "a frame of a stream that was not opened")

    def _of_stream(self, number: int, payload: bytes, size: int) -> None:
        if not number:
            raise _Broken(ErrorCode.PROTOCOL_ERROR, "a frame without its stream")
        if len(payload) != size:
            raise _Broken(ErrorCode.FRAME_SIZE_ERROR, "a frame of a wrong size")

    def _bore(self) -> None:
        """A frame that brings nothing: a client that sends little else is up to no good."""
        self._patience -= 1
        if self._patience < 0:
            raise _Broken(ErrorCode.ENHANCE_YOUR_CALM, "too many frames that bring nothing")

    def _please(self, worth: int) -> None:
        self._patience = min(PATIENCE, self._patience + worth)

    # === What goes out ===

    def outgoing(self) -> bytes:
        """What is to be sent now."""
        found = b"".join(self._out)
        self._out.clear()
        return found

    def credit(self, stream: Stream, room: int = WINDOW) -> None:
        """Let the client send until so many bytes of the stream are there that nobody has taken."""
        more = min(room, LARGEST_WINDOW // 2) - len(stream.body) - stream.allowed
        if more > 0 and self.is_short(stream):
            stream.allowed += more
            self._say(Frame.WINDOW_UPDATE, 0, stream.id, _LONG.pack(more))

    def is_short(self, stream: Stream) -> bool:
        """Whether the client may soon have to wait for `credit`."""
        return stream.allowed < WINDOW // 2 and not stream.ended

    def set_narrow(self, narrow: bool) -> None:
        """Have the client send no body before its stream is invited, or go back to sending at once.

        A server that refuses most requests would otherwise be sent their bodies, and read them for
        nothing. The streams that are open keep the windows that they have.
        """
        if narrow == self.narrow:
            return
        self.narrow = narrow
        first = _SETTING.pack(Setting.INITIAL_WINDOW_SIZE, 0 if narrow else WINDOW)
        self._say(Frame.SETTINGS, 0, 0, first)
        for stream in self.streams.values():  # the setting moves their windows, too
            stream.allowed += -WINDOW if narrow else WINDOW
            if narrow:
                self._allow(stream)

    def _allow(self, stream: Stream) -> None:
        """Widen the window of a stream by as much as one has, but not beyond that."""
        more = min(WINDOW, WINDOW - stream.allowed)
        if more > 0 and not stream.ended:
            stream.allowed += more
            self._say(Frame.WINDOW_UPDATE, 0, stream.id, _LONG.pack(more))

    def invite(self, stream: Stream) -> None:
        """Let the client send the body of a stream, where it waits for that."""
        if self.narrow:
            self._allow(stream)

    def answer(
        self, stream: Stream, head: bytes = b"", data: bytes = b"", trailers: bytes | None = None
    ) -> None:
        """Send (part of) an answer: head and trailers are blocks of headers; trailers end it.

        What the client's windows do not let pass waits in the stream.
        """
        if stream.closed:
            return
        if head:
            self._say_headers(0, stream.id, head)
        stream.trailers = trailers
        if data:
            stream.waiting += data
        self._send_waiting(stream)

    def ping(self) -> None:
        self._say(Frame.PING, 0, 0, bytes(8))

    def go_away(self, *, later: bool = False) -> None:
        """Tell the client to open no more streams; later: those on their way are still taken up."""
        self.leaving = self.leaving or not later
        self._say_goaway(LARGEST_WINDOW if later else self.last, ErrorCode.NO_ERROR, "")

    def _send_all_waiting(self) -> None:
        for stream in [s for s in self.streams.values() if s.waiting]:
            self._send_waiting(stream)

    def _send_waiting(self, stream: Stream) -> None:
        for part in self._parts(stream):
            self._say(Frame.DATA, 0, stream.id, part)
        if stream.trailers is not None and not stream.waiting:
            self._say_headers(Flag.END_STREAM, stream.id, stream.trailers)
            if not stream.ended:  # the rest of the request would be read for nothing
                self._say(Frame.RST_STREAM, 0, stream.id, _LONG.pack(ErrorCode.NO_ERROR))
            self._please(20)
            self._over(stream)

    def _parts(self, stream: Stream) -> Iterator[bytes]:
        """The waiting bytes that may go, in frames."""
        while stream.waiting:
            size = min(self._largest_frame, self._window, stream.window, len(stream.waiting))
            if size <= 0:
                return
            part = bytes(stream.waiting[:size])
            del stream.waiting[:size]
            self._window -= size
            stream.window -= size
            self._please(4)
            yield part

    def _over(self, stream: Stream) -> None:
        stream.closed = stream.ended = True
        self.streams.pop(stream.id, None)

    def _say(self, kind: int, flags: int, number: int, payload: bytes = b"") -> None:
        self._out.append(frame(kind, flags, number, payload))

    def _say_headers(self, flags: int, number: int, block: bytes) -> None:
        """A block of headers, in as many frames as the client wants it."""
        block, self._table = self._table + block, b""
        kind, most = Frame.HEADERS, self._largest_frame
        while len(block) > most:
            self._say(kind, flags, number, block[:most])
            kind, flags, block = Frame.CONTINUATION, 0, block[most:]
        self._say(kind, flags | Flag.END_HEADERS, number, block)

    def _say_goaway(self, last: int, code: int, why: str) -> None:
        self._say(Frame.GOAWAY, 0, 0, _LONG.pack(last) + _LONG.pack(code) + why.encode())


def _headers(pairs: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """By their names; `TOO_LARGE` where they count, as RFC 9113 counts them, for too many bytes."""
    if 32 * len(pairs) + sum(map(len, chain.from_iterable(pairs))) > LARGEST_HEADERS:
        return TOO_LARGE
    return {bytes(n).decode("latin-1"): bytes(v).decode("latin-1") for n, v in pairs}


class _Broken(Exception):
    """The client broke the protocol, and the connection ends."""

    def __init__(self, code: int, why: str):
        super().__init__(why)
        self.code = code
