"""NASNet-A. Zoph, Vasudevan, Shlens, Le, "Learning Transferable Architectures for Scalable Image
Recognition", 2017, arXiv:1707.07012.

A search on CIFAR found two cells, one that keeps the resolution and one that halves it; stacking
them deeper and wider makes nets for ImageNet. Every cell sees the outputs of the two cells before.

Padding and batch normalisation are those of the authors' code and keras.applications. Where a
reduction's pooling meets the border, the zeros beyond it count, as in keras.applications; the
authors' code leaves them out (`zeros_in_max=False`, as timm does too, `zeros_in_average=False`).
"""

from striate.lazy import keras
from striate.models import pytorchcv, timm
from striate.models.blocks import logits, stage_out
from striate.pretrained import Layout, Weights
from striate.registry import Accuracy, TrainingHeads, register_family


def batch_norm(x, *, name: str):
    """Batch normalisation as in the authors' code."""
    return keras.layers.BatchNormalization(momentum=0.9997, epsilon=1e-3, name=f"{name}_bn")(x)


def relu_conv_bn(x, filters: int, *, name: str):
    """ReLU, 1x1 convolution, batch normalisation."""
    x = keras.layers.ReLU(name=f"{name}_relu")(x)
    x = keras.layers.Conv2D(
        filters, 1, use_bias=False, kernel_initializer="he_normal", name=f"{name}_conv"
    )(x)
    return batch_norm(x, name=name)


def separable(x, filters: int, kernel: int, *, stride: int = 1, name: str):
    """Twice ReLU, separable convolution, batch normalisation; the first one strides."""
    for i, step in enumerate((stride, 1), start=1):
        x = keras.layers.ReLU(name=f"{name}_{i}_relu")(x)
        x = keras.layers.SeparableConv2D(
            filters, kernel, strides=step, padding="same", use_bias=False, name=f"{name}_{i}_conv"
        )(x)
        x = batch_norm(x, name=f"{name}_{i}")
    return x


