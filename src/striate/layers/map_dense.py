"""Units that see whole maps, with a bias for each of their connections."""

import keras
from keras import ops

from striate.layers.shapes import check_counts


@keras.saving.register_keras_serializable("striate")
class MapDense(keras.layers.Layer):
    """y_u = sum over the maps m of (kernel_mu . x_m + bias_mu).

    Input [N, maps, pixels] -> [N, units], with maps * units * (pixels + 1) weights: one bias for
    each pair of map and unit, as the paper counts them, although their sum would do.
    Source: Ji, Xu, Yang, Yu, IEEE PAMI 35(1), 2013, layer C6.
    """

    def __init__(self, units: int, **kwargs):
        super().__init__(**kwargs)
        check_counts(units=units)
        self.units = units

    def build(self, input_shape):
        _, maps, pixels = input_shape
        deviation = (2 / (maps * pixels + self.units)) ** 0.5
        self.kernel = self.add_weight(
            shape=(maps, pixels, self.units),
            initializer=keras.initializers.RandomNormal(stddev=deviation),
            name="kernel",
        )
        self.bias = self.add_weight(shape=(maps, self.units), initializer="zeros", name="bias")

    def call(self, x):
        flat = ops.reshape(x, (-1, x.shape[1] * x.shape[2]))
        kernel = ops.reshape(self.kernel, (-1, self.units))
        return ops.matmul(flat, kernel) + ops.sum(self.bias, axis=0)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.units)

    def get_config(self):
        return {**super().get_config(), "units": self.units}
