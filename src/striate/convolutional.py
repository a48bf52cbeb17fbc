"""A classifier of pictures as a classifier of places: its dense layers become convolutions.

Long, Shelhamer, Darrell, "Fully Convolutional Networks for Semantic Segmentation", 2014,
arXiv:1411.4038, section 3.1.
"""

import numpy as np

from striate.errors import UsageError
from striate.lazy import keras
from striate.registry import check_layout, deep_graphs

POOLING = {"GlobalAveragePooling2D": "AveragePooling2D", "GlobalMaxPooling2D": "MaxPooling2D"}
# What brings a map to the size that a dense layer was made for.
RESIZING = ("AdaptiveAveragePooling2D", "UpSampling2D")
# What treats every place alike, and so may follow where the model has flattened or pooled.
POINTWISE = (
    *("Activation", "Dropout", "ELU", "Identity", "LeakyReLU", "ReLU", "Softmax"),
    *("BatchNormalization", "LayerNormalization", "FixedRBF", "ScaledTanh"),
)


def convolutionalise(model):
    """The fully convolutional twin of a classifier: of larger pictures it gives a map of logits.

    model: float [N, h, w, c] -> logits [N, classes]. The twin takes [N, H, W, c] with H and W of at
    least h and w, and gives [N, H', W', classes]; for h x w that is 1 x 1, the same logits. A dense
    layer on a flattened map becomes a convolution of the map's size, any other one of 1x1, and
    global pooling becomes pooling over windows of the map's size.

    Each place has the answer that the model gives to the window there, the next window lying the
    product of all strides further. Exactly so where nothing is padded: a padding convolution sees
    zeros around the model's picture, and the neighbourhood around the twin's window. Gates on the
    mean of a whole map (squeeze-and-excitation) still take the whole.

    The weights are copied. Raises `UsageError` for what is no functional or Sequential model, and
    for one that takes no pictures of one size, that gives a map already, or that ends in something
    else than dense layers or global pooling.
    """
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise UsageError(
            "expected a functional or Sequential Keras model whose input has a shape, got "
            f"{model!r:.100}"
        )
    check_layout()
    twins, kernels = _convolutions(_head(model))

    def twin_of(layer):
        return twins.get(layer.name) or type(layer).from_config(layer.get_config())

    inputs = keras.Input((None, None, model.input_shape[-1]), name=model.inputs[0].name)
    with deep_graphs():
        twin = keras.models.clone_model(model, input_tensors=inputs, clone_function=twin_of)
    for layer in model.layers:
        if layer.weights:
            values = layer.get_weights()
            values[0] = kernels.get(layer.name, values[0])
            twin.get_layer(layer.name).set_weights(values)
    return twin


def _head(model) -> list:
    """The layers between the last map and the logits, in order."""
    if len(model.inputs) != 1 or len(model.input_shape) != 4 or None in model.input_shape[1:]:
        raise UsageError(
            f"{model.name}: expected a net on pictures of one size, its input is "
            f"{model.input_shape}"
        )
    if len(model.outputs) != 1 or len(model.output_shape) != 2:
        raise UsageError(
            f"{model.name}: expected a net that ends in dense layers or global pooling, its output "
            f"is {model.output_shape}"
        )
    layers = []
    tensor = model.outputs[0]
    layer = tensor._keras_history.operation
    while np.prod(tensor.shape[1:-1]) == 1:  # a vector, or a map of one pixel
        if isinstance(layer, keras.layers.InputLayer) or isinstance(layer.input, list):
            break
        layers.insert(0, layer)
        tensor = layer.input
        layer = tensor._keras_history.operation
    if len(tensor.shape) != 4:
        raise UsageError(
            f"{model.name}: expected dense layers or global pooling on one map, several meet in "
            f"{layer.name!r}"
        )
    return layers


def _convolutions(head: list) -> tuple[dict, dict]:
    """By the name of a layer: the one in its stead, and the kernel of that where it has one."""
    twins, kernels = {}, {}
    resize, sides = None, (1, 1)  # what a dense layer is to see at once
    for layer in head:
        kind = type(layer).__name__
        policy = getattr(layer, "dtype_policy", None)  # none of a function of keras.ops
        same = {"name": layer.name, "dtype": policy and policy.name}
        if kind in POOLING:
            pooling = getattr(keras.layers, POOLING[kind])
            twins[layer.name] = pooling(layer.input.shape[1:3], strides=1, **same)
        elif kind == "Flatten":
            before = layer.input._keras_history.operation
            if type(before).__name__ in RESIZING:
                resize = before
                twins[before.name] = keras.layers.Identity(name=before.name)
            sides = (resize or layer).input.shape[1:3]
            twins[layer.name] = keras.layers.Identity(**same)
        elif kind == "Dense":
            options = {"activation": layer.activation, "use_bias": layer.use_bias, **same}
            twins[layer.name] = keras.layers.Conv2D(layer.units, sides, **options)
            kernels[layer.name] = _kernel(layer, sides, resize)
            resize, sides = None, (1, 1)
        elif len(layer.output.shape) == 2 and (
            kind not in POINTWISE or (layer.weights and sides != (1, 1))
        ):
            raise UsageError(f"{kind} {layer.name!r} has no convolution that does the same")
    return twins, kernels


def _kernel(dense, sides: tuple[int, int], resize) -> np.ndarray:
    """The weights of a dense layer [h w c, units] as a kernel [*sides, c, units].

    resize: the layer, if any, that made h x w of a map of `sides`. It averages or repeats, so that
    its part can be taken into the kernel: the answers to a single pixel tell what it does.
    """
    weights = keras.ops.convert_to_numpy(dense.kernel)
    if resize is None:
        return weights.reshape(*sides, -1, dense.units)
    pixels = np.eye(sides[0] * sides[1], dtype="float32").reshape(-1, *sides, 1)
    spread = keras.ops.convert_to_numpy(resize(pixels))
    places = spread.shape[1] * spread.shape[2]
    kernel = spread.reshape(-1, places) @ weights.reshape(places, -1)
    return kernel.reshape(*sides, -1, dense.units)
