"""LeNet-5. LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document
Recognition", Proceedings of the IEEE 86(11), 1998.

Two convolutions find strokes and their combinations, subsampling forgets exactly where they were,
and three dense layers read the digit.

Differs from the paper: C3 sees every map of S2 (the paper connects each of its maps to a chosen
few), subsampling has no trainable scale and bias, tanh is not stretched to 1.7159 tanh(2x/3), and
ten linear outputs replace the radial basis functions.
"""

from striate.errors import UsageError
from striate.lazy import keras
from striate.models.blocks import logits, stage_out
from striate.registry import register_family


def lenet(
    inputs, *, num_classes: int, activation: str = "tanh", pool: str = "average", pad: int = 0
):
    """C1, S2, C3, S4, C5, F6 and the outputs.

    activation: `tanh` or `relu`; pool: `average` or `max`; pad: zeros around the picture, 2 brings
    MNIST's 28 x 28 pixels to the paper's 32 x 32.
    """
    if activation not in ("tanh", "relu"):
        raise UsageError(f"lenet: expected activation tanh or relu, got {activation!r}")
    if pool not in ("average", "max"):
        raise UsageError(f"lenet: expected pool average or max, got {pool!r}")
    subsample = keras.layers.AveragePooling2D if pool == "average" else keras.layers.MaxPooling2D
    x = keras.layers.ZeroPadding2D(pad, name="stem_pad")(inputs) if pad else inputs
    for stage, filters in enumerate((6, 16), start=1):
        name = f"stage{stage}_block1"
        x = keras.layers.Conv2D(filters, 5, name=f"{name}_conv")(x)
        x = keras.layers.Activation(activation, name=f"{name}_{activation}")(x)
        x = stage_out(x, stage)
        x = subsample(2, name=f"stage{stage}_pool")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dense(120, name="fc1")(x)
    x = keras.layers.Activation(activation, name=f"fc1_{activation}")(x)
    x = keras.layers.Dense(84, name="fc2")(x)
    x = keras.layers.Activation(activation, name="features")(x)
    return logits(x, num_classes)


register_family(
    lenet,
    family="lenet",
    year=1998,
    paper="LeCun, Bottou, Bengio, Haffner, Proceedings of the IEEE 86(11), 1998",
    title="Gradient-Based Learning Applied to Document Recognition",
    input_shape=(32, 32, 1),
    classes=10,
    min_size=16,
    first_conv="stage1_block1_conv",
    cam_layer="stage2_out",
    pyramid=("stage1_out", "stage2_out"),
    preprocess="unit",
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
