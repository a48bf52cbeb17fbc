"""Pooling that keeps a last window which overhangs the right and bottom border.

Caffe, and torch with ceil_mode, give ceil((side - size) / stride) + 1 places; Keras rounds down.
"""

import keras
from keras import ops

from striate.errors import UsageError
from striate.layers.shapes import check_counts, check_window


class CeilPooling2D(keras.layers.Layer):
    """What the two below share: [N, h, w, c] -> [N, ceil((h - size) / stride) + 1, ..., c].

    stride: by default the size, and at most that.
    """

    def __init__(self, size: int, stride: int | None = None, **kwargs):
        super().__init__(**kwargs)
        self.size = size
        self.stride = size if stride is None else stride
        check_counts(size=size, stride=self.stride)
        if self.stride > size:
            raise UsageError(f"expected a stride of at most the window's {size}, got {stride}")

    def build(self, input_shape):
        check_window(input_shape, self.size - self.stride + 1)

    def overhang(self, x, value: float):
        """x with room for the last window; a further one does not fit there."""
        room = (0, self.stride - 1)
        return ops.pad(x, ((0, 0), room, room, (0, 0)), constant_values=value)

    def compute_output_shape(self, input_shape):
        n, *sides, channels = input_shape
        return (n, *(side and -((self.size - side) // self.stride) + 1 for side in sides), channels)

    def get_config(self):
        return {**super().get_config(), "size": self.size, "stride": self.stride}


@keras.saving.register_keras_serializable("striate")
class CeilMaxPooling2D(CeilPooling2D):
    """y = the maximum of what the window holds of the map, be it negative."""

    def call(self, x):
        x = self.overhang(x, float("-inf"))
        return ops.max_pool(
            x, self.size, strides=self.stride, padding="valid", data_format="channels_last"
        )


@keras.saving.register_keras_serializable("striate")
class CeilAveragePooling2D(CeilPooling2D):
    """y = the mean of what the window holds of the map; what overhangs does not count."""

    def call(self, x):
        total, count = (
            ops.average_pool(
                self.overhang(t, 0),
                self.size,
                strides=self.stride,
                padding="valid",
                data_format="channels_last",
            )
            for t in (x, ops.ones_like(x[:1, :, :, :1]))
        )
        return total / count
