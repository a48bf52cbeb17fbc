"""What every filter sees in a picture, and which filters never see anything.

The first layers answer densely, later ones sparsely; a filter that is silent on every picture is
dead, and many of them mean that the learning rate was too high.
"""

import dataclasses

import numpy as np

from striate.explain.subject import Subject, as_array
from striate.lazy import keras
from striate.registry import deep_graphs


def activations(subject: Subject, pixels: np.ndarray, *, layer: str | None = None) -> np.ndarray:
    """The maps of one layer, float32 [N, h, w, K]; by default the spec's CAM layer."""
    return as_array(subject.at(subject.cam_layer(layer), pixels))


@dataclasses.dataclass(frozen=True)
class Activity:
    """How alive one rectified layer is.

    filters: how many it has; dead: which of them gave zero everywhere on every picture; active:
    the share of all its values that were above zero.
    """

    layer: str
    filters: int
    dead: tuple[int, ...]
    active: float


def activity(subject: Subject, pixels: np.ndarray, *, batch_size: int = 16) -> list[Activity]:
    """The activity of every rectified layer over some pictures, from the input on."""
    layers = [layer for layer in subject.net.operations if _is_rectified(layer)]
    if not layers:
        return []
    with deep_graphs():
        inside = keras.Model(subject.net.input, [layer.output for layer in layers])
    fired = [np.zeros(layer.output.shape[-1], np.int64) for layer in layers]
    values = np.zeros(len(layers))
    for i in range(0, len(pixels), batch_size):
        outputs = inside(subject.normalise(pixels[i : i + batch_size]), training=False)
        for n, output in enumerate(outputs if len(layers) > 1 else [outputs]):
            positive = as_array(output) > 0
            fired[n] += positive.reshape(-1, positive.shape[-1]).sum(axis=0)
            values[n] += positive.size
    return [
        Activity(
            layer.name, len(count), tuple(np.flatnonzero(count == 0).tolist()), count.sum() / total
        )
        for layer, count, total in zip(layers, fired, values, strict=True)
    ]


def _is_rectified(layer) -> bool:
    if isinstance(layer, keras.layers.ReLU):
        return True
    if not isinstance(layer, keras.layers.Layer):  # a function of keras.ops
        return type(layer).__name__ in ("Relu", "Relu6")
    return getattr(layer, "activation", None) in (keras.activations.relu, keras.activations.relu6)
