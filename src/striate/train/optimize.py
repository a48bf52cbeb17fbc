"""Loss, optimiser and learning rate of a recipe, as Keras objects."""

from typing import Any

from striate.lazy import keras
from striate.train.recipe import Optimizer, Recipe, Schedule


def cross_entropy(label_smoothing: float = 0.0) -> Any:
    """The loss int labels [N], float32 logits [N, classes] -> float32 [N].

    label_smoothing: the share of belief that is spread over all classes alike. Szegedy et al. 2015,
    arXiv:1512.00567.
    """

    def loss(labels, logits):
        belief = keras.ops.log_softmax(keras.ops.cast(logits, "float32"))
        classes = belief.shape[-1]
        truth = keras.ops.one_hot(keras.ops.reshape(labels, (-1,)), classes, dtype="float32")
        truth = truth * (1 - label_smoothing) + label_smoothing / classes
        return -keras.ops.sum(truth * belief, axis=-1)

    return loss


def make_optimizer(recipe: Recipe, variables: list[Any], *, steps: int, epochs: int) -> Any:
    """The optimiser over `variables`; steps: an epoch's."""
    chosen = recipe.optimizer
    common = {
        "learning_rate": learning_rate(chosen, recipe.schedule, steps=steps, epochs=epochs),
        "weight_decay": chosen.weight_decay or None,
        "global_clipnorm": chosen.clip_norm,
    }
    if chosen.name == "sgd":
        nesterov = chosen.nesterov and chosen.momentum > 0
        optimizer = keras.optimizers.SGD(momentum=chosen.momentum, nesterov=nesterov, **common)
    else:
        optimizer = keras.optimizers.Adam(**common)  # with decoupled decay, Adam is AdamW
    if chosen.weight_decay and not chosen.decay_all:
        vectors = [v for v in variables if len(v.shape) <= 1]  # biases, and the scales of BatchNorm
        optimizer.exclude_from_weight_decay(var_list=vectors)
    return optimizer


def learning_rate(optimizer: Optimizer, schedule: Schedule, *, steps: int, epochs: int) -> Any:
    """A number, or a Keras schedule in optimiser steps; steps: an epoch's."""
    rate, warmup = optimizer.learning_rate, round(schedule.warmup * steps)
    if schedule.name == "constant" and not warmup:
        return rate
    if schedule.name == "cosine":
        # Keras counts the decay from the end of the warm-up
        return keras.optimizers.schedules.CosineDecay(
            0.0 if warmup else rate,
            max(1, steps * epochs - warmup),
            alpha=schedule.final,
            warmup_target=rate if warmup else None,
            warmup_steps=warmup,
        )
    bounds = [round(epoch * steps) for epoch in schedule.steps] if schedule.name == "step" else []
    return _steps_after_warmup()(rate, warmup, bounds, schedule.factor)


def _steps_after_warmup() -> Any:
    """The schedule's class; it can only be made once Keras is loaded."""

    class StepsAfterWarmup(keras.optimizers.schedules.LearningRateSchedule):
        """A linear rise, then a fall by `factor` at each boundary (in optimiser steps)."""

        def __init__(self, rate: float, warmup: int, boundaries: list[int], factor: float):
            self.rate, self.warmup = rate, warmup
            self.boundaries, self.factor = boundaries, factor

        def __call__(self, step):
            step = keras.ops.cast(step, "float32")
            rate = keras.ops.convert_to_tensor(self.rate, "float32")
            for boundary in self.boundaries:
                rate = keras.ops.where(step >= boundary, rate * self.factor, rate)
            if self.warmup:
                rate = rate * keras.ops.minimum(step / self.warmup, 1.0)
            return rate

        def get_config(self):
            return {
                "rate": self.rate,
                "warmup": self.warmup,
                "boundaries": self.boundaries,
                "factor": self.factor,
            }

    return StepsAfterWarmup
