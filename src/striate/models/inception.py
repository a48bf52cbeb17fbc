"""Inception v3 and v4 and Inception-ResNet v2.

Szegedy, Vanhoucke, Ioffe, Shlens, Wojna, "Rethinking the Inception Architecture for Computer
Vision", 2015, arXiv:1512.00567. Large filters are factorised: 5x5 into two 3x3, 7x7 into 1x7 and
7x1, so that the same work buys a deeper net.

Szegedy, Ioffe, Vanhoucke, Alemi, "Inception-v4, Inception-ResNet and the Impact of Residual
Connections on Learning", 2016, arXiv:1602.07261. Version 4 makes the modules of a stage alike; the
ResNet form adds what a lighter module sees, scaled down, to its input.

A module is a table: its branches, each a list of convolutions (filters, kernel) or (filters,
kernel, 2) of stride 2. Convolutions of stride 1 keep the map's size, those of stride 2 do not pad.

Differs from the papers: widths are those of the authors' released code where the text leaves or
contradicts them (Inception-ResNet v2: 192, 1088 and 2080 channels between the modules, and a
first module of Inception v3's kind).
"""

from collections.abc import Iterator, Mapping
from typing import Any

from striate.lazy import keras
from striate.models import timm, torchvision
from striate.models.blocks import HE, pool_and_classify, stage_out
from striate.pretrained import Layout, Weights
from striate.registry import Accuracy, TrainingHeads, register_family

BN = {"epsilon": 1e-3, "momentum": 0.9}
FORK = "1x3 and 3x1"  # a kernel: the two side by side, each with so many filters

Branch = list[tuple]


def unit(
    x,
    filters: int,
    kernel: int | tuple[int, int],
    *,
    stride: int = 1,
    padding: str = "same",
    relu: bool = True,
    bn: dict,
    name: str,
):
    """Convolution, batch normalisation, ReLU."""
    x = keras.layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        padding=padding,
        use_bias=False,
        kernel_initializer=HE,
        name=f"{name}_conv",
    )(x)
    x = keras.layers.BatchNormalization(**bn, name=f"{name}_bn")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x) if relu else x


def tower(x, branch: Branch, *, bn: dict, name: str):
    """One branch of a module, from its row in the table."""
    for n, (filters, kernel, *strided) in enumerate(branch, start=1):
        at = f"{name}_{n}"
        if kernel == FORK:
            wide = unit(x, filters, (1, 3), bn=bn, name=f"{at}a")
            high = unit(x, filters, (3, 1), bn=bn, name=f"{at}b")
            x = keras.layers.Concatenate(name=f"{at}_concat")([wide, high])
        elif strided:
            x = unit(x, filters, kernel, stride=2, padding="valid", bn=bn, name=at)
        else:
            x = unit(x, filters, kernel, bn=bn, name=at)
    return x


def average_pool(x, *, count_padding: bool, name: str):
    """3x3 averages of stride 1; whether the zeros beyond the border count."""
    if count_padding:
        x = keras.layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
    padding = "valid" if count_padding else "same"
    return keras.layers.AveragePooling2D(3, strides=1, padding=padding, name=name)(x)


def module(
    x,
    branches: list[Branch],
    *,
    projection: int = 0,
    reduce: bool = False,
    count_padding: bool = False,
    bn: dict,
    name: str,
):
    """Branches side by side, concatenated.

    projection: a further branch, average pooling and a 1x1 convolution of this width.
    reduce: a further branch, max pooling of stride 2.
    """
    outputs = [tower(x, b, bn=bn, name=f"{name}_branch{n}") for n, b in enumerate(branches, 1)]
    if projection:
        pool = average_pool(x, count_padding=count_padding, name=f"{name}_pool")
        outputs.append(unit(pool, projection, 1, bn=bn, name=f"{name}_pool_proj"))
    if reduce:
        outputs.append(keras.layers.MaxPooling2D(3, strides=2, name=f"{name}_pool")(x))
    if len(outputs) == 1:
        return outputs[0]
    return keras.layers.Concatenate(name=f"{name}_concat")(outputs)


