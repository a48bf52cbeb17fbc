"""SqueezeNet. Iandola, Han, Moskewicz, Ashraf, Dally, Keutzer, "SqueezeNet: AlexNet-level accuracy
with 50x fewer parameters and <0.5MB model size", 2016, arXiv:1602.07360.

A fire module squeezes its input through a few 1x1 filters and expands it again with 1x1 and 3x3
filters side by side, so that the costly 3x3 filters see few channels. Version 1.1 (the authors'
repository) moves the pooling forward: 2.4 times less work for the same accuracy.

Differs from the paper: in 1.0 the first convolution is 7x7 without padding, as the authors released
it and torchvision has it.
"""

from striate.errors import UsageError
from striate.lazy import keras
from striate.models import torchvision
from striate.models.blocks import conv, drop, max_pool, pool_and_classify, stage_out
from striate.pretrained import Layout, Weights
from striate.registry import Accuracy, register_family

# (squeeze, expand) of each fire module; a list per stage, and a pooling before each stage.
V1_0 = [
    [(16, 64), (16, 64), (32, 128)],
    [(32, 128), (48, 192), (48, 192), (64, 256)],
    [(64, 256)],
]
V1_1 = [
    [(16, 64), (16, 64)],
    [(32, 128), (32, 128)],
    [(48, 192), (48, 192), (64, 256), (64, 256)],
]


def fire(x, squeeze: int, expand: int, *, name: str):
    """Squeeze to few channels, then expand to 2 * expand channels, half 1x1 and half 3x3."""
    x = conv(x, squeeze, 1, bias=True, name=f"{name}_squeeze")
    x = keras.layers.ReLU(name=f"{name}_squeeze_relu")(x)
    small = conv(x, expand, 1, bias=True, name=f"{name}_expand1")
    small = keras.layers.ReLU(name=f"{name}_expand1_relu")(small)
    large = conv(x, expand, 3, bias=True, name=f"{name}_expand3")
    large = keras.layers.ReLU(name=f"{name}_expand3_relu")(large)
    return keras.layers.Concatenate(name=f"{name}_concat")([small, large])


def conv_classifier(x, num_classes: int, *, dropout: float):
    """The paper's classifier: a map for each class (1x1 convolution, ReLU), averaged to a logit."""
    x = drop(x, dropout, name="logits")
    x = keras.layers.Conv2D(
        num_classes,
        1,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        name="logits_conv",
    )(x)
    x = keras.layers.ReLU(name="logits_relu")(x)
    return keras.layers.GlobalAveragePooling2D(dtype="float32", name="logits")(x)


def squeezenet(
    inputs,
    *,
    num_classes: int,
    stem: tuple[int, int],
    stages: list[list[tuple[int, int]]],
    ceil_mode: bool = True,
    classifier: str = "conv",
    dropout: float = 0.5,
):
    """A strided convolution, three stages of fire modules, and a classifier without dense layers.

    ceil_mode: pooling keeps a last window that overhangs the border (Caffe, torch); False drops it.
    classifier: `conv` is the paper's, whose logits cannot be negative; `linear` is a dense layer on
    the pooled features, which learns a new task more easily.
    dropout: before the classifier.
    """
    if classifier not in ("conv", "linear"):
        raise UsageError(f"squeezenet: expected classifier conv or linear, got {classifier!r}")
    filters, kernel = stem
    x = keras.layers.Conv2D(
        filters, kernel, strides=2, kernel_initializer="he_normal", name="stem_conv"
    )(inputs)
    x = keras.layers.ReLU(name="stem_relu")(x)
    for i, stage in enumerate(stages, start=1):
        x = max_pool(x, 3, stride=2, ceil_mode=ceil_mode, name=f"stage{i}_pool")
        for j, (squeeze, expand) in enumerate(stage, start=1):
            x = fire(x, squeeze, expand, name=f"stage{i}_block{j}")
        x = stage_out(x, i)
    if classifier == "conv":
        return conv_classifier(x, num_classes, dropout=dropout)
    return pool_and_classify(x, num_classes, dropout=dropout)


