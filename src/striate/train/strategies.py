"""Fine-tuning strategies by name: what learns, in which order, and what stays exactly as it was.

A strategy is a function of a recipe that returns the phases of a run. A new one is a function here
and its name in `STRATEGIES` (and in `recipe.Strategy`).

* `full`: everything learns from the start (or everything from `unfreeze_from` on).
* `linear_probe`: only the classifier; the features of the frozen body are computed once.
* `lp_ft`: the linear probe first, so that the gradients of a random classifier do not distort good
  features, then the rest at a small rate. Kumar et al. 2022, arXiv:2202.10054.
* `gradual`: the linear probe first, then one stage more of the net learns in each phase, from the
  classifier down. Howard and Ruder 2018, arXiv:1801.06146.
* `layerwise`: as `lp_ft`, but each stage learns more slowly than the stage above it, since the
  stages near the pixels fit every task (Yosinski et al. 2014, arXiv:1411.1792).
* `early_features`: a linear probe on the features of an earlier stage; the net ends there.
* `auto`: one of these, by what `striate.train.transfer` measures before the net is built.
"""

import dataclasses
import operator
from collections.abc import Callable
from typing import Any, Literal

from striate.errors import UsageError, did_you_mean
from striate.lazy import keras
from striate.registry import ModelSpec
from striate.train.recipe import Recipe
from striate.train.schedules import cycle_ends


@dataclasses.dataclass(frozen=True)
class Phase:
    """One stretch of a run.

    kind: `probe` solves for the classifier on frozen features; `fit` follows the gradient.
    unfreeze_from: the first layer that learns, by the beginning of its name; None for all.
    freeze_bn: batch normalisation keeps its statistics and scales, wherever it stands.
    decay: the rate of a stage as a share of that of the stage above it.
    snapshots: the epochs at whose end the weights are kept, to become members of an ensemble.
    """

    name: str
    kind: Literal["probe", "fit"]
    epochs: int = 0
    unfreeze_from: str | None = None
    freeze_bn: bool = False
    decay: float = 1.0
    snapshots: tuple[int, ...] = ()


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
    if len(net.outputs) > 1:
        raise UsageError(
            f"{spec.name}: strategy=linear_probe leaves the body, which training heads are for, as "
            "it is; leave model.options.training_heads out"
        )
    return [Phase("linear_probe", "fit", recipe.epochs, spec.head, freeze_bn=True)]


def lp_ft(recipe: Recipe, net: Any, spec: ModelSpec) -> list[Phase]:
    """The linear probe, then `full`."""
    return [*linear_probe(recipe, net, spec), *full(recipe, net, spec)]


def gradual(recipe: Recipe, net: Any, spec: ModelSpec) -> list[Phase]:
    """The linear probe, then a phase for each stage from the top down to `unfreeze_from`."""
    strategy = recipe.strategy
    whole = full(recipe, net, spec)[0]
    learning = {stage_of(layer) for layer in trainable_layers(net, whole.unfreeze_from)}
    stages = [stage for stage in stages_of(net, spec) if stage in learning]
    phases = [
        dataclasses.replace(whole, name=stage, epochs=strategy.stage_epochs, unfreeze_from=stage)
        for stage in stages[:-1]
    ]
    last = dataclasses.replace(whole, name=stages[-1]) if stages else whole
    return [*linear_probe(recipe, net, spec), *phases, last]


def layerwise(recipe: Recipe, net: Any, spec: ModelSpec) -> list[Phase]:
    """The linear probe, then `full` with rates that decay from the classifier down."""
    whole = full(recipe, net, spec)[0]
    decayed = dataclasses.replace(whole, name="layerwise", decay=recipe.strategy.decay)
    return [*linear_probe(recipe, net, spec), decayed]


STRATEGIES: dict[str, Callable[[Recipe, Any, ModelSpec], list[Phase]]] = {
    "full": full,
    "linear_probe": linear_probe,
    "lp_ft": lp_ft,
    "gradual": gradual,
    "layerwise": layerwise,
    "early_features": linear_probe,  # of a net that `transfer.decided` has cut
}


def phases_of(recipe: Recipe, net: Any, spec: ModelSpec) -> list[Phase]:
    """The phases of a run; `UsageError` where the net has no layer to unfreeze from."""
    phases = STRATEGIES[recipe.strategy.name](recipe, net, spec)
    for phase in phases:
        trainable_layers(net, phase.unfreeze_from)
    phases = [phase for phase in phases if phase.kind == "probe" or phase.epochs]
    if recipe.snapshots:
        phases[-1:] = [_with_snapshots(phases, recipe)]
    return phases


