"""Prometheus' text format: families of samples, and how each kind of them is written.

Written by hand because TensorFlow Serving's counters do not end in `_total`, as prometheus_client's
all do.
"""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from striate.serve.observe.counters import Durations

Labels = tuple[object, ...]


class Family(NamedTuple):
    """All that has one name: kind (counter, gauge, histogram), help, and lines without the name."""

    name: str
    kind: str
    help: str
    lines: list[str]


def written(found: Iterable[Family]) -> str:
    """Families in Prometheus' text format."""
    lines: list[str] = []
    for name, kind, about, samples in found:
        lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
        lines += [name + sample for sample in samples]
    return "\n".join(lines) + "\n"


def one(value: float) -> list[tuple[Labels, float]]:
    return [((), value)]


def counter(name: str, about: str, names: tuple[str, ...], samples: Any) -> Family:
    return Family(name, "counter", about, _lines(names, samples))


def gauge(name: str, about: str, names: tuple[str, ...], samples: Any) -> Family:
    return Family(name, "gauge", about, _lines(names, samples))


def _lines(names: tuple[str, ...], samples: Iterable[tuple[Labels, float]]) -> list[str]:
    """One line for each set of labels; values of the same labels are added."""
    sums: dict[Labels, float] = {}
    for labels, value in samples:
        sums[labels] = sums.get(labels, 0) + value
    return [f"{_labels(names, labels)} {_number(value)}" for labels, value in sums.items()]


def histogram(
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
        joined.setdefault(labels, Durations(durations.edges)).join(durations)
    lines = []
    for labels, durations in joined.items():
        edges = [f"{edge * per_second / 1e6:.6g}" for edge in durations.edges] + ["+Inf"]
        seen = 0
        for edge, count in zip(edges, durations.counts, strict=True):
            seen += count
            lines.append(f"_bucket{_labels((*names, 'le'), (*labels, edge))} {seen}")
        plain = _labels(names, labels)
        lines.append(f"_sum{plain} {_number(durations.seconds * per_second)}")
        lines.append(f"_count{plain} {durations.n}")
    return Family(name, "histogram", about, lines)


def sizes(
    name: str,
    about: str,
    names: tuple[str, ...],
    samples: Iterable[tuple[Labels, Counter[int]]],
    edges: Iterable[int],
) -> Family:
    """Whole numbers and how often each came up, as a histogram; those of the same labels as one."""
    joined: dict[Labels, Counter[int]] = {}
    for labels, counts in samples:
        joined.setdefault(labels, Counter()).update(counts)
    lines = []
    for labels, counts in joined.items():
        for edge in edges:
            below = sum(n for size, n in counts.items() if size <= edge)
            lines.append(f"_bucket{_labels((*names, 'le'), (*labels, edge))} {below}")
        plain = _labels(names, labels)
        lines.append(f"_bucket{_labels((*names, 'le'), (*labels, '+Inf'))} {counts.total()}")
        lines.append(f"_sum{plain} {sum(size * n for size, n in counts.items())}")
        lines.append(f"_count{plain} {counts.total()}")
    return Family(name, "histogram", about, lines)


def _labels(names: tuple[str, ...], values: Labels) -> str:
    if not names:
        return ""
    pairs = zip(names, values, strict=True)
    return "{" + ",".join(f'{name}="{_escaped(str(value))}"' for name, value in pairs) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) else repr(float(value))
