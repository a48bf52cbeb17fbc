"""The server: one thread waits for all sockets, others answer what it has read."""

import contextlib
import itertools
import logging
import math
import selectors
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import grpc

from striate.serve.grpc_server.calls import HEAD, Aborted, Call, Failure, StreamCall, trailers
from striate.serve.grpc_server.http2 import (
    LARGEST_HEADERS,
    TOO_LARGE,
    ConnectionEnds,
    Happening,
    Stream,
    literal,
)
from striate.serve.grpc_server.sockets import READ, Entrance, Peer, unbind
from striate.serve.unforeseen import say_full

log = logging.getLogger("striate.serve")

TICK = 0.5  # seconds between looks at connections that are old, idle or half made
HURRY = 0.02  # the same while the server ends
FAIR = 32  # reads from one client before the others have their turn
GREETING = 10.0  # seconds for a client to show that it speaks HTTP/2
CALM = 0.002  # seconds until a server that refuses calls looks again: it then refuses several
NARROW = 1.0  # seconds after a refusal in which clients send bodies by invitation only
HEARD = 1.0  # seconds for it to answer that it knows that it has to leave


@dataclass(frozen=True)
class Limits:
    """What clients may ask of a server.

    message_bytes: of one request. calls, connections: at a time. streams: calls at a time over one
    connection. stall: seconds without a word within a message. age, grace, idle: seconds after
    which a connection has to go (then its calls have `grace` to end), or has to go for want of
    calls; None for ever.
    """

    message_bytes: int = 4 << 20
    calls: int = 1000
    connections: int = 1000
    streams: int = 128
    stall: float = 30.0
    age: float | None = None
    grace: float | None = None
    idle: float | None = None


@dataclass(frozen=True)
class _Details(grpc.HandlerCallDetails):
    """What a generic handler asks of a call."""

    method: str
    invocation_metadata: tuple


class Crew:
    """Threads that answer calls, as many as there were calls at a time, `most` of them at most.
    Calls that stream have threads beyond those: they may last for days and do nothing.

    Of the calls that are queued only `abreast` are answered at a time (None: all); the thread that
    has answered one takes the next, so that a busy server need not change threads at all. Who
    became idle last is given the next call: what it needs is still in the caches.
    """

    def __init__(self, most: int, abreast: int | None = None):
        self._most = most
        self._turns = most if abreast is None else abreast  # that are left for queued calls
        self._lock = threading.Lock()
        self._idle: list[SimpleQueue[Call | None]] = []
        self._queued: deque[Call] = deque()  # for a turn
        self._waiting: deque[Call] = deque()  # for a thread
        self._count = 0  # of threads
        self._streaming = 0  # of calls

    def answer(self, call: Call) -> None:
        """Have a call answered, now or when it is its turn."""
        with self._lock:
            if not call.queued:
                self._begin(call)
            elif self._turns:
                self._turns -= 1
                self._begin(call)
            else:
                self._queued.append(call)

    def dismiss(self) -> None:
        """End the threads, which are idle."""
        with self._lock:
            for given in self._idle:
                given.put(None)
            self._idle.clear()

    def _begin(self, call: Call) -> None:
        self._streaming += call.streaming
        if not call.streaming and self._busy() >= self._most:
            self._waiting.append(call)
        elif self._idle:
            self._idle.pop().put(call)
        else:
            self._count += 1
            name = f"grpc_{self._count}"
            threading.Thread(target=self._work, args=[call], name=name, daemon=True).start()

    def _busy(self) -> int:
        """Threads whose calls do not stream."""
        return self._count - len(self._idle) - self._streaming

    def _work(self, call: Call | None) -> None:
        given: SimpleQueue[Call | None] = SimpleQueue()
        while call is not None:
            call.run()
            with self._lock:
                following = self._next(call)
                if following is None:
                    self._idle.append(given)
            call = following or given.get()

    def _next(self, done: Call) -> Call | None:
        """What a thread that has answered a call does without a rest."""
        self._streaming -= done.streaming
        if done.queued:
            if self._queued:
                return self._queued.popleft()
            self._turns += 1
        return self._waiting.popleft() if self._waiting and self._busy() <= self._most else None


