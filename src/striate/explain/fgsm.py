"""The fast gradient sign method: the one step that hurts most, no pixel moving more than epsilon.

Goodfellow, Shlens, Szegedy, "Explaining and Harnessing Adversarial Examples", 2014,
arXiv:1412.6572.
"""

import functools
from collections.abc import Sequence

import numpy as np

from striate.explain.subject import Subject, Tensor, as_array, of_targets, value_and_gradient
from striate.lazy import keras

EPSILON = 0.007  # the paper's: 1.8 grey levels of 255
LEVELS = (0, 0.5, 1, 2, 4, 8)  # grey levels of 255 by which `endurance` is usually asked


def fgsm(
    subject: Subject, pixels: np.ndarray, targets: np.ndarray, *, epsilon: float = EPSILON
) -> np.ndarray:
    """x + epsilon sign(dJ/dx), float32 [N, H, W, C] on 0 to 255; J is the cross-entropy of targets.

    epsilon: the furthest that a pixel moves, as a share of the range.
    """
    return np.clip(pixels + 255 * epsilon * np.sign(uphill(subject, pixels, targets)), 0, 255)


def endurance(
    subject: Subject,
    pixels: np.ndarray,
    targets: np.ndarray,
    epsilons: Sequence[float],
    *,
    batch_size: int = 16,
) -> np.ndarray:
    """Which pictures are still taken for their targets after a step of each size.

    bool [epsilons, N]; one gradient serves them all.
    """
    batches = [slice(i, i + batch_size) for i in range(0, len(pixels), batch_size)]
    found = [_endures(subject, pixels[part], targets[part], epsilons) for part in batches]
    return np.concatenate(found, axis=1)


def _endures(
    subject: Subject, pixels: np.ndarray, targets: np.ndarray, epsilons: Sequence[float]
) -> np.ndarray:
    signs = np.sign(uphill(subject, pixels, targets))
    steps = (np.clip(pixels + 255 * epsilon * signs, 0, 255) for epsilon in epsilons)
    return np.stack([as_array(subject.logits(x)).argmax(axis=-1) == targets for x in steps])


def uphill(subject: Subject, pixels: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """dJ/dx, float32 [N, H, W, C]."""
    return value_and_gradient(functools.partial(cross_entropy, subject, targets), pixels)[1]


def cross_entropy(subject: Subject, targets: np.ndarray, pixels: Tensor) -> Tensor:
    """-log p(target), float32 [N], in nats."""
    logits = subject.logits(pixels)
    return keras.ops.logsumexp(logits, axis=-1) - of_targets(logits, targets)
