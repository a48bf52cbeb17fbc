"""Requests computed together, by TensorFlow Serving's parameters.

Requests that ask the same question of the same version, with tensors alike but for their first
dimension, wait in one queue, as batches that fill up. A batch is computed when it is full or when
its first request has waited `batch_timeout_micros`. What fails is computed again one by one, so a
bad request fails alone. On an accelerator this multiplies throughput; on a CPU it does not.

A request that need not wait, because nothing else does, no timeout says so and a place to compute
is free, is computed by its own thread, as it would be without batching.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from striate.errors import UsageError
from striate.serve import text_configs
from striate.serve.processors import processors
from striate.serve.repository.servable import Servable
from striate.serve.scheduler import Scheduler, nobody_waits, seconds_left, too_late
from striate.serve.signatures import Tensors
from striate.serve.status import QueueFull, ServingError, invalid


@dataclass(frozen=True)
class BatchingParameters:
    """TensorFlow Serving's parameters of batching, with its defaults.

    max_batch_size: items (pictures) in a batch. batch_timeout: how long the first may wait for
    others, in seconds. max_enqueued_batches: of one queue; the next request is refused.
    threads: batches that compute at the same time. allowed_sizes: a batch is padded to the next of
    them; empty for any. split: whether a request of more than max_batch_size is computed in parts.
    name: of the threads, in the metrics.
    """

    max_batch_size: int = 1000
    batch_timeout: float = 0.0
    max_enqueued_batches: int = 10
    threads: int = 0
    allowed_sizes: tuple[int, ...] = ()
    split: bool = False
    name: str = "batch_threads"

    def __post_init__(self) -> None:
        sizes = self.allowed_sizes
        for name, number, least in (
            ("max_batch_size", self.max_batch_size, 1),
            ("max_enqueued_batches", self.max_enqueued_batches, 1),
            ("num_batch_threads", self.threads, 0),
            ("batch_timeout_micros", 1e6 * self.batch_timeout, 0),
        ):
            if number < least:
                raise UsageError(f"expected {name} of at least {least}, got {number:g}")
        if list(sizes) != sorted(set(sizes)) or (sizes and sizes[-1] != self.max_batch_size):
            raise UsageError(
                "expected allowed_batch_sizes that increase up to max_batch_size "
                f"({self.max_batch_size}), got {list(sizes)}"
            )

    @classmethod
    def read(cls, path: str | Path) -> "BatchingParameters":
        """The parameters in a file of protobuf text; `UsageError` for what is not served."""
        message = text_configs.read(path, "BatchingParameters")
        if message.pad_variable_length_inputs:
            raise UsageError(
                f"{path}: pad_variable_length_inputs is not served: pictures of a net have one "
                "size, and requests of other sizes never share a batch; leave it out"
            )
        default = cls()

        def said(name: str, otherwise: Any) -> Any:
            return getattr(message, name).value if message.HasField(name) else otherwise

        split = said("enable_large_batch_splitting", default.split)
        size = said("max_batch_size", default.max_batch_size)
        if split:
            size = min(size, said("max_execution_batch_size", size))
        try:
            return cls(
                max_batch_size=size,
                batch_timeout=said("batch_timeout_micros", 0) / 1e6,
                max_enqueued_batches=said("max_enqueued_batches", default.max_enqueued_batches),
                threads=said("num_batch_threads", default.threads),
                allowed_sizes=tuple(message.allowed_batch_sizes),
                split=split,
                name=said("thread_pool_name", default.name),
            )
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from None


@dataclass
class Task:
    """A request in a queue, `size` items of it."""

    feeds: Tensors
    size: int
    deadline: float | None
    gone: Callable[[], bool] | None
    born: float = field(default_factory=time.monotonic)
    answer: Future = field(default_factory=Future)

    def refused(self) -> ServingError | None:
        """Why it is not worth computing any more."""
        if self.deadline is not None and time.monotonic() >= self.deadline:
            return too_late()
        if self.gone is not None and self.gone():
            return nobody_waits()
        return None


@dataclass
class Batch:
    """Tasks that are computed together, from `born` plus the timeout on."""

    servable: Servable
    ask: str
    born: float
    tasks: list[Task] = field(default_factory=list)
    size: int = 0


class BatchingScheduler(Scheduler):
    """A `Scheduler` whose requests are computed in batches, by threads of its own.

    As many batches compute at a time as there are threads, whoever computes them.
    """

    def __init__(self, workers: int, max_queue: int, parameters: BatchingParameters):
        super().__init__(workers, max_queue)
        self._parameters = parameters
        self.batches.name = parameters.name
        self._queues: dict[Hashable, deque[Batch]] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._free = parameters.threads or processors()
        for number in range(self._free):
            threading.Thread(target=self._work, name=f"batch-{number}", daemon=True).start()

    @property
    def abreast(self) -> None:
        """All of them: those that wait fill the batches."""

    def run(
        self,
        servable: Servable,
        ask: str,
        feeds: Tensors,
        deadline: float | None = None,
        gone: Callable[[], bool] | None = None,
        arrived: float | None = None,
    ) -> Tensors:
        sizes = {tensor.shape[:1] for tensor in feeds.values()}
        if len(sizes) != 1 or sizes == {()}:  # nothing to join it by
            return super().run(servable, ask, feeds, deadline, gone, arrived)
        most = self._parameters.max_batch_size
        size = sizes.pop()[0]
        if size > most and not self._parameters.split:
            raise invalid(f"Task size {size} is larger than maximum input batch size {most}")
        parts = [
            Task(
                {n: t[i : i + most] for n, t in feeds.items()}, min(most, size - i), deadline, gone
            )
            for i in range(0, max(size, 1), most)
        ]
        if len(parts) == 1 and self._take_place():
            self._compute(Batch(servable, ask, time.monotonic(), parts, size))
        else:
            for part in parts:
                self._put(servable, ask, part)
        return _joined([_waited(part) for part in parts])

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _take_place(self) -> bool:
        """Whether a request can be computed now, since nothing waits and nothing is to be waited
        for; then a place is taken for it."""
        with self._changed:
            now = not self._queues and self._free > 0 and not self._parameters.batch_timeout
            self._free -= now
            return now

    def _put(self, servable: Servable, ask: str, task: Task) -> None:
        alike = tuple((n, t.dtype.str, t.shape[1:]) for n, t in sorted(task.feeds.items()))
        limit = self._parameters
        with self._changed:
            queue = self._queues.setdefault((id(servable), ask, alike), deque())
            if not queue or queue[-1].size + task.size > limit.max_batch_size:
                if len(queue) >= limit.max_enqueued_batches:
                    raise _full(queue, task, limit)
                queue.append(Batch(servable, ask, time.monotonic()))
            queue[-1].tasks.append(task)
            queue[-1].size += task.size
            self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                batch = self._next()
                while batch is None and not self._closed:
                    self._changed.wait(self._patience())
                    batch = self._next()
                self._free -= batch is not None
            if batch is None:
                return
            self._compute(batch)

    def _next(self) -> Batch | None:
        """The first batch that is due, of the queue that has waited longest; taken out of it.

        None where there is none, or no place to compute it.
        """
        if not self._free:
            return None
        due = time.monotonic() - self._parameters.batch_timeout
        for key, queue in self._queues.items():
            if queue[0].born <= due or len(queue) > 1 or self._is_full(queue[0]):
                del self._queues[key]  # and behind the other queues again, if anything is left
                batch = queue.popleft()
                if queue:
                    self._queues[key] = queue
                return batch
        return None

    def _is_full(self, batch: Batch) -> bool:
        return batch.size >= self._parameters.max_batch_size

    def _patience(self) -> float | None:
        """Seconds until the first batch is due; None where only a change can make one so."""
        if not self._queues or not self._free:
            return None
        first = min(queue[0].born for queue in self._queues.values())
        return max(0.0, first + self._parameters.batch_timeout - time.monotonic())

    def _compute(self, batch: Batch) -> None:
        """Answer the tasks of a batch, and give its place back."""
        try:
            self._answer(batch)
        finally:
            with self._changed:
                self._free += 1
                self._changed.notify()

    def _answer(self, batch: Batch) -> None:
        tasks = []
        for task in batch.tasks:
            error = task.refused()
            if error is None:
                tasks.append(task)
            else:
                task.answer.set_exception(error)
        try:
            answers = self._together(batch, tasks) if self._joins(tasks) else None
        except Exception:  # one of them: each is told what is wrong with itself
            answers = None
        if answers is None:
            for task in tasks:
                self._count([task])
                _answer_alone(batch, task)
            return
        for task, found in zip(tasks, answers, strict=True):
            task.answer.set_result(found)

    def _joins(self, tasks: list[Task]) -> bool:
        """Whether tasks are computed as they are not: with each other, or with padding."""
        size = sum(task.size for task in tasks)
        return len(tasks) > 1 or self._padded_size(size) > size > 0

    def _count(self, tasks: list[Task], padding: int = 0) -> None:
        now = time.monotonic()
        with self._changed:
            self.batches.computed[sum(task.size for task in tasks) + padding] += 1
            self.batches.padding[padding] += 1
            for task in tasks:
                self.batches.given[task.size] += 1
                self.batches.queued.add(now - task.born)

    def _together(self, batch: Batch, tasks: list[Task]) -> list[Tensors] | None:
        """The answers of tasks computed as one; None for answers that cannot be told apart."""
        size = sum(task.size for task in tasks)
        padding = self._padded_size(size) - size
        self._count(tasks, padding)
        feeds = _padded(_joined([task.feeds for task in tasks]), padding)
        found = batch.servable.run(batch.ask, feeds)
        if any(len(t) != self._padded_size(size) if t.ndim else True for t in found.values()):
            return None
        ends = np.cumsum([task.size for task in tasks])
        return [
            {name: tensor[end - task.size : end] for name, tensor in found.items()}
            for task, end in zip(tasks, ends, strict=True)
        ]

    def _padded_size(self, size: int) -> int:
        return next((n for n in self._parameters.allowed_sizes if n >= size), size)


def _waited(task: Task) -> Tensors:
    """The answer of a task; its deadline ends the wait."""
    left = seconds_left(task.deadline)
    try:
        return task.answer.result(left if left is None else max(0.0, left))
    except TimeoutError:
        raise too_late() from None


def _answer_alone(batch: Batch, task: Task) -> None:
    try:
        task.answer.set_result(batch.servable.run(batch.ask, task.feeds))
    except Exception as error:
        task.answer.set_exception(error)


def _joined(parts: list[Tensors]) -> Tensors:
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _padded(feeds: Tensors, more: int) -> Tensors:
    """The same with `more` copies of the last item."""
    if more == 0:
        return feeds
    return {name: np.concatenate([t, np.repeat(t[-1:], more, axis=0)]) for name, t in feeds.items()}


def _full(queue: deque[Batch], task: Task, limit: BatchingParameters) -> ServingError:
    return QueueFull(
        "The batch scheduling queue to which this task was submitted is full; task size is "
        f"{task.size} but scheduling capacity is only {limit.max_batch_size - queue[-1].size} "
        f"(num_enqueued_batches={len(queue)}, max_enqueued_batches={limit.max_enqueued_batches}, "
        f"open_batch_size={queue[-1].size}, max_execution_batch_size={limit.max_batch_size})",
    )
