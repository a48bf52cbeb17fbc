"""Bias correction: rounded kernels, and the mean of every channel as it was."""

import keras
import numpy as np
import pytest
from keras import layers

from making import colourful_noise
from striate.export.bias import corrected
from striate.train.quantise import channel_axes, round_kernel

KINDS = {
    "bias": [layers.Conv2D(8, 3, padding="same", name="kernel")],
    "normalised": [
        layers.DepthwiseConv2D(3, use_bias=False, name="kernel"),
        layers.BatchNormalization(),
    ],
    "dense": [layers.GlobalAveragePooling2D(), layers.Dense(4, name="kernel")],
}


def chain(parts) -> keras.Model:
    """A graph of layers, one after the other, that begins with 8 x 8 pixels."""
    y = image = keras.Input((8, 8, 3))
    for part in parts:
        y = part(y)
    return keras.Model(image, y)


@pytest.mark.parametrize("kind", KINDS)
def test_the_means_of_channels_survive_the_rounding_of_kernels(kind):
    keras.utils.set_random_seed(3)
    net = chain(KINDS[kind])
    layer = net.get_layer("kernel")
    pictures = colourful_noise(12, (8, 8, 3), 0).astype(np.float32) / 255

    def means():
        y = np.asarray(net(pictures, training=False))
        return y.mean(axis=tuple(range(y.ndim - 1)))

    weights, whole = net.get_weights(), means()
    kernel = np.array(layer.kernel)
    with corrected(net, pictures):
        np.testing.assert_array_equal(np.array(layer.kernel), kernel)
        layer.kernel.assign(round_kernel(kernel, channel_axes(layer)))
        right = np.abs(means() - whole).max()
    moved = np.abs(means() - whole).max()
    layer.kernel.assign(kernel)
    assert moved > 1e-5
    assert right < 0.01 * moved
    for now, before in zip(net.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(now, before)


def test_a_layer_in_floats_keeps_its_bias():
    keras.utils.set_random_seed(3)
    first, last = layers.Conv2D(8, 3), layers.Dense(4)
    net = chain([first, layers.Flatten(), last])
    pictures = colourful_noise(4, (8, 8, 3), 0).astype(np.float32) / 255
    with corrected(net, pictures, [last]):
        assert np.array(first.bias).any()
        assert not np.array(last.bias).any()


def test_a_net_without_kernels_is_left_alone():
    net = chain([layers.GlobalAveragePooling2D()])
    with corrected(net, np.zeros((1, 8, 8, 3), np.float32)):
        assert net.count_params() == 0