# === Weights of keras-squeezenet (trained by the authors in Caffe) ===


def caffe_names(*, stages: list[list[tuple[int, int]]], **_) -> dict[str, str]:
    """Our layer -> the layer of the authors' Caffe net and of its Keras port."""
    names = {"stem_conv": "conv1", "logits_conv": "conv10"}
    fire = 2
    for i, stage in enumerate(stages, start=1):
        for j in range(1, len(stage) + 1):
            for ours, theirs in (("squeeze", "squeeze1x1"), ("expand1", "expand1x1")):
                names[f"stage{i}_block{j}_{ours}_conv"] = f"fire{fire}/{theirs}"
            names[f"stage{i}_block{j}_expand3_conv"] = f"fire{fire}/expand3x3"
            fire += 1
    return names


# The port drops the windows that overhang the border, and its weights give their best so.
CAFFE = Layout(
    "keras-squeezenet", names=caffe_names, preprocess="caffe", options={"ceil_mode": False}
)
IMAGENET = Weights(
    "imagenet",
    url="shipped:squeezenet1_1/1/model.keras",
    hash=None,
    preprocess="caffe",
    input_shape=(227, 227, 3),
    options={"ceil_mode": False},
    licence="BSD-3-Clause, rcmalli/keras-squeezenet, from the authors' Caffe weights",
)

# === Weights of torchvision ===


def torchvision_names(*, stages: list[list[tuple[int, int]]], **_) -> dict[str, str]:
    """Our layer -> the module of torchvision's SqueezeNets, which counts poolings too."""
    names = {"stem_conv": "features.0", "logits_conv": "classifier.1"}
    place = 2  # after the first convolution and its ReLU
    for i, stage in enumerate(stages, start=1):
        for j in range(1, len(stage) + 1):
            ours, theirs = f"stage{i}_block{j}", f"features.{place + j}"
            names[f"{ours}_squeeze_conv"] = f"{theirs}.squeeze"
            names[f"{ours}_expand1_conv"] = f"{theirs}.expand1x1"
            names[f"{ours}_expand3_conv"] = f"{theirs}.expand3x3"
        place += len(stage) + 1
    return names


TORCHVISION = torchvision.layout(torchvision_names)


# === Nets ===


def finetune_options(early: str) -> dict:
    """A linear classifier on the last maps and on those of fire 7, which know less of ImageNet."""
    return {"classifier": "linear", "until": [early, "stage3_out"]}


register_family(
    squeezenet,
    family="squeezenet",
    year=2016,
    paper="1602.07360",
    title="SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size",
    input_shape=(224, 224, 3),
    classes=1000,
    first_conv="stem_conv",
    cam_layer="stage3_out",
    pyramid=("stage1_out", "stage2_out", "stage3_out"),
    preprocess="torch",
    layouts=(CAFFE, TORCHVISION),
    exceptions={
        "features": "the paper's classifier averages class maps, not features; "
        "`classifier='linear'` has a `features` layer",
    },
    variants={
        "squeezenet1_0": (
            {"stem": (96, 7), "stages": V1_0},
            {
                "trainable": 1_248_424,
                "total": 1_248_424,
                "min_size": 21,
                "finetune_options": finetune_options("stage2_block3_concat"),
                "accuracy": Accuracy("ImageNet", 58.09, "torchvision IMAGENET1K_V1", top5=80.42),
                "weights": torchvision.imagenet("squeezenet1_0-b66bff10.pth", TORCHVISION),
            },
        ),
        "squeezenet1_1": (
            {"stem": (64, 3), "stages": V1_1},
            {
                "trainable": 1_235_496,
                "total": 1_235_496,
                "min_size": 17,
                "finetune_options": finetune_options("stage3_block2_concat"),
                "accuracy": Accuracy("ImageNet", 58.18, "torchvision IMAGENET1K_V1", top5=80.62),
                "weights": (IMAGENET,),
            },
        ),
    },
)
