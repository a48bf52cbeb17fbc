"""A residual net as an ensemble of 2^n paths: take one block away and most of them remain.

Veit, Wilber, Belongie, "Residual Networks Behave Like Ensembles of Relatively Shallow Networks",
2016, arXiv:1605.06431.
"""

import dataclasses
import math
import re
from collections.abc import Callable

import numpy as np

from striate.errors import UsageError
from striate.explain.descent import unheard
from striate.explain.landscape import mean_loss
from striate.explain.subject import Subject, copy_of
from striate.lazy import keras

BLOCK = re.compile(r"stage\d+_block\d+")


def residual_blocks(subject: Subject) -> tuple[str, ...]:
    """The blocks of a net that add their residual to their shortcut, from the input on."""
    return tuple(
        layer.name.removesuffix("_add")
        for layer in subject.net.layers
        if isinstance(layer, keras.layers.Add)
        and BLOCK.fullmatch(layer.name.removesuffix("_add"))
        and len(layer.input) == 2
    )


def without_blocks(subject: Subject, *blocks: str) -> Subject:
    """The same net with the same weights, in which some blocks pass on their shortcut alone."""
    known = residual_blocks(subject)
    for block in blocks:
        if block not in known:
            raise UsageError(
                f"{subject.spec.name}: expected one of its {len(known)} residual blocks, "
                f"got {block!r}; they are {', '.join(known[:3])}, ..."
            )
    gone = {f"{block}_add" for block in blocks}

    def copy(layer):
        if layer.name in gone:
            return keras.layers.Lambda(_shortcut, name=layer.name)
        return layer.__class__.from_config(layer.get_config())

    return dataclasses.replace(subject, net=copy_of(subject.net, copy))


def deletions(
    subject: Subject,
    pixels: np.ndarray,
    labels: np.ndarray,
    *,
    batch_size: int = 64,
    on_progress: Callable[[int, int], None] = unheard,
) -> dict[str, float]:
    """The mean cross-entropy without each residual block in turn, the first block first.

    Raises `UsageError` for a net that has none. on_progress: called with (blocks done, blocks).
    """
    blocks = residual_blocks(subject)
    if not blocks:
        raise UsageError(f"{subject.spec.name} has no residual blocks to take away")
    found = {}
    for done, block in enumerate(blocks, start=1):
        found[block] = mean_loss(without_blocks(subject, block), pixels, labels, batch_size)
        on_progress(done, len(blocks))
    return found


def _shortcut(inputs):
    """Our blocks add [shortcut, residual], in this order."""
    return inputs[0]


def path_lengths(blocks: int) -> list[int]:
    """How many of the 2^n paths go through 0, 1, ..., n residuals."""
    return [math.comb(blocks, length) for length in range(blocks + 1)]
