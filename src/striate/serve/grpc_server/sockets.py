"""The sockets of a server and of its clients: what is read and written, TLS, who may connect."""

import contextlib
import errno
import os
import selectors
import socket
import ssl
import sys
import threading
import time

from striate.serve.grpc_server.calls import Call
from striate.serve.grpc_server.http2 import Connection, ConnectionEnds, Happening, Stream

LINUX = sys.platform == "linux"
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
MOST_UNSENT = 1 << 20  # bytes that wait for a client; one that takes no answers is not read
SILENT = 60_000  # milliseconds in which a client's machine acknowledges nothing that was sent
QUIET, BETWEEN = 60, 10  # seconds without a word until it is asked for a sign, and asked again

Events = list[tuple[Happening, Stream]]


def probe(tcp: socket.socket) -> None:
    """Have the system end a connection whose client's machine is gone without a word: it lost its
    power, or a network on the way forgot it. A listening socket hands that on to those it takes."""
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if LINUX:
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, QUIET)
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, BETWEEN)
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT)


class Peer:
    """A client: its socket, and what is said over it.

    Threads that answer write at once, as much as the socket takes; the thread that waits for
    sockets (see server.py) writes the rest, reads, and closes.
    """

    def __init__(
        self,
        connected: socket.socket,
        name: str,
        selector: selectors.BaseSelector,
        most_streams: int,
    ):
        self.socket, self.name = connected, name
        self.connection = Connection(most_streams)
        self.accepted = self.used = self.heard = time.monotonic()
        self.told: float | None = None  # when it was told that it has to leave
        self.refused = 0.0  # when a call of it was refused for want of room
        self.closed = False
        self._selector = selector
        self._lock = threading.Lock()
        self._unsent = bytearray()
        self._corked = False
        self._secure = isinstance(connected, ssl.SSLSocket)
        self.shaking = self._secure  # whether the handshake of TLS is not over
        self._low_water = 1
        self._awaiting = READ

    # === By any thread ===

    def answer(
        self, stream: Stream, head: bytes = b"", data: bytes = b"", trailers: bytes | None = None
    ) -> None:
        """See `Connection.answer`."""
        with self._lock:
            self.connection.answer(stream, head, data, trailers)
            self._write()

    def unsent(self, stream: Stream) -> int:
        """Bytes of a stream's answer, and of others that go before it, that wait to be sent."""
        return len(stream.waiting) + len(self._unsent)

    def credit(self, stream: Stream, room: int) -> None:
        """See `Connection.credit`."""
        if self.connection.is_short(stream):
            with self._lock:
                self.connection.credit(stream, room)
                self._write()

    def take(self, stream: Stream, count: int) -> bytes:
        """The first bytes of what a stream brought, which is without them then."""
        with self._lock:
            found = bytes(stream.body[:count])
            del stream.body[:count]
        return found

    def invite(self, stream: Stream) -> None:
        """See `Connection.invite`."""
        if self.connection.narrow:
            with self._lock:
                self.connection.invite(stream)
                self._write()

    def set_narrow(self, narrow: bool) -> None:
        """See `Connection.set_narrow`."""
        if self.connection.narrow != narrow:
            with self._lock:
                self.connection.set_narrow(narrow)
                self._write()

    def go_away(self, *, later: bool = False) -> None:
        """See `Connection.go_away`; later: with a ping, whose answer says that it was heard."""
        with self._lock:
            if later:
                self.told = time.monotonic()
                self.connection.ping()
            self.connection.go_away(later=later)
            self._write()

    # === By the thread that waits for sockets ===

    def ready(self, events: int) -> tuple[Events, bool]:
        """Read and write what the socket lets: what came, and whether there may be more of it.

        Nothing is written until `flush`, so that what is said to all that came is said at once.
        Raises `OSError` or `ConnectionEnds` at the end of the connection.
        """
        with self._lock:
            if self.shaking:
                if not self._shaken():
                    return [], False
                events |= READ
            if events & WRITE:
                self._write()
                events |= READ if self.held() else 0
            found, more = self._read() if events & READ else ([], False)
            self._corked = True
        return found, more

    def flush(self) -> None:
        """Write what was said since `ready`."""
        with self._lock:
            self._corked = False
            self._write()

    def held(self) -> int:
        """Bytes that TLS has read and not given out, of which a selector knows nothing."""
        return self.socket.pending() if isinstance(self.socket, ssl.SSLSocket) else 0

    def close(self) -> list[Call]:
        """End the connection; returns the calls that were under way."""
        with self._lock:
            self._corked = False
            self._write()
            self.closed = True
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(self.socket)
            self.socket.close()
            streams = list(self.connection.streams.values())
            self.connection.streams.clear()
            for stream in streams:
                stream.closed = stream.ended = True
        return [stream.call for stream in streams if isinstance(stream.call, Call)]

    def _shaken(self) -> bool:
        """Whether the handshake of TLS is over; it goes on when the socket is ready again."""
        assert isinstance(self.socket, ssl.SSLSocket)
        try:
            self.socket.do_handshake()
        except ssl.SSLWantReadError:
            self._await(READ)
            return False
        except ssl.SSLWantWriteError:
            self._await(WRITE)
            return False
        if self.socket.selected_alpn_protocol() != "h2":
            raise ConnectionEnds("expected HTTP/2 over TLS")
        self.shaking = False
        self._await(self._interest())
        return True

    def _read(self) -> tuple[Events, bool]:
        """What came, as much as there is room for, and whether there may be more of it."""
        self.used = time.monotonic()
        room = self.connection.buffer()
        asked = len(room)
        try:
            count = self.socket.recv_into(room)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return [], False
        finally:
            del room  # or the memory that it shows could not change its size
        if not count:
            raise ConnectionResetError(errno.ECONNRESET, "the client left")
        self.heard = self.used
        found = self.connection.received(count)
        self._wake_at(max(1, self.connection.wanting()))
        return found, count == asked or self.held() > 0

    def _wake_at(self, count: int) -> None:
        """Be told of the socket when so many bytes are there: each time costs what reading costs.

        Linux makes room for them; other systems might wait for more than they hold, and of TLS
        nobody knows how many they are.
        """
        if count != self._low_water and LINUX and not self._secure:
            self._low_water = count
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)

    def _write(self) -> None:
        if self.closed or self.shaking or self._corked:
            return
        data: bytes | bytearray = self.connection.outgoing()
        if self._unsent:
            self._unsent += data
            data = self._unsent
        if not data:
            return
        try:
            sent = self.socket.send(data)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            sent = 0
        except OSError:
            return  # the one who reads finds out, too
        if data is self._unsent:
            del self._unsent[:sent]
        elif sent < len(data):
            self._unsent += memoryview(data)[sent:]
        self._await(self._interest())

    def _interest(self) -> int:
        if not self._unsent:
            return READ
        return WRITE if len(self._unsent) > MOST_UNSENT else READ | WRITE

    def _await(self, events: int) -> None:
        if events != self._awaiting:
            self._awaiting = events
            self._selector.modify(self.socket, events, self)


