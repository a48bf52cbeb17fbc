"""The tensor contract as a TensorFlow function, from which every form is made."""

from collections.abc import Mapping
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
