"""Squeeze-and-excitation networks. Hu, Shen, Albanie, Sun, Wu, "Squeeze-and-Excitation Networks",
2017, arXiv:1709.01507.

Before a residual is added, each of its channels is weighed: the channels' averages (squeeze) go
through two dense layers to a factor between 0 and 1 for each (excitation). Any residual net can
take it; SENet-154 is the authors' net of the ILSVRC of 2017.

The nets are those that the authors released (Caffe): pooling after the stem keeps the last window,
and the residual of SE-ResNet strides in its first 1x1; `stride_on_1x1=False` moves that into the
3x3.
"""

from striate.errors import UsageError
from striate.lazy import keras
from striate.models import resnet, timm
from striate.models.blocks import conv_bn, max_pool, pool_and_classify, stage_out
from striate.registry import Accuracy, register_family


def squeeze_excite(x, reduction: int, *, name: str):
    """Weigh the channels of a map by what they hold on average over the picture."""
    channels = x.shape[-1]
    s = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_squeeze")(x)
    s = keras.layers.Conv2D(channels // reduction, 1, name=f"{name}_reduce")(s)
    s = keras.layers.ReLU(name=f"{name}_reduce_relu")(s)
    s = keras.layers.Conv2D(channels, 1, name=f"{name}_expand")(s)
    s = keras.layers.Activation("sigmoid", name=f"{name}_sigmoid")(s)
    return keras.layers.Multiply(name=f"{name}_scale")([x, s])


def single_stem(x):
    """7x7 convolution and 3x3 max pooling, stride 2 each."""
    x = conv_bn(x, 64, 7, stride=2, name="stem")
    return max_pool(x, 3, stride=2, ceil_mode=True, name="stem_pool")


def triple_stem(x):
    """Three 3x3 convolutions, which see as much as one of 7x7."""
    x = conv_bn(x, 64, 3, stride=2, name="stem")
    x = conv_bn(x, 64, 3, name="stem_2")
    x = conv_bn(x, 128, 3, name="stem_3")
    return max_pool(x, 3, stride=2, ceil_mode=True, name="stem_pool")


def bottleneck(x, width: int, *, groups: int, group_width: int, strides, name: str):
    """1x1, 3x3 in groups, 1x1: SE-ResNet (one group of 64) and SE-ResNeXt (32 of 4)."""
    inner = width * group_width // 64 * groups
    y = conv_bn(x, inner, 1, stride=strides[0], name=f"{name}_1")
    y = conv_bn(y, inner, 3, stride=strides[1], groups=groups, name=f"{name}_2")
    return conv_bn(y, 4 * width, 1, relu=False, name=f"{name}_3")


def halved_bottleneck(x, width: int, *, groups: int, group_width: int, strides, name: str):
    """SENet-154: a first 1x1 of half the channels that the 3x3 gives."""
    inner = width * group_width // 64 * groups
    y = conv_bn(x, inner // 2, 1, stride=strides[0], name=f"{name}_1")
    y = conv_bn(y, inner, 3, stride=strides[1], groups=groups, name=f"{name}_2")
    return conv_bn(y, 4 * width, 1, relu=False, name=f"{name}_3")


def senet(
    inputs,
    *,
    num_classes: int,
    stem,
    block,
    groups: int,
    group_width: int,
    shortcut_kernel: int,
    depths: tuple[int, ...] = (3, 4, 6, 3),
    width: int = 64,
    reduction: int = 16,
    stride_on_1x1: bool = False,
    dropout: float = 0.0,
):
    """Four stages of residual blocks with squeeze and excitation before each addition.

    depths: blocks of each stage.
    width: of the first stage; its blocks give four times as many channels, each later stage twice
    as many again. reduction: of the dense layers between squeeze and excitation.
    stride_on_1x1: blocks stride in their first convolution; dropout: before the classifier.
    """
    least = 64 // group_width * (2 if block is halved_bottleneck else 1)
    if width % least:
        raise UsageError(f"senet: expected a width that is a multiple of {least}, got {width}")
    if reduction > 4 * width:
        raise UsageError(f"senet: expected a reduction of at most {4 * width}, got {reduction}")
    x = stem(inputs)
    for i, depth in enumerate(depths, start=1):
        for j in range(1, depth + 1):
            stride = 2 if i > 1 and j == 1 else 1
            strides = (stride, 1) if stride_on_1x1 else (1, stride)
            name = f"stage{i}_block{j}"
            y = block(x, width, groups=groups, group_width=group_width, strides=strides, name=name)
            y = squeeze_excite(y, reduction, name=f"{name}_se")
            if j == 1:
                kernel = 1 if i == 1 else shortcut_kernel
                shortcut = f"{name}_shortcut"
                x = conv_bn(x, 4 * width, kernel, stride=stride, relu=False, name=shortcut)
            x = keras.layers.Add(name=f"{name}_add")([x, y])
            x = keras.layers.ReLU(name=f"{name}_relu")(x)
        x = stage_out(x, i)
        width *= 2
    return pool_and_classify(x, num_classes, dropout=dropout)


# === Weights of timm ===


def timm_names(*, depths: tuple[int, ...], **_) -> dict[str, str]:
    """Our layer -> the module of timm's nets that are the authors' (`legacy_`)."""
    names = resnet.torch_names(depths=depths, block=resnet.bottleneck) | {"logits": "last_linear"}
    for n, ours in enumerate(("stem", "stem_2", "stem_3"), start=1):
        names |= {f"{ours}_conv": f"layer0.conv{n}", f"{ours}_bn": f"layer0.bn{n}"}
    for i, depth in enumerate(depths, start=1):
        for j in range(1, depth + 1):
            ours, theirs = f"stage{i}_block{j}_se", f"layer{i}.{j - 1}.se_module"
            names |= {f"{ours}_reduce": f"{theirs}.fc1", f"{ours}_expand": f"{theirs}.fc2"}
    return names


TIMM = timm.layout(timm_names)

# === Nets ===


def plain(
    depths: tuple[int, ...],
    groups: int,
    group_width: int,
    trainable: int,
    total: int,
    top1: float,
    top5: float,
    file: str,
) -> tuple[dict, dict]:
    """SE-ResNet and SE-ResNeXt."""
    config = {
        "stem": single_stem,
        "block": bottleneck,
        "depths": depths,
        "groups": groups,
        "group_width": group_width,
        "shortcut_kernel": 1,
        "stride_on_1x1": groups == 1,
    }
    return config, facts_of(trainable, total, top1, top5, file)


def facts_of(trainable: int, total: int, top1: float, top5: float, file: str) -> dict:
    """file: of the authors' weights, as timm has turned them into torch's."""
    accuracy = Accuracy("ImageNet", top1, "hujie-frank/SENet, Caffe", top5=top5)
    weights = timm.imagenet(file, TIMM)
    return {"trainable": trainable, "total": total, "accuracy": accuracy, "weights": weights}


register_family(
    senet,
    family="senet",
    year=2017,
    paper="1709.01507",
    title="Squeeze-and-Excitation Networks",
    input_shape=(224, 224, 3),
    classes=1000,
    min_size=17,
    first_conv="stem_conv",
    cam_layer="stage4_out",
    pyramid=("stage1_out", "stage2_out", "stage3_out", "stage4_out"),
    preprocess="torch",
    layouts=(TIMM,),
    reduced={"width": 16, "reduction": 4, "depths": (1, 2, 1, 1)},
    variants={
        "se_resnet50": plain(
            (3, 4, 6, 3),
            1,
            64,
            28_088_024,
            28_141_144,
            77.63,
            93.64,
            "v0.1-cadene/se_resnet50-ce0d4300.pth",
        ),
        "se_resnet101": plain(
            (3, 4, 23, 3),
            1,
            64,
            49_326_872,
            49_432_216,
            78.25,
            94.28,
            "v0.1-cadene/se_resnet101-7e38fcc6.pth",
        ),
        "se_resnet152": plain(
            (3, 8, 36, 3),
            1,
            64,
            66_821_848,
            66_973_272,
            78.66,
            94.46,
            "v0.1-cadene/se_resnet152-d17c99b7.pth",
        ),
        "se_resnext50_32x4d": plain(
            (3, 4, 6, 3),
            32,
            4,
            27_559_896,
            27_628_120,
            79.03,
            94.46,
            "v0.1-weights/legacy_se_resnext50_32x4d-f3651bad.pth",
        ),
        "se_resnext101_32x4d": plain(
            (3, 4, 23, 3),
            32,
            4,
            48_955_416,
            49_093_272,
            80.19,
            95.04,
            "v0.1-weights/legacy_se_resnext101_32x4d-37725eac.pth",
        ),
        "senet154": (
            {
                "stem": triple_stem,
                "block": halved_bottleneck,
                "depths": (3, 8, 36, 3),
                "groups": 64,
                "group_width": 4,
                "shortcut_kernel": 3,
                "dropout": 0.2,
            },
            {
                **facts_of(
                    115_088_984,
                    115_336_536,
                    81.32,
                    95.53,
                    "v0.1-weights/legacy_senet154-e9eb9fe6.pth",
                ),
                "reduced": {"width": 32, "reduction": 4, "depths": (1, 2, 1, 1)},
            },
        ),
    },
)
