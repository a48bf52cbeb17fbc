"""ResNeXt. Xie, Girshick, Dollár, Tu, He, "Aggregated Residual Transformations for Deep Neural
Networks", 2016, arXiv:1611.05431.

A block adds up many small transformations of the same shape: the cardinality. Side by side they are
one 3x3 convolution in groups, so that more of them cost no more than fewer wide ones.
"""

from striate.errors import UsageError
from striate.lazy import keras
from striate.models import pytorchcv, torchvision
from striate.models.blocks import conv_bn, pool_and_classify, stage_out
from striate.models.resnet import TORCHVISION, imagenet_stem, project
from striate.registry import Accuracy, register_family


def wide_stem(x):
    """One 3x3 convolution of 64 filters at full resolution, for CIFAR."""
    return conv_bn(x, 64, 3, name="stem")


def aggregated(x, inner: int, filters: int, *, cardinality: int, stride: int, name: str):
    """The residual of 1x1, 3x3 in `cardinality` groups, 1x1."""
    y = conv_bn(x, inner, 1, name=f"{name}_1")
    y = conv_bn(y, inner, 3, stride=stride, groups=cardinality, name=f"{name}_2")
    return conv_bn(y, filters, 1, relu=False, name=f"{name}_3")


def resnext(
    inputs,
    *,
    num_classes: int,
    stem,
    cardinality: int,
    group_width: int,
    depths: tuple[int, ...] = (3, 4, 6, 3),
    width: int = 64,
    shortcut: str = "B",
    dropout: float = 0.0,
):
    """Stages of aggregated residual blocks; every stage but the first halves the resolution.

    cardinality, group_width: C x d of the paper, d channels a group where `width` is 64.
    depths: blocks of each stage.
    width: of the first stage; its blocks give four times as many channels, each later stage twice
    as many again. shortcut: A, B or C of ResNet; dropout: before the classifier.
    """
    if width * group_width < 64:
        raise UsageError(f"resnext: expected a width of at least {64 // group_width}, got {width}")
    x = stem(inputs)
    for i, depth in enumerate(depths, start=1):
        inner = width * group_width // 64 * cardinality
        for j in range(1, depth + 1):
            stride = 2 if i > 1 and j == 1 else 1
            name = f"stage{i}_block{j}"
            y = aggregated(x, inner, 4 * width, cardinality=cardinality, stride=stride, name=name)
            x = project(x, 4 * width, stride=stride, option=shortcut, name=name)
            x = keras.layers.Add(name=f"{name}_add")([x, y])
            x = keras.layers.ReLU(name=f"{name}_relu")(x)
        x = stage_out(x, i)
        width *= 2
    return pool_and_classify(x, num_classes, dropout=dropout)


# === Weights of pytorchcv ===


def pytorchcv_names(*, stem, depths: tuple[int, ...], **_) -> dict[str, str]:
    """Our layer -> the module of pytorchcv's nets."""
    parts = {"1": "body.conv1", "2": "body.conv2", "3": "body.conv3", "shortcut": "identity_conv"}
    stem = "features.init_block" if stem is wide_stem else "features.init_block.conv"
    return {
        **pytorchcv.conv_bn({"stem": stem}),
        **pytorchcv.units(depths, pytorchcv.conv_bn(parts)),
        "logits": "output",
    }


PYTORCHCV = pytorchcv.layout(pytorchcv_names, preprocess="cifar")

# === Nets ===

PAPER = {
    "family": "resnext",
    "year": 2016,
    "paper": "1611.05431",
    "title": "Aggregated Residual Transformations for Deep Neural Networks",
    "first_conv": "stem_conv",
    "preprocess": "torch",
}


def imagenet(
    depths: tuple[int, ...],
    cardinality: int,
    group_width: int,
    trainable: int,
    total: int,
    top1: float,
    top5: float | None = None,
    source: str = "the paper, Table 4",
    **facts,
) -> tuple[dict, dict]:
    config = {"stem": imagenet_stem, "depths": depths}
    accuracy = Accuracy("ImageNet", top1, source, top5=top5)
    facts = {"trainable": trainable, "total": total, "accuracy": accuracy, **facts}
    return {**config, "cardinality": cardinality, "group_width": group_width}, facts


register_family(
    resnext,
    **PAPER,
    input_shape=(224, 224, 3),
    classes=1000,
    min_size=17,
    cam_layer="stage4_out",
    pyramid=("stage1_out", "stage2_out", "stage3_out", "stage4_out"),
    reduced={"width": 16, "depths": (1, 2, 1, 1)},
    layouts=(TORCHVISION,),
    variants={
        "resnext50_32x4d": imagenet(
            (3, 4, 6, 3),
            32,
            4,
            25_028_904,
            25_097_128,
            77.62,
            93.70,
            "torchvision IMAGENET1K_V1",
            weights=torchvision.imagenet("resnext50_32x4d-7cdf4587.pth", TORCHVISION),
        ),
        "resnext101_32x4d": imagenet((3, 4, 23, 3), 32, 4, 44_177_704, 44_315_560, 78.8, 94.4),
        "resnext101_64x4d": imagenet((3, 4, 23, 3), 64, 4, 83_455_272, 83_658_152, 79.6, 94.7),
        "resnext101_2x64d": imagenet((3, 4, 23, 3), 2, 64, 84_198_184, 84_336_040, 79.3, 94.5),
    },
)


def cifar(cardinality: int, trainable: int, total: int, error: float) -> tuple[dict, dict]:
    """ResNeXt-29: three stages of three blocks, groups of 64 channels in the first."""
    config = {"stem": wide_stem, "depths": (3, 3, 3), "group_width": 64}
    accuracy = Accuracy("CIFAR-10", round(100 - error, 2), "the paper, Table 7")
    facts = {"trainable": trainable, "total": total, "accuracy": accuracy}
    return {**config, "cardinality": cardinality}, facts


register_family(
    resnext,
    **PAPER,
    input_shape=(32, 32, 3),
    classes=10,
    min_size=5,
    cam_layer="stage3_out",
    pyramid=("stage1_out", "stage2_out", "stage3_out"),
    reduced={"width": 16, "depths": (1, 2, 1)},
    layouts=(PYTORCHCV,),
    variants={
        "resnext29_8x64d_cifar": cifar(8, 34_426_698, 34_484_170, 3.65),
        "resnext29_16x64d_cifar": cifar(16, 68_155_210, 68_255_690, 3.58),
    },
)
