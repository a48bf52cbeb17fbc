"""Quantisation-aware training: the net learns with the rounding that int8 will bring.

Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", 2018, arXiv:1712.05877. Weights and activations are rounded to the 256 levels that the
exported file will have, and stay floats; the gradient passes straight through where a number lies
within its range. The weights thus settle where rounding does little harm.

What is rounded is what LiteRT and ONNX Runtime round: kernels with a scale for each output channel,
and activations with one for each tensor, but not between a convolution and the normalisation or
ReLU that becomes one operation with it, and not a small classifier. The net itself is as before:
only what is trained around it rounds. Compute in float32, since half precision is coarser than the
rounding.
"""

from collections.abc import Iterable
from typing import Any

import keras
from keras import ops

from striate.train.checkpoint import arrays_of, assign

LEVELS = 255  # steps from the least to the greatest activation
KERNEL_LEVELS = 127  # steps from 0 to the largest weight, as -128 has no opposite
MOMENTUM = 0.99  # what a range keeps of itself at each step
SMALL = 0.1  # the share of a net's weights up to which its classifier stays in floats


def straight_through(x, rounded):
    """The value of `rounded` with the gradient of x, both of one shape."""
    return x + ops.stop_gradient(rounded - x)


def round_kernel(kernel, axes: tuple[int, ...]):
    """A kernel of whole multiples of a step that is its largest |weight| / 127, of one shape.

    axes: those that one output channel's weights lie along; the others have their own step.
    """
    largest = ops.max(ops.abs(kernel), axis=axes, keepdims=True)
    step = ops.maximum(largest, keras.config.epsilon()) / KERNEL_LEVELS
    return straight_through(kernel, ops.round(kernel / step) * step)


def channel_axes(layer) -> tuple[int, ...]:
    """The axes of a layer's kernel that the weights of one output channel lie along."""
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return (0, 1)
    return tuple(range(len(layer.kernel.shape) - 1))


def round_activations(x, low, high):
    """x in 255 equal steps from low to high, of which one is exactly 0; beyond, the nearer end.

    low, high: scalars; a range without 0 is widened to it. Beyond the range the gradient is 0.
    """
    low, high = ops.minimum(low, 0.0), ops.maximum(high, 0.0)
    step = ops.maximum(high - low, keras.config.epsilon()) / LEVELS
    zero = ops.round(-low / step)
    level = ops.clip(ops.round(x / step) + zero, 0.0, LEVELS)
    within = ops.clip(x, -zero * step, (LEVELS - zero) * step)
    return straight_through(within, (level - zero) * step)


class RoundedActivations(keras.layers.Layer):
    """Rounds activations to the range that training has seen: a running mean of least and most."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.low = self.add_weight(shape=(), initializer="zeros", trainable=False, name="low")
        self.high = self.add_weight(shape=(), initializer="zeros", trainable=False, name="high")

    def call(self, x, training=False):
        if training:
            seen = self.high > self.low  # before the first batch both are 0
            for end, now in ((self.low, ops.min(x)), (self.high, ops.max(x))):
                end.assign(ops.where(seen, MOMENTUM * end + (1 - MOMENTUM) * now, now))
        return round_activations(x, self.low, self.high)


class RoundedKernel(keras.layers.Wrapper):
    """A convolution or dense layer that computes with its own weights, the kernel rounded."""

    def call(self, x):
        kernel, axes = self.layer.kernel, channel_axes(self.layer)
        values = [(v, ops.convert_to_tensor(v)) for v in self.layer.variables if v is not kernel]
        values.append((kernel, round_kernel(ops.convert_to_tensor(kernel), axes)))
        with keras.StatelessScope(state_mapping=values):
            return self.layer(x)


def rounded(net: keras.Model) -> keras.Model:
    """A graph with the layers and weights of a net, which rounds as its int8 form does."""
    within, floats = set(net.operations), small_classifier(net)

    def call(layer, *args, **kwargs):
        if layer in floats:
            return layer(*args, **kwargs)
        y = _of_rounded_kernel(layer)(*args, **kwargs)
        if not _rounds(layer, within):
            return y
        return RoundedActivations(name=f"{layer.name}_rounded")(y)

    graph = keras.models.clone_model(net, clone_function=lambda layer: layer, call_function=call)
    image = keras.Input(net.input.shape[1:], name="normalised")
    logits = graph(RoundedActivations(name="image_rounded")(image))
    return keras.Model(image, logits, name="rounded")


def measure_ranges(graph: keras.Model, batches: Iterable[Any]) -> None:
    """Let all activations that a graph rounds take their ranges from batches of its inputs.

    Nothing else of it changes, neither statistics nor random states.
    """
    layers = [x for x in graph._flatten_layers() if isinstance(x, RoundedActivations)]
    ranges = {id(weight) for layer in layers for weight in layer.weights}
    others = [variable for variable in graph.variables if id(variable) not in ranges]
    before = arrays_of(others)
    for batch in batches:
        graph(batch, training=True)
    assign(others, before)


def small_classifier(net: keras.Model) -> list:
    """The dense layer that a net ends with, if few of its weights are there; or none."""
    last = net.outputs[0]._keras_history.operation
    dense = isinstance(last, keras.layers.Dense)
    return [last] if dense and last.count_params() <= SMALL * net.count_params() else []


LAYERS = keras.layers
WITH_KERNELS = (LAYERS.Conv2D, LAYERS.DepthwiseConv2D, LAYERS.Dense)
ARITHMETIC = (
    *WITH_KERNELS,
    LAYERS.Activation,
    LAYERS.Add,
    LAYERS.AveragePooling2D,
    LAYERS.BatchNormalization,
    LAYERS.Concatenate,
    LAYERS.GlobalAveragePooling2D,
    LAYERS.ReLU,
)


def _of_rounded_kernel(layer):
    if isinstance(layer, WITH_KERNELS):
        return RoundedKernel(layer, name=f"{layer.name}_rounded_kernel")
    return layer


def _rounds(layer, within: set) -> bool:
    """Whether int8 inference rounds a layer's answer: arithmetic, and not fused with what follows.

    within: the layers of the net, since its layers may serve other graphs too.
    """
    users = {node.operation for node in layer._outbound_nodes} & within
    fused = len(users) == 1 and _is_fused(layer, *users)
    return isinstance(layer, ARITHMETIC) and not fused


def _is_fused(layer, after) -> bool:
    """Whether two layers become one operation: ReLU belongs to what is before it."""
    if isinstance(layer, WITH_KERNELS) and isinstance(after, LAYERS.BatchNormalization):
        return True
    relu = getattr(after, "activation", None) in (keras.activations.relu, keras.activations.relu6)
    before = (*WITH_KERNELS, LAYERS.Add, LAYERS.BatchNormalization)
    return isinstance(layer, before) and (isinstance(after, LAYERS.ReLU) or relu)
