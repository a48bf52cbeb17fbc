"""PolyNet. Zhang, Li, Loy, Lin, "PolyNet: A Pursuit of Structural Diversity in Very Deep
Networks", 2016, arXiv:1611.05725.

A residual module computes x + F(x). A PolyInception module computes a polynomial: 2-way, x + F(x) +
G(x), of two modules side by side; poly-3, x + F(x) + F(F(x)) + F(F(F(x))), of one module applied
three times with the same convolutions. Both kinds alternate in the second and third stage.

F is the module of Inception-ResNet; its stem is Inception v4's. Every application of shared
convolutions has a batch normalisation of its own, and its last 1x1 convolution is not shared.

Differs from the paper: residuals are scaled by factors that fall from 1 to 0.7 through the net, as
in the authors' released net.
"""

from striate.lazy import keras
from striate.models import pytorchcv
from striate.models.blocks import HE, pool_and_classify, stage_out
from striate.models.inception import Branch, module, stem_v4, unit
from striate.registry import Accuracy, register_family

BN = {"epsilon": 1e-5, "momentum": 0.9}

MODULES: tuple[list[Branch], ...] = (  # the branches of F in each stage
    [[(32, 1), (48, 3), (64, 3)], [(32, 1), (32, 3)], [(32, 1)]],
    [[(128, 1), (160, (1, 7)), (192, (7, 1))], [(192, 1)]],
    [[(192, 1), (224, (1, 3)), (256, (3, 1))], [(192, 1)]],
)
REDUCTIONS: tuple[list[Branch], ...] = (  # into the second and the third stage
    [[(256, 1), (256, 3), (384, 3, 2)], [(384, 3, 2)]],
    [[(256, 1), (256, 3), (256, 3, 2)], [(256, 1), (256, 3, 2)], [(256, 1), (384, 3, 2)]],
)
DEPTHS = (10, 20, 10)
LAST_SCALE = 0.7  # of the last module's residuals; the first module's is 1


def scaled(y, scale: float, *, name: str):
    """A residual times its scale."""
    return y if scale == 1 else keras.layers.Rescaling(scale, name=f"{name}_scale")(y)


def two_way(x, branches: list[Branch], *, scale: float, name: str):
    """x + F(x) + G(x), two modules alike with weights of their own."""
    terms = [x]
    for way in ("f", "g"):
        y = module(x, branches, bn=BN, name=f"{name}_{way}")
        y = unit(y, x.shape[-1], 1, relu=False, bn=BN, name=f"{name}_{way}_up")
        terms.append(scaled(y, scale, name=f"{name}_{way}"))
    x = keras.layers.Add(name=f"{name}_add")(terms)
    return keras.layers.ReLU(name=f"{name}_relu")(x)


def poly3(x, branches: list[Branch], *, scale: float, name: str):
    """x + F(x) + F(F(x)) + F(F(F(x))); the convolutions of F's branches are made once."""
    shared = [
        [
            keras.layers.Conv2D(
                filters,
                kernel,
                padding="same",
                use_bias=False,
                kernel_initializer=HE,
                name=f"{name}_branch{b}_{n}_conv",
            )
            for n, (filters, kernel) in enumerate(branch, start=1)
        ]
        for b, branch in enumerate(branches, start=1)
    ]
    terms, y = [x], x
    for power in (1, 2, 3):
        at = f"{name}_power{power}"
        ends = []
        for b, convolutions in enumerate(shared, start=1):
            z = y
            for n, convolution in enumerate(convolutions, start=1):
                z = convolution(z)
                z = keras.layers.BatchNormalization(**BN, name=f"{at}_branch{b}_{n}_bn")(z)
                z = keras.layers.ReLU(name=f"{at}_branch{b}_{n}_relu")(z)
            ends.append(z)
        y = keras.layers.Concatenate(name=f"{at}_concat")(ends)
        y = unit(y, x.shape[-1], 1, relu=False, bn=BN, name=f"{at}_up")
        terms.append(scaled(y, scale, name=at))
        if power < 3:
            y = keras.layers.ReLU(name=f"{at}_relu")(y)
    x = keras.layers.Add(name=f"{name}_add")(terms)
    return keras.layers.ReLU(name=f"{name}_relu")(x)


