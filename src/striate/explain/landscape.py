"""The surface of the loss around a trained net, along two directions scaled filter by filter.

Li, Xu, Taylor, Studer, Goldstein, "Visualizing the Loss Landscape of Neural Nets", 2017,
arXiv:1712.09913.
"""

import functools
from collections.abc import Callable, Collection

import numpy as np

from striate.explain.descent import unheard
from striate.explain.fgsm import cross_entropy
from striate.explain.subject import Subject, in_batches
from striate.lazy import keras


def landscape(
    subject: Subject,
    pixels: np.ndarray,
    labels: np.ndarray,
    *,
    reach: float = 1.0,
    points: int = 21,
    batch_size: int = 64,
    seed: int = 0,
    on_progress: Callable[[int, int], None] = unheard,
) -> np.ndarray:
    """The mean cross-entropy at weights + a d1 + b d2, float64 [points, points], rows a, columns b.

    a and b run from -reach to reach; d1 and d2 are `filter_normalised` random directions. The net
    has its own weights again afterwards. on_progress: called with (points done, points).
    """
    steps = np.linspace(-reach, reach, points)
    weights = [variable.numpy() for variable in subject.net.trainable_variables]
    kernels = depthwise_kernels(subject)
    first, second = (directions(weights, seed + i, depthwise=kernels) for i in (0, 1))
    surface = np.empty((points, points))
    try:
        for done, (i, j) in enumerate(np.ndindex(points, points), start=1):
            moved = zip(weights, first, second, strict=True)
            _assign(subject, [w + steps[i] * a + steps[j] * b for w, a, b in moved])
            surface[i, j] = mean_loss(subject, pixels, labels, batch_size)
            on_progress(done, points**2)
    finally:
        _assign(subject, weights)
    return surface


def directions(
    weights: list[np.ndarray], seed: int, *, depthwise: Collection[int] = ()
) -> list[np.ndarray]:
    """A random direction whose filters are each as long as the net's own.

    The last axis counts the filters; of the weights with the numbers `depthwise`, kernels [h, w,
    channels, multiplier], the last two do. Biases, and the scales and shifts of normalisations,
    stay where they are: as in the paper, since a step along them says nothing of the surface.
    """
    random = np.random.default_rng(seed)
    found = []
    for number, weight in enumerate(weights):
        if weight.ndim < 2:
            found.append(np.zeros_like(weight))
            continue
        axes = tuple(range(weight.ndim - (2 if number in depthwise else 1)))
        step = random.standard_normal(weight.shape)
        length = np.sqrt((weight**2).sum(axis=axes) / (step**2).sum(axis=axes))
        found.append((step * length).astype(np.float32))
    return found


def depthwise_kernels(subject: Subject) -> set[int]:
    """Which of a net's trainable variables are depthwise kernels, by their numbers."""
    known = set()
    for layer in subject.net._flatten_layers():
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            known.add(id(layer.kernel))
        elif isinstance(layer, keras.layers.SeparableConv2D):
            known.add(id(layer.depthwise_kernel))
    return {i for i, v in enumerate(subject.net.trainable_variables) if id(v) in known}


def _assign(subject: Subject, weights: list[np.ndarray]) -> None:
    for variable, weight in zip(subject.net.trainable_variables, weights, strict=True):
        variable.assign(weight)


def mean_loss(subject: Subject, pixels: np.ndarray, labels: np.ndarray, batch_size: int) -> float:
    """The mean cross-entropy of pictures, in nats."""
    loss = functools.partial(cross_entropy, subject)
    return float(in_batches(loss, labels, pixels, batch_size=batch_size).mean())
