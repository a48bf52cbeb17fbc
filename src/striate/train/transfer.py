"""What to do with a pretrained net and these very pictures: measured, chosen, and said why.

The classic rule knows four cases, by how many pictures there are and how far they lie from those
that the net was trained on (Stanford's CS231n, "Transfer learning"):

    few, alike      linear_probe: the classifier alone; a whole net would learn them by heart
    few, different  early_features: the last features speak of other things, earlier ones less so
    many, alike     lp_ft: there is enough to adjust everything, from a good classifier on
    many, different full: everything learns, from weights that are still better than chance

Pretrained weights come without their pictures, and nothing of the features of those is stored. So
the distance is measured by what it is asked for: probes on the averaged maps of each stage are
cross-validated on the training pictures alone. Features grow better from stage to stage on the
pictures a net was trained for, and begin to grow worse where it has specialised on what these
pictures do not show (Yosinski et al. 2014, arXiv:1411.1792). Pictures are `different` when an
earlier stage beats the last features by more than the standard error of the difference.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from striate.data.pipeline import Examples
from striate.data.splits import evenly, stratified_folds
from striate.errors import UsageError
from striate.registry import ModelSpec
from striate.train import probe
from striate.train.build import Start
from striate.train.frozen import SILENT, Body, Known
from striate.train.progress import Watcher
from striate.train.recipe import CLASSIFIER_ALONE, Recipe

MANY = 200  # pictures a class
FOLDS = 5
MOST = 3000  # training pictures that are measured on
RULE = {  # (many, different) -> strategy
    (False, False): "linear_probe",
    (False, True): "early_features",
    (True, False): "lp_ft",
    (True, True): "full",
}


@dataclasses.dataclass(frozen=True)
class Measured:
    """What the training pictures say of a pretrained net's stages.

    per_class: pictures a class, on average. right: layer -> bool [n], the pictures that a
    cross-validated probe on its averages names rightly; the last is the net's own features.
    """

    per_class: float
    right: Mapping[str, np.ndarray]

    @property
    def last(self) -> str:
        return list(self.right)[-1]

    @property
    def best_early(self) -> str | None:
        """The best stage before the last features; None where there is none before them."""
        early = list(self.right)[:-1]
        return max(early, key=lambda layer: self.right[layer].mean()) if early else None

    @property
    def many(self) -> bool:
        return self.per_class >= MANY

    @property
    def different(self) -> bool:
        """Whether an earlier stage beats the last features by more than the standard error."""
        if self.best_early is None:
            return False
        gain = self.right[self.best_early].astype(float) - self.right[self.last]
        return bool(gain.mean() > gain.std() / len(gain) ** 0.5)

    def accuracy(self, layer: str) -> float:
        return float(self.right[layer].mean())


def decided(
    recipe: Recipe,
    net: Any,
    start: Start,
    train: Examples,
    known: Known | None = None,
    watch: Watcher = SILENT,
) -> tuple[Recipe, str | None]:
    """The recipe with `auto` and the stage of `early_features` chosen, and why, in one line.

    net: whole, with its first weights; known: features that were computed before. Any other
    strategy stays as it is, unexplained.
    """
    strategy, spec = recipe.strategy, start.spec
    if strategy.name == "auto" and start.weights is None:
        reason = "auto: full, since the net begins with fresh weights"
        return recipe.changed(strategy={"name": "full", "reason": reason}), reason
    if strategy.name not in ("auto", "early_features"):
        return recipe, None
    if strategy.name == "early_features" and strategy.until:
        return _ending(recipe, strategy.until), None
    found = measured(recipe, net, spec, train, known, watch)
    if strategy.name == "auto":
        name, reason = chosen(found)
    elif found.best_early is None:
        raise UsageError(
            f"{spec.name}: early_features needs a net of several stages; see linear_probe"
        )
    else:
        name = "early_features"
        reason = f"early_features: the net ends at {found.best_early} ({_accuracies(found)})"
    settings: dict[str, Any] = {"name": name, "reason": reason}
    if name in CLASSIFIER_ALONE:
        settings["unfreeze_from"] = None  # of whatever else `auto` might have chosen
    recipe = recipe.changed(strategy=settings)
    return (_ending(recipe, found.best_early) if name == "early_features" else recipe), reason


def chosen(found: Measured) -> tuple[str, str]:
    """(strategy, why) by the rule of four cases."""
    name = RULE[found.many, found.different]
    return name, (
        f"auto: {name}, since there are {'many' if found.many else 'few'} pictures "
        f"({found.per_class:.0f} a class, many begins at {MANY}) and they are "
        f"{'unlike' if found.different else 'like'} those of the pretraining: "
        f"{_accuracies(found)}"
    )


def measured(
    recipe: Recipe,
    net: Any,
    spec: ModelSpec,
    train: Examples,
    known: Known | None = None,
    watch: Watcher = SILENT,
) -> Measured:
    """Cross-validate a probe on each stage of a net, on its training pictures alone."""
    names = {layer.name for layer in net.layers}
    last = spec.features if spec.features in names else spec.cam_layer
    layers = [*(name for name in spec.pyramid if name not in (spec.cam_layer, last)), last]
    classes = net.outputs[0].shape[-1]
    body = Body(net, layers, train.preprocess, known)
    chunk = train.some(evenly(len(train), MOST))
    features = body.vectors(chunk, recipe.batch_size, watch=watch)
    parts = np.split(features, np.cumsum(body.widths)[:-1], axis=1)
    probed = watch.steps(zip(layers, parts, strict=True), len(layers), "probing each stage")
    right = {
        layer: _named_rightly(x, chunk.labels, classes, recipe.probe.l2) for layer, x in probed
    }
    return Measured(len(train) / classes, right)


def _named_rightly(x: np.ndarray, labels: np.ndarray, classes: int, l2: float) -> np.ndarray:
    """bool [n]: whether a probe that did not see a picture names it rightly."""
    right = np.zeros(len(x), bool)
    alone = np.arange(len(x)).astype("S")  # no copies to keep together
    for train, val in stratified_folds(labels, alone, min(FOLDS, len(x)), seed=0):
        kernel, bias = probe.solve(x[train], labels[train], classes, l2=l2)
        right[val] = (x[val] @ kernel + bias).argmax(axis=1) == labels[val]
    return right


def _accuracies(found: Measured) -> str:
    """What probes on the best earlier stage and on the last features reach."""
    said = f"a probe on {found.last} names {found.accuracy(found.last):.1%} rightly"
    if found.best_early is None:
        return said
    return f"{said}, on {found.best_early} {found.accuracy(found.best_early):.1%}"


def _ending(recipe: Recipe, layer: str) -> Recipe:
    """The recipe of a net that ends at a layer."""
    options = {**recipe.model.options, "until": layer}
    return recipe.changed(model={"options": options}, strategy={"until": layer})
