"""From a recipe and a data set to what is trained: the net with its first weights, the pixels."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from striate import artifact
from striate.data import Dataset, Examples
from striate.errors import UsageError
from striate.lazy import keras
from striate.preprocess import Preprocess, preset
from striate.pretrained import Pretrained
from striate.registry import ModelSpec, create_model, get_spec, open_weights
from striate.train.recipe import Recipe

GIB = 1 << 30
SAMPLE = 2000  # training pictures that `preprocess.normalise=data` looks at


@dataclasses.dataclass(frozen=True)
class Start:
    """Where a net begins.

    spec: the registry's; options: of its builder; preprocess: picture -> input; weights: opened, or
    None for fresh ones.
    """

    spec: ModelSpec
    options: dict[str, Any]
    preprocess: Preprocess
    weights: Pretrained | None


def start_of(recipe: Recipe) -> Start:
    """The net that a recipe begins with; it is not built yet.

    Under a new classifier, pretrained weights get the builder options that their spec recommends.
    Raises `UsageError` for a net, weights or a size that does not fit.
    """
    model = recipe.model
    spec = get_spec(model.name)
    if len(spec.input_shape) != 3 or "output" in spec.exceptions:
        reason = spec.exceptions.get("output") or f"its input is {spec.input_shape}"
        raise UsageError(
            f"model.name: expected a net that classifies pictures, got {spec.name} ({reason})"
        )
    if model.weights is None:
        base = preset(spec.preprocess, *_shape(recipe, spec.input_shape))
        return Start(spec, dict(model.options), _adjusted(base, recipe), None)
    if Path(model.weights).is_dir():
        made = artifact.load(model.weights)
        if made.manifest.model["name"] != spec.name:
            raise UsageError(
                f"model.weights: {model.weights} is a {made.manifest.model['name']}, "
                f"expected a {spec.name}; set model.name to fit"
            )
        opened = open_weights(spec.name, made.file("model.keras"))
        options, base = made.manifest.model["options"], made.preprocess
    else:
        opened = open_weights(spec.name, model.weights)
        options = opened.options
        trained_at = opened.input_shape or spec.input_shape
        base = preset(opened.preprocess or spec.preprocess, *trained_at)
    base = _resized(base, _shape(recipe, base.shape))
    options = {**options, **spec.finetune_options, **model.options}
    return Start(spec, options, _adjusted(base, recipe), opened)


def resolved(recipe: Recipe, start: Start) -> Recipe:
    """The recipe with every choice made that it left open."""
    freeze_bn = recipe.strategy.freeze_bn
    deterministic = recipe.deterministic
    preprocess = start.preprocess
    return recipe.changed(
        model={
            "options": start.options,
            "size": list(preprocess.shape[:2]),
            "channels": preprocess.channels,
        },
        strategy={"freeze_bn": start.weights is not None if freeze_bn is None else freeze_bn},
        deterministic=not _has_accelerator() if deterministic is None else deterministic,
    )


def build(start: Start, recipe: Recipe, classes: int) -> Any:
    """The net: float pixels -> float32 logits [N, classes]; seeded, so always the same."""
    keras.utils.set_random_seed(recipe.seed)
    with _precision(recipe.precision):
        return create_model(
            start.spec.name,
            num_classes=classes,
            input_shape=start.preprocess.shape,
            weights=start.weights,
            **start.options,
        )


def clean_copy(net: Any, start: Start, classes: int) -> Any:
    """The same weights in a net as the registry builds it: float32, nothing frozen."""
    copy = create_model(
        start.spec.name,
        num_classes=classes,
        input_shape=start.preprocess.shape,
        **start.options,
    )
    copy.set_weights(net.get_weights())
    return copy


def measured(start: Start, recipe: Recipe, dataset: Dataset, train: np.ndarray) -> Start:
    """With `preprocess.normalise=data`, the mean and spread of some training pictures."""
    if recipe.preprocess.normalise != "data":
        return start
    plain = start.preprocess
    every = max(1, len(train) // SAMPLE)
    pixels = dataset.examples(plain, train[::every])
    levels = np.concatenate([x.reshape(-1, plain.channels) for x, _ in pixels.batches(64)])
    mean, spread = levels.mean(axis=0, dtype=np.float64), levels.std(axis=0, dtype=np.float64)
    step = slice(None, None, -1 if plain.order == "bgr" else 1)
    preprocess = dataclasses.replace(
        plain,
        mean=tuple(np.round(mean[step], 3).tolist()),
        scale=tuple((1 / np.maximum(np.round(spread[step], 3), 1.0)).tolist()),
    )
    return dataclasses.replace(start, preprocess=preprocess)


def pixels_of(
    dataset: Dataset, start: Start, recipe: Recipe, which: np.ndarray | None
) -> Examples | None:
    """The decoded pictures at some indices; None for none."""
    if which is None or not len(which):
        return None
    cache = int(recipe.data.cache_gb * GIB)
    return dataset.examples(start.preprocess, which, cache_bytes=cache)


def make_deterministic(recipe: Recipe) -> None:
    """Ask TensorFlow for the same bits every time; JAX gives them on a CPU anyway."""
    if recipe.deterministic and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def _shape(recipe: Recipe, default: tuple[int, ...]) -> tuple[int, int, int]:
    height, width, channels = default
    size = recipe.model.size
    if size is not None:
        height, width = (size, size) if isinstance(size, int) else size
    return height, width, recipe.model.channels or channels


def _resized(base: Preprocess, shape: tuple[int, int, int]) -> Preprocess:
    """Another input size; a grey net takes the average over the colours."""
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


def _adjusted(base: Preprocess, recipe: Recipe) -> Preprocess:
    wanted = recipe.preprocess
    if wanted.normalise not in (None, "data"):
        named = preset(wanted.normalise, *base.shape)
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
