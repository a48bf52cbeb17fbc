"""Weights of pytorchcv's nets give pytorchcv's logits."""

import dataclasses
import importlib
import importlib.util
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from oracles import Shape, assert_same_logits, torch
from striate.registry import create_model, get_spec, open_weights

pytestmark = pytest.mark.oracle

CIFAR = (19, 26, 3)
IMAGENET = (64, 96, 3)


@dataclasses.dataclass(frozen=True)
class Row:
    """One of our nets and the one of pytorchcv's that its weights come from.

    file, function, arguments: theirs. shape: the picture to compare on.
    asks: what `open_weights` must tell of the options that the file needs.
    options: what makes ours as small as the arguments make theirs.
    slow: takes long, and tells from a quick one by depth or width alone.
    """

    ours: str
    file: str
    function: str
    shape: Shape = CIFAR
    asks: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    slow: bool = False

    @property
    def preprocess(self) -> str:
        if self.ours == "nasnet_a_large":
            return "tf"
        return "cifar" if get_spec(self.ours).classes == 10 else "torch"

    def __str__(self) -> str:
        return f"{self.ours}-small" if self.options else self.ours

    def theirs(self):
        """A net that can see pictures of any size: its last pooling takes all there is."""
        if importlib.util.find_spec("pytorchcv") is None:
            pytest.skip("needs pytorchcv as the oracle")
        module = importlib.import_module(f"pytorchcv.models.{self.file}")
        model = getattr(module, self.function)(**self.arguments)
        for part in (model.features, model.output):
            if hasattr(part, "final_pool"):
                part.final_pool = torch.nn.AdaptiveAvgPool2d(1)
        for part in model.modules():  # PolyNet's, which Keras' Rescaling keeps in float32
            if hasattr(part, "scale"):
                part.scale = float(np.float32(part.scale))
        for name, index in model.named_buffers():  # CondenseNet's, which start as zeros
            if name.endswith("index"):
                index.copy_(torch.randperm(len(index)))
        return model


PREACT = {"shortcut": "B", "stride_on_1x1": False, "activated_start": False}
LRN = {"lrn_alpha": 1e-4 / 5}
TORCH = {"symmetric_padding": True, "relu6": False}
NASNET = {"zeros_in_max": False, "zeros_in_average": False}


def resnext(ours: str, cardinality: int, width: int) -> Row:
    """ResNeXt-29 of another width than 256, 512 and 1024."""
    channels = [[4 * width * 2**stage] * 3 for stage in range(3)]
    arguments = {"channels": channels, "init_block_channels": 64, "bottleneck_width": 64}
    return Row(
        ours,
        "resnext_cifar",
        "CIFARResNeXt",
        options={"width": width},
        arguments={**arguments, "cardinality": cardinality},
    )


def wrn(ours: str, depth: int, widen: int, **facts) -> Row:
    arguments = {"num_classes": 10, "blocks": depth, "width_factor": widen}
    return Row(ours, "wrn_cifar", "get_wrn_cifar", arguments=arguments, **facts)


def nasnet(ours: str, cells: int, shape: Shape, slow: bool = False, **arguments) -> Row:
    """NASNet-A of fewer cells a stage."""
    arguments |= {"repeat": cells, "final_pool_size": 1, "in_size": shape[:2]}
    options = {"cells": cells}
    return Row(ours, "nasnet", "get_nasnet", shape, NASNET, options, arguments, slow)


