"""A convolution that looks where it learns to look.

Dai, Qi, Xiong, Li, Zhang, Hu, Wei, "Deformable Convolutional Networks", 2017, arXiv:1703.06211.
"""

import keras
import numpy as np
from keras import ops

from striate.errors import UsageError
from striate.layers.shapes import check_counts, check_window


def sample(x, rows, columns):
    """The map between its pixels: x [N, h, w, c] at rows and columns [N, p] -> [N, p, c].

    x(p) = sum of G(q, p) x(q) over the pixels q, with G the product of max(0, 1 - |q - p|) along
    either axis (equations 3 and 4); outside the map all is 0.
    """
    pictures, height, width, channels = ops.shape(x)
    pixels = ops.reshape(x, (-1, channels))
    first = ops.expand_dims(ops.arange(pictures, dtype="int32") * (height * width), 1)
    top, left = ops.floor(rows), ops.floor(columns)
    # Shares as fractions, not as 1 - |q - p|: where p is a pixel, as at the start of training,
    # the derivative of |.| is none, and that of the fraction the slope to the next pixel.
    down, across = rows - top, columns - left
    total = 0.0
    for row, row_share in ((top, 1 - down), (top + 1, down)):
        for column, column_share in ((left, 1 - across), (left + 1, across)):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            share = row_share * column_share * ops.cast(inside, rows.dtype)
            row_there = ops.cast(ops.clip(row, 0, height - 1), "int32")
            column_there = ops.cast(ops.clip(column, 0, width - 1), "int32")
            found = ops.take(pixels, first + row_there * width + column_there, axis=0)
            total = total + ops.cast(ops.expand_dims(share, -1), x.dtype) * found
    return total


@keras.saving.register_keras_serializable("striate")
class DeformableConv2D(keras.layers.Layer):
    """y(p0) = bias + sum over the taps n of kernel(p_n) x(p0 + p_n + offset_n), x read bilinearly.

    The offsets, a row and a column for each tap at each place, come from a convolution of the same
    map; it starts at zero, and with it the layer is a plain convolution.
    Input [N, h, w, c] -> [N, h / stride, w / stride, filters], padded as Keras' `same`, or less at
    the borders with `valid`. kernel**2 (c filters + 2 kernel**2 c + 2) + filters weights.
    """

    def __init__(
        self,
        filters: int,
        kernel: int,
        stride: int = 1,
        padding: str = "same",
        use_bias: bool = True,
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_counts(filters=filters, kernel=kernel, stride=stride)
        self.filters = filters
        self.kernel_size = kernel
        self.stride = stride
        self.padding = padding
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape):
        check_window(input_shape, self.kernel_size, self.padding)
        side, channels = self.kernel_size, input_shape[-1]
        self.kernel = self.add_weight(
            shape=(side, side, channels, self.filters),
            initializer=self.kernel_initializer,
            name="kernel",
        )
        if self.use_bias:
            self.bias = self.add_weight(shape=(self.filters,), initializer="zeros", name="bias")
        self.offset_kernel = self.add_weight(
            shape=(side, side, channels, 2 * side**2), initializer="zeros", name="offset_kernel"
        )
        self.offset_bias = self.add_weight(
            shape=(2 * side**2,), initializer="zeros", name="offset_bias"
        )

    def call(self, x):
        offsets = ops.conv(
            x,
            self.offset_kernel,
            strides=self.stride,
            padding=self.padding,
            data_format="channels_last",
        )
        offsets = ops.cast(offsets + self.offset_bias, "float32")  # half is too coarse for places
        rows, columns = self._taps(x.shape)
        offsets = ops.reshape(offsets, (-1, len(rows), 2))
        found = sample(x, rows + offsets[..., 0], columns + offsets[..., 1])
        _, height, width, filters = self.compute_output_shape(x.shape)
        # What the taps of a place found lies side by side: the convolution is a product.
        found = ops.reshape(found, (-1, height, width, self.kernel_size**2 * x.shape[-1]))
        y = ops.matmul(found, ops.reshape(self.kernel, (-1, filters)))
        return y + self.bias if self.use_bias else y

    def _taps(self, input_shape):
        """Row and column of every tap of every place before it is moved, float32 each."""
        starts = []
        for side, out in zip(
            input_shape[1:3], self.compute_output_shape(input_shape)[1:3], strict=True
        ):
            missing = (out - 1) * self.stride + self.kernel_size - side
            starts.append(np.arange(out) * self.stride - max(missing, 0) // 2)
        taps = np.arange(self.kernel_size)
        rows = starts[0][:, None, None, None] + taps[:, None]
        columns = starts[1][:, None, None] + taps
        rows, columns = np.broadcast_arrays(rows, columns)
        return rows.ravel().astype("float32"), columns.ravel().astype("float32")

    def compute_output_shape(self, input_shape):
        n, *sides, _ = input_shape
        if None in sides:
            raise UsageError(f"expected a height and width that are known, got {input_shape}")
        lost = self.kernel_size - 1 if self.padding == "valid" else 0
        return (n, *((side - lost - 1) // self.stride + 1 for side in sides), self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel": self.kernel_size,
            "stride": self.stride,
            "padding": self.padding,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
