"""How often every version was asked, how that went, and how long it took.

Times are split where users look for the cause: waiting for a turn, computing, and the whole. A
request counts once, when it ends. Whoever shows numbers (the page, statistics, metrics) reads
`Counters.snapshot`.
"""

import threading
import time
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from striate.serve.status import Code
from striate.serve.unforeseen import code_of_error

# Upper edges in microseconds, TensorFlow Serving's: 10 and 32 steps of 1.8; the rest is beyond
BUCKETS = tuple(10 * 1.8**k for k in range(33))

QUEUE_BUCKETS = tuple(100 * 1.2**k for k in range(52))  # its own for batching queues

EARLIER = -1  # instead of the number of a version that is listed no more
RECENT = 1024  # requests whose exact times are kept for the quantiles


class Key(NamedTuple):
    """Who was asked; the signature is empty where a request named none that there is.

    api, entrypoint: how it was asked (Predict, ...; GRPC or REST); runtime: the engine. Requests
    that reach no model have no key: their names are anybody's.
    """

    model: str
    version: int
    signature: str
    api: str = ""
    entrypoint: str = ""
    runtime: str = ""


@dataclass
class Durations:
    """A histogram of seconds: `counts[i]` of at most `edges[i]` microseconds and no less."""

    edges: tuple[float, ...] = BUCKETS
    n: int = 0
    seconds: float = 0.0
    counts: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.edges) + 1)

    def add(self, seconds: float) -> None:
        self.n += 1
        self.seconds += seconds
        self.counts[bisect_left(self.edges, seconds * 1e6)] += 1

    def join(self, other: "Durations") -> None:
        """Count what the other counted, too."""
        self.n += other.n
        self.seconds += other.seconds
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]

    def copy(self) -> "Durations":
        return replace(self, counts=self.counts.copy())


@dataclass
class Count:
    """What happened to the requests of one key.

    codes: how many ended with each code; items: pictures in those that were answered, sizes: how
    many of them had so many; last: when the last one was answered, in `time.time()`. whole, queue,
    compute: of those answered; failed: the whole of the others. recent: the whole of the last
    `RECENT` answered, in seconds; packed, since versions that have ended keep theirs.
    """

    codes: dict[Code, int] = field(default_factory=dict)
    items: int = 0
    sizes: Counter[int] = field(default_factory=Counter)
    last: float = 0.0
    whole: Durations = field(default_factory=Durations)
    queue: Durations = field(default_factory=Durations)
    compute: Durations = field(default_factory=Durations)
    failed: Durations = field(default_factory=Durations)
    recent: "array[float]" = field(default_factory=lambda: array("d"))

    def copy(self) -> "Count":
        """Made by hand, because requests wait for it: deepcopy takes 0.7 ms, this 0.01."""
        parts = {name: getattr(self, name).copy() for name in _PARTS}
        return replace(self, codes=self.codes.copy(), recent=self.recent[:], **parts)

    def join(self, other: "Count") -> None:
        """Count what the other counted, too, but for the recent times."""
        for code, n in other.codes.items():
            self.codes[code] = self.codes.get(code, 0) + n
        self.items += other.items
        self.sizes.update(other.sizes)
        self.last = max(self.last, other.last)
        for name in ("whole", "queue", "compute", "failed"):
            getattr(self, name).join(getattr(other, name))

    def remember(self, seconds: float) -> None:
        """Among the recent times, in the place of the oldest where there are enough."""
        if len(self.recent) < RECENT:
            self.recent.append(seconds)
        else:
            self.recent[self.whole.n % RECENT] = seconds

    def quantiles(self, *shares: float) -> list[float] | None:
        """Of the recent times, in seconds; None before the first answer."""
        return np.quantile(list(self.recent), shares).tolist() if self.recent else None


_PARTS = ("whole", "queue", "compute", "failed", "sizes")


@dataclass
class Batches:
    """What was computed together, all of it empty where nothing is.

    given: items of a request; computed: of a batch, with padding; padding: of a batch; each -> how
    many had so many. queued: how long requests waited for their batch. name: of the threads.
    """

    name: str = "batch_threads"
    given: Counter[int] = field(default_factory=Counter)
    computed: Counter[int] = field(default_factory=Counter)
    padding: Counter[int] = field(default_factory=Counter)
    queued: Durations = field(default_factory=lambda: Durations(QUEUE_BUCKETS))


