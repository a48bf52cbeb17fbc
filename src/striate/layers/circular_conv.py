"""A convolution on a map whose borders meet."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("striate")
class CircularConv2D(keras.layers.Layer):
    """y(i, j) = bias + sum of kernel(k, l) x(i + k mod h, j + l mod w), k and l from -1 to 1.

    A 3x3 kernel; input [N, h, w, c] -> [N, h, w, filters], each padded with its other side.
    Source: Xiao et al., arXiv:1806.05393, section 2.1.
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
        x = ops.concatenate([x[:, -1:], x, x[:, :1]], axis=1)
        x = ops.concatenate([x[:, :, -1:], x, x[:, :, :1]], axis=2)
        return self.activation(ops.conv(x, self.kernel, padding="valid") + self.bias)

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
