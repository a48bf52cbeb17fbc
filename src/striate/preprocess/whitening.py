"""What is measured of every number of the training pictures, and taken out again: whitening.

The pictures' numbers, on 0 to 1, stand in rows x of length D = height * width * channels.

    mean_image   x - mean                        Krizhevsky, Sutskever, Hinton 2012 (AlexNet)
    pca          x_rot / sqrt(S + 1e-5)          with x_rot = (x - mean) U
    zca          x_rot / sqrt(S + 1e-5) U^T      Bell and Sejnowski 1997; it still looks like x

U holds the eigenvectors of the covariance of x and S its eigenvalues, the largest first. The 1e-5
keeps directions in which pictures hardly differ, and which are mostly noise, from being blown up;
every direction has the variance S / (S + 1e-5) afterwards.
"""

import dataclasses
import functools
import hashlib
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np

from striate.errors import ArtifactError, UsageError

Method = Literal["mean_image", "pca", "zca"]
METHODS: tuple[str, ...] = get_args(Method)
EPSILON = 1e-5
FILE = "assets.extra/whitening.npz"
MOST = 4096  # numbers of a picture that pca and zca take: a matrix of 64 MiB, in every graph


@dataclasses.dataclass(frozen=True)
class Whitening:
    """Measured arrays, which travel beside the specification: in `FILE` of an artifact.

    method: of the table above; numbers: of a picture; sha256: of the file.
    data: the file's bytes, or path: where they are, to be read when they are needed.
    """

    method: Method
    numbers: int
    sha256: str
    data: bytes | None = dataclasses.field(default=None, repr=False, compare=False)
    path: Path | None = dataclasses.field(default=None, repr=False, compare=False)

    @classmethod
    def measured(cls, method: Method, batches: Iterable[np.ndarray], numbers: int) -> Self:
        """Of pictures: batches uint8 [B, H, W, C], or of clips [B, T, H, W, C]."""
        check_size(method, numbers)
        rows = (x.reshape(-1, numbers) / 255 for x in batches)
        if method == "mean_image":
            return cls.of(method, mean_of(rows))
        mean, covariance = moments(rows, numbers)
        return cls.of(method, mean, whitening_matrix(method, covariance))

    @classmethod
    def of(cls, method: Method, mean: np.ndarray, matrix: np.ndarray | None = None) -> Self:
        """mean: [D]; matrix: [D, D], or None."""
        arrays = {"mean": mean.astype(np.float32)}
        if matrix is not None:
            arrays["matrix"] = matrix.astype(np.float32)
        file = io.BytesIO()
        np.savez(file, **arrays)  # type: ignore[arg-type]
        data = file.getvalue()
        return cls(method, len(mean), hashlib.sha256(data).hexdigest(), data)

    @classmethod
    def from_dict(cls, values: dict[str, Any], folder: Path | None) -> Self:
        """The inverse of `to_dict`; folder: the artifact's."""
        if folder is None:
            raise UsageError(f"preprocess: expected an artifact, which holds {FILE}, got values")
        try:
            return cls(
                values["method"], values["numbers"], values["sha256"], path=folder / values["file"]
            )
        except KeyError as error:
            raise UsageError(f"preprocess.whitening: expected a key {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """What JSON holds of it: all but the arrays."""
        return {
            "method": self.method,
            "numbers": self.numbers,
            "file": FILE,
            "sha256": self.sha256,
        }

    @functools.cached_property
    def arrays(self) -> tuple[np.ndarray, np.ndarray | None]:
        """(mean float32 [D], matrix float32 [D, D] or None); a row of numbers is multiplied by it.

        Raises `ArtifactError` for a file that is missing or another one.
        """
        with np.load(io.BytesIO(self._read())) as stored:
            return stored["mean"], stored.get("matrix")

    def write(self, folder: Path) -> None:
        """Write the arrays where an artifact has them."""
        (folder / FILE).parent.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_bytes(self._read())

    def _read(self) -> bytes:
        if self.data is not None:
            return self.data
        try:
            data = (self.path or Path(FILE)).read_bytes()
        except OSError as error:
            raise ArtifactError(f"{self.path}: cannot be read ({error.strerror})") from None
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise ArtifactError(
                f"{self.path}: its contents changed since it was written (SHA-256 differs); "
                "copy or export it again"
            )
        return data


def check_size(method: str, numbers: int) -> None:
    """`UsageError` for pictures that are too large for a matrix."""
    if method != "mean_image" and numbers > MOST:
        raise UsageError(
            f"preprocess.normalise={method}: expected pictures of at most {MOST:,} numbers "
            f"(36 x 36 in colour, 64 x 64 in grey), got {numbers:,}; its matrix has the square of "
            "that; set a smaller model.size, or take mean_image"
        )


def mean_of(batches: Iterable[np.ndarray]) -> np.ndarray:
    """float64 [D] of rows in batches [B, D]."""
    n, total = 0, np.zeros(1)
    for rows in batches:
        n, total = n + len(rows), total + rows.sum(axis=0, dtype=np.float64)
    return total / n


def moments(batches: Iterable[np.ndarray], numbers: int) -> tuple[np.ndarray, np.ndarray]:
    """(mean float64 [D], covariance float64 [D, D]) of rows in batches [B, D].

    Taken about the first batch's mean, so that little is lost where a mean is large.
    """
    n, total, products = 0, np.zeros(numbers), np.zeros((numbers, numbers))
    about = np.zeros(numbers)
    for batch in batches:
        rows = batch.astype(np.float64)
        if n == 0:
            about = rows.mean(axis=0)
        rows -= about
        n, total = n + len(rows), total + rows.sum(axis=0)
        products += rows.T @ rows
    off = total / n
    return off + about, products / n - np.outer(off, off)


def whitening_matrix(method: str, covariance: np.ndarray) -> np.ndarray:
    """W float64 [D, D], so that (x - mean) W is white up to `EPSILON`; method: pca or zca.

    Of an eigenvector and its negative, both of which serve, the one whose largest number is above
    zero, so that a measurement gives the same W anywhere.
    """
    variances, directions = np.linalg.eigh(covariance)
    variances, directions = np.maximum(variances[::-1], 0), directions[:, ::-1]
    largest = np.abs(directions).argmax(axis=0)
    directions = directions * np.sign(directions[largest, np.arange(len(largest))])
    rotated = directions / np.sqrt(variances + EPSILON)
    return rotated @ directions.T if method == "zca" else rotated
