"""GoogLeNet, the first Inception net. Szegedy et al., "Going Deeper with Convolutions", 2014,
arXiv:1409.4842.

An Inception module looks at its input through 1x1, 3x3 and 5x5 filters and a pooling side by side
and concatenates what they see; 1x1 convolutions in front of the large filters keep them cheap. Two
classifiers on inner maps help to train it and are left out afterwards.

`googlenet` is the net of the paper, in the form of BVLC/caffe. `googlenet_bn` is what torchvision
calls GoogLeNet: batch normalisation for the two response normalisations, no biases, and 3x3 filters
where the paper has 5x5.

Differs from the paper: nothing that is known; the constants of the response normalisation, which
the paper does not give, are Caffe's.
"""

from striate.errors import UsageError
from striate.lazy import keras
from striate.models import torchvision
from striate.models.blocks import (
    adaptive_average_pool,
    conv,
    max_pool,
    pool_and_classify,
    stage_out,
)
from striate.registry import Accuracy, TrainingHeads, register_family

# Table 1: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection of each module.
STAGES = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)
HEADS_AFTER = {(2, 1): "logits_aux1", (2, 4): "logits_aux2"}  # modules 4a and 4d


def caffe(bias: float = 0.2) -> dict:
    """How Caffe's net starts: its `xavier` kernels, which halve what a ReLU passes on.

    He's would keep the scale of the pixels, of which nothing is divided off, up to the logits.
    """
    return {
        "kernel_initializer": "lecun_uniform",
        "bias_initializer": keras.initializers.Constant(bias),
    }


def unit(x, filters: int, kernel: int, *, stride: int = 1, batch_norm: bool, name: str):
    """Convolution and ReLU, with a bias or with batch normalisation between them."""
    start = {} if batch_norm else caffe()
    x = conv(x, filters, kernel, stride=stride, bias=not batch_norm, name=name, **start)
    if batch_norm:
        x = keras.layers.BatchNormalization(epsilon=1e-3, momentum=0.9, name=f"{name}_bn")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)


def naive_inception(x, small: int, medium: int, large: int, *, batch_norm: bool = False, name: str):
    """Figure 2(a): 1x1, 3x3, 5x5 and pooling side by side, and too dear to be repeated."""
    branches = [
        unit(x, small, 1, batch_norm=batch_norm, name=f"{name}_1x1"),
        unit(x, medium, 3, batch_norm=batch_norm, name=f"{name}_3x3"),
        unit(x, large, 5, batch_norm=batch_norm, name=f"{name}_5x5"),
        max_pool(x, 3, stride=1, pad=1, name=f"{name}_pool"),
    ]
    return keras.layers.Concatenate(name=f"{name}_concat")(branches)


def inception(x, widths: tuple[int, ...], *, large_kernel: int, batch_norm: bool, name: str):
    """Figure 2(b): 1x1 convolutions reduce what the large filters see and what pooling passes."""
    small, medium_reduce, medium, large_reduce, large, projection = widths
    first = unit(x, small, 1, batch_norm=batch_norm, name=f"{name}_1x1")
    second = unit(x, medium_reduce, 1, batch_norm=batch_norm, name=f"{name}_3x3_reduce")
    second = unit(second, medium, 3, batch_norm=batch_norm, name=f"{name}_3x3")
    third = unit(x, large_reduce, 1, batch_norm=batch_norm, name=f"{name}_5x5_reduce")
    third = unit(third, large, large_kernel, batch_norm=batch_norm, name=f"{name}_5x5")
    fourth = max_pool(x, 3, stride=1, pad=1, name=f"{name}_pool")
    fourth = unit(fourth, projection, 1, batch_norm=batch_norm, name=f"{name}_pool_proj")
    return keras.layers.Concatenate(name=f"{name}_concat")([first, second, third, fourth])


def stem(x, *, batch_norm: bool):
    """Two convolutions, the second behind a 1x1, each with a pooling that halves the map."""
    x = unit(x, 64, 7, stride=2, batch_norm=batch_norm, name="stem_1")
    x = max_pool(x, 3, stride=2, ceil_mode=True, name="stem_pool1")
    x = x if batch_norm else response_norm(x, name="stem_norm1")
    x = unit(x, 64, 1, batch_norm=batch_norm, name="stem_2")
    x = unit(x, 192, 3, batch_norm=batch_norm, name="stem_3")
    x = x if batch_norm else response_norm(x, name="stem_norm2")
    return max_pool(x, 3, stride=2, ceil_mode=True, name="stem_pool2")


def response_norm(x, *, name: str):
    """Local response normalisation with the constants of Caffe's net."""
    from striate.layers import LocalResponseNormalization

    return LocalResponseNormalization(
        size=5, alpha=1e-4, beta=0.75, k=1.0, average=True, name=name
    )(x)


