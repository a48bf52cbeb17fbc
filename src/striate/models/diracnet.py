"""DiracNets. Zagoruyko, Komodakis, "DiracNets: Training Very Deep Neural Networks Without
Skip-Connections", 2017, arXiv:1706.00388.

A plain chain of convolutions that trains as deep as a residual net: each kernel is parametrised as
the identity plus a learnt part, so that the shortcut sits inside the weights. A trained net folds,
with its batch normalisation, into plain convolutions: `fold(model)`.

The nets are the second version of the authors' repository: ReLU before each convolution, maximum
pooling between the stages, and a first convolution without the parametrisation.
"""

from striate.lazy import keras
from striate.models import pytorchcv
from striate.models.blocks import HE, conv, max_pool, pool_and_classify, stage_out
from striate.registry import create_model, register_family

EPSILON = 1e-5


def normalise(x, *, folded: bool, name: str):
    """Batch normalisation as in torch; a folded net has it in its convolutions."""
    if folded:
        return x
    return keras.layers.BatchNormalization(epsilon=EPSILON, momentum=0.9, name=f"{name}_bn")(x)


def imagenet_stem(x, width: int, *, folded: bool):
    """7x7 convolution and 3x3 max pooling, stride 2 each."""
    x = conv(x, width, 7, stride=2, bias=folded, name="stem")
    x = normalise(x, folded=folded, name="stem")
    # The zeros around the map change nothing, since a ReLU follows.
    return max_pool(x, 3, stride=2, pad=1, name="stem_pool")


def cifar_stem(x, width: int, *, folded: bool):
    """One 3x3 convolution at full resolution."""
    x = conv(x, width, 3, bias=folded, name="stem")
    return normalise(x, folded=folded, name="stem")


def dirac(x, width: int, *, folded: bool, name: str):
    """ReLU, a 3x3 convolution around the identity, batch normalisation."""
    from striate.layers import DiracConv2D

    layer = keras.layers.Conv2D if folded else DiracConv2D
    x = keras.layers.ReLU(name=f"{name}_relu")(x)
    x = layer(
        width, 3, padding="same", use_bias=folded, kernel_initializer=HE, name=f"{name}_conv"
    )(x)
    return normalise(x, folded=folded, name=name)


def diracnet(
    inputs,
    *,
    num_classes: int,
    stem,
    depths: tuple[int, ...] = (4, 4, 4, 4),
    width: int = 64,
    folded: bool = False,
):
    """Stages of Dirac convolutions; 2x2 pooling and twice the width from one to the next.

    depths: layers of each stage; width: of the first stage. folded: the plain net that `fold`
    fills with a trained one's weights.
    """
    x = stem(inputs, width, folded=folded)
    for i, depth in enumerate(depths, start=1):
        if i > 1:
            x = keras.layers.MaxPooling2D(2, name=f"stage{i - 1}_pool")(x)
        for j in range(1, depth + 1):
            x = dirac(x, width, folded=folded, name=f"stage{i}_block{j}")
        x = stage_out(x, i)
        width *= 2
    x = keras.layers.ReLU(name="top_relu")(x)
    return pool_and_classify(x, num_classes)


def fold(model, **options):
    """The plain net of convolutions with bias that answers as a trained DiracNet does.

    model: from `create_model`; options: those it was made with.
    """
    plain = create_model(
        model.name,
        num_classes=model.output_shape[-1],
        input_shape=model.input_shape[1:],
        folded=True,
        **options,
    )
    for layer in plain.layers:
        if isinstance(layer, keras.layers.Conv2D):
            layer.set_weights(_folded(model, layer.name.removesuffix("_conv")))
        elif layer.weights:
            layer.set_weights(model.get_layer(layer.name).get_weights())
    return plain


def _folded(model, name: str) -> list:
    """Kernel and bias of a convolution with the batch normalisation after it."""
    from striate.layers import DiracConv2D

    layer = model.get_layer(f"{name}_conv")
    kernel = layer.folded_kernel() if isinstance(layer, DiracConv2D) else layer.kernel
    gamma, beta, mean, variance = model.get_layer(f"{name}_bn").get_weights()
    scale = gamma / (variance + EPSILON) ** 0.5
    return [keras.ops.convert_to_numpy(kernel) * scale, beta - mean * scale]


# === Weights of pytorchcv ===


def pytorchcv_names(*, depths: tuple[int, ...], **_) -> dict[str, str]:
    """Our layer -> the module of pytorchcv's nets, which are the authors' own ones folded."""
    return {
        "stem_conv": "features.init_block.conv",
        **pytorchcv.units(depths, {"conv": "conv"}),
        "logits": "output",
    }


PYTORCHCV = pytorchcv.layout(pytorchcv_names, options={"folded": True})

# === Nets ===

PAPER = {
    "family": "diracnet",
    "year": 2017,
    "paper": "1706.00388",
    "title": "DiracNets: Training Very Deep Neural Networks Without Skip-Connections",
    "first_conv": "stem_conv",
    "cam_layer": "top_relu",
    "preprocess": "torch",
}


def imagenet(depths: tuple[int, ...], trainable: int, total: int) -> tuple[dict, dict]:
    facts = {"trainable": trainable, "total": total}
    return {"stem": imagenet_stem, "depths": depths}, facts


register_family(
    diracnet,
    **PAPER,
    input_shape=(224, 224, 3),
    classes=1000,
    min_size=29,
    layouts=(PYTORCHCV,),
    reduced={"width": 16, "depths": (1, 1, 1, 1)},
    pyramid=("stage1_out", "stage2_out", "stage3_out", "stage4_out"),
    variants={
        "diracnet18": imagenet((4, 4, 4, 4), 11_523_368, 11_531_176),
        "diracnet34": imagenet((6, 8, 12, 6), 21_638_952, 21_654_184),
    },
)


def cifar(depth: int, widen: int, trainable: int, total: int) -> tuple[dict, dict]:
    """6n + 4 layers, 2n in each of three stages, `widen` times as wide as the CIFAR ResNets."""
    config = {"stem": cifar_stem, "depths": ((depth - 4) // 3,) * 3, "width": 16 * widen}
    return config, {"trainable": trainable, "total": total}


register_family(
    diracnet,
    **PAPER,
    input_shape=(32, 32, 3),
    classes=10,
    min_size=4,
    reduced={"width": 8, "depths": (2, 2, 2)},
    pyramid=("stage1_out", "stage2_out", "stage3_out"),
    variants={
        "diracnet28_5_cifar": cifar(28, 5, 9_124_250, 9_133_370),
        "diracnet34_2_cifar": cifar(34, 2, 1_854_378, 1_858_922),
    },
)
