"""The learning-rate range test: a short run at rates that rise until the loss explodes.

Smith 2015, arXiv:1506.01186; Smith 2017, arXiv:1803.09820.
"""

import dataclasses
import itertools
import math
import os
from collections.abc import Iterator
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from striate.data import Dataset
from striate.errors import UsageError, check_whole
from striate.files import whole
from striate.train import devices
from striate.train.build import own_randomness
from striate.train.checkpoint import NoStore
from striate.train.failures import memory_explained
from striate.train.loop import Run
from striate.train.progress import Watcher, watcher
from striate.train.recipe import make_recipe
from striate.train.run import Prepared, open_dataset, prepare
from striate.train.strategies import freeze, phases_of
from striate.train.tensorboard import Logs

EXPLODED = 4.0  # times the least loss so far: the test ends
WIDTH = 0.15  # of the smoothing, in decades of the rate
FELL = 0.95  # the share of its beginning that the loss must fall to, to suggest anything


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class RangeTest:
    """What the loss did as the rate rose.

    rates: float64 [n]; losses: of the batch after a step at each (of as many as `accumulate` says,
    the mean), float64 [n].
    """

    rates: np.ndarray
    losses: np.ndarray

    def __repr__(self) -> str:
        """In a line: what it suggests."""
        ends = f"{self.rates[0]:.1e} to {self.rates[-1]:.1e}" if len(self.rates) else "nothing"
        return f"<RangeTest {ends}, {len(self.rates)} steps: suggests {self.suggestion}>"

    @property
    def smoothed(self) -> np.ndarray:
        """The losses, each a mean of its neighbours: a bell of `WIDTH` decades of the rate."""
        decades = np.log10(self.rates)
        near = np.exp(-(((decades[:, None] - decades) / WIDTH) ** 2) / 2)
        return near @ self.losses / near.sum(axis=1)

    @property
    def lowest(self) -> float:
        """The rate of the least smoothed loss: too high already, as it is about to explode."""
        return float(self.rates[self.smoothed.argmin()])

    @property
    def steepest(self) -> float | None:
        """The rate at which the smoothed loss falls fastest per decade; None where it never falls.

        What is said to be the rate to take first.
        """
        smoothed = self.smoothed
        end = int(smoothed.argmin()) + 1
        if end < 3 or smoothed[end - 1] > FELL * smoothed[0]:
            return None
        slopes = np.gradient(smoothed[:end], np.log10(self.rates[:end]))
        return float(self.rates[slopes.argmin()])

    @property
    def tenth(self) -> float | None:
        """A tenth of the rate of the least loss; None where the loss never falls."""
        return None if self.steepest is None else self.lowest / 10

    @property
    def suggestion(self) -> float | None:
        """The rate to begin with, to two digits: where the loss falls fastest."""
        return None if self.steepest is None else float(f"{self.steepest:.1e}")

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON holds it."""
        return {
            "suggestion": self.suggestion,
            "steepest": self.steepest,
            "tenth_of_lowest": self.tenth,
            "rates": self.rates.tolist(),
            "losses": self.losses.tolist(),
            "smoothed": self.smoothed.tolist(),
        }

    def draw(self, path: Path, title: str = "") -> Path:
        """Write the curve and the two rates as a PNG."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(self.rates, self.losses, color="0.75", linewidth=1, label="batch")
        axes.plot(self.rates, self.smoothed, color="C0", linewidth=2, label="smoothed")
        for rate, what, style in (
            (self.steepest, "steepest descent", "-"),
            (self.tenth, "a tenth of the lowest", "--"),
        ):
            if rate is not None:
                axes.axvline(rate, color="C3", linestyle=style, label=f"{what}: {rate:.1e}")
        top = 1.2 * max(self.smoothed[0], np.percentile(self.losses, 75))
        axes.set(xscale="log", xlabel="learning rate", ylabel="loss", title=title)
        axes.set_ylim(min(0.9 * self.losses.min(), self.smoothed.min()), top)
        axes.legend(frameon=False)
        with whole(path) as fresh:
            figure.savefig(fresh, dpi=120)
        return path


