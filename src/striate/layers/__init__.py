"""Keras layers that Keras does not have; a module is imported when its layer is first asked for."""

import importlib
from typing import Any

_MODULES = {
    "AddCoords": "coordinates",
    "BinaryConv2D": "binary",
    "BinaryDense": "binary",
    "CeilAveragePooling2D": "ceil_pooling",
    "CeilMaxPooling2D": "ceil_pooling",
    "CentredKernel": "binary",
    "ChannelShuffle": "channel_shuffle",
    "CircularChain2D": "circular_conv",
    "CircularConv2D": "circular_conv",
    "DeformableConv2D": "deformable_conv",
    "DiracConv2D": "dirac_conv",
    "DistanceWeightedPooling2D": "window_pooling",
    "DrawColumn": "drop_path",
    "FixedRBF": "rbf",
    "FractalJoin": "drop_path",
    "HardwiredChannels": "hardwired",
    "HighwayGate": "highway",
    "L2Pooling2D": "window_pooling",
    "LearnedGroupConv": "learned_group_conv",
    "LocallyConnected2D": "locally_connected",
    "LocalResponseNormalization": "local_response_norm",
    "MapDense": "map_dense",
    "MeanProbability": "mean_probability",
    "Normalise": "normalise",
    "PadChannels": "pad_channels",
    "SAFPooling2D": "saf_pooling",
    "ScaledTanh": "scaled_tanh",
    "SecondOrderPooling2D": "second_order",
    "SelectChannels": "select_channels",
    "ShakeShake": "shake_shake",
    "SliceChannels": "slice_channels",
    "SpatiallySeparableConv2D": "separable_conv",
    "SpatialPyramidPooling2D": "pyramid_pooling",
    "StochasticDepth": "stochastic_depth",
    "SumPooling2D": "window_pooling",
    "TableConv2D": "table_conv",
    "TrainableSubsampling": "subsampling",
    "WeightedSum": "weighted_sum",
    "Whiten": "whiten",
}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"striate.layers.{_MODULES[name]}"), name)
