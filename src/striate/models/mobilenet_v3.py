"""MobileNet version 3. Howard et al., "Searching for MobileNetV3", 2019, arXiv:1905.02244.

The inverted residual blocks of version 2, arranged by a search, with squeeze-and-excitation, the
cheap nonlinearity hard-swish in the deeper half, and a last stage that mixes channels after the
map has been averaged to one pixel.

Padding, batch normalisation and the widths of squeeze-and-excitation are those of the authors' code
and keras.applications; torch's implementations pad all four sides by the same
(`symmetric_padding`).
"""

from striate.lazy import keras
from striate.models.blocks import logits, pad_for_stride, stage_out
from striate.models.mobilenet import make_divisible
from striate.registry import Accuracy, register_family

RE, HS = "relu", "hard_silu"  # Keras calls hard-swish hard_silu

# Tables 1 and 2: kernel, expanded width, output width, squeeze-and-excitation, nonlinearity,
# stride; a list per resolution.
LARGE = (
    [(3, 16, 16, False, RE, 1)],
    [(3, 64, 24, False, RE, 2), (3, 72, 24, False, RE, 1)],
    [(5, 72, 40, True, RE, 2), (5, 120, 40, True, RE, 1), (5, 120, 40, True, RE, 1)],
    [
        *((3, 240, 80, False, HS, 2), (3, 200, 80, False, HS, 1)),
        *((3, 184, 80, False, HS, 1), (3, 184, 80, False, HS, 1)),
        *((3, 480, 112, True, HS, 1), (3, 672, 112, True, HS, 1)),
    ],
    [(5, 672, 160, True, HS, 2), (5, 960, 160, True, HS, 1), (5, 960, 160, True, HS, 1)],
)
SMALL = (
    [(3, 16, 16, True, RE, 2)],
    [(3, 72, 24, False, RE, 2), (3, 88, 24, False, RE, 1)],
    [
        *((5, 96, 40, True, HS, 2), (5, 240, 40, True, HS, 1), (5, 240, 40, True, HS, 1)),
        *((5, 120, 48, True, HS, 1), (5, 144, 48, True, HS, 1)),
    ],
    [(5, 288, 96, True, HS, 2), (5, 576, 96, True, HS, 1), (5, 576, 96, True, HS, 1)],
)


def bn_act(x, activation: str | None, *, momentum: float = 0.999, name: str):
    """Batch normalisation as in the authors' code (epsilon 1e-3) and an optional nonlinearity."""
    x = keras.layers.BatchNormalization(epsilon=1e-3, momentum=momentum, name=f"{name}_bn")(x)
    return keras.layers.Activation(activation, name=f"{name}_act")(x) if activation else x


def pointwise(x, filters: int, activation: str | None, *, momentum: float = 0.999, name: str):
    """1x1 convolution: mixes the channels of each pixel."""
    x = keras.layers.Conv2D(
        filters, 1, use_bias=False, kernel_initializer="he_normal", name=f"{name}_conv"
    )(x)
    return bn_act(x, activation, momentum=momentum, name=name)


def stem(x, filters: int, activation: str, *, symmetric: bool, momentum: float = 0.999):
    """An ordinary 3x3 convolution of stride 2."""
    x, padding = pad_for_stride(x, 3, stride=2, symmetric=symmetric, name="stem")
    x = keras.layers.Conv2D(
        filters,
        3,
        strides=2,
        padding=padding,
        use_bias=False,
        kernel_initializer="he_normal",
        name="stem_conv",
    )(x)
    return bn_act(x, activation, momentum=momentum, name="stem")


def depthwise(
    x,
    kernel: int,
    activation: str | None,
    *,
    stride: int,
    symmetric: bool,
    momentum: float = 0.999,
    name: str,
):
    """Convolution of each channel by itself."""
    x, padding = pad_for_stride(x, kernel, stride=stride, symmetric=symmetric, name=name)
    x = keras.layers.DepthwiseConv2D(
        kernel,
        strides=stride,
        padding=padding,
        use_bias=False,
        depthwise_initializer="he_normal",
        name=f"{name}_conv",
    )(x)
    return bn_act(x, activation, momentum=momentum, name=name)