def stem_v3(x, *, bn: dict):
    """Five convolutions and two poolings to an eighth of the side (35 x 35 of 299 x 299)."""
    x = unit(x, 32, 3, stride=2, padding="valid", bn=bn, name="stem_1")
    x = unit(x, 32, 3, padding="valid", bn=bn, name="stem_2")
    x = unit(x, 64, 3, bn=bn, name="stem_3")
    x = keras.layers.MaxPooling2D(3, strides=2, name="stem_pool1")(x)
    x = unit(x, 80, 1, bn=bn, name="stem_4")
    x = unit(x, 192, 3, padding="valid", bn=bn, name="stem_5")
    return keras.layers.MaxPooling2D(3, strides=2, name="stem_pool2")(x)


# === Inception v3 ===


def v3_a(projection: int) -> tuple[list[Branch], int]:
    """Figure 5: 35 x 35."""
    return [[(64, 1)], [(48, 1), (64, 5)], [(64, 1), (96, 3), (96, 3)]], projection


def v3_b(width: int) -> tuple[list[Branch], int]:
    """Figure 6: 17 x 17, 7x7 filters in their two factors."""
    once = [(width, 1), (width, (1, 7)), (192, (7, 1))]
    twice = [(width, 1), (width, (7, 1)), (width, (1, 7)), (width, (7, 1)), (192, (1, 7))]
    return [[(192, 1)], once, twice], 192


def v3_c() -> tuple[list[Branch], int]:
    """Figure 7: 8 x 8, wide."""
    return [[(320, 1)], [(384, 1), (384, FORK)], [(448, 1), (384, 3), (384, FORK)]], 192


V3_STAGES = (
    [v3_a(32), v3_a(64), v3_a(64)],
    [v3_b(128), v3_b(160), v3_b(160), v3_b(192)],
    [v3_c(), v3_c()],
)
V3_REDUCTIONS = (
    [[(384, 3, 2)], [(64, 1), (96, 3), (96, 3, 2)]],
    [[(192, 1), (320, 3, 2)], [(192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, 2)]],
)


def training_head(x, num_classes: int, *, bn: dict):
    """The auxiliary classifier on the last 17 x 17 map; on small maps its windows shrink."""
    pool = min(5, *x.shape[1:3])
    x = keras.layers.AveragePooling2D(pool, strides=3, name="logits_aux_pool")(x)
    x = unit(x, 128, 1, bn=bn, name="logits_aux_1")
    padding = "valid" if min(x.shape[1:3]) >= 5 else "same"
    x = unit(x, 768, 5, padding=padding, bn=bn, name="logits_aux_2")
    x = keras.layers.GlobalAveragePooling2D(name="logits_aux_features")(x)
    return keras.layers.Dense(num_classes, dtype="float32", name="logits_aux")(x)


def inception_v3(
    inputs,
    *,
    num_classes: int,
    depths: tuple[int, int, int] = (3, 4, 2),
    dropout: float = 0.5,
    training_heads: bool = False,
    bn_scale: bool = True,
    count_padding: bool = False,
):
    """Stages of modules A, B and C, each but the first entered by a reduction.

    depths: modules in each stage. dropout: before the classifier.
    training_heads: the model has a second output, the logits of the auxiliary classifier, whose
    loss counts 0.4, as in the authors' code: [logits, logits_aux].
    bn_scale: batch normalisation scales its channels; keras.applications' does not.
    count_padding: zeros beyond the border count in averages, as in torchvision, not TensorFlow.
    """
    bn = {**BN, "scale": bn_scale}
    x = stem_v3(inputs, bn=bn)
    heads = []
    for i, (blocks, depth) in enumerate(zip(V3_STAGES, depths, strict=True), start=1):
        if i > 1:
            x = module(x, V3_REDUCTIONS[i - 2], reduce=True, bn=bn, name=f"stage{i}_block0")
        for j, (branches, projection) in enumerate(blocks[:depth], start=1):
            x = module(
                x,
                branches,
                projection=projection,
                count_padding=count_padding,
                bn=bn,
                name=f"stage{i}_block{j}",
            )
        x = stage_out(x, i)
        if i == 2 and training_heads:
            heads.append(training_head(x, num_classes, bn=bn))
    output = pool_and_classify(x, num_classes, dropout=dropout)
    return [output, *heads] if training_heads else output


# === Inception v4 ===


