"""ENAS. Pham, Guan, Zoph, Le, Dean, "Efficient Neural Architecture Search via Parameter Sharing",
2018, arXiv:1802.03268.

The search that takes hours instead of months, because all nets that it tries share their weights.
Micro: two cells of five nodes, stacked. Macro: a whole net of 24 layers, each with an operation
and shortcuts of its own.

Differs from the paper: built from the arcs and the code that the authors released
(melodyguan/enas), whose counts are not those that the paper gives.
"""

from striate.lazy import keras
from striate.models.blocks import batch_norm, logits, stage_out
from striate.registry import Accuracy, TrainingHeads, register_family

HE = "he_normal"

# Of each of five nodes: first input, its operation, second input, its operation.
# Operations: 0 separable 3x3, 1 separable 5x5, 2 average, 3 maximum, 4 identity.
NORMAL = ((0, 2, 0, 0), (0, 4, 0, 1), (0, 4, 1, 1), (1, 0, 0, 1), (0, 2, 1, 1))
REDUCTION = ((1, 0, 1, 0), (0, 3, 0, 2), (1, 1, 3, 1), (1, 0, 0, 4), (0, 3, 1, 1))

# Of each of 24 layers: the operation (0 and 1 are 3x3, 2 and 3 are 5x5), and a 1 for each earlier
# output, the stem's first, that it also sees.
MACRO = (
    *("0", "3 0", "0 10", "2 001", "2 0000", "3 11010", "2 000001", "2 0110111"),
    *("1 01110101", "0 000000000", "2 0000010000", "0 10011000011", "2 010000010110"),
    *("1 0010001110101", "0 11010100000100", "2 001000000010101", "2 0100010011110010"),
    *("2 00001010100101001", "3 011010000010101000", "3 0110000000001100001"),
    *("0 10010110001000001100", "3 010110010110110100100", "0 1010100000000101001000"),
    "0 11000111010001010011000",
)


def relu_conv_bn(x, filters: int, kernel: int = 1, *, name: str):
    """ReLU, convolution, batch normalisation."""
    x = keras.layers.ReLU(name=f"{name}_relu")(x)
    x = keras.layers.Conv2D(
        filters,
        kernel,
        padding="same",
        use_bias=False,
        kernel_initializer=HE,
        name=f"{name}_conv",
    )(x)
    return batch_norm(x, name=name)


def relu_separable_bn(x, filters: int, kernel: int, *, stride: int = 1, name: str):
    """ReLU, separable convolution, batch normalisation."""
    x = keras.layers.ReLU(name=f"{name}_relu")(x)
    x = keras.layers.SeparableConv2D(
        filters,
        kernel,
        strides=stride,
        padding="same",
        use_bias=False,
        depthwise_initializer=HE,
        pointwise_initializer=HE,
        name=f"{name}_conv",
    )(x)
    return batch_norm(x, name=name)


def halve(x, filters: int, *, name: str):
    """Halve the resolution and lose no pixel in two paths, one of them shifted by a pixel."""
    paths = [x, keras.layers.ZeroPadding2D(((0, 1), (0, 1)), name=f"{name}_odd_pad")(x)]
    paths[1] = keras.layers.Cropping2D(((1, 0), (1, 0)), name=f"{name}_odd_crop")(paths[1])
    for i, path in enumerate(("even", "odd")):
        y = keras.layers.MaxPooling2D(1, strides=2, name=f"{name}_{path}")(paths[i])
        paths[i] = keras.layers.Conv2D(
            filters // 2, 1, use_bias=False, kernel_initializer=HE, name=f"{name}_{path}_conv"
        )(y)
    return batch_norm(keras.layers.Concatenate(name=f"{name}_concat")(paths), name=name)


# === Micro ===


def operation(x, op: int, filters: int, *, stride: int, name: str):
    """One of the five operations of a node."""
    if op in (0, 1):
        x = relu_separable_bn(x, filters, (3, 5)[op], stride=stride, name=f"{name}_1")
        return relu_separable_bn(x, filters, (3, 5)[op], name=f"{name}_2")
    if op in (2, 3):
        pool = keras.layers.AveragePooling2D if op == 2 else keras.layers.MaxPooling2D
        return pool(3, strides=stride, padding="same", name=f"{name}_pool")(x)
    return halve(x, filters, name=name) if stride > 1 else x


def fit(previous, x, filters: int, *, name: str):
    """The output of the cell before, in the resolution of x and with `filters` channels."""
    if previous.shape[1:3] != x.shape[1:3]:
        previous = keras.layers.ReLU(name=f"{name}_fit_relu")(previous)
        return halve(previous, filters, name=f"{name}_fit")
    if previous.shape[-1] != filters:
        return relu_conv_bn(previous, filters, name=f"{name}_fit")
    return previous


def cell(x, previous, filters: int, *, nodes: tuple[tuple, ...], stride: int, name: str):
    """Five nodes, each the sum of two operations; the ends that no node uses, concatenated."""
    previous = fit(previous, x, filters, name=name)
    if x.shape[-1] != filters:
        x = relu_conv_bn(x, filters, name=f"{name}_thin")
    outputs = [previous, relu_conv_bn(x, filters, name=f"{name}_in")]
    for n, (a, op_a, b, op_b) in enumerate(nodes, start=1):
        sums = [
            operation(
                outputs[source],
                op,
                filters,
                stride=stride if source < 2 else 1,
                name=f"{name}_{n}{side}",
            )
            for source, op, side in ((a, op_a, "a"), (b, op_b, "b"))
        ]
        outputs.append(keras.layers.Add(name=f"{name}_{n}_add")(sums))
    used = {source for a, _, b, _ in nodes for source in (a, b)}
    ends = [output for n, output in enumerate(outputs) if n not in used]
    return keras.layers.Concatenate(name=f"{name}_concat")(ends)


