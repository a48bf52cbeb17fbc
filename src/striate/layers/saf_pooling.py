"""Pooling whose winners are not all relied on."""

import keras
from keras import ops

from striate.errors import UsageError
from striate.layers.shapes import check_counts, check_window


@keras.saving.register_keras_serializable("striate")
class SAFPooling2D(keras.layers.Layer):
    """The maximum of each window; in training each is dropped with the chance `rate`.

    What stays is divided by 1 - rate. [N, h, w, c] -> [N, h // size, w // size, c] for the default
    stride, which is the size. Source: Hasanpour et al., "SimpNet", arXiv:1802.06205, section 3.
    """

    def __init__(
        self, size: int = 2, rate: float = 0.2, stride: int | None = None, seed=None, **kwargs
    ):
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise UsageError(f"expected a rate from 0 to below 1, got {rate!r}")
        self.size = size
        self.rate = rate
        self.stride = size if stride is None else stride
        check_counts(size=size, stride=self.stride)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape):
        check_window(input_shape, self.size)

    def call(self, x, training=False):
        x = ops.max_pool(
            x, self.size, strides=self.stride, padding="valid", data_format="channels_last"
        )
        return keras.random.dropout(x, self.rate, seed=self.seed_generator) if training else x

    def compute_output_shape(self, input_shape):
        n, *sides, channels = input_shape
        return (n, *(side and (side - self.size) // self.stride + 1 for side in sides), channels)

    def get_config(self):
        config = {"size": self.size, "rate": self.rate, "stride": self.stride, "seed": self.seed}
        return {**super().get_config(), **config}
