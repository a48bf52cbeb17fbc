"""torchvision's files of weights: what its layouts have in common, and where they are published."""

from collections.abc import Callable, Mapping
from typing import Any

from striate.pretrained import Layout, Weights

URL = "https://download.pytorch.org/models/"


def layout(names: Callable[..., Mapping[str, str]], **facts: Any) -> Layout:
    """Its files for a family."""
    facts = {"preprocess": "torch", "channels_first": True, **facts}
    return Layout("torchvision", names=names, **facts)


def imagenet(file: str, layout: Layout) -> tuple[Weights]:
    """The published weights of one net; a file's name ends in the first digits of its sha256."""
    digits = file.removesuffix(".pth").rpartition("-")[2]
    weights = Weights(
        "imagenet",
        url=f"{URL}{file}",
        hash=f"sha256:{digits}",
        preprocess=layout.preprocess,
        options=layout.options,
        licence="BSD-3-Clause, the torchvision authors",
    )
    return (weights,)