def stem_v4(x, *, pool_first: bool = False, swap: bool = False, bn: dict):
    """Figure 3: three times two ways side by side, to 384 channels.

    swap: 7x1 before 1x7 in the long way; pool_first: the order in which the last two ways are
    concatenated; the implementations differ in both.
    """
    x = unit(x, 32, 3, stride=2, padding="valid", bn=bn, name="stem_1")
    x = unit(x, 32, 3, padding="valid", bn=bn, name="stem_2")
    x = unit(x, 64, 3, bn=bn, name="stem_3")
    pool = keras.layers.MaxPooling2D(3, strides=2, name="stem_pool1")(x)
    x = unit(x, 96, 3, stride=2, padding="valid", bn=bn, name="stem_4")
    x = keras.layers.Concatenate(name="stem_concat1")([pool, x])
    short = unit(x, 64, 1, bn=bn, name="stem_short1")
    short = unit(short, 96, 3, padding="valid", bn=bn, name="stem_short2")
    long = unit(x, 64, 1, bn=bn, name="stem_long1")
    long = unit(long, 64, (7, 1) if swap else (1, 7), bn=bn, name="stem_long2")
    long = unit(long, 64, (1, 7) if swap else (7, 1), bn=bn, name="stem_long3")
    long = unit(long, 96, 3, padding="valid", bn=bn, name="stem_long4")
    x = keras.layers.Concatenate(name="stem_concat2")([short, long])
    pool = keras.layers.MaxPooling2D(3, strides=2, name="stem_pool2")(x)
    x = unit(x, 192, 3, stride=2, padding="valid", bn=bn, name="stem_5")
    ways = [pool, x] if pool_first else [x, pool]
    return keras.layers.Concatenate(name="stem_concat3")(ways)


V4_MODULES = (  # branches, pool projection: Figures 4 to 6
    ([[(96, 1)], [(64, 1), (96, 3)], [(64, 1), (96, 3), (96, 3)]], 96),
    (
        [
            [(384, 1)],
            [(192, 1), (224, (1, 7)), (256, (7, 1))],
            [(192, 1), (192, (7, 1)), (224, (1, 7)), (224, (7, 1)), (256, (1, 7))],
        ],
        128,
    ),
    (
        [
            [(256, 1)],
            [(384, 1), (256, FORK)],
            [(384, 1), (448, (3, 1)), (512, (1, 3)), (256, FORK)],
        ],
        256,
    ),
)
V4_REDUCTIONS = (  # Figures 7 and 8
    [[(384, 3, 2)], [(192, 1), (224, 3), (256, 3, 2)]],
    [[(192, 1), (192, 3, 2)], [(256, 1), (256, (1, 7)), (320, (7, 1)), (320, 3, 2)]],
)


def inception_v4(
    inputs, *, num_classes: int, depths: tuple[int, int, int] = (4, 7, 3), dropout: float = 0.2
):
    """Stages of modules A, B and C, each but the first entered by a reduction.

    depths: modules in each stage. dropout: before the classifier.
    """
    x = stem_v4(inputs, bn=BN)
    for i, ((branches, projection), depth) in enumerate(
        zip(V4_MODULES, depths, strict=True), start=1
    ):
        if i > 1:
            x = module(x, V4_REDUCTIONS[i - 2], reduce=True, bn=BN, name=f"stage{i}_block0")
        for j in range(1, depth + 1):
            name = f"stage{i}_block{j}"
            x = module(x, branches, projection=projection, bn=BN, name=name)
        x = stage_out(x, i)
    return pool_and_classify(x, num_classes, dropout=dropout)


# === Inception-ResNet v2 ===

FIRST = ([[(96, 1)], [(48, 1), (64, 5)], [(64, 1), (96, 3), (96, 3)]], 64)
RESNET_MODULES = (  # branches, scale of the residual: Figures 16, 17 and 19
    ([[(32, 1)], [(32, 1), (32, 3)], [(32, 1), (48, 3), (64, 3)]], 0.17),
    ([[(192, 1)], [(128, 1), (160, (1, 7)), (192, (7, 1))]], 0.10),
    ([[(192, 1)], [(192, 1), (224, (1, 3)), (256, (3, 1))]], 0.20),
)
RESNET_REDUCTIONS = (  # Figures 7 and 18
    [[(384, 3, 2)], [(256, 1), (256, 3), (384, 3, 2)]],
    [[(256, 1), (384, 3, 2)], [(256, 1), (288, 3, 2)], [(256, 1), (288, 3), (320, 3, 2)]],
)


