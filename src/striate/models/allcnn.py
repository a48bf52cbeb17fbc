"""The all-convolutional nets. Springenberg, Dosovitskiy, Brox, Riedmiller, "Striving for
Simplicity: The All Convolutional Net", 2014, arXiv:1412.6806.

Does a convolutional net need pooling? Three small nets for CIFAR (Table 1) in four forms each
(Table 2): the base net with max pooling (`allcnn_base`); the pooling left out and the convolution
before it strided (`strided_cnn`); the pooling replaced by a strided convolution (`allcnn`); and a
convolution added before the pooling (`convpool_cnn`), which has as many parameters as `allcnn`.

Differs from the paper: nothing that is known. Convolutions keep the map's size but for the last
3x3, which leaves the 6 x 6 that Table 1 averages over. Counts are exact for that table; the paper
rounds them to 0.9 M to 1.4 M, and its 1.3 M for model C does not fit it.
"""

from typing import Any

from striate.errors import UsageError
from striate.lazy import keras
from striate.models.blocks import HE, drop, pool_and_classify, stage_out
from striate.registry import Accuracy, register_family

# Table 1: the kernels of the convolutions before each of the two poolings.
MODELS = {"a": (5,), "b": (5, 1), "c": (3, 3)}


def unit(x, filters: int, kernel: int, *, stride: int = 1, padding: str = "same", name: str):
    """Convolution with bias and ReLU."""
    x = keras.layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        padding=padding,
        kernel_initializer=HE,
        name=f"{name}_conv",
    )(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)


def shrink(x, kernels: tuple[int, ...], width: int, *, how: str, stage: int):
    """The convolutions of a stage and the way, one of Table 2's four, that it halves the map."""
    kernels += (3,) if how in ("convolution", "both") else ()
    for j, kernel in enumerate(kernels, start=1):
        strided = how in ("stride", "convolution") and j == len(kernels)
        x = unit(x, width, kernel, stride=2 if strided else 1, name=f"stage{stage}_block{j}")
    if how in ("pool", "both"):
        x = keras.layers.MaxPooling2D(3, strides=2, padding="same", name=f"stage{stage}_pool")(x)
    return x


def class_maps(x, num_classes: int):
    """A map for each class (1x1 convolution, ReLU), averaged to its logit."""
    x = unit(x, num_classes, 1, name="logits")
    return keras.layers.GlobalAveragePooling2D(dtype="float32", name="logits")(x)


def allcnn(
    inputs,
    *,
    num_classes: int,
    kernels: tuple[int, ...],
    shrink_by: str,
    classifier: str = "conv",
    dropout: float = 0.5,
    input_dropout: float = 0.2,
    pad_last: bool = False,
):
    """Two stages that halve the map, one that does not, and a classifier without dense layers.

    classifier: `conv` is the paper's, whose logits cannot be negative; `linear` is a dense layer on
    the pooled features, which learns a new task more easily.
    dropout: after each halving; input_dropout: of the pixels.
    pad_last: the last 3x3 convolution keeps its map's size, 8 x 8; the paper's leaves 6 x 6.
    """
    if classifier not in ("conv", "linear"):
        raise UsageError(f"allcnn: expected classifier conv or linear, got {classifier!r}")
    x = drop(inputs, input_dropout, name="stem")
    for i, width in enumerate((96, 192), start=1):
        x = shrink(x, kernels, width, how=shrink_by, stage=i)
        x = stage_out(x, i)
        x = drop(x, dropout, name=f"stage{i + 1}_block0")
    padding = "same" if pad_last else "valid"
    x = unit(x, 192, 3, padding=padding, name="stage3_block1")
    x = unit(x, 192, 1, name="stage3_block2")
    x = stage_out(x, 3)
    if classifier == "conv":
        return class_maps(x, num_classes)
    return pool_and_classify(x, num_classes)


# Form -> what halves the map, the name of its nets, their parameters and CIFAR-10 errors in %.
FORMS: dict[str, Any] = {
    "pool": ("allcnn_base_{}", (839_242, 885_610, 954_730), (12.47, 10.20, 9.74)),
    "stride": ("strided_cnn_{}", (839_242, 885_610, 954_730), (13.46, 10.98, 10.19)),
    "both": ("convpool_cnn_{}", (1_254_250, 1_300_618, 1_369_738), (10.21, 9.33, 9.31)),
    "convolution": ("allcnn_{}", (1_254_250, 1_300_618, 1_369_738), (10.30, 9.10, 9.08)),
}


def nets() -> dict[str, tuple[dict, dict]]:
    """The twelve nets of Table 2."""
    variants = {}
    for form, (name, counts, errors) in FORMS.items():
        for model, count, error in zip(MODELS, counts, errors, strict=True):
            accuracy = Accuracy("CIFAR-10", round(100 - error, 2), "the paper, Table 3")
            variants[name.format(model)] = (
                {"kernels": MODELS[model], "shrink_by": form},
                {"trainable": count, "total": count, "accuracy": accuracy},
            )
    return variants


register_family(
    allcnn,
    family="allcnn",
    year=2014,
    paper="1412.6806",
    title="Striving for Simplicity: The All Convolutional Net",
    input_shape=(32, 32, 3),
    classes=10,
    min_size=9,
    first_conv="stage1_block1_conv",
    cam_layer="stage3_out",
    pyramid=("stage1_out", "stage3_out"),
    preprocess="torch",
    finetune_options={"classifier": "linear"},
    exceptions={
        "features": "the paper's classifier averages class maps, not features; "
        "`classifier='linear'` has a `features` layer",
    },
    variants=nets(),
)
