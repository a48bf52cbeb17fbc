"""The picture that a class likes best: argmax over I of S_c(I) - lambda |I|^2.

Simonyan, Vedaldi, Zisserman, "Deep Inside Convolutional Networks", 2013, arXiv:1312.6034.
"""

from collections.abc import Callable

import numpy as np

from striate.explain.descent import descend, grey_noise, total_variation, unheard
from striate.explain.subject import Subject, Tensor, of_targets
from striate.lazy import keras


def maximise(
    subject: Subject,
    targets: np.ndarray,
    *,
    layer: str | None = None,
    steps: int = 200,
    rate: float = 6.0,
    l2: float = 1e-3,
    smooth: float = 2e-3,
    jitter: int = 8,
    seed: int = 0,
    on_progress: Callable[[int, int], None] = unheard,
) -> np.ndarray:
    """Pictures float32 [N, H, W, C] that raise the logits of targets, from grey noise.

    layer: raise the mean of one map (or the value of one unit) of this layer instead, of which
    targets are the numbers. l2: weight of the penalty on the picture, centred on 0 with the range
    1; smooth: on its total variation, without which the net is as happy with noise. jitter,
    on_progress: see `descend`.
    """

    def loss(pixels: Tensor) -> Tensor:
        centred = pixels / 255 - 0.5
        penalty = l2 * keras.ops.sum(centred**2, axis=(1, 2, 3)) + smooth * total_variation(centred)
        return penalty - excitement(subject, layer, pixels, targets)

    start = grey_noise(subject, len(targets), seed=seed)
    how = {"steps": steps, "rate": rate, "jitter": jitter, "seed": seed}
    return descend(loss, start, **how, on_progress=on_progress)


def excitement(subject: Subject, layer: str | None, pixels: Tensor, units: np.ndarray) -> Tensor:
    """float32 [N]: the logit, or the mean over places of the unit's map."""
    if layer is None:
        return subject.scores(pixels, units)
    found = subject.at(layer, pixels)
    places = tuple(range(1, len(found.shape) - 1))
    return of_targets(keras.ops.mean(found, axis=places) if places else found, units)
