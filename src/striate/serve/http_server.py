"""uvicorn's server, as it has to be behind load balancers and with many clients."""

import asyncio
import errno
import logging
import socket
import time
from typing import Any

import uvicorn

log = logging.getLogger("striate.serve")

MOMENT = 0.3  # seconds from the last connection that is let in to the end of those that are idle
OFTEN = 1.0  # seconds between two lines about connections that could not be let in
NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class HttpServer(uvicorn.Server):
    """It ends in steps: lets nobody in any more, then answers who is there already, then closes.

    uvicorn does all of it at once, and a request that comes at that moment over a connection that
    was idle is lost.
    """

    _said = -OFTEN  # when it was, in time.monotonic(), that there is no room

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(self.failed)
        await super().startup(sockets)

    @property
    def connections(self) -> int:
        """How many there are, those without a request included."""
        return len(self.server_state.connections)

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
        elif time.monotonic() >= self._said + OFTEN:
            self._said = time.monotonic()
            log.error("cannot accept a connection: %s", error)
