"""MobileNets, versions 1 and 2.

Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications",
2017, arXiv:1704.04861. A 3x3 convolution splits into one that filters each channel by itself
(depthwise) and one that mixes channels (1x1): eight to nine times less work.

Sandler, Howard, Zhu, Zhmoginov, Chen, "MobileNetV2: Inverted Residuals and Linear Bottlenecks",
2018, arXiv:1801.04381. A block widens a thin tensor, filters it depthwise and thins it again
without a nonlinearity; the shortcut joins the thin ends.

Differs from the papers: version 1 uses ReLU6, as its released code does. Where a map has an odd
side, striding pads on both sides (`same`, as in the authors' code); keras.applications' version 1
pads only right and bottom there, which at 224, 192, 160 and 128 pixels is the same thing.
torch's implementations pad all four sides by the same (`symmetric_padding`).
"""

from striate.lazy import keras
from striate.models import pytorchcv, timm, torchvision
from striate.models.blocks import pad_for_stride, pool_and_classify, stage_out
from striate.pretrained import Layout, Weights
from striate.registry import Accuracy, register_family

KERAS_URL = "https://storage.googleapis.com/tensorflow/keras-applications/"
LICENCE = "Apache-2.0, the TensorFlow authors"


def bn_relu(x, *, momentum: float, relu: bool = True, cap: float | None = 6.0, name: str):
    """Batch normalisation as in the authors' code (epsilon 1e-3), then ReLU up to `cap`."""
    x = keras.layers.BatchNormalization(epsilon=1e-3, momentum=momentum, name=f"{name}_bn")(x)
    return keras.layers.ReLU(cap, name=f"{name}_relu")(x) if relu else x


def pointwise(x, filters: int, *, relu: bool = True, name: str, **how):
    """1x1 convolution: mixes the channels of each pixel."""
    x = keras.layers.Conv2D(
        filters, 1, use_bias=False, kernel_initializer="he_normal", name=f"{name}_conv"
    )(x)
    return bn_relu(x, relu=relu, name=name, **how)


def depthwise(x, *, stride: int, symmetric: bool, name: str, **how):
    """3x3 convolution of each channel by itself."""
    x, padding = pad_for_stride(x, 3, stride=stride, symmetric=symmetric, name=name)
    x = keras.layers.DepthwiseConv2D(
        3,
        strides=stride,
        padding=padding,
        use_bias=False,
        depthwise_initializer="he_normal",
        name=f"{name}_conv",
    )(x)
    return bn_relu(x, name=name, **how)


def stem(x, filters: int, *, symmetric: bool = False, **how):
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
    return bn_relu(x, name="stem", **how)


# === Version 1 ===

V1_STAGES = [  # Table 1: the width of each separable block; a new stage halves the resolution
    [64],
    [128, 128],
    [256, 256],
    [512, 512, 512, 512, 512, 512],
    [1024, 1024],
]


def mobilenet_v1(
    inputs,
    *,
    num_classes: int,
    alpha: float,
    dropout: float = 0.001,
    symmetric_padding: bool = False,
    relu6: bool = True,
):
    """Thirteen depthwise separable blocks, `alpha` times as wide as Table 1 of the paper.

    dropout: before the classifier. symmetric_padding: strides pad all sides alike, as torch's do.
    relu6: ReLU is capped at 6, as in the authors' released code; the paper's is not.
    """
    how = {"momentum": 0.99, "cap": 6.0 if relu6 else None}
    x = stem(inputs, int(32 * alpha), symmetric=symmetric_padding, **how)
    for i, widths in enumerate(V1_STAGES, start=1):
        for j, width in enumerate(widths, start=1):
            name = f"stage{i}_block{j}"
            stride = 2 if i > 1 and j == 1 else 1
            x = depthwise(x, stride=stride, symmetric=symmetric_padding, name=f"{name}_dw", **how)
            x = pointwise(x, int(width * alpha), name=f"{name}_pw", **how)
        x = stage_out(x, i)
    return pool_and_classify(x, num_classes, dropout=dropout)


def keras_names_v1(**_) -> dict[str, str]:
    """Our layer -> the layer of keras.applications' MobileNet."""
    names = {"stem_conv": "conv1", "stem_bn": "conv1_bn", "logits": "conv_preds"}
    blocks = [(i, j) for i, widths in enumerate(V1_STAGES, 1) for j in range(1, len(widths) + 1)]
    for n, (i, j) in enumerate(blocks, start=1):
        for part in ("dw", "pw"):
            names[f"stage{i}_block{j}_{part}_conv"] = f"conv_{part}_{n}"
            names[f"stage{i}_block{j}_{part}_bn"] = f"conv_{part}_{n}_bn"
    return names


