"""What every face over HTTP does alike: bodies of bounded size, work on threads, errors as JSON."""

import asyncio
import functools
import json
import logging
import time
import zlib
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from striate.serve.status import Code, ServingError, cut

log = logging.getLogger("striate.serve")

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]

HTTP_STATUS = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.UNKNOWN: 500,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.DATA_LOSS: 500,
    Code.UNAUTHENTICATED: 401,
}

_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}

Endpoint = Callable[[Request], Any]


def threaded(
    answer: Callable[[Request, bytes, float], Response],
    executor: Executor,
    *,
    max_bytes: int,
    timeout_seconds: float,
) -> Endpoint:
    """An endpoint that reads the body and answers on one of `executor`'s threads.

    answer(request, body, deadline): deadline in `time.monotonic()`. What it raises becomes
    {"error": "..."} with the status of its code.
    """

    async def endpoint(request: Request) -> Response:
        deadline = time.monotonic() + timeout_seconds
        try:
            body = await _body(request, max_bytes)
        except ServingError as error:
            return refusal(error, 413 if error.code == Code.RESOURCE_EXHAUSTED else None)
        except ClientDisconnect:
            return Response(status_code=499)
        work = functools.partial(_answered, answer, request, body, deadline)
        watch = asyncio.create_task(_watch(request))
        try:
            return await asyncio.get_running_loop().run_in_executor(executor, work)
        finally:
            watch.cancel()

    return endpoint


async def _watch(request: Request) -> None:
    """Remember that the client went away, for `left`."""
    request.state.left = False
    while (await request.receive())["type"] != "http.disconnect":
        pass
    request.state.left = True


def left(request: Request) -> Callable[[], bool]:
    """Whether the client of a request went away meanwhile."""
    return lambda: getattr(request.state, "left", False)


def _answered(
    answer: Callable[[Request, bytes, float], Response],
    request: Request,
    body: bytes,
    deadline: float,
) -> Response:
    try:
        return answer(request, body, deadline)
    except ServingError as error:
        return refusal(error)
    except Exception as error:  # a mistake of ours: the client gets one line, the log the rest
        log.exception("%s %s", request.method, raw_path(request))
        return json_response({"error": cut(f"{type(error).__name__}: {error}")}, 500)


def json_response(document: Any, status: int = 200, *, indent: int | None = None) -> Response:
    text = json.dumps(document, indent=indent)
    return Response(text, status, media_type="application/json")


def refusal(error: ServingError, status: int | None = None) -> Response:
    """The response that says why not, in one line."""
    return json_response({"error": cut(str(error))}, status or HTTP_STATUS[error.code])


def raw_path(request: Request) -> str:
    """The path as it was sent, its percent signs and all: a name may have a slash in it."""
    return request.scope.get("raw_path", request.url.path.encode()).decode("latin-1")


async def _body(request: Request, most: int) -> bytes:
    """A request's body, of at most `most` bytes; the rest of a longer one is never read.

    A compressed one counts by what it unfolds to, and is unfolded no further than that.
    """
    unfold = _unfolding(request.headers.get("content-encoding", "identity").strip().lower())
    parts, size = [], 0
    async for part in request.stream():
        part = unfold(part, most + 1 - size)
        parts.append(part)
        size += len(part)
        if size > most:
            raise ServingError(
                Code.RESOURCE_EXHAUSTED, f"Expected a body of at most {most:,} bytes, got more"
            )
    return b"".join(parts)


def _unfolding(encoding: str) -> Callable[[bytes, int], bytes]:
    """(part of a body, how many bytes at most) -> that part, decompressed."""
    if encoding in ("", "identity"):
        return lambda part, most: part
    if encoding not in _WINDOW_BITS:
        raise ServingError(
            Code.INVALID_ARGUMENT,
            f"Expected Content-Encoding identity, gzip or deflate, got {encoding!r}",
        )
    stream = zlib.decompressobj(_WINDOW_BITS[encoding])

    def unfold(part: bytes, most: int) -> bytes:
        try:
            return stream.decompress(part, most)
        except zlib.error as error:
            raise ServingError(
                Code.INVALID_ARGUMENT, f"Expected a body in {encoding}, got a damaged one ({error})"
            ) from None

    return unfold
