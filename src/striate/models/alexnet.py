"""AlexNet in one column. Krizhevsky, "One weird trick for parallelizing convolutional neural
networks", 2014, arXiv:1404.5997.

The net of 2012 (Krizhevsky, Sutskever, Hinton) was cut in two to fit two graphics cards; this is
the uncut one, with the widths of torchvision. Five convolutions, three dense layers, ReLU, dropout.

Differs from the paper: no local response normalisation, dropout before the hidden dense layers
instead of after them, 224 pixels padded by 2; at other sizes the last map is averaged to 6 x 6, so
that the dense layers stay the same (all as in torchvision).
"""

from striate.lazy import keras
from striate.models.blocks import HE, adaptive_average_pool, conv, logits, max_pool, stage_out
from striate.registry import Accuracy, register_family


def alexnet_single(
    inputs,
    *,
    num_classes: int,
    stages: tuple[tuple[int, ...], ...],
    fc_units: int = 4096,
    dropout: float = 0.5,
):
    """A large strided convolution, then two stages of small ones, then the dense layers.

    fc_units: width of the two hidden dense layers; dropout: before each of them.
    """
    x = keras.layers.ZeroPadding2D(2, name="stem_pad")(inputs)
    x = keras.layers.Conv2D(64, 11, strides=4, kernel_initializer=HE, name="stem_conv")(x)
    x = keras.layers.ReLU(name="stem_relu")(x)
    x = max_pool(x, 3, stride=2, name="stem_pool")
    for i, widths in enumerate(stages, start=1):
        kernel = 5 if i == 1 else 3
        for j, width in enumerate(widths, start=1):
            x = conv(x, width, kernel, bias=True, name=f"stage{i}_block{j}")
            x = keras.layers.ReLU(name=f"stage{i}_block{j}_relu")(x)
        x = stage_out(x, i)
        x = max_pool(x, 3, stride=2, name=f"stage{i}_pool")
    x = adaptive_average_pool(x, 6, name="adaptive_pool")
    x = keras.layers.Flatten(name="flatten")(x)
    for layer in (1, 2):
        if dropout:
            x = keras.layers.Dropout(dropout, name=f"fc{layer}_dropout")(x)
        x = keras.layers.Dense(fc_units, kernel_initializer=HE, name=f"fc{layer}")(x)
        x = keras.layers.ReLU(name="fc1_relu" if layer == 1 else "features")(x)
    return logits(x, num_classes)


register_family(
    alexnet_single,
    family="alexnet",
    year=2014,
    paper="1404.5997",
    title="One weird trick for parallelizing convolutional neural networks",
    input_shape=(224, 224, 3),
    classes=1000,
    first_conv="stem_conv",
    cam_layer="stage2_out",
    pyramid=("stage1_out", "stage2_out"),
    preprocess="torch",
    reduced={"fc_units": 64},
    variants={
        "alexnet_single": (
            {"stages": ((192,), (384, 256, 256))},
            {
                "trainable": 61_100_840,
                "total": 61_100_840,
                "min_size": 63,
                "accuracy": Accuracy("ImageNet", 56.522, "torchvision IMAGENET1K_V1", top5=79.066),
                "differs": "no local response normalisation; dropout before the dense layers",
            },
        ),
    },
)