def pytorchcv_names_v1(**_) -> dict[str, str]:
    """Our layer -> the module of pytorchcv's nets."""
    parts = pytorchcv.conv_bn({"dw": "dw_conv", "pw": "pw_conv"})
    return {
        **pytorchcv.conv_bn({"stem": "features.init_block"}),
        **pytorchcv.units(map(len, V1_STAGES), parts),
        "logits": "output",
    }


def timm_names_v1(**_) -> dict[str, str]:
    """Our layer -> the module of timm's MobileNet."""
    names = dict(timm.MOBILE)
    for i, widths in enumerate(V1_STAGES, start=1):
        for j in range(1, len(widths) + 1):
            theirs = f"blocks.{i - 1}.{j - 1}"
            names |= timm.mobile_block(f"stage{i}_block{j}", theirs, "dw", "pw")
    return names


TORCH_BORN: dict = {"options": {"symmetric_padding": True}, "epsilon": 1e-5}
LAYOUTS_V1 = (
    Layout("keras.applications", names=keras_names_v1, preprocess="tf"),
    timm.layout(timm_names_v1, preprocess="tf", **TORCH_BORN),
    pytorchcv.layout(
        pytorchcv_names_v1, options={"symmetric_padding": True, "relu6": False}, epsilon=1e-5
    ),
)


def v1(
    alpha: float, trainable: int, total: int, top1: float, file: str, hash: str | None = None
) -> tuple[dict, dict]:
    """One width of version 1, with its published weights."""
    imagenet = Weights(
        "imagenet",
        url=f"{KERAS_URL}mobilenet/mobilenet_{file}_224_tf.h5",
        hash=hash,
        preprocess="tf",
        licence=LICENCE,
    )
    accuracy = Accuracy("ImageNet", top1, "the paper, Table 6")
    facts = {"trainable": trainable, "total": total, "accuracy": accuracy, "weights": (imagenet,)}
    return {"alpha": alpha}, facts


register_family(
    mobilenet_v1,
    family="mobilenet",
    year=2017,
    paper="1704.04861",
    title="MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications",
    input_shape=(224, 224, 3),
    classes=1000,
    min_size=17,
    first_conv="stem_conv",
    cam_layer="stage5_out",
    pyramid=("stage1_out", "stage2_out", "stage3_out", "stage4_out", "stage5_out"),
    preprocess="tf",
    differs="ReLU6 for ReLU, as in the authors' code",
    layouts=LAYOUTS_V1,
    variants={
        "mobilenet_v1_100": v1(
            1.0, 4_231_976, 4_253_864, 70.6, "1_0", "md5:03394917f9a9ea3362f46332a5b6a215"
        ),
        "mobilenet_v1_075": v1(0.75, 2_585_560, 2_601_976, 68.4, "7_5"),
        "mobilenet_v1_050": v1(0.5, 1_331_592, 1_342_536, 63.7, "5_0"),
        "mobilenet_v1_025": v1(0.25, 470_072, 475_544, 50.6, "2_5"),
    },
)


# === Version 2 ===

V2_STAGES = [  # Table 2: expansion, channels, blocks, stride of the first block
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
]


