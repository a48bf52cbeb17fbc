"""Bias correction: kernels of 8 bits, and every channel still answers the same on the average.

Nagel, van Baalen, Blankevoort, Welling, "Data-Free Quantization Through Weight Equalization and
Bias Correction", 2019, arXiv:1906.04721, section 4.2. What reaches a layer is seldom 0 on the
average (ReLU), so the rounding of a filter's weights does not cancel out but moves all its answers
the same way. The mean of that, over some pictures, is taken off its bias or added to the mean that
the batch normalisation behind it takes off.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops

from striate.train.quantise import WITH_KERNELS, channel_axes, round_kernel

BATCH = 8


@contextmanager
def corrected(net: Any, pictures: np.ndarray, floats: Collection[Any] = ()) -> Iterator[None]:
    """Inside, the biases of a Keras net are those that suit its kernels once they are rounded.

    pictures: float32 [N, H, W, C], normalised; floats: layers whose kernels will not be. The
    kernels stay, and the biases are put back.
    """
    places = [place for place in _places(net) if place[0] not in floats]
    shifts = _shifts(net, [layer for layer, _, _ in places], pictures)
    before = [np.array(variable) for _, variable, _ in places]
    for (_, variable, sign), value, shift in zip(places, before, shifts, strict=True):
        variable.assign(value + sign * shift)
    try:
        yield
    finally:
        for (_, variable, _), value in zip(places, before, strict=True):
            variable.assign(value)


def _places(net: Any) -> list[tuple[Any, Any, int]]:
    """(layer with a kernel, the variable that can take up its shift, with which sign)."""
    within, places = set(net.operations), []
    for layer in net.layers:
        if not isinstance(layer, WITH_KERNELS):
            continue
        users = {node.operation for node in layer._outbound_nodes} & within
        behind = [user for user in users if isinstance(user, keras.layers.BatchNormalization)]
        if layer.use_bias:
            places.append((layer, layer.bias, -1))
        elif behind and len(users) == 1:
            places.append((layer, behind[0].moving_mean, 1))
    return places


def _shifts(net: Any, layers: list[Any], pictures: np.ndarray) -> list[np.ndarray]:
    """By how much rounding a layer's kernel moves its answers on the average, [channels] each."""
    if not layers:
        return []
    inputs = keras.Model(net.input, [layer.input for layer in layers])
    totals: list[Any] = [0.0] * len(layers)
    for first in range(0, len(pictures), BATCH):
        batch = pictures[first : first + BATCH]
        given = keras.tree.flatten(inputs(batch, training=False))
        for i, (layer, x) in enumerate(zip(layers, given, strict=True)):
            totals[i] += len(batch) * np.asarray(_mean_shift(layer, x))
    return [total / len(pictures) for total in totals]


def _mean_shift(layer: Any, x: Any) -> Any:
    """The mean over a batch of what a layer answers with its kernel's rounding errors alone."""
    kernel = ops.convert_to_tensor(layer.kernel)
    errors = [(layer.kernel, round_kernel(kernel, channel_axes(layer)) - kernel)]
    if layer.use_bias:
        errors.append((layer.bias, ops.zeros_like(layer.bias)))
    with keras.StatelessScope(state_mapping=errors):
        y = layer(x)
    return ops.mean(y, axis=tuple(range(len(y.shape) - 1)))
