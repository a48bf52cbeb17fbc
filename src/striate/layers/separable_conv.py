"""A convolution in two strokes, one down and one across."""

import keras
from keras import ops

from striate.layers.shapes import check_counts, check_window


@keras.saving.register_keras_serializable("striate")
class SpatiallySeparableConv2D(keras.layers.Layer):
    """A convolution with a column, kernel x 1, and of its maps one with a row, 1 x kernel.

    Of one map and one filter it is the convolution with the outer product of the two: Sobel's
    filter is the column 1 2 1 times the row -1 0 1. 2 kernel weights stand for kernel**2.
    Input [N, h, w, c] -> `between` maps (by default as many as filters) -> `filters` maps.
    Source: Rigamonti, Sironi, Lepetit, Fua, "Learning Separable Filters", CVPR 2013.
    """

    def __init__(
        self,
        filters: int,
        kernel: int,
        stride: int = 1,
        padding: str = "same",
        between: int | None = None,
        use_bias: bool = True,
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_counts(
            filters=filters, kernel=kernel, stride=stride, between=1 if between is None else between
        )
        self.filters = filters
        self.kernel_size = kernel
        self.stride = stride
        self.padding = padding
        self.between = between
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape):
        check_window(input_shape, self.kernel_size, self.padding)
        side, between = self.kernel_size, self.between or self.filters
        for name, shape in (
            ("column", (side, 1, input_shape[-1], between)),
            ("row", (1, side, between, self.filters)),
        ):
            weight = self.add_weight(shape=shape, initializer=self.kernel_initializer, name=name)
            setattr(self, name, weight)
        if self.use_bias:
            self.bias = self.add_weight(shape=(self.filters,), initializer="zeros", name="bias")

    def call(self, x):
        x = ops.conv(
            x,
            self.column,
            strides=[self.stride, 1],
            padding=self.padding,
            data_format="channels_last",
        )
        x = ops.conv(
            x, self.row, strides=[1, self.stride], padding=self.padding, data_format="channels_last"
        )
        return x + self.bias if self.use_bias else x

    def compute_output_shape(self, input_shape):
        n, *sides, _ = input_shape
        lost = self.kernel_size - 1 if self.padding == "valid" else 0
        return (n, *(s and (s - lost - 1) // self.stride + 1 for s in sides), self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel": self.kernel_size,
            "stride": self.stride,
            "padding": self.padding,
            "between": self.between,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
