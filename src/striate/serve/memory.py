"""Memory that nobody uses any more, back to the system.

glibc keeps what was freed between what is still in use, a part for each thread that asked for it.
Every model that is loaded and let go leaves more of that behind, so that a server which changes its
models would seem to grow for hours.
"""

import ctypes
from functools import cache


def give_back() -> None:
    """Takes milliseconds, in which others may wait for memory; does nothing without glibc."""
    trim = getattr(_c_library(), "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))


@cache
def _c_library() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(None)
    except (OSError, TypeError):  # Windows
        return None
