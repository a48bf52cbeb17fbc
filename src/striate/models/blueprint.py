"""The common plan of convolutional nets. Karpathy, Johnson, Li, "CS231n: Convolutional Neural
Networks for Visual Recognition", course notes, Stanford, 2015.

    INPUT -> [[CONV -> RELU] * N -> POOL?] * M -> [FC -> RELU] * K -> FC

with N from 0 to 3, M from 0 and K from 0 to 2: most classifiers up to VGG are such a row. The four
nets are the notes' examples; `blueprint_linear`, a linear classifier on the pixels, is the one from
which all others can be had by options.

Convolutions are 3x3 and keep the size, pooling is 2x2 and halves it, and each further of the M
stages is twice as wide: the notes' advice, which leaves the widths open.
"""

from striate.errors import UsageError
from striate.lazy import keras
from striate.models.blocks import conv, drop, logits, stage_out
from striate.registry import register_family


def blueprint(
    inputs,
    *,
    num_classes: int,
    convs: int = 0,
    pool: bool = False,
    stages: int = 0,
    hidden: int = 0,
    width: int = 32,
    fc_units: int = 128,
    dropout: float = 0.0,
):
    """[[CONV -> RELU] * convs -> POOL?] * stages -> [FC -> RELU] * hidden -> FC.

    convs: N, at most 3; pool: whether each stage ends in pooling; stages: M; hidden: K, at most 2.
    width: of the first stage; fc_units: of the hidden layers; dropout: before each dense layer.
    """
    _check(inputs, convs, pool, stages, hidden)
    x = inputs
    for i in range(1, stages + 1):
        for j in range(1, convs + 1):
            x = conv(x, width * 2 ** (i - 1), 3, bias=True, name=f"stage{i}_block{j}")
            x = keras.layers.ReLU(name=f"stage{i}_block{j}_relu")(x)
        x = stage_out(x, i)
        if pool:
            x = keras.layers.MaxPooling2D(2, name=f"stage{i}_pool")(x)
    x = keras.layers.Flatten(name="flatten" if hidden else "features")(x)
    for k in range(1, hidden + 1):
        x = drop(x, dropout, name=f"fc{k}")
        x = keras.layers.Dense(fc_units, kernel_initializer="he_normal", name=f"fc{k}")(x)
        x = keras.layers.ReLU(name="features" if k == hidden else f"fc{k}_relu")(x)
    return logits(x, num_classes, dropout=dropout)


def _check(inputs, convs: int, pool: bool, stages: int, hidden: int) -> None:
    for name, value, most in (("convs", convs, 3), ("hidden", hidden, 2)):
        if value > most:
            raise UsageError(f"blueprint: expected {name} from 0 to {most}, got {value!r}")
    sides = inputs.shape[1:3]
    if pool and min(sides) < 2**stages:
        raise UsageError(
            f"blueprint: expected at least {2**stages} x {2**stages} pixels for {stages} poolings, "
            f"got {sides[0]} x {sides[1]}"
        )


def variant(stages: int, parameters: int, **config) -> tuple[dict, dict]:
    """Spec of one of the notes' examples."""
    names = tuple(f"stage{i}_out" for i in range(1, stages + 1))
    facts = {
        "trainable": parameters,
        "total": parameters,
        "first_conv": "stage1_block1_conv" if stages else "",
        "cam_layer": names[-1] if stages else "",
        "pyramid": names,
    }
    return {"stages": stages, **config}, facts


register_family(
    blueprint,
    family="blueprint",
    year=2015,
    paper="Karpathy, Johnson, Li, CS231n course notes, Stanford, 2015",
    title="CS231n: Convolutional Neural Networks for Visual Recognition",
    input_shape=(32, 32, 3),
    classes=10,
    min_size=8,
    preprocess="unit",
    reduced={"width": 4, "fc_units": 16},
    variants={
        # INPUT -> FC
        "blueprint_linear": variant(0, 30_730),
        # INPUT -> CONV -> RELU -> FC
        "blueprint_conv1": variant(1, 328_586, convs=1),
        # INPUT -> [CONV -> RELU -> POOL] * 2 -> FC -> RELU -> FC
        "blueprint_conv2": variant(2, 545_098, convs=1, pool=True, hidden=1),
        # INPUT -> [CONV -> RELU -> CONV -> RELU -> POOL] * 3 -> [FC -> RELU] * 2 -> FC
        "blueprint_conv6": variant(3, 567_082, convs=2, pool=True, hidden=2),
    },
)