@dataclass
class Loads:
    """How loading versions went, by their paths.

    attempts: (path, whether it was loaded) -> how often; micros: microseconds of those that were
    loaded; warm_ups: how long those took that were answered; records: requests in them.
    """

    attempts: Counter[tuple[str, bool]] = field(default_factory=Counter)
    micros: Counter[str] = field(default_factory=Counter)
    warm_ups: dict[str, Durations] = field(default_factory=dict)
    records: Counter[str] = field(default_factory=Counter)

    def loaded(self, path: str, seconds: float) -> None:
        self.attempts[path, True] += 1
        self.micros[path] += round(1e6 * seconds)

    def warmed(self, path: str, seconds: float, records: int) -> None:
        self.warm_ups.setdefault(path, Durations()).add(seconds)
        self.records[path] += records

    def forget(self, path: str) -> None:
        """Count no more what became of a version; there may be any number of them one day."""
        for loaded in (True, False):
            self.attempts.pop((path, loaded), None)
        for counts in (self.micros, self.warm_ups, self.records):
            counts.pop(path, None)


class Asked:
    """One request, from when a model was found for it until it ends.

    arrived: when it came (in `time.monotonic()`), where it waited before it was taken up. Whoever
    answers it fills in the signature and how many items it has, says `ready` when it is
    decoded, `turn` when it begins to be computed, and `computed` when that is done.
    """

    def __init__(
        self,
        model: str,
        version: int,
        how: tuple[str, str, str] = ("", "", ""),
        arrived: float | None = None,
    ):
        self.model, self.version, self.signature = model, version, ""
        self.how = how  # the last three of `Key`
        self.items = 0
        self._taken = self._ready = self._turn = self._computed = time.monotonic()
        self.begun = arrived or self._taken

    def ready(self) -> None:
        self._ready = self._turn = self._computed = time.monotonic()

    def turn(self) -> None:
        self._turn = time.monotonic()

    def computed(self) -> None:
        self._computed = time.monotonic()

    def parts(self) -> list[tuple[str, float, float]]:
        """What it went through: a name, from when to when in `time.monotonic()`."""
        ends = [self.begun, self._taken, self._ready, self._turn, self._computed]
        parts = zip(("wait", "decode", "queue", "compute"), ends, ends[1:], strict=False)
        return [part for part in parts if part[1] < part[2]]

    @property
    def queue(self) -> float:
        """Seconds that it waited to be taken up, and for its turn."""
        return self._taken - self.begun + self._turn - self._ready

    @property
    def compute(self) -> float:
        """Seconds that it was computed, with others where there are batches."""
        return self._computed - self._turn


class Counters:
    """All counts of a server, from any thread."""

    def __init__(self) -> None:
        self.since = time.monotonic()
        self._lock = threading.Lock()
        self._counts: dict[Key, Count] = {}
        self._refused: dict[tuple[str, Code], int] = {}
        self._unshaken: Counter[str] = Counter()

    @contextmanager
    def request(
        self,
        model: str,
        version: int,
        how: tuple[str, str, str] = ("", "", ""),
        arrived: float | None = None,
    ) -> Iterator[Asked]:
        """Count what happens in the block as one request: answered, or refused with a code.

        how: api, entrypoint and runtime, as in `Key`. arrived: see `Asked`.
        """
        asked = Asked(model, version, how, arrived)
        code = Code.OK
        try:
            yield asked
        except BaseException as error:
            code = code_of_error(error)
            raise
        finally:
            self._add(asked, code, time.monotonic() - asked.begun)

    def _add(self, asked: Asked, code: Code, whole: float) -> None:
        with self._lock:
            key = Key(asked.model, asked.version, asked.signature, *asked.how)
            count = self._counts.get(key)
            if count is None:  # `setdefault` would make one for every request
                count = self._counts[key] = Count()
            count.codes[code] = count.codes.get(code, 0) + 1
            if code != Code.OK:
                count.failed.add(whole)
                return
            count.items += asked.items
            count.sizes[asked.items] += 1
            count.last = time.time()
            count.whole.add(whole)
            count.queue.add(asked.queue)
            count.compute.add(asked.compute)
            count.remember(whole)

    def refuse(self, entrypoint: str, code: Code) -> None:
        """Count a call that ended before any model was found for it."""
        with self._lock:
            key = (entrypoint, code)
            self._refused[key] = self._refused.get(key, 0) + 1

    def unshaken(self, entrypoint: str) -> None:
        """Count a client whose TLS came to nothing."""
        with self._lock:
            self._unshaken[entrypoint] += 1

    def forget(self, model: str, version: int) -> None:
        """Count what a version was asked among what earlier ones were: what is shown of a whole
        model never becomes less."""
        with self._lock:
            for key in [key for key in self._counts if key[:2] == (model, version)]:
                count = self._counts.pop(key)
                earlier = key._replace(version=EARLIER, signature="")
                self._counts.setdefault(earlier, Count()).join(count)

    def refused(self) -> dict[tuple[str, Code], int]:
        """How many calls reached no model, by entrypoint and code."""
        with self._lock:
            return dict(self._refused)

    def handshakes(self) -> dict[str, int]:
        """How many failed, by entrypoint."""
        with self._lock:
            return dict(self._unshaken)

    def snapshot(self) -> dict[Key, Count]:
        """Copies of all counts, taken at one moment."""
        with self._lock:
            return {key: count.copy() for key, count in self._counts.items()}
