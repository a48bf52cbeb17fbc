"""Channels in another order, some of them, some more than once."""

import keras
from keras import ops

from striate.layers.shapes import check_counts


@keras.saving.register_keras_serializable("striate")
class SelectChannels(keras.layers.Layer):
    """[..., c] -> [..., count]: y_i = x[index_i]. The index is a weight that is not trained.

    Source: the index layer of CondenseNet, arXiv:1711.09224, section 3.3.
    """

    def __init__(self, count: int, **kwargs):
        super().__init__(**kwargs)
        check_counts(count=count)
        self.count = count

    def build(self, input_shape):
        channels = input_shape[-1]
        self.index = self.add_weight(
            shape=(self.count,),
            dtype="int32",
            initializer=lambda shape, dtype: ops.arange(shape[0], dtype=dtype) % channels,
            trainable=False,
            name="index",
        )

    def call(self, x):
        return ops.take(x, ops.convert_to_tensor(self.index), axis=-1)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.count)

    def get_config(self):
        return {**super().get_config(), "count": self.count}