class GrpcServer:
    """Services on some sockets; made, given methods, started, stopped, in this order.

    threads: that answer, at most; they are started as they are needed. abreast: see `Crew`.
    opened(call): may refuse a call before it is read, by aborting it; read(call): may refuse one
    that has been read, or says whether it is queued. wrapped(method, handler): what a method is to
    be answered with. unshaken(client, error): is told whose TLS failed.
    """

    def __init__(
        self,
        threads: int,
        limits: Limits | None = None,
        *,
        abreast: int | None = None,
        opened: Callable[[Call], None] = lambda call: None,
        read: Callable[[Call], bool] = lambda call: False,
        wrapped: Callable[[str, grpc.RpcMethodHandler], grpc.RpcMethodHandler] = lambda _, h: h,
        unshaken: Callable[[str, ssl.SSLError], None] = lambda client, error: None,
    ):
        self._limits = limits or Limits()
        self._opened = opened
        self._read = read
        self._wrapped = wrapped
        self._unshaken = unshaken
        self._services: list[grpc.GenericRpcHandler] = []
        self._methods: dict[str, grpc.RpcMethodHandler] = {}  # those that were asked
        self._entrances: list[Entrance] = []
        self._peers: set[Peer] = set()
        self._calls: set[Call] = set()
        self._crew = Crew(threads, abreast)
        self._selector = selectors.DefaultSelector()
        self._awake, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        self._next_look = 0.0
        self._refusing = False  # whether calls were refused at the last look
        self._end: float | None = None  # when what is left of calls is cut off
        self._stopped = threading.Event()

    # === What generated code calls to register a service ===

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        self._services += handlers

    def add_registered_method_handlers(self, service: str, handlers: Any) -> None:
        """The same methods again, from generated code that is newer."""

    def _method(self, path: str) -> grpc.RpcMethodHandler | None:
        """What answers the calls of a method, None where nobody does."""
        if path in self._methods:
            return self._methods[path]
        for service in self._services:
            found = service.service(_Details(path, ()))
            if found is not None:
                return self._methods.setdefault(path, self._wrapped(path, found))
        return None

    # === Start and stop ===

    def listen(self, listening: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Answer on a socket that is bound."""
        listening.listen(1024)
        self._entrances.append(Entrance(listening, tls))

    def start(self) -> None:
        self._selector.register(self._awake, READ, None)
        for entrance in self._entrances:
            self._selector.register(entrance.socket, READ, entrance)
        threading.Thread(target=self._wait, name="grpc", daemon=True).start()

    def stop(self, grace: float) -> threading.Event:
        """Take no new calls, cancel those that stream, let the others end for `grace` seconds;
        the event is set when all is over.

        No call is lost: clients are told to open no more, and those that they had opened before
        they knew are answered.
        """
        self._end = time.monotonic() + grace
        self._next_look = 0.0
        self._wake()
        return self._stopped

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._waker.send(b"\0")

    # === Sockets: all of this is done by one thread ===

    def _wait(self) -> None:
        while not self._stopped.is_set():
            try:
                self._look()
            except Exception:  # a mistake of ours must not leave everybody without an answer
                log.exception("the gRPC server goes on")
        self._crew.dismiss()

    def _look(self) -> None:
        """Wait for the sockets, and do what they are ready for."""
        wait = TICK if self._end is None else HURRY
        for key, events in self._selector.select(wait):
            if isinstance(key.data, Peer):
                self._serve(key.data, events)
            elif isinstance(key.data, Entrance):
                self._accept(key.data)
            else:
                self._awake.recv(64)
        if self._refusing:
            self._refusing = False
            time.sleep(CALM)
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + wait
            self._tidy(now)

    def _accept(self, entrance: Entrance) -> bool:
        """Let a client in, if one waits."""
        try:
            found = entrance.accept()
        except OSError as error:  # too many open files: try again at the next look
            log.error("cannot accept a connection: %s", error)
            self._selector.unregister(entrance.socket)
            return False
        if found is None:
            return False
        connected, name = found
        if len(self._peers) >= self._limits.connections:
            connected.close()
            return True
        peer = Peer(connected, name, self._selector, self._limits.streams)
        self._peers.add(peer)
        self._selector.register(connected, READ, peer)
        self._serve(peer, 0)
        return True

    def _serve(self, peer: Peer, events: int) -> None:
        try:
            for reads in itertools.count(1):
                found, more = peer.ready(events)
                for happening, stream in found:
                    self._happened(happening, peer, stream)
                peer.flush()
                if not more or (reads >= FAIR and not peer.held()):
                    break
        except ConnectionEnds as ends:
            log.info("%s: %s", peer.name, ends)
            self._close(peer)
        except ssl.SSLError as error:
            if peer.shaking:
                self._unshaken(peer.name, error)
            self._close(peer)
        except OSError:
            self._close(peer)
        except MemoryError:  # for what it sends: with the connection goes what there is of it
            say_full(peer.name)
            self._close(peer)
        except Exception:  # a mistake of ours costs one connection, not the server
            log.exception("%s", peer.name)
            self._close(peer)

    def _close(self, peer: Peer) -> None:
        self._peers.discard(peer)
        for call in peer.close():
            call.gone()

    def _happened(self, happening: Happening, peer: Peer, stream: Stream) -> None:
        if happening is Happening.OPENED:
            self._open(peer, stream)
            return
        call = stream.call
        if not isinstance(call, Call) or call.handler is None:
            return  # it was refused
        try:
            if happening is Happening.DATA:
                call.grew()
            elif happening is Happening.ENDED:
                call.ended()
                if not call.handler.request_streaming:
                    call.queued = self._read(call)
                    self._crew.answer(call)
            else:
                call.gone()
        except Aborted:
            self._refuse(call, peer)
        except Failure as failure:
            call.finish(failure.code, str(failure))

    def _open(self, peer: Peer, stream: Stream) -> None:
        """The headers of a call are there: find its method, and refuse it before it is read."""
        headers = stream.headers
        if headers is TOO_LARGE:
            why = f"received metadata size exceeds hard limit ({LARGEST_HEADERS})"
            peer.answer(stream, trailers=HEAD + trailers(8, why))
            return
        if headers.get(":method") != "POST" or not headers.get("content-type", "").startswith(
            "application/grpc"
        ):
            peer.answer(stream, trailers=literal(":status", "415") + trailers(2, "expected gRPC"))
            return
        handler = self._method(headers.get(":path", ""))
        kind = StreamCall if handler is not None and handler.request_streaming else Call
        call = stream.call = kind(peer, stream, self._limits.message_bytes, self._calls)
        try:
            if handler is None:
                raise Failure(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
            if len(self._calls) >= self._limits.calls:
                raise Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded!")
            self._opened(call)
        except Aborted:
            self._refuse(call, peer)
            return
        except Failure as failure:
            call.finish(failure.code, str(failure))
            return
        call.handler = handler
        peer.invite(stream)
        self._calls.add(call)
        if handler.request_streaming:
            self._crew.answer(call)

    def _refuse(self, call: Call, peer: Peer) -> None:
        """For want of room; and the client had better not send the body of its next call."""
        self._refusing = True
        peer.refused = time.monotonic()
        peer.set_narrow(True)
        call.finish(call.code() or grpc.StatusCode.UNKNOWN, call.details())

    # === Connections that have to go ===

    def _tidy(self, now: float) -> None:
        if self._end is None:
            self._reopen()
        else:
            self._drain()
        for call in list(self._calls):
            if call.stalls(now - self._limits.stall):
                self._end_silent(call, now - self._limits.stall)
        for peer in list(self._peers):
            self._look_after(peer, now)
        if self._end is not None and not self._peers and not self._calls:
            self._stopped.set()
            self._selector.close()
            self._awake.close()

    def _end_silent(self, call: Call, since: float) -> None:
        """End a call whose client has sent nothing since then. Of a long frame the system tells
        when it is whole, so what there is of it is read first."""
        self._serve(call.client, READ)
        if call in self._calls and call.client.heard < since:
            why = "the rest of the request did not come in time"
            call.finish(grpc.StatusCode.DEADLINE_EXCEEDED, why)

    def _reopen(self) -> None:
        """Wait again for the entrances that were shut for want of files."""
        for entrance in self._entrances:
            with contextlib.suppress(KeyError):  # it is open
                self._selector.register(entrance.socket, READ, entrance)

    def _drain(self) -> None:
        for entrance in self._entrances:
            while self._accept(entrance):  # who has connected is told, too
                pass
            self._selector.unregister(entrance.socket)
            unbind(entrance.socket)
        self._entrances.clear()
        for call in list(self._calls):
            if call.streaming:
                call.cancel()

    def _look_after(self, peer: Peer, now: float) -> None:
        connection = peer.connection
        if now > peer.refused + NARROW:
            peer.set_narrow(False)
        if now > self._cut_off(peer):
            self._close(peer)
        elif not connection.greeted:
            if now > peer.accepted + GREETING or self._end is not None:
                self._close(peer)
        elif peer.told is None:
            if self._has_to_go(peer, now):
                peer.go_away(later=True)
        elif not connection.leaving:
            if connection.acknowledged or now > peer.told + HEARD:
                peer.go_away()
        elif not connection.streams:
            self._close(peer)

    def _has_to_go(self, peer: Peer, now: float) -> bool:
        age, idle = self._limits.age, self._limits.idle
        if self._end is not None or (age is not None and now > peer.accepted + age):
            return True
        return idle is not None and not peer.connection.streams and now > peer.used + idle

    def _cut_off(self, peer: Peer) -> float:
        """When the calls that are left on a connection end, whether or not they are answered."""
        end = math.inf if self._end is None else self._end
        if peer.told is None or self._limits.grace is None:
            return end
        return min(end, peer.told + self._limits.grace)
