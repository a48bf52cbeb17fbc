"""Grouped convolutions traced as plain ones, for forms that cannot take groups.

Keras on TensorFlow wraps a grouped convolution in a compiled function, which the ONNX converter
does not see into: it would write a file that no runtime loads
(github.com/onnx/tensorflow-onnx/issues/2099). Split, convolve and concatenate is the same sum.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial


@contextmanager
def split_groups(model) -> Iterator[None]:
    """Inside, every grouped convolution of a Keras net computes one plain convolution a group.

    Its weights stay where they are, and its answers the same bit for bit. A graph traced inside
    keeps the plain convolutions.
    """
    import keras

    grouped = [
        layer
        for layer in model._flatten_layers(include_self=False)
        if isinstance(layer, keras.layers.Conv2D) and layer.groups > 1
    ]
    for layer in grouped:
        layer.convolution_op = partial(split_convolution, layer)
    try:
        yield
    finally:
        for layer in grouped:
            del layer.convolution_op


def split_convolution(layer, x, kernel):
    """What a grouped convolution layer computes, as `layer.groups` convolutions side by side."""
    from keras import ops

    parts = ops.split(x, layer.groups, axis=-1)
    kernels = ops.split(kernel, layer.groups, axis=-1)
    convolved = [
        ops.conv(
            part,
            its_kernel,
            strides=list(layer.strides),
            padding=layer.padding,
            dilation_rate=layer.dilation_rate,
            data_format="channels_last",
        )
        for part, its_kernel in zip(parts, kernels, strict=True)
    ]
    return ops.concatenate(convolved, axis=-1)
