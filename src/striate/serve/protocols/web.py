"""What every face over HTTP does alike: bodies of bounded size, work on threads, errors as JSON."""

import asyncio
import functools
import json
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor
from contextlib import asynccontextmanager, contextmanager, nullcontext
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from striate.serve.calls import ID_HEADER, Call, address, call_of, during
from striate.serve.core import Core
from striate.serve.keys import PROBES
from striate.serve.scheduler import Scheduler, too_late
from striate.serve.status import HTTP_STATUS, Code, QueueFull, ServingError, cut
from striate.serve.unforeseen import told

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]

_WINDOW_BITS = {
    "gzip": 16 + zlib.MAX_WBITS,
    "x-gzip": 16 + zlib.MAX_WBITS,  # the same (RFC 9110, 8.4.1.3)
    "deflate": zlib.MAX_WBITS,
}

Endpoint = Callable[[Request], Any]
Answerer = Callable[[Request, bytes, float], Response]


class Line:
    """Where requests wait for their turn: as bytes, and without a thread, which would contend with
    those that answer for the interpreter."""

    def __init__(self, scheduler: Scheduler):
        self._scheduler = scheduler
        places = scheduler.workers + scheduler.max_queue
        self._turns = asyncio.Semaphore(scheduler.abreast or places)

    @asynccontextmanager
    async def turn(self, call: Call, deadline: float) -> AsyncIterator[None]:
        """The block runs when it is the turn of a call that has been read.

        Until its end the call has a place in the scheduler; `QueueFull` where there is none.
        """
        self._scheduler.enter()
        call.placed, call.begun = True, time.monotonic()
        try:
            await self._take(deadline - call.begun)
            try:
                yield
            finally:
                self._turns.release()
        finally:
            self._scheduler.leave()

    async def _take(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._turns.acquire()
        except TimeoutError:
            raise too_late() from None


def threaded(
    answer: Answerer,
    core: Core,
    executor: Executor,
    *,
    timeout_seconds: float,
    line: Line,
    retired: Callable[[], bool],
    crowded: Callable[[], bool],
    infers: Callable[[Request], bool] = lambda request: False,
    full: str = "",
) -> Endpoint:
    """An endpoint that reads the body and answers on one of `executor`'s threads.

    answer(request, body, deadline): deadline in `time.monotonic()`. What it raises becomes
    {"error": "..."} with the status of its code. The core is told of every call. retired: whether
    clients had better connect anew, elsewhere; crowded: whether there are more connections than may
    be, so that those that ask are refused and end, but for probes. infers: which requests wait in
    the line; full: what they are told when there is no place in it, if that is not what the
    scheduler says.
    """

    async def respond(request: Request, call: Call) -> Response:
        queued = infers(request)
        try:
            core.admit(call, request.headers.get("authorization"))
            if crowded() and call.method not in PROBES:
                raise ServingError(Code.UNAVAILABLE, "more connections than this server allows")
            if queued and not core.scheduler.places:  # it is not worth reading
                raise core.scheduler.refusal()
            body = await _body(request, core.max_bytes)
            call.received = len(body)
            deadline = time.monotonic() + timeout_seconds  # not of how long a client takes to send
            work = functools.partial(_answered, answer, request, body, deadline, call)
            with _watched(request):
                async with line.turn(call, deadline) if queued else nullcontext():
                    return await asyncio.get_running_loop().run_in_executor(executor, work)
        except ServingError as error:
            call.code = error.code
            if full and isinstance(error, QueueFull):
                error = QueueFull(full)
            return refusal(error, 413 if error.code == Code.RESOURCE_EXHAUSTED else None)
        except MemoryError as error:  # for its body
            return _refused(error, call)
        except ClientDisconnect:
            call.code = Code.CANCELLED
            return Response(status_code=499)
        except asyncio.CancelledError:  # the time for the drain is over
            call.code = Code.UNAVAILABLE
            return refusal(ServingError(call.code, "the server ended before it could answer"))

    async def endpoint(request: Request) -> Response:
        call = _call(request)
        request = _as_get(request)
        try:
            response = await respond(request, call)
            response.headers[ID_HEADER] = call.id
            if retired() or crowded() or (call.received is None and "expect" in request.headers):
                response.headers["Connection"] = "close"  # of a body that was not asked for, too
            call.sent, call.status = len(response.body), response.status_code
            return response
        finally:
            if call.code == Code.OK and left(request)():
                call.code = Code.CANCELLED
            core.finished(call)

    return endpoint


def _as_get(request: Request) -> Request:
    """A HEAD as the GET that it asks the headers of; what sends the answer leaves its body out."""
    if request.method != "HEAD":
        return request
    return Request({**request.scope, "method": "GET"}, request.receive)


def _call(request: Request) -> Call:
    path = raw_path(request)
    peer = "" if request.client is None else address(*request.client)
    api, method = "ModelInfer" if path.startswith("/v2") else "", f"{request.method} {path}"
    return call_of(request.headers, peer, entrypoint="REST", api=api, method=method)


@contextmanager
def _watched(request: Request) -> Iterator[None]:
    """Within the block, `left` knows whether the client went away."""
    watch = asyncio.create_task(_watch(request))
    try:
        yield
    finally:
        watch.cancel()


async def _watch(request: Request) -> None:
    request.state.left = False
    while (await request.receive())["type"] != "http.disconnect":
        pass
    request.state.left = True


def left(request: Request) -> Callable[[], bool]:
    """Whether the client of a request went away meanwhile."""
    return lambda: getattr(request.state, "left", False)


def _answered(
    answer: Answerer, request: Request, body: bytes, deadline: float, call: Call
) -> Response:
    try:
        with during(call):
            return answer(request, body, deadline)
    except Exception as error:
        return _refused(error, call)


def _refused(error: Exception, call: Call) -> Response:
    """The response to a call that ended with an error."""
    why = told(error, call.method)
    call.code = why.code
    return refusal(why)


def json_response(document: Any, status: int = 200, *, indent: int | None = None) -> Response:
    text = json.dumps(document, indent=indent)
    return Response(text, status, media_type="application/json")


def refusal(error: ServingError, status: int | None = None) -> Response:
    """The response that says why not, in one line."""
    response = json_response({"error": cut(str(error))}, status or HTTP_STATUS[error.code])
    if error.code == Code.UNAUTHENTICATED:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def raw_path(request: Request) -> str:
    """The path as it was sent, its percent signs and all: a name may have a slash in it."""
    sent = request.scope.get("raw_path")  # servers need not tell
    return request.url.path if sent is None else sent.decode("latin-1")


async def _body(request: Request, most: int) -> bytes:
    """A request's body, of at most `most` bytes; the rest of a longer one is never read.

    A compressed one counts by what it unfolds to, and is unfolded no further than that.
    """
    unfolding = _Unfolding(request.headers.get("content-encoding", "identity").strip().lower())
    parts, size = [], 0
    async for part in request.stream():
        part = unfolding.unfold(part, most + 1 - size)
        parts.append(part)
        size += len(part)
        if size > most:
            raise ServingError(
                Code.RESOURCE_EXHAUSTED, f"Expected a body of at most {most:,} bytes, got more"
            )
    unfolding.end()
    return b"".join(parts)


class _Unfolding:
    """Takes a body's encoding away, part by part."""

    def __init__(self, encoding: str):
        plain = encoding in ("", "identity")
        if not plain and encoding not in _WINDOW_BITS:
            raise ServingError(
                Code.INVALID_ARGUMENT,
                f"Expected Content-Encoding identity, gzip or deflate, got {encoding!r}",
            )
        self._encoding, self._begun = encoding, False
        self._stream = None if plain else zlib.decompressobj(_WINDOW_BITS[encoding])

    def unfold(self, part: bytes, most: int) -> bytes:
        """A part of the body, of which the first `most` bytes are enough."""
        if self._stream is None or not part:
            return part
        self._begun = True
        try:
            found = self._stream.decompress(part, most)
        except zlib.error as error:
            raise self._damaged(str(error)) from None
        if self._stream.unused_data:
            raise self._damaged("more than one stream")
        return found

    def end(self) -> None:
        """No more comes; INVALID_ARGUMENT for a body that ends in between."""
        if self._stream is not None and self._begun and not self._stream.eof:
            raise self._damaged("it is cut off")

    def _damaged(self, what: str) -> ServingError:
        return ServingError(
            Code.INVALID_ARGUMENT,
            f"Expected a body in {self._encoding}, got a damaged one ({what})",
        )
