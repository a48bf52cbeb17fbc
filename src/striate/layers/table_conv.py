"""A convolution whose maps see only the input maps that a table names."""

import keras
import numpy as np
from keras import ops

from striate.errors import UsageError
from striate.layers.shapes import check_counts, check_window


@keras.saving.register_keras_serializable("striate")
class TableConv2D(keras.layers.Layer):
    """Output map j = bias_j + the sum over the inputs i of table[j] of x_i convolved with k_ij.

    table: for each output map the input maps that it sees. Only their kernels exist:
    kernel**2 * (number of connections) weights and a bias for each output map. No padding.
    Input [N, h, w, c] -> [N, h - kernel + 1, w - kernel + 1, len(table)].
    Source: LeCun et al., Proceedings of the IEEE 86(11), 1998, Table I.
    """

    def __init__(self, table, kernel: int, **kwargs):
        super().__init__(**kwargs)
        check_counts(kernel=kernel)
        self.table = tuple(tuple(row) for row in table)
        self.kernel_size = kernel

    def build(self, input_shape):
        pairs = [(i, j) for j, row in enumerate(self.table) for i in row]
        maps, filters = input_shape[-1], len(self.table)
        check_window(input_shape, self.kernel_size)
        for i, _ in pairs:
            if not 0 <= i < maps:
                raise UsageError(f"the table names input map {i}, there are {maps}, from 0 on")
        place = np.zeros((len(pairs), maps, filters), "float32")
        for n, (i, j) in enumerate(pairs):
            place[n, i, j] = 1
        self._place = place
        side = self.kernel_size
        fan_in = side**2 * len(pairs) / filters
        limit = float(np.sqrt(3 / fan_in))
        self.kernel = self.add_weight(
            shape=(side, side, len(pairs)),
            initializer=keras.initializers.RandomUniform(-limit, limit),
            name="kernel",
        )
        self.bias = self.add_weight(shape=(filters,), initializer="zeros", name="bias")

    def call(self, x):
        place = ops.cast(self._place, self.compute_dtype)
        kernel = ops.tensordot(self.kernel, place, axes=1)
        return ops.conv(x, kernel, padding="valid", data_format="channels_last") + self.bias

    def compute_output_shape(self, input_shape):
        n, *sides, _ = input_shape
        return (n, *(side and side - self.kernel_size + 1 for side in sides), len(self.table))

    def get_config(self):
        return {**super().get_config(), "table": self.table, "kernel": self.kernel_size}
