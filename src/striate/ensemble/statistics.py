"""The statistics of batch normalisation, measured anew for weights that were not trained."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from striate.data import Examples
from striate.lazy import keras

BATCH = 64
MOST = 10_000  # pictures that they are measured on


def norms_of(net: Any) -> list[Any]:
    """The batch normalisations of a net, those inside other layers too."""
    kind = keras.layers.BatchNormalization
    return [layer for layer in net._flatten_layers() if isinstance(layer, kind)]


def measure_statistics(net: Any, examples: Examples, *, seed: int = 0) -> None:
    """Set the means and variances of a net to those of its own maps over some pictures.

    Interpolated weights make other maps than either end, so that no stored statistics fit them
    (Izmailov et al. 2018, arXiv:1803.05407, section 3.2). Each is the plain mean over batches, as
    if of momentum 1 - 1/i at the i-th. Nothing is done to a net without batch normalisation.
    """
    norms = norms_of(net)
    if not norms:
        return
    normalise = examples.preprocess.layer()
    chosen = np.random.default_rng(seed).permutation(len(examples))[:MOST]
    batches = np.array_split(chosen, -(-len(chosen) // BATCH))
    with _momentum_of(norms):
        for i, (images, _) in enumerate(examples.stream(batches), 1):
            for norm in norms:
                norm.momentum = 1 - 1 / i
            net(normalise(images), training=True)


@contextlib.contextmanager
def _momentum_of(norms: list[Any]) -> Iterator[None]:
    """Inside, norms may be given another momentum, and learn whether or not they are frozen."""
    before = [(norm.momentum, norm.trainable) for norm in norms]
    for norm in norms:
        norm.trainable = True
    try:
        yield
    finally:
        for norm, (momentum, trainable) in zip(norms, before, strict=True):
            norm.momentum, norm.trainable = momentum, trainable
