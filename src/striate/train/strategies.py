"""Fine-tuning strategies by name: what learns, in which order, and what stays exactly as it was.

A strategy is a function of a recipe that returns the phases of a run. A new one is a function here
and its name in `STRATEGIES` (and in `recipe.Strategy`).

* `full`: everything learns from the start (or everything from `unfreeze_from` on).
* `linear_probe`: only the classifier; the features of the frozen body are computed once.
* `lp_ft`: the linear probe first, so that the gradients of a random classifier do not distort good
  features, then the rest at a small rate. Kumar et al. 2022, arXiv:2202.10054.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

from striate.errors import UsageError, did_you_mean
from striate.lazy import keras
from striate.registry import ModelSpec
from striate.train.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Phase:
    """One stretch of a run.

    kind: `probe` solves for the classifier on frozen features; `fit` follows the gradient.
    unfreeze_from: the first layer that learns, by the beginning of its name; None for all.
    freeze_bn: batch normalisation keeps its statistics and scales, wherever it stands.
    """

    name: str
    kind: Literal["probe", "fit"]
    epochs: int = 0
    unfreeze_from: str | None = None
    freeze_bn: bool = False


def full(recipe: Recipe, net: Any, spec: ModelSpec) -> list[Phase]:
    """Everything from `strategy.unfreeze_from` on learns, from the first step."""
    strategy = recipe.strategy
    return [
        Phase("full", "fit", recipe.epochs, strategy.unfreeze_from, bool(strategy.freeze_bn)),
    ]


def linear_probe(recipe: Recipe, net: Any, spec: ModelSpec) -> list[Phase]:
    """Only the classifier learns. One that is not linear in the `features` follows the gradient."""
    if linear_head(net, spec) is not None:
        return [Phase("linear_probe", "probe")]
    return [Phase("linear_probe", "fit", recipe.epochs, spec.head, freeze_bn=True)]


def lp_ft(recipe: Recipe, net: Any, spec: ModelSpec) -> list[Phase]:
    """The linear probe, then `full`."""
    return [*linear_probe(recipe, net, spec), *full(recipe, net, spec)]


STRATEGIES: dict[str, Callable[[Recipe, Any, ModelSpec], list[Phase]]] = {
    "full": full,
    "linear_probe": linear_probe,
    "lp_ft": lp_ft,
}


def phases_of(recipe: Recipe, net: Any, spec: ModelSpec) -> list[Phase]:
    """The phases of a run; `UsageError` where the net has no layer to unfreeze from."""
    phases = STRATEGIES[recipe.strategy.name](recipe, net, spec)
    for phase in phases:
        trainable_layers(net, phase.unfreeze_from)
    return [phase for phase in phases if phase.kind == "probe" or phase.epochs]


def linear_head(net: Any, spec: ModelSpec) -> Any:
    """The dense layer that turns the `features` vector into logits, or None where there is none."""
    names = [layer.name for layer in net.layers]
    head = net.get_layer(spec.head) if spec.head in names else None
    if not isinstance(head, keras.layers.Dense) or spec.features not in names:
        return None
    between = net.layers[names.index(spec.features) + 1 : names.index(spec.head)]
    plain = all(isinstance(layer, keras.layers.Dropout) for layer in between)
    return head if plain and len(net.get_layer(spec.features).output.shape) == 2 else None


def trainable_layers(net: Any, unfreeze_from: str | None) -> list[Any]:
    """The layers from the first whose name begins with `unfreeze_from`, in graph order."""
    if unfreeze_from is None:
        return list(net.layers)
    for i, layer in enumerate(net.layers):
        if layer.name.startswith(unfreeze_from):
            return list(net.layers[i:])
    blocks = dict.fromkeys("_".join(layer.name.split("_")[:2]) for layer in net.layers)
    raise UsageError(
        f"{net.name}: strategy.unfreeze_from: expected the beginning of a layer's name, "
        f"got {unfreeze_from!r}.{did_you_mean(unfreeze_from, blocks)}"
    )


def freeze(net: Any, phase: Phase) -> None:
    """Let exactly the layers of a phase learn.

    Frozen means frozen: under Keras 3's `fit` only `trainable = False` on a batch normalisation
    itself holds its moving statistics still (`training=False` in the call does not), and setting
    it on a parent undoes it; so it is set on each layer, and last.
    """
    net.trainable = True
    learning = {layer.name for layer in trainable_layers(net, phase.unfreeze_from)}
    for layer in net.layers:
        frozen_bn = phase.freeze_bn and isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = layer.name in learning and not frozen_bn
