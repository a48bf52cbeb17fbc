"""Grouped convolutions traced as one operation each, for ONNX.

Keras on TensorFlow wraps a grouped convolution in a compiled function, since TensorFlow computes
none on a CPU; the ONNX converter does not see into it, and would write a file that no runtime loads
(github.com/onnx/tensorflow-onnx/issues/2099). TensorFlow's operation it knows, and what is traced
for a file need not be computed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial


@contextmanager
def plain_groups(model) -> Iterator[None]:
    """Inside, every grouped convolution of a Keras net is traced as TensorFlow's own."""
    import keras

    grouped = [
        layer
        for layer in model._flatten_layers(include_self=False)
        if isinstance(layer, keras.layers.Conv2D) and layer.groups > 1
    ]
    for layer in grouped:
        layer.convolution_op = partial(convolution, layer)
    try:
        yield
    finally:
        for layer in grouped:
            del layer.convolution_op


def convolution(layer, x, kernel):
    """What a grouped convolution layer computes, as the operation Conv2D: how many groups there are
    says the depth of the kernel."""
    import tensorflow as tf

    return tf.nn.conv2d(
        x,
        kernel,
        strides=layer.strides,
        padding=layer.padding.upper(),
        dilations=layer.dilation_rate,
    )
