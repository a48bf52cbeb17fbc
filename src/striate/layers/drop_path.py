"""The joins of a fractal net, and the paths that training drops at them.

Larsson, Maire, Shakhnarovich, "FractalNet: Ultra-Deep Neural Networks without Residuals", 2016,
arXiv:1605.07648.
"""

import keras
from keras import ops

from striate.errors import UsageError
from striate.layers.shapes import check_alike, check_counts


@keras.saving.register_keras_serializable("striate")
class DrawColumn(keras.layers.Layer):
    """Which column each picture of a training step keeps to: [N, ...] -> int32 [N].

    A picture is drawn with the chance `share`, and its column evenly out of `columns`, 0 being the
    deepest; -1 stands for none, which inference gives to all.
    """

    def __init__(self, columns: int, share: float = 0.5, seed=None, **kwargs):
        super().__init__(**kwargs)
        check_counts(columns=columns)
        if not 0 <= share <= 1:
            raise UsageError(f"expected a share from 0 to 1, got {share!r}")
        self.columns = columns
        self.share = share
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, x, training=False):
        pictures = ops.shape(x)[:1]
        if not training:
            return ops.zeros(pictures, "int32") - 1
        drawn = keras.random.uniform(pictures, seed=self.seed_generator) < self.share
        column = keras.random.uniform(pictures, seed=self.seed_generator) * self.columns
        return ops.where(drawn, ops.cast(column, "int32"), -1)

    def compute_output_spec(self, x, training=False):
        return keras.KerasTensor(x.shape[:1], dtype="int32")

    def get_config(self):
        config = {"columns": self.columns, "share": self.share, "seed": self.seed}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable("striate")
class FractalJoin(keras.layers.Layer):
    """[columns deepest first ..., kept int32 [N]] -> the mean of the columns not dropped.

    In training each column of each picture is dropped with the chance `drop`, but never all of
    them (local drop-path); a picture with a column to keep to has only that one, and zeros where
    it does not reach this join (global drop-path). Inference takes the mean of all.
    """

    def __init__(self, drop: float = 0.15, seed=None, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= drop <= 1:
            raise UsageError(f"expected a chance from 0 to 1 as drop, got {drop!r}")
        self.drop = drop
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shapes):
        check_alike(input_shapes[:-1])

    def call(self, inputs, training=False):
        *columns, kept = inputs
        paths = ops.stack(columns, axis=1)
        if not training:
            return ops.mean(paths, axis=1)
        count, pictures = len(columns), ops.shape(paths)[0]
        drawn = keras.random.uniform((pictures, count), seed=self.seed_generator)
        # The largest draw stays whatever it is, so that one column always does.
        stays = (drawn >= self.drop) | (drawn == ops.max(drawn, axis=1, keepdims=True))
        only = ops.expand_dims(kept, 1) == ops.expand_dims(ops.arange(count, dtype="int32"), 0)
        mask = ops.cast(ops.where(ops.expand_dims(kept, 1) >= 0, only, stays), paths.dtype)
        alive = ops.maximum(ops.sum(mask, axis=1, keepdims=True), 1)
        mask = ops.reshape(mask / alive, (pictures, count, *[1] * (len(paths.shape) - 2)))
        return ops.sum(paths * mask, axis=1)

    def compute_output_shape(self, input_shape):
        return input_shape[0]

    def get_config(self):
        return {**super().get_config(), "drop": self.drop, "seed": self.seed}
