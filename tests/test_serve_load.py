"""The load tools give true numbers, and the server keeps nobody waiting for the network."""

import asyncio
import json
import socket
import subprocess
import sys
from typing import Any

import pytest

from making import ROOT, SHIPPED
from striate.serve.listeners import bind


@pytest.mark.long
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


def ran(script: str, *options: str) -> Any:
    """What a benchmark prints with --json."""
    command = [sys.executable, str(ROOT / "benchmarks" / script), "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.mark.long
def test_the_load_benchmark_tells_striate_from_the_raw_engine(tmp_path):
    short = ["--nets", "squeezenet1_1", "--rounds", "1", "--seconds", "0.5"]
    table = tmp_path / "serving.md"
    rows = ran("serving.py", *short, "--cases", "jpeg", "overload", "--table", str(table))
    names = {"case", "unit", "ours", "peer_name", "peer", "ratio"}
    assert all(names <= row.keys() and row["ours"] > 0 and row["peer"] > 0 for row in rows)
    files, *overload = rows
    assert files["ratio"] == pytest.approx(files["ours"] / files["peer"], rel=1e-2)
    beyond = [row for row in overload if ": 5 times the load" in row["case"]]
    # over gRPC and over REST, each was answered, or refused for want of a place
    assert [row["failed"] for row in beyond] == [0, 0]
    assert len(table.read_text().splitlines()) == 7 + len(rows)


@pytest.mark.long
def test_an_hour_of_everything_shortened():
    found = ran("serve_soak.py", "--model", str(SHIPPED), "--minutes", "0.2")
    assert all(row["answered"] > 0 and row["failed"] == 0 for row in found["rows"]), found["rows"]
    assert len(found["rows"]) == 13
    assert found["memory"]["alive"]
