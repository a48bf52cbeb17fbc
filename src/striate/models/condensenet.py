"""CondenseNet. Huang, Liu, van der Maaten, Weinberger, "CondenseNet: An Efficient DenseNet using
Learned Group Convolutions", 2017, arXiv:1711.09224.

DenseNet whose 1x1 convolutions learn, while they train, which inputs each group of filters needs;
the others are pruned in stages. A trained net converts into one with plain grouped convolutions,
which any runtime executes fast: `convert`.

The nets are registered in the form that is trained; `converted=True` builds the other, which a
training run ends with.
"""

from striate.errors import UsageError
from striate.lazy import keras
from striate.models import pytorchcv
from striate.models.blocks import bn_relu, conv, logits, stage_out
from striate.registry import Accuracy, create_model, register_family


def dense_layer(x, growth: int, *, groups: int, converted: bool, name: str):
    """x with `growth` more channels: learned grouped 1x1, grouped 3x3, both after BN and ReLU."""
    from striate.layers import ChannelShuffle, LearnedGroupConv, SelectChannels

    if converted:
        y = SelectChannels(x.shape[-1], name=f"{name}_select")(x)
        y = bn_relu(y, name=f"{name}_reduce")
        y = conv(y, 4 * growth, 1, groups=groups, name=f"{name}_reduce")
        y = ChannelShuffle(groups, name=f"{name}_shuffle")(y)
    else:
        y = bn_relu(x, name=f"{name}_reduce")
        y = LearnedGroupConv(4 * growth, groups, name=f"{name}_reduce_conv")(y)
    y = conv(bn_relu(y, name=name), growth, 3, groups=groups, name=name)
    return keras.layers.Concatenate(name=f"{name}_concat")([x, y])


