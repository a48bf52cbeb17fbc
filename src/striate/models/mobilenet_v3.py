"""MobileNet version 3. Howard et al., "Searching for MobileNetV3", 2019, arXiv:1905.02244.

The inverted residual blocks of version 2, arranged by a search, with squeeze-and-excitation, the
cheap nonlinearity hard-swish in the deeper half, and a last stage that mixes channels after the
map has been averaged to one pixel.

Padding, batch normalisation and the widths of squeeze-and-excitation are those of the authors' code
and keras.applications; torch's implementations pad all four sides by the same
(`symmetric_padding`).
"""

import itertools
import re

from striate.lazy import keras
from striate.models import timm, torchvision
from striate.models.blocks import logits, pad_for_stride, squeeze_excite, stage_out
from striate.models.mobilenet import make_divisible
from striate.pretrained import Layout, Weights
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


# === Weights of keras.applications ===

KERAS_URL = "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v3/"


def keras_names(*, stages: tuple[list, ...], **_) -> dict[str, str]:
    """Our layer -> the layer of keras.applications' MobileNetV3."""
    names = {"stem_conv": "conv", "stem_bn": "conv_bn", "logits": "logits"}
    names |= {"top_conv": "conv_1", "top_bn": "conv_1_bn", "fc1": "conv_2"}
    blocks = [(i, j) for i, rows in enumerate(stages, 1) for j in range(1, len(rows) + 1)]
    for n, (i, j) in enumerate(blocks):
        ours, theirs = f"stage{i}_block{j}", f"expanded_conv_{n}" if n else "expanded_conv"
        for part, kind in (("expand", "expand"), ("dw", "depthwise"), ("project", "project")):
            names[f"{ours}_{part}_conv"] = f"{theirs}_{kind}"
            names[f"{ours}_{part}_bn"] = f"{theirs}_{kind}_bn"
        names[f"{ours}_se_squeeze"] = f"{theirs}_squeeze_excite_conv"
        names[f"{ours}_se_excite"] = f"{theirs}_squeeze_excite_conv_1"
    return names


def old_keras_names(**config) -> dict[str, str]:
    """The same in files of Keras 2, such as the published ones: paths, as in the authors' code."""
    old = (
        (r"_bn$", "/BatchNorm"),
        (r"^(expanded_conv(_\d+)?)_", r"\1/"),
        ("squeeze_excite_conv", "squeeze_excite/Conv"),
        ("^conv", "Conv"),
        ("^logits", "Logits"),
    )
    names = keras_names(**config)
    for new, before in old:
        names = {ours: re.sub(new, before, theirs) for ours, theirs in names.items()}
    return names


KERAS, OLD_KERAS = (
    Layout("keras.applications", names=names, preprocess="tf", top=("fc1",))
    for names in (keras_names, old_keras_names)
)


def keras_weights(name: str, md5: str) -> tuple[Weights]:
    """The published weights of one net."""
    weights = Weights(
        "imagenet",
        url=f"{KERAS_URL}weights_mobilenet_v3_{name}_224_1.0_float.h5",
        hash=f"md5:{md5}",
        preprocess="tf",
        licence="Apache-2.0, the TensorFlow authors",
    )
    return (weights,)


# === Weights of torchvision ===


def torchvision_names(*, stages: tuple[list, ...], **_) -> dict[str, str]:
    """Our layer -> the module of torchvision's MobileNetV3."""
    names = {"stem_conv": "features.0.0", "stem_bn": "features.0.1"}
    names |= {"fc1": "classifier.0", "logits": "classifier.3"}
    n, channels = 1, 16
    for i, rows in enumerate(stages, start=1):
        for j, (_, expanded, width, weigh, _, _) in enumerate(rows, start=1):
            parts = ["expand"] * (expanded != channels) + ["dw"] + ["se"] * weigh + ["project"]
            for place, part in enumerate(parts):
                kinds = ("squeeze", "excite") if part == "se" else ("conv", "bn")
                modules = ("fc1", "fc2") if part == "se" else ("0", "1")
                for kind, module in zip(kinds, modules, strict=True):
                    theirs = f"features.{n}.block.{place}.{module}"
                    names[f"stage{i}_block{j}_{part}_{kind}"] = theirs
            n, channels = n + 1, width
    return {**names, "top_conv": f"features.{n}.0", "top_bn": f"features.{n}.1"}


TORCHVISION = torchvision.layout(torchvision_names, options={"symmetric_padding": True})

# === Weights of timm ===


def timm_names(*, stages: tuple[list, ...], **_) -> dict[str, str]:
    """Our layer -> the module of timm's nets, where blocks of the same width are a stage."""
    rows = [
        (f"stage{i}_block{j}", width)
        for i, stage in enumerate(stages, start=1)
        for j, (_, _, width, *_) in enumerate(stage, start=1)
    ]
    groups = [list(group) for _, group in itertools.groupby(rows, key=lambda row: row[1])]
    top = f"blocks.{len(groups)}.0"
    names = timm.MOBILE | {"top_conv": f"{top}.conv", "top_bn": f"{top}.bn1", "fc1": "conv_head"}
    for i, group in enumerate(groups):
        parts = ("expand", "dw", "project") if i else ("dw", "project")
        for j, (ours, _) in enumerate(group):
            names |= timm.mobile_block(ours, f"blocks.{i}.{j}", *parts)
    return names


TIMM = timm.layout(timm_names, options={"symmetric_padding": True}, epsilon=1e-5)
# Its `tf_` nets, the authors', have the same names: `symmetric_padding=False` tells them apart.
TIMM_TF = timm.layout(timm_names, options={"symmetric_padding": False}, preprocess="tf")

# === Nets ===

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
    layouts=(KERAS, OLD_KERAS, TORCHVISION, TIMM, TIMM_TF),
    variants={
        "mobilenet_v3_large": (
            {"stages": LARGE, "top": (960, 1280)},
            {
                "trainable": 5_483_032,
                "total": 5_507_432,
                "pyramid": ("stage1_out", "stage2_out", "stage3_out", "stage4_out", "stage5_out"),
                "accuracy": Accuracy("ImageNet", 74.04, "torchvision IMAGENET1K_V1", top5=91.34),
                "weights": keras_weights("large", "59e551e166be033d707958cf9e29a6a7"),
            },
        ),
        "mobilenet_v3_small": (
            {"stages": SMALL, "top": (576, 1024)},
            {
                "trainable": 2_542_856,
                "total": 2_554_968,
                "pyramid": ("stage1_out", "stage2_out", "stage3_out", "stage4_out"),
                "accuracy": Accuracy("ImageNet", 67.67, "torchvision IMAGENET1K_V1", top5=87.40),
                "weights": keras_weights("small", "8768d4c2e7dee89b9d02b2d03d65d862"),
            },
        ),
    },
)