def residual_module(
    x, branches: list[Branch], *, scale: float, relu: bool = True, bn: dict, name: str
):
    """x plus what the branches see, brought to its width by a linear 1x1 and scaled down."""
    y = module(x, branches, bn=bn, name=name)
    y = keras.layers.Conv2D(x.shape[-1], 1, kernel_initializer=HE, name=f"{name}_up_conv")(y)
    if scale != 1:
        y = keras.layers.Rescaling(scale, name=f"{name}_scale")(y)
    x = keras.layers.Add(name=f"{name}_add")([x, y])
    return keras.layers.ReLU(name=f"{name}_relu")(x) if relu else x


def inception_resnet_v2(
    inputs,
    *,
    num_classes: int,
    depths: tuple[int, int, int] = (10, 20, 10),
    dropout: float = 0.2,
    bn_scale: bool = True,
):
    """Stages of residual modules, each but the first entered by a reduction.

    depths: modules in each stage; the very last adds its residual unscaled and without ReLU.
    dropout: before the classifier.
    bn_scale: batch normalisation scales its channels; keras.applications' does not.
    """
    bn = {**BN, "scale": bn_scale}
    x = stem_v3(inputs, bn=bn)
    branches, projection = FIRST
    x = module(x, branches, projection=projection, bn=bn, name="stage1_block0")
    for i, ((branches, scale), depth) in enumerate(
        zip(RESNET_MODULES, depths, strict=True), start=1
    ):
        if i > 1:
            x = module(x, RESNET_REDUCTIONS[i - 2], reduce=True, bn=bn, name=f"stage{i}_block0")
        for j in range(1, depth + 1):
            last = i == 3 and j == depth
            x = residual_module(
                x,
                branches,
                scale=1 if last else scale,
                relu=not last,
                bn=bn,
                name=f"stage{i}_block{j}",
            )
        if i < 3:
            x = stage_out(x, i)
    x = unit(x, 1536, 1, bn=bn, name="top")
    x = stage_out(x, 3)
    return pool_and_classify(x, num_classes, dropout=dropout)


# === Weights of timm ===


def unit_layers(units: Mapping[str, str]) -> dict[str, str]:
    """The convolution and the batch normalisation of each unit."""
    return {
        f"{ours}_{kind}": f"{theirs}.{kind}"
        for ours, theirs in units.items()
        for kind in ("conv", "bn")
    }


def timm_module(
    ours: str, theirs: str, branches: list[Branch], *, joint: str = "."
) -> dict[str, str]:
    """Our units of a module -> its modules; it counts from 0.

    joint: before a unit's place: a dot, but in module C of version 4, whose branches fork, "_".
    """
    units = {f"{ours}_pool_proj": f"{theirs}.branch{len(branches)}.1"}
    for n, place in places(branches):
        alone = len(branches[n - 1]) == 1
        at = "" if alone else f"{joint}{int(place[0]) - 1}{place[1:]}"
        units[f"{ours}_branch{n}_{place}"] = f"{theirs}.branch{n - 1}{at}"
    return units


def timm_names_v4(*, depths: tuple[int, int, int] = (4, 7, 3), **_) -> dict[str, str]:
    """Our layer -> the module of timm's Inception v4."""
    units = {f"stem_{n}": f"features.{n - 1}" for n in (1, 2, 3)}
    units |= {"stem_4": "features.3.conv", "stem_5": "features.5.conv"}
    units |= {f"stem_short{n}": f"features.4.branch0.{n - 1}" for n in (1, 2)}
    units |= {f"stem_long{n}": f"features.4.branch1.{n - 1}" for n in (1, 2, 3, 4)}
    place = 6
    for i, ((branches, _), depth) in enumerate(zip(V4_MODULES, depths, strict=True), start=1):
        if i > 1:
            reduction = V4_REDUCTIONS[i - 2]
            units |= timm_module(f"stage{i}_block0", f"features.{place}", reduction)
            place += 1
        for j in range(1, depth + 1):
            ours, joint = f"stage{i}_block{j}", "_" if i == 3 else "."
            units |= timm_module(ours, f"features.{place}", branches, joint=joint)
            place += 1
    return {**unit_layers(units), "logits": "last_linear"}


