"""The net that neural architecture search found first. Zoph, Le, "Neural Architecture Search with
Reinforcement Learning", 2016, arXiv:1611.01578.

A recurrent controller wrote down fifteen convolutions, each with its own height, width, number of
filters and choice of earlier outputs, and learnt from the accuracy of what it wrote (Appendix A:
the net without strides or pooling, version 1).
"""

from striate.lazy import keras
from striate.models.blocks import bn_relu, pool_and_classify, stage_out
from striate.registry import Accuracy, register_family

# Height, width and number of the filters, and the layers whose outputs are concatenated.
LAYERS = (
    (3, 3, 36, (0,)),  # 0 is the picture
    (3, 3, 48, (1,)),
    (3, 3, 36, (1, 2)),
    (5, 5, 36, (1, 2, 3)),
    (3, 7, 48, (3, 4)),
    (7, 7, 48, (2, 3, 4, 5)),
    (7, 7, 48, (2, 3, 4, 5, 6)),
    (7, 3, 36, (1, 6, 7)),
    (7, 1, 36, (1, 5, 6, 8)),
    (7, 7, 36, (1, 3, 4, 5, 6, 7, 8, 9)),
    (5, 7, 36, (1, 2, 5, 6, 7, 8, 9, 10)),
    (7, 7, 48, (1, 2, 3, 4, 6, 11)),
    (7, 5, 48, (1, 3, 6, 7, 8, 9, 10, 11, 12)),
    (7, 5, 48, (3, 7, 12, 13)),
    (7, 5, 48, (6, 7, 11, 12, 13, 14)),
)


def nas_v1(inputs, *, num_classes: int, layers: tuple[tuple, ...], dropout: float = 0.0):
    """Convolution, batch normalisation, ReLU, as often as there are layers, at full resolution.

    dropout: before the classifier.
    """
    outputs = [inputs]
    for n, (height, width, filters, sources) in enumerate(layers, start=1):
        name = f"stage1_block{n}"
        x = outputs[sources[0]]
        if len(sources) > 1:
            seen = [outputs[source] for source in sources]
            x = keras.layers.Concatenate(name=f"{name}_concat")(seen)
        x = keras.layers.Conv2D(
            filters,
            (height, width),
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            name=f"{name}_conv",
        )(x)
        outputs.append(bn_relu(x, name=name))
    x = stage_out(outputs[-1], 1)
    return pool_and_classify(x, num_classes, dropout=dropout)


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
            {"layers": LAYERS},
            {
                "trainable": 4_201_630,
                "total": 4_202_902,
                "accuracy": Accuracy("CIFAR-10", 94.50, "the paper, Table 1"),
            },
        ),
    },
)