def training_head(x, num_classes: int, *, batch_norm: bool, name: str):
    """A classifier on an inner map: pooling, 1x1 convolution, a hidden dense layer.

    torchvision pools to 4 x 4 whatever the map, in windows that are not the paper's 5 x 5.
    """
    if batch_norm:
        x = adaptive_average_pool(x, 4, name=f"{name}_pool")
    elif min(x.shape[1:3]) < 5:
        raise UsageError(
            "googlenet: the training heads need an input of at least 79 x 79 pixels; "
            "leave training_heads False"
        )
    else:
        x = keras.layers.AveragePooling2D(5, strides=3, name=f"{name}_pool")(x)
    x = unit(x, 128, 1, batch_norm=batch_norm, name=name)
    x = keras.layers.Flatten(name=f"{name}_flatten")(x)
    hidden, last = ({}, {}) if batch_norm else (caffe(), caffe(0.0))
    x = keras.layers.Dense(1024, activation="relu", name=f"{name}_fc", **hidden)(x)
    x = keras.layers.Dropout(0.7, name=f"{name}_dropout")(x)
    return keras.layers.Dense(num_classes, dtype="float32", name=name, **last)(x)


def googlenet(
    inputs,
    *,
    num_classes: int,
    batch_norm: bool,
    large_kernel: int,
    last_pool: int,
    dropout: float = 0.4,
    training_heads: bool = False,
):
    """Nine Inception modules in three stages, a max pooling before the second and the third.

    dropout: before the classifier.
    training_heads: the model has two more outputs, the logits of the paper's auxiliary
    classifiers, whose losses count 0.3 each: [logits, logits_aux1, logits_aux2].
    """
    x = stem(inputs, batch_norm=batch_norm)
    heads = []
    for i, stage in enumerate(STAGES, start=1):
        if i > 1:
            size = last_pool if i == len(STAGES) else 3
            x = max_pool(x, size, stride=2, ceil_mode=True, name=f"stage{i}_pool")
        for j, widths in enumerate(stage, start=1):
            name = f"stage{i}_block{j}"
            x = inception(x, widths, large_kernel=large_kernel, batch_norm=batch_norm, name=name)
            if training_heads and (i, j) in HEADS_AFTER:
                head = HEADS_AFTER[i, j]
                heads.append(training_head(x, num_classes, batch_norm=batch_norm, name=head))
        x = stage_out(x, i)
    output = pool_and_classify(x, num_classes, dropout=dropout)
    return [output, *heads] if training_heads else output


# === Weights of torchvision ===

PARTS = {
    "1x1": "branch1",
    "3x3_reduce": "branch2.0",
    "3x3": "branch2.1",
    "5x5_reduce": "branch3.0",
    "5x5": "branch3.1",
    "pool_proj": "branch4.1",
}


def torchvision_names(**_) -> dict[str, str]:
    """Our layer -> the module of torchvision's GoogLeNet."""
    units = {f"stem_{n}": f"conv{n}" for n in (1, 2, 3)}
    for i, stage in enumerate(STAGES, start=1):
        for j in range(1, len(stage) + 1):
            module = f"inception{i + 2}{'abcde'[j - 1]}"
            units |= {f"stage{i}_block{j}_{ours}": f"{module}.{p}" for ours, p in PARTS.items()}
    heads = {"logits": "fc"}
    for n in (1, 2):
        units[f"logits_aux{n}"] = f"aux{n}.conv"
        heads |= {f"logits_aux{n}_fc": f"aux{n}.fc1", f"logits_aux{n}": f"aux{n}.fc2"}
    inside = {f"{u}_{kind}": f"{t}.{kind}" for u, t in units.items() for kind in ("conv", "bn")}
    return {**heads, **inside}


# Its published weights see pictures between -1 and 1, to where its net takes torch's scales back.
TORCHVISION = torchvision.layout(torchvision_names, preprocess="tf")


# === Nets ===

register_family(
    googlenet,
    family="inception",
    year=2014,
    paper="1409.4842",
    title="Going Deeper with Convolutions",
    input_shape=(224, 224, 3),
    classes=1000,
    min_size=31,
    first_conv="stem_1_conv",
    cam_layer="stage3_out",
    pyramid=("stage1_out", "stage2_out", "stage3_out"),
    training_heads=TrainingHeads(0.3),
    variants={
        "googlenet": (
            {"batch_norm": False, "large_kernel": 5, "last_pool": 3},
            {
                "trainable": 6_998_552,
                "total": 6_998_552,
                "preprocess": "caffe",
                "accuracy": Accuracy("ImageNet", 68.7, "BVLC/caffe bvlc_googlenet", top5=88.9),
            },
        ),
        "googlenet_bn": (
            {"batch_norm": True, "large_kernel": 3, "last_pool": 2, "dropout": 0.2},
            {
                "trainable": 6_624_904,
                "total": 6_639_464,
                "preprocess": "torch",
                "accuracy": Accuracy("ImageNet", 69.778, "torchvision IMAGENET1K_V1", top5=89.53),
                "differs": "batch normalisation, no biases, 3x3 for 5x5, 2x2 last pooling, "
                "dropout 0.2: all as in torchvision",
                "layouts": (TORCHVISION,),
                "weights": torchvision.imagenet("googlenet-1378be20.pth", TORCHVISION),
            },
        ),
    },
)
