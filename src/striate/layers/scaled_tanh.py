"""The stretched hyperbolic tangent of the first convolutional nets."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("striate")
class ScaledTanh(keras.layers.Layer):
    """y = 1.7159 tanh(2 x / 3): 1 at 1 and -1 at -1, with its strongest curvature there.

    Source: LeCun et al., Proceedings of the IEEE 86(11), 1998, equation 6 and appendix A.
    """

    def call(self, x):
        return 1.7159 * ops.tanh(x * (2 / 3))

    def compute_output_shape(self, input_shape):
        return input_shape
