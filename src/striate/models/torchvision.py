"""torchvision's files of weights: what its layouts have in common, and where they are published."""

from collections.abc import Callable, Mapping
from typing import Any

from striate.pretrained import Layout, Weights, published

URL = "https://download.pytorch.org/models/"


def layout(names: Callable[..., Mapping[str, str]], **facts: Any) -> Layout:
    """Its files for a family."""
    facts = {"preprocess": "torch", "channels_first": True, **facts}
    return Layout("torchvision", names=names, **facts)


def imagenet(file: str, layout: Layout) -> tuple[Weights]:
    """The published weights of one net."""
    return (published(f"{URL}{file}", layout, licence="BSD-3-Clause, the torchvision authors"),)
