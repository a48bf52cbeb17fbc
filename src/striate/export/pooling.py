"""Pooling over three axes traced as pooling over two and then one, for forms that cannot pool 3-D.

LiteRT convolves over three axes but pools over two: its converter refuses MaxPool3D without
TensorFlow's own kernels beside it. The largest of the largest is the largest: nothing is rounded.
"""

from contextlib import AbstractContextManager

from striate.export.graph import layers_of, replaced


def flat_pools(model) -> AbstractContextManager[None]:
    """Inside, every three-dimensional max-pooling of a Keras net computes two flat ones.

    The answers are the same bit for bit.
    """
    import keras

    return replaced(layers_of(model, keras.layers.MaxPooling3D), "call", max_pool)


def max_pool(layer, x):
    """What a MaxPooling3D layer computes of [N, D, H, W, C]: by rows and columns, then by depth."""
    from keras import ops

    (depth, *window), (step, *steps) = layer.pool_size, layer.strides
    _, slices, height, width, channels = x.shape
    flat = ops.reshape(x, (-1, height, width, channels))
    flat = ops.max_pool(flat, tuple(window), strides=tuple(steps), padding=layer.padding)
    _, height, width, _ = flat.shape
    deep = ops.reshape(flat, (-1, slices, height * width, channels))
    deep = ops.max_pool(deep, (depth, 1), strides=(step, 1), padding=layer.padding)
    return ops.reshape(deep, (-1, deep.shape[1], height, width, channels))
