"""Random search: trials whose values are drawn from ranges, most of them even in logarithm.

Bergstra and Bengio 2012: where only a few hyper-parameters matter, and nobody knows which, random
points try more values of each than a grid of as many. Draws depend on (seed, trial, key) alone, so
that trials can be taken up after a kill, run anywhere and in any order, and repeated one by one.
"""

import dataclasses
import json
import math
import os
import shlex
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

import numpy as np

from striate.data import Dataset
from striate.errors import UsageError, did_you_mean
from striate.lazy import keras
from striate.train.checkpoint import write_atomically
from striate.train.failures import Diverged, OutOfMemory
from striate.train.progress import Watcher, watcher
from striate.train.recipe import Recipe, make_recipe
from striate.train.run import fit, open_dataset

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
        share = generator.uniform()
        low, high = self._ends()
        value = low * (high / low) ** share if self.kind == "log" else low + (high - low) * share
        return round(value) if _is_whole(self.key) else float(f"{value:.4g}")

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


@dataclasses.dataclass(frozen=True)
class Trial:
    """One trial and what came of it.

    number: from 0; values: key -> what was drawn; val_accuracy, val_loss: at its end, None where it
    failed; seconds; error: why it failed.
    """

    number: int
    values: dict[str, Any]
    val_accuracy: float | None = None
    val_loss: float | None = None
    seconds: float = 0.0
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON holds it."""
        return dataclasses.asdict(self)

    @property
    def sets(self) -> str:
        """What repeats it with `striate train`."""
        return " ".join(
            f"--set {shlex.quote(f'{key}={value}')}" for key, value in self.values.items()
        )


def random_search(
    recipe: Any,
    data: str | os.PathLike | Dataset | None,
    ranges: Iterable[str | Range],
    *,
    trials: int = 20,
    output: str | os.PathLike | None = None,
    seed: int = 0,
    progress: bool = False,
    **sets: Any,
) -> list[Trial]:
    """Fit a recipe once for each draw from some ranges; the trials, the best first.

    recipe, data, sets: as in `striate.train`; every trial has the recipe's own seed, so that only
    what is drawn differs. ranges: as `Range.parse` reads them. output: a directory for the trials;
    the same call again goes on where it was killed, and with more trials adds to them. A trial that
    diverges, or whose batch does not fit into memory, is noted and stops nothing.

    Raises `UsageError` before anything is trained: for a key or value that does not fit, pictures
    without a validation split, and a directory that holds another search.
    """
    recipe = make_recipe(recipe, sets)
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
    dataset = open_dataset(recipe, data, watch)
    if "val" not in dataset.splits:
        raise UsageError("random search needs validation pictures; set data.validation")
    book = _Book(output, _facts(recipe, ranges, seed, dataset))
    done = {trial.number: trial for trial in book.read()}
    for number, values in enumerate(drawn):
        if number not in done:
            done[number] = _tried(number, values, recipes[number], dataset)
            book.add(done[number])
            _say(done[number], trials, watch)
    return sorted((done[number] for number in range(trials)), key=_rank)


def at_the_edge(best: Trial, ranges: Iterable[Range]) -> list[str]:
    """A line for each range that may end too early, as its best value lies at one end."""
    return [
        f"the best {r.key}, {best.values[r.key]}, lies at the {edge} end of its range; widen it"
        for r in ranges
        if (edge := r.edge(best.values[r.key]))
    ]


def _tried(number: int, values: dict[str, Any], recipe: Recipe, dataset: Dataset) -> Trial:
    started = time.monotonic()
    train, val = dataset.split("train"), dataset.split("val")
    try:
        fitted = fit(recipe, dataset, train, val)
    except (Diverged, OutOfMemory) as error:
        return Trial(number, values, seconds=_since(started), error=str(error))
    finally:
        keras.utils.clear_session()
    accuracy, loss = fitted.val_accuracy, fitted.val_loss
    return Trial(number, values, round(accuracy, 6), round(loss, 6), _since(started))


def _since(started: float) -> float:
    return round(time.monotonic() - started, 3)


def _as_sets(values: dict[str, Any]) -> list[str]:
    return [f"{key}={value}" for key, value in values.items()]


def _rank(trial: Trial) -> tuple:
    """The most accurate first, of equals the one with the least loss; what failed last."""
    if trial.val_accuracy is None or trial.val_loss is None:
        return (1, trial.number)
    return (0, -trial.val_accuracy, trial.val_loss, trial.number)


def _say(trial: Trial, trials: int, watch: Watcher) -> None:
    what = trial.error or f"val_accuracy {trial.val_accuracy:.4f}  val_loss {trial.val_loss:.4f}"
    values = "  ".join(f"{key} {value}" for key, value in trial.values.items())
    watch.say(f"trial {trial.number}, {trial.number + 1} of {trials}  {values}  {what}")


# === The directory of a search ===


def _facts(recipe: Recipe, ranges: list[Range], seed: int, dataset: Dataset) -> dict[str, Any]:
    """All that decides what a trial finds."""
    return {
        "recipe": recipe.model_dump(mode="json", exclude={"data": {"source", "cache_gb"}}),
        "ranges": [f"{r.key}={r.kind}:{':'.join(r.points)}" for r in ranges],
        "seed": seed,
        "data": dataset.fingerprint,
        "splits": {name: dataset.digest_of(name) for name in dataset.splits},
        "backend": keras.backend.backend(),
    }


class _Book:
    """`search.json`, what is searched, and `trials.jsonl`, a line a trial, under a directory."""

    def __init__(self, directory: str | os.PathLike | None, facts: dict[str, Any]) -> None:
        self._trials = None if directory is None else Path(directory) / "trials.jsonl"
        if self._trials is None:
            return
        self._trials.parent.mkdir(parents=True, exist_ok=True)
        path = self._trials.with_name("search.json")
        if not path.exists():
            write_atomically(path, json.dumps(facts, indent=2).encode())
        elif json.loads(path.read_text("utf-8")) != facts:
            raise UsageError(
                f"{directory} holds a search with another recipe, ranges, seed or data; "
                "expected a new directory"
            )

    def read(self) -> list[Trial]:
        """The trials that are done."""
        if self._trials is None or not self._trials.exists():
            return []
        return [Trial(**json.loads(line)) for line in self._trials.read_text("utf-8").splitlines()]

    def add(self, trial: Trial) -> None:
        """Write a trial down so that a kill at any moment leaves it whole or not at all."""
        if self._trials is None:
            return
        lines = [json.dumps(t.to_dict()) + "\n" for t in (*self.read(), trial)]
        write_atomically(self._trials, "".join(lines).encode())
