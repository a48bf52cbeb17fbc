"""The families of tensorflow_model_server, by its names, labels, buckets and microseconds.

Its dashboards and alerts go on working with them. They are all there from the start, with or
without samples, because who looks wants to find out what there will be.
"""

from collections import Counter

from striate.serve.observe.counters import Batches, Count, Key, Loads
from striate.serve.observe.exposition import Family, counter, histogram, one, sizes
from striate.serve.observe.request_log import RequestLog

PREFIX = ":tensorflow:serving:"
BATCHING = f"{PREFIX}batching_session:"
LOADING = ":tensorflow:cc:saved_model:"

EXAMPLES = [2**k for k in range(15)]
SIZES = [2**k for k in range(11)]


def requests(counts: dict[Key, Count]) -> list[Family]:
    """What happened to requests."""
    codes = [
        ((key.model, code.name), n)
        for key, count in counts.items()
        for code, n in count.codes.items()
    ]
    items = [((key.model,), count.items) for key, count in counts.items()]
    each = [((key.model,), count.sizes) for key, count in counts.items()]
    whole = [((key.model, key.api, key.entrypoint), c.whole) for key, c in counts.items()]
    compute = [((key.model, key.api, key.runtime), c.compute) for key, c in counts.items()]
    return [
        counter(f"{PREFIX}request_count", "Requests.", ("model_name", "status"), codes),
        histogram(
            f"{PREFIX}request_latency",
            "Microseconds from a request to its answer.",
            ("model_name", "API", "entrypoint"),
            whole,
            per_second=1_000_000,
        ),
        histogram(
            f"{PREFIX}runtime_latency",
            "Microseconds of computing.",
            ("model_name", "API", "runtime"),
            compute,
            per_second=1_000_000,
        ),
        counter(f"{PREFIX}request_example_count_total", "Items asked about.", ("model",), items),
        sizes(f"{PREFIX}request_example_counts", "Items of a request.", ("model",), each, EXAMPLES),
    ]


def logged(log: RequestLog | None) -> list[Family]:
    """What was kept of them."""
    counts = log.counts.copy() if log else {}
    samples = [((model, code.name), n) for (model, code), n in counts.items()]
    about = "Requests of the sample: logged, or lost."
    return [counter(f"{PREFIX}request_log_count", about, ("model_name", "status_code"), samples)]


def loading(loads: Loads) -> list[Family]:
    """How versions were loaded and warmed up."""
    paths = ("model_path",)
    latencies = [((path,), n) for path, n in loads.micros.copy().items()]
    attempts = [
        ((path, "success" if loaded else "fail"), n)
        for (path, loaded), n in loads.attempts.copy().items()
    ]
    warmed = [((path, "OK"), durations) for path, durations in loads.warm_ups.copy().items()]
    read = [((path,), n) for path, n in loads.records.copy().items()]
    return [
        counter(f"{LOADING}load_latency", "Microseconds of loading versions.", paths, latencies),
        counter(
            f"{LOADING}load_attempt_count",
            "Attempts to load a version.",
            ("model_path", "status"),
            attempts,
        ),
        histogram(
            f"{PREFIX}model_warmup_latency",
            "Microseconds of warming a version up.",
            ("model_path", "status"),
            warmed,
            per_second=1_000_000,
        ),
        counter(f"{PREFIX}model_warmup_records_read", "Records of warm-ups.", paths, read),
    ]


def batching(batches: Batches) -> list[Family]:
    """What was computed together; all 0 where requests are computed alone."""
    return [
        histogram(
            f"{BATCHING}queuing_latency",
            "Microseconds that a request waited for its batch.",
            ("thread_pool_name",),
            [((batches.name,), batches.queued)],
            per_second=1_000_000,
        ),
        _sizes("input_batch_size", "Items of a request.", batches.given),
        _sizes("processed_batch_size", "Items of a batch, padding among them.", batches.computed),
        _sizes("padding_size", "Items that fill a batch up.", batches.padding, 0),
        counter(
            f"{BATCHING}wrapped_run_count",
            "Batches that were computed.",
            (),
            one(batches.computed.total()),
        ),
    ]


def _sizes(name: str, about: str, counts: Counter[int], *more: int) -> Family:
    return sizes(f"{BATCHING}{name}", about, (), [((), counts.copy())], [*more, *SIZES])