def enas_micro(
    inputs,
    *,
    num_classes: int,
    filters: int = 36,
    cells: int = 15,
    training_heads: bool = False,
    dropout: float = 0.2,
):
    """`cells` normal cells in three stages, with a reduction cell before the second and third.

    training_heads: the model has a second output, the logits of the auxiliary classifier early in
    stage 3, whose map must be 5 x 5 at least; its loss counts 0.4, as in the authors' code.
    dropout: before the classifier.
    """
    from striate.models.nasnet import auxiliary_logits

    x = keras.layers.Conv2D(
        3 * filters, 3, padding="same", use_bias=False, kernel_initializer=HE, name="stem_conv"
    )(inputs)
    x = previous = batch_norm(x, name="stem")
    third = cells // 3
    reductions = (third, 2 * third + 1)
    stage, block, outputs = 1, 1, []
    for n in range(cells + 2):
        if n in reductions:
            x = stage_out(x, stage)
            stage, block = stage + 1, 0
            filters *= 2
        nodes, stride = (NORMAL, 1) if block else (REDUCTION, 2)
        name = f"stage{stage}_block{block}"
        x, previous = cell(x, previous, filters, nodes=nodes, stride=stride, name=name), x
        if training_heads and n == reductions[1] + 1:
            outputs.append(auxiliary_logits(x, num_classes, use_bias=False))
        block += 1
    x = keras.layers.ReLU(name="top_relu")(stage_out(x, stage))
    x = keras.layers.GlobalAveragePooling2D(name="features")(x)
    answer = logits(x, num_classes, dropout=dropout, use_bias=False)
    return [answer, *outputs] if training_heads else answer


# === Macro ===


def enas_macro(
    inputs,
    *,
    num_classes: int,
    arc: tuple[str, ...],
    filters: int = 96,
    separable: bool = False,
    dropout: float = 0.5,
):
    """24 layers in three stages; at each change of stage all outputs so far are halved and doubled.

    separable: operations 1 and 3 are separable convolutions, as in the search; the code that trains
    the found net has plain ones. dropout: before the classifier.
    """
    x = keras.layers.Conv2D(
        filters, 3, padding="same", use_bias=False, kernel_initializer=HE, name="stem_conv"
    )(inputs)
    outputs = [batch_norm(x, name="stem")]
    third = len(arc) // 3
    for n, line in enumerate(arc):
        op, _, skips = line.partition(" ")
        stage, block = min(n // third, 2) + 1, n % third + 1
        name = f"stage{stage}_block{block}"
        convolve = relu_separable_bn if separable and op in "13" else relu_conv_bn
        y = relu_conv_bn(outputs[-1], filters, name=f"{name}_in")
        y = convolve(y, filters, 3 if op in "01" else 5, name=name)
        if n:
            seen = [outputs[i] for i, skip in enumerate(skips) if skip == "1"]
            if seen:
                y = keras.layers.Concatenate(name=f"{name}_concat")([*seen, y])
            y = relu_conv_bn(y, filters, name=f"{name}_skip")
        outputs.append(y)
        if n in (third - 1, 2 * third - 1):
            outputs[-1] = stage_out(outputs[-1], stage)
            filters *= 2
            outputs = [
                halve(output, filters, name=f"{name}_halve{i}") for i, output in enumerate(outputs)
            ]
    x = stage_out(outputs[-1], 3)
    x = keras.layers.GlobalAveragePooling2D(name="features")(x)
    return logits(x, num_classes, dropout=dropout, use_bias=False)


# === Nets ===

COMMON = {
    "family": "nasnet",
    "year": 2018,
    "paper": "1802.03268",
    "title": "Efficient Neural Architecture Search via Parameter Sharing",
    "input_shape": (32, 32, 3),
    "classes": 10,
    "first_conv": "stem_conv",
    "cam_layer": "stage3_out",
    "pyramid": ("stage1_out", "stage2_out", "stage3_out"),
    "preprocess": "torch",
}

register_family(
    enas_micro,
    **COMMON,
    min_size=4,
    training_heads=TrainingHeads(0.4),
    reduced={"cells": 3, "filters": 8},
    variants={
        "enas_micro_cifar": (
            {},
            {
                "trainable": 3_894_372,
                "total": 3_939_300,
                "accuracy": Accuracy("CIFAR-10", 96.46, "the paper, Table 2"),
                "differs": "the released arc has 3.9 M parameters, the paper says 4.6 M; "
                "the auxiliary head sees its whole map at once",
            },
        ),
    },
)

register_family(
    enas_macro,
    **COMMON,
    min_size=4,
    reduced={"filters": 8},
    variants={
        "enas_macro_cifar": (
            {"arc": MACRO},
            {
                "trainable": 42_559_392,
                "total": 42_608_160,
                "accuracy": Accuracy("CIFAR-10", 95.77, "the paper, Table 2"),
                "differs": "the released code builds 42.6 M parameters, 30.9 M with separable "
                "convolutions; the paper says 21.3 M, and 38.0 M for 3.87 %",
            },
        ),
    },
)
