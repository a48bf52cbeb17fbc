"""Reversed colours traced as a convolution, for ONNX, which has no quick way to turn three numbers.

Its runtimes step backwards along the last axis number by number, and the converter's own way to
reverse takes seven nodes. Of the products of this convolution all but one are with 0: nothing is
rounded.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


@contextmanager
def convolved_colours(classifier) -> Iterator[None]:
    """Inside, a Keras classifier that wants BGR reverses its pictures by a 1x1 convolution.

    A graph traced inside keeps it; the answers are the same bit for bit.
    """
    from striate.layers import Normalise

    layers = [
        layer
        for layer in classifier._flatten_layers(include_self=False)
        if isinstance(layer, Normalise) and len(layer.input.shape) == 4
    ]
    for layer in layers:
        layer.reverse = reverse
    try:
        yield
    finally:
        for layer in layers:
            del layer.reverse


def reverse(x):
    """x[..., ::-1] of [N, H, W, C]."""
    from keras import ops

    turn = np.eye(x.shape[-1], dtype="float32")[::-1]
    return ops.conv(x, turn[np.newaxis, np.newaxis], data_format="channels_last")