ROWS = [
    Row("resnet20_cifar", "resnet_cifar", "resnet20_cifar10", asks={"shortcut": "B"}),
    Row("resnet56_cifar", "resnet_cifar", "resnet56_cifar10", asks={"shortcut": "B"}, slow=True),
    Row("resnet110_cifar", "resnet_cifar", "resnet110_cifar10", asks={"shortcut": "B"}, slow=True),
    Row(
        "preresnet110_cifar",
        "preresnet_cifar",
        "preresnet20_cifar10",
        asks=PREACT,
        options={"depths": (3, 3, 3)},
    ),
    Row("preresnet110_cifar", "preresnet_cifar", "preresnet110_cifar10", asks=PREACT, slow=True),
    Row(
        "preresnet164_cifar",
        "preresnet_cifar",
        "get_preresnet_cifar",
        asks=PREACT,
        options={"depths": (3, 3, 3)},
        arguments={"num_classes": 10, "blocks": 29, "bottleneck": True},
    ),
    Row("preresnet164_cifar", "preresnet_cifar", "preresnet164bn_cifar10", asks=PREACT, slow=True),
    Row("preresnet1001_cifar", "preresnet_cifar", "preresnet1001_cifar10", asks=PREACT, slow=True),
    Row(
        "preresnet200",
        "preresnet",
        "preresnetbc26b",
        shape=IMAGENET,
        asks=PREACT,
        options={"depths": (2, 2, 2, 2)},
    ),
    Row(  # strides in the first 1x1 convolution, as the paper's, which no published file does
        "preresnet200",
        "preresnet",
        "get_preresnet",
        shape=IMAGENET,
        asks=PREACT,
        options={"depths": (2, 2, 2, 2), "stride_on_1x1": True},
        arguments={"blocks": 26, "bottleneck": True, "conv1_stride": True},
    ),
    Row("preresnet200", "preresnet", "preresnet200b", shape=IMAGENET, asks=PREACT, slow=True),
    wrn("wrn16_4", 16, 4),
    wrn("wrn52_1", 52, 1, slow=True),
    wrn("wrn40_4", 40, 4, slow=True),
    wrn("wrn28_10", 28, 10, slow=True),
    resnext("resnext29_8x64d_cifar", 8, width=8),
    Row(
        "resnext29_8x64d_cifar",
        "resnext_cifar",
        "get_resnext_cifar",
        arguments={"num_classes": 10, "blocks": 29, "cardinality": 8, "bottleneck_width": 64},
        slow=True,
    ),
    Row("resnext29_16x64d_cifar", "resnext_cifar", "resnext29_16x64d_cifar10", slow=True),
    Row(
        "densenet_bc100_12_cifar",
        "densenet_cifar",
        "get_densenet_cifar",
        options={"depths": (3, 3, 3)},
        arguments={"num_classes": 10, "blocks": 22, "growth_rate": 12, "bottleneck": True},
    ),
    Row("densenet_bc100_12_cifar", "densenet_cifar", "densenet100_k12_bc_cifar10", slow=True),
    Row("densenet_bc250_24_cifar", "densenet_cifar", "densenet250_k24_bc_cifar10", slow=True),
    Row("densenet_bc190_40_cifar", "densenet_cifar", "densenet190_k40_bc_cifar10", slow=True),
    Row(
        "shake_shake26_2x32d_cifar",
        "shakeshakeresnet_cifar",
        "CIFARShakeShakeResNet",
        asks={"activated_sums": True},
        options={"width": 24, "blocks": 2},
        arguments={
            "channels": [[24] * 2, [48] * 2, [96] * 2],
            "init_block_channels": 16,
            "bottleneck": False,
        },
    ),
    Row(
        "shake_shake26_2x32d_cifar",
        "shakeshakeresnet_cifar",
        "shakeshakeresnet26_2x32d_cifar10",
        asks={"activated_sums": True},
        slow=True,
    ),
    Row("nin_cifar", "nin_cifar", "nin_cifar10", asks={"pad_pools": True}),
    Row(
        "fractalnet21_cifar",
        "fractalnet_cifar",
        "CIFARFractalNet",
        shape=(33, 41, 3),
        asks={"pool_joined": True},
        options={"width": 8},
        arguments={
            "channels": [8, 16, 32, 64, 64],
            "num_columns": 3,
            "dropout_probs": [0.0, 0.1, 0.2, 0.3, 0.4],
            "loc_drop_prob": 0.15,
            "glob_drop_ratio": 0.5,
        },
    ),
    Row(
        "fractalnet21_cifar",
        "fractalnet_cifar",
        "fractalnet_cifar10",
        shape=(33, 41, 3),
        asks={"pool_joined": True},
        slow=True,
    ),
    Row(
        "zfnet",
        "zfnet",
        "zfnet",
        shape=(224, 224, 3),
        asks={**LRN, "lrn_first": True},
    ),
    Row("alexnet_ungrouped", "alexnet", "alexnet", shape=(227, 227, 3), asks=LRN, slow=True),
    Row("bn_inception", "bninception", "bninception", shape=IMAGENET),
    Row(
        "polynet",
        "polynet",
        "PolyNet",
        shape=(75, 107, 3),
        options={"depths": (1, 2, 2)},
        arguments={  # a module of each kind in each stage, scaled as in a net of this depth
            "two_way_scales": [[1.0], [0.0, 0.85], [0.0, 0.7]],
            "poly_scales": [[0.0], [0.0, 0.925], [0.0, 0.775]],
        },
    ),
    Row(  # of a thousand logits so large, the worst is off by more than 2e-5 in float32
        "polynet",
        "polynet",
        "polynet",
        shape=(107, 139, 3),
        arguments={"num_classes": 10},
        slow=True,
    ),
    nasnet(
        "nasnet_a_mobile",
        2,
        IMAGENET,
        penultimate_filters=1056,
        init_block_channels=32,
        extra_padding=True,
        skip_reduction_layer_input=False,
    ),
    Row("nasnet_a_mobile", "nasnet", "nasnet_4a1056", shape=IMAGENET, asks=NASNET, slow=True),
    nasnet(
        "nasnet_a_large",
        2,
        (43, 75, 3),  # as at 331 pixels, the first maps are of odd sides
        slow=True,
        penultimate_filters=4032,
        init_block_channels=96,
        extra_padding=False,
        skip_reduction_layer_input=True,
    ),
    Row("nasnet_a_large", "nasnet", "nasnet_6a4032", shape=(43, 75, 3), asks=NASNET, slow=True),
    Row("diracnet18", "diracnetv2", "diracnet18v2", shape=IMAGENET, asks={"folded": True}),
    Row(
        "diracnet34",
        "diracnetv2",
        "diracnet34v2",
        shape=IMAGENET,
        asks={"folded": True},
        slow=True,
    ),
    Row(
        "condensenet74_g4",
        "condensenet",
        "CondenseNet",
        shape=IMAGENET,
        asks={"converted": True},
        options={"layers": 1},
        arguments={
            "channels": [[24], [40], [72], [136], [264]],
            "init_block_channels": 16,
            "groups": 4,
        },
    ),
    *(
        Row(
            f"condensenet74_g{g}",
            "condensenet",
            f"condensenet74_c{g}_g{g}",
            shape=IMAGENET,
            asks={"converted": True},
            slow=True,
        )
        for g in (4, 8)
    ),
    *(
        Row(
            f"shufflenet_v1_g{g}",
            "shufflenet",
            f"shufflenet_g{g}_w1",
            shape=(75, 97, 3),
            slow=g != 3,
        )
        for g in (1, 2, 3, 4, 8)
    ),
    *(
        Row(
            f"mobilenet_v1_{alpha}",
            "mobilenet",
            f"mobilenet_{width}",
            shape=(64, 97, 3),
            asks=TORCH,
            slow=alpha != "025",
        )
        for alpha, width in (("100", "w1"), ("075", "w3d4"), ("050", "wd2"), ("025", "wd4"))
    ),
]


