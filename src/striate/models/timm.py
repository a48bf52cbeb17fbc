"""timm's files of weights: what its layouts have in common, and where some are published."""

from collections.abc import Callable, Mapping
from typing import Any

from striate.pretrained import Layout, Weights, published

URL = "https://github.com/rwightman/pytorch-image-models/releases/download/"


def layout(names: Callable[..., Mapping[str, str | tuple[str, ...]]], **facts: Any) -> Layout:
    """Its files for a family."""
    facts = {"preprocess": "torch", "channels_first": True, **facts}
    return Layout("timm", names=names, **facts)


def imagenet(file: str, layout: Layout) -> tuple[Weights]:
    """The published weights of one net."""
    return (published(f"{URL}{file}", layout, licence="Apache-2.0, as timm publishes them"),)


MOBILE = {"stem_conv": "conv_stem", "stem_bn": "bn1", "logits": "classifier"}
MOBILE_TOP = {"top_conv": "conv_head", "top_bn": "bn2"}


def mobile_block(ours: str, theirs: str, *parts: str) -> dict[str, str]:
    """Our layers of a mobile net's block -> its modules.

    parts: how we call its two or three convolutions, in the order in which they run.
    """
    convs = ("conv_pw", "conv_dw", "conv_pwl") if len(parts) == 3 else ("conv_dw", "conv_pw")
    names = {f"{ours}_se_squeeze": f"{theirs}.se.conv_reduce"}
    names[f"{ours}_se_excite"] = f"{theirs}.se.conv_expand"
    for n, (part, conv) in enumerate(zip(parts, convs, strict=True), start=1):
        names[f"{ours}_{part}_conv"] = f"{theirs}.{conv}"
        names[f"{ours}_{part}_bn"] = f"{theirs}.bn{n}"
    return names
