"""What happens in the server, for Prometheus: GET /metrics, and TensorFlow Serving's path.

TensorFlow Serving's own families come first, by its names, labels and microseconds, so that its
dashboards go on working; then ours, which tell versions and signatures apart and waiting from
computing, in Prometheus' own units. Written by hand because TensorFlow Serving's counters do not
end in `_total`, as prometheus_client's all do; what is known of the process comes from that.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from striate.serve.core import Core, Target
from striate.serve.counters import BUCKETS, Count, Durations, Key
from striate.serve.drift import NUMBERS
from striate.serve.repository import Version
from striate.serve.status import Code, ServingError

PATH = "/metrics"
TENSORFLOW_SERVING_PATH = "/monitoring/prometheus/metrics"

BATCH_SIZES = [2**k for k in range(11)]

Labels = tuple[object, ...]


class Family(NamedTuple):
    """All that has one name: kind (counter, gauge, histogram), help, and lines without the name."""

    name: str
    kind: str
    help: str
    lines: list[str]


def answer(core: Core, request: HttpRequest, body: bytes, deadline: float) -> Response:
    """The response to a scrape."""
    core.permit(None)
    return Response(
        written(families(core)) + _of_the_process(),
        headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
    )


def written(found: Iterable[Family]) -> str:
    """Families in Prometheus' text format."""
    lines: list[str] = []
    for name, kind, about, samples in found:
        lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
        lines += [name + sample for sample in samples]
    return "\n".join(lines) + "\n"


def families(core: Core) -> list[Family]:
    """Every family, those without samples too: who looks finds out what there will be."""
    counts = core.counters.snapshot()
    versions = _versions(core)
    return [
        *_tensorflow_servings(counts, versions),
        *_requests(core, counts),
        *_states(core, versions),
        *_drift(core, versions),
        *_logs(core),
        *_shadows(core),
        *_canaries(core),
        *_batches(core),
    ]


def _tensorflow_servings(
    counts: dict[Key, Count], versions: list[tuple[str, Version]]
) -> list[Family]:
    codes = [
        ((key.model, code.name), n)
        for key, count in counts.items()
        for code, n in count.codes.items()
    ]
    items = [((key.model,), count.items) for key, count in counts.items()]
    whole = [((key.model, key.api, key.entrypoint), c.whole) for key, c in counts.items()]
    compute = [((key.model, key.api, key.runtime), c.compute) for key, c in counts.items()]
    loads = [
        ((version.path,), round(1e6 * version.servable.seconds))
        for _, version in versions
        if version.servable is not None
    ]
    prefix = ":tensorflow:serving:"
    return [
        _counter(f"{prefix}request_count", "Requests.", ("model_name", "status"), codes),
        _histogram(
            f"{prefix}request_latency",
            "Microseconds from a request to its answer.",
            ("model_name", "API", "entrypoint"),
            whole,
            per_second=1_000_000,
        ),
        _histogram(
            f"{prefix}runtime_latency",
            "Microseconds of computing.",
            ("model_name", "API", "runtime"),
            compute,
            per_second=1_000_000,
        ),
        _counter(f"{prefix}request_example_count_total", "Items asked about.", ("model",), items),
        _counter(
            ":tensorflow:cc:saved_model:load_latency",
            "Microseconds that it took to load what is loaded.",
            ("model_path",),
            loads,
        ),
    ]


def _requests(core: Core, counts: dict[Key, Count]) -> list[Family]:
    one = ("model", "version", "signature")
    codes = [
        ((*key[:5], code.name), n)
        for key, count in counts.items()
        for code, n in count.codes.items()
    ]
    parts = [
        ("request", "from a request to its answer", "whole"),
        ("queue", "of waiting for a turn", "queue"),
        ("compute", "of computing", "compute"),
    ]
    refused = [
        ((entrypoint, code.name), n) for (entrypoint, code), n in core.counters.refused().items()
    ]
    return [
        _counter("striate_requests_total", "Requests.", (*one, "api", "entrypoint", "code"), codes),
        _counter(
            "striate_items_total",
            "Pictures, or other things, that were answered.",
            one,
            [(key[:3], count.items) for key, count in counts.items()],
        ),
        *(
            _histogram(
                f"striate_{name}_seconds",
                f"Seconds {about}.",
                one,
                [(key[:3], getattr(count, part)) for key, count in counts.items()],
            )
            for name, about, part in parts
        ),
        _counter(
            "striate_refused_total",
            "Calls that ended before a model was found for them.",
            ("entrypoint", "code"),
            refused,
        ),
    ]


def _codes(counts: dict[Key, Count]) -> Iterator[tuple[Key, Code, int]]:
    for key, count in counts.items():
        for code, n in count.codes.items():
            yield key, code, n


def _states(core: Core, versions: list[tuple[str, Version]]) -> list[Family]:
    one = ("model", "version")
    states = [((name, v.number, v.state.name), 1) for name, v in versions]
    in_flight = [((name, v.number), v.in_flight) for name, v in versions]
    scheduler = core.scheduler
    return [
        _gauge("striate_ready", "Whether every model answers.", (), _one(core.repository.ready())),
        _gauge("striate_version_state", "1 for a version's state.", (*one, "state"), states),
        _gauge("striate_in_flight", "Requests that a version is answering.", one, in_flight),
        _gauge("striate_workers", "Calls that compute at once.", (), _one(scheduler.workers)),
        _gauge("striate_max_queue", "Requests that may wait.", (), _one(scheduler.max_queue)),
    ]


