"""Loss and optimiser of a recipe, as Keras objects."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from striate.lazy import keras
from striate.train.rates import with_rates
from striate.train.recipe import Optimizer, Recipe
from striate.train.schedules import learning_rate

PLATEAU = "plateau_level"


def cross_entropy(label_smoothing: float = 0.0, weights: np.ndarray | None = None) -> Any:
    """The loss int labels [N], float32 logits [N, classes] -> float32 [N].

    label_smoothing: the share of belief that is spread over all classes alike. Szegedy et al. 2015,
    arXiv:1512.00567. weights: float [classes], what a picture of each class counts.
    """

    def loss(labels, logits):
        belief = keras.ops.log_softmax(keras.ops.cast(logits, "float32"))
        classes = belief.shape[-1]
        labels = keras.ops.cast(keras.ops.reshape(labels, (-1,)), "int32")
        truth = keras.ops.one_hot(labels, classes, dtype="float32")
        truth = truth * (1 - label_smoothing) + label_smoothing / classes
        return _weighted(-keras.ops.sum(truth * belief, axis=-1), labels, weights)

    return loss


def squared_hinge(weights: np.ndarray | None = None) -> Any:
    """The loss int labels [N], float32 logits [N, classes] -> float32 [N], a sum over the classes.

    Each class is a question of its own, with max(0, 1 - logit)^2 for the label and
    max(0, 1 + logit)^2 for the others. Tang 2013, arXiv:1306.0239. weights: as of `cross_entropy`.
    """

    def loss(labels, logits):
        logits = keras.ops.cast(logits, "float32")
        labels = keras.ops.cast(keras.ops.reshape(labels, (-1,)), "int32")
        sign = 2 * keras.ops.one_hot(labels, logits.shape[-1], dtype="float32") - 1
        each = keras.ops.sum(keras.ops.square(keras.ops.relu(1 - sign * logits)), axis=-1)
        return _weighted(each, labels, weights)

    return loss


def _weighted(each: Any, labels: Any, weights: np.ndarray | None) -> Any:
    """The losses of pictures, times what a picture of its class counts."""
    if weights is None:
        return each
    return each * keras.ops.take(keras.ops.convert_to_tensor(weights, "float32"), labels)


def make_optimizer(
    recipe: Recipe,
    variables: list[Any],
    *,
    steps: int,
    epochs: int,
    rates: Sequence[float] | None = None,
) -> Any:
    """The optimiser over `variables`; steps: batches of an epoch.

    rates: of each variable, as a share of the learning rate; None for the whole rate for all.
    """
    chosen = recipe.optimizer
    rate = learning_rate(chosen.learning_rate, recipe.schedule, steps=steps, epochs=epochs)
    kind, settings = _kind(chosen)
    if rates is not None:
        kind = with_rates(kind, rates)
    optimizer = kind(
        learning_rate=rate,
        weight_decay=chosen.weight_decay or None,
        global_clipnorm=chosen.clip_norm,
        gradient_accumulation_steps=chosen.accumulate if chosen.accumulate > 1 else None,
        **settings,
    )
    if recipe.schedule.name == "plateau":
        rate.level = optimizer.add_variable((), initializer="ones", name=PLATEAU)
    if chosen.weight_decay and not chosen.decay_all:
        vectors = [v for v in variables if len(v.shape) <= 1]  # biases, and the scales of BatchNorm
        optimizer.exclude_from_weight_decay(var_list=vectors)
    return optimizer


def lower_rate(optimizer: Any, factor: float) -> None:
    """Multiply the learning rate of a `plateau` schedule, for good.

    What it is multiplied by is a variable of the optimiser, so that checkpoints hold it.
    """
    level = next(v for v in optimizer.variables if v.name == PLATEAU)
    level.assign(level * factor)


def _kind(chosen: Optimizer) -> tuple[type[Any], dict[str, Any]]:
    """The class of an optimiser, and its own settings."""
    optimizers = keras.optimizers
    if chosen.name == "sgd":
        nesterov = chosen.nesterov and chosen.momentum > 0
        return optimizers.SGD, {"momentum": chosen.momentum, "nesterov": nesterov}
    if chosen.name == "rmsprop":
        return optimizers.RMSprop, {"momentum": chosen.momentum}
    if chosen.name == "adagrad":  # the paper's sum begins with 0, Keras' own with 0.1
        return optimizers.Adagrad, {"initial_accumulator_value": 0.0}
    if chosen.name == "lion":
        return optimizers.Lion, {}
    if chosen.name == "nadam":
        return optimizers.Nadam, {}
    return optimizers.Adam, {}  # with decoupled decay, Adam is AdamW
