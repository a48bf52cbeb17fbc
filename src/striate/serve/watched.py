"""A file of the server's configuration that is looked at again while it serves."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from striate.errors import UsageError

log = logging.getLogger("striate.serve")

Said = TypeVar("Said")


class Watched(Generic[Said]):
    """What a file says, now and after it changed; read(path) raises `UsageError` for a broken one.

    what: its entries are called, in the log.
    """

    def __init__(self, path: str | Path, read: Callable[[Path], Said], what: str):
        self._path, self._read, self._what = Path(path), read, what
        self._complaint = ""  # what was wrong at the last look
        self._seen = self._look()  # of what it says
        self.said = read(self._path)

    def refresh(self) -> bool:
        """Read the file again if it changed, and say whether that was of use: one that is broken
        changes nothing, and is tried at every look, for it may be mended without a sign of it (by
        chmod)."""
        seen = self._look()
        if seen == self._seen:
            self._complaint = ""
            return False
        try:
            self.said = self._read(self._path)
        except UsageError as error:
            if str(error) != self._complaint:
                log.error("%s; the %s before it go on", error, self._what)
            self._complaint = str(error)
            return False
        self._seen, self._complaint = seen, ""
        log.info("%s: new %s", self._path, self._what)
        return True

    def _look(self) -> tuple[int, ...]:
        try:
            stat = self._path.stat()
        except OSError:
            return ()
        return (stat.st_mtime_ns, stat.st_size, stat.st_ino)