def halve(x, filters: int, *, name: str):
    """Halve the resolution and lose no pixel in two paths, one of them shifted by a pixel."""
    kept = keras.layers.MaxPooling2D(1, strides=2, padding="same", name=f"{name}_even")(x)
    kept = keras.layers.Conv2D(filters // 2, 1, use_bias=False, name=f"{name}_even_conv")(kept)
    shifted = keras.layers.ZeroPadding2D(((0, 1), (0, 1)), name=f"{name}_odd_pad")(x)
    shifted = keras.layers.Cropping2D(((1, 0), (1, 0)), name=f"{name}_odd_crop")(shifted)
    shifted = keras.layers.MaxPooling2D(1, strides=2, padding="same", name=f"{name}_odd")(shifted)
    shifted = keras.layers.Conv2D(
        filters - filters // 2, 1, use_bias=False, name=f"{name}_odd_conv"
    )(shifted)
    x = keras.layers.Concatenate(name=f"{name}_concat")([kept, shifted])
    return batch_norm(x, name=name)


def fit(previous, x, filters: int, *, name: str):
    """The output of the cell before, in the resolution of x and with `filters` channels.

    Before the first cell there is none; x takes its place as it is.
    """
    if previous is None:
        return x
    if previous.shape[1:3] != x.shape[1:3]:
        previous = keras.layers.ReLU(name=f"{name}_fit_relu")(previous)
        return halve(previous, filters, name=f"{name}_fit")
    if previous.shape[-1] != filters:
        return relu_conv_bn(previous, filters, name=f"{name}_fit")
    return previous


def add(a, b, *, name: str):
    return keras.layers.Add(name=name)([a, b])


def average(x, *, name: str):
    """3x3 average of stride 1, without what lies outside the map."""
    return keras.layers.AveragePooling2D(3, strides=1, padding="same", name=name)(x)


def normal_cell(x, previous, filters: int, *, name: str):
    """The cell that keeps the resolution (Figure 4, left): 6 * filters channels."""
    p = fit(previous, x, filters, name=name)
    h = relu_conv_bn(x, filters, name=f"{name}_in")
    parts = [
        p,
        add(
            separable(h, filters, 5, name=f"{name}_1a"),
            separable(p, filters, 3, name=f"{name}_1b"),
            name=f"{name}_1_add",
        ),
        add(
            separable(p, filters, 5, name=f"{name}_2a"),
            separable(p, filters, 3, name=f"{name}_2b"),
            name=f"{name}_2_add",
        ),
        add(average(h, name=f"{name}_3_average"), p, name=f"{name}_3_add"),
        add(
            average(p, name=f"{name}_4a_average"),
            average(p, name=f"{name}_4b_average"),
            name=f"{name}_4_add",
        ),
        add(separable(h, filters, 3, name=f"{name}_5"), h, name=f"{name}_5_add"),
    ]
    return keras.layers.Concatenate(name=f"{name}_concat")(parts)


def reduction_cell(
    x, previous, filters: int, *, zeros_in_max: bool, zeros_in_average: bool, name: str
):
    """The cell that halves the resolution (Figure 4, right): 4 * filters channels."""
    p = fit(previous, x, filters, name=name)
    h = relu_conv_bn(x, filters, name=f"{name}_in")
    pad = tuple((side % 2, 1) for side in h.shape[1:3])  # as `same`, but the zeros count
    padded = keras.layers.ZeroPadding2D(pad, name=f"{name}_pad")(h)

    def pooled(pool, part: str, *, zeros: bool):
        how = {"strides": 2, "name": f"{name}_{part}"}
        return pool(3, **how)(padded) if zeros else pool(3, padding="same", **how)(h)

    one = add(
        separable(h, filters, 5, stride=2, name=f"{name}_1a"),
        separable(p, filters, 7, stride=2, name=f"{name}_1b"),
        name=f"{name}_1_add",
    )
    two = add(
        pooled(keras.layers.MaxPooling2D, "2_max", zeros=zeros_in_max),
        separable(p, filters, 7, stride=2, name=f"{name}_2"),
        name=f"{name}_2_add",
    )
    three = add(
        pooled(keras.layers.AveragePooling2D, "3_average", zeros=zeros_in_average),
        separable(p, filters, 5, stride=2, name=f"{name}_3"),
        name=f"{name}_3_add",
    )
    four = add(average(one, name=f"{name}_4_average"), two, name=f"{name}_4_add")
    five = add(
        separable(one, filters, 3, name=f"{name}_5"),
        pooled(keras.layers.MaxPooling2D, "5_max", zeros=zeros_in_max),
        name=f"{name}_5_add",
    )
    return keras.layers.Concatenate(name=f"{name}_concat")([two, three, four, five])


def auxiliary_logits(x, num_classes: int, **dense):
    """The classifier that looks on from two thirds of the depth while training."""
    x = keras.layers.ReLU(name="logits_auxiliary_in")(x)
    x = keras.layers.AveragePooling2D(5, strides=3, name="logits_auxiliary_pool")(x)
    x = keras.layers.Conv2D(128, 1, use_bias=False, name="logits_auxiliary_1_conv")(x)
    x = keras.layers.ReLU(name="logits_auxiliary_1_relu")(batch_norm(x, name="logits_auxiliary_1"))
    x = keras.layers.Conv2D(
        768, tuple(x.shape[1:3]), use_bias=False, name="logits_auxiliary_2_conv"
    )(x)
    x = keras.layers.ReLU(name="logits_auxiliary_2_relu")(batch_norm(x, name="logits_auxiliary_2"))
    x = keras.layers.Flatten(name="logits_auxiliary_flatten")(x)
    return keras.layers.Dense(num_classes, dtype="float32", name="logits_auxiliary", **dense)(x)


def nasnet(
    inputs,
    *,
    num_classes: int,
    stem_filters: int,
    filters: int,
    skip_reduction: bool,
    cells: int = 4,
    training_heads: bool = False,
    zeros_in_max: bool = True,
    zeros_in_average: bool = True,
    dropout: float = 0.5,
):
    """Two reduction cells, and three stages of `cells` normal cells with a reduction cell between.

    training_heads: the model has a second output, the logits of the auxiliary classifier on
    stage 2, whose map must be 5 x 5 at least; its loss counts 0.4, as in the authors' code.
    zeros_in_max, zeros_in_average: where such a pooling halves a map, the zeros beyond its border
    count, as in keras.applications; in the authors' code they do not. dropout: before the
    classifier.
    """
    zeros = {"zeros_in_max": zeros_in_max, "zeros_in_average": zeros_in_average}
    x = keras.layers.Conv2D(
        stem_filters,
        3,
        strides=2,
        use_bias=False,
        kernel_initializer="he_normal",
        name="stem_conv",
    )(inputs)
    x, previous = batch_norm(x, name="stem"), None
    for i, width in enumerate((filters // 4, filters // 2), start=1):
        x, previous = reduction_cell(x, previous, width, name=f"stem_{i}", **zeros), x
    outputs = []
    for i in (1, 2, 3):
        if i > 1:
            filters *= 2
            y = reduction_cell(x, previous, filters, name=f"stage{i}_block0", **zeros)
            x, previous = y, previous if skip_reduction else x
        for j in range(1, cells + 1):
            x, previous = normal_cell(x, previous, filters, name=f"stage{i}_block{j}"), x
        x = stage_out(x, i)
        if training_heads and i == 2:
            outputs.append(auxiliary_logits(x, num_classes))
    x = keras.layers.ReLU(name="top_relu")(x)
    x = keras.layers.GlobalAveragePooling2D(name="features")(x)
    answer = logits(x, num_classes, dropout=dropout)
    return [answer, *outputs] if training_heads else answer


# === Weights of timm ===

REDUCTION = {  # a separable convolution of ours -> its place in a cell of theirs
    "1a": "comb_iter_0_left",
    "1b": "comb_iter_0_right",
    "2": "comb_iter_1_right",
    "3": "comb_iter_2_right",
    "5": "comb_iter_4_left",
}
NORMAL = {
    "1a": "comb_iter_0_left",
    "1b": "comb_iter_0_right",
    "2a": "comb_iter_1_left",
    "2b": "comb_iter_1_right",
    "5": "comb_iter_4_left",
}


def timm_cell(ours: str, theirs: str, places: dict[str, str], *, halves: bool) -> dict:
    """Our layers of one cell -> its modules; halves: the cell before had twice the resolution."""
    names: dict[str, str | tuple[str, ...]] = {
        f"{ours}_in_conv": f"{theirs}.conv_1x1.conv",
        f"{ours}_in_bn": f"{theirs}.conv_1x1.bn",
        f"{ours}_fit_conv": f"{theirs}.conv_prev_1x1.conv",
        f"{ours}_fit_even_conv": f"{theirs}.path_1.conv",
        f"{ours}_fit_odd_conv": f"{theirs}.path_2.conv",
        f"{ours}_fit_bn": f"{theirs}.final_path_bn" if halves else f"{theirs}.conv_prev_1x1.bn",
    }
    for part, place in places.items():
        for n in (1, 2):
            names[f"{ours}_{part}_{n}_conv"] = (
                f"{theirs}.{place}.separable_{n}.depthwise_conv2d",
                f"{theirs}.{place}.separable_{n}.pointwise_conv2d",
            )
            names[f"{ours}_{part}_{n}_bn"] = f"{theirs}.{place}.bn_sep_{n}"
    return names


def timm_names(*, cells: int = 4, **_) -> dict[str, str | tuple[str, ...]]:
    """Our layer -> the module of timm's NASNet-A large."""
    names = {"stem_conv": "conv0.conv", "stem_bn": "conv0.bn", "logits": "last_linear"}
    for i in (0, 1):
        names |= timm_cell(f"stem_{i + 1}", f"cell_stem_{i}", REDUCTION, halves=True)
        reduction = f"reduction_cell_{i}"
        names |= timm_cell(f"stage{i + 2}_block0", reduction, REDUCTION, halves=False)
    for n in range(3 * cells):
        i, j = divmod(n, cells)
        names |= timm_cell(f"stage{i + 1}_block{j + 1}", f"cell_{n}", NORMAL, halves=j == 0)
    return names


TIMM = timm.layout(timm_names, preprocess="tf", options={"zeros_in_max": False})

# === Weights of pytorchcv ===


def pytorchcv_cell(ours: str, theirs: str, places: dict[str, str], *, halves: bool) -> dict:
    """Our layers of one cell -> its modules; halves: the cell before had twice the resolution."""
    names: dict[str, str | tuple[str, ...]] = {
        f"{ours}_in_conv": f"{theirs}.conv1x1.conv",
        f"{ours}_in_bn": f"{theirs}.conv1x1.bn",
        f"{ours}_fit_conv": f"{theirs}.conv1x1_prev.conv",
        f"{ours}_fit_even_conv": f"{theirs}.path.path1.conv",
        f"{ours}_fit_odd_conv": f"{theirs}.path.path2.conv",
        f"{ours}_fit_bn": f"{theirs}.path.bn" if halves else f"{theirs}.conv1x1_prev.bn",
    }
    for part, place in places.items():
        for n in (1, 2):
            at = f"{theirs}.{place.replace('_iter_', '')}.conv{n}"
            names[f"{ours}_{part}_{n}_conv"] = (f"{at}.conv.dw_conv", f"{at}.conv.pw_conv")
            names[f"{ours}_{part}_{n}_bn"] = f"{at}.bn"
    return names


def pytorchcv_names(*, cells: int = 4, **_) -> dict[str, str | tuple[str, ...]]:
    """Our layer -> the module of pytorchcv's NASNets."""
    names = {**pytorchcv.conv_bn({"stem": "features.init_block"}), "logits": "output.fc"}
    for i in (1, 2):
        names |= pytorchcv_cell(f"stem_{i}", f"features.stem{i}_unit", REDUCTION, halves=True)
        reduction = f"features.stage{i + 1}.unit1"
        names |= pytorchcv_cell(f"stage{i + 1}_block0", reduction, REDUCTION, halves=False)
    for i in (1, 2, 3):
        for j in range(1, cells + 1):
            theirs = f"features.stage{i}.unit{j if i == 1 else j + 1}"
            names |= pytorchcv_cell(f"stage{i}_block{j}", theirs, NORMAL, halves=j == 1)
    return names


# Its large net is the authors' own, trained on pictures between -1 and 1.
PYTORCHCV, PYTORCHCV_LARGE = (
    pytorchcv.layout(
        pytorchcv_names,
        preprocess=preprocess,
        options={"zeros_in_max": False, "zeros_in_average": False},
    )
    for preprocess in ("torch", "tf")
)

# === Weights of keras.applications ===

KERAS_URL = "https://storage.googleapis.com/tensorflow/keras-applications/nasnet/"
KERAS_REDUCTION = {"1a": "left1", "1b": "right1", "2": "right2", "3": "right3", "5": "left4"}
KERAS_NORMAL = {"1a": "left1", "1b": "right1", "2a": "left2", "2b": "right2", "5": "left5"}


def keras_cell(ours: str, theirs: str | int, *, reduction: bool = False) -> dict[str, str]:
    """Our layers of one cell -> its layers."""
    kind = "reduction" if reduction else "normal"
    names = {
        f"{ours}_in_conv": f"{kind}_conv_1_{theirs}",
        f"{ours}_in_bn": f"{kind}_bn_1_{theirs}",
        f"{ours}_fit_conv": f"adjust_conv_projection_{theirs}",
        f"{ours}_fit_even_conv": f"adjust_conv_1_{theirs}",
        f"{ours}_fit_odd_conv": f"adjust_conv_2_{theirs}",
        f"{ours}_fit_bn": f"adjust_bn_{theirs}",
    }
    for part, side in (KERAS_REDUCTION if reduction else KERAS_NORMAL).items():
        for n in (1, 2):
            names[f"{ours}_{part}_{n}_conv"] = f"separable_conv_{n}_{kind}_{side}_{theirs}"
            names[f"{ours}_{part}_{n}_bn"] = f"separable_conv_{n}_bn_{kind}_{side}_{theirs}"
    return names


def keras_names(*, cells: int = 4, **_) -> dict[str, str]:
    """Our layer -> the layer of keras.applications' NASNets, which number all cells in turn."""
    names = {"stem_conv": "stem_conv1", "stem_bn": "stem_bn1", "logits": "predictions"}
    for i in (1, 2):
        names |= keras_cell(f"stem_{i}", f"stem_{i}", reduction=True)
        names |= keras_cell(f"stage{i + 1}_block0", f"reduce_{i * cells}", reduction=True)
    for i in (1, 2, 3):
        for j in range(1, cells + 1):
            number = (i - 1) * cells + j - (i == 1)  # the first stage's count from 0
            names |= keras_cell(f"stage{i}_block{j}", number)
    return names


KERAS = Layout("keras.applications", names=keras_names, preprocess="tf")


def keras_weights(size: str, md5: str) -> tuple[Weights]:
    """The published weights of one net."""
    weights = Weights(
        "imagenet",
        url=f"{KERAS_URL}NASNet-{size}.h5",
        hash=f"md5:{md5}",
        preprocess="tf",
        licence="Apache-2.0, the TensorFlow authors",
    )
    return (weights,)


# === Nets ===

register_family(
    nasnet,
    family="nasnet",
    year=2017,
    paper="1707.07012",
    title="Learning Transferable Architectures for Scalable Image Recognition",
    classes=1000,
    min_size=32,
    first_conv="stem_conv",
    cam_layer="stage3_out",
    pyramid=("stage1_out", "stage2_out", "stage3_out"),
    preprocess="tf",
    training_heads=TrainingHeads(0.4),
    reduced={"cells": 1},
    variants={
        "nasnet_a_mobile": (
            {"stem_filters": 32, "filters": 44, "skip_reduction": False},
            {
                "layouts": (KERAS, PYTORCHCV),
                "input_shape": (224, 224, 3),
                "trainable": 5_289_978,
                "total": 5_326_716,
                "accuracy": Accuracy("ImageNet", 74.0, "the paper, Table 3", top5=91.6),
                "weights": keras_weights("mobile", "020fb642bf7360b370c678b08e0adf61"),
            },
        ),
        "nasnet_a_large": (
            {"stem_filters": 96, "filters": 168, "skip_reduction": True, "cells": 6},
            {
                "layouts": (TIMM, KERAS, PYTORCHCV_LARGE),
                "input_shape": (331, 331, 3),
                "trainable": 88_753_150,
                "total": 88_949_818,
                "accuracy": Accuracy("ImageNet", 82.693, "pretrained-models.pytorch", top5=96.163),
                "weights": keras_weights("large", "11577c9a518f0070763c2b964a382f17"),
            },
        ),
    },
)
