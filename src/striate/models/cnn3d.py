"""Nets that convolve over three axes: clips and volumes.

Ji, Xu, Yang, Yu, "3D Convolutional Neural Networks for Human Action Recognition", IEEE PAMI 35(1),
2013: seven frames become grey, slopes and optical flow in a layer that does not learn, and two
three-dimensional convolutions follow a movement through them.

Maturana, Scherer, "VoxNet: A 3D Convolutional Neural Network for Real-Time Object Recognition",
IROS 2015: occupied voxels of a scanned object.

`mnist3d` is a demonstration on digits as coloured point clouds (imshashwataggarwal,
3D-MNIST-Image-Classification).

Differs from the papers: of Ji's optical flow no method is given, ours is Lucas and Kanade's.
"""

from striate.lazy import keras
from striate.models.blocks import HE, logits, stage_out
from striate.registry import register_family

# === Human actions ===


def ji_3d(inputs, *, num_classes: int):
    """Hardwired channels, two convolutions each with trainable subsampling, 128 units.

    Every channel has filters of its own, in two sets; grey and slopes keep t - 4 frames of t, and
    the flow t - 5.
    """
    from striate.layers import HardwiredChannels, MapDense, TrainableSubsampling

    frames = inputs.shape[1]
    # The flow divides small differences of products, of which half precision leaves nothing.
    maps = HardwiredChannels(dtype="float32", name="stem_hardwired")(inputs)
    streams, start = [], 0
    for channel, count in enumerate((frames, frames, frames, frames - 1, frames - 1), start=1):
        left = maps.shape[1] - start - count
        crop = ((start, left), (0, 0), (0, 0))
        x = keras.layers.Cropping3D(crop, name=f"stem_{channel}_crop")(maps)
        streams += [(2 * channel - 1, x), (2 * channel, x)]
        start += count
    seen = []
    for number, x in streams:
        name = f"stage1_block{number}"
        x = keras.layers.Conv3D(1, (3, 7, 7), activation="tanh", name=f"{name}_conv")(x)
        x = TrainableSubsampling(2, name=f"{name}_subsample")(x)
        x = keras.layers.Activation("tanh", name=f"{name}_tanh")(x)
        seen.append((number, x))
    joined = keras.layers.Concatenate(axis=1, name="stage1_block11_concat")([x for _, x in seen])
    start, ends = 0, []
    joined = stage_out(joined, 1)
    for number, before in seen:
        name = f"stage2_block{number}"
        count = before.shape[1]
        crop = ((start, joined.shape[1] - start - count), (0, 0), (0, 0))
        x = keras.layers.Cropping3D(crop, name=f"{name}_crop")(joined)
        x = keras.layers.Conv3D(3, (3, 7, 6), activation="tanh", name=f"{name}_conv")(x)
        x = TrainableSubsampling(3, name=f"{name}_subsample")(x)
        ends.append(keras.layers.Activation("tanh", name=f"{name}_tanh")(x))
        start += count
    x = keras.layers.Concatenate(axis=1, name="stage2_block11_concat")(ends)
    x = stage_out(x, 2)
    _, depth, height, width, channels = x.shape
    x = keras.layers.Permute((1, 4, 2, 3), name="stage2_block11_permute")(x)
    x = keras.layers.Reshape((depth * channels, height * width), name="stage2_block11_maps")(x)
    x = MapDense(128, name="fc1")(x)
    x = keras.layers.Activation("tanh", name="features")(x)
    return logits(x, num_classes, use_bias=False)


register_family(
    ji_3d,
    family="cnn3d",
    year=2013,
    paper="Ji, Xu, Yang, Yu, IEEE PAMI 35(1), 2013",
    title="3D Convolutional Neural Networks for Human Action Recognition",
    input_shape=(7, 60, 40, 1),
    kind="clip",
    classes=3,
    min_size=(6, 24, 22),
    first_conv="stage1_block1_conv",
    cam_layer="stage2_out",
    pyramid=("stage1_out", "stage2_out"),
    preprocess="unit",
    variants={
        "cnn3d_ji": (
            {},
            {
                "trainable": 295_458,
                "total": 295_458,
                "differs": "optical flow by Lucas and Kanade, the paper names no method",
            },
        ),
    },
)


