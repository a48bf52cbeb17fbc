"""One line of JSON for each call, written by a thread of its own.

A request hands its call over and goes on. Where the thread cannot keep up (a full disk, a pipe that
nobody reads, a burst) lines are lost and counted; requests are neither refused nor held up. The
file is opened anew for what has gathered, so whoever rotates logs may rename it at any time.
"""

import errno
import json
import os
import stat
import time
from datetime import UTC, datetime
from queue import Queue
from typing import Any

from striate.errors import UsageError
from striate.serve.behind import Behind
from striate.serve.calls import Call
from striate.serve.seldom import Seldom

WAITING = 10_000  # calls whose lines are not written yet; more are lost
TOGETHER = 1_000  # lines written at once


class AccessLog:
    """Appends to a file, or to standard output where `path` is `-`.

    lost: how many lines were not written. Raises `UsageError` for a file that cannot be opened.
    """

    def __init__(self, path: str):
        self._path = path
        self.lost = 0
        self._torn = False
        self._log = Seldom()
        try:
            os.close(self._open())
        except OSError as error:
            if not _is_unread_pipe(path, error):
                why = f"cannot be written ({error.strerror})"
                raise UsageError(f"access_log {path}: {why}") from None
        self._behind = Behind("access-log", WAITING, self._work)

    def write(self, call: Call) -> None:
        """Have a line written about a call that has been answered; never waits."""
        if not self._behind.offer((time.time(), call)):
            self.lost += 1

    def close(self, seconds: float = 5.0) -> None:
        """Write what waits, for so many seconds at most."""
        self._behind.close(seconds)

    def _work(self, waiting: Queue[tuple[float, Call] | None]) -> None:
        goes_on = True
        while goes_on:
            found = [waiting.get()]
            while len(found) < TOGETHER and not waiting.empty():
                found.append(waiting.get())
            goes_on = None not in found
            self._append([line(*entry) for entry in found if entry is not None])

    def _append(self, lines: list[bytes]) -> None:
        if not lines:
            return
        data = b"\n" * self._torn + b"".join(lines)
        written = 0
        try:
            file = self._open()
            try:
                written = os.write(file, data)
            finally:
                os.close(file)
        except OSError as error:
            self._log.warn("access_log %s: lines are lost (%s)", self._path, error)
        if written < len(data):  # the disk is full now: what follows begins on a line of its own
            self.lost += len(lines) - data[:written].count(b"\n")
            self._torn = self._torn or written > 0

    def _open(self) -> int:
        if self._path == "-":
            return os.dup(1)
        how = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK  # a pipe waits for its reader
        file = os.open(self._path, how, 0o640)
        os.set_blocking(file, True)
        return file


def _is_unread_pipe(path: str, error: OSError) -> bool:
    """Whether a file cannot be opened since it is a pipe whose reader is yet to come."""
    return error.errno == errno.ENXIO and stat.S_ISFIFO(os.stat(path).st_mode)


def line(ended: float, call: Call) -> bytes:
    """What the log says about a call that ended at `ended`, in `time.time()`."""
    document: dict[str, Any] = {
        "time": datetime.fromtimestamp(ended, UTC).isoformat(timespec="milliseconds"),
        "id": call.id,
        "protocol": call.entrypoint,
        "method": call.method[:512],
        "peer": call.peer,
        "key": call.key.name if call.key else None,
        "model": call.model[:256] or None,
        "version": None,
        "signature": None,
        "items": None,
        "code": call.code.name,
        "ms": _ms(call.seconds),
        "queue_ms": None,
        "compute_ms": None,
        "received": call.received,
        "sent": call.sent,
    }
    if call.asked is not None:
        document["version"] = call.asked.version
        document["signature"] = call.asked.signature
        document["items"] = call.asked.items
        document["queue_ms"] = _ms(call.asked.queue)
        document["compute_ms"] = _ms(call.asked.compute)
    return json.dumps(document).encode() + b"\n"


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 3)
