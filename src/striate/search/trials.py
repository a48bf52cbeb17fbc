"""Trials of a search: a recipe fitted with some values changed, and the book that they stand in."""

import contextlib
import dataclasses
import json
import os
import shlex
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from striate.data import Dataset
from striate.errors import UsageError
from striate.files import held
from striate.lazy import keras
from striate.train.checkpoint import write_atomically
from striate.train.failures import Diverged, OutOfMemory
from striate.train.progress import Watcher
from striate.train.recipe import Recipe
from striate.train.run import fit, open_dataset


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


def open_judged(
    recipe: Recipe, data: str | os.PathLike | Dataset | None, watch: Watcher
) -> Dataset:
    """The pictures of a search; `UsageError` where none of them can validate."""
    dataset = open_dataset(recipe, data, watch)
    if "val" not in dataset.splits:
        raise UsageError("a search needs validation pictures; set data.validation")
    return dataset


def tried(number: int, values: dict[str, Any], recipe: Recipe, dataset: Dataset) -> Trial:
    """Fit a recipe that has these values; a trial that diverges or is too large is one, too."""
    started = time.monotonic()
    train, val = dataset.split("train"), dataset.split("val")
    try:
        fitted = fit(recipe, dataset, train, val)
    except (Diverged, OutOfMemory) as error:
        return Trial(number, values, seconds=_since(started), error=str(error))
    finally:
        _forget()
    accuracy, loss = fitted.val_accuracy, fitted.val_loss
    return Trial(number, values, round(accuracy, 6), round(loss, 6), _since(started))


def _forget() -> None:
    """Free what Keras holds of nets that are done with; what its user has set stays."""
    policy, talks = keras.config.dtype_policy(), keras.config.is_interactive_logging_enabled()
    filters = keras.config.is_traceback_filtering_enabled()
    keras.utils.clear_session()
    keras.config.set_dtype_policy(policy)
    if not talks:
        keras.config.disable_interactive_logging()
    if not filters:
        keras.config.disable_traceback_filtering()


def _since(started: float) -> float:
    return round(time.monotonic() - started, 3)


def best_first(trials: Iterable[Trial]) -> list[Trial]:
    """The most accurate first, of equals the one with the least loss; what failed last."""
    return sorted(trials, key=_rank)


def _rank(trial: Trial) -> tuple:
    if trial.val_accuracy is None or trial.val_loss is None:
        return (1, trial.number)
    return (0, -trial.val_accuracy, trial.val_loss, trial.number)


def say(trial: Trial, trials: int, watch: Watcher) -> None:
    """One line: which of how many, its values, what came of it."""
    what = trial.error or f"val_accuracy {trial.val_accuracy:.4f}  val_loss {trial.val_loss:.4f}"
    values = "  ".join(f"{key} {value}" for key, value in trial.values.items())
    watch.say(f"trial {trial.number}, {trial.number + 1} of {trials}  {values}  {what}")


@contextlib.contextmanager
def opened_book(
    directory: str | os.PathLike | None, recipe: Recipe, dataset: Dataset, **searched: Any
) -> Iterator["Book"]:
    """The book of a search: `search.json`, what is searched, and its trials, under a directory.

    directory: None keeps nothing. searched: what decides, beside the recipe and the pictures, what
    a trial finds. Raises `UsageError` for a directory that holds another search, `StriateError`
    while another process is at work on this one.
    """
    if directory is None:
        yield Book(None)
        return
    folder = Path(directory)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{directory}: cannot be written to ({error.strerror})") from None
    with held(folder, "another process is at work on a search here; wait for it, or name another"):
        path = folder / "search.json"
        facts = json.dumps({**_facts(recipe, dataset), **searched}, indent=2)
        if not path.exists():
            write_atomically(path, facts.encode())
        elif json.loads(path.read_text("utf-8")) != json.loads(facts):
            raise UsageError(
                f"{directory} holds a search with another recipe, "
                f"{' or '.join(searched)}, or data; expected a new directory"
            )
        yield Book(folder / "trials.jsonl")


class Book:
    """A line a trial in a file; None keeps nothing."""

    def __init__(self, trials: Path | None) -> None:
        self._trials = trials

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


def _facts(recipe: Recipe, dataset: Dataset) -> dict[str, Any]:
    """What decides what a trial finds, whatever is searched."""
    return {
        "recipe": recipe.model_dump(mode="json", exclude={"data": {"source", "cache_gb"}}),
        "data": dataset.fingerprint,
        "splits": {name: dataset.digest_of(name) for name in dataset.splits},
        "backend": keras.backend.backend(),
    }
