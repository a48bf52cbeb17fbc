"""Pieces that several families share: each takes a tensor and returns a tensor.

Nets born in torch or Caffe pad symmetrically, nets born in TensorFlow pad `same`, which at stride 2
puts the odd row at the bottom and the odd column at the right.
"""

from typing import Any

from striate.lazy import keras

# He et al. 2015, arXiv:1502.01852: the scale at which ReLU nets keep their signal.
HE = "he_normal"


def conv(
    x,
    filters: int,
    kernel: int,
    *,
    stride: int = 1,
    groups: int = 1,
    bias: bool = False,
    name: str,
    **start: Any,
):
    """Convolution with symmetric zero padding (kernel // 2 on every side).

    start: the initializers of its weights, where they are not He's.
    """
    if stride > 1 and kernel > 1:
        x = keras.layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x)
    return keras.layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        padding="valid" if stride > 1 else "same",
        groups=groups,
        use_bias=bias,
        name=f"{name}_conv",
        **{"kernel_initializer": HE, **start},
    )(x)


def pad_for_stride(x, kernel: int, *, stride: int, symmetric: bool, name: str):
    """(x, the `padding` of the layer that follows): `same`, or, if symmetric, as torch pads."""
    if stride == 1 or not symmetric:  # at stride 1 the two agree
        return x, "same"
    return keras.layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x), "valid"


def conv_bn(
    x,
    filters: int,
    kernel: int,
    *,
    stride: int = 1,
    groups: int = 1,
    bias: bool = False,
    relu: bool = True,
    name: str,
):
    """Convolution, batch normalisation as in torch (epsilon 1e-5, momentum 0.9), optional ReLU."""
    x = conv(x, filters, kernel, stride=stride, groups=groups, bias=bias, name=name)
    x = batch_norm(x, name=name)
    return keras.layers.ReLU(name=f"{name}_relu")(x) if relu else x


def batch_norm(x, *, epsilon: float = 1e-5, name: str):
    """Batch normalisation as in torch (momentum 0.9)."""
    return keras.layers.BatchNormalization(epsilon=epsilon, momentum=0.9, name=f"{name}_bn")(x)


def bn_relu(x, *, epsilon: float = 1e-5, name: str):
    """Batch normalisation as in torch and ReLU, where they precede a convolution."""
    x = batch_norm(x, epsilon=epsilon, name=name)
    return keras.layers.ReLU(name=f"{name}_relu")(x)


def drop(x, rate: float, *, name: str):
    """Dropout; no layer at all at a rate of 0."""
    return keras.layers.Dropout(rate, name=f"{name}_dropout")(x) if rate else x


def max_pool(x, size: int, *, stride: int, pad: int = 0, ceil_mode: bool = False, name: str):
    """Max pooling of a ReLU's output, so that a zero in the padding never wins.

    pad: on every side, as in torch. ceil_mode: a last window that overhangs the right and bottom
    border counts too, as in Caffe and torch's ceil_mode; Keras would drop it.
    """
    if pad or ceil_mode:
        overhang = pad + (stride - 1 if ceil_mode else 0)
        x = keras.layers.ZeroPadding2D(((pad, overhang), (pad, overhang)), name=f"{name}_pad")(x)
    return keras.layers.MaxPooling2D(size, strides=stride, name=name)(x)


def squeeze_excite(x, squeezed: int, *, gate: str = "sigmoid", name: str):
    """Scale each channel by what the means of all channels say of it (arXiv:1709.01507).

    squeezed: channels between the two layers that say so. gate: the nonlinearity that ends in 0 to
    1, `sigmoid` or `hard_sigmoid`. SENet's own nets keep their authors' names, in `senet.py`.
    """
    width = x.shape[-1]
    y = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_mean")(x)
    y = keras.layers.Conv2D(
        squeezed, 1, activation="relu", kernel_initializer=HE, name=f"{name}_squeeze"
    )(y)
    y = keras.layers.Conv2D(width, 1, activation=gate, name=f"{name}_excite")(y)
    return keras.layers.Multiply(name=f"{name}_scale")([x, y])


def adaptive_average_pool(x, size: int, *, name: str):
    """Average a map to size x size whatever its own size; a map of that size stays as it is."""
    if x.shape[1:3] == (size, size):
        return x
    if x.shape[1:3] == (1, 1):  # every window holds the one pixel; Keras' layer cannot trace that
        return keras.layers.UpSampling2D(size, name=name)(x)
    return keras.layers.AdaptiveAveragePooling2D(size, name=name)(x)


def stage_out(x, stage: int):
    """Give the output of a stage its public name, `stage{i}_out`; it computes nothing."""
    return keras.layers.Identity(name=f"stage{stage}_out")(x)


def logits(x, num_classes: int, *, dropout: float = 0.0, **dense: Any):
    """A linear classifier on a vector: float32 logits, also under mixed precision."""
    x = drop(x, dropout, name="logits")
    return keras.layers.Dense(num_classes, dtype="float32", name="logits", **dense)(x)


def pool_and_classify(x, num_classes: int, *, dropout: float = 0.0):
    """Global average pooling (`features`) and a linear classifier (`logits`)."""
    x = keras.layers.GlobalAveragePooling2D(name="features")(x)
    return logits(x, num_classes, dropout=dropout)
