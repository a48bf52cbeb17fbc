"""The net that neural architecture search found first. Zoph, Le, "Neural Architecture Search with
Reinforcement Learning", 2016, arXiv:1611.01578.

A recurrent controller wrote down fifteen convolutions, each with its own height, width, number of
filters and choice of earlier outputs, and learnt from the accuracy of what it wrote (Appendix A:
the net without strides or pooling, version 1). `striate.search.architecture` is such a controller.
"""

import re
from typing import Any, NamedTuple

from striate.errors import UsageError
from striate.lazy import keras
from striate.models.blocks import bn_relu, pool_and_classify, stage_out
from striate.registry import Accuracy, register_family

# Number, height and width of the filters, and the layers whose outputs are concatenated.
LAYERS = (
    "36@3x3<0",  # 0 is the picture
    "48@3x3<1",
    "36@3x3<1,2",
    "36@5x5<1,2,3",
    "48@3x7<3,4",
    "48@7x7<2,3,4,5",
    "48@7x7<2,3,4,5,6",
    "36@7x3<1,6,7",
    "36@7x1<1,5,6,8",
    "36@7x7<1,3,4,5,6,7,8,9",
    "36@5x7<1,2,5,6,7,8,9,10",
    "48@7x7<1,2,3,4,6,11",
    "48@7x5<1,3,6,7,8,9,10,11,12",
    "48@7x5<3,7,12,13",
    "48@7x5<6,7,11,12,13,14",
)


class Layer(NamedTuple):
    """One convolution of a net that was written down.

    sources: whose outputs it sees, 0 for the picture, n for the nth layer. strides: down, across.
    """

    filters: int
    height: int
    width: int
    sources: tuple[int, ...]
    strides: tuple[int, int] = (1, 1)

    def __str__(self) -> str:
        """36@3x5/2x1<0,2: 36 filters of 3 x 5, strides of 2 and 1, of the picture and layer 2."""
        strides = "" if self.strides == (1, 1) else "/{}x{}".format(*self.strides)
        seen = ",".join(map(str, self.sources))
        return f"{self.filters}@{self.height}x{self.width}{strides}<{seen}"


WRITTEN = re.compile(r"(\d+)@(\d+)x(\d+)(?:/(\d+)x(\d+))?<(\d+(?:,\d+)*)")


def read_layers(text: str) -> list[Layer]:
    """The layers that a text names one after the other; `UsageError` for the first that is none."""
    layers = [_read(layer, n) for n, layer in enumerate(text.split(), start=1)]
    if not layers:
        raise UsageError("nas_v1: expected layers such as 36@3x3<0 48@5x3/2x2<1, got none")
    return layers


def _read(text: str, n: int) -> Layer:
    found = WRITTEN.fullmatch(text)
    if not found:
        raise UsageError(
            f"nas_v1: expected layer {n} as FILTERS@HEIGHTxWIDTH<SOURCES or "
            f"FILTERS@HEIGHTxWIDTH/STRIDExSTRIDE<SOURCES, such as 36@3x3<0, got {text!r}"
        )
    *numbers, sources = found.groups(default="1")
    filters, height, width, down, across = map(int, numbers)
    seen = tuple(map(int, sources.split(",")))
    if min(filters, height, width, down, across) < 1 or max(seen) >= n:
        raise UsageError(
            f"nas_v1: expected layer {n} with numbers of at least 1 and with sources from 0, "
            f"the picture, to {n - 1}, the layer before, got {text!r}"
        )
    return Layer(filters, height, width, seen, (down, across))


def nas_v1(inputs, *, num_classes: int, layers: str = " ".join(LAYERS), dropout: float = 0.0):
    """Convolution, batch normalisation and ReLU, as often as there are layers.

    What a layer sees is concatenated, smaller maps filled up with zeros, and so is, before the
    classifier, what no layer saw (Section 3.3). layers: as `read_layers` reads them. dropout:
    before the classifier.
    """
    written = read_layers(layers)
    outputs = [inputs]
    for n, layer in enumerate(written, start=1):
        name = f"stage1_block{n}"
        x = joined([outputs[source] for source in layer.sources], name=name)
        outputs.append(convolved(x, layer, name=name))
    seen = {source for layer in written for source in layer.sources}
    unseen = [x for n, x in enumerate(outputs) if n > 0 and n not in seen]
    x = stage_out(joined(unseen, name="stage1"), 1)
    return pool_and_classify(x, num_classes, dropout=dropout)


def convolved(x, layer: Layer, *, name: str):
    """Convolution, batch normalisation, ReLU."""
    strides = layer.strides
    if (layer.height, layer.width) == (1, 1) and strides != (1, 1):
        # The pixels it sees are picked before. The numbers are the same; but TensorFlow 2.21's
        # gradient of such a step writes past its memory, given few channels and few pictures.
        x = keras.layers.MaxPooling2D(1, strides=strides, name=f"{name}_pick")(x)
        strides = (1, 1)
    x = keras.layers.Conv2D(
        layer.filters,
        (layer.height, layer.width),
        strides=strides,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(x)
    return bn_relu(x, name=name)


def joined(maps: list[Any], *, name: str):
    """Maps side by side, the smaller ones filled up with zeros at the bottom and at the right."""
    if len(maps) == 1:
        return maps[0]
    height, width = (max(x.shape[side] for x in maps) for side in (1, 2))
    filled = [
        filled_up(x, height, width, name=f"{name}_fill{n}") for n, x in enumerate(maps, start=1)
    ]
    return keras.layers.Concatenate(name=f"{name}_concat")(filled)


def filled_up(x, height: int, width: int, *, name: str):
    """A map with rows and columns of zeros after its own; one of that size stays as it is."""
    below, right = height - x.shape[1], width - x.shape[2]
    if below == right == 0:
        return x
    return keras.layers.ZeroPadding2D(((0, below), (0, right)), name=name)(x)


register_family(
    nas_v1,
    family="nasnet",
    year=2016,
    paper="1611.01578",
    title="Neural Architecture Search with Reinforcement Learning",
    input_shape=(32, 32, 3),
    classes=10,
    min_size=3,
    first_conv="stage1_block1_conv",
    cam_layer="stage1_out",
    pyramid=("stage1_out",),
    preprocess="torch",
    variants={
        "nas_v1_cifar": (
            {},
            {
                "trainable": 4_201_630,
                "total": 4_202_902,
                "accuracy": Accuracy("CIFAR-10", 94.50, "the paper, Table 1"),
            },
        ),
    },
)
