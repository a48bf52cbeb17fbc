"""How pytorchcv names the layers of its nets, which is much the same in all of them.

Its stages and units are our stages and blocks: what is `features.stage1.unit2` there is
`stage1_block2` here. A family says what is inside a unit and what stands outside the stages.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from striate.pretrained import Layout


def conv_bn(parts: Mapping[str, str]) -> dict[str, str]:
    """Parts that are a convolution and a batch normalisation each, as their two layers."""
    return {
        f"{ours}_{kind}": f"{theirs}.{kind}"
        for ours, theirs in parts.items()
        for kind in ("conv", "bn")
    }


def units(depths: Iterable[int], layers: Mapping[str, str]) -> dict[str, str]:
    """Our layers -> its modules in all units, from those of one; depths: units of each stage."""
    return {
        f"stage{i}_block{j}_{ours}": f"features.stage{i}.unit{j}.{theirs}"
        for i, depth in enumerate(depths, start=1)
        for j in range(1, depth + 1)
        for ours, theirs in layers.items()
    }


def layout(
    names: Callable[..., Mapping[str, str | tuple[str, ...]]],
    *,
    preprocess: str = "torch",
    **facts: Any,
) -> Layout:
    """Its files for a family; `preprocess="cifar"` is what its nets for CIFAR were trained with."""
    return Layout("pytorchcv", names=names, preprocess=preprocess, channels_first=True, **facts)
