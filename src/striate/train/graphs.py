"""The graphs around a net: one that is trained, one that predicts; both begin with the pixels."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from striate.artifact import answer_of
from striate.data.pipeline import Examples
from striate.errors import UsageError
from striate.lazy import keras
from striate.preprocess import Spec
from striate.registry import TrainingHeads
from striate.train import devices
from striate.train.augment import augmentation, mixing
from striate.train.optimize import cross_entropy, make_optimizer, squared_hinge
from striate.train.recipe import Recipe


def training_graph(
    net: Any, recipe: Recipe, preprocess: Spec, heads: TrainingHeads | None = None
) -> Any:
    """uint8 pixels -> augmentation -> normalisation -> net: what is trained, and never saved.

    heads: how the net's further outputs are learnt, where it has such.
    """
    from striate.train.adversarial import Attack
    from striate.train.average import Average
    from striate.train.trainer import Trainer

    image = keras.Input(preprocess.shape, dtype=preprocess.dtype, name="image")
    x = image
    for layer in augmentation(recipe.augment, recipe.seed, preprocess):
        x = layer(x)
    outputs = {}
    mix = mixing(recipe.augment, recipe.seed)
    if mix is not None:
        x, outputs["share"] = mix(x)
    learning = _learning(net, recipe)
    outputs["logits"], *further = _answers(learning(preprocess.layer()(x)))
    if further:
        outputs["heads"] = further
    attack, back = None, None
    if recipe.adversarial.epsilon:
        attack, back = Attack(recipe.adversarial, recipe.seed), _back(learning, preprocess)
        outputs["pixels"] = keras.ops.cast(x, "float32")
    trainer = Trainer(
        image,
        outputs,
        penalty=recipe.penalty,
        heads=heads if further else None,
        grouping=_grouping(net, recipe),
        attack=attack,
        back=back,
        name="trainer",
    )
    if recipe.optimizer.ema:
        trainer.keep(Average(net, recipe.optimizer.ema, recipe.optimizer.accumulate))
    return trainer


def _learning(net: Any, recipe: Recipe) -> Any:
    """The net, or the graph of its layers that rounds as the recipe says."""
    if recipe.quantise == "none":
        return _fast(net)
    from striate.train.quantise import rounded

    return rounded(net)


def _fast(net: Any) -> Any:
    """The net where XLA compiles it, else a graph of its layers that needs no XLA to be fast."""
    if jit():
        return net
    from striate.train.fused import fused

    return fused(net)


def _grouping(net: Any, recipe: Recipe) -> list[Any]:
    """The net's learned group convolutions; `UsageError` where a penalty is for what it has not."""
    from striate.layers import LearnedGroupConv

    found = [layer for layer in net.layers if isinstance(layer, LearnedGroupConv)]
    if recipe.penalty.group_lasso and not found:
        raise UsageError(
            f"penalty.group_lasso: expected a net with learned group convolutions, such as "
            f"condensenet86_cifar, got {net.name}"
        )
    return found


def _answers(outputs: Any) -> list[Any]:
    """The logits of a net, and those of its training heads."""
    return outputs if isinstance(outputs, list) else [outputs]


def prediction_graph(net: Any, preprocess: Spec) -> Any:
    """uint8 pixels -> normalisation -> net, for predictions."""
    image = keras.Input(preprocess.shape, dtype=preprocess.dtype, name="image")
    graph = keras.Model(image, _fast(net)(preprocess.layer()(image)), name="predictor")
    graph.compile(jit_compile=jit())
    return graph


def _back(net: Any, preprocess: Spec) -> Any:
    """float32 pixels on 0 to 255 -> normalisation -> net: what an attack is aimed at."""
    pixels = keras.Input(preprocess.shape, name="pixels")
    return keras.Model(pixels, _answers(net(preprocess.layer()(pixels)))[0], name="back")


def compile_graph(
    trainer: Any,
    recipe: Recipe,
    *,
    steps: int,
    epochs: int,
    weights: np.ndarray | None = None,
    rates: Sequence[float] | None = None,
) -> None:
    """Give a training graph its loss and optimiser, and make the optimiser's variables.

    weights: what a picture of each class counts, None for 1. rates: of each trainable variable, as
    a share of the learning rate.
    """
    variables = trainer.trainable_variables
    optimizer = make_optimizer(recipe, variables, steps=steps, epochs=epochs, rates=rates)
    if recipe.precision == "mixed_float16":  # Keras sees to it only where the whole graph is half
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    loss = cross_entropy(recipe.label_smoothing, weights)
    by_hinge = trainer.heads and trainer.heads.loss == "squared_hinge"
    trainer.loss_of_heads = squared_hinge(weights) if by_hinge else loss
    trainer.compile(
        optimizer=optimizer,
        loss=loss,
        # weighted by the parts of mixed pictures
        weighted_metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        jit_compile=jit(),
    )
    trainer.optimizer.build(variables)


def jit() -> bool | str:
    """Whether Keras should compile with XLA: it makes TensorFlow on a CPU many times slower."""
    if keras.backend.backend() != "tensorflow":
        return "auto"
    import tensorflow as tf

    return "auto" if tf.config.list_physical_devices("GPU") else False


def logits_of(graph: Any, examples: Examples, batch_size: int) -> np.ndarray:
    """float32 logits [N, classes] of all examples, in inference mode."""
    batch_size = min(batch_size, len(examples))
    batches = examples.batches(batch_size)
    return np.concatenate([predict(graph, images, batch_size) for images, _ in batches])


def predict(graph: Any, images: np.ndarray, batch_size: int) -> np.ndarray:
    """One batch, filled up to full size: a compiled backend compiles once for each size."""
    n, batch_size = len(images), devices.shared(batch_size)
    if n < batch_size:
        images = np.concatenate([images, np.repeat(images[-1:], batch_size - n, axis=0)])
    answer = answer_of(graph, images)
    logits = answer["logits"] if isinstance(answer, dict) else answer  # of a graph that trains
    return np.asarray(logits)[:n].astype(np.float32)


BLOCK = 32  # neighbours in a data set that are changed at once


def augmented(
    images: np.ndarray,
    indices: np.ndarray,
    *,
    layers: Callable[..., list[Any]],
    seed: tuple[int, ...],
) -> np.ndarray:
    """One random version of each picture, uint8 again.

    It depends on the seed and on where the picture stands in its data set alone, so that a run
    which goes on after a kill, with fewer pictures left, draws the same. layers: seed -> the
    changes, which draw for a whole block of neighbours, whichever of them are wanted.
    """
    changed = np.empty_like(images)
    blocks, places = indices // BLOCK, indices % BLOCK
    for block in np.unique(blocks):
        here = blocks == block
        neighbours = np.zeros((BLOCK, *images.shape[1:]), images.dtype)
        neighbours[places[here]] = images[here]
        x = keras.ops.cast(neighbours, "float32")
        (drawn,) = np.random.SeedSequence([*seed, int(block)]).generate_state(1)
        for layer in layers(seed=int(drawn) >> 2):
            x = layer(x, training=True)
        levels = np.asarray(keras.ops.convert_to_numpy(x))[places[here]]
        changed[here] = np.clip(np.rint(levels), 0, 255)
    return changed
