"""The graphs around a net: one that is trained, one that predicts; both begin with the pixels."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from striate.data.pipeline import Examples
from striate.lazy import keras
from striate.preprocess import Spec
from striate.train import devices
from striate.train.augment import augmentation, mixing
from striate.train.optimize import cross_entropy, make_optimizer
from striate.train.recipe import Recipe


def training_graph(net: Any, recipe: Recipe, preprocess: Spec) -> Any:
    """uint8 pixels -> augmentation -> normalisation -> net: what is trained, and never saved."""
    from striate.train.adversarial import Attack
    from striate.train.average import Average
    from striate.train.trainer import Trainer

    image = keras.Input(preprocess.shape, dtype=preprocess.dtype, name="image")
    x = image
    for layer in augmentation(recipe.augment, recipe.seed, preprocess):
        x = layer(x)
    mix = mixing(recipe.augment, recipe.seed)
    if mix is not None:
        x, share = mix(x)
    logits = _learning(net, recipe)(preprocess.layer()(x))
    outputs = logits if mix is None else [logits, share]
    attack, back = None, None
    if recipe.adversarial.epsilon:
        attack, back = Attack(recipe.adversarial, recipe.seed), _back(net, preprocess)
        outputs = [logits, *([] if mix is None else [share]), keras.ops.cast(x, "float32")]
    penalty = {"l1": recipe.penalty.l1, "l2": recipe.penalty.l2}
    trainer = Trainer(image, outputs, **penalty, attack=attack, back=back, name="trainer")
    if recipe.optimizer.ema:
        trainer.keep(Average(net, recipe.optimizer.ema, recipe.optimizer.accumulate))
    return trainer


def _learning(net: Any, recipe: Recipe) -> Any:
    """The net, or the graph of its layers that rounds as the recipe says."""
    if recipe.quantise == "none":
        return net
    from striate.train.quantise import rounded

    return rounded(net)


def prediction_graph(net: Any, preprocess: Spec) -> Any:
    """uint8 pixels -> normalisation -> net, for predictions."""
    image = keras.Input(preprocess.shape, dtype=preprocess.dtype, name="image")
    graph = keras.Model(image, net(preprocess.layer()(image)), name="predictor")
    graph.compile(jit_compile=jit())
    return graph


def _back(net: Any, preprocess: Spec) -> Any:
    """float32 pixels on 0 to 255 -> normalisation -> net: what an attack is aimed at."""
    pixels = keras.Input(preprocess.shape, name="pixels")
    return keras.Model(pixels, net(preprocess.layer()(pixels)), name="back")


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
    trainer.compile(
        optimizer=make_optimizer(recipe, variables, steps=steps, epochs=epochs, rates=rates),
        loss=cross_entropy(recipe.label_smoothing, weights),
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
    answer = graph.predict_on_batch(images)
    logits = answer[0] if isinstance(answer, list | tuple) else answer  # of a graph that mixes
    return np.asarray(logits)[:n].astype(np.float32)


def augmented(images: np.ndarray, layers: list[Any]) -> np.ndarray:
    """One random version of each picture, uint8 again."""
    x = keras.ops.cast(images, "float32")
    for layer in layers:
        x = layer(x, training=True)
    changed = np.asarray(keras.ops.convert_to_numpy(x))
    return np.clip(np.rint(changed), 0, 255).astype(np.uint8)