def polynet(
    inputs, *, num_classes: int, depths: tuple[int, int, int] = DEPTHS, dropout: float = 0.2
):
    """Three stages, each but the first entered by a reduction.

    depths: PolyInception modules in each stage; in the second and third poly-3 and 2-way by turns.
    dropout: before the classifier.
    """
    x = stem_v4(inputs, pool_first=True, swap=True, bn=BN)
    done, last = 0, max(1, sum(depths) - 1)
    for i, (branches, depth) in enumerate(zip(MODULES, depths, strict=True), start=1):
        if i > 1:
            x = module(x, REDUCTIONS[i - 2], reduce=True, bn=BN, name=f"stage{i}_block0")
        for j in range(1, depth + 1):
            polynomial = poly3 if i > 1 and j % 2 else two_way
            # To as many digits as the authors' net has, which a net so deep makes felt.
            scale = round(1 - (1 - LAST_SCALE) * done / last, 6)
            x = polynomial(x, branches, scale=scale, name=f"stage{i}_block{j}")
            done += 1
        x = stage_out(x, i)
    return pool_and_classify(x, num_classes, dropout=dropout)


# === Weights of pytorchcv ===


def convolutions(branches: list[Branch], ours: str, theirs: str, *, alone: str) -> dict[str, str]:
    """The convolutions of our module -> of its; alone: the end of one that is a whole branch."""
    return {
        f"{ours}_branch{b}_{n}": f"{theirs}.branches.branch{b}"
        + (f".conv_list.conv{n}" if len(branch) > 1 else alone)
        for b, branch in enumerate(branches, start=1)
        for n in range(1, len(branch) + 1)
    }


def two_way_names(ours: str, theirs: str, branches: list[Branch]) -> dict[str, str]:
    """The layers of x + F(x) + G(x) -> its modules."""
    parts = {}
    for way, block in (("f", f"{theirs}.res_blocks.0"), ("g", f"{theirs}.res_blocks.1")):
        parts |= convolutions(branches, f"{ours}_{way}", block, alone=".conv")
        parts[f"{ours}_{way}_up"] = f"{block}.conv"
    return pytorchcv.conv_bn(parts)


def poly3_names(ours: str, theirs: str, branches: list[Branch]) -> dict[str, str]:
    """The layers of x + F(x) + F(F(x)) + F(F(F(x))) -> its modules."""
    shared = convolutions(branches, ours, f"{theirs}.pre_block", alone="")
    names = {f"{at}_conv": f"{module}.conv" for at, module in shared.items()}
    for n in range(3):
        at = f"{ours}_power{n + 1}"
        applied = convolutions(branches, at, f"{theirs}.pre_block", alone="")
        names |= {f"{at}_bn": f"{module}.bns.{n}" for at, module in applied.items()}
        names |= pytorchcv.conv_bn({f"{at}_up": f"{theirs}.res_blocks.{n}"})
    return names


def pytorchcv_names(**_) -> dict[str, str]:
    """Our layer -> the module of pytorchcv's net; from stage 2 on it pairs poly-3 and 2-way."""
    start = "features.init_block"
    stem = {f"stem_{n}": f"{start}.conv{n}" for n in (1, 2, 3)}
    stem["stem_4"] = f"{start}.block1.branches.branch2.conv"
    for way, branch, count in (("short", 1, 2), ("long", 2, 4)):
        for n in range(1, count + 1):
            stem[f"stem_{way}{n}"] = f"{start}.block2.branches.branch{branch}.conv_list.conv{n}"
    stem["stem_5"] = f"{start}.block3.branches.branch2.conv"
    names = pytorchcv.conv_bn(stem)
    for i, (branches, depth) in enumerate(zip(MODULES, DEPTHS, strict=True), start=1):
        for j in range(1, depth + 1):
            ours, unit = f"stage{i}_block{j}", j if i == 1 else (j + 1) // 2 + 1
            theirs = f"features.stage{i}.unit{unit}"
            if i > 1 and j % 2:
                names |= poly3_names(ours, f"{theirs}.poly", branches)
            else:
                names |= two_way_names(ours, f"{theirs}.twoway", branches)
    for i, branches in enumerate(REDUCTIONS, start=2):
        ours, theirs = f"stage{i}_block0", f"features.stage{i}.unit1"
        parts = convolutions(branches, ours, theirs, alone=".conv_list.conv1")
        names |= pytorchcv.conv_bn(parts)
    return {**names, "logits": "output.fc"}


PYTORCHCV = pytorchcv.layout(pytorchcv_names)

# === Nets ===

register_family(
    polynet,
    family="inception",
    year=2016,
    paper="1611.05725",
    title="PolyNet: A Pursuit of Structural Diversity in Very Deep Networks",
    input_shape=(331, 331, 3),
    classes=1000,
    min_size=75,
    first_conv="stem_1_conv",
    cam_layer="stage3_out",
    pyramid=("stage1_out", "stage2_out", "stage3_out"),
    preprocess="torch",
    layouts=(PYTORCHCV,),
    reduced={"depths": (1, 2, 1)},
    variants={
        "polynet": (
            {},
            {
                "trainable": 95_366_600,
                "total": 95_727_688,
                "accuracy": Accuracy("ImageNet", 81.29, "the paper", top5=95.75),
            },
        ),
    },
)
