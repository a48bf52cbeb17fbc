"""LeNet-1 and LeNet-5, the first convolutional nets that read for a living.

LeCun et al., "Handwritten Digit Recognition with a Back-Propagation Network", NIPS 2, 1989: two
convolutions, two subsamplings and ten outputs (LeNet-1).

LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document Recognition",
Proceedings of the IEEE 86(11), 1998. Two convolutions find strokes and their combinations,
subsampling forgets exactly where they were, and three dense layers read the digit (LeNet-5).

`lenet5_1998` is the paper's net: each map of C3 sees a chosen few of S2's, subsampling has a
trainable scale and bias, units squash by 1.7159 tanh(2x/3), and the ten outputs are distances to
fixed drawings of the digits.

Differs from the papers: `lenet5` and `lenet1` are those nets as they are built today, C3 dense,
subsampling plain, tanh not stretched, and with linear outputs.
"""

import random

from striate.errors import UsageError
from striate.lazy import keras
from striate.models.blocks import logits, stage_out
from striate.registry import register_family

PAPER_1989 = "LeCun et al., Advances in Neural Information Processing Systems 2, 1989"
PAPER_1998 = "LeCun, Bottou, Bengio, Haffner, Proceedings of the IEEE 86(11), 1998"


# === As they are built today ===


def strokes(x, filters: tuple[int, ...], *, activation: str, pool: str):
    """A 5x5 convolution and 2x2 subsampling for each number of filters."""
    if activation not in ("tanh", "relu"):
        raise UsageError(f"lenet: expected activation tanh or relu, got {activation!r}")
    if pool not in ("average", "max"):
        raise UsageError(f"lenet: expected pool average or max, got {pool!r}")
    subsample = keras.layers.AveragePooling2D if pool == "average" else keras.layers.MaxPooling2D
    for stage, maps in enumerate(filters, start=1):
        name = f"stage{stage}_block1"
        x = keras.layers.Conv2D(maps, 5, name=f"{name}_conv")(x)
        x = keras.layers.Activation(activation, name=f"{name}_{activation}")(x)
        x = stage_out(x, stage)
        x = subsample(2, name=f"stage{stage}_pool")(x)
    return x


def lenet1(inputs, *, num_classes: int, activation: str = "tanh", pool: str = "average"):
    """4 and 12 maps, and the outputs.

    activation: `tanh` or `relu`; pool: `average` or `max`.
    """
    x = strokes(inputs, (4, 12), activation=activation, pool=pool)
    x = keras.layers.Flatten(name="features")(x)
    return logits(x, num_classes)


def lenet(
    inputs, *, num_classes: int, activation: str = "tanh", pool: str = "average", pad: int = 0
):
    """C1, S2, C3, S4, C5, F6 and the outputs.

    activation: `tanh` or `relu`; pool: `average` or `max`; pad: zeros around the picture, 2 brings
    MNIST's 28 x 28 pixels to the paper's 32 x 32.
    """
    x = keras.layers.ZeroPadding2D(pad, name="stem_pad")(inputs) if pad else inputs
    x = strokes(x, (6, 16), activation=activation, pool=pool)
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dense(120, name="fc1")(x)
    x = keras.layers.Activation(activation, name=f"fc1_{activation}")(x)
    x = keras.layers.Dense(84, name="fc2")(x)
    x = keras.layers.Activation(activation, name="features")(x)
    return logits(x, num_classes)


# === As the paper of 1998 has it ===

C3_TABLE = (  # Table I: the maps of S2 that each map of C3 sees
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
    (0, 1, 2, 3, 4, 5),
)

DIGITS = """
.#####. ...#... .#####. .#####. ....##. ####### .#####. ####### .#####. .#####.
##...## ..##... ##...## ##...## ...###. ##..... ##...## .....## ##...## ##...##
##...## .###... .....## .....## ..####. ##..... ##..... .....## ##...## ##...##
##...## ...#... .....## .....## .##.##. ##..... ##..... ....##. ##...## ##...##
##...## ...#... ....##. .....## ##..##. ######. ##..... ....##. .##.##. ##...##
##...## ...#... ...##.. ..####. ##..##. .....## ######. ...##.. .#####. .######
##...## ...#... ..##... .....## ####### .....## ##...## ...##.. ##...## .....##
##...## ...#... .##.... .....## ....##. .....## ##...## ..##... ##...## .....##
##...## ...#... ##..... .....## ....##. .....## ##...## ..##... ##...## .....##
##...## ...#... ##..... .....## ....##. ##...## ##...## .##.... ##...## ##...##
##...## ...#... ##..... ##...## ....##. ##...## ##...## .##.... ##...## ##...##
.#####. .#####. ####### .#####. ....##. .#####. .#####. .##.... .#####. .#####.
"""


