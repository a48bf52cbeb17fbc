"""Radial basis functions with fixed centres."""

import keras
import numpy as np
from keras import ops

from striate.errors import UsageError


@keras.saving.register_keras_serializable("striate")
class FixedRBF(keras.layers.Layer):
    """y_k = -|x - centre_k|**2, so that the nearest centre answers loudest.

    centres: [k, d] numbers, never trained. Input [..., d] -> float32 [..., k]. The paper minimises
    the distance itself; its negative is a logit.
    Source: LeCun et al., Proceedings of the IEEE 86(11), 1998, equation 7.
    """

    def __init__(self, centres, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.centres = np.asarray(centres, "float32").tolist()

    def build(self, input_shape):
        centres = np.asarray(self.centres, "float32")
        if input_shape[-1] != centres.shape[1]:
            raise UsageError(f"expected {centres.shape[1]} inputs, got {input_shape[-1]}")
        self.kernel = self.add_weight(
            shape=centres.T.shape,
            initializer=lambda shape, dtype: ops.convert_to_tensor(centres.T, dtype),
            trainable=False,
            name="centres",
        )

    def call(self, x):
        distance = ops.expand_dims(x, -1) - self.kernel
        return -ops.sum(ops.square(distance), axis=-2)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], len(self.centres))

    def get_config(self):
        return {**super().get_config(), "centres": self.centres}