def squeeze_excite(x, squeezed: int, *, gate: str, name: str):
    """Scale each channel by what the mean of all channels says of it (arXiv:1709.01507).

    gate: the nonlinearity that ends in 0 to 1, `sigmoid` or `hard_sigmoid`.
    """
    width = x.shape[-1]
    y = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_mean")(x)
    y = keras.layers.Conv2D(
        squeezed, 1, activation="relu", kernel_initializer="he_normal", name=f"{name}_squeeze"
    )(y)
    y = keras.layers.Conv2D(width, 1, activation=gate, name=f"{name}_excite")(y)
    return keras.layers.Multiply(name=f"{name}_scale")([x, y])


def inverted_residual(x, row: tuple, *, symmetric: bool, name: str):
    """Widen, filter depthwise, weigh the channels, thin again; add the input where shapes agree."""
    kernel, expanded, width, weigh, activation, stride = row
    y = x
    if expanded != x.shape[-1]:
        y = pointwise(y, expanded, activation, name=f"{name}_expand")
    y = depthwise(y, kernel, activation, stride=stride, symmetric=symmetric, name=f"{name}_dw")
    if weigh:
        squeezed = make_divisible(expanded / 4)
        y = squeeze_excite(y, squeezed, gate="hard_sigmoid", name=f"{name}_se")
    y = pointwise(y, width, None, name=f"{name}_project")
    if stride > 1 or x.shape[-1] != width:
        return y
    return keras.layers.Add(name=f"{name}_add")([x, y])


def mobilenet_v3(
    inputs,
    *,
    num_classes: int,
    stages: tuple[list, ...],
    top: tuple[int, int],
    dropout: float = 0.2,
    symmetric_padding: bool = False,
):
    """A strided convolution, inverted residuals, and a classifier with one hidden layer.

    dropout: before the classifier. symmetric_padding: strides pad all sides alike, as torch's do.
    """
    x = stem(inputs, 16, HS, symmetric=symmetric_padding)
    for i, rows in enumerate(stages, start=1):
        for j, row in enumerate(rows, start=1):
            x = inverted_residual(x, row, symmetric=symmetric_padding, name=f"stage{i}_block{j}")
        x = stage_out(x, i)
    channels, hidden = top
    x = pointwise(x, channels, HS, name="top")
    x = keras.layers.GlobalAveragePooling2D(name="top_pool")(x)
    x = keras.layers.Dense(hidden, kernel_initializer="he_normal", name="fc1")(x)
    x = keras.layers.Activation(HS, name="features")(x)
    return logits(x, num_classes, dropout=dropout)


register_family(
    mobilenet_v3,
    family="mobilenet",
    year=2019,
    paper="1905.02244",
    title="Searching for MobileNetV3",
    input_shape=(224, 224, 3),
    classes=1000,
    min_size=17,
    first_conv="stem_conv",
    cam_layer="top_act",
    preprocess="tf",
    variants={
        "mobilenet_v3_large": (
            {"stages": LARGE, "top": (960, 1280)},
            {
                "trainable": 5_483_032,
                "total": 5_507_432,
                "pyramid": ("stage1_out", "stage2_out", "stage3_out", "stage4_out", "stage5_out"),
                "accuracy": Accuracy("ImageNet", 74.04, "torchvision IMAGENET1K_V1", top5=91.34),
            },
        ),
        "mobilenet_v3_small": (
            {"stages": SMALL, "top": (576, 1024)},
            {
                "trainable": 2_542_856,
                "total": 2_554_968,
                "pyramid": ("stage1_out", "stage2_out", "stage3_out", "stage4_out"),
                "accuracy": Accuracy("ImageNet", 67.67, "torchvision IMAGENET1K_V1", top5=87.40),
            },
        ),
    },
)
