"""Requests computed together: what shares a batch, what is refused, and what fails alone."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from striate.serve.batching import BatchingParameters, BatchingScheduler
from striate.serve.status import Code, ServingError, invalid


def items(*values) -> dict[str, np.ndarray]:
    return {"x": np.array(values, np.float32)}


class Doubler:
    """Stands for a servable: doubles, remembers the sizes it was asked about, refuses NaN.

    held: until it is set, nothing is answered.
    """

    def __init__(self):
        self.sizes: list[int] = []
        self.held = threading.Event()
        self.busy = threading.Event()

    def run(self, ask, feeds):
        self.busy.set()
        self.held.wait(10)
        x = feeds["x"]
        self.sizes.append(len(x))
        if np.isnan(x).any():
            raise invalid("NaN")
        return {"y": 2 * x}


@pytest.fixture
def doubler():
    return Doubler()


@pytest.fixture
def scheduler():
    """Makes a scheduler of one thread, and closes it."""
    made = []

    def make(**parameters):
        made.append(BatchingScheduler(8, 64, BatchingParameters(threads=1, **parameters)))
        return made[-1]

    yield make
    for each in made:
        each.close()


def ask_behind(scheduler, doubler, requests, **more):
    """Ask while the only thread is busy, so that all of them wait; then let it go on.

    Returns what each got, an answer or an error.
    """

    def call(feeds):
        try:
            return scheduler.run(doubler, "f", feeds, **more)["y"].tolist()
        except ServingError as error:
            return error

    with ThreadPoolExecutor(len(requests) + 1) as pool:
        pool.submit(scheduler.run, doubler, "f", items(0))
        doubler.busy.wait(10)
        answers = []
        for feeds in requests:
            answers.append(pool.submit(call, feeds))
            time.sleep(0.02)  # in their order
        doubler.held.set()
        return [answer.result(10) for answer in answers]


def test_what_waits_is_computed_together_and_everybody_gets_his_own(scheduler, doubler):
    answers = ask_behind(scheduler(), doubler, [items(1), items(2, 3), items(4)])
    assert answers == [[2], [4, 6], [8]]
    assert doubler.sizes == [1, 4]


def test_a_batch_holds_no_more_than_it_may(scheduler, doubler):
    requests = [items(1, 1), items(2), items(3, 3)]
    assert ask_behind(scheduler(max_batch_size=3), doubler, requests) == [[2, 2], [4], [6, 6]]
    assert doubler.sizes == [1, 3, 2]


def test_a_batch_is_padded_to_the_next_size_that_is_allowed(scheduler, doubler):
    sizes = {"max_batch_size": 8, "allowed_sizes": (2, 6, 8)}
    assert ask_behind(scheduler(**sizes), doubler, [items(1), items(2, 3)]) == [[2], [4, 6]]
    assert doubler.sizes == [2, 6]


def test_batches_are_counted_by_size_and_so_is_what_fills_them_up(scheduler, doubler):
    batches = scheduler(max_batch_size=8, allowed_sizes=(4, 8))
    ask_behind(batches, doubler, [items(1), items(2), items(3), items(4), items(5)])
    found = batches.batches
    assert found.given == {1: 6}
    assert found.computed == {4: 1, 8: 1}  # the one that kept the thread busy was alone
    assert found.padding == {3: 2}
    assert found.queued.n == 6
    assert found.queued.seconds > 0.02, "the others waited for the first"


def test_shapes_that_differ_never_share_a_batch(scheduler, doubler):
    wide = {"x": np.ones((1, 2), np.float32)}
    assert ask_behind(scheduler(), doubler, [items(1), wide, items(2)]) == [[2], [[2, 2]], [4]]
    assert doubler.sizes == [1, 2, 1]


def test_a_bad_request_fails_alone(scheduler, doubler):
    first, bad, last = ask_behind(scheduler(), doubler, [items(1), items(np.nan), items(2)])
    assert (first, last) == ([2], [4])
    assert (bad.code, str(bad)) == (Code.INVALID_ARGUMENT, "NaN")


def test_what_nobody_waits_for_is_not_computed(scheduler, doubler):
    gone = ask_behind(scheduler(), doubler, [items(1)], gone=lambda: True)
    assert [error.code for error in gone] == [Code.CANCELLED]
    assert doubler.sizes == [1]
    assert ask_behind(scheduler(), doubler, [items(1)], gone=lambda: False) == [[2]]


def test_a_deadline_ends_the_wait_and_the_request(scheduler, doubler):
    batches = scheduler()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(batches.run, doubler, "f", items(0))
        doubler.busy.wait(10)
        with pytest.raises(ServingError) as error:
            batches.run(doubler, "f", items(1), time.monotonic() + 0.05)
        doubler.held.set()
    assert error.value.code == Code.DEADLINE_EXCEEDED
    centuries = time.monotonic() + 1e11  # gRPC's word for no deadline
    assert batches.run(doubler, "f", items(2), centuries)["y"].tolist() == [4]
    assert doubler.sizes == [1, 1]


def test_a_full_queue_refuses_in_tensorflow_servings_words(scheduler, doubler):
    limits = {"max_batch_size": 2, "max_enqueued_batches": 1}
    answers = ask_behind(scheduler(**limits), doubler, [items(1), items(2, 3)])
    assert answers[0] == [2]
    assert answers[1].code == Code.UNAVAILABLE
    assert str(answers[1]) == (
        "The batch scheduling queue to which this task was submitted is full; task size is 2 but "
        "scheduling capacity is only 1 (num_enqueued_batches=1, max_enqueued_batches=1, "
        "open_batch_size=1, max_execution_batch_size=2)"
    )


def test_a_request_larger_than_a_batch_is_refused_or_split(scheduler, doubler):
    doubler.held.set()
    with pytest.raises(ServingError) as error:
        scheduler(max_batch_size=4).run(doubler, "f", items(1, 2, 3, 4, 5))
    assert (error.value.code, str(error.value)) == (
        Code.INVALID_ARGUMENT,
        "Task size 5 is larger than maximum input batch size 4",
    )
    found = scheduler(max_batch_size=2, split=True).run(doubler, "f", items(1, 2, 3, 4, 5))
    assert found["y"].tolist() == [2, 4, 6, 8, 10]


def test_a_batch_waits_for_others_as_long_as_it_is_told(scheduler, doubler):
    doubler.held.set()
    batches = scheduler(max_batch_size=3, batch_timeout=5.0)
    with ThreadPoolExecutor(3) as pool:
        start = time.monotonic()
        answers = list(pool.map(lambda v: batches.run(doubler, "f", items(v)), range(3)))
    assert time.monotonic() - start < 2.5, "a full batch need not wait"
    assert [answer["y"].tolist() for answer in answers] == [[0], [2], [4]]
    start = time.monotonic()
    batches = scheduler(max_batch_size=3, batch_timeout=0.1)
    batches.run(doubler, "f", items(1))
    assert 0.1 <= time.monotonic() - start < 0.9
    assert doubler.sizes == [3, 1]


def test_tensors_that_nothing_joins_are_computed_alone(scheduler):
    class Scalars:
        def run(self, ask, feeds):
            return {"y": feeds["x"] + 1}

    assert scheduler().run(Scalars(), "f", {"x": np.float32(3)}) == {"y": 4}


def test_what_need_not_wait_is_computed_by_its_own_thread(scheduler, doubler):
    doubler.held.set()
    threads = []

    class Watched(Doubler):
        def run(self, ask, feeds):
            threads.append(threading.current_thread())
            return super().run(ask, feeds)

    watched = Watched()
    watched.held.set()
    batches = scheduler()
    for value in range(3):
        assert batches.run(watched, "f", items(value))["y"].tolist() == [2 * value]
    assert threads == 3 * [threading.current_thread()]
    ask_behind(batches, Watched(), [items(1), items(2)])
    assert batches.run(watched, "f", items(9))["y"].tolist() == [18], "its place was given back"
    waiting = scheduler(batch_timeout=0.05)
    waiting.run(watched, "f", items(1))
    assert threads[-1].name.startswith("batch-"), "where a timeout is to be waited for, it is"


def test_no_more_batches_compute_at_a_time_than_there_are_threads(scheduler):
    together, most, lock = 0, 0, threading.Lock()

    class Counting:
        def run(self, ask, feeds):
            nonlocal together, most
            with lock:
                together += 1
                most = max(most, together)
            time.sleep(0.005)
            with lock:
                together -= 1
            return {"y": feeds["x"]}

    batches, counting = scheduler(max_batch_size=1, max_enqueued_batches=99), Counting()
    for _ in range(2):  # a place that is given back is one, not more
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda v: batches.run(counting, "f", items(v)), range(40)))
        assert [answer["y"].tolist() for answer in answers] == [[v] for v in range(40)]
    assert most == 1
