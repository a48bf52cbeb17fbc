"""First values of weights that Keras does not offer; imported by the nets that begin so."""

import random

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable("striate")
class DeltaOrthogonal(keras.initializers.Initializer):
    """A convolution that begins as an orthogonal mixing of the channels of each pixel.

    All of the kernel [h, w, c_in, c_out] is zero but its centre, gain times a random matrix with
    orthonormal rows: the signal keeps its length through any number of such layers. c_out must be
    at least c_in. Source: Xiao et al., arXiv:1806.05393, algorithm 2.
    """

    def __init__(self, gain: float = 1.0, seed=None):
        self.gain = gain
        self.seed = random.randint(1, 10**9) if seed is None else seed

    def __call__(self, shape, dtype=None):
        height, width, inputs, outputs = shape
        if inputs > outputs:
            raise ValueError(f"expected at least as many outputs as inputs, got {shape}")
        mixing = keras.initializers.Orthogonal(self.gain, seed=self.seed)((outputs, inputs), dtype)
        above, left = (height - 1) // 2, (width - 1) // 2
        pads = [(above, height - 1 - above), (left, width - 1 - left), (0, 0), (0, 0)]
        return ops.pad(ops.transpose(mixing)[None, None], pads)

    def get_config(self):
        return {"gain": self.gain, "seed": self.seed}


@keras.saving.register_keras_serializable("striate")
class Bilinear(keras.initializers.Initializer):
    """A transposed convolution [k, k, c_out, c_in] that begins as bilinear upsampling by k / 2.

    Map i goes to map i only. Source: Long, Shelhamer, Darrell, arXiv:1411.4038, section 3.3.
    """

    def __call__(self, shape, dtype=None):
        side, _, outputs, inputs = shape
        factor = (side + 1) // 2
        centre = factor - 1 if side % 2 else factor - 0.5
        ramp = 1 - np.abs(np.arange(side) - centre) / factor
        kernel = np.outer(ramp, ramp)[:, :, None, None] * np.eye(outputs, inputs)
        return ops.convert_to_tensor(kernel, dtype or keras.config.floatx())

    def get_config(self):
        return {}
