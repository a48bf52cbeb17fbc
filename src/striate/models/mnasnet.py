"""MnasNet. Tan, Chen, Pang, Vasudevan, Sandler, Howard, Le, "MnasNet: Platform-Aware Neural
Architecture Search for Mobile", 2018, arXiv:1807.11626.

A search that weighs accuracy against the measured latency of a phone, and lets every stage choose
its own block. A1 is the paper's net with squeeze-and-excitation, B1 the one without; the depth
multiplier scales every width but that of the last 1x1 convolution.

Padding, batch normalisation and rounding of widths are those of the authors' code (tensorflow/tpu,
models/official/mnasnet); torch's implementations pad all four sides by the same
(`symmetric_padding`).
"""

from striate.lazy import keras
from striate.models import timm, torchvision
from striate.models.blocks import pool_and_classify, squeeze_excite, stage_out
from striate.models.mobilenet import make_divisible
from striate.models.mobilenet_v3 import depthwise, pointwise, stem
from striate.registry import Accuracy, register_family

MOMENTUM = 0.99

# Repeats, kernel, stride, expansion, width, squeeze-and-excitation, shortcut.
A1 = (
    (1, 3, 1, 1, 16, False, False),
    (2, 3, 2, 6, 24, False, True),
    (3, 5, 2, 3, 40, True, True),
    (4, 3, 2, 6, 80, False, True),
    (2, 3, 1, 6, 112, True, True),
    (3, 5, 2, 6, 160, True, True),
    (1, 3, 1, 6, 320, False, True),
)
B1 = (
    (1, 3, 1, 1, 16, False, False),
    (3, 3, 2, 3, 24, False, True),
    (3, 5, 2, 3, 40, False, True),
    (3, 5, 2, 6, 80, False, True),
    (2, 3, 1, 6, 96, False, True),
    (4, 5, 2, 6, 192, False, True),
    (1, 3, 1, 6, 320, False, False),
)


