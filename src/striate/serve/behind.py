"""Work on threads of its own, which the end of the process does not wait for."""

import contextlib
import functools
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Behind(Generic[T]):
    """Work that no request waits for, on one thread behind a bounded queue.

    Hands entries over to `work(waiting)`, which takes them from the queue until it meets None.

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


class DaemonThreads(Executor):
    """An executor without whose threads the process can end: `ThreadPoolExecutor`'s have to end
    first, and one that waits for a disk that does not answer never does.

    most: threads, which are started as they are needed.
    """

    def __init__(self, most: int, name: str):
        self._most, self._name = most, name
        self._count = 0
        self._idle = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._waiting: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = (
            queue.SimpleQueue()
        )

    def submit(self, call: Callable[..., R], /, *args: Any, **kwargs: Any) -> "Future[R]":
        future = Future[R]()
        self._waiting.put((future, functools.partial(call, *args, **kwargs)))
        with self._lock:
            if not self._idle.acquire(blocking=False) and self._count < self._most:
                self._count += 1
                name = f"{self._name}_{self._count}"
                threading.Thread(target=self._work, name=name, daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the threads once all that waits is done, which is not waited for."""
        with self._lock:
            for _ in range(self._count):
                self._waiting.put(None)

    def _work(self) -> None:
        while (entry := self._next()) is not None:
            future, call = entry
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except BaseException as error:  # whose it is asks for it
                    future.set_exception(error)
            del entry, future, call  # or what they hold would stay in memory until the next

    def _next(self) -> "tuple[Future[Any], Callable[[], Any]] | None":
        with contextlib.suppress(queue.Empty):
            return self._waiting.get_nowait()
        self._idle.release()
        return self._waiting.get()
