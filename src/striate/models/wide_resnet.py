"""Wide residual networks. Zagoruyko, Komodakis, "Wide Residual Networks", 2016, arXiv:1605.07146.

Sixteen wide layers learn as much as a thousand thin ones, and faster. WRN-d-k has d convolutions,
k times as wide as those of the CIFAR ResNets; batch normalisation and ReLU come before each
convolution, dropout between the two of a block. `wide_resnet50_2` is ResNet-50 with bottlenecks of
twice the width.
"""

from striate.errors import UsageError
from striate.lazy import keras
from striate.models import pytorchcv, torchvision
from striate.models.blocks import bn_relu, conv, drop, pool_and_classify, stage_out
from striate.models.resnet import TORCHVISION, imagenet_stem
from striate.models.resnext import resnext
from striate.registry import Accuracy, register_family


def wide(x, width: int, *, stride: int, dropout: float, name: str):
    """Two 3x3 convolutions; where the width changes, the 1x1 shortcut sees the activations too."""
    y = bn_relu(x, name=f"{name}_1")
    if x.shape[-1] != width:
        x = conv(y, width, 1, stride=stride, name=f"{name}_shortcut")
    y = conv(y, width, 3, stride=stride, name=f"{name}_1")
    y = bn_relu(y, name=f"{name}_2")
    y = drop(y, dropout, name=name)
    y = conv(y, width, 3, name=f"{name}_2")
    return keras.layers.Add(name=f"{name}_add")([x, y])


def wide_resnet(
    inputs, *, num_classes: int, depth: int = 28, widen: int = 10, dropout: float = 0.0
):
    """Three stages of (depth - 4) / 6 blocks, of 16, 32 and 64 times `widen` channels.

    depth: 6 n + 4, counting the convolutions as the paper does; widen: its factor k.
    dropout: between the convolutions of a block; the paper takes 0.3 on CIFAR, 0.4 on SVHN.
    """
    if depth < 10 or (depth - 4) % 6:
        raise UsageError(f"wide_resnet: expected a depth of 10, 16, 22 and so on, got {depth}")
    x = conv(inputs, 16, 3, name="stem")
    for i in (1, 2, 3):
        for j in range(1, (depth - 4) // 6 + 1):
            stride = 2 if i > 1 and j == 1 else 1
            name = f"stage{i}_block{j}"
            x = wide(x, 16 * widen * 2 ** (i - 1), stride=stride, dropout=dropout, name=name)
        x = stage_out(x, i)
    x = bn_relu(x, name="top")
    return pool_and_classify(x, num_classes)


# === Weights of pytorchcv ===


def pytorchcv_names(*, depth: int, **_) -> dict[str, str]:
    """Our layer -> the module of pytorchcv's nets for CIFAR."""
    parts = pytorchcv.conv_bn({"1": "body.conv1", "2": "body.conv2"})
    depths = ((depth - 4) // 6,) * 3
    return {
        "stem_conv": "features.init_block",
        **pytorchcv.units(depths, {**parts, "shortcut_conv": "identity_conv"}),
        "top_bn": "features.post_activ.bn",
        "logits": "output",
    }


PYTORCHCV = pytorchcv.layout(pytorchcv_names, preprocess="cifar")

# === Nets ===

PAPER = {
    "family": "wide_resnet",
    "year": 2016,
    "paper": "1605.07146",
    "title": "Wide Residual Networks",
    "first_conv": "stem_conv",
    "preprocess": "torch",
}


def wrn(depth: int, widen: int, trainable: int, total: int, error: float) -> tuple[dict, dict]:
    accuracy = Accuracy("CIFAR-10", round(100 - error, 2), "the paper, Table 4")
    facts = {"trainable": trainable, "total": total, "accuracy": accuracy}
    reduced = {"depth": 10, "widen": min(widen, 2)}  # at 1 the first shortcut needs no convolution
    return {"depth": depth, "widen": widen}, {**facts, "reduced": reduced}


register_family(
    wide_resnet,
    **PAPER,
    input_shape=(32, 32, 3),
    classes=10,
    min_size=5,
    cam_layer="top_relu",
    pyramid=("stage1_out", "stage2_out", "stage3_out"),
    layouts=(PYTORCHCV,),
    variants={
        "wrn16_4": wrn(16, 4, 2_748_890, 2_752_506, 5.02),
        "wrn16_8": wrn(16, 8, 10_961_370, 10_968_570, 4.27),
        "wrn28_10": wrn(28, 10, 36_479_194, 36_497_146, 4.00),
        "wrn40_4": wrn(40, 4, 8_949_210, 8_959_994, 4.53),
        "wrn52_1": wrn(52, 1, 758_362, 761_978, 6.43),
    },
)

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
        "wide_resnet50_2": (
            {
                "stem": imagenet_stem,
                "depths": (3, 4, 6, 3),
                "cardinality": 1,
                "group_width": 128,
            },
            {
                "trainable": 68_883_240,
                "total": 68_951_464,
                "accuracy": Accuracy("ImageNet", 78.47, "torchvision IMAGENET1K_V1", top5=94.09),
                "differs": "the stride of a bottleneck sits in its 3x3 convolution",
                "weights": torchvision.imagenet("wide_resnet50_2-95faca4d.pth", TORCHVISION),
            },
        ),
    },
)
