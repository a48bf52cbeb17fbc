"""A new version beside the old one: a canary that answers some clients, a shadow that answers none.

    --canary=mine:stable=90,next=10       of the clients that name no version, 10 % are answered by
                                          `next`, and go on being
    --shadow=mine:next=5                  of 100 requests, 5 are asked of `next` again, after the
                                          answer, and only counted

What stands before = is a label, or a version's number. Several models are separated by `;`.
"""

import hashlib
import logging
import random
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import astuple, dataclass, field
from queue import Queue
from typing import NamedTuple

import numpy as np

from striate.errors import UsageError
from striate.serve.behind import Behind
from striate.serve.repository import Lease, Model
from striate.serve.signatures import Tensors
from striate.serve.status import ServingError

log = logging.getLogger("striate.serve")

WAITING = 8  # requests for a shadow that are not computed yet; more are passed over


def parse(text: str, flag: str) -> dict[str, dict[str, float]]:
    """Model -> label or number -> percent, of what the flag called `flag` says."""
    found = {}
    for part in filter(None, text.split(";")):
        model, _, shares = part.strip().rpartition(":")
        pairs = [pair.partition("=") for pair in shares.split(",")]
        try:
            percents = {label.strip(): float(percent) for label, _, percent in pairs}
        except ValueError:
            percents = {}
        fit = all(percents) and all(0 <= p <= 100 for p in percents.values())
        if not (model and percents and fit):
            raise UsageError(f"expected {flag} MODEL:LABEL=PERCENT,..., got {part!r}")
        if model in found or len(percents) < len(pairs):
            raise UsageError(f"expected {flag} with every model and label once, got {text!r}")
        found[model] = percents
    return found


def parse_canary(text: str) -> dict[str, dict[str, float]]:
    """The same, where the percents of each model are to be 100 together."""
    found = parse(text, "canary")
    for model, percents in found.items():
        if abs(sum(percents.values()) - 100) > 1e-6:
            raise UsageError(
                f"expected canary of {model} with 100 % together, got {sum(percents.values()):g} %"
            )
    return found


def choose(percents: dict[str, float], model: str, client: str) -> str:
    """The label that answers a client: always the same one while the percents are.

    Where the last label's percent grows, it keeps the clients that it had.
    """
    digest = hashlib.sha256(f"{model}\0{client}".encode()).digest()
    place = 100 * int.from_bytes(digest[:8]) / 2**64
    for label, percent in percents.items():
        place -= percent
        if place < 0:
            return label
    return label


@dataclass
class Missing:
    """Says in the log which versions canaries and shadows name that are not served, each once until
    it is: a share of nobody looks like one that goes well.

    named: "canary", "shadow" -> what `parse` found. models: the repository's.
    """

    named: dict[str, dict[str, dict[str, float]]]
    models: Mapping[str, Model]
    _said: set[str] = field(default_factory=set)

    def look(self) -> None:
        missing = {
            f"{flag}: model {model} serves no version {label}"
            for flag, percents in self.named.items()
            for model, shares in percents.items()
            for label in shares
            if not self._serves(model, label)
        }
        for line in sorted(missing - self._said):
            log.warning("%s", line)
        self._said = missing

    def _serves(self, name: str, label: str) -> bool:
        model = self.models.get(name)
        return model is not None and model.named(label) in model.available()


class Compared(NamedTuple):
    """A request that was answered: by whom, what the engine was given, what it found."""

    model: str
    version: int
    ask: str
    feeds: Tensors
    found: Tensors


@dataclass
class Agreement:
    """What came of asking a shadow: how many items, the same best class of how many, the sum of the
    largest differences of a score; requests passed over, and those that it did not answer."""

    items: int = 0
    same: int = 0
    distance: float = 0.0
    skipped: int = 0
    failed: int = 0

    def add(self, before: np.ndarray, now: np.ndarray) -> None:
        """Compare the scores of a request; `ValueError` where they cannot be."""
        if before.shape != now.shape or now.ndim != 2:
            raise ValueError(f"scores {list(now.shape)} beside {list(before.shape)}")
        apart = np.abs(before - now).max(axis=1)
        numbers = np.isfinite(apart)  # what is none is as far apart as scores can be
        same = before.argmax(axis=1) == now.argmax(axis=1)
        self.items += len(now)
        self.same += int((same & numbers).sum())
        self.distance += float(np.where(numbers, apart, 1.0).sum())

    def plus(self, other: "Agreement", sign: int = 1) -> "Agreement":
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Agreement(*(mine + sign * its for mine, its in pairs))

    def since(self, before: "Agreement") -> "Agreement":
        return self.plus(before, -1)


@dataclass
class Shadow:
    """Asks versions that nobody waits for, one request at a time, on a thread of its own.

    percents: as of `parse`. lease: (model, label or number) -> the version. counts: by model,
    version that answered, and label.
    """

    percents: dict[str, dict[str, float]]
    lease: Callable[[str, str], AbstractContextManager[Lease]]
    counts: dict[tuple[str, int, str], Agreement] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._behind = Behind("shadow", WAITING, self._work)

    def offer(self, compared: Compared) -> None:
        """Have some requests computed again; never waits."""
        if "scores" not in compared.found:
            return
        for label, percent in self.percents.get(compared.model, {}).items():
            if 100 * random.random() >= percent:
                continue
            if not self._behind.offer((label, compared)):
                self._count(label, compared).skipped += 1

    def forget(self, model: str, version: int) -> None:
        """Count no more what a version was compared with."""
        for whom in [whom for whom in list(self.counts) if whom[:2] == (model, version)]:
            self.counts.pop(whom, None)

    def close(self, seconds: float = 5.0) -> None:
        """Compute what waits, for so many seconds at most."""
        self._behind.close(seconds)

    def _count(self, label: str, compared: Compared) -> Agreement:
        return self.counts.setdefault((compared.model, compared.version, label), Agreement())

    def _work(self, waiting: Queue[tuple[str, Compared] | None]) -> None:
        while (entry := waiting.get()) is not None:
            label, compared = entry
            count = self._count(label, compared)
            try:
                with self.lease(compared.model, label) as lease:
                    if lease.version == compared.version:
                        continue  # it answered itself
                    found = lease.servable.run(compared.ask, compared.feeds)
                count.add(compared.found["scores"], found["scores"])
            except ServingError:  # no such version now
                count.failed += 1
            except Exception as error:  # it takes other pictures, or it is broken
                count.failed += 1
                log.debug("shadow %s %s: %s", compared.model, label, error)
