"""Pooling by sums over windows: the sum itself, the Euclidean length, and a mean that looks most at
the centre.

Goodfellow, Bengio, Courville, "Deep Learning", 2016, section 9.3, names them; L2 pooling is that of
Sermanet, Chintala, LeCun, arXiv:1204.3968.
"""

import keras
import numpy as np
from keras import ops

from striate.layers.precision import at_least_float32
from striate.layers.shapes import check_counts, check_window


class WindowPooling2D(keras.layers.Layer):
    """What the poolings below share: [N, h, w, c] -> a weighted sum over windows of each map.

    size: side of the window; stride: by default the size. padding: `valid` drops a last window that
    does not fit, `same` keeps it, and what lies outside the map does not count.
    """

    def __init__(self, size: int, stride: int | None = None, padding: str = "valid", **kwargs):
        super().__init__(**kwargs)
        self.size = size
        self.stride = size if stride is None else stride
        check_counts(size=size, stride=self.stride)
        self.padding = padding

    def build(self, input_shape):
        check_window(input_shape, self.size, self.padding)

    def window_sum(self, x, weights=None):
        """The sum of weights * x over each window; weights: numpy [size, size], by default 1."""
        weights = np.ones((self.size, self.size)) if weights is None else weights
        kernel = np.repeat(weights[:, :, None, None], x.shape[-1], axis=2)
        kernel = ops.cast(kernel, x.dtype)
        return ops.depthwise_conv(
            x, kernel, strides=self.stride, padding=self.padding, data_format="channels_last"
        )

    def compute_output_shape(self, input_shape):
        n, *sides, channels = input_shape
        lost = self.size - 1 if self.padding == "valid" else 0
        return (n, *(side and (side - lost - 1) // self.stride + 1 for side in sides), channels)

    def get_config(self):
        config = {"size": self.size, "stride": self.stride, "padding": self.padding}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable("striate")
class SumPooling2D(WindowPooling2D):
    """y = sum of x over the window."""

    def call(self, x):
        return self.window_sum(x)


@keras.saving.register_keras_serializable("striate")
class L2Pooling2D(WindowPooling2D):
    """y = sqrt(sum of x**2 over the window); where all of it is 0, so is the gradient."""

    def call(self, x):
        # A float16 holds no square of more than 256.
        exact = at_least_float32(x)
        energy = self.window_sum(ops.square(exact))
        # The root has no slope at 0, and what `where` leaves out must still have one.
        length = ops.where(energy > 0, ops.sqrt(ops.where(energy > 0, energy, 1)), 0)
        return ops.cast(length, x.dtype)


@keras.saving.register_keras_serializable("striate")
class DistanceWeightedPooling2D(WindowPooling2D):
    """y = sum of w x / sum of w over the window, w = 1 / (1 + d), d the distance from its centre.

    The book gives no weights; these are 1 at the centre and halve one pixel away from it.
    """

    def call(self, x):
        from_centre = np.arange(self.size) - (self.size - 1) / 2
        weights = 1 / (1 + np.hypot(from_centre[:, None], from_centre))
        return self.window_sum(x, weights) / self.window_sum(ops.ones_like(x[:1]), weights)