def _drift(core: Core, versions: list[tuple[str, Version]]) -> list[Family]:
    one = ("model", "version")
    found = [
        ((name, v.number), report)
        for name, v in versions
        if v.servable is not None and (report := core.drift.report(v.servable))
    ]
    shifts = [
        ((*whom, number), report[number]["shift"])
        for whom, report in found
        for number in NUMBERS
        if report[number]["shift"] is not None
    ]

    def gauge(name: str, about: str) -> Family:
        samples = [(whom, report[name]) for whom, report in found]
        return _gauge(f"striate_drift_{name}", about, one, samples)

    return [
        gauge("pictures", "Recent pictures that are compared with the baseline."),
        gauge("class_distance", "Half of the sum of |share - baseline| over the classes."),
        gauge("class_distance_by_chance", "What that would be if nothing had changed."),
        _gauge(
            "striate_drift_shift",
            "Mean less that of the baseline, in standard deviations of the baseline.",
            (*one, "of"),
            shifts,
        ),
    ]


def _shadows(core: Core) -> list[Family]:
    counts = list(core.shadow.counts.items()) if core.shadow else []
    whom = ("model", "version", "shadow")
    about = {
        "items": "Items that a shadow was asked about, too.",
        "same": "Of those, the ones with the same best class.",
        "distance": "Sum over those of the largest difference of a score.",
        "skipped": "Requests that found the shadow busy.",
        "failed": "Requests that the shadow did not answer.",
    }
    return [
        _counter(
            f"striate_shadow_{name}_total",
            text,
            whom,
            [(key, getattr(count, name)) for key, count in counts],
        )
        for name, text in about.items()
    ]


def _canaries(core: Core) -> list[Family]:
    states = [((model, number), held) for model, number, held in core.canaries.states()]
    about = "Whether a canary is held: 1 when it does worse than its limits."
    return [_gauge("striate_canary_held", about, ("model", "version"), states)]


def _batches(core: Core) -> list[Family]:
    """Sizes of batches; all 0 where requests are computed alone."""
    sizes = dict(core.scheduler.batches)
    count = sum(sizes.values())
    lines = [
        f'_bucket{{le="{edge}"}} {sum(n for size, n in sizes.items() if size <= edge)}'
        for edge in BATCH_SIZES
    ]
    lines += [
        f'_bucket{{le="+Inf"}} {count}',
        f"_sum {sum(size * n for size, n in sizes.items())}",
        f"_count {count}",
    ]
    about = "Items computed together, padding among them."
    padding = _one(core.scheduler.padding)
    return [
        Family("striate_batch_size", "histogram", about, lines),
        _counter("striate_batch_padding_total", "Items that fill batches up.", (), padding),
    ]


def _logs(core: Core) -> list[Family]:
    lines, name = core.access_log, "striate_request_log"
    counts = core.request_log.counts.copy() if core.request_log else {}
    written = sum(n for (_, code), n in counts.items() if code == Code.OK)
    return [
        _counter(
            "striate_access_log_lost_total",
            "Lines of the access log that were not written.",
            (),
            _one(lines.lost if lines else 0),
        ),
        _counter(f"{name}_total", "Requests logged.", (), _one(written)),
        _counter(
            f"{name}_lost_total",
            "Requests that were to be logged and were not.",
            (),
            _one(sum(counts.values()) - written),
        ),
    ]


def _one(value: float) -> list[tuple[Labels, float]]:
    return [((), value)]


def _versions(core: Core) -> list[tuple[str, Version]]:
    """(model, version) of every version that was ever tried."""
    found = []
    for name in list(core.repository.models):
        try:
            found += [(name, version) for version in core.statuses(Target(name))]
        except ServingError:  # none of its versions was ever looked at
            continue
    return found


def _counter(name: str, about: str, names: tuple[str, ...], samples: Any) -> Family:
    return Family(name, "counter", about, _lines(names, samples))


def _gauge(name: str, about: str, names: tuple[str, ...], samples: Any) -> Family:
    return Family(name, "gauge", about, _lines(names, samples))


def _lines(names: tuple[str, ...], samples: Iterable[tuple[Labels, float]]) -> list[str]:
    """One line for each set of labels; values of the same labels are added."""
    sums: dict[Labels, float] = {}
    for labels, value in samples:
        sums[labels] = sums.get(labels, 0) + value
    return [f"{_labels(names, labels)} {_number(value)}" for labels, value in sums.items()]


def _histogram(
    name: str,
    about: str,
    names: tuple[str, ...],
    samples: Iterable[tuple[Labels, Durations]],
    *,
    per_second: int = 1,
) -> Family:
    """Durations as a histogram in seconds, or in another unit; those of the same labels as one."""
    joined: dict[Labels, Durations] = {}
    for labels, durations in samples:
        joined.setdefault(labels, Durations()).join(durations)
    edges = [f"{edge * per_second / 1e6:.6g}" for edge in BUCKETS] + ["+Inf"]
    lines = []
    for labels, durations in joined.items():
        seen = 0
        for edge, count in zip(edges, durations.counts, strict=True):
            seen += count
            lines.append(f"_bucket{_labels((*names, 'le'), (*labels, edge))} {seen}")
        plain = _labels(names, labels)
        lines.append(f"_sum{plain} {_number(durations.seconds * per_second)}")
        lines.append(f"_count{plain} {durations.n}")
    return Family(name, "histogram", about, lines)


def _labels(names: tuple[str, ...], values: Labels) -> str:
    if not names:
        return ""
    pairs = zip(names, values, strict=True)
    return "{" + ",".join(f'{name}="{_escaped(str(value))}"' for name, value in pairs) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def _of_the_process() -> str:
    """Memory, processor time and open files, where the system tells them."""
    from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return generate_latest(registry).decode()
