"""What is counted of requests: how they ended, and where their time went."""

import time

import pytest

from striate.serve.observe import tfs_metrics
from striate.serve.observe.counters import BUCKETS, EARLIER, RECENT, Counters, Durations, Key
from striate.serve.observe.exposition import written
from striate.serve.status import Code, invalid

KEY = Key("m", 1, "serving_default")


def ask(counters, *, queue=0.0, compute=0.0):
    with counters.request("m", 1) as asked:
        asked.signature = "serving_default"
        asked.items = 3
        asked.ready()
        time.sleep(queue)
        asked.turn()
        time.sleep(compute)
        asked.computed()


def test_an_answer_counts_its_items_and_where_its_time_went():
    counters = Counters()
    ask(counters, queue=0.02, compute=0.04)
    count = counters.snapshot()[KEY]
    assert count.codes == {Code.OK: 1}
    assert count.items == 3
    assert time.time() - count.last < 5
    assert count.queue.seconds >= 0.02
    assert count.compute.seconds >= 0.04
    assert count.whole.seconds >= count.queue.seconds + count.compute.seconds
    assert count.quantiles(0.5) == [count.whole.seconds]


def test_an_error_counts_by_its_code_and_not_as_latency():
    counters = Counters()
    with pytest.raises(Exception, match="no"), counters.request("m", 1):
        raise invalid("no")
    with pytest.raises(ZeroDivisionError), counters.request("m", 1):
        1 / 0  # noqa: B018
    count = counters.snapshot()[Key("m", 1, "")]
    assert count.codes == {Code.INVALID_ARGUMENT: 1, Code.INTERNAL: 1}
    assert (count.whole.n, count.failed.n) == (0, 2)
    assert count.quantiles(0.5) is None


def test_every_duration_falls_into_the_bucket_of_its_upper_edge():
    durations = Durations()
    for seconds in (0.0, 10e-6, 11e-6, 1e6):
        durations.add(seconds)
    assert durations.counts[0] == 2
    assert durations.counts[1] == 1
    assert durations.counts[-1] == 1
    assert (durations.n, sum(durations.counts)) == (4, 4)
    assert len(durations.counts) == len(BUCKETS) + 1


def test_quantiles_are_of_recent_requests_and_memory_is_bounded():
    counters = Counters()
    for _ in range(2 * RECENT):
        ask(counters)
    count = counters.snapshot()[KEY]
    assert (count.whole.n, len(count.recent)) == (2 * RECENT, RECENT)
    half, most = count.quantiles(0.5, 0.99)
    assert half <= most


def test_what_a_forgotten_version_was_asked_is_still_in_the_whole_models_counts():
    """A counter that becomes less would be taken for a server that was started again."""
    counters = Counters()
    for version in (1, 2, 3):
        for _ in range(version):
            with counters.request("m", version, ("Predict", "GRPC", "onnx")) as asked:
                asked.signature, asked.items = "serving_default", 2
    families = [written(tfs_metrics.requests(counters.snapshot()))]
    for version in (1, 2):
        counters.forget("m", version)
        families.append(written(tfs_metrics.requests(counters.snapshot())))
    assert families[1:] == families[:1] * 2
    assert 'request_count{model_name="m",status="OK"} 6\n' in families[0]
    assert {key.version for key in counters.snapshot()} == {EARLIER, 3}


def test_a_snapshot_does_not_change():
    counters = Counters()
    ask(counters)
    before = counters.snapshot()
    ask(counters)
    assert before[KEY].whole.n == 1
