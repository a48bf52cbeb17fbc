"""Inception with batch normalisation ("Inception v2"). Ioffe, Szegedy, "Batch Normalization:
Accelerating Deep Network Training by Reducing Internal Covariate Shift", 2015, arXiv:1502.03167.

GoogLeNet with batch normalisation after every convolution, two 3x3 filters in place of each 5x5,
and modules of stride 2 between the stages instead of poolings.

Differs from the paper: convolutions keep a bias before batch normalisation, as in the Caffe port
whose weights people have.
"""

from striate.lazy import keras
from striate.models import pytorchcv
from striate.models.blocks import conv_bn, max_pool, pool_and_classify, stage_out
from striate.registry import Accuracy, register_family

# 1x1, 3x3 reduce, 3x3, double 3x3 reduce, double 3x3, pool projection of each module; a module
# without 1x1 and projection has stride 2 and leads into its stage.
STAGES = (
    ((64, 64, 64, 64, 96, 32), (64, 64, 96, 64, 96, 64)),
    (
        (0, 128, 160, 64, 96, 0),
        (224, 64, 96, 96, 128, 128),
        (192, 96, 128, 96, 128, 128),
        (160, 128, 160, 128, 160, 128),
        (96, 128, 192, 160, 192, 128),
    ),
    (
        (0, 128, 192, 192, 256, 0),
        (352, 192, 320, 160, 224, 128),
        (352, 192, 320, 192, 224, 128),
    ),
)


def average_pool(x, *, name: str):
    """3x3 averages in which the zeros beyond the border count, as in Caffe."""
    x = keras.layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
    return keras.layers.AveragePooling2D(3, strides=1, name=name)(x)


def towers(x, widths: tuple[int, ...], *, stride: int, bias: bool, name: str) -> list:
    """The 3x3 branch and the double 3x3 branch."""
    _, medium_reduce, medium, large_reduce, large, _ = widths
    y = conv_bn(x, medium_reduce, 1, bias=bias, name=f"{name}_3x3_reduce")
    y = conv_bn(y, medium, 3, stride=stride, bias=bias, name=f"{name}_3x3")
    z = conv_bn(x, large_reduce, 1, bias=bias, name=f"{name}_double_reduce")
    z = conv_bn(z, large, 3, bias=bias, name=f"{name}_double_1")
    z = conv_bn(z, large, 3, stride=stride, bias=bias, name=f"{name}_double_2")
    return [y, z]


def inception(x, widths: tuple[int, ...], *, pool: str, bias: bool, name: str):
    """1x1, 3x3, double 3x3 and a projected average or max pooling."""
    small, projection = widths[0], widths[-1]
    first = conv_bn(x, small, 1, bias=bias, name=f"{name}_1x1")
    second, third = towers(x, widths, stride=1, bias=bias, name=name)
    if pool == "average":
        fourth = average_pool(x, name=f"{name}_pool")
    else:
        fourth = max_pool(x, 3, stride=1, pad=1, name=f"{name}_pool")
    fourth = conv_bn(fourth, projection, 1, bias=bias, name=f"{name}_pool_proj")
    return keras.layers.Concatenate(name=f"{name}_concat")([first, second, third, fourth])


def reduction(x, widths: tuple[int, ...], *, bias: bool, name: str):
    """3x3 and double 3x3 of stride 2, and a pooling that passes the input."""
    branches = towers(x, widths, stride=2, bias=bias, name=name)
    # On maps of even sides, as at 224 pixels, `same` is Caffe's pooling; on odd ones it still fits.
    pool = keras.layers.MaxPooling2D(3, strides=2, padding="same", name=f"{name}_pool")(x)
    return keras.layers.Concatenate(name=f"{name}_concat")([*branches, pool])


def bn_inception(inputs, *, num_classes: int, conv_bias: bool = True, dropout: float = 0.0):
    """Three stages of Inception modules; the last one pools by the maximum.

    conv_bias: before batch normalisation, as in Caffe; the paper has none.
    dropout: before the classifier.
    """
    x = conv_bn(inputs, 64, 7, stride=2, bias=conv_bias, name="stem_1")
    x = max_pool(x, 3, stride=2, ceil_mode=True, name="stem_pool1")
    x = conv_bn(x, 64, 1, bias=conv_bias, name="stem_2")
    x = conv_bn(x, 192, 3, bias=conv_bias, name="stem_3")
    x = max_pool(x, 3, stride=2, ceil_mode=True, name="stem_pool2")
    for i, stage in enumerate(STAGES, start=1):
        for j, widths in enumerate(stage, start=1):
            name = f"stage{i}_block{j}"
            if not widths[0]:
                x = reduction(x, widths, bias=conv_bias, name=name)
                continue
            pool = "max" if (i, j) == (3, 3) else "average"
            x = inception(x, widths, pool=pool, bias=conv_bias, name=name)
        x = stage_out(x, i)
    return pool_and_classify(x, num_classes, dropout=dropout)


# === Weights of pytorchcv ===


def pytorchcv_names(**_) -> dict[str, str]:
    """Our layer -> the module of pytorchcv's net; the branches of a reduction count from 3x3."""
    stem = "features.init_block"
    parts = {"stem_1": f"{stem}.conv1", "stem_2": f"{stem}.conv2.conv1"}
    parts["stem_3"] = f"{stem}.conv2.conv2"
    for i, stage in enumerate(STAGES, start=1):
        for j, widths in enumerate(stage, start=1):
            ours, theirs = f"stage{i}_block{j}", f"features.stage{i}.unit{j}.branches.branch"
            medium = 2 if widths[0] else 1
            parts[f"{ours}_1x1"] = f"{theirs}1"
            parts[f"{ours}_3x3_reduce"] = f"{theirs}{medium}.conv1"
            parts[f"{ours}_3x3"] = f"{theirs}{medium}.conv2"
            parts[f"{ours}_double_reduce"] = f"{theirs}{medium + 1}.conv1"
            parts[f"{ours}_double_1"] = f"{theirs}{medium + 1}.conv2"
            parts[f"{ours}_double_2"] = f"{theirs}{medium + 1}.conv3"
            parts[f"{ours}_pool_proj"] = f"{theirs}4.conv"
    return {**pytorchcv.conv_bn(parts), "logits": "output"}


PYTORCHCV = pytorchcv.layout(pytorchcv_names)

# === Nets ===

register_family(
    bn_inception,
    family="inception",
    year=2015,
    paper="1502.03167",
    title="Batch Normalization: Accelerating Deep Network Training by Reducing Internal "
    "Covariate Shift",
    input_shape=(224, 224, 3),
    classes=1000,
    min_size=23,
    first_conv="stem_1_conv",
    cam_layer="stage3_out",
    pyramid=("stage1_out", "stage2_out", "stage3_out"),
    preprocess="caffe",
    layouts=(PYTORCHCV,),
    variants={
        "bn_inception": (
            {},
            {
                "trainable": 11_295_240,
                "total": 11_315_272,
                "accuracy": Accuracy(
                    "ImageNet", 73.524, "pretrained-models.pytorch bninception", top5=91.562
                ),
                "differs": "a bias before batch normalisation, as in the Caffe port",
            },
        ),
    },
)
