"""From a recipe and a data set to what is trained: the net with its first weights, the pixels."""

import contextlib
import dataclasses
import random
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from striate.data import Dataset, Examples
from striate.errors import UsageError
from striate.lazy import keras
from striate.preprocess import (
    ClipPreprocess,
    Preprocess,
    Spec,
    VectorPreprocess,
    VoxelPreprocess,
    for_input,
    preset,
)
from striate.preprocess.whitening import METHODS, Whitening, check_size, moments
from striate.pretrained import Pretrained
from striate.registry import ModelSpec, check_weights, create, get_spec, open_weights
from striate.train import adopted
from striate.train.recipe import Augment, Model, Preprocessing, Probe, Recipe, one_net

GIB = 1 << 30
SAMPLE = 2000  # training pictures that `preprocess.normalise=data` looks at
WHITENING_SAMPLE = 50_000  # and those that whitening does, whose covariance has a million numbers


@dataclasses.dataclass(frozen=True)
class Start:
    """Where a net begins.

    whole: the net's spec; spec: the same up to where the net ends; options: of its builder;
    preprocess: picture -> input; weights: opened, or None for fresh ones.
    """

    whole: ModelSpec
    spec: ModelSpec
    options: dict[str, Any]
    preprocess: Spec
    weights: Pretrained | None


def spec_of(recipe: Recipe) -> ModelSpec:
    """What is known of a recipe's net: the registry's, or one that was adopted."""
    model = recipe.model
    if not adopted.is_adopted(model.name):
        return get_spec(model.name)
    if model.weights is None or not Path(model.weights).is_dir():
        raise UsageError(
            f"model.weights: expected the artifact in which {model.name} is, got {model.weights}"
        )
    return adopted.spec_of(one_net(model.weights))


def check_beginning(recipe: Recipe) -> None:
    """Refuse a net, or weights of it, that there are not, before anything is read."""
    spec = spec_of(recipe)
    if recipe.model.weights is not None:
        check_weights(spec, recipe.model.weights)


def start_of(recipe: Recipe) -> Start:
    """The net that a recipe begins with; it is not built yet.

    Under a new classifier, pretrained weights get the builder options that their spec recommends.
    Raises `UsageError` for a net, weights or a size that does not fit.
    """
    model, spec = recipe.model, spec_of(recipe)
    if "output" in spec.exceptions:
        reason = spec.exceptions["output"]
        raise UsageError(f"model.name: expected a net that classifies, got {spec.name} ({reason})")
    if model.weights is None:
        base = for_input(spec.kind, _shape(recipe, spec, spec.input_shape), spec.preprocess)
        cut = _cut(spec, model.options)
        return Start(spec, cut, dict(model.options), _adjusted(base, recipe), None)
    opened, options, base = _opened(model, spec)
    if recipe.preprocess.normalise is not None:
        base = _unwhitened(base)
    base = _resized(base, _shape(recipe, spec, base.shape))
    options = {**spec.finetune_options, **options, **model.options}
    return Start(spec, _cut(spec, options), options, _adjusted(base, recipe), opened)


def _opened(model: Model, spec: ModelSpec) -> tuple[Pretrained, Mapping[str, Any], Spec]:
    """The weights of a recipe, the builder options that they need, and the preprocessing that they
    were trained with."""
    if not Path(model.weights).is_dir():
        opened = open_weights(spec.name, model.weights, **model.options)
        trained_at = opened.input_shape or spec.input_shape
        base = for_input(spec.kind, trained_at, opened.preprocess or spec.preprocess)
        return opened, opened.options, base
    made = one_net(model.weights)
    name = made.manifest.model["name"]
    if name != model.name:
        raise UsageError(
            f"model.weights: expected weights of {model.name}, got those of {name} in "
            f"{model.weights}; set model.name to fit"
        )
    if adopted.is_adopted(name):
        opened = adopted.weights_of(made)
    else:
        opened = open_weights(name, made.file("model.keras"))
    return opened, made.manifest.model["options"], made.preprocess


