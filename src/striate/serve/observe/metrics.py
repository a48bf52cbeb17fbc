"""What happens in the server, for Prometheus: GET /metrics, and TensorFlow Serving's path.

TensorFlow Serving's own families come first, by its names, labels and microseconds, so that its
dashboards go on working; then ours, which tell versions and signatures apart and waiting from
computing, in Prometheus' own units. What is known of the process comes from prometheus_client.
"""

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from striate.serve.core import Core
from striate.serve.observe import tfs_metrics
from striate.serve.observe.counters import EARLIER, Count, Key
from striate.serve.observe.drift import NUMBERS
from striate.serve.observe.exposition import Family, counter, gauge, histogram, one, sizes, written
from striate.serve.repository import Version
from striate.serve.status import Code, ServingError

PATH = "/metrics"
TENSORFLOW_SERVING_PATH = "/monitoring/prometheus/metrics"


def answer(core: Core, request: HttpRequest, body: bytes, deadline: float) -> Response:
    """The response to a scrape."""
    core.permit(None)
    return Response(
        written(families(core)) + _of_the_process(),
        headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
    )


def families(core: Core) -> list[Family]:
    """Every family, those without samples too: who looks finds out what there will be."""
    counts = core.counters.snapshot()
    versions = _versions(core)
    return [
        *tfs_metrics.requests(counts),
        *tfs_metrics.logged(core.request_log),
        *tfs_metrics.loading(core.repository.loads),
        *tfs_metrics.batching(core.scheduler.batches),
        *_requests(core, counts),
        *_states(core, versions),
        *_drift(core, versions),
        *_logs(core),
        *_shadows(core),
        *_canaries(core),
        *_batches(core),
    ]


def _requests(core: Core, counts: dict[Key, Count]) -> list[Family]:
    whom = ("model", "version", "signature")
    codes = [
        ((*_whom(key), key.api, key.entrypoint, code.name), n)
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
        counter("striate_requests_total", "Requests.", (*whom, "api", "entrypoint", "code"), codes),
        counter(
            "striate_items_total",
            "Pictures, or other things, that were answered.",
            whom,
            [(_whom(key), count.items) for key, count in counts.items()],
        ),
        *(
            histogram(
                f"striate_{name}_seconds",
                f"Seconds {about}.",
                whom,
                [(_whom(key), getattr(count, part)) for key, count in counts.items()],
            )
            for name, about, part in parts
        ),
        counter(
            "striate_refused_total",
            "Calls that ended before a model was found for them.",
            ("entrypoint", "code"),
            refused,
        ),
        counter(
            "striate_tls_failed_total",
            "Handshakes of TLS that failed.",
            ("entrypoint",),
            [((entrypoint,), n) for entrypoint, n in core.counters.handshakes().items()],
        ),
    ]


def _whom(key: Key) -> tuple[str, int | str, str]:
    version = "earlier" if key.version == EARLIER else key.version
    return key.model, version, key.signature


def _states(core: Core, versions: list[tuple[str, Version]]) -> list[Family]:
    whom = ("model", "version")
    states = [((name, v.number, v.state.name), 1) for name, v in versions]
    in_flight = [((name, v.number), v.in_flight) for name, v in versions]
    scheduler = core.scheduler
    return [
        gauge("striate_ready", "Whether every model answers.", (), one(core.repository.ready())),
        gauge("striate_version_state", "1 for a version's state.", (*whom, "state"), states),
        gauge("striate_in_flight", "Requests that a version is answering.", whom, in_flight),
        gauge("striate_workers", "Calls that compute at once.", (), one(scheduler.workers)),
        gauge("striate_max_queue", "Requests that may wait.", (), one(scheduler.max_queue)),
    ]


def _drift(core: Core, versions: list[tuple[str, Version]]) -> list[Family]:
    names = ("model", "version")
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

    def of_all(name: str, about: str) -> Family:
        samples = [(whom, report[name]) for whom, report in found]
        return gauge(f"striate_drift_{name}", about, names, samples)

    return [
        of_all("pictures", "Recent pictures that are compared with the baseline."),
        of_all("class_distance", "Half of the sum of |share - baseline| over the classes."),
        of_all("class_distance_by_chance", "What that would be if nothing had changed."),
        gauge(
            "striate_drift_shift",
            "Mean less that of the baseline, in standard deviations of the baseline.",
            (*names, "of"),
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
        counter(
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
    return [gauge("striate_canary_held", about, ("model", "version"), states)]


def _batches(core: Core) -> list[Family]:
    """What was computed together; all 0 where requests are computed alone."""
    batches = core.scheduler.batches
    padding = sum(size * n for size, n in batches.padding.copy().items())
    return [
        sizes(
            "striate_batch_size",
            "Items computed together, padding among them.",
            (),
            [((), batches.computed.copy())],
            tfs_metrics.SIZES,
        ),
        counter("striate_batch_padding_total", "Items that fill batches up.", (), one(padding)),
    ]


def _logs(core: Core) -> list[Family]:
    lines, name = core.access_log, "striate_request_log"
    counts = core.request_log.counts.copy() if core.request_log else {}
    written = sum(n for (_, code), n in counts.items() if code == Code.OK)
    return [
        counter(
            "striate_access_log_lost_total",
            "Lines of the access log that were not written.",
            (),
            one(lines.lost if lines else 0),
        ),
        counter(f"{name}_total", "Requests logged.", (), one(written)),
        counter(
            f"{name}_lost_total",
            "Requests that were to be logged and were not.",
            (),
            one(sum(counts.values()) - written),
        ),
    ]


def _versions(core: Core) -> list[tuple[str, Version]]:
    """(model, version) of every version that is listed."""
    found = []
    for name in list(core.repository.models):
        try:
            found += [(name, version) for version in core.repository.statuses(name)]
        except ServingError:  # none of its versions was ever looked at
            continue
    return found


def _of_the_process() -> str:
    """Memory, processor time and open files, where the system tells them."""
    from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return generate_latest(registry).decode()