def mb_conv(
    x,
    width: int,
    *,
    kernel: int,
    stride: int,
    expansion: int,
    squeeze: bool,
    shortcut: bool,
    symmetric: bool,
    name: str,
):
    """Widen, filter depthwise, weigh the channels, thin again; add the input where shapes agree."""
    y = x
    if expansion > 1:
        expanded = expansion * x.shape[-1]
        y = pointwise(y, expanded, "relu", momentum=MOMENTUM, name=f"{name}_expand")
    y = depthwise(
        y,
        kernel,
        "relu",
        stride=stride,
        symmetric=symmetric,
        momentum=MOMENTUM,
        name=f"{name}_dw",
    )
    if squeeze:
        y = squeeze_excite(y, max(1, x.shape[-1] // 4), gate="sigmoid", name=f"{name}_se")
    y = pointwise(y, width, None, momentum=MOMENTUM, name=f"{name}_project")
    if not shortcut or stride > 1 or x.shape[-1] != width:
        return y
    return keras.layers.Add(name=f"{name}_add")([x, y])


def mnasnet(
    inputs,
    *,
    num_classes: int,
    stages: tuple[tuple, ...],
    depth_multiplier: float,
    dropout: float = 0.2,
    symmetric_padding: bool = False,
):
    """A strided convolution, seven stages of inverted residuals, and a linear classifier.

    dropout: before the classifier. symmetric_padding: strides pad all sides alike, as torch's do.
    """
    x = stem(
        inputs,
        make_divisible(32 * depth_multiplier),
        "relu",
        symmetric=symmetric_padding,
        momentum=MOMENTUM,
    )
    for i, (repeats, kernel, stride, expansion, width, squeeze, shortcut) in enumerate(stages, 1):
        for j in range(1, repeats + 1):
            x = mb_conv(
                x,
                make_divisible(width * depth_multiplier),
                kernel=kernel,
                stride=stride if j == 1 else 1,
                expansion=expansion,
                squeeze=squeeze,
                shortcut=shortcut or j > 1,
                symmetric=symmetric_padding,
                name=f"stage{i}_block{j}",
            )
        x = stage_out(x, i)
    x = pointwise(x, 1280, "relu", momentum=MOMENTUM, name="top")
    return pool_and_classify(x, num_classes, dropout=dropout)


# === Weights of torchvision ===


def torchvision_names(*, stages: tuple[tuple, ...], **_) -> dict[str, str]:
    """Our layer -> the module of torchvision's MnasNets, which are B1."""
    units = {"stem": ("layers.0", "layers.1"), "top": ("layers.14", "layers.15")}
    units |= {"stage1_block1_dw": ("layers.3", "layers.4")}
    units |= {"stage1_block1_project": ("layers.6", "layers.7")}
    for i, (repeats, *_) in enumerate(stages[1:], start=2):
        for j in range(1, repeats + 1):
            theirs = f"layers.{i + 6}.{j - 1}.layers"
            for n, part in enumerate(("expand", "dw", "project")):
                pair = f"{theirs}.{3 * n}", f"{theirs}.{3 * n + 1}"
                units[f"stage{i}_block{j}_{part}"] = pair
    names = {"logits": "classifier.1"}
    for ours, (conv, bn) in units.items():
        names |= {f"{ours}_conv": conv, f"{ours}_bn": bn}
    return names


TORCHVISION = torchvision.layout(
    torchvision_names, options={"symmetric_padding": True}, epsilon=1e-5
)

# === Weights of timm ===


def timm_names(*, stages: tuple[tuple, ...], **_) -> dict[str, str]:
    """Our layer -> the module of timm's nets: `semnasnet` is A1, `mnasnet` B1."""
    names = timm.MOBILE | timm.MOBILE_TOP
    for i, (repeats, _, _, expansion, *_) in enumerate(stages, start=1):
        parts = ("expand", "dw", "project") if expansion > 1 else ("dw", "project")
        for j in range(1, repeats + 1):
            names |= timm.mobile_block(f"stage{i}_block{j}", f"blocks.{i - 1}.{j - 1}", *parts)
    return names


TIMM = timm.layout(timm_names, options={"symmetric_padding": True}, epsilon=1e-5)

# === Nets ===


def variant(
    stages, multiplier: float, trainable: int, total: int, *accuracy: float, file: str = ""
):
    """One net: its blocks, depth multiplier, counts, and top-1 and top-5 where published.

    file: of timm's weights of A1, or torchvision's of B1.
    """
    facts: dict = {"trainable": trainable, "total": total}
    if file:
        project, layout = (timm, TIMM) if stages is A1 else (torchvision, TORCHVISION)
        facts["weights"] = project.imagenet(file, layout)
    if accuracy:
        top1, top5 = accuracy
        facts["accuracy"] = Accuracy("ImageNet", top1, "tensorflow/tpu, mnasnet", top5=top5)
    return {"stages": stages, "depth_multiplier": multiplier}, facts


register_family(
    mnasnet,
    family="mnasnet",
    year=2018,
    paper="1807.11626",
    title="MnasNet: Platform-Aware Neural Architecture Search for Mobile",
    input_shape=(224, 224, 3),
    classes=1000,
    min_size=17,
    first_conv="stem_conv",
    cam_layer="top_act",
    pyramid=("stage1_out", "stage2_out", "stage3_out", "stage5_out", "stage7_out"),
    preprocess="torch",
    layouts=(TORCHVISION, TIMM),
    variants={
        "mnasnet_a1_035": variant(A1, 0.35, 1_747_018, 1_761_034, 64.1, 85.1),
        "mnasnet_a1_050": variant(A1, 0.5, 2_082_006, 2_100_406, 68.9, 88.4),
        "mnasnet_a1_075": variant(
            A1,
            0.75,
            2_912_278,
            2_939_110,
            73.3,
            91.3,
            file="v0.1-weights/semnasnet_075-18710866.pth",
        ),
        "mnasnet_a1_100": variant(
            A1, 1.0, 3_887_038, 3_920_526, 75.2, 92.5, file="v0.1-weights/mnasnet_a1-d9418771.pth"
        ),
        "mnasnet_a1_130": variant(A1, 1.3, 5_468_486, 5_511_494),
        "mnasnet_a1_140": variant(A1, 1.4, 6_105_992, 6_152_008, 77.2, 93.5),
        "mnasnet_b1_035": variant(B1, 0.35, 1_788_232, 1_803_208),
        "mnasnet_b1_050": variant(
            B1, 0.5, 2_218_512, 2_239_136, file="mnasnet0.5_top1_67.823-3ffadce67e.pth"
        ),
        "mnasnet_b1_075": variant(B1, 0.75, 3_170_208, 3_200_016, file="mnasnet0_75-7090bc5f.pth"),
        "mnasnet_b1_100": variant(
            B1, 1.0, 4_383_312, 4_421_232, file="mnasnet1.0_top1_73.512-f206786ef8.pth"
        ),
        "mnasnet_b1_130": variant(B1, 1.3, 6_282_256, 6_331_072, file="mnasnet1_3-a4c69d6f.pth"),
        "mnasnet_b1_140": variant(B1, 1.4, 7_115_728, 7_168_176),
    },
)
