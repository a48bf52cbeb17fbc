"""uvicorn's server, as it has to be behind load balancers and with many clients."""

import asyncio
import errno
import json
import math
import socket
import time
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from striate.serve.seldom import Seldom

KEEP_ALIVE = 75  # seconds without a request; balancers keep connections for 60, and fail on ours
MOMENT = 0.3  # seconds from the last connection that is let in to the end of those that are idle
LOOK = 5  # of uvicorn's ticks, of 0.1 s, from one look for clients that stall to the next
NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

LARGEST_HEAD = 1 << 16  # bytes of one, when it comes in parts; or of trailers after a body


def _refusal(status: str, why: str) -> bytes:
    body = json.dumps({"error": why})
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n{body}".encode()


TOO_SLOW = _refusal("408 Request Timeout", "the rest of the request did not come in time")
TOO_LARGE = _refusal(
    "431 Request Header Fields Too Large", f"expected at most {LARGEST_HEAD} bytes of headers"
)


class HttpConnection(HttpToolsProtocol):
    """A client's connection, with limits on what uvicorn reads and waits for without any: heads,
    and clients that have begun a request, or have connected and say nothing."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._heard = self._begun = time.monotonic()
        self._in_head = False
        self._unread = 0  # bytes that are no whole head yet, and no body
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self._heard = time.monotonic()
        self._unread += len(data)
        super().data_received(data)
        if self._unread > LARGEST_HEAD and not self.transport.is_closing():
            self._refuse(TOO_LARGE)

    def on_message_begin(self) -> None:
        self._begun, self._in_head = self._heard, True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head, self._unread = False, 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unread = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unread = 0
        super().on_message_complete()

    def end_if_stalled(self, now: float, seconds: float) -> None:
        """Close it where the client has sent nothing of a body for so long, or has not sent a whole
        head in that time. Who says nothing at all has as long as a connection without requests."""
        if self.transport.is_closing() or self.pipeline:
            return
        silent = now - self._heard
        if self.scope is None:
            if silent > self.timeout_keep_alive:
                self.transport.close()
        elif self._in_head:
            if now - self._begun > seconds and not self._answering():
                self._refuse(TOO_SLOW)
        elif self._reads() and silent > seconds:
            self._refuse(TOO_SLOW)

    def _answering(self) -> bool:
        """Whether a request is not answered yet, or not all of it."""
        return self.cycle is not None and not self.cycle.response_complete

    def _reads(self) -> bool:
        """Whether what is missing of a body would be read."""
        idle = self.timeout_keep_alive_task is not None
        return self.cycle.more_body and not self.flow.read_paused and not idle

    def _refuse(self, answer: bytes) -> None:
        """Close the connection, with an answer where the request has none."""
        if self._in_head or self.cycle is None or not self.cycle.response_started:
            self.transport.write(answer)
        self.transport.close()


def configuration(app: Callable[..., Any]) -> uvicorn.Config:
    """uvicorn's settings for an ASGI application, loaded."""
    config = uvicorn.Config(
        app,
        http=HttpConnection,
        ws="none",
        lifespan="off",
        log_config=None,  # uvicorn's own does without no standard output
        log_level="error",  # not what clients do wrong
        access_log=False,
        proxy_headers=False,  # else whoever calls from this machine says who it is
        timeout_keep_alive=KEEP_ALIVE,
    )
    config.load()
    return config


class HttpServer(uvicorn.Server):
    """It ends in steps: lets nobody in any more, then answers who is there already, then closes.

    uvicorn does all of it at once, and a request that comes at that moment over a connection that
    was idle is lost. stall_seconds: see `HttpConnection.end_if_stalled`.
    """

    def __init__(self, config: uvicorn.Config, stall_seconds: float):
        super().__init__(config)
        self._stall_seconds = stall_seconds
        self._log = Seldom()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(self.failed)
        await super().startup(sockets)

    async def on_tick(self, counter: int) -> bool:
        if counter % LOOK == 0:
            now = time.monotonic()
            for connection in list(self.server_state.connections):
                assert isinstance(connection, HttpConnection)
                connection.end_if_stalled(now, self._stall_seconds)
        return await super().on_tick(counter)

    @property
    def connections(self) -> int:
        """How many there are, those without a request included."""
        return len(self.server_state.connections)

    def end_within(self, seconds: float) -> None:
        """Begin to end; requests in flight have so long, in whole seconds, as uvicorn counts."""
        self.config.timeout_graceful_shutdown = math.ceil(seconds)
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        await asyncio.sleep(MOMENT)
        await super().shutdown(sockets)

    def failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log what went wrong in the loop. Without files for more connections asyncio would write
        two megabytes a second about it."""
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in NO_ROOM:
            loop.default_exception_handler(context)
        else:
            self._log.warn("cannot accept a connection: %s", error)
