"""Clips: a few frames of a moving picture, each of which becomes pixels as a picture does."""

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np

from striate.errors import DataError, UsageError
from striate.preprocess.picture import SUFFIXES, Preprocess, frames_of
from striate.preprocess.spec import Spec, shown

Sample = Literal["spread", "middle"]


@dataclasses.dataclass(frozen=True)
class ClipPreprocess(Spec):
    """How a clip becomes the tensor of one net.

    frames: that the net takes. frame: how each becomes pixels. sample: which are taken of a longer
    clip, `spread` evenly over the whole of it, or as many neighbours from its `middle`; of a
    shorter one, all, some of them twice.
    """

    kind: ClassVar[str] = "clip"
    noun: ClassVar[str] = "clip"

    frames: int
    frame: Preprocess
    sample: Sample = "spread"

    def __post_init__(self) -> None:
        self._keep_whole("frames")
        self._expect(isinstance(self.frame, Preprocess), "a Preprocess as frame", "frame")
        self._expect(self.sample in ("spread", "middle"), "sample spread or middle", "sample")

    @classmethod
    def from_dict(cls, values: dict[str, Any], folder: Path | None = None) -> Self:
        frame = values.get("frame")
        if not isinstance(frame, dict):
            raise UsageError(f"preprocess: expected what a clip's frame is, got {frame!r}")
        return super().from_dict({**values, "frame": Preprocess.from_dict(frame, folder)})

    def to_dict(self) -> dict[str, Any]:
        """The specification as JSON holds it."""
        return {
            "kind": self.kind,
            "frames": self.frames,
            "frame": self.frame.to_dict(),
            "sample": self.sample,
        }

    def write(self, folder: Path) -> None:
        """Write what `to_dict` leaves out."""
        self.frame.write(folder)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(frames, height, width, channels) of the tensor."""
        return (self.frames, *self.frame.shape)

    def read(self, source: bytes | str | os.PathLike | np.ndarray) -> np.ndarray:
        """uint8 [frames, height, width, channels] of a clip.

        `source`: a folder of frames, taken by their names (2 before 10); a GIF, WebP or TIFF of
        several frames, or its bytes; or an array of frames, uint8 [t, h, w] or [t, h, w, c].
        """
        if isinstance(source, np.ndarray):
            if source.dtype == np.uint8 and source.shape == self.shape:
                return source
            return self._stacked([source[i] for i in self._chosen("the clip", _count(source))])
        if isinstance(source, bytes) or not Path(source).is_dir():
            name = "the clip" if isinstance(source, bytes) else shown(source)
            frames = frames_of(source, lambda n: self._chosen(name, n))
            return np.stack([self.frame.fitted(frame) for frame in frames])
        paths = frame_files(Path(source))
        return self._stacked([paths[i] for i in self._chosen(shown(source), len(paths))])

    def layer(self, name: str = "normalise") -> Any:
        """The Keras layer uint8 [N, T, H, W, C] -> float32 of this specification."""
        return self.frame.layer(name)

    def _stacked(self, frames: Sequence[Any]) -> np.ndarray:
        return np.stack([self.frame.read(frame) for frame in frames])

    def _chosen(self, name: str, count: int) -> list[int]:
        """Which of a clip's frames are taken."""
        if count < min(2, self.frames):
            raise DataError(f"{name}: expected a clip of several frames, got {count}")
        if self.sample == "middle" and count >= self.frames:
            start = (count - self.frames) // 2
            return list(range(start, start + self.frames))
        return np.rint(np.linspace(0, count - 1, self.frames)).astype(int).tolist()


def frame_files(folder: Path) -> list[Path]:
    """The pictures in a folder, as frames: numbers in their names count by value."""
    files = (path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    return sorted((path for path in files if not path.name.startswith(".")), key=_natural)


def _natural(path: Path) -> list[tuple[int, str]]:
    parts = re.findall(r"\d+|\D+", path.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _count(frames: np.ndarray) -> int:
    if frames.dtype != np.uint8 or frames.ndim not in (3, 4):
        raise DataError(
            "expected a clip, uint8 [t, h, w] or [t, h, w, channels], "
            f"got {frames.dtype} {list(frames.shape)}"
        )
    return len(frames)
