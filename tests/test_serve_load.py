"""The load tools give true numbers, and the server keeps nobody waiting for the network."""

import asyncio
import socket

from striate.serve.listeners import bind


def test_rest_answers_do_not_wait_for_acknowledgements():
    """The body of an answer would wait 40 ms for the client's system to acknowledge its head."""

    async def delays() -> int:
        accepted = asyncio.get_running_loop().create_future()
        server = await asyncio.start_server(
            lambda reader, writer: accepted.set_result(writer), sock=bind("127.0.0.1", 0)
        )
        async with server:
            _, mine = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer = await accepted
            found = writer.get_extra_info("socket").getsockopt(
                socket.IPPROTO_TCP, socket.TCP_NODELAY
            )
            mine.close()
            writer.close()
        return found

    assert asyncio.run(delays()) != 0
