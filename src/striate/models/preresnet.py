"""Pre-activation ResNets. He, Zhang, Ren, Sun, "Identity Mappings in Deep Residual Networks", 2016,
arXiv:1603.05027.

Batch normalisation and ReLU move before the convolutions, so that nothing stands on the way of the
sum: the signal of a block reaches every later one as it is, through a thousand layers too.

The first block of a stage activates its input once, for the residual and the shortcut, as in the
authors' code; a down-sampling bottleneck strides in its first 1x1 convolution, and
`stride_on_1x1=False` moves that into the 3x3.
"""

from striate.errors import UsageError
from striate.lazy import keras
from striate.models import pytorchcv
from striate.models.blocks import bn_relu, conv, pool_and_classify, stage_out
from striate.models.resnet import imagenet_stem, project
from striate.registry import Accuracy, register_family


def cifar_stem(x):
    """One 3x3 convolution at full resolution; the first block activates its output."""
    return conv(x, 16, 3, name="stem")


def basic(x, width: int, *, stride: int, stride_on_1x1: bool, name: str):
    """The residual of two 3x3 convolutions, of an input that is activated already."""
    y = conv(x, width, 3, stride=stride, name=f"{name}_1")
    y = bn_relu(y, name=f"{name}_2")
    return conv(y, width, 3, name=f"{name}_2")


def bottleneck(x, width: int, *, stride: int, stride_on_1x1: bool, name: str):
    """The residual of 1x1, 3x3 and 1x1 to four times the width, of an activated input."""
    first, second = (stride, 1) if stride_on_1x1 else (1, stride)
    y = conv(x, width, 1, stride=first, name=f"{name}_1")
    y = bn_relu(y, name=f"{name}_2")
    y = conv(y, width, 3, stride=second, name=f"{name}_2")
    y = bn_relu(y, name=f"{name}_3")
    return conv(y, 4 * width, 1, name=f"{name}_3")


def preresnet(
    inputs,
    *,
    num_classes: int,
    stem,
    block,
    width: int,
    depths: tuple[int, ...] = (2, 2, 2, 2),
    shortcut: str = "B",
    stride_on_1x1: bool = True,
    activated_start: bool = True,
    dropout: float = 0.0,
):
    """Stages of pre-activated blocks; every stage but the first halves the resolution.

    depths: blocks of each stage. shortcut: A (zero channels) or B (1x1 convolution) where the shape
    changes. activated_start: the very first sum takes the stem's output activated, as the paper
    has it, also where the shape stays. dropout: before the classifier.
    """
    if shortcut not in ("A", "B"):
        raise UsageError(f"preresnet: expected shortcut A or B, got {shortcut!r}")
    x = stem(inputs)
    for i, depth in enumerate(depths, start=1):
        for j in range(1, depth + 1):
            stride = 2 if i > 1 and j == 1 else 1
            name = f"stage{i}_block{j}"
            activated = bn_relu(x, name=f"{name}_1")
            y = block(activated, width, stride=stride, stride_on_1x1=stride_on_1x1, name=name)
            reshaped = stride > 1 or x.shape[-1] != y.shape[-1]
            if j == 1 and (reshaped or activated_start):
                x = activated
            if shortcut == "A":
                x = project(x, y.shape[-1], stride=stride, option="A", name=name)
            elif reshaped:
                x = conv(x, y.shape[-1], 1, stride=stride, name=f"{name}_shortcut")
            x = keras.layers.Add(name=f"{name}_add")([x, y])
        x = stage_out(x, i)
        width *= 2
    x = bn_relu(x, name="top")
    return pool_and_classify(x, num_classes, dropout=dropout)


# === Weights of pytorchcv ===


def pytorchcv_names(*, stem, depths: tuple[int, ...], **_) -> dict[str, str]:
    """Our layer -> the module of pytorchcv's nets."""
    parts = pytorchcv.conv_bn({f"{n}": f"body.conv{n}" for n in (1, 2, 3)})
    return {
        "stem_conv": "features.init_block" if stem is cifar_stem else "features.init_block.conv",
        "stem_bn": "features.init_block.bn",
        **pytorchcv.units(depths, {**parts, "shortcut_conv": "identity_conv"}),
        "top_bn": "features.post_activ.bn",
        "logits": "output",
    }


OPTIONS = {"shortcut": "B", "stride_on_1x1": False, "activated_start": False}
PYTORCHCV = pytorchcv.layout(pytorchcv_names, options=OPTIONS)
PYTORCHCV_CIFAR = pytorchcv.layout(pytorchcv_names, preprocess="cifar", options=OPTIONS)

# === Nets ===

PAPER = {
    "family": "resnet",
    "year": 2016,
    "paper": "1603.05027",
    "title": "Identity Mappings in Deep Residual Networks",
    "first_conv": "stem_conv",
    "cam_layer": "top_relu",
    "preprocess": "torch",
}

register_family(
    preresnet,
    **PAPER,
    input_shape=(224, 224, 3),
    classes=1000,
    min_size=17,
    layouts=(PYTORCHCV,),
    pyramid=("stage1_out", "stage2_out", "stage3_out", "stage4_out"),
    reduced={"depths": (1, 2, 1, 1)},
    variants={
        "preresnet200": (
            {"stem": imagenet_stem, "block": bottleneck, "width": 64, "depths": (3, 24, 36, 3)},
            {
                "trainable": 64_666_280,
                "total": 64_834_728,
                "accuracy": Accuracy("ImageNet", 78.3, "arXiv:1611.05431, Table 5", top5=94.2),
            },
        ),
    },
)


def cifar(
    block, blocks: int, trainable: int, total: int, error: float, shortcut: str = "B"
) -> tuple[dict, dict]:
    """Three stages of so many blocks."""
    config = {"stem": cifar_stem, "block": block, "width": 16, "depths": (blocks,) * 3}
    accuracy = Accuracy("CIFAR-10", round(100 - error, 2), "the paper, Table 3")
    facts = {"trainable": trainable, "total": total, "accuracy": accuracy}
    return {**config, "shortcut": shortcut}, facts


register_family(
    preresnet,
    **PAPER,
    input_shape=(32, 32, 3),
    classes=10,
    min_size=5,
    layouts=(PYTORCHCV_CIFAR,),
    pyramid=("stage1_out", "stage2_out", "stage3_out"),
    reduced={"depths": (2, 2, 2)},
    variants={
        "preresnet110_cifar": cifar(basic, 18, 1_727_962, 1_736_058, 6.37, shortcut="A"),
        "preresnet164_cifar": cifar(bottleneck, 18, 1_703_258, 1_727_482, 5.46),
        "preresnet1001_cifar": cifar(bottleneck, 111, 10_327_706, 10_476_922, 4.92),
    },
)
