"""What a layer still knows of a picture: another one with the same features.

Mahendran, Vedaldi, "Understanding Deep Image Representations by Inverting Them", 2014,
arXiv:1412.0035: argmin over x of |Phi(x) - Phi0|^2 / |Phi0|^2 + R(x), R of total variation and an
alpha norm. With several layers at once it is the feature loss of Johnson, Alahi, Fei-Fei,
"Perceptual Losses for Real-Time Style Transfer and Super-Resolution", 2016, arXiv:1603.08155.
"""

from collections.abc import Callable, Sequence

import numpy as np

from striate.explain.descent import alpha_norm, descend, grey_noise, total_variation, unheard
from striate.explain.subject import Subject, Tensor, as_array
from striate.lazy import keras


def invert(
    subject: Subject,
    pixels: np.ndarray,
    *,
    layers: str | Sequence[str] | None = None,
    steps: int = 300,
    rate: float = 6.0,
    smooth: float = 1e-5,
    bound: float = 1e-9,
    seed: int = 0,
    on_progress: Callable[[int, int], None] = unheard,
) -> np.ndarray:
    """Pictures float32 [N, H, W, C], from grey noise, with the features of `pixels`.

    layers: whose features; by default the spec's CAM layer; of several, the losses add up.
    smooth: weight of the total variation; bound: of the alpha norm, both of the picture centred on
    0 with the range 1. on_progress: see `descend`.
    """
    names = [layers] if isinstance(layers, str) else list(layers or [subject.cam_layer()])
    wanted = {name: as_array(subject.at(name, pixels)) for name in names}

    def loss(x: Tensor) -> Tensor:
        total = sum(feature_loss(subject.at(name, x), wanted[name]) for name in names)
        centred = x / 255 - 0.5
        return total + smooth * total_variation(centred) + bound * alpha_norm(centred)

    start = grey_noise(subject, len(pixels), seed=seed)
    return descend(loss, start, steps=steps, rate=rate, on_progress=on_progress)


def feature_loss(found: Tensor, wanted: np.ndarray) -> Tensor:
    """|Phi(x) - Phi0|^2 / |Phi0|^2, float32 [N]."""
    axes = tuple(range(1, wanted.ndim))
    size = np.maximum((wanted**2).sum(axis=axes), 1e-12)
    return keras.ops.sum((found - wanted) ** 2, axis=axes) / size