@own_randomness()
def range_test(
    recipe: Any,
    data: str | os.PathLike | Dataset | None = None,
    *,
    low: float = 1e-6,
    high: float = 10.0,
    steps: int = 200,
    progress: bool = False,
    **sets: Any,
) -> RangeTest:
    """Train for some steps at rates from low to high, evenly in logarithm, and watch the loss.

    recipe: as in `striate.train`, trained as it says but for its schedule and its average of the
    weights; where it begins with a linear probe, so does the test. data: in place of its source.
    The test ends early where the loss is four times its least, or no number; nothing is kept.
    """
    check_whole("steps", steps, 10)
    if not all(isinstance(rate, Real) for rate in (low, high)) or not 0 < low < high < math.inf:
        raise UsageError(f"expected rates 0 < low < high, got {low!r}, {high!r}")
    recipe = make_recipe(recipe, sets).changed(
        schedule={"name": "constant", "warmup": 0},
        early_stopping={"patience": None, "restore_best": False},
        optimizer={"learning_rate": low, "ema": 0},
        snapshots=0,
    )
    watch = watcher(progress)
    dataset = open_dataset(recipe, data, watch)
    prepared = prepare(recipe, dataset, dataset.split("train"), None, watch)
    rates = np.geomspace(low, high, steps)
    try:
        with memory_explained(prepared.recipe):
            losses = list(_losses(*_trainer(prepared, watch), rates, watch))
    finally:
        devices.use(1, recipe.batch_size)
    if not losses:
        raise UsageError(
            f"the loss exploded at the first rate: expected a lower one, got low={low:g}"
        )
    return RangeTest(rates[: len(losses)], np.array(losses))


def _trainer(prepared: Prepared, watch: Watcher) -> tuple[Run, Any]:
    """A run whose probes are solved, and the training graph of its first phase after them.

    Raises `UsageError` where no phase has a learning rate.
    """
    recipe, net, spec = prepared.recipe, prepared.net, prepared.start.spec
    phases = phases_of(recipe, net, spec)
    probes = list(itertools.takewhile(lambda phase: phase.kind == "probe", phases))
    if len(probes) == len(phases):
        raise UsageError(
            f"strategy={recipe.strategy.name} with epochs={recipe.epochs} follows no gradient, "
            "so it has no learning rate to look for"
        )
    quiet = {"store": NoStore(), "watch": watch, "logs": Logs(None)}
    run = Run(net, spec, recipe, prepared.train, None, **quiet)
    run.through(probes)
    phase = phases[len(probes)]
    freeze(net, phase)
    return run, run.trainer(phase)


def _losses(run: Run, trainer: Any, rates: np.ndarray, watch: Watcher) -> Iterator[float]:
    """The loss of what follows a step at each rate, a batch or several, until it explodes."""
    orders = itertools.chain.from_iterable(run.order(epoch) for epoch in itertools.count())
    batches = run.train.stream(orders)
    recent, least = None, math.inf
    for i, rate in enumerate(watch.steps([*rates, rates[-1]], len(rates) + 1, "range test")):
        trainer.optimizer.learning_rate = float(rate)
        step = itertools.islice(batches, run.recipe.optimizer.accumulate)
        loss = float(np.mean([_loss(trainer, batch) for batch in step]))
        recent = loss if recent is None else 0.8 * recent + 0.2 * loss
        least = min(least, recent)
        if not math.isfinite(loss) or recent > EXPLODED * least:
            return
        if i:  # it was computed before this step, so it tells of the one before
            yield loss


def _loss(trainer: Any, batch: tuple[np.ndarray, np.ndarray]) -> float:
    """The loss of a batch, which is learnt."""
    trainer.reset_metrics()
    return float(trainer.train_on_batch(*batch, return_dict=True)["loss"])