def timm_names_resnet_v2(*, depths: tuple[int, int, int] = (10, 20, 10), **_) -> dict[str, str]:
    """Our layer -> the module of timm's Inception-ResNet v2."""
    stem = ("1a", "2a", "2b", "3b", "4a")
    units = {f"stem_{n}": f"conv2d_{place}" for n, place in enumerate(stem, start=1)}
    units["top"] = "conv2d_7b"
    entrances = (FIRST[0], *RESNET_REDUCTIONS)
    ups = {}
    for i, ((branches, _), depth) in enumerate(zip(RESNET_MODULES, depths, strict=True)):
        entrance = ("mixed_5b", "mixed_6a", "mixed_7a")[i]
        units |= timm_module(f"stage{i + 1}_block0", entrance, entrances[i])
        repeat = ("repeat", "repeat_1", "repeat_2")[i]
        for j in range(1, depth + 1):
            ours, theirs = f"stage{i + 1}_block{j}", f"{repeat}.{j - 1}"
            if i == 2 and j == depth:
                theirs = "block8"
            units |= timm_module(ours, theirs, branches)
            ups[f"{ours}_up_conv"] = f"{theirs}.conv2d"
    return {**unit_layers(units), **ups, "logits": "classif"}


# === Weights of torchvision: Inception v3 ===


def places(branches: list[Branch]) -> Iterator[tuple[int, str]]:
    """(branch, place in it) of the units of a module, in the order in which they are built."""
    for n, branch in enumerate(branches, start=1):
        for k, (_, kernel, *_) in enumerate(branch, start=1):
            yield from ((n, f"{k}{fork}") for fork in ("ab" if kernel == FORK else ("",)))


def v3_modules() -> Iterator[tuple[int, int, list[Branch]]]:
    """(stage, block, branches) of every module; reductions are block 0."""
    for i, blocks in enumerate(V3_STAGES, start=1):
        if i > 1:
            yield i, 0, V3_REDUCTIONS[i - 2]
        yield from ((i, j, branches) for j, (branches, _) in enumerate(blocks, start=1))


# The branches of modules A, B and C, and of the reductions before B and C.
TORCHVISION_BRANCHES = (
    ("branch1x1", "branch5x5", "branch3x3dbl"),
    ("branch1x1", "branch7x7", "branch7x7dbl"),
    ("branch1x1", "branch3x3", "branch3x3dbl"),
)
TORCHVISION_REDUCTIONS = (("branch3x3", "branch3x3dbl"), ("branch3x3", "branch7x7x3"))
TORCHVISION_STEM = ("1a_3x3", "2a_3x3", "2b_3x3", "3b_1x1", "4a_3x3")


def torchvision_names(**_) -> dict[str, str]:
    """Our layer -> the module of torchvision's Inception v3."""
    units = {f"stem_{n}": f"Conv2d_{at}" for n, at in enumerate(TORCHVISION_STEM, start=1)}
    units |= {"logits_aux_1": "AuxLogits.conv0", "logits_aux_2": "AuxLogits.conv1"}
    for i, j, branches in v3_modules():
        ours, theirs = f"stage{i}_block{j}", f"Mixed_{i + 4}{'abcde'[j]}"
        labels = TORCHVISION_BRANCHES[i - 1] if j else TORCHVISION_REDUCTIONS[i - 2]
        for n, place in places(branches):
            alone = len(branches[n - 1]) == 1
            label = labels[n - 1] if alone else f"{labels[n - 1]}_{place}"
            units[f"{ours}_branch{n}_{place}"] = f"{theirs}.{label}"
        units[f"{ours}_pool_proj"] = f"{theirs}.branch_pool"
    return {"logits": "fc", "logits_aux": "AuxLogits.fc", **unit_layers(units)}


# Its published weights see pictures between -1 and 1, to where its net takes torch's scales back.
TORCHVISION = torchvision.layout(
    torchvision_names, preprocess="tf", options={"count_padding": True}
)

# === Weights of keras.applications ===

KERAS_URL = "https://storage.googleapis.com/tensorflow/keras-applications/"
KERAS_STEM = [f"stem_{n}" for n in (1, 2, 3, 4, 5)]


def keras_units(branches: list[Branch], *, name: str, projection: bool = False) -> list[str]:
    """The units of a module in the order in which keras.applications builds them, as we do."""
    units = [f"{name}_branch{n}_{place}" for n, place in places(branches)]
    return [*units, f"{name}_pool_proj"] if projection else units


def keras_numbers(units: list[str]) -> dict[str, str]:
    """Our layers -> the names that Keras makes up for the layers of so many units."""
    names = {}
    for n, unit in enumerate(units):
        count = f"_{n}" if n else ""
        names |= {f"{unit}_conv": f"conv2d{count}", f"{unit}_bn": f"batch_normalization{count}"}
    return names


