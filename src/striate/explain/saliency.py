"""Saliency: how much the score would change if a pixel did.

Simonyan, Vedaldi, Zisserman, "Deep Inside Convolutional Networks", 2013, arXiv:1312.6034.
"""

import functools

import numpy as np

from striate.explain.subject import Subject, value_and_gradient


def saliency(subject: Subject, pixels: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """max over colours of |dS/dx|, float32 [N, H, W]: logits a grey level, to first order."""
    return np.abs(gradient(subject, pixels, targets)).max(axis=-1)


def gradient(subject: Subject, pixels: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """dS/dx, float32 [N, H, W, C]."""
    score = functools.partial(subject.scores, targets=targets)
    return value_and_gradient(score, pixels)[1]
