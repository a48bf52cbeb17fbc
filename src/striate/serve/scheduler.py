"""Who computes, and when: a bounded number of calls at a time, a bounded number waiting.

On a CPU, single-threaded calls, one for each core, answer more pictures per second than batches on
all cores together, at a fraction of the latency; so a request is a call, and it waits for a slot.
Decoding happens outside the slots, beside the computation of others. `striate.serve.batching` has
the scheduler that computes requests together, for accelerators.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue

from striate.serve.counters import Batches
from striate.serve.servable import Servable
from striate.serve.signatures import Tensors
from striate.serve.status import Code, QueueFull, ServingError

A_YEAR = 365 * 24 * 3600.0


class Scheduler:
    """`workers` calls compute at a time, `max_queue` more requests wait, the rest are refused.

    batches: what was computed together, where anything is.
    """

    def __init__(self, workers: int, max_queue: int):
        self.workers = workers
        self.max_queue = max_queue
        self.batches = Batches()
        self._slots: SimpleQueue[None] = SimpleQueue()  # a semaphore that is quick and first-come
        for _ in range(workers):
            self._slots.put(None)
        self._places = threading.Semaphore(workers + max_queue)

    @contextmanager
    def admit(self) -> Iterator[None]:
        """A place for one request, from before it is decoded until it is answered.

        Raises `ServingError` (UNAVAILABLE) at once when all places are taken.
        """
        if not self._places.acquire(blocking=False):
            raise self.refusal()
        try:
            yield
        finally:
            self._places.release()

    @property
    def full(self) -> bool:
        """Whether `admit` would refuse a request just now."""
        if self._places.acquire(blocking=False):
            self._places.release()
            return False
        return True

    def refusal(self) -> QueueFull:
        return QueueFull(
            f"The queue is full: {self.workers} requests are computed and {self.max_queue} "
            "wait; try again later"
        )

    def run(
        self,
        servable: Servable,
        ask: str,
        feeds: Tensors,
        deadline: float | None = None,
        gone: Callable[[], bool] | None = None,
    ) -> Tensors:
        """servable.run(ask, feeds), once a slot is free.

        deadline: in `time.monotonic()`; a request that reaches it while it waits is not computed
        any more and gets DEADLINE_EXCEEDED. gone: nor is one whose client went away.
        """
        left = seconds_left(deadline)
        if left is not None and left <= 0:
            raise too_late()
        try:
            self._slots.get(timeout=left)
        except Empty:
            raise too_late() from None
        try:
            if gone is not None and gone():
                raise nobody_waits()
            return servable.run(ask, feeds)
        finally:
            self._slots.put(None)

    def close(self) -> None:
        """Nothing is left running: requests compute on their own threads."""


def seconds_left(deadline: float | None) -> float | None:
    """Until a deadline in `time.monotonic()`; a call without one has centuries by gRPC's account,
    which no lock can wait for."""
    return None if deadline is None else min(deadline - time.monotonic(), A_YEAR)


def too_late() -> ServingError:
    return ServingError(
        Code.DEADLINE_EXCEEDED, "The deadline passed before the request could be computed"
    )


def nobody_waits() -> ServingError:
    return ServingError(Code.CANCELLED, "The client went away before the request was computed")
