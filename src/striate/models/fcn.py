"""Fully convolutional networks. Long, Shelhamer, Darrell, "Fully Convolutional Networks for
Semantic Segmentation", 2014, arXiv:1411.4038.

VGG-16 whose dense layers have become convolutions gives a class to every 32nd pixel, and transposed
convolutions that begin as bilinear interpolation bring that back to full size. Finer maps from
below add their own scores on the way: FCN-16s sees stage 4 too, FCN-8s also stage 3.

The output is a map [N, height, width, classes] of logits. Padding by 100 pixels and the offsets of
the crops are those of the authors' Caffe nets (shelhamer/fcn.berkeleyvision.org).
"""

from striate.lazy import keras
from striate.models.blocks import conv, max_pool, stage_out
from striate.registry import register_family

DEPTHS = (2, 2, 3, 3, 3)


def score(x, num_classes: int, *, name: str):
    """1x1 convolution: what every pixel says of every class."""
    return keras.layers.Conv2D(
        num_classes,
        1,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        name=f"logits_{name}",
    )(x)


def upsample(x, num_classes: int, factor: int, *, name: str):
    """Transposed convolution of all classes, at first bilinear interpolation of each."""
    from striate.initializers import Bilinear

    return keras.layers.Conv2DTranspose(
        num_classes,
        2 * factor,
        strides=factor,
        use_bias=False,
        kernel_initializer=Bilinear(),
        name=f"logits_{name}",
    )(x)


def crop(x, like, offset: int, *, name: str, **options):
    """The part of x that begins at `offset` and is as large as `like`."""
    margins = [(offset, x.shape[a] - offset - like.shape[a]) for a in (1, 2)]
    return keras.layers.Cropping2D(tuple(margins), name=name, **options)(x)


def fcn(
    inputs,
    *,
    num_classes: int,
    stride: int,
    widths: tuple[int, ...] = (64, 128, 256, 512, 512),
    fc_units: int = 4096,
    dropout: float = 0.5,
):
    """VGG-16, scores, and upsampling by `stride` (32, 16 or 8) in the last step.

    widths: channels of the five stages; fc_units: of the two layers that were dense; dropout: after
    each of them.
    """
    x = keras.layers.ZeroPadding2D(99, name="stem_pad")(inputs)  # and one of the convolution's own
    pools = []
    for i, (width, depth) in enumerate(zip(widths, DEPTHS, strict=True), start=1):
        for j in range(1, depth + 1):
            x = conv(x, width, 3, bias=True, name=f"stage{i}_block{j}")
            x = keras.layers.ReLU(name=f"stage{i}_block{j}_relu")(x)
        x = stage_out(x, i)
        x = max_pool(x, 2, stride=2, ceil_mode=True, name=f"stage{i}_pool")
        pools.append(x)
    for name, kernel in (("fc6", 7), ("fc7", 1)):
        x = keras.layers.Conv2D(fc_units, kernel, kernel_initializer="he_normal", name=name)(x)
        x = keras.layers.ReLU(name=f"{name}_relu")(x)
        x = keras.layers.Dropout(dropout, name=f"{name}_dropout")(x)
    x = score(x, num_classes, name="score")
    offset = 19
    if stride <= 16:
        x = upsample(x, num_classes, 2, name="up2")
        finer = score(pools[3], num_classes, name="score_pool4")
        finer = crop(finer, x, 5, name="logits_crop_pool4")
        x = keras.layers.Add(name="logits_add_pool4")([x, finer])
        offset = 27
    if stride == 8:
        x = upsample(x, num_classes, 2, name="up4")
        finer = score(pools[2], num_classes, name="score_pool3")
        finer = crop(finer, x, 9, name="logits_crop_pool3")
        x = keras.layers.Add(name="logits_add_pool3")([x, finer])
        offset = 31
    x = upsample(x, num_classes, stride, name=f"up{stride}_last")
    return crop(x, inputs, offset, name="logits", dtype="float32")


register_family(
    fcn,
    family="fcn",
    year=2014,
    paper="1411.4038",
    title="Fully Convolutional Networks for Semantic Segmentation",
    input_shape=(500, 500, 3),
    classes=21,
    min_size=3,
    first_conv="stage1_block1_conv",
    cam_layer="fc7_relu",
    pyramid=("stage1_out", "stage2_out", "stage3_out", "stage4_out", "stage5_out"),
    preprocess="caffe",
    reduced={"widths": (4, 8, 8, 16, 16), "fc_units": 16},
    exceptions={
        "output": "a map of logits, one for each pixel",
        "features": "nothing is pooled, every pixel has its own",
    },
    variants={
        "fcn32s_vgg16": ({"stride": 32}, {"trainable": 136_152_917, "total": 136_152_917}),
        "fcn16s_vgg16": ({"stride": 16}, {"trainable": 134_815_994, "total": 134_815_994}),
        "fcn8s_vgg16": ({"stride": 8}, {"trainable": 134_489_759, "total": 134_489_759}),
    },
)
