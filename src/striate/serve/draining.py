"""uvicorn's server, which does not close on those whose requests are on their way."""

import asyncio
import socket

import uvicorn

MOMENT = (
    0.3  # seconds between the last connection that is let in and the end of those that are idle
)


class DrainingServer(uvicorn.Server):
    """Lets nobody in any more, then answers who is there already, then ends.

    uvicorn does all of it at once, and a request that comes at that moment over a connection that
    was idle is lost.
    """

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        await asyncio.sleep(MOMENT)
        await super().shutdown(sockets)
