"""The options of methods and views: which there are, and what they can be."""

import inspect
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

import numpy as np

from striate.errors import UsageError, did_you_mean

# annotation -> what it is called, and what its values are instances of
KINDS: dict[Any, tuple[str, Any]] = {
    int: ("a whole number", Integral),
    float: ("a number", Real),
    bool: ("true or false", bool),
    str: ("a name", str),
    Sequence: ("a list", Sequence),
    os.PathLike: ("a file", os.PathLike),
    np.ndarray: ("an array", np.ndarray),
    NoneType: ("None", NoneType),
}
# Options that count something, of which there must be one; other numbers may be 0.
COUNTS = {"batch_size", "iterations", "most", "points", "samples", "steps", "tries"}
LEVELS = {"baseline", "grey"}  # of pixels


def check_options(name: str, options: Mapping[str, Any], *functions: Callable) -> None:
    """Raise `UsageError` for an option of a method that none of its functions has, or whose value
    is of another kind than the option's or too small."""
    known = {p.name: p.annotation for function in functions for p in _options(function)}
    for option, value in options.items():
        if option not in known:
            raise UsageError(
                f"{name} has no option {option!r}.{did_you_mean(option, known)} "
                f"Its options: {', '.join(known) or 'none'}."
            )
        kinds = _kinds(known[option])
        if not any(_is_a(value, kind) for kind in kinds):
            expected = " or ".join(KINDS[kind][0] for kind in kinds)
            raise UsageError(f"{name}: expected {option} as {expected}, got {value!r}")
        least = 1 if option in COUNTS else 0
        if isinstance(value, Real) and not least <= value < math.inf:
            raise UsageError(f"{name}: expected {option} from {least} on, got {value}")
        if option in LEVELS and value > 255:
            raise UsageError(f"{name}: expected {option} from 0 to 255, got {value}")


def _options(function: Callable) -> Iterator[inspect.Parameter]:
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.name != "on_progress":
            yield parameter


def _kinds(annotation: Any) -> list[Any]:
    either = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    return [get_origin(kind) or kind for kind in either]


def _is_a(value: Any, kind: Any) -> bool:
    if isinstance(value, bool):  # which Python takes for a number
        return kind is bool
    return isinstance(value, KINDS[kind][1])
