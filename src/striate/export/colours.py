"""Reversed colours traced as a convolution, for ONNX, which has no quick way to turn three numbers.

Its runtimes step backwards along the last axis number by number, and the converter's own way to
reverse takes seven nodes. Of the products of this convolution all but one are with 0: nothing is
rounded.
"""

from contextlib import AbstractContextManager

import numpy as np

from striate.export.graph import layers_of, replaced


def convolved_colours(classifier) -> AbstractContextManager[None]:
    """Inside, a Keras classifier that wants BGR reverses its pictures by a 1x1 convolution.

    The answers are the same bit for bit.
    """
    from striate.layers import Normalise

    flat = [layer for layer in layers_of(classifier, Normalise) if len(layer.input.shape) == 4]
    return replaced(flat, "reverse", reverse)


def reverse(layer, x):
    """x[..., ::-1] of [N, H, W, C]."""
    from keras import ops

    turn = np.eye(x.shape[-1], dtype="float32")[::-1]
    return ops.conv(x, turn[np.newaxis, np.newaxis], data_format="channels_last")
