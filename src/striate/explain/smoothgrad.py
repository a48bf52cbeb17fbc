"""SmoothGrad: the saliency of many noisy copies, averaged, so that what flickers cancels out.

Smilkov, Thorat, Kim, Viegas, Wattenberg, "SmoothGrad: removing noise by adding noise", 2017,
arXiv:1706.03825.
"""

from collections.abc import Callable

import numpy as np

from striate.explain.descent import unheard
from striate.explain.saliency import gradient
from striate.explain.subject import Subject


def smoothgrad(
    subject: Subject,
    pixels: np.ndarray,
    targets: np.ndarray,
    *,
    samples: int = 25,
    noise: float = 0.15,
    seed: int = 0,
    on_progress: Callable[[int, int], None] = unheard,
) -> np.ndarray:
    """max over colours of |mean of dS/dx|, float32 [N, H, W].

    samples: noisy copies of each picture; noise: the standard deviation, as a share of the range of
    the picture's own pixels (the paper uses 0.1 to 0.2). on_progress: called with (copies done,
    copies).
    """
    random = np.random.default_rng(seed)
    spread = noise * np.ptp(pixels, axis=(1, 2, 3), keepdims=True)
    total = np.zeros_like(pixels)
    for i in range(samples):
        noisy = pixels + spread * random.standard_normal(pixels.shape, np.float32)
        total += gradient(subject, noisy, targets)
        on_progress(i + 1, samples)
    return np.abs(total / samples).max(axis=-1)