def condensenet(
    inputs,
    *,
    num_classes: int,
    depths: tuple[int, ...],
    growth: tuple[int, ...],
    stride: int,
    half_classifier: bool,
    groups: int = 4,
    layers: int | None = None,
    converted: bool = False,
    dropout: float = 0.0,
):
    """Blocks of dense layers whose growth doubles, average pooling between them.

    groups: of both convolutions of a layer. layers: of each block, by default the net's own.
    converted: the form to run, with grouped convolutions and, in the nets for ImageNet, a
    classifier on the better half of the features. dropout: before the classifier.
    """
    from striate.layers import SelectChannels

    if any(width % groups for width in growth):
        raise UsageError(f"condensenet: expected groups that divide {growth}, got {groups}")
    x = conv(inputs, 2 * growth[0], 3, stride=stride, name="stem")
    for i, (depth, width) in enumerate(zip(depths, growth, strict=True), start=1):
        for j in range(1, (layers or depth) + 1):
            name = f"stage{i}_block{j}"
            x = dense_layer(x, width, groups=groups, converted=converted, name=name)
        x = stage_out(x, i)
        if i < len(depths):
            x = keras.layers.AveragePooling2D(2, name=f"stage{i}_pool")(x)
    x = bn_relu(x, name="top")
    x = keras.layers.GlobalAveragePooling2D(name="features")(x)
    if converted and half_classifier:
        x = SelectChannels(x.shape[-1] // 2, name="logits_select")(x)
    return logits(x, num_classes, dropout=dropout)


def convert(model: "keras.Model", **options) -> "keras.Model":
    """A trained net as the net to run, with the same features.

    model: of `create_model`; options: those it was built with. What its groups have not condensed
    to the last stage yet, they condense now. In the nets for ImageNet the classifier keeps the
    features with the greatest weights, as the authors' conversion does.
    """
    import numpy as np

    after = create_model(
        model.name,
        num_classes=model.output_shape[-1],
        input_shape=model.input_shape[1:],
        **{**options, "converted": True},
    )
    for layer in after.layers:
        if layer.weights and layer.name in {before.name for before in model.layers}:
            source = model.get_layer(layer.name)
            if [w.shape for w in layer.weights] == [w.shape for w in source.weights]:
                layer.set_weights(source.get_weights())
    for layer in model.layers:
        if type(layer).__name__ != "LearnedGroupConv":
            continue
        layer.advance(1.0)
        kernel, mask = layer.get_weights()
        kept = [np.flatnonzero(mask[:, group]) for group in range(layer.groups)]
        blocks = [kernel[rows][:, group :: layer.groups] for group, rows in enumerate(kept)]
        index = np.concatenate(kept)
        name = layer.name.removesuffix("_conv")
        after.get_layer(layer.name).set_weights([np.concatenate(blocks, axis=1)[None, None]])
        after.get_layer(f"{name.removesuffix('_reduce')}_select").set_weights([index])
        norm = model.get_layer(f"{name}_bn").get_weights()
        after.get_layer(f"{name}_bn").set_weights([values[index] for values in norm])
    if "logits_select" not in {layer.name for layer in after.layers}:
        return after
    kernel, bias = model.get_layer("logits").get_weights()
    best = np.sort(np.argsort(np.abs(kernel).sum(1))[len(kernel) - len(kernel) // 2 :])
    after.get_layer("logits_select").set_weights([best])
    after.get_layer("logits").set_weights([kernel[best], bias])
    return after


# === Weights of pytorchcv ===


def pytorchcv_names(*, depths: tuple[int, ...], **_) -> dict[str, str]:
    """Our layer -> the module, or the buffer, of pytorchcv's nets, which are converted ones."""
    parts = {**pytorchcv.conv_bn({"reduce": "conv1"}), "conv": "conv2.conv", "bn": "conv2.bn"}
    return {
        "stem_conv": "features.init_block.conv",
        **pytorchcv.units(depths, {**parts, "select": "conv1.index"}),
        "top_bn": "features.post_activ.bn",
        "logits": "output.linear",
        "logits_select": "output.index",
    }


PYTORCHCV = pytorchcv.layout(pytorchcv_names, options={"converted": True})

# === Nets ===

IMAGENET = {
    "depths": (4, 6, 8, 10, 8),
    "growth": (8, 16, 32, 64, 128),
    "stride": 2,
    "half_classifier": True,
}
CIFAR = {"stride": 1, "half_classifier": False}

register_family(
    condensenet,
    family="condensenet",
    year=2017,
    paper="1711.09224",
    title="CondenseNet: An Efficient DenseNet using Learned Group Convolutions",
    input_shape=(224, 224, 3),
    classes=1000,
    min_size=31,
    layouts=(PYTORCHCV,),
    first_conv="stem_conv",
    cam_layer="top_relu",
    pyramid=("stage1_out", "stage2_out", "stage3_out", "stage4_out", "stage5_out"),
    preprocess="torch",
    reduced={"layers": 1},
    convert=convert,
    variants={
        "condensenet74_g4": (
            IMAGENET,
            {
                "trainable": 11_922_680,
                "total": 12_072_024,
                "accuracy": Accuracy("ImageNet", 73.8, "the paper, Table 4", top5=91.7),
                "differs": "counted as it trains; converted, 4,773,944 parameters train",
            },
        ),
        "condensenet74_g8": (
            {**IMAGENET, "groups": 8},
            {
                "trainable": 11_103_608,
                "total": 11_338_840,
                "accuracy": Accuracy("ImageNet", 71.0, "the paper, Table 4", top5=90.0),
                "differs": "counted as it trains; converted, 2,935,416 parameters train",
            },
        ),
    },
)

register_family(
    condensenet,
    family="condensenet",
    year=2017,
    paper="1711.09224",
    title="CondenseNet: An Efficient DenseNet using Learned Group Convolutions",
    input_shape=(32, 32, 3),
    classes=10,
    min_size=4,
    first_conv="stem_conv",
    cam_layer="top_relu",
    pyramid=("stage1_out", "stage2_out", "stage3_out"),
    preprocess="torch",
    reduced={"layers": 1},
    convert=convert,
    variants={
        "condensenet86_cifar": (
            {**CIFAR, "depths": (14, 14, 14), "growth": (8, 16, 32)},
            {
                "trainable": 1_451_594,
                "total": 1_531_706,
                "accuracy": Accuracy("CIFAR-10", 94.94, "the paper, Table 2"),
                "differs": "counted as it trains; converted, 520,202 parameters train",
            },
        ),
        "condensenet182_cifar": (
            {**CIFAR, "depths": (30, 30, 30), "growth": (12, 24, 48)},
            {
                "trainable": 13_792_906,
                "total": 14_309_554,
                "accuracy": Accuracy("CIFAR-10", 96.24, "the paper, Table 2"),
                "differs": "counted as it trains; converted, 4,221,946 parameters train",
            },
        ),
    },
)
