"""Projected gradient descent: many small steps inside the ball of radius epsilon.

Madry, Makelov, Schmidt, Tsipras, Vladu, "Towards Deep Learning Models Resistant to Adversarial
Attacks", 2017, arXiv:1706.06083.
"""

import numpy as np

from striate.explain.fgsm import EPSILON, uphill
from striate.explain.subject import Subject


def pgd(
    subject: Subject,
    pixels: np.ndarray,
    targets: np.ndarray,
    *,
    epsilon: float = EPSILON,
    steps: int = 10,
    step: float | None = None,
    towards: bool = False,
    random_start: bool = True,
    seed: int = 0,
) -> np.ndarray:
    """The end of a walk that raises the cross-entropy of targets, float32 [N, H, W, C], 0 to 255.

    It never leaves the pixels by more than epsilon (a share of the range), nor the range itself.
    step: of one step, by default 2.5 epsilon / steps. towards: lower the cross-entropy instead,
    so that the net comes to answer the targets. random_start: begin anywhere in the ball.
    """
    reach = 255 * epsilon
    low, high = np.maximum(pixels - reach, 0), np.minimum(pixels + reach, 255)
    length = 255 * (2.5 * epsilon / steps if step is None else step) * (-1 if towards else 1)
    x = pixels
    if random_start:
        x = np.random.default_rng(seed).uniform(low, high).astype(np.float32)
    for _ in range(steps):
        x = np.clip(x + length * np.sign(uphill(subject, x, targets)), low, high)
    return x