def make_divisible(width: float, by: int = 8) -> int:
    """The multiple of `by` nearest to a width, but never under 90 % of it."""
    rounded = max(by, int(width + by / 2) // by * by)
    return rounded + by if rounded < 0.9 * width else rounded


def inverted_residual(x, width: int, *, expansion: int, stride: int, symmetric: bool, name: str):
    """Widen, filter depthwise, thin again; add the input where the shapes agree."""
    momentum = 0.999
    y = x
    if expansion > 1:
        expanded = expansion * x.shape[-1]
        y = pointwise(y, expanded, momentum=momentum, name=f"{name}_expand")
    y = depthwise(y, stride=stride, symmetric=symmetric, momentum=momentum, name=f"{name}_dw")
    y = pointwise(y, width, momentum=momentum, relu=False, name=f"{name}_project")
    if stride > 1 or x.shape[-1] != width:
        return y
    return keras.layers.Add(name=f"{name}_add")([x, y])


def mobilenet_v2(
    inputs,
    *,
    num_classes: int,
    alpha: float,
    dropout: float = 0.2,
    symmetric_padding: bool = False,
):
    """Seventeen inverted residual blocks; the last 1x1 convolution never thins below 1280.

    dropout: before the classifier. symmetric_padding: strides pad all sides alike, as torch's do.
    """
    x = stem(inputs, make_divisible(32 * alpha), symmetric=symmetric_padding, momentum=0.999)
    for i, (expansion, channels, blocks, first_stride) in enumerate(V2_STAGES, start=1):
        width = make_divisible(int(channels * alpha))
        for j in range(1, blocks + 1):
            x = inverted_residual(
                x,
                width,
                expansion=expansion,
                stride=first_stride if j == 1 else 1,
                symmetric=symmetric_padding,
                name=f"stage{i}_block{j}",
            )
        x = stage_out(x, i)
    x = pointwise(x, make_divisible(1280 * max(1.0, alpha)), momentum=0.999, name="top")
    return pool_and_classify(x, num_classes, dropout=dropout)


def keras_names_v2(**_) -> dict[str, str]:
    """Our layer -> the layer of keras.applications' MobileNetV2."""
    names = {"stem_conv": "Conv1", "stem_bn": "bn_Conv1", "logits": "predictions"}
    names |= {"top_conv": "Conv_1", "top_bn": "Conv_1_bn"}
    blocks = [(i, j) for i, row in enumerate(V2_STAGES, 1) for j in range(1, row[2] + 1)]
    for n, (i, j) in enumerate(blocks):
        theirs = f"block_{n}" if n else "expanded_conv"
        for part, kind in (("expand", "expand"), ("dw", "depthwise"), ("project", "project")):
            if n or part != "expand":
                names[f"stage{i}_block{j}_{part}_conv"] = f"{theirs}_{kind}"
                names[f"stage{i}_block{j}_{part}_bn"] = f"{theirs}_{kind}_BN"
    return names


def torchvision_names_v2(**_) -> dict[str, str]:
    """Our layer -> the module of torchvision's MobileNetV2."""
    names = {"stem_conv": "features.0.0", "stem_bn": "features.0.1", "logits": "classifier.1"}
    names |= {"top_conv": "features.18.0", "top_bn": "features.18.1"}
    blocks = [(i, j) for i, row in enumerate(V2_STAGES, 1) for j in range(1, row[2] + 1)]
    for n, (i, j) in enumerate(blocks, start=1):
        parts = ("dw", "project") if n == 1 else ("expand", "dw", "project")
        for place, part in enumerate(parts):
            conv, bn = f"{place}.0", f"{place}.1"
            if part == "project":  # stands unwrapped, as no ReLU follows it
                conv, bn = f"{place}", f"{place + 1}"
            names[f"stage{i}_block{j}_{part}_conv"] = f"features.{n}.conv.{conv}"
            names[f"stage{i}_block{j}_{part}_bn"] = f"features.{n}.conv.{bn}"
    return names


def timm_names_v2(**_) -> dict[str, str]:
    """Our layer -> the module of timm's MobileNetV2."""
    names = timm.MOBILE | timm.MOBILE_TOP
    for i, (expansion, _, blocks, _) in enumerate(V2_STAGES, start=1):
        parts = ("expand", "dw", "project") if expansion > 1 else ("dw", "project")
        for j in range(1, blocks + 1):
            names |= timm.mobile_block(f"stage{i}_block{j}", f"blocks.{i - 1}.{j - 1}", *parts)
    return names


LAYOUTS_V2 = (
    Layout("keras.applications", names=keras_names_v2, preprocess="tf"),
    torchvision.layout(torchvision_names_v2, **TORCH_BORN),
    timm.layout(timm_names_v2, **TORCH_BORN),
)


def v2(
    alpha: float, trainable: int, total: int, top1: float, hash: str | None = None
) -> tuple[dict, dict]:
    """One width of version 2, with its published weights."""
    file = f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{alpha}_224.h5"
    imagenet = Weights(
        "imagenet",
        url=f"{KERAS_URL}mobilenet_v2/{file}",
        hash=hash,
        preprocess="tf",
        licence=LICENCE,
    )
    accuracy = Accuracy("ImageNet", top1, "tensorflow/models, mobilenet_v2 checkpoints")
    facts = {"trainable": trainable, "total": total, "accuracy": accuracy, "weights": (imagenet,)}
    return {"alpha": alpha}, facts


register_family(
    mobilenet_v2,
    family="mobilenet",
    year=2018,
    paper="1801.04381",
    title="MobileNetV2: Inverted Residuals and Linear Bottlenecks",
    input_shape=(224, 224, 3),
    classes=1000,
    min_size=17,
    first_conv="stem_conv",
    cam_layer="top_relu",
    pyramid=("stage1_out", "stage2_out", "stage3_out", "stage5_out", "stage7_out"),
    preprocess="tf",
    layouts=LAYOUTS_V2,
    variants={
        "mobilenet_v2_035": v2(0.35, 1_677_128, 1_691_208, 60.3),
        "mobilenet_v2_050": v2(0.5, 1_968_680, 1_987_224, 65.4),
        "mobilenet_v2_075": v2(0.75, 2_636_424, 2_663_064, 69.8),
        "mobilenet_v2_100": v2(
            1.0, 3_504_872, 3_538_984, 71.8, "md5:321911b381f6fd09b744356f6796ee18"
        ),
        "mobilenet_v2_130": v2(1.3, 5_386_792, 5_431_048, 74.4),
        "mobilenet_v2_140": v2(1.4, 6_108_776, 6_156_712, 75.0),
    },
)
