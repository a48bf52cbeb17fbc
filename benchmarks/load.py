"""Load for a server, from a process of its own, so that its share of the machine can be told.

    python benchmarks/load.py grpc://HOST:PORT/METHOD BODY [--cores 1]

sends the bytes of the file BODY, over gRPC or by POST over HTTP, or gives them to the engine itself
(`engine:///ARTIFACT`), which is what servers are compared with. Each line of standard input is a
round, `closed CLIENTS SECONDS` (each client asks again when it is answered) or `open RATE SECONDS`
(requests a second at the moments of a Poisson process, whether or not earlier ones are answered),
and is answered by a line of JSON, see `Round`; to `answer` by one answer, in base64.
"""

import argparse
import base64
import contextlib
import dataclasses
import functools
import http.client
import json
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

TIMEOUT = 60.0  # seconds until a request has failed
TOGETHER = 200  # requests over HTTP that an open round has under way, each with its connection
WARM = 0.3  # seconds at the start of a closed round that do not count
REJECTED = ("UNAVAILABLE", "RESOURCE_EXHAUSTED", "503")

Ask = Callable[[], str]  # one request; "OK", or the code that it ended with


@dataclasses.dataclass
class Round:
    """answered, rejected: milliseconds of each; failed: how many by their code; seconds: that it
    took; cpu: seconds of processor time that this generator used meanwhile; asked: how many
    requests were sent, those beyond the seconds too."""

    answered: list[float] = dataclasses.field(default_factory=list)
    rejected: list[float] = dataclasses.field(default_factory=list)
    failed: dict[str, int] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    cpu: float = 0.0
    asked: int = 0

    def add(self, code: str, seconds: float) -> None:
        if code == "OK":
            self.answered.append(1000 * seconds)
        elif code in REJECTED:
            self.rejected.append(1000 * seconds)
        else:
            self.failed[code] = self.failed.get(code, 0) + 1

    @property
    def counted(self) -> int:
        return len(self.answered)

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return self.counted / self.seconds

    @property
    def median(self) -> float:
        return statistics.median(self.answered)


