"""What all random changes have in common: when they happen, and where their chance comes from."""

from typing import Any

import keras
from keras import ops


class Change(keras.layers.Layer):
    """A layer that changes examples [N, ..., C] where it is called with training=True.

    Takes and gives levels on 0 to 255, float32 out. Every example of a batch is changed by itself,
    by numbers from a seeded generator whose state is a variable, and so part of a checkpoint.

    keras.layers has layers for much of this. They are not used, since those that move pictures
    (`RandomTranslation`, `RandomZoom`, `RandomRotation`) take XLA away from the whole training
    step, others do not do what their names say (Keras 3.15: `RandomFlip("horizontal_and_vertical")`
    tosses one coin for both, `RandomErasing(p)` erases with a chance of p / 2 on average,
    `RandomSaturation` leaves 0 to 255, `RandAugment` chooses once for a whole batch), and none
    takes clips.
    """

    def __init__(self, *, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, x, training=False):
        x = ops.cast(x, self.compute_dtype)
        return self.changed(x) if training else x

    def changed(self, x):
        """The changed examples; x: in the layer's own float type."""
        raise NotImplementedError

    def compute_output_shape(self, input_shape):
        return input_shape

    def uniform(self, x, low: float = 0.0, high: float = 1.0):
        """A number from low to high for each example of x, [N, 1, ..., 1]."""
        return keras.random.uniform(self.one_each(x), low, high, self.compute_dtype, self.generator)

    def integer(self, x, low: int, high: int):
        """An integer from low to high - 1 for each example of x, int32 [N, 1, ..., 1]."""
        return keras.random.randint(self.one_each(x), low, high, "int32", self.generator)

    @staticmethod
    def one_each(x) -> tuple:
        """The shape [N, 1, ..., 1]: one number for each example of x."""
        return (ops.shape(x)[0], *(1,) * (len(x.shape) - 1))