def unbind(listening: socket.socket) -> None:
    """Listen no more. The path of a UNIX socket goes first, while no other server takes it."""
    with contextlib.suppress(OSError):
        path = listening.getsockname()
        if isinstance(path, str):
            os.unlink(path)
    listening.close()


class Entrance:
    """A socket that clients connect to, with TLS or without."""

    def __init__(self, listening: socket.socket, tls: ssl.SSLContext | None):
        self.socket = listening
        self._tls = tls
        listening.setblocking(False)

    def accept(self) -> tuple[socket.socket, str] | None:
        """A client's socket and gRPC's name for where it is; None when nobody waits."""
        try:
            connected, address = self.socket.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return None
        try:
            return self._prepared(connected, address)
        except OSError:  # it has left already
            connected.close()
            return None

    def _prepared(self, connected: socket.socket, address: tuple) -> tuple[socket.socket, str]:
        connected.setblocking(False)
        if not address or isinstance(address, str):  # of a UNIX socket
            return self._secured(connected), "unix:"
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        probe(connected)
        host, port = address[:2]
        sixth = connected.family == socket.AF_INET6
        name = f"ipv6:[{host}]:{port}" if sixth else f"ipv4:{host}:{port}"
        return self._secured(connected), name

    def _secured(self, connected: socket.socket) -> socket.socket:
        if self._tls is None:
            return connected
        return self._tls.wrap_socket(connected, server_side=True, do_handshake_on_connect=False)
