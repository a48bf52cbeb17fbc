"""A residual that is left out of some training steps.

Huang, Sun, Liu, Sedra, Weinberger, "Deep Networks with Stochastic Depth", 2016, arXiv:1603.09382.
"""

import keras
from keras import ops

from striate.errors import UsageError


@keras.saving.register_keras_serializable("striate")
class StochasticDepth(keras.layers.Layer):
    """Training: x with the chance `survival`, otherwise zeros. Inference: survival * x.

    One draw for the whole mini-batch, as in the paper; per_picture=True draws for every picture.
    [N, ...] -> the same shape; no weights.
    """

    def __init__(self, survival: float, per_picture: bool = False, seed=None, **kwargs):
        super().__init__(**kwargs)
        if not 0.0 < survival <= 1.0:
            raise UsageError(f"expected survival above 0 and up to 1, got {survival!r}")
        self.survival = survival
        self.per_picture = per_picture
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, x, training=False):
        if not training:
            return x * self.survival
        draws = ops.shape(x)[0] if self.per_picture else 1
        shape = (draws, *[1] * (len(x.shape) - 1))
        drawn = keras.random.uniform(shape, seed=self.seed_generator)
        return x * ops.cast(drawn < self.survival, x.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        config = {"survival": self.survival, "per_picture": self.per_picture, "seed": self.seed}
        return {**super().get_config(), **config}
