"""Subsampling whose scale and bias are learnt, as in the first convolutional nets."""

import keras
from keras import ops

from striate.layers.shapes import check_counts, check_window


@keras.saving.register_keras_serializable("striate")
class TrainableSubsampling(keras.layers.Layer):
    """y = coefficient * (sum of a size x size window) + bias, one pair for each map.

    Input [N, h, w, c] -> [N, h // size, w // size, c] with 2 c weights. Of volumes [N, d, h, w, c]
    each of the d slices is a map of its own: [N, d, h // size, w // size, c] with 2 d c weights.
    The coefficient begins at 1 / size**2, so that the layer begins as average pooling.
    Source: LeCun et al., Proceedings of the IEEE 86(11), 1998, section II.B, layer S2.
    """

    def __init__(self, size: int, **kwargs):
        super().__init__(**kwargs)
        check_counts(size=size)
        self.size = size

    def build(self, input_shape):
        check_window(input_shape, self.size)
        slices = input_shape[1:-3] and (input_shape[1], 1, 1)
        shape = (*slices, input_shape[-1])
        self.coefficient = self.add_weight(
            shape=shape,
            initializer=keras.initializers.Constant(1 / self.size**2),
            name="coefficient",
        )
        self.bias = self.add_weight(shape=shape, initializer="zeros", name="bias")

    def call(self, x):
        slices, (height, width, channels) = x.shape[1:-3], x.shape[-3:]
        if slices:  # phones pool over two axes only
            x = ops.reshape(x, (-1, height, width, channels))
        total = self.size**2 * ops.average_pool(
            x, self.size, strides=self.size, padding="valid", data_format="channels_last"
        )
        if slices:
            shape = (-1, *slices, height // self.size, width // self.size, channels)
            total = ops.reshape(total, shape)
        return total * self.coefficient + self.bias

    def compute_output_shape(self, input_shape):
        *before, h, w, c = input_shape
        return (*before, h and h // self.size, w and w // self.size, c)

    def get_config(self):
        return {**super().get_config(), "size": self.size}
