"""Convolutions on a map whose borders meet.

Xiao, Bahri, Sohl-Dickstein, Schoenholz, Pennington, arXiv:1806.05393, section 2.1.
"""

import keras
from keras import ops

from striate.layers.shapes import check_counts


def convolve(x, kernel, bias):
    """3x3 kernel over x [N, h, w, c], padded on each side with its other side."""
    x = ops.concatenate([x[:, -1:], x, x[:, :1]], axis=1)
    x = ops.concatenate([x[:, :, -1:], x, x[:, :, :1]], axis=2)
    return ops.conv(x, kernel, padding="valid", data_format="channels_last") + bias


@keras.saving.register_keras_serializable("striate")
class CircularConv2D(keras.layers.Layer):
    """y(i, j) = bias + sum of kernel(k, l) x(i + k mod h, j + l mod w), k and l from -1 to 1.

    A 3x3 kernel; input [N, h, w, c] -> [N, h, w, filters], each padded with its other side.
    """

    def __init__(
        self,
        filters: int,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        activation=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_counts(filters=filters)
        self.filters = filters
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.activation = keras.activations.get(activation)

    def build(self, input_shape):
        self.kernel = self.add_weight(
            shape=(3, 3, input_shape[-1], self.filters),
            initializer=self.kernel_initializer,
            name="kernel",
        )
        self.bias = self.add_weight(
            shape=(self.filters,), initializer=self.bias_initializer, name="bias"
        )

    def call(self, x):
        return self.activation(convolve(x, self.kernel, self.bias))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "activation": keras.activations.serialize(self.activation),
        }


@keras.saving.register_keras_serializable("striate")
class CircularChain2D(keras.layers.Layer):
    """`depth` layers of CircularConv2D, one after the other, with as many filters as channels.

    Their weights lie in one tensor each and a loop goes through them, so that a net of thousands of
    layers is built and compiled as quickly as one. [N, h, w, c] -> [N, h, w, c].
    """

    def __init__(
        self,
        depth: int,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        activation=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_counts(depth=depth)
        self.depth = depth
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.activation = keras.activations.get(activation)
        # XLA cannot differentiate a loop of TensorFlow whose length it does not know.
        self.supports_jit = keras.backend.backend() != "tensorflow"

    def build(self, input_shape):
        channels = input_shape[-1]
        self.kernel = self.add_weight(
            shape=(self.depth, 3, 3, channels, channels),
            initializer=self.kernel_initializer,
            name="kernel",
        )
        self.bias = self.add_weight(
            shape=(self.depth, channels), initializer=self.bias_initializer, name="bias"
        )

    def call(self, x):
        def layer(x, weights):
            return self.activation(convolve(x, *weights)), None

        weights = (ops.convert_to_tensor(self.kernel), ops.convert_to_tensor(self.bias))
        return ops.scan(layer, x, weights)[0]

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "depth": self.depth,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "activation": keras.activations.serialize(self.activation),
        }
