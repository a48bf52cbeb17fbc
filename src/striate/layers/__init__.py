"""Keras layers that Keras does not have; a module is imported when its layer is first asked for."""

import importlib
from typing import Any

_MODULES = {
    "ChannelShuffle": "channel_shuffle",
    "FixedRBF": "rbf",
    "LocalResponseNormalization": "local_response_norm",
    "Normalise": "normalise",
    "PadChannels": "pad_channels",
    "ScaledTanh": "scaled_tanh",
    "SliceChannels": "slice_channels",
    "TableConv2D": "table_conv",
    "TrainableSubsampling": "subsampling",
}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"striate.layers.{_MODULES[name]}"), name)
