"""Who computes, and when: a bounded number of calls at a time, a bounded number waiting.

On a CPU, single-threaded calls, one for each core, answer more pictures per second than batches on
all cores together, at a fraction of the latency; so a request is a call, and it waits for its turn.
Decoding happens outside the turns, beside the computation of others. `striate.serve.batching` has
the scheduler that computes requests together, for accelerators.
"""

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from striate.serve.observe.counters import Batches
from striate.serve.processors import processors
from striate.serve.repository.servable import Servable
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
        self._turns = Turns(workers)
        self._places = workers + max_queue  # that are free
        self._lock = threading.Lock()

    @property
    def abreast(self) -> int | None:
        """Requests that are worth a thread at a time, None for all: the others had better wait
        undecoded than contend for the interpreter. One decodes ahead where a processor is left."""
        return self.workers + (self.workers < processors())

    def enter(self) -> None:
        """Take a place for one request, from before it is decoded until it is answered.

        Raises `ServingError` (UNAVAILABLE) at once when all places are taken.
        """
        with self._lock:
            if self._places <= 0:
                raise self.refusal()
            self._places -= 1

    def leave(self) -> None:
        """Give the place back."""
        with self._lock:
            self._places += 1

    @contextmanager
    def admit(self) -> Iterator[None]:
        """`enter`, and `leave` at the end of the block."""
        self.enter()
        try:
            yield
        finally:
            self.leave()

    @property
    def places(self) -> int:
        """That are free just now."""
        return self._places

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
        arrived: float | None = None,
    ) -> Tensors:
        """servable.run(ask, feeds), once it is this request's turn: in the order of arrival.

        deadline: in `time.monotonic()`; a request that reaches it while it waits is not computed
        any more and gets DEADLINE_EXCEEDED. gone: nor is one whose client went away. arrived: when
        it came, if not just now.
        """
        if not self._turns.take(arrived or time.monotonic(), seconds_left(deadline)):
            raise too_late()
        try:
            if gone is not None and gone():
                raise nobody_waits()
            return servable.run(ask, feeds)
        finally:
            self._turns.give_back()

    def close(self) -> None:
        """Nothing is left running: requests compute on their own threads."""


class Turns:
    """`count` turns at a time. Those who wait for one get it in the order in which they arrived,
    which need not be the order in which they began to wait."""

    def __init__(self, count: int):
        self._free = count
        self._lock = threading.Lock()
        self._numbers = itertools.count()  # between those who arrived at the same moment
        self._waiting: list[tuple[float, int, threading.Lock]] = []

    def take(self, arrived: float, seconds: float | None) -> bool:
        """Take a turn; False when there was none for so many seconds (None: wait for ever)."""
        if seconds is not None and seconds <= 0:
            return False
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            mine = threading.Lock()
            mine.acquire()
            waiter = (arrived, next(self._numbers), mine)
            heapq.heappush(self._waiting, waiter)
        if mine.acquire(timeout=-1 if seconds is None else seconds):
            return True
        with self._lock:
            if waiter not in self._waiting:  # it was given the turn in this moment
                return True
            self._waiting.remove(waiter)
            heapq.heapify(self._waiting)
            return False

    def give_back(self) -> None:
        with self._lock:
            if self._waiting:
                heapq.heappop(self._waiting)[2].release()
            else:
                self._free += 1


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
