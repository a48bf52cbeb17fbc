"""Channels dealt out over the groups, so that grouped convolutions hear of one another."""

import keras
from keras import ops

from striate.errors import UsageError
from striate.layers.shapes import check_counts


@keras.saving.register_keras_serializable("striate")
class ChannelShuffle(keras.layers.Layer):
    """[..., c] -> [..., c]: channel g * (c / groups) + i goes to place i * groups + g.

    Source: Zhang, Zhou, Lin, Sun, arXiv:1707.01083, section 3.1.
    """

    def __init__(self, groups: int, **kwargs):
        super().__init__(**kwargs)
        check_counts(groups=groups)
        self.groups = groups

    def build(self, input_shape):
        if input_shape[-1] % self.groups:
            raise UsageError(f"{input_shape[-1]} channels do not divide into {self.groups} groups")

    def call(self, x):
        *sides, channels = ops.shape(x)[1:]
        x = ops.reshape(x, (-1, *sides, self.groups, channels // self.groups))
        return ops.reshape(ops.swapaxes(x, -1, -2), (-1, *sides, channels))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "groups": self.groups}
