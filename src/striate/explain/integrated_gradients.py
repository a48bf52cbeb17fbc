"""Integrated gradients: the score's rise from a picture without information, dealt out to pixels.

Sundararajan, Taly, Yan, "Axiomatic Attribution for Deep Networks", 2017, arXiv:1703.01365.
"""

from collections.abc import Callable

import numpy as np

from striate.explain.descent import unheard
from striate.explain.saliency import gradient
from striate.explain.subject import Subject


def integrated_gradients(
    subject: Subject,
    pixels: np.ndarray,
    targets: np.ndarray,
    *,
    steps: int = 32,
    baseline: float = 0.0,
    on_progress: Callable[[int, int], None] = unheard,
) -> np.ndarray:
    """Sum over colours of the attributions, float32 [N, H, W]; signed, in logits.

    They add up to S(picture) - S(baseline) (completeness), but for what `steps` points of the
    midpoint rule leave. baseline: the grey level of the picture that says nothing: black.
    on_progress: called with (steps done, steps).
    """
    start = np.full_like(pixels, baseline)
    total = np.zeros_like(pixels)
    for step in range(steps):
        point = start + (step + 0.5) / steps * (pixels - start)
        total += gradient(subject, point, targets)
        on_progress(step + 1, steps)
    return ((pixels - start) * total / steps).sum(axis=-1)
