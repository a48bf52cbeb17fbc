"""THE definition of image -> tensor. Training, evaluation, prediction and the server all call it.

It has two halves, and nothing else in striate does either of them:

* `pixels(source, spec)`: bytes, a file or an array -> uint8 [H, W, C] on the host, so that a
  picture becomes the same pixels, bit for bit, wherever it is answered;
* `Preprocess.layer()`: uint8 -> float32, the normalisation that lives inside every graph.

The other things that a net can take have the same two halves. Each kind is a file here and a class
with the halves as methods (`Spec`); everywhere else an example of any kind is called an image:

    picture   uint8 [H, W, C]      Preprocess
    clip      uint8 [T, H, W, C]   ClipPreprocess: a `Preprocess` for every frame, and which frames
    voxels    uint8 [D, H, W, C]   VoxelPreprocess
    vector    float32 [numbers]    VectorPreprocess: numbers have no natural range, so no bytes

They are separate classes and not one with a rank, because they share no field but mean and scale: a
picture is resampled, a clip is also thinned out, a grid is centred, a vector is taken as it is.
"""

from pathlib import Path
from typing import Any

import numpy as np

from striate.errors import UsageError, did_you_mean
from striate.preprocess.clip import ClipPreprocess
from striate.preprocess.picture import FORMATS as FORMATS
from striate.preprocess.picture import MAX_PIXELS as MAX_PIXELS
from striate.preprocess.picture import Preprocess, decode, preset, source_box
from striate.preprocess.spec import Spec
from striate.preprocess.vector import VectorPreprocess
from striate.preprocess.voxels import VoxelPreprocess

__all__ = [
    "KINDS",
    "ClipPreprocess",
    "Preprocess",
    "Spec",
    "VectorPreprocess",
    "VoxelPreprocess",
    "decode",
    "for_input",
    "from_dict",
    "pixels",
    "preset",
    "source_box",
]

KINDS: dict[str, type[Spec]] = {
    spec.kind: spec for spec in (Preprocess, ClipPreprocess, VoxelPreprocess, VectorPreprocess)
}


def pixels(source: Any, spec: Spec) -> np.ndarray:
    """What is in `source` as the tensor that the net of `spec` takes: of pictures, uint8 [H, W, C].

    `source`: encoded bytes, a path, or an array. Of pictures, decoded uint8 [h, w], [h, w, 1],
    [h, w, 3] (RGB) or [h, w, 4] (RGBA), and Pillow's images; of the other kinds, what their `read`
    says. An array of the tensor's own shape is that tensor already and comes back as it is, also
    where files of that size are cropped. Raises `DataError` for what cannot be read.
    """
    return spec.read(source)


def for_input(kind: str, shape: tuple[int, ...], normalise: str) -> Spec:
    """The specification of a net's input that is trained from scratch.

    kind: of `KINDS`; shape: of one example; normalise: a name of `preset`. A vector is not
    normalised yet: its numbers have to be measured first.
    """
    if kind == "vector":
        return VectorPreprocess(shape[0])
    *before, height, width, channels = shape
    named = preset(normalise, height, width, channels)
    if kind == "clip":
        return ClipPreprocess(before[0], named)
    if kind == "voxels":
        step = -1 if named.order == "bgr" else 1  # the channels of voxels are never reversed
        mean, scale = named.mean[::step], named.scale[::step]
        return VoxelPreprocess(before[0], height, width, channels, mean, scale)
    return named


def from_dict(values: dict[str, Any], folder: Path | None = None) -> Spec:
    """The inverse of `to_dict`, of any kind; pictures, which came first, do not name theirs.

    folder: of the artifact, where `Spec.write` left what `to_dict` has no room for.
    """
    values = dict(values)
    kind = values.pop("kind", "picture")
    if not isinstance(kind, str) or kind not in KINDS:
        raise UsageError(
            f"preprocess: expected a kind ({', '.join(KINDS)}), got {kind!r}."
            f"{did_you_mean(str(kind), KINDS)}"
        )
    return KINDS[kind].from_dict(values, folder)
