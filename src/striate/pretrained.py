"""Weights that were trained elsewhere: where they are published, and how their files are read."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """How another project's files name and store the weights of a family."""

    name: str
    names: Callable[..., Mapping[str, str]]
    preprocess: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    epsilon: float | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Weights:
    """Published weights of one net."""

    name: str
    url: str


def read(source: Any, name: str, config: Any, published: Any, layouts: Any) -> Any:
    """Not yet."""
    from striate.errors import UsageError

    raise UsageError(f"{name}: weights={source!r} cannot be read yet; build with weights=None")
