"""Vectors: numbers in the order of a table's columns."""

import dataclasses
import os
from typing import Any, ClassVar

import numpy as np

from striate.errors import DataError
from striate.preprocess.spec import Spec, stored, stored_array


@dataclasses.dataclass(frozen=True)
class VectorPreprocess(Spec):
    """How numbers become the tensor of one net.

    numbers: how many; mean, scale: of each, measured on the training data: x -> (x - mean) * scale.
    None are 0 and 1. The numbers themselves are the tensor, and the graph standardises them.
    """

    kind: ClassVar[str] = "vector"
    noun: ClassVar[str] = "row"
    dtype: ClassVar[str] = "float32"

    numbers: int
    mean: tuple[float, ...] | None = None
    scale: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        self._keep_whole("numbers")
        for name, plain in (("mean", 0.0), ("scale", 1.0)):
            if getattr(self, name) is None:
                object.__setattr__(self, name, (plain,) * self.numbers)
        self._keep_floats(self.numbers, "number")

    @property
    def shape(self) -> tuple[int]:
        """(numbers,) of the tensor."""
        return (self.numbers,)

    def read(self, source: bytes | str | os.PathLike | np.ndarray) -> np.ndarray:
        """float32 [numbers] of an array, of a `.npy` file, or of a text with the numbers in it."""
        if isinstance(source, np.ndarray):
            return self._checked("the vector", source)
        name, data = stored(source, "the vector")
        if data.startswith(b"\x93NUMPY"):
            return self._checked(name, stored_array(name, data))
        return self._checked(name, _numbers(name, data))

    def layer(self, name: str = "normalise") -> Any:
        """The Keras layer float32 [N, numbers] -> float32 of this specification."""
        from striate.layers.normalise import Normalise

        return Normalise(order="rgb", mean=self.mean, scale=self.scale, name=name)

    def _checked(self, name: str, values: np.ndarray) -> np.ndarray:
        if values.shape != self.shape or values.dtype.kind not in "fiub":
            raise DataError(
                f"{name}: expected {self.numbers} numbers, got {values.dtype} {list(values.shape)}"
            )
        numbers = values.astype(np.float32, copy=False)
        if not np.isfinite(numbers).all():
            where = int(np.flatnonzero(~np.isfinite(numbers))[0])
            raise DataError(f"{name}: expected finite numbers, got {values[where]} at {where}")
        return numbers


def _numbers(name: str, data: bytes) -> np.ndarray:
    """The numbers in a text, apart by commas, semicolons or white space."""
    try:
        words = data.decode("utf-8").replace(",", " ").replace(";", " ").split()
        return np.array([float(word) for word in words])
    except ValueError:  # which a text in another coding raises too
        raise DataError(f"{name}: expected numbers, got something else ({data[:16]!r})") from None
