"""The vanilla convolutional net of ten thousand layers. Xiao, Bahri, Sohl-Dickstein, Schoenholz,
Pennington, "Dynamical Isometry and a Mean Field Theory of CNNs: How to Train 10,000-Layer Vanilla
Convolutional Neural Networks", 2018, arXiv:1806.05393.

No shortcuts and no normalisation: only first weights under which a signal neither fades nor grows
however deep it goes, orthogonal at the centre of each kernel and zero around it, with variances on
the critical line between order and chaos.

Stem, circular padding and classifier are those of the authors' demonstration
(brain-research/mean-field-cnns).
"""

from functools import partial

from striate.lazy import keras
from striate.models.blocks import logits, stage_out
from striate.registry import register_family


def critical_variances(fixed_point: float) -> tuple[float, float]:
    """The variances of weights and biases that keep tanh units at this variance, on the edge.

    With z normal and q the fixed point: 1 / E[tanh'(sqrt(q) z)**2] for the weights, and for the
    biases what is then missing to q.
    """
    import numpy as np

    z, weight = np.polynomial.hermite_e.hermegauss(101)
    weight = weight / weight.sum()
    h = np.tanh(np.sqrt(fixed_point) * z)
    of_weights = 1 / (weight @ (1 - h**2) ** 2)
    return float(of_weights), float(fixed_point - of_weights * (weight @ h**2))


def delta_orthogonal(
    inputs, *, num_classes: int, depth: int = 16, channels: int = 32, stacked: bool = False
):
    """Three plain convolutions, two of them strided, and `depth` circular ones, all with tanh.

    depth: to 10,000; channels: of every layer. stacked: one layer holds all the circular ones, with
    the same weights in two tensors: what a depth of a thousand and more is built and trained with.
    """
    from striate.initializers import DeltaOrthogonal
    from striate.layers import CircularChain2D, CircularConv2D

    of_weights, of_biases = critical_variances(1 / depth)
    noise = keras.initializers.RandomNormal
    x = inputs
    for i, stride in enumerate((1, 2, 2)):
        fan_in = 9 * x.shape[-1]
        x = keras.layers.Conv2D(
            channels,
            3,
            strides=stride,
            padding="same",
            activation="tanh",
            kernel_initializer=noise(stddev=(of_weights / fan_in) ** 0.5),
            bias_initializer=noise(stddev=of_biases**0.5),
            name=f"stem_{i}_conv" if i else "stem_conv",
        )(x)
    circular = partial(CircularChain2D, depth) if stacked else partial(CircularConv2D, channels)
    for j in range(1, 2 if stacked else depth + 1):
        x = circular(
            kernel_initializer=DeltaOrthogonal(of_weights**0.5),
            bias_initializer=noise(stddev=of_biases**0.5),
            activation="tanh",
            name=f"stage1_block{j}_conv",
        )(x)
    x = stage_out(x, 1)
    x = keras.layers.GlobalAveragePooling2D(name="features")(x)
    return logits(
        x,
        num_classes,
        kernel_initializer=noise(stddev=(of_weights / channels) ** 0.5),
        bias_initializer=noise(stddev=of_biases**0.5),
    )


register_family(
    delta_orthogonal,
    family="delta_orthogonal",
    year=2018,
    paper="1806.05393",
    title="Dynamical Isometry and a Mean Field Theory of CNNs: How to Train 10,000-Layer Vanilla "
    "Convolutional Neural Networks",
    input_shape=(28, 28, 1),
    classes=10,
    min_size=4,
    first_conv="stem_conv",
    cam_layer="stage1_out",
    pyramid=("stage1_out",),
    preprocess="unit",
    reduced={"depth": 4},
    variants={"delta_orthogonal16_mnist": ({}, {"trainable": 167_114, "total": 167_114})},
)
