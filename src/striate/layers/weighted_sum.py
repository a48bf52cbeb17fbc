"""The sum of several maps, each with a learnt weight."""

import keras
from keras import ops

from striate.layers.shapes import check_alike


@keras.saving.register_keras_serializable("striate")
class WeightedSum(keras.layers.Layer):
    """y = sum of sigmoid(w_i) x_i over the maps x_1, ..., x_k of one shape; every w_i begins at 0.

    Source: Xie, Kirillov, Girshick, He, arXiv:1904.01569, section 3.2.
    """

    def build(self, input_shapes):
        check_alike(input_shapes)
        self.weight = self.add_weight(
            shape=(len(input_shapes),), initializer="zeros", name="weight"
        )

    def call(self, xs):
        share = ops.cast(ops.sigmoid(self.weight), xs[0].dtype)
        return sum(share[i] * x for i, x in enumerate(xs))

    def compute_output_shape(self, input_shapes):
        return input_shapes[0]
