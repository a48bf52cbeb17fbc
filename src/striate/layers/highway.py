"""How much of a layer to use, and how much to let past it."""

import keras
from keras import ops

from striate.layers.shapes import check_alike, check_counts


@keras.saving.register_keras_serializable("striate")
class HighwayGate(keras.layers.Layer):
    """[x, h] -> T h + (1 - T) x, h what some layer made of x, T = sigmoid(x * kernel + bias).

    kernel: 1 multiplies the last axis, whatever comes before it (a dense gate); 3 and more convolve
    maps of that shape with `same` padding. gate_bias: at the start; below 0 lets past most of x.
    x and h of one shape. Source: Srivastava, Greff, Schmidhuber, arXiv:1505.00387, equation 3.
    """

    def __init__(self, kernel: int = 1, gate_bias: float = -2.0, **kwargs):
        super().__init__(**kwargs)
        check_counts(kernel=kernel)
        self.kernel_size = kernel
        self.gate_bias = gate_bias

    def build(self, input_shape):
        check_alike(input_shape)
        x, _ = input_shape
        sides = (self.kernel_size,) * 2 if self.kernel_size > 1 else ()
        self.kernel = self.add_weight(
            shape=(*sides, x[-1], x[-1]), initializer="glorot_uniform", name="kernel"
        )
        self.bias = self.add_weight(
            shape=(x[-1],), initializer=keras.initializers.Constant(self.gate_bias), name="bias"
        )

    def call(self, inputs):
        x, h = inputs
        if self.kernel_size > 1:
            gate = ops.conv(x, self.kernel, padding="same", data_format="channels_last")
        else:
            gate = ops.matmul(x, self.kernel)
        return x + ops.sigmoid(gate + self.bias) * (h - x)

    def compute_output_shape(self, input_shape):
        return input_shape[0]

    def get_config(self):
        config = {"kernel": self.kernel_size, "gate_bias": self.gate_bias}
        return {**super().get_config(), **config}
