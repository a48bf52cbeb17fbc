"""Where each pixel is, told to the convolution after it."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("striate")
class AddCoords(keras.layers.Layer):
    """[N, h, w, c] -> [N, h, w, c + 2]: each pixel's row and column, from -1 to 1, join its values.

    radius: a third map, the distance sqrt(row**2 + column**2) from the centre in the same units.
    A convolution behind it is a CoordConv.
    Source: Liu et al., arXiv:1807.03247, section 3.
    """

    def __init__(self, radius: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.radius = radius

    def call(self, x):
        pictures, height, width = ops.shape(x)[:3]
        rows = ops.reshape(self._from_the_centre(height), (1, height, 1, 1))
        columns = ops.reshape(self._from_the_centre(width), (1, 1, width, 1))
        maps = [rows, columns]
        if self.radius:
            maps.append(ops.sqrt(ops.square(rows) + ops.square(columns)))
        shape = (pictures, height, width, 1)
        maps = [ops.broadcast_to(ops.cast(m, x.dtype), shape) for m in maps]
        return ops.concatenate([x, *maps], axis=-1)

    @staticmethod
    def _from_the_centre(side):
        """-1 to 1 in equal steps; 0 where there is but one pixel."""
        places = ops.cast(ops.arange(side), "float32")
        last = ops.cast(side, "float32") - 1
        return (2 * places - last) / ops.maximum(last, 1)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], input_shape[-1] + 2 + self.radius)

    def get_config(self):
        return {**super().get_config(), "radius": self.radius}