def codes(num_classes: int) -> list[list[int]]:
    """84 numbers of -1 and 1 for each class: a 7 x 12 drawing of the digit, and after nine noise.

    The drawings are ours, the paper's are those of an ASCII font. Further classes get the random
    codes that it mentions, always the same.
    """
    rows = [line.split() for line in DIGITS.split("\n") if line]
    drawn = [
        [1 if pixel == "#" else -1 for row in rows for pixel in row[digit]] for digit in range(10)
    ]
    dice = random.Random(1998)
    noise = [[dice.choice((-1, 1)) for _ in range(84)] for _ in range(10, num_classes)]
    return (drawn + noise)[:num_classes]


def lenet5_1998(inputs, *, num_classes: int, classifier: str = "rbf", pad: int = 0):
    """C1, S2, C3, S4, C5, F6 and the outputs, each as section II.B of the paper describes it.

    classifier: `rbf` is the paper's, the negative squared distance of F6 to a fixed code for each
    class; `linear` is a dense layer. pad: zeros around the picture, 2 for MNIST's 28 x 28 pixels.
    """
    from striate.layers import FixedRBF, ScaledTanh, TableConv2D, TrainableSubsampling

    if classifier not in ("rbf", "linear"):
        raise UsageError(f"lenet5_1998: expected classifier rbf or linear, got {classifier!r}")
    x = keras.layers.ZeroPadding2D(pad, name="stem_pad")(inputs) if pad else inputs
    convolutions = (
        keras.layers.Conv2D(6, 5, name="stage1_block1_conv"),
        TableConv2D(C3_TABLE, 5, name="stage2_block1_conv"),
    )
    for stage, convolution in enumerate(convolutions, start=1):
        x = ScaledTanh(name=f"stage{stage}_block1_tanh")(convolution(x))
        x = stage_out(x, stage)
        x = TrainableSubsampling(2, name=f"stage{stage}_block2_subsample")(x)
        x = ScaledTanh(name=f"stage{stage}_block2_tanh")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = ScaledTanh(name="fc1_tanh")(keras.layers.Dense(120, name="fc1")(x))
    x = ScaledTanh(name="features")(keras.layers.Dense(84, name="fc2")(x))
    if classifier == "linear":
        return logits(x, num_classes)
    return FixedRBF(codes(num_classes), name="logits")(x)


# === Nets ===

COMMON = {
    "family": "lenet",
    "classes": 10,
    "min_size": 16,
    "first_conv": "stage1_block1_conv",
    "cam_layer": "stage2_out",
    "pyramid": ("stage1_out", "stage2_out"),
    "preprocess": "unit",
}

register_family(
    lenet1,
    **COMMON,
    year=1989,
    paper=PAPER_1989,
    title="Handwritten Digit Recognition with a Back-Propagation Network",
    input_shape=(28, 28, 1),
    variants={
        "lenet1": (
            {},
            {
                "trainable": 3_246,
                "total": 3_246,
                "differs": "dense second convolution, plain subsampling, linear outputs",
            },
        ),
    },
)

register_family(
    lenet,
    **COMMON,
    year=1998,
    paper=PAPER_1998,
    title="Gradient-Based Learning Applied to Document Recognition",
    input_shape=(32, 32, 1),
    variants={
        "lenet5": (
            {},
            {
                "trainable": 61_706,
                "total": 61_706,
                "differs": "dense C3, plain subsampling, plain tanh, ten linear outputs",
            },
        ),
    },
)

register_family(
    lenet5_1998,
    **COMMON,
    year=1998,
    paper=PAPER_1998,
    title="Gradient-Based Learning Applied to Document Recognition",
    input_shape=(32, 32, 1),
    finetune_options={"classifier": "linear"},
    variants={
        "lenet5_1998": (
            {},
            {
                "trainable": 60_000,
                "total": 60_840,
                "differs": "the drawings of the digits, where the paper has those of a font",
            },
        ),
    },
)
