"""Zero channels before and after the given ones."""

import keras
from keras import ops

from striate.errors import check_whole


@keras.saving.register_keras_serializable("striate")
class PadChannels(keras.layers.Layer):
    """[..., c] -> [..., before + c + after]: the parameter-free shortcut of CIFAR ResNets."""

    def __init__(self, before: int, after: int, **kwargs):
        super().__init__(**kwargs)
        check_whole("before", before)
        check_whole("after", after)
        self.before = before
        self.after = after

    def call(self, x):
        return ops.pad(x, [(0, 0)] * (len(x.shape) - 1) + [(self.before, self.after)])

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.before + input_shape[-1] + self.after)

    def get_config(self):
        return {**super().get_config(), "before": self.before, "after": self.after}