# === Voxels ===


def voxnet(inputs, *, num_classes: int, dropout: tuple[float, float, float] = (0.2, 0.3, 0.4)):
    """Conv(32, 5, 2), Conv(32, 3, 1), Pool(2), Full(128), Full(classes).

    dropout: after the first convolution, after the pooling, before the classifier.
    """
    x = inputs
    for i, (kernel, stride) in enumerate(((5, 2), (3, 1)), start=1):
        name = f"stage{i}_block1"
        x = keras.layers.Conv3D(
            32, kernel, strides=stride, kernel_initializer=HE, name=f"{name}_conv"
        )(x)
        x = keras.layers.LeakyReLU(0.1, name=f"{name}_relu")(x)
        x = stage_out(x, i)
        if i == 2:
            x = keras.layers.MaxPooling3D(2, name="stage2_pool")(x)
        x = keras.layers.Dropout(dropout[i - 1], name=f"stage{i}_block2_dropout")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dense(128, kernel_initializer=HE, name="fc1")(x)
    x = keras.layers.ReLU(name="features")(x)
    return logits(x, num_classes, dropout=dropout[2])


register_family(
    voxnet,
    family="cnn3d",
    year=2015,
    paper="Maturana, Scherer, IROS 2015",
    title="VoxNet: A 3D Convolutional Neural Network for Real-Time Object Recognition",
    input_shape=(32, 32, 32, 1),
    kind="voxels",
    classes=40,
    min_size=11,
    first_conv="stage1_block1_conv",
    cam_layer="stage2_out",
    pyramid=("stage1_out", "stage2_out"),
    preprocess="unit",
    variants={"voxnet": ({}, {"trainable": 921_736, "total": 921_736})},
)


def mnist3d(
    inputs,
    *,
    num_classes: int,
    fc_units: tuple[int, int] = (4096, 1024),
    dropout: tuple[float, float] = (0.25, 0.5),
):
    """Four convolutions, two poolings, two hidden dense layers.

    fc_units: of those; dropout: after the second pooling, and after each dense layer.
    """
    x = inputs
    for i, widths in enumerate(((8, 16), (32, 64)), start=1):
        for j, width in enumerate(widths, start=1):
            name = f"stage{i}_block{j}"
            x = keras.layers.Conv3D(
                width, 3, padding="same", kernel_initializer=HE, name=f"{name}_conv"
            )(x)
            x = keras.layers.ReLU(name=f"{name}_relu")(x)
        if i == 2:
            x = keras.layers.BatchNormalization(name="stage2_block2_bn")(x)
        x = stage_out(x, i)
        x = keras.layers.MaxPooling3D(2, name=f"stage{i}_pool")(x)
    x = keras.layers.Dropout(dropout[0], name="stage2_block3_dropout")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dense(fc_units[0], kernel_initializer=HE, name="fc1")(x)
    x = keras.layers.ReLU(name="fc1_relu")(x)
    x = keras.layers.Dropout(dropout[1], name="fc1_dropout")(x)
    x = keras.layers.Dense(fc_units[1], kernel_initializer=HE, name="fc2")(x)
    x = keras.layers.ReLU(name="features")(x)
    return logits(x, num_classes, dropout=dropout[1])


register_family(
    mnist3d,
    family="cnn3d",
    year=2018,
    paper="imshashwataggarwal/3D-MNIST-Image-Classification",
    title="3D-MNIST Image Classification",
    input_shape=(16, 16, 16, 3),
    kind="voxels",
    classes=10,
    min_size=4,
    first_conv="stage1_block1_conv",
    cam_layer="stage2_out",
    pyramid=("stage1_out", "stage2_out"),
    preprocess="unit",
    reduced={"fc_units": (32, 16)},
    variants={"mnist3d": ({}, {"trainable": 21_060_362, "total": 21_060_490})},
)
