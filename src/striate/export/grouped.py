"""Grouped convolutions traced as one operation each, for ONNX.

Keras on TensorFlow wraps a grouped convolution in a compiled function, since TensorFlow computes
none on a CPU; the ONNX converter does not see into it, and would write a file that no runtime loads
(github.com/onnx/tensorflow-onnx/issues/2099). TensorFlow's operation it knows, and what is traced
for a file need not be computed.
"""

from contextlib import AbstractContextManager

from striate.export.graph import layers_of, replaced


def plain_groups(model) -> AbstractContextManager[None]:
    """Inside, every grouped convolution of a Keras net is traced as TensorFlow's own."""
    import keras

    grouped = [layer for layer in layers_of(model, keras.layers.Conv2D) if layer.groups > 1]
    return replaced(grouped, "convolution_op", convolution)


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
