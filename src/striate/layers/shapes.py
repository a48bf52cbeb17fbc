"""What layers ask of the shapes that they are built for; each is one line where it is not so."""

from collections.abc import Sequence
from typing import Any

from striate.errors import UsageError, check_whole


def check_counts(**numbers: Any) -> None:
    """`UsageError` for a number of units, of pixels or of steps that is no whole one from 1 on."""
    for name, number in numbers.items():
        check_whole(name, number, 1)


def check_alike(shapes) -> None:
    """`UsageError` unless several maps are of one shape; pictures, and sides not known, aside."""
    if not shapes or not isinstance(shapes[0], Sequence):
        raise UsageError(f"expected a list of maps, got one of shape {tuple(shapes)}")
    sides = zip(*(shape[1:] for shape in shapes), strict=False)
    ranks = {len(shape) for shape in shapes}
    if len(ranks) > 1 or any(len(set(side) - {None}) > 1 for side in sides):
        got = " and ".join(str(tuple(shape)) for shape in shapes)
        raise UsageError(f"expected inputs of one shape, got {got}")


def check_window(input_shape, size: int, padding: str = "valid") -> None:
    """`UsageError` for a map [N, ..., h, w, c] that no window of this size fits in."""
    if padding not in ("valid", "same"):
        raise UsageError(f"expected padding valid or same, got {padding!r}")
    height, width = input_shape[-3:-1]
    if padding == "valid" and any(side is not None and side < size for side in (height, width)):
        raise UsageError(f"expected a map of at least {size} x {size}, got {height} x {width}")
