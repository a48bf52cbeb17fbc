"""How the learning rate changes over a phase: formulas in steps (batches), by name.

A formula is a function of the recipe's `Schedule`, of the steps of an epoch and of the whole phase;
it gives back (step after the warm-up) -> share of the learning rate. A new one is a function here
and its name in `FORMULAS` (and in `recipe.Schedule`).
"""

import math
from collections.abc import Callable
from typing import Any

from striate.errors import UsageError
from striate.lazy import keras
from striate.train.recipe import Schedule

Share = Callable[[Any], Any]


def constant(schedule: Schedule, steps: int, total: int) -> Share:
    """The same rate throughout."""
    return lambda step: 1.0


def cosine(schedule: Schedule, steps: int, total: int) -> Share:
    """Half a cosine from 1 to `final`. Loshchilov and Hutter 2016, arXiv:1608.03983."""
    return lambda step: _half_cosine(step / total, 1.0, schedule.final)


def cosine_restarts(schedule: Schedule, steps: int, total: int) -> Share:
    """The same, anew every `every` epochs (SGDR, arXiv:1608.03983; snapshots, arXiv:1704.00109)."""
    period = schedule.every * steps
    return lambda step: _half_cosine(step % period / period, 1.0, schedule.final)


def step(schedule: Schedule, steps: int, total: int) -> Share:
    """Times `factor` after each of the epochs in `steps`."""
    bounds = [round(epoch * steps) - round(schedule.warmup * steps) for epoch in schedule.steps]

    def share(at: Any) -> Any:
        passed = sum(keras.ops.cast(at >= bound, "float32") for bound in bounds) if bounds else 0.0
        return schedule.factor**passed

    return share


def exponential(schedule: Schedule, steps: int, total: int) -> Share:
    """Times `factor` every `every` epochs (GoogLeNet: 0.96 every 8, arXiv:1409.4842)."""
    return lambda at: schedule.factor ** keras.ops.floor(at / (schedule.every * steps))


def polynomial(schedule: Schedule, steps: int, total: int) -> Share:
    """(1 - t)^power from 1 to `final`; power 1 is a straight line."""
    return lambda at: (1 - schedule.final) * (1 - at / total) ** schedule.power + schedule.final


def one_cycle(schedule: Schedule, steps: int, total: int) -> Share:
    """Up from 1/25 over the first `rise` of the steps, down to `final`, along half cosines.

    Smith and Topin 2017, arXiv:1708.07120.
    """
    top = max(1.0, schedule.rise * total)

    def share(at: Any) -> Any:
        up = _half_cosine(keras.ops.minimum(at / top, 1.0), 1 / 25, 1.0)
        down = _half_cosine(
            keras.ops.maximum(at - top, 0.0) / max(1.0, total - top), 1.0, schedule.final
        )
        return keras.ops.where(at < top, up, down)

    return share


def cyclical(schedule: Schedule, steps: int, total: int) -> Share:
    """A triangle between `final` and 1, up and down within `every` epochs.

    Smith 2015, arXiv:1506.01186.
    """
    half = schedule.every * steps / 2

    def share(at: Any) -> Any:
        height = 1 - keras.ops.abs(at % (2 * half) / half - 1)
        return schedule.final + (1 - schedule.final) * height

    return share


def plateau(schedule: Schedule, steps: int, total: int) -> Share:
    """The same rate until validation stalls; then the loop lowers it, see `optimize.lower_rate`.

    By hand in Krizhevsky, Sutskever, Hinton 2012 (AlexNet): divided by 10, three times in all.
    """
    return lambda step: 1.0


FORMULAS: dict[str, Callable[[Schedule, int, int], Share]] = {
    "constant": constant,
    "cosine": cosine,
    "cosine_restarts": cosine_restarts,
    "step": step,
    "exponential": exponential,
    "polynomial": polynomial,
    "one_cycle": one_cycle,
    "cyclical": cyclical,
    "plateau": plateau,
}


def learning_rate(rate: float, schedule: Schedule, *, steps: int, epochs: int) -> Any:
    """A number, or a Keras schedule of steps; steps: an epoch's."""
    warmup = round(schedule.warmup * steps)
    if schedule.name == "constant" and not warmup:
        return rate
    total = max(1, steps * epochs - warmup)
    return _scheduled()(rate, warmup, FORMULAS[schedule.name](schedule, steps, total), total)


def cycle_ends(schedule: Schedule, epochs: int) -> range:
    """The epochs after which a cycle of the rate is over, and the rate lowest; 1 is the first.

    Raises `UsageError` for a schedule without cycles, or whose cycles end within an epoch.
    """
    if schedule.name not in ("cosine_restarts", "cyclical"):
        raise UsageError(
            f"snapshots are taken where cycles end: expected schedule=cosine_restarts or "
            f"schedule=cyclical, got {schedule.name}"
        )
    if schedule.every % 1 or schedule.warmup % 1:
        raise UsageError(
            "snapshots are taken after whole epochs: expected whole numbers as schedule.every and "
            f"schedule.warmup, got {schedule.every:g} and {schedule.warmup:g}"
        )
    return range(round(schedule.warmup + schedule.every), epochs + 1, round(schedule.every))


def _half_cosine(share: Any, start: float, end: float) -> Any:
    share = keras.ops.minimum(share, 1.0)
    return end + (start - end) * 0.5 * (1 + keras.ops.cos(math.pi * share))


def _scheduled() -> Any:
    """The schedule's class; it can only be made once Keras is loaded."""

    class Scheduled(keras.optimizers.schedules.LearningRateSchedule):
        """A straight rise from 0 over `warmup` steps, then rate times a formula's share.

        level: what everything is multiplied by: 1, or the optimiser's variable of a `plateau`.
        """

        def __init__(self, rate: float, warmup: int, share: Share, total: int):
            self.rate, self.warmup, self.share, self.total = rate, warmup, share, total
            self.level: Any = 1.0

        def __call__(self, step):
            step = keras.ops.cast(step, "float32")
            after = keras.ops.clip(step - self.warmup, 0.0, float(self.total))
            rate = keras.ops.cast(self.rate * self.share(after), "float32") * self.level
            return rate * keras.ops.minimum(step / self.warmup, 1.0) if self.warmup else rate

        def get_config(self):
            raise NotImplementedError("a schedule belongs to a recipe, which is what is saved")

    return Scheduled
