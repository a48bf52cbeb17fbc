"""Pictures that a net with signs inside cannot be held to: rounding alone decides their scores.

The sign of a number within rounding of 0 may fall either way, in Keras as in any other runtime, and
one bit of many then moves a score by far more than rounding does. Such a picture proves nothing
about a form, so it is not compared.
"""

from typing import Any

import numpy as np

from striate.artifact import Artifact
from striate.errors import DisagreementError
from striate.lazy import keras
from striate.runtime import FLOAT_TOLERANCE

ROUNDING = 1e-6  # relative: what summing in another order changes in float32, generously
DRAWS = 4


def decided(
    artifact: Artifact, images: np.ndarray, scores: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The pictures, and their scores, that Keras itself keeps when the input is merely rounded.

    All of them, for a net without signs. Raises `DisagreementError` when fewer than a quarter are
    left: what such a net answers is up to rounding.
    """
    net = artifact.model
    if not takes_signs(net):
        return images, scores
    normalised = np.asarray(artifact.preprocess.layer()(images))
    kept = ~wavers(net, normalised, artifact.manifest.temperature)
    if 4 * kept.sum() < len(images):
        raise DisagreementError(
            f"{artifact.path}: rounding alone changes Keras' own scores of "
            f"{(~kept).sum()} of {len(images)} pictures, so that no form can be held to "
            "them; train the net first, or give pictures of the kind that it knows"
        )
    return images[kept], scores[kept]


def takes_signs(net: Any) -> bool:
    """Whether a layer of the net sees nothing but the signs of its inputs."""
    return any(getattr(layer, "binary_inputs", False) for layer in net.layers)


def wavers(net: Any, inputs: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """bool [N]: whether scores move by more than `FLOAT_TOLERANCE` under random rounding."""
    random = np.random.default_rng(0)
    expected = _scores(net, inputs, temperature)
    moved = np.zeros(len(inputs), bool)
    for _ in range(DRAWS):
        rounded = inputs * (1 + ROUNDING * random.uniform(-1, 1, inputs.shape))
        found = _scores(net, rounded.astype(np.float32), temperature)
        moved |= np.abs(found - expected).max(axis=-1) > FLOAT_TOLERANCE
    return moved


def _scores(net: Any, inputs: np.ndarray, temperature: float) -> np.ndarray:
    logits = np.concatenate([np.asarray(net(x[None], training=False)) for x in inputs])
    return np.asarray(keras.ops.softmax(logits / temperature))
