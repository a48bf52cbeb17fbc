"""What a reader hands over, and what a user is told."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

Source = Path | bytes | np.ndarray  # of one picture: a file, what is in such a file, its levels
Images = Sequence[Path | bytes] | np.ndarray


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something that a user should know before training; none of it stops anything.

    kind: unreadable, ignored, empty_class, small_class, imbalance, dark, duplicate or leak.
    message: one line; names: the pictures or classes that it is about.
    """

    kind: str
    message: str
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.message

    @property
    def leaves_out(self) -> bool:
        """Whether there are pictures that nothing learns from because of it."""
        return self.kind in ("unreadable", "ignored")


@dataclasses.dataclass(frozen=True, eq=False)
class Records:
    """What a reader of one format found, before striate looks at it.

    names: unique name of each picture; images: paths or what is in such files, or uint8
    [N, h, w, c]; labels: the name of each one's class; digests: SHA-256 of each one's content (32
    bytes); splits: the split that the source itself puts each picture in, or None; classes: class
    names in the source's own order, or None to take them from the labels; kind: what an image is,
    of `striate.preprocess.KINDS`: clips are paths or uint8 [N, t, h, w, c], voxels uint8
    [N, d, h, w, c], vectors float32 [N, n].
    """

    names: Sequence[str]
    images: Images
    labels: Sequence[str]
    digests: Sequence[bytes]
    splits: Sequence[str] | None = None
    classes: Sequence[str] | None = None
    problems: Sequence[Problem] = ()
    kind: str = "picture"
