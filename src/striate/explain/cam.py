"""Class activation maps: the classifier's weights, applied before the average instead of after.

Zhou, Khosla, Lapedriza, Oliva, Torralba, "Learning Deep Features for Discriminative Localization",
2015, arXiv:1512.04150.
"""

import numpy as np

from striate.errors import UsageError
from striate.explain.subject import Subject, as_array
from striate.lazy import keras


def cam(
    subject: Subject, pixels: np.ndarray, targets: np.ndarray, *, layer: str | None = None
) -> np.ndarray:
    """sum over k of w_k^c f_k, float32 [N, H, W]; its mean is the logit less the bias.

    Only for nets that average their last maps and classify the averages linearly; raises
    `UsageError` for others, which Grad-CAM explains.
    """
    name = subject.cam_layer(layer)
    kernel = as_array(_linear_after_average(subject, name).kernel)
    maps = as_array(subject.at(name, pixels))
    return upsampled(np.einsum("nhwk,kn->nhw", maps, kernel[:, targets]), pixels)


def upsampled(maps: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Maps [N, h, w] at the pictures' size, bilinearly."""
    size = pixels.shape[1:3]
    return as_array(keras.ops.image.resize(maps[..., None], size, interpolation="bilinear"))[..., 0]


def _linear_after_average(subject: Subject, name: str):
    layers = keras.layers
    x = subject.net.get_layer(name).output
    passed = []
    for layer in subject.net.layers[subject.net.layers.index(subject.net.get_layer(name)) + 1 :]:
        if layer.input is not x:
            break
        passed.append(layer)
        x = layer.output
    plain = [p for p in passed if not isinstance(p, layers.Dropout | layers.Identity)]
    kinds = (layers.GlobalAveragePooling2D, layers.Dense)
    if x is not subject.net.output or [type(p) for p in plain] != list(kinds):
        raise UsageError(
            f"cam: {subject.spec.name} does not classify the averages of {name!r} linearly; "
            "grad_cam explains every net"
        )
    return plain[-1]
