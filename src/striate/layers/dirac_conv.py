"""A convolution around the identity.

Zagoruyko, Komodakis, "DiracNets: Training Very Deep Neural Networks Without Skip-Connections",
2017, arXiv:1706.00388.
"""

import keras
import numpy as np
from keras import ops

from striate.errors import UsageError


def dirac_delta(kernel: int, inputs: int, filters: int) -> np.ndarray:
    """The kernel [kernel, kernel, inputs, filters] whose convolution gives back its input.

    Where one side has more channels, the identity is repeated along it; what does not fill a whole
    repetition stays 0.
    """
    delta = np.zeros((kernel, kernel, inputs, filters), "float32")
    fewer = min(inputs, filters)
    for i in range(max(inputs, filters) // fewer * fewer):
        delta[kernel // 2, kernel // 2, i % inputs, i % filters] = 1
    return delta


@keras.saving.register_keras_serializable("striate")
class DiracConv2D(keras.layers.Conv2D):
    """A convolution with the kernel alpha * delta + beta * W / ||W||, one alpha and beta a filter.

    delta is the kernel of the identity, ||W|| the Euclidean norm of each filter; alpha starts at 1
    and beta at 0.1. A square kernel, channels last, no groups. `folded_kernel()` is the plain
    kernel that it amounts to.
    """

    def build(self, input_shape):
        super().build(input_shape)
        if self.groups != 1 or self.kernel_size[0] != self.kernel_size[1]:
            raise UsageError("expected a square kernel and one group")
        if self.data_format != "channels_last":
            raise UsageError(f"expected channels_last, got {self.data_format}")
        self.alpha = self.add_weight(shape=(self.filters,), initializer="ones", name="alpha")
        self.beta = self.add_weight(
            shape=(self.filters,), initializer=keras.initializers.Constant(0.1), name="beta"
        )
        self.delta = dirac_delta(self.kernel_size[0], input_shape[-1], self.filters)

    def folded_kernel(self):
        """The kernel that the layer convolves with: [kernel, kernel, inputs, filters]."""
        kernel = ops.convert_to_tensor(self.kernel)
        norm = ops.sqrt(ops.sum(ops.square(kernel), axis=(0, 1, 2)))
        alpha, beta = ops.convert_to_tensor(self.alpha), ops.convert_to_tensor(self.beta)
        delta = ops.cast(self.delta, kernel.dtype)
        return alpha * delta + beta * kernel / ops.maximum(norm, 1e-12)

    def call(self, inputs):
        outputs = self.convolution_op(inputs, self.folded_kernel())
        outputs = outputs + self.bias if self.use_bias else outputs
        return outputs if self.activation is None else self.activation(outputs)

    # Keras' convolution stores its kernel and bias alone; these store alpha and beta as well.
    def save_own_variables(self, store):
        keras.layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store):
        keras.layers.Layer.load_own_variables(self, store)
