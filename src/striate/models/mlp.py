"""A network of two fully connected layers. Rumelhart, Hinton, Williams, "Learning Representations
by Back-Propagating Errors", Nature 323, 1986.

A hidden layer of rectified units and a linear classifier, on vectors: the smallest net that can
tell apart what no straight line can.

Differs from the paper: ReLU for the logistic function.
"""

from striate.lazy import keras
from striate.models.blocks import logits
from striate.registry import register_family


def mlp_two_layer(inputs, *, num_classes: int, hidden: int = 50):
    """Linear, ReLU, linear: n * hidden + hidden + hidden * classes + classes parameters.

    hidden: units of the hidden layer. The n inputs are `input_shape=(n,)`.
    """
    x = keras.layers.Dense(hidden, kernel_initializer="he_normal", name="fc1")(inputs)
    x = keras.layers.ReLU(name="features")(x)
    return logits(x, num_classes)


register_family(
    mlp_two_layer,
    family="mlp",
    year=1986,
    paper="Rumelhart, Hinton, Williams, Nature 323, 1986",
    title="Learning Representations by Back-Propagating Errors",
    input_shape=(8,),
    kind="vector",
    classes=4,
    min_size=1,
    first_conv="fc1",
    cam_layer="",
    pyramid=(),
    preprocess="unit",
    variants={
        "mlp_two_layer": (
            {},
            {"trainable": 654, "total": 654, "differs": "ReLU for the logistic function"},
        ),
    },
)