def keras_names_v3(**_) -> dict[str, str]:
    """Our layer -> the layer of keras.applications' InceptionV3."""
    units = list(KERAS_STEM)
    for i, j, branches in v3_modules():
        units += keras_units(branches, projection=j > 0, name=f"stage{i}_block{j}")
    return {"logits": "predictions", **keras_numbers(units)}


def keras_names_resnet_v2(*, depths: tuple[int, int, int] = (10, 20, 10), **_) -> dict[str, str]:
    """Our layer -> the layer of keras.applications' InceptionResNetV2."""
    names = {"logits": "predictions", "top_conv": "conv_7b", "top_bn": "conv_7b_bn"}
    units = KERAS_STEM + keras_units(FIRST[0], projection=True, name="stage1_block0")
    for i, ((branches, _), depth) in enumerate(zip(RESNET_MODULES, depths, strict=True), start=1):
        if i > 1:
            units += keras_units(RESNET_REDUCTIONS[i - 2], name=f"stage{i}_block0")
        for j in range(1, depth + 1):
            units += keras_units(branches, name=f"stage{i}_block{j}")
            names[f"stage{i}_block{j}_up_conv"] = f"block{(35, 17, 8)[i - 1]}_{j}_conv"
    return {**names, **keras_numbers(units)}


KERAS_V3, KERAS_RESNET_V2 = (
    Layout(
        "keras.applications",
        names=names,
        preprocess="tf",
        options={"bn_scale": False},
        numbered=True,
    )
    for names in (keras_names_v3, keras_names_resnet_v2)
)


def keras_weights(name: str, md5: str) -> tuple[Weights]:
    """The published weights of one net."""
    weights = Weights(
        "imagenet",
        url=f"{KERAS_URL}{name}/{name}_weights_tf_dim_ordering_tf_kernels.h5",
        hash=f"md5:{md5}",
        preprocess="tf",
        options={"bn_scale": False},
        licence="Apache-2.0, the TensorFlow authors",
    )
    return (weights,)


# === Nets ===

COMMON: dict[str, Any] = {
    "family": "inception",
    "input_shape": (299, 299, 3),
    "classes": 1000,
    "min_size": 75,
    "first_conv": "stem_1_conv",
    "cam_layer": "stage3_out",
    "pyramid": ("stage1_out", "stage2_out", "stage3_out"),
    "preprocess": "tf",
    "reduced": {"depths": (1, 1, 1)},
}

register_family(
    inception_v3,
    **COMMON,
    year=2015,
    paper="1512.00567",
    title="Rethinking the Inception Architecture for Computer Vision",
    layouts=(TORCHVISION, KERAS_V3),
    training_heads=TrainingHeads(0.4),
    variants={
        "inception_v3": (
            {},
            {
                "trainable": 23_834_568,
                "total": 23_869_000,
                "accuracy": Accuracy("ImageNet", 77.29, "torchvision IMAGENET1K_V1", top5=93.45),
                "weights": keras_weights("inception_v3", "9a0d58056eeedaa3f26cb7ebd46da564"),
            },
        ),
    },
)

INCEPTION_V4: dict[str, Any] = {
    "year": 2016,
    "paper": "1602.07261",
    "title": "Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning",
}

register_family(
    inception_v4,
    **COMMON,
    **INCEPTION_V4,
    layouts=(timm.layout(timm_names_v4, preprocess="tf"),),
    variants={
        "inception_v4": (
            {},
            {
                "trainable": 42_679_816,
                "total": 42_742_984,
                "accuracy": Accuracy("ImageNet", 80.0, "the paper", top5=95.0),
            },
        ),
    },
)

register_family(
    inception_resnet_v2,
    **COMMON,
    **INCEPTION_V4,
    layouts=(timm.layout(timm_names_resnet_v2, preprocess="tf"), KERAS_RESNET_V2),
    variants={
        "inception_resnet_v2": (
            {},
            {
                "trainable": 55_843_464,
                "total": 55_904_008,
                "accuracy": Accuracy(
                    "ImageNet", 80.4, "pretrained-models.pytorch inceptionresnetv2", top5=95.3
                ),
                "weights": keras_weights("inception_resnet_v2", "e693bd0210a403b3192acc6073ad2e96"),
                "differs": "the widths of the authors' released code",
            },
        ),
    },
)