def with_options(start: Start, options: dict[str, Any]) -> Start:
    """The same start with other builder options."""
    return dataclasses.replace(start, spec=_cut(start.whole, options), options=options)


def _cut(spec: ModelSpec, options: dict[str, Any]) -> ModelSpec:
    """The spec of the net that `options` make, which may end early."""
    return spec.until(options["until"]) if options.get("until") else spec


# What a recipe may say of things that are no pictures; the rest of these groups means pictures.
_SUITED = {
    "clip": {
        "augment": set(Augment.model_fields) - {"quarter_turns"},
        "preprocess": set(Preprocessing.model_fields),
        "probe": set(Probe.model_fields),
    },
    "voxels": {
        "augment": {"flip", "translate", "quarter_turns", "mixup", "mix_chance"},
        "preprocess": {"normalise"},
        "probe": set(Probe.model_fields),
        "adversarial": set(),
    },
    "vector": {
        "augment": {"mixup", "mix_chance"},
        "preprocess": {"normalise"},
        "probe": {"l2"},
        "adversarial": set(),
    },
}
_SUITED["picture"] = _SUITED["clip"]


def suited(recipe: Recipe) -> tuple[Recipe, list[str]]:
    """The recipe without what its net's kind of input cannot have, and the keys that this is."""
    suits = _SUITED[spec_of(recipe).kind]
    left_out = [
        (group, key)
        for group, keys in suits.items()
        for key, value in getattr(recipe, group)
        if key not in keys and value != type(getattr(recipe, group)).model_fields[key].default
    ]
    for group, key in left_out:
        default = type(getattr(recipe, group)).model_fields[key].default
        recipe = recipe.changed(**{group: {key: default}})
    return recipe, [f"{group}.{key}" for group, key in left_out]


def resolved(recipe: Recipe, start: Start) -> Recipe:
    """The recipe with every choice made that it left open."""
    freeze_bn = recipe.strategy.freeze_bn
    deterministic = recipe.deterministic
    preprocess = start.preprocess
    *sides, channels = preprocess.shape
    return recipe.changed(
        model={
            "options": start.options,
            "size": sides or None,
            "channels": channels if sides else None,
        },
        strategy={"freeze_bn": start.weights is not None if freeze_bn is None else freeze_bn},
        deterministic=not _has_accelerator() if deterministic is None else deterministic,
    )


def build(start: Start, recipe: Recipe, classes: int) -> Any:
    """The net: float pixels -> float32 logits [N, classes]; seeded, so always the same."""
    keras.utils.set_random_seed(recipe.seed)
    with _precision(recipe.precision):
        return create(
            start.whole,
            num_classes=classes,
            input_shape=start.preprocess.shape,
            weights=start.weights,
            **start.options,
        )


def to_run(net: Any, start: Start, classes: int) -> tuple[Any, dict[str, Any]]:
    """A trained net as it runs, and the options of `create_model` that build one.

    It is in float32, nothing in it is frozen, and what only training needs is gone: heads beside
    the answer, inputs that learned groups have given up.
    """
    options = {k: v for k, v in start.options.items() if k != "training_heads"}
    with _precision("float32"):  # also where the user's own is another
        copy = create(
            start.whole, num_classes=classes, input_shape=start.preprocess.shape, **options
        )
        for layer in copy.layers:
            layer.set_weights(net.get_layer(layer.name).get_weights())
        if start.spec.convert is None or options.get("converted"):
            return copy, options
        return start.spec.convert(copy, **options), {**options, "converted": True}


