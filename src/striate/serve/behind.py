"""Work that no request waits for, on a thread of its own behind a bounded queue."""

import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Behind(Generic[T]):
    """Hands entries over to `work(waiting)`, which takes them from the queue until it meets None.

    most: entries that may wait.
    """

    def __init__(self, name: str, most: int, work: Callable[["queue.Queue[T | None]"], None]):
        self._waiting: queue.Queue[T | None] = queue.Queue(most)
        self._thread = threading.Thread(target=work, args=[self._waiting], name=name, daemon=True)
        self._thread.start()

    def offer(self, entry: T) -> bool:
        """Hand an entry over; False where there is no room for it. Never waits."""
        try:
            self._waiting.put_nowait(entry)
        except queue.Full:
            return False
        return True

    def close(self, seconds: float) -> None:
        """Let what waits be done, for so many seconds at most."""
        try:
            self._waiting.put(None, timeout=seconds)
        except queue.Full:
            return
        self._thread.join(seconds)
