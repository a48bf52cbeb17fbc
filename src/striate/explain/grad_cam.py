"""Grad-CAM: the last maps, weighted by how much the score gains from each.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", 2016, arXiv:1610.02391. Chattopadhay et al., "Grad-CAM++: Improved Visual
Explanations for Deep Convolutional Networks", 2017, arXiv:1710.11063.
"""

import numpy as np

from striate.explain.cam import upsampled
from striate.explain.subject import Subject, as_array, of_targets, value_and_gradient


def grad_cam(
    subject: Subject, pixels: np.ndarray, targets: np.ndarray, *, layer: str | None = None
) -> np.ndarray:
    """ReLU(sum over k of alpha_k f_k), float32 [N, H, W]; alpha_k is the mean of dS/df_k.

    One pass forward, and one back through what follows the maps: the rest of the net has no part.
    """
    maps, slopes = _maps_and_slopes(subject, pixels, targets, layer)
    alpha = slopes.mean(axis=(1, 2), keepdims=True)
    return upsampled(np.maximum((alpha * maps).sum(axis=-1), 0), pixels)


def grad_cam_plus_plus(
    subject: Subject, pixels: np.ndarray, targets: np.ndarray, *, layer: str | None = None
) -> np.ndarray:
    """Grad-CAM whose alpha_k weighs each place of dS/df_k, so that several objects all count.

    The weights come from the score exp(S), whose second and third derivatives are the powers of
    its first one (equation 19 of the paper); float32 [N, H, W].
    """
    maps, slopes = _maps_and_slopes(subject, pixels, targets, layer)
    total = maps.sum(axis=(1, 2), keepdims=True)
    below = 2 * slopes**2 + total * slopes**3
    weights = np.divide(slopes**2, below, out=np.zeros_like(below), where=below != 0)
    alpha = (weights * np.maximum(slopes, 0)).sum(axis=(1, 2), keepdims=True)
    return upsampled(np.maximum((alpha * maps).sum(axis=-1), 0), pixels)


def _maps_and_slopes(
    subject: Subject, pixels: np.ndarray, targets: np.ndarray, layer: str | None
) -> tuple[np.ndarray, np.ndarray]:
    """f and dS/df, float32 [N, h, w, K] each."""
    name = subject.cam_layer(layer)
    maps = subject.at(name, pixels)
    beside = subject.beside(name, pixels)
    _, slopes = value_and_gradient(
        lambda f: of_targets(subject.beyond(name, f, beside), targets), maps
    )
    return as_array(maps), slopes