def measured(start: Start, recipe: Recipe, dataset: Dataset, train: np.ndarray) -> Start:
    """With what `preprocess.normalise` measures on training pictures, where it measures."""
    plain = start.preprocess
    if isinstance(plain, VectorPreprocess):
        keeps = start.weights is not None and recipe.preprocess.normalise is None
        return start if keeps else _standardised(start, dataset, train)
    if recipe.preprocess.normalise in METHODS:
        preprocess = _whitened(plain, recipe, dataset, train)
        return dataclasses.replace(start, preprocess=preprocess)
    if recipe.preprocess.normalise != "data":
        return start
    every = max(1, len(train) // SAMPLE)
    pixels = dataset.examples(plain, train[::every])
    channels = plain.shape[-1]
    levels = (x.reshape(-1, channels) for x, _ in pixels.batches(64))
    mean, covariance = moments(levels, channels)
    spread = np.sqrt(np.diag(covariance))
    preprocess = _with_levels(plain, np.round(mean, 3), np.round(spread, 3))
    return dataclasses.replace(start, preprocess=preprocess)


def _with_levels(spec: Spec, mean: np.ndarray, spread: np.ndarray) -> Spec:
    """The specification that takes the mean of each channel for 0 and its spread for 1."""
    if isinstance(spec, ClipPreprocess):
        return dataclasses.replace(spec, frame=_with_levels(spec.frame, mean, spread))
    if isinstance(spec, Preprocess) and spec.order == "bgr":
        mean, spread = mean[::-1], spread[::-1]
    scale = 1 / np.maximum(spread, 1.0)
    return dataclasses.replace(spec, mean=tuple(mean.tolist()), scale=tuple(scale.tolist()))


def _whitened(spec: Spec, recipe: Recipe, dataset: Dataset, train: np.ndarray) -> Spec:
    """The specification with the mean image, or a whitening, of the training pictures."""
    frame = spec.frame if isinstance(spec, ClipPreprocess) else spec
    method, numbers = recipe.preprocess.normalise, int(np.prod(frame.shape))
    check_size(method, numbers)
    every = max(1, len(train) // WHITENING_SAMPLE)
    cache = int(recipe.data.cache_gb * GIB)
    pictures = dataset.examples(spec, train[::every], cache_bytes=cache)
    whitening = Whitening.measured(method, (x for x, _ in pictures.batches(256)), numbers)
    frame = dataclasses.replace(frame, whitening=whitening)
    if isinstance(spec, ClipPreprocess):
        return dataclasses.replace(spec, frame=frame)
    return frame


def _standardised(start: Start, dataset: Dataset, train: np.ndarray) -> Start:
    """As many numbers as a row has, each with the mean and spread of the training rows.

    A number that never changes keeps its spread of 0 for 1: there is nothing in it to enlarge.
    """
    dataset.check_kind(start.preprocess)
    rows = dataset.images[train].astype(np.float64)
    mean, spread = rows.mean(axis=0), rows.std(axis=0)
    scale = 1 / np.where(spread > 0, spread, 1.0)
    measured = VectorPreprocess(rows.shape[1], tuple(mean.tolist()), tuple(scale.tolist()))
    return dataclasses.replace(start, preprocess=measured)


def pixels_of(
    dataset: Dataset, start: Start, recipe: Recipe, which: np.ndarray | None
) -> Examples | None:
    """The decoded pictures at some indices; None for none."""
    if which is None or not len(which):
        return None
    cache = int(recipe.data.cache_gb * GIB)
    return dataset.examples(start.preprocess, which, cache_bytes=cache)


@contextlib.contextmanager
def own_randomness() -> Iterator[None]:
    """Inside, seeds are set and TensorFlow may be made deterministic; afterwards Python and NumPy
    draw on from where they stood, and TensorFlow is as fast as it was."""
    python, numpy, exact = random.getstate(), np.random.get_state(), _is_deterministic()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        if _is_deterministic() and not exact:
            _determinism().disable_op_determinism()


def _is_deterministic() -> bool:
    """Whether TensorFlow is asked for the same bits every time; it is not loaded for this."""
    return "tensorflow" in sys.modules and _determinism().is_op_determinism_enabled()


def _determinism() -> Any:
    """What can also undo it, which TensorFlow's public names cannot."""
    return import_module("tensorflow.python.framework.config")


def make_deterministic(recipe: Recipe) -> None:
    """Ask TensorFlow for the same bits every time; JAX gives them on a CPU anyway."""
    if recipe.deterministic and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def _shape(recipe: Recipe, spec: ModelSpec, default: tuple[int, ...]) -> tuple[int, ...]:
    """The input's shape: the default, with what `model.size` and `model.channels` change in it."""
    *sides, channels = default
    model = recipe.model
    if spec.kind == "vector" and (model.size or model.channels):
        raise UsageError(f"model.size: {spec.name} takes as many numbers as a row of the data has")
    given = model.size or ()
    if isinstance(given, int):
        given = (given,) * (3 if spec.kind == "voxels" else 2)
    if len(given) > len(sides):
        raise UsageError(
            f"model.size: expected at most {len(sides)} sides for {spec.name}, got {list(given)}"
        )
    kept = sides[: len(sides) - len(given)]
    return (*kept, *given, model.channels or channels)


def _unwhitened(base: Spec) -> Spec:
    """Without what was measured of every number of the pictures before."""
    if isinstance(base, ClipPreprocess):
        return dataclasses.replace(base, frame=_unwhitened(base.frame))
    return dataclasses.replace(base, whitening=None) if isinstance(base, Preprocess) else base


def _resized(base: Spec, shape: tuple[int, ...]) -> Spec:
    """Another input size; a grey net takes the average over the colours."""
    if base.shape == shape:
        return base
    if isinstance(base, ClipPreprocess):
        return dataclasses.replace(base, frames=shape[0], frame=_resized(base.frame, shape[1:]))
    if isinstance(base, VoxelPreprocess):
        mean, scale = (
            x if len(x) == shape[3] else x[:1] * shape[3] for x in (base.mean, base.scale)
        )
        return VoxelPreprocess(*shape, mean, scale)
    if base.whitening is not None:
        method, size = base.whitening.method, list(base.shape)
        raise UsageError(
            f"model.size: expected {size}, at which the {method} of the weights was measured, got "
            f"{list(shape)}; set preprocess.normalise={method} to measure it anew"
        )
    height, width, channels = shape
    changes: dict[str, Any] = {"height": height, "width": width}
    if channels == 1 and base.channels == 3:
        changes |= {"channels": 1, "order": "rgb"}
        changes |= {"mean": (float(np.mean(base.mean)),), "scale": (float(np.mean(base.scale)),)}
    elif channels != base.channels:
        changes |= {
            "channels": channels,
            "mean": base.mean * channels,
            "scale": base.scale * channels,
        }
    return dataclasses.replace(base, **changes)


def _adjusted(base: Spec, recipe: Recipe) -> Spec:
    wanted = recipe.preprocess
    if isinstance(base, ClipPreprocess):
        return dataclasses.replace(base, frame=_adjusted(base.frame, recipe))
    if wanted.normalise in (None, "data") and not isinstance(base, Preprocess):
        return base
    if isinstance(base, VectorPreprocess):
        raise UsageError(
            f"preprocess.normalise: expected data, for rows of numbers, got {wanted.normalise}"
        )
    if isinstance(base, VoxelPreprocess):
        if wanted.normalise in METHODS:
            raise UsageError(
                f"preprocess.normalise: expected data or a preset, for voxels, "
                f"got {wanted.normalise}"
            )
        return for_input("voxels", base.shape, wanted.normalise)
    if wanted.normalise not in (None, "data"):
        named = preset("unit" if wanted.normalise in METHODS else wanted.normalise, *base.shape)
        base = dataclasses.replace(base, order=named.order, mean=named.mean, scale=named.scale)
    changes = {"fit": wanted.fit, "crop": wanted.crop, "interpolation": wanted.interpolation}
    return dataclasses.replace(base, **{k: v for k, v in changes.items() if v is not None})


def _has_accelerator() -> bool:
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return bool(tf.config.list_physical_devices("GPU"))
    if keras.backend.backend() == "jax":
        import jax

        return jax.default_backend() != "cpu"
    return False


@contextlib.contextmanager
def _precision(policy: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