class Load:
    """The parent's end of a generator: a method for each kind of round."""

    def __init__(self, url: str, body: Path, headers: dict[str, str], cores: set[int]):
        named = [f"--header={name}={value}" for name, value in headers.items()]
        pinned = [f"--cores={','.join(map(str, cores))}"]
        self._process = subprocess.Popen(
            [sys.executable, __file__, url, str(body), *named, *pinned],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def closed(self, clients: int, seconds: float) -> Round:
        return self._ask(f"closed {clients} {seconds}")

    def open(self, rate: float, seconds: float) -> Round:
        return self._ask(f"open {rate} {seconds}")

    def answer(self) -> bytes:
        """What one request is answered; nothing where it fails."""
        return base64.b64decode(self._said("answer"))

    def close(self) -> None:
        self._process.communicate()

    def _ask(self, line: str) -> Round:
        return Round(**json.loads(self._said(line)))

    def _said(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()


def closed(asks: list[Ask], seconds: float) -> Round:
    """Every client asks, waits for its answer, and asks again."""
    found = Round()
    begin = time.perf_counter() + WARM
    end = begin + seconds

    def client(ask: Ask) -> None:
        while (sent := time.perf_counter()) < end:
            code = ask()
            found.asked += 1
            if begin < (now := time.perf_counter()) <= end:
                found.add(code, now - sent)

    threads = [threading.Thread(target=client, args=(ask,)) for ask in asks]
    used = _between(begin, end, threads)
    return dataclasses.replace(found, seconds=seconds, cpu=used)


def _between(begin: float, end: float, threads: list[threading.Thread]) -> float:
    """Processor seconds that passed from `begin` to `end`, while the threads ran."""
    for thread in threads:
        thread.start()
    time.sleep(max(0.0, begin - time.perf_counter()))
    before = time.process_time()
    time.sleep(max(0.0, end - time.perf_counter()))
    used = time.process_time() - before
    for thread in threads:
        thread.join()
    return used


def opened(send: Callable[[Callable[[str], None]], None], rate: float, seconds: float) -> Round:
    """Requests at the moments of a Poisson process; the round ends with the last answer.

    send(done): sends a request, whose code is given to `done`. A late sender does not make its
    requests younger: time counts from the moment that was drawn.
    """
    found, over = Round(), threading.Semaphore(0)
    dice, sent = random.Random(0), 0
    begin, before = time.perf_counter(), time.process_time()
    due = begin

    def ended(due: float, code: str) -> None:
        found.add(code, time.perf_counter() - due)
        over.release()

    while (due := due + dice.expovariate(rate)) < begin + seconds:
        time.sleep(max(0.0, due - time.perf_counter()))
        send(functools.partial(ended, due))
        sent += 1
    for _ in range(sent):
        over.acquire(timeout=TIMEOUT)
    wall, used = time.perf_counter() - begin, time.process_time() - before
    return dataclasses.replace(found, seconds=wall, cpu=used, asked=sent)


class Grpc:
    """One method of a gRPC server, asked by bytes."""

    def __init__(self, address: str, path: str, body: bytes, headers: dict[str, str]):
        import grpc

        self._error = grpc.RpcError
        self._address, self._path, self._body = address, path, body
        self._channel, self._call = self._connected()

    def _connected(self) -> tuple[Any, Any]:
        import grpc

        options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        channel = grpc.insecure_channel(self._address, options)
        return channel, channel.unary_unary(self._path)

    def client(self) -> Ask:
        """A client with a connection of its own."""
        channel, call = self._connected()

        def ask(_=channel) -> str:  # which would be closed if nobody held it
            try:
                call(self._body, timeout=TIMEOUT)
            except self._error as error:
                return error.code().name
            return "OK"

        return ask

    def answer(self) -> bytes:
        try:
            return self._call(self._body, timeout=TIMEOUT)
        except self._error:
            return b""

    def send(self, done: Callable[[str], None]) -> None:
        future = self._call.future(self._body, timeout=TIMEOUT)
        future.add_done_callback(lambda call: done(call.code().name))


class Http:
    """One path of an HTTP server, asked by POST over connections that are kept."""

    def __init__(self, address: str, path: str, body: bytes, headers: dict[str, str]):
        self._address, self._path, self._body, self._headers = address, path, body, headers
        self._pool = ThreadPoolExecutor(TOGETHER)
        self._own = threading.local()

    def client(self) -> Ask:
        connection = http.client.HTTPConnection(self._address, timeout=TIMEOUT)

        def ask() -> str:
            try:
                connection.request("POST", self._path, self._body, self._headers)
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                return type(error).__name__
            return "OK" if answer.status == 200 else str(answer.status)

        return ask

    def answer(self) -> bytes:
        connection = http.client.HTTPConnection(self._address, timeout=TIMEOUT)
        try:
            connection.request("POST", self._path, self._body, self._headers)
            answer = connection.getresponse()
            return answer.read() if answer.status == 200 else b""
        except (OSError, http.client.HTTPException):
            return b""
        finally:
            connection.close()

    def send(self, done: Callable[[str], None]) -> None:
        self._pool.submit(lambda: done(self._of_this_thread()()))

    def _of_this_thread(self) -> Ask:
        if not hasattr(self._own, "ask"):
            self._own.ask = self.client()
        return self._own.ask


class InProcess:
    """The engine of an artifact in this very process: what no server can be quicker than."""

    def __init__(self, address: str, path: str, body: bytes, headers: dict[str, str]):
        import numpy as np

        from striate.artifact import load
        from striate.preprocess import pixels
        from striate.runtime import open_engine

        artifact = load(path)
        shape, spec = artifact.preprocess.shape, artifact.preprocess
        self._engine = open_engine(artifact, "onnx", threads=1)
        if len(body) == np.prod(shape):
            image = np.frombuffer(body, np.uint8).reshape(1, *shape)
            self._image = lambda: image
        else:
            self._image = lambda: pixels(body, spec)[np.newaxis]

    def client(self) -> Ask:
        def ask() -> str:
            self._engine.predict(self._image())
            return "OK"

        return ask

    def answer(self) -> bytes:
        return self._engine.predict(self._image()).tobytes()


KINDS = {"grpc": Grpc, "http": Http, "engine": InProcess}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", help="grpc://HOST:PORT/METHOD or http://HOST:PORT/PATH")
    parser.add_argument("body", type=Path, help="a file: what every request says")
    parser.add_argument("--header", action="append", default=[], help="NAME=VALUE, of HTTP")
    parser.add_argument("--cores", default="", help="to run on, with commas; else all")
    given = parser.parse_args()
    if given.cores:
        os.sched_setaffinity(0, map(int, given.cores.split(",")))
    url = urlsplit(given.url)
    headers = dict(header.split("=", 1) for header in given.header)
    target = KINDS[url.scheme](url.netloc, url.path, given.body.read_bytes(), headers)
    clients: list[Ask] = []
    with contextlib.suppress(KeyboardInterrupt):
        for line in sys.stdin:
            how, number, seconds, *_ = *line.split(), "0", "0"
            if how == "answer":
                print(base64.b64encode(target.answer()).decode(), flush=True)
                continue
            if how == "closed":
                clients += [target.client() for _ in range(int(number) - len(clients))]
                found = closed(clients[: int(number)], float(seconds))
            else:
                found = opened(target.send, float(number), float(seconds))
            print(json.dumps(dataclasses.asdict(found)), flush=True)


if __name__ == "__main__":
    main()
