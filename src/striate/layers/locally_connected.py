"""A convolution that shares nothing: every place has filters of its own."""

import keras
from keras import ops

from striate.errors import UsageError
from striate.layers.shapes import check_counts, check_window


@keras.saving.register_keras_serializable("striate")
class LocallyConnected2D(keras.layers.Layer):
    """y(i, j) = bias(i, j) + the window of x at (i, j) times kernel(i, j), without padding.

    Input [N, h, w, c] -> [N, (h - kernel) // stride + 1, the same of w, filters]. For pictures
    whose parts always lie in the same place, as those of an aligned face; it fixes their size.
    Source: Taigman, Yang, Ranzato, Wolf, "DeepFace", CVPR 2014, section 3.
    """

    def __init__(self, filters: int, kernel: int, stride: int = 1, use_bias: bool = True, **kwargs):
        super().__init__(**kwargs)
        check_counts(filters=filters, kernel=kernel, stride=stride)
        self.filters = filters
        self.kernel_size = kernel
        self.stride = stride
        self.use_bias = use_bias

    def build(self, input_shape):
        check_window(input_shape, self.kernel_size)
        _, rows, columns, _ = self.compute_output_shape(input_shape)
        inputs = self.kernel_size**2 * input_shape[-1]
        limit = (3 / inputs) ** 0.5  # variance 1 / inputs, by what one place sees
        self.kernel = self.add_weight(
            shape=(rows, columns, inputs, self.filters),
            initializer=keras.initializers.RandomUniform(-limit, limit),
            name="kernel",
        )
        if self.use_bias:
            self.bias = self.add_weight(
                shape=(rows, columns, self.filters), initializer="zeros", name="bias"
            )

    def call(self, x):
        rows, columns = self.kernel.shape[:2]
        step, side = self.stride, range(self.kernel_size)
        down, across = step * (rows - 1) + 1, step * (columns - 1) + 1
        taps = [x[:, k : k + down : step, m : m + across : step] for k in side for m in side]
        y = ops.einsum("nijp,ijpf->nijf", ops.concatenate(taps, axis=-1), self.kernel)
        return y + self.bias if self.use_bias else y

    def compute_output_shape(self, input_shape):
        n, *sides, _ = input_shape
        if None in sides:
            raise UsageError(
                "expected a height and width that are known, since each place has "
                f"its own weights, got {input_shape}"
            )
        rows, columns = ((side - self.kernel_size) // self.stride + 1 for side in sides)
        return (n, rows, columns, self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel": self.kernel_size,
            "stride": self.stride,
            "use_bias": self.use_bias,
        }
