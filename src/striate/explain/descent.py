"""Pictures that follow a gradient from noise: the loop, and what keeps them smooth."""

from collections.abc import Callable

import numpy as np

from striate.explain.subject import Subject, Tensor, value_and_gradient
from striate.lazy import keras


def unheard(done: int, total: int) -> None:
    """What `on_progress` is where nobody listens."""


def descend(
    loss: Callable[[Tensor], Tensor],
    start: np.ndarray,
    *,
    steps: int,
    rate: float,
    jitter: int = 0,
    seed: int = 0,
    on_progress: Callable[[int, int], None] = unheard,
) -> np.ndarray:
    """Follow a loss [N] of pictures [N, H, W, C] downhill: float32 on 0 to 255.

    Adam (Kingma and Ba 2014, arXiv:1412.6980) on the pixels; rate: grey levels a step, falling to
    0 along half a cosine. jitter: each step sees the picture shifted by up to so many pixels, so
    that nothing depends on where the strides of the net fall. on_progress: called with (steps
    done, steps) after each.
    """
    random = np.random.default_rng(seed)
    x, mean, square = start.astype(np.float32), 0.0, 0.0
    for i in range(1, steps + 1):
        shift = random.integers(-jitter, jitter + 1, 2)
        slope = value_and_gradient(loss, np.roll(x, shift, axis=(1, 2)))[1]
        slope = np.roll(slope, -shift, axis=(1, 2))
        mean = 0.9 * mean + 0.1 * slope
        square = 0.999 * square + 0.001 * slope**2
        direction = (mean / (1 - 0.9**i)) / (np.sqrt(square / (1 - 0.999**i)) + 1e-12)
        x = np.clip(x - rate * 0.5 * (1 + np.cos(np.pi * (i - 1) / steps)) * direction, 0, 255)
        on_progress(i, steps)
    return x


def grey_noise(subject: Subject, n: int, *, spread: float = 10.0, seed: int = 0) -> np.ndarray:
    """Grey pictures with a little noise [N, H, W, C]: where a picture begins."""
    random = np.random.default_rng(seed)
    noise = random.standard_normal((n, *subject.preprocess.shape))
    return np.clip(127.5 + spread * noise, 0, 255).astype(np.float32)


def total_variation(x: Tensor, beta: float = 2.0) -> Tensor:
    """sum over pixels of ((dx/drow)^2 + (dx/dcolumn)^2)^(beta / 2), float32 [N].

    Mahendran, Vedaldi, "Understanding Deep Image Representations by Inverting Them", 2014,
    arXiv:1412.0035.
    """
    down = (x[:, 1:, :-1] - x[:, :-1, :-1]) ** 2
    right = (x[:, :-1, 1:] - x[:, :-1, :-1]) ** 2
    return keras.ops.sum((down + right + 1e-8) ** (beta / 2), axis=(1, 2, 3))


def alpha_norm(x: Tensor, alpha: float = 6.0) -> Tensor:
    """sum over pixels of |x|^alpha, float32 [N]: keeps values from running away."""
    return keras.ops.sum(keras.ops.abs(x) ** alpha, axis=(1, 2, 3))
