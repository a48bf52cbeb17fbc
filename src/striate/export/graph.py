"""The tensor contract as a TensorFlow function, from which every form is made."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from striate.artifact import Artifact


def image_spec(artifact: Artifact):
    """The TensorSpec of `image`: uint8 [N, H, W, C], or what else the net takes."""
    import tensorflow as tf

    spec = artifact.preprocess
    return tf.TensorSpec((None, *spec.shape), spec.dtype, name="image")


def scores_function(artifact: Artifact):
    """The tf.function image -> {"scores"}, in inference mode by its own word, not by a default."""
    import tensorflow as tf

    classifier = artifact.classifier

    @tf.function(input_signature=[image_spec(artifact)])
    def scores(image):
        return {"scores": classifier(image, training=False)}

    return scores


def layers_of(model, kind: type) -> list:
    """The layers of a kind in a Keras model, those of models within it too."""
    return [layer for layer in model._flatten_layers(include_self=False) if isinstance(layer, kind)]


@contextmanager
def replaced(layers: list, method: str, function: Callable[..., Any]) -> Iterator[None]:
    """Inside, a method of some Keras layers is `function(layer, ...)`, by which a form can be had
    that cannot be had of theirs. A graph traced inside keeps it."""
    for layer in layers:
        setattr(layer, method, partial(function, layer))
    try:
        yield
    finally:
        for layer in layers:
            delattr(layer, method)


def save(artifact: Artifact, functions: Mapping[str, Any], directory: Path | str) -> None:
    """Write a SavedModel whose signatures are `functions`, each a tf.function with a signature.

    It tracks the TensorFlow variables themselves: through Keras' layers the LiteRT converter does
    not see that nothing writes to them, and leaves a file that cannot run.
    """
    import tensorflow as tf

    module = tf.Module()
    module.weights = [variable.value for variable in artifact.classifier.variables]
    module.functions = list(functions.values())
    signatures = {name: f.get_concrete_function() for name, f in functions.items()}
    tf.saved_model.save(module, str(directory), signatures=signatures)
