"""Keras layers that Keras does not have; a module is imported when its layer is first asked for."""

import importlib
from typing import Any

_MODULES = {
    "ChannelShuffle": "channel_shuffle",
    "CircularConv2D": "circular_conv",
    "DiracConv2D": "dirac_conv",
    "DrawColumn": "drop_path",
    "FixedRBF": "rbf",
    "FractalJoin": "drop_path",
    "HardwiredChannels": "hardwired",
    "LearnedGroupConv": "learned_group_conv",
    "LocalResponseNormalization": "local_response_norm",
    "MapDense": "map_dense",
    "Normalise": "normalise",
    "PadChannels": "pad_channels",
    "ScaledTanh": "scaled_tanh",
    "SelectChannels": "select_channels",
    "ShakeShake": "shake_shake",
    "SliceChannels": "slice_channels",
    "StochasticDepth": "stochastic_depth",
    "TableConv2D": "table_conv",
    "TrainableSubsampling": "subsampling",
    "WeightedSum": "weighted_sum",
}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"striate.layers.{_MODULES[name]}"), name)
