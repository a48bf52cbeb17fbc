"""ShuffleNet. Zhang, Zhou, Lin, Sun, "ShuffleNet: An Extremely Efficient Convolutional Neural
Network for Mobile Devices", 2017, arXiv:1707.01083.

Where a net is small, its 1x1 convolutions cost the most, so they are grouped; and channels are
shuffled between two of them, or no group would ever hear of another. More groups leave room for
more channels at the same cost.
"""

from striate.lazy import keras
from striate.models import pytorchcv
from striate.models.blocks import batch_norm, conv_bn, max_pool, pool_and_classify, stage_out
from striate.registry import Accuracy, register_family


def average_pool(x, *, name: str):
    """3x3 average pooling of stride 2, the zeros of the padding counted."""
    x = keras.layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
    return keras.layers.AveragePooling2D(3, strides=2, name=f"{name}_average")(x)


def unit(x, width: int, *, groups: int, first_groups: int, stride: int, name: str):
    """Grouped 1x1, shuffle, depthwise 3x3, grouped 1x1 on a shortcut (Figure 2).

    At stride 2 the shortcut is an average pooling, and the two are concatenated to `width`.
    """
    from striate.layers import ChannelShuffle

    middle = width // 4
    y = conv_bn(x, middle, 1, groups=first_groups, name=f"{name}_reduce")
    y = ChannelShuffle(groups, name=f"{name}_shuffle")(y)
    if stride > 1:
        y = keras.layers.ZeroPadding2D(1, name=f"{name}_dw_pad")(y)
    y = keras.layers.DepthwiseConv2D(
        3,
        strides=stride,
        padding="valid" if stride > 1 else "same",
        use_bias=False,
        depthwise_initializer="he_normal",
        name=f"{name}_dw_conv",
    )(y)
    y = batch_norm(y, name=f"{name}_dw")
    if stride == 1:
        y = conv_bn(y, width, 1, groups=groups, relu=False, name=f"{name}_expand")
        y = keras.layers.Add(name=f"{name}_add")([x, y])
    else:
        missing = width - x.shape[-1]
        y = conv_bn(y, missing, 1, groups=groups, relu=False, name=f"{name}_expand")
        y = keras.layers.Concatenate(name=f"{name}_concat")([y, average_pool(x, name=name)])
    return keras.layers.ReLU(name=f"{name}_relu")(y)


def shufflenet_v1(
    inputs,
    *,
    num_classes: int,
    groups: int,
    width: int,
    repeats: tuple[int, int, int] = (4, 8, 4),
    dropout: float = 0.0,
):
    """A strided convolution, three stages of shuffle units, and a linear classifier.

    The very first 1x1 convolution is not grouped: it has 24 channels.

    repeats: units of each stage, as in Table 1. dropout: before the classifier.
    """
    x = conv_bn(inputs, 24, 3, stride=2, name="stem")
    x = max_pool(x, 3, stride=2, pad=1, name="stem_pool")
    for i, units in enumerate(repeats, start=1):
        for j in range(1, units + 1):
            x = unit(
                x,
                width,
                groups=groups,
                first_groups=1 if (i, j) == (1, 1) else groups,
                stride=2 if j == 1 else 1,
                name=f"stage{i}_block{j}",
            )
        x = stage_out(x, i)
        width *= 2
    return pool_and_classify(x, num_classes, dropout=dropout)


# === Weights of pytorchcv ===


def pytorchcv_names(**_) -> dict[str, str]:
    """Our layer -> the module of pytorchcv's nets."""
    parts = {
        f"{ours}_{kind}": f"{theirs}_{kind}{n}"
        for n, (ours, theirs) in enumerate(
            (("reduce", "compress"), ("dw", "dw"), ("expand", "expand")), start=1
        )
        for kind in ("conv", "bn")
    }
    return {
        **pytorchcv.conv_bn({"stem": "features.init_block"}),
        **pytorchcv.units((4, 8, 4), parts),
        "logits": "output",
    }


PYTORCHCV = pytorchcv.layout(pytorchcv_names)

# === Nets ===

register_family(
    shufflenet_v1,
    family="shufflenet",
    year=2017,
    paper="1707.01083",
    title="ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile Devices",
    input_shape=(224, 224, 3),
    classes=1000,
    min_size=17,
    first_conv="stem_conv",
    cam_layer="stage3_out",
    pyramid=("stage1_out", "stage2_out", "stage3_out"),
    preprocess="torch",
    reduced={"repeats": (2, 1, 2)},
    layouts=(PYTORCHCV,),
    variants={
        "shufflenet_v1_g1": (
            {"groups": 1, "width": 144},
            {"trainable": 1_531_936, "total": 1_546_624},
        ),
        "shufflenet_v1_g2": (
            {"groups": 2, "width": 200},
            {"trainable": 1_733_848, "total": 1_754_248},
        ),
        "shufflenet_v1_g3": (
            {"groups": 3, "width": 240},
            {
                "trainable": 1_865_728,
                "total": 1_890_208,
                "accuracy": Accuracy("ImageNet", 67.4, "the paper, Table 2"),
            },
        ),
        "shufflenet_v1_g4": (
            {"groups": 4, "width": 272},
            {"trainable": 1_968_344, "total": 1_996_088},
        ),
        "shufflenet_v1_g8": (
            {"groups": 8, "width": 384},
            {"trainable": 2_434_768, "total": 2_473_936},
        ),
    },
)
