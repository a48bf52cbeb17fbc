"""Local response normalisation across channels.

Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep Convolutional Neural Networks",
2012, Section 3.3.
"""

import keras
from keras import ops

from striate.errors import UsageError
from striate.layers.precision import at_least_float32
from striate.layers.shapes import check_counts


@keras.saving.register_keras_serializable("striate")
class LocalResponseNormalization(keras.layers.Layer):
    """b_i = a_i / (k + alpha * sum of a_j^2 over the `size` channels j around i) ^ beta.

    Channels beyond the first and last count as zero. [..., channels] -> the same shape; no weights.

    size: how many neighbouring channels, the channel itself in the middle; odd.
    average: divide alpha by `size`, as Caffe and torch do; the paper does not.
    """

    def __init__(
        self,
        size: int = 5,
        alpha: float = 1e-4,
        beta: float = 0.75,
        k: float = 2.0,
        average: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_counts(size=size)
        if size % 2 == 0:
            raise UsageError(f"expected an odd number of channels as size, got {size!r}")
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k
        self.average = average

    def call(self, x):
        around = self.size // 2
        channels = x.shape[-1]
        # A float16 holds no square of more than 256.
        exact = at_least_float32(x)
        squares = ops.pad(ops.square(exact), [(0, 0)] * (len(x.shape) - 1) + [(around, around)])
        total = squares[..., :channels]
        for shift in range(1, self.size):
            total = total + squares[..., shift : shift + channels]
        scale = self.alpha / self.size if self.average else self.alpha
        return ops.cast(exact * self._inverse_power(self.k + scale * total), x.dtype)

    def _inverse_power(self, sums):
        """sums ^ -beta; for the paper's 0.75 by square roots, which take a tenth of the time."""
        if self.beta != 0.75:
            return ops.power(sums, -self.beta)
        root = ops.rsqrt(sums)
        return root * ops.sqrt(root)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "size": self.size,
            "alpha": self.alpha,
            "beta": self.beta,
            "k": self.k,
            "average": self.average,
        }
