"""What the specifications of all kinds of input have in common."""

import dataclasses
import errno
import io
import math
import os
import reprlib
import stat
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from striate.errors import DataError, UsageError, did_you_mean, is_whole


@dataclasses.dataclass(frozen=True)
class Spec(ABC):
    """How an example becomes the tensor of one net: plain data that travels with the weights.

    kind: picture, clip, voxels or vector; noun: what one is called; dtype: of the tensor.
    """

    kind: ClassVar[str]
    noun: ClassVar[str]
    dtype: ClassVar[str] = "uint8"

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Of the tensor of one example."""

    @abstractmethod
    def read(self, source: bytes | str | os.PathLike | np.ndarray) -> np.ndarray:
        """The tensor of what is in `source`; `DataError` for what cannot be read."""

    @abstractmethod
    def layer(self, name: str = "normalise") -> Any:
        """The Keras layer tensor [N, ...] -> float32 [N, ...] of this specification."""

    def check(self, examples: Any) -> None:
        """`UsageError` for what is no array of examples as the net takes them, `dtype`
        [N, *shape]."""
        if not isinstance(examples, np.ndarray):
            raise UsageError(f"expected {self._array}, got {type(examples).__name__}")
        fits = examples.dtype == self.dtype and examples.shape[1:] == self.shape
        if not fits or not len(examples):
            raise UsageError(
                f"expected {self._array}, got {examples.dtype} {list(examples.shape)}; "
                "striate.preprocess.pixels makes one example out of a file or an array"
            )

    @property
    def _array(self) -> str:
        """The array of examples, in words."""
        return f"{self.noun}s as {self.dtype} [N, {', '.join(map(str, self.shape))}]"

    def to_dict(self) -> dict[str, Any]:
        """The specification as JSON holds it."""
        return {"kind": self.kind, **dataclasses.asdict(self)}

    def write(self, folder: Path) -> None:  # noqa: B027, most have no more than `to_dict` tells
        """Write what does not fit into `to_dict` into an artifact's folder."""

    @classmethod
    def from_dict(cls, values: dict[str, Any], folder: Path | None = None) -> Self:
        """The inverse of `to_dict` and `write`.

        An unknown key is a `UsageError` that offers the nearest, and so is a missing one, or a
        value of another type.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for key in values:
            if key not in known:
                raise UsageError(f"preprocess has no key {key!r}.{did_you_mean(key, known)}")
        try:
            return cls(**values)
        except (TypeError, ValueError) as error:
            what = f"expected {', '.join(known)} as {cls.__name__} has them"
            raise UsageError(f"preprocess: {what}, got {values} ({error})") from None

    def _keep_whole(self, *names: str) -> None:
        """Hold fields as int, whatever numpy made of them; each of at least 1."""
        for name in names:
            value = getattr(self, name)
            self._expect(is_whole(value, 1), f"{name} as a whole number of at least 1", name)
            object.__setattr__(self, name, int(value))

    def _keep_floats(self, count: int, each: str) -> None:
        """Hold mean and scale as floats, whatever JSON or numpy made of them; one for each."""
        for name in ("mean", "scale"):
            wanted = f"{count} numbers as {name}, one a {each}"
            try:
                values = tuple(float(value) for value in getattr(self, name))
            except (TypeError, ValueError):
                values = ()
            self._expect(len(values) == count and all(map(math.isfinite, values)), wanted, name)
            object.__setattr__(self, name, values)

    def _expect(self, condition: bool, wanted: str, *names: str) -> None:
        """`UsageError` that tells the values of the fields of these names."""
        if not condition:
            got = ", ".join(f"{name} {reprlib.repr(getattr(self, name))}" for name in names)
            raise UsageError(f"preprocess: expected {wanted}, got {got}")


def stored(source: bytes | str | os.PathLike, what: str) -> tuple[str, bytes]:
    """(a name for messages, the content) of encoded bytes or of a file."""
    if isinstance(source, bytes):
        return what, source
    try:
        return shown(source), content(Path(source))
    except TypeError:
        came = type(source).__name__
        raise DataError(f"{what}: expected a path, bytes or a numpy array, got {came}") from None
    except OSError as error:
        raise DataError(f"{shown(source)}: cannot be read ({error.strerror or error})") from None


def content(path: Path) -> bytes:
    """What is in a file.

    `OSError` for a pipe or a device, which might be read for ever, but for those that a shell hands
    over under /dev: `<(...)` and standard input.
    """
    mode = path.stat().st_mode
    endless = stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISBLK(mode)
    if endless and not path.is_relative_to("/dev"):
        raise OSError(errno.EINVAL, "a pipe or a device, not a file")
    return path.read_bytes()


def shown(path: str | os.PathLike) -> str:
    """A path as text that can be stored and sent; bytes that are no UTF-8 become \\xNN.

    Names out of old archives are often in another coding, which Python hands on as surrogates.
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def stored_array(name: str, data: bytes) -> np.ndarray:
    """The array in the bytes of a `.npy` file."""
    if not data.startswith(np.lib.format.MAGIC_PREFIX):  # np.load takes it for a pickle or a zip
        raise DataError(
            f"{name}: expected an array in a .npy file, got something else "
            f"(it begins with {data[:8]!r})"
        )
    try:
        return np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"{name}: expected an array in a .npy file, got {error}") from None