# What a recipe may say that only following the gradient knows.
_OF_THE_GRADIENT = (
    "augment.mixup",
    "augment.cutmix",
    "penalty.l1",
    "penalty.l2",
    "penalty.group_lasso",
    "adversarial.epsilon",
    "optimizer.ema",
    "early_stopping.patience",
    "early_stopping.restore_best",
    "label_smoothing",
    "quantise",
)


def without_effect(recipe: Recipe, phases: list[Phase]) -> list[str]:
    """The keys that change nothing, since all that there is to do is a probe that is solved for."""
    if not phases or any(phase.kind == "fit" for phase in phases):
        return []
    plain = Recipe(model=recipe.model)
    value_of = operator.attrgetter(*_OF_THE_GRADIENT)
    values = zip(_OF_THE_GRADIENT, value_of(recipe), value_of(plain), strict=True)
    return [key for key, value, default in values if value != default]


def _with_snapshots(phases: list[Phase], recipe: Recipe) -> Phase:
    """The last phase with the ends of its last cycles; `UsageError` where it has too few."""
    if not phases or phases[-1].kind == "probe":
        raise UsageError(
            "snapshots are taken where cycles of the learning rate end: expected epochs of "
            f"strategy=full, lp_ft, gradual or layerwise, got strategy={recipe.strategy.name} and "
            f"epochs={recipe.epochs}"
        )
    phase = phases[-1]
    ends = cycle_ends(recipe.schedule, phase.epochs)
    if len(ends) < recipe.snapshots:
        raise UsageError(
            f"snapshots={recipe.snapshots} needs as many cycles, but {phase.epochs} epochs of "
            f"schedule.every={recipe.schedule.every:g} have {len(ends)}"
        )
    if recipe.early_stopping.patience or recipe.early_stopping.restore_best:
        raise UsageError("snapshots are of a whole run: leave early_stopping out")
    return dataclasses.replace(phase, snapshots=tuple(ends[-recipe.snapshots :]))


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
    hint = did_you_mean(unfreeze_from, blocks) or " `striate info NET --layers` lists them."
    raise UsageError(
        f"{net.name}: strategy.unfreeze_from: expected the beginning of a layer's name, "
        f"got {unfreeze_from!r}.{hint}"
    )


def stage_of(layer: Any) -> str:
    """The stage that a layer belongs to, by the first part of its name: stem, stage1, ..., top."""
    return layer.name.split("_")[0]


def stages_of(net: Any, spec: ModelSpec) -> list[str]:
    """The stages of the body that have weights, from the classifier down to the pixels."""
    body = [layer for layer in net.layers if layer.weights and not layer.name.startswith(spec.head)]
    return list(dict.fromkeys(stage_of(layer) for layer in body))[::-1]


def learning_rates(
    net: Any, variables: list[Any], spec: ModelSpec, phase: Phase
) -> list[float] | None:
    """The rate of each variable as a share of the learning rate; None where all have the whole.

    The classifier learns at the whole rate, and each stage at `decay` times that of the one above;
    training heads at their own.
    """
    shares = {
        stage: phase.decay**below for below, stage in enumerate(stages_of(net, spec), start=1)
    }
    rates = {layer: shares.get(stage_of(layer), 1.0) for layer in net.layers}
    if spec.training_heads:
        rates |= dict.fromkeys(heads_of(net), spec.training_heads.rate)
    owners = {id(weight): layer for layer in net.layers for weight in layer.weights}
    found = [rates[owners[id(variable)]] for variable in variables]
    return None if set(found) == {1.0} else found


def heads_of(net: Any) -> list[Any]:
    """The layers that the net's answer does not need: those of its training heads."""
    needed = {layer.name for layer in keras.Model(net.input, net.outputs[0]).layers}
    return [layer for layer in net.layers if layer.name not in needed]


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


def forget_sooner(net: Any, steps: int) -> None:
    """Let batch normalisation that learns forget its first statistics within an epoch of `steps`.

    Momenta are those of the nets' own codes, where an epoch had thousands of steps. At 0.999 a run
    of a few hundred would end with the statistics that it began with, and answer at random however
    well it has learnt. So none is over 1 - 4 / steps, which leaves exp(-4) = 2 % of them after an
    epoch, nor is one brought below 0.9.
    """
    most = max(0.9, 1 - 4 / steps)
    for layer in net.layers:
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable:
            layer.momentum = min(layer.momentum, most)
