"""Layers whose weights, and if wanted whose inputs, are only +1 and -1.

Rastegari, Ordonez, Redmon, Farhadi, "XNOR-Net: ImageNet Classification Using Binary Convolutional
Neural Networks", 2016, arXiv:1603.05279.

Real weights W are kept for training; the layer computes with sign(W) and multiplies each filter's
answers by alpha, the mean of its |W|. The products of signs add up to integers below 2**24, which
float32 holds exactly: bit-packed kernels give the same integers.
"""

import keras
from keras import ops

from striate.errors import UsageError, check_whole
from striate.layers.shapes import check_counts, check_window


def sign(x):
    """+1 where x >= 0 (also where it is -0.0), -1 elsewhere; any shape.

    The gradient is that of clipping x to -1..1: it passes straight through where |x| <= 1.
    """
    signs = ops.cast(ops.where(x >= 0, 1.0, -1.0), x.dtype)
    clipped = ops.clip(x, -1.0, 1.0)
    # The bracket is exactly 0 and there only to be differentiated; so the signs stay exact.
    return signs + (clipped - ops.stop_gradient(clipped))


@keras.saving.register_keras_serializable("striate")
class CentredKernel(keras.constraints.Constraint):
    """After each step of training, weights with mean 0 over the inputs, none beyond -1 or 1.

    Beyond 1 a weight would have no gradient any more. As in the paper's code.
    """

    def __call__(self, w):
        return ops.clip(w - ops.mean(w, axis=-2, keepdims=True), -1.0, 1.0)


class BinaryLayer(keras.layers.Layer):
    """What binary layers share: a real kernel [..., c, units] of which the signs are used.

    binary_inputs: the inputs' signs are used too (XNOR), not the inputs themselves (BWN).
    scale: multiply each unit's answers by the mean |W| of its weights; without it, by nothing.
    """

    def __init__(
        self,
        units: int,
        *,
        binary_inputs: bool = True,
        scale: bool = True,
        use_bias: bool = False,
        kernel_initializer="he_normal",
        bias_initializer="zeros",
        kernel_constraint=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_counts(units=units)
        self.units = units
        self.binary_inputs = binary_inputs
        self.scale = scale
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)

    def add_weights(self, kernel_shape: tuple[int, ...]) -> None:
        self.kernel = self.add_weight(
            shape=kernel_shape,
            initializer=self.kernel_initializer,
            constraint=self.kernel_constraint,
            name="kernel",
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                shape=(self.units,), initializer=self.bias_initializer, name="bias"
            )

    def alpha(self):
        """The scale of each unit: the mean |W| of its weights, [units]."""
        kernel = ops.convert_to_tensor(self.kernel)
        return ops.mean(ops.abs(kernel), axis=tuple(range(len(kernel.shape) - 1)))

    def finish(self, products):
        """Sums of products of signs -> the layer's answers."""
        if self.scale:
            products = products * ops.cast(self.alpha(), products.dtype)
        if self.use_bias:
            products = products + ops.cast(self.bias, products.dtype)
        return products

    def signs_of_kernel(self, dtype):
        return sign(ops.cast(self.kernel, dtype))

    def get_config(self):
        return {
            **super().get_config(),
            "binary_inputs": self.binary_inputs,
            "scale": self.scale,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_constraint": keras.constraints.serialize(self.kernel_constraint),
        }


@keras.saving.register_keras_serializable("striate")
class BinaryDense(BinaryLayer):
    """[N, c] -> [N, units]: alpha * (sign(x) sign(W)) + bias."""

    def build(self, input_shape):
        self.add_weights((input_shape[-1], self.units))

    def call(self, x):
        signs = self.signs_of_kernel(x.dtype)
        return self.finish(ops.matmul(sign(x) if self.binary_inputs else x, signs))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable("striate")
class BinaryConv2D(BinaryLayer):
    """[N, h, w, c] -> [N, h', w', filters]: alpha * (sign(x) convolved with sign(W)) + bias.

    kernel_size: one number, the kernel is square. pad: rows and columns added on every side after
    the signs are taken, of pad_value: 0, which adds nothing to a sum, or 1, a bit like the others.
    activation_scale: multiply by the paper's K as well, the mean |x| under the kernel.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        *,
        strides: int = 1,
        pad: int = 0,
        pad_value: int = 0,
        activation_scale: bool = False,
        **kwargs,
    ):
        super().__init__(filters, **kwargs)
        check_counts(kernel_size=kernel_size, strides=strides)
        check_whole("pad", pad)
        if pad_value not in (0, 1):
            raise UsageError(f"expected a pad_value of 0 or 1, got {pad_value!r}")
        if activation_scale and not self.binary_inputs:
            raise UsageError("activation_scale is the scale of binary inputs; these stay real")
        self.kernel_size = kernel_size
        self.strides = strides
        self.pad = pad
        self.pad_value = pad_value
        self.activation_scale = activation_scale

    def build(self, input_shape):
        check_window(input_shape, self.kernel_size - 2 * self.pad)
        self.add_weights((self.kernel_size, self.kernel_size, input_shape[-1], self.units))

    def call(self, x):
        signs = sign(x) if self.binary_inputs else x
        products = self._slide(signs, self.signs_of_kernel(x.dtype), self.pad_value)
        if self.activation_scale:
            products = products * self.input_scale(x)
        return self.finish(products)

    def input_scale(self, x):
        """K: the mean |x| over the channels and the pixels under the kernel, [N, h', w', 1]."""
        side = self.kernel_size
        box = ops.full((side, side, 1, 1), 1 / side**2, dtype=x.dtype)
        return self._slide(ops.mean(ops.abs(x), axis=-1, keepdims=True), box, 0)

    def _slide(self, x, kernel, pad_value: int):
        if self.pad:
            around = (self.pad, self.pad)
            x = ops.pad(x, ((0, 0), around, around, (0, 0)), constant_values=pad_value)
        return ops.conv(
            x, kernel, strides=self.strides, padding="valid", data_format="channels_last"
        )

    def compute_output_shape(self, input_shape):
        n, *sides, _ = input_shape
        reach = 2 * self.pad - self.kernel_size
        sides = [side and (side + reach) // self.strides + 1 for side in sides]
        return (n, *sides, self.units)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.units,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "pad": self.pad,
            "pad_value": self.pad_value,
            "activation_scale": self.activation_scale,
        }