@pytest.mark.parametrize(
    "row",
    [pytest.param(r, id=str(r), marks=[pytest.mark.slow] if r.slow else []) for r in ROWS],
)
def test_pytorchcv_s_weights_give_pytorchcv_s_logits(row, tmp_path):
    assert_same_logits(row.ours, row.theirs(), row.shape, tmp_path, **row.options)
    opened = open_weights(row.ours, tmp_path / "theirs.pth")
    assert opened.classes == row.arguments.get("num_classes", get_spec(row.ours).classes)
    assert opened.preprocess == row.preprocess
    assert dict(opened.options) == row.asks


@pytest.mark.parametrize("name", ["resnet20_cifar", "nin_cifar", "diracnet18", "condensenet74_g4"])
def test_other_classes_get_a_fresh_classifier_on_the_same_body(name, tmp_path):
    row = next(row for row in ROWS if row.ours == name)
    torch.save(row.theirs().state_dict(), tmp_path / "theirs.pth")
    same, other = (
        create_model(name, weights=tmp_path / "theirs.pth", num_classes=classes, **row.options)
        for classes in (None, 3)
    )
    assert other.output_shape == (None, 3)
    for layer in same.layers:
        if not layer.name.startswith("logits"):
            for a, b in zip(layer.weights, other.get_layer(layer.name).weights, strict=True):
                assert np.array_equal(a, b)
