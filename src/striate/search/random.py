"""Random search: trials whose values are drawn from ranges, most of them even in logarithm.

Bergstra and Bengio 2012: where only a few hyper-parameters matter, and nobody knows which, random
points try more values of each than a grid of as many. Draws depend on (seed, trial, key) alone, so
that trials can be taken up after a kill, run anywhere and in any order, and repeated one by one.
"""

import dataclasses
import math
import os
from collections.abc import Iterable
from typing import Any, get_args

import numpy as np

from striate.data import Dataset
from striate.errors import UsageError, check_whole, did_you_mean
from striate.search.trials import Trial, best_first, open_judged, opened_book, say, tried
from striate.train.progress import watcher
from striate.train.recipe import Recipe, make_recipe

KINDS = ("log", "uniform", "choice")
EDGE = 0.1  # of a range: where a best value says that the range ends too early


@dataclasses.dataclass(frozen=True)
class Range:
    """Where the values of one key of a recipe are drawn from.

    kind: log, uniform, or choice. points: the two ends, or the choices, as they were written. Keys
    that are whole numbers in a recipe get whole numbers.
    """

    key: str
    kind: str
    points: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "Range":
        """KEY=log:LOW:HIGH, KEY=uniform:LOW:HIGH or KEY=choice:A:B:...; `UsageError` for others."""
        key, equals, what = text.partition("=")
        kind, *points = what.split(":")
        if not (key and equals and points):
            raise UsageError(
                f"expected KEY=log:LOW:HIGH, such as optimizer.learning_rate=log:1e-5:1e-1, "
                f"got {text!r}"
            )
        if kind not in KINDS:
            raise UsageError(
                f"{key}: expected a range of {', '.join(KINDS)}, got {kind!r}."
                f"{did_you_mean(kind, KINDS)}"
            )
        found = cls(key, kind, tuple(points))
        if kind != "choice" and not found._is_sound():
            least = "0 < LOW < HIGH" if kind == "log" else "LOW < HIGH"
            raise UsageError(f"{key}: expected {kind}:LOW:HIGH with {least}, got {what!r}")
        return found

    def draw(self, seed: int, trial: int) -> Any:
        """The value of one trial; text where it is chosen."""
        generator = np.random.default_rng([seed, trial, *self.key.encode()])
        if self.kind == "choice":
            return self.points[generator.integers(len(self.points))]
        low, high = self._ends()
        if not _is_whole(self.key):
            return float(f"{self._between(low, high, generator.uniform()):.4g}")
        # From half a step before to half a step beyond, else an end would be drawn half as often.
        before = low - 0.5 if self.kind == "uniform" or low > 0.5 else low
        value = round(self._between(before, high + 0.5, generator.uniform()))
        return min(max(value, math.ceil(low)), math.floor(high))

    def _between(self, low: float, high: float, share: float) -> float:
        return low * (high / low) ** share if self.kind == "log" else low + (high - low) * share

    def edge(self, value: Any) -> str | None:
        """The end that a value lies close to, `low` or `high`; None for neither."""
        if self.kind == "choice":
            return None
        ends = self._ends()
        low, high, at = map(math.log, (*ends, value)) if self.kind == "log" else (*ends, value)
        share = (at - low) / (high - low)
        return "low" if share < EDGE else "high" if share > 1 - EDGE else None

    def _ends(self) -> tuple[float, float]:
        low, high = map(float, self.points)
        return low, high

    def _is_sound(self) -> bool:
        try:
            low, high = self._ends()
        except ValueError:
            return False
        return low < high and math.isfinite(high - low) and (low > 0 or self.kind != "log")


def _is_whole(key: str) -> bool:
    """Whether a key of a recipe is a whole number, such as `batch_size`."""
    kind: Any = Recipe
    for part in key.split("."):
        fields = getattr(kind, "model_fields", {})
        kind = fields[part].annotation if part in fields else None
    return int in (kind, *(getattr(option, "__origin__", option) for option in get_args(kind)))


def random_search(
    recipe: Any,
    data: str | os.PathLike | Dataset | None,
    ranges: Iterable[str | Range] | str | Range,
    *,
    trials: int = 20,
    output: str | os.PathLike | None = None,
    seed: int = 0,
    progress: bool = False,
    **sets: Any,
) -> list[Trial]:
    """Fit a recipe once for each draw from some ranges; the trials, the best first.

    recipe, data, sets: as in `striate.train`; every trial has the recipe's own seed, so that only
    what is drawn differs. ranges: as `Range.parse` reads them, or one. output: a directory for the
    trials; the same call again goes on where it was killed, and with more trials adds to them. A
    trial that diverges, or whose batch does not fit into memory, is noted and stops nothing.

    Raises `UsageError` before anything is trained: for a key or value that does not fit, pictures
    without a validation split, and a directory that holds another search.
    """
    check_whole("trials", trials)
    check_whole("seed", seed)
    recipe = make_recipe(recipe, sets)
    ranges = [ranges] if isinstance(ranges, str | Range) else ranges
    ranges = [Range.parse(r) if isinstance(r, str) else r for r in ranges]
    if not ranges:
        raise UsageError(
            "expected a range to draw from, such as optimizer.learning_rate=log:1e-5:1"
        )
    keys = [r.key for r in ranges]
    for key in keys:
        if keys.count(key) > 1:
            raise UsageError(f"expected one range for each key, got {keys.count(key)} for {key}")
    drawn = [{r.key: r.draw(seed, number) for r in ranges} for number in range(trials)]
    recipes = [make_recipe(recipe, _as_sets(values)) for values in drawn]
    watch = watcher(progress)
    dataset = open_judged(recipe, data, watch)
    searched = {"ranges": [f"{r.key}={r.kind}:{':'.join(r.points)}" for r in ranges]}
    with opened_book(output, recipe, dataset, seed=seed, **searched) as book:
        done = {trial.number: trial for trial in book.read()}
        for number, values in enumerate(drawn):
            if number not in done:
                done[number] = tried(number, values, recipes[number], dataset)
                book.add(done[number])
                say(done[number], trials, watch)
    return best_first(done[number] for number in range(trials))


def at_the_edge(best: Trial, ranges: Iterable[Range]) -> list[str]:
    """A line for each range that may end too early, as its best value lies at one end."""
    return [
        f"the best {r.key}, {best.values[r.key]}, lies at the {edge} end of its range; widen it"
        for r in ranges
        if (edge := r.edge(best.values[r.key]))
    ]


def _as_sets(values: dict[str, Any]) -> list[str]:
    return [f"{key}={value}" for key, value in values.items()]
