"""Canaries: which version answers a client, and which one is held back because it does worse.

The first label of a model's `--canary` is the one that is trusted; the versions of the others are
on trial. Again and again `Canaries.look` judges them by what was counted since it last did, once
that is `least` requests: how many failed, beside those of the first label; and where a shadow
compares the same version, how often the best class was the same, and how far the scores were apart.
Beyond a limit a version is held: the first label answers its clients. That lasts until somebody
resumes it, or until its files are replaced.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple
from weakref import ref

from striate.serve.observe.counters import Counters
from striate.serve.repository import Model
from striate.serve.repository.servable import Servable
from striate.serve.rollout import Agreement, Shadow, choose
from striate.serve.status import Code

log = logging.getLogger("striate.serve")


@dataclass(frozen=True)
class Limits:
    """What a version on trial may do before it is held.

    errors: percent of its requests that may fail beyond the first label's percent. agreement:
    percent of the items on which a shadow's best class is the same, at least. distance: mean of the
    largest difference of a score, at most. least: requests, or items, that a judgement takes.
    """

    errors: float = 5.0
    agreement: float = 0.0
    distance: float = 1.0
    least: int = 50


class Tally(NamedTuple):
    """Requests that a version was asked, and how many of them failed."""

    asked: int = 0
    failed: int = 0

    def since(self, before: "Tally") -> "Tally":
        return Tally(self.asked - before.asked, self.failed - before.failed)

    @property
    def percent(self) -> float:
        return 100 * self.failed / self.asked if self.asked else 0.0


@dataclass
class Trial:
    """A version on trial: what had been counted when it was last judged, of it and of the first.

    servable: what it was when the trial began; when it is replaced, another one begins. held: why,
    empty while it is not.
    """

    servable: Callable[[], Servable | None]
    own: Tally
    first: Tally
    compared: Agreement
    held: str = ""


class Canaries:
    """The canaries of all models.

    percents: model -> label or number -> percent, as of `rollout.parse`. models: the repository's.
    """

    def __init__(
        self,
        percents: Mapping[str, dict[str, float]],
        limits: Limits,
        models: Mapping[str, Model],
        counters: Counters,
        shadow: Shadow | None = None,
    ):
        self._percents, self._limits, self._models = percents, limits, models
        self._counters, self._shadow = counters, shadow
        self._trials: dict[tuple[str, int], Trial] = {}
        self._lock = threading.Lock()

    def choose(self, name: str, client: str) -> int | None:
        """The version that answers a client which names none; None for the newest, where the model
        has no canary, or neither the version of its label nor the first is there."""
        model = self._models.get(name)
        if model is None or name not in self._percents:
            return None
        available = model.available()
        number = model.named(choose(self._percents[name], name, client))
        if number not in available or self._is_held(model, number):
            number = model.named(next(iter(self._percents[name])))
        return number if number in available else None

    def look(self) -> None:
        """Judge every version on trial that was asked often enough since it last was."""
        with self._lock:
            tallies = self._tallies()
            for model, first, number in self._on_trial():
                self._judge(model, first, number, tallies)

    def resume(self, name: str) -> list[int]:
        """Send the held versions of a model clients again; returns their numbers.

        They are judged by what comes from now on.
        """
        with self._lock:
            held = [n for model, n in self._trials if model == name and self._trials[model, n].held]
            for number in held:
                del self._trials[name, number]
                log.info("%s version %d goes on", name, number)
        self.look()  # what was counted until now is behind them
        return held

    def forget(self, name: str, number: int) -> None:
        """A version is over, and will not be judged again."""
        with self._lock:
            self._trials.pop((name, number), None)

    def states(self) -> list[tuple[str, int, bool]]:
        """(model, version, whether it is held) of every version on trial."""
        return [
            (model.name, number, self._is_held(model, number))
            for model, _, number in self._on_trial()
        ]

    def _is_held(self, model: Model, number: int) -> bool:
        trial = self._trials.get((model.name, number))
        return trial is not None and bool(trial.held) and trial.servable() is model.serving(number)

    def _on_trial(self) -> Iterator[tuple[Model, int | None, int]]:
        """(model, version of the first label, version on trial), of those that are served."""
        for name, percents in self._percents.items():
            model = self._models.get(name)
            if model is None:
                continue
            first, *others = map(model.named, percents)
            for number in others:
                if number is not None and number != first and model.serving(number) is not None:
                    yield model, first, number

    def _judge(
        self, model: Model, first: int | None, number: int, tallies: dict[tuple[str, int], Tally]
    ) -> None:
        servable, compared = model.serving(number), self._compared(model, number)
        own = tallies.get((model.name, number), Tally())
        beside = tallies.get((model.name, first or 0), Tally())
        trial = self._trials.get((model.name, number))
        if servable is None or (trial and trial.held and trial.servable() is servable):
            return
        if trial is None or trial.servable() is not servable:
            self._trials[model.name, number] = Trial(ref(servable), own, beside, compared)
            return
        if own.asked - trial.own.asked >= self._limits.least:
            trial.held = self._failing(own.since(trial.own), beside.since(trial.first))
            trial.own, trial.first = own, beside
        if compared.items - trial.compared.items >= self._limits.least:
            trial.held = trial.held or self._differing(compared.since(trial.compared))
            trial.compared = compared
        if trial.held:
            log.error(
                "%s version %d is held: %s. POST /v1/models/%s:resume sends it clients again",
                *(model.name, number, trial.held, model.name),
            )

    def _failing(self, own: Tally, first: Tally) -> str:
        """Why a version is to be held for its errors; empty where it is not."""
        if own.percent - first.percent <= self._limits.errors:
            return ""
        return (
            f"{own.failed} of {own.asked} requests failed ({own.percent:.1f} %, of the version "
            f"beside it {first.percent:.1f} %), expected at most {self._limits.errors:g} % more"
        )

    def _differing(self, found: Agreement) -> str:
        """Why it is to be held for its answers; empty where it is not."""
        same, distance = 100 * found.same / found.items, found.distance / found.items
        if same < self._limits.agreement:
            return (
                f"its best class is the same for {same:.1f} % of {found.items} items, expected at "
                f"least {self._limits.agreement:g} %"
            )
        if distance > self._limits.distance:
            return (
                f"its scores differ by {distance:.3g} (mean of {found.items} items), expected at "
                f"most {self._limits.distance:g}"
            )
        return ""

    def _tallies(self) -> dict[tuple[str, int], Tally]:
        """What every version was asked; a client that went away is no failure."""
        found: dict[tuple[str, int], Tally] = {}
        for key, count in self._counters.snapshot().items():
            asked, failed = found.get(key[:2], Tally())
            for code, n in count.codes.items():
                asked += n
                failed += n if code not in (Code.OK, Code.CANCELLED) else 0
            found[key[:2]] = Tally(asked, failed)
        return found

    def _compared(self, model: Model, number: int) -> Agreement:
        """What a shadow found of a version, by whichever label and whoever had answered."""
        found = Agreement()
        for (name, _, label), count in list(self._shadow.counts.items()) if self._shadow else []:
            if name == model.name and model.named(label) == number:
                found = found.plus(count)
        return found
