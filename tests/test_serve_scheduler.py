"""Who computes and who waits: the limits hold, and nothing is computed for nobody."""

import threading
import time
from functools import partial

import numpy as np
import pytest

from striate.serve.scheduler import Scheduler, Turns, seconds_left
from striate.serve.status import Code, ServingError

IMAGES = {"image": np.zeros((1, 2, 2, 3), np.uint8)}


class Asks:
    """Stands for a servable that answers by a function of its feeds."""

    def __init__(self, call):
        self.run = lambda ask, feeds: call(feeds)


def in_threads(n: int, call) -> list[threading.Thread]:
    threads = [threading.Thread(target=call) for _ in range(n)]
    for thread in threads:
        thread.start()
    return threads


def test_no_more_calls_compute_at_a_time_than_there_are_workers():
    scheduler = Scheduler(workers=2, max_queue=10)
    running, most, lock = 0, 0, threading.Lock()

    for _ in range(4):  # a turn that is given back is one, not more
        scheduler.run(Asks(lambda images: images), "predict", IMAGES, time.monotonic() + 1)

    def predict(images):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1
        return images

    for thread in in_threads(8, lambda: scheduler.run(Asks(predict), "predict", IMAGES)):
        thread.join()
    assert most == 2


def test_a_request_over_the_limit_is_refused_at_once_and_places_come_back():
    scheduler = Scheduler(workers=1, max_queue=1)
    with scheduler.admit(), scheduler.admit():
        start = time.monotonic()
        with pytest.raises(ServingError, match="queue is full") as error, scheduler.admit():
            pass
        assert error.value.code == Code.UNAVAILABLE
        assert time.monotonic() - start < 0.1
    with scheduler.admit():
        pass


def test_a_request_whose_deadline_passes_in_the_queue_is_not_computed():
    scheduler = Scheduler(workers=1, max_queue=2)
    release, busy, computed = threading.Event(), threading.Event(), []

    def slow(images):
        busy.set()
        release.wait(10)
        return images

    (thread,) = in_threads(1, lambda: scheduler.run(Asks(slow), "predict", IMAGES))
    busy.wait(10)
    for deadline in (time.monotonic() + 0.05, time.monotonic() - 1):
        with pytest.raises(ServingError) as error:
            scheduler.run(Asks(computed.append), "predict", IMAGES, deadline)
        assert error.value.code == Code.DEADLINE_EXCEEDED
    release.set()
    thread.join()
    assert computed == []
    same = scheduler.run(Asks(lambda images: images), "predict", IMAGES, time.monotonic() + 1)
    assert same is IMAGES


def test_turns_go_by_who_arrived_first_not_by_who_was_decoded_first():
    scheduler = Scheduler(workers=1, max_queue=9)
    release, busy, order, waiting = threading.Event(), threading.Event(), [], []

    def slow(images):
        busy.set()
        release.wait(10)

    def ask(name, arrived):
        asks = Asks(lambda images: order.append(name))
        scheduler.run(asks, "predict", IMAGES, arrived=arrived)

    waiting += in_threads(1, lambda: scheduler.run(Asks(slow), "predict", IMAGES))
    busy.wait(10)
    now = time.monotonic()
    for name, arrived in (("just now", None), ("second", now - 1), ("first", now - 2)):
        waiting += in_threads(1, partial(ask, name, arrived))
    while len(scheduler._turns._waiting) < 3:
        time.sleep(0.001)
    release.set()
    for thread in waiting:
        thread.join(10)
    assert order == ["first", "second", "just now"]


def test_turns_go_by_who_arrived_first_also_when_the_first_gives_up():
    turns, order, threads = Turns(1), [], []

    def wait(arrived, seconds):
        if turns.take(arrived, seconds):
            order.append(arrived)
            turns.give_back()

    assert turns.take(0.0, None)
    for arrived, seconds in ((1.0, 0.5), (4.0, None), (2.0, None), (3.0, None)):
        threads += in_threads(1, partial(wait, arrived, seconds))
        while len(turns._waiting) < len(threads) and threads[0].is_alive():
            time.sleep(0.001)
    threads[0].join(10)
    turns.give_back()
    for thread in threads:
        thread.join(10)
    assert order == [2.0, 3.0, 4.0]


@pytest.mark.parametrize("seconds", [600.0, 1e11])  # gRPC's word for no deadline: centuries
def test_a_request_waits_until_a_deadline_that_is_far_away(seconds):
    assert seconds_left(None) is None
    left = seconds_left(time.monotonic() + seconds)
    assert 599 < left <= min(seconds, threading.TIMEOUT_MAX)


def test_a_request_is_decoded_ahead_where_a_processor_is_left(monkeypatch):
    monkeypatch.setattr("striate.serve.scheduler.processors", lambda: 4)
    assert [Scheduler(workers, 8).abreast for workers in (3, 4, 5)] == [4, 4, 5]


def test_a_call_that_raises_gives_its_slot_back():
    scheduler = Scheduler(workers=1, max_queue=0)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), scheduler.admit():
            scheduler.run(Asks(lambda images: 1 / 0), "predict", IMAGES)
    with scheduler.admit():
        same = scheduler.run(Asks(lambda images: images), "predict", IMAGES, time.monotonic() + 1)
        assert same is IMAGES


def test_a_request_whose_client_went_away_is_not_computed():
    computed = []
    scheduler = Scheduler(workers=1, max_queue=0)
    with pytest.raises(ServingError) as error:
        scheduler.run(Asks(computed.append), "predict", IMAGES, gone=lambda: True)
    assert (error.value.code, computed) == (Code.CANCELLED, [])
    scheduler.run(Asks(computed.append), "predict", IMAGES, gone=lambda: False)
    assert computed == [IMAGES]
