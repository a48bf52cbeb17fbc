"""Errors that nobody foresaw, and memory that ran out: what clients are told, what is logged."""

import logging
import re

from striate.serve.seldom import Seldom
from striate.serve.status import Code, ServingError

log = logging.getLogger("striate.serve")

FULL = "The server's memory is full: ask again later, or about less at a time"

# How ONNX Runtime, C++, CUDA and TensorFlow say it, each in an error that says other things, too
_NO_MEMORY = re.compile(
    r"failed to allocate memory|bad_alloc|\bout of memory\b|OOM when allocating|RESOURCE_EXHAUSTED",
    re.IGNORECASE,
)
_seldom = Seldom()


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out."""
    return isinstance(error, MemoryError) or bool(_NO_MEMORY.search(str(error)))


def code_of_error(error: BaseException) -> Code:
    """How a request ends that ends with an error."""
    if isinstance(error, ServingError):
        return error.code
    return Code.RESOURCE_EXHAUSTED if lacks_memory(error) else Code.INTERNAL


def say_full(what: str) -> None:
    """Have the log say that there was no memory for something; of many times, once a second."""
    _seldom.warn("%s: memory ran out", what)


def told(error: Exception, what: str) -> ServingError:
    """What a client is told of an error of its request, in a line; the log gets the rest where it
    is a mistake of ours."""
    if isinstance(error, ServingError):
        return error
    if lacks_memory(error):
        say_full(what)
        return ServingError(Code.RESOURCE_EXHAUSTED, FULL)
    log.error("%s", what, exc_info=error)
    return ServingError(Code.INTERNAL, f"{type(error).__name__}: {error}")
