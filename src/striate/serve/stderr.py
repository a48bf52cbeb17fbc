"""The server's log on standard error, by a thread of its own.

Who reads it may stop, as a container's log driver does whose disk is full. A line written by the
thread that wants to say something would then keep that one waiting, and with it all clients.
"""

import contextlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Queue

from striate.serve.behind import Behind

log = logging.getLogger("striate.serve")

WAITING = 1_000  # lines that are not written yet; more are lost
ENDING = 1.0  # seconds for what waits at the end


class StandardError(logging.Handler):
    """Has records written to standard error; never waits."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        self._behind = Behind("log", WAITING, self._work)

    def emit(self, record: logging.LogRecord) -> None:
        self._behind.offer(f"{self.format(record)}\n")

    def close(self) -> None:
        self._behind.close(ENDING)
        super().close()

    def _work(self, waiting: "Queue[str | None]") -> None:
        while (line := waiting.get()) is not None:
            with contextlib.suppress(OSError):  # not by sys.stderr, which the process could not
                os.write(2, line.encode("utf-8", "backslashreplace"))  # end without


@contextmanager
def logged() -> Iterator[None]:
    """Within the block, what happens to versions is seen: loaded, refused, let go; unless a program
    that this server is part of has handlers of its own for that."""
    if log.handlers:
        yield
        return
    handler = StandardError()
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()
