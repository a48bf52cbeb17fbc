"""Pictures: bytes, a file or an array -> uint8 [H, W, C] at a net's size."""

import dataclasses
import io
import math
import os
import warnings
from collections.abc import Callable, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np

from striate.errors import DataError, UsageError, did_you_mean, is_whole
from striate.preprocess.spec import Spec, stored
from striate.preprocess.whitening import Whitening

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff")
)
MAX_PIXELS = 100_000_000  # a picture that decodes to more than 300 MB is taken for an attack
MAX_SIDE = 65_535  # and so is one too long for a JPEG: all of it is brought to the net's width

Fit = Literal["crop", "stretch", "pad"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Order = Literal["rgb", "bgr"]


@dataclasses.dataclass(frozen=True)
class Preprocess(Spec):
    """How a picture becomes the tensor of one net: plain data that travels with the weights.

    height, width, channels: the net's input; 3 channels are colour, 1 is grey.
    fit: `crop` takes the largest centred box of the input's shape, `stretch` the whole picture and
        warps it, `pad` the whole picture, in its shape, and fills what is left of the input.
    crop: the share of that box, along each side, that is kept; 0 < crop <= 1 (1 for `pad`).
    interpolation: the resampling filter, widened when it shrinks (antialiased), as Pillow does it.
    background: the grey level, 0 to 255, behind transparent pixels and in padding.
    order: the channel order that the net was trained with; pixels are always RGB.
    mean, scale: per channel in the net's order, on 0 to 255: x -> (x - mean) * scale.
    whitening: what follows, of every number of the picture; None for nothing.
    """

    kind: ClassVar[str] = "picture"
    noun: ClassVar[str] = "picture"

    height: int
    width: int
    channels: int = 3
    fit: Fit = "crop"
    crop: float = 1.0
    interpolation: Interpolation = "bilinear"
    background: int = 255
    order: Order = "rgb"
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    scale: tuple[float, ...] = (1 / 255, 1 / 255, 1 / 255)
    whitening: Whitening | None = None

    def __post_init__(self) -> None:
        self._keep_whole("height", "width", "channels")
        self._expect(self.channels in (1, 3), "channels 1 (grey) or 3 (colour)", "channels")
        self._keep_floats(self.channels, "channel")
        self._expect(self.fit in ("crop", "stretch", "pad"), "fit crop, stretch or pad", "fit")
        share = isinstance(self.crop, Real) and 0 < self.crop <= 1
        self._expect(share, "0 < crop <= 1", "crop")
        self._expect(self.fit != "pad" or self.crop == 1, "crop 1 where fit is pad", "crop")
        filters = tuple(_FILTERS)  # a mapping would raise for what has no hash
        known = self.interpolation in filters
        self._expect(known, f"interpolation {', '.join(filters)}", "interpolation")
        level = is_whole(self.background) and self.background <= 255
        self._expect(level, "background from 0 to 255, a whole number", "background")
        self._expect(self.order in ("rgb", "bgr"), "order rgb or bgr", "order")
        numbers = math.prod(self.shape)
        self._expect(
            self.whitening is None or self.whitening.numbers == numbers,
            f"whitening of {numbers} numbers, measured at this very size",
            "height",
            "width",
            "channels",
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the tensor."""
        return (self.height, self.width, self.channels)

    def to_dict(self) -> dict[str, Any]:
        """The specification as JSON holds it; the arrays of `whitening` stay outside."""
        values = dataclasses.asdict(dataclasses.replace(self, whitening=None))
        del values["whitening"]
        return {**values, "whitening": self.whitening.to_dict()} if self.whitening else values

    @classmethod
    def from_dict(cls, values: dict[str, Any], folder: Path | None = None) -> Self:
        found = values.get("whitening")
        if found is None:
            return super().from_dict(values)
        return super().from_dict({**values, "whitening": Whitening.from_dict(found, folder)})

    def write(self, folder: Path) -> None:
        """Write what `to_dict` leaves out."""
        if self.whitening:
            self.whitening.write(folder)

    def read(self, source: Any) -> np.ndarray:
        """The uint8 [H, W, C] tensor of a picture; see `striate.preprocess.pixels`."""
        if not isinstance(source, np.ndarray):
            return self.fitted(_open(source))
        if source.ndim == 2 and self.channels == 1:
            source = source[..., np.newaxis]
        if source.dtype == np.uint8 and source.shape == self.shape:
            return source
        return self.fitted(_from_array(source))

    def fitted(self, image) -> np.ndarray:
        """The uint8 [H, W, C] tensor of an open Pillow image."""
        image = _rgb(image, self.background)
        if self.channels == 1:
            image = image.convert("L")
        return np.asarray(_fit(image, self)).reshape(self.shape)

    def layer(self, name: str = "normalise"):
        """The Keras layer uint8 [N, H, W, C] -> float32 of this specification."""
        plain: dict[str, Any] = {
            "order": self.order,
            "mean": self.mean,
            "scale": self.scale,
            "name": name,
        }
        if self.whitening is None:
            from striate.layers.normalise import Normalise

            return Normalise(**plain)
        from striate.layers.whiten import Whiten

        mean, matrix = self.whitening.arrays
        return Whiten(centre=mean.reshape(self.shape), matrix=matrix, **plain)


_FILTERS = {"nearest": 0, "bilinear": 2, "bicubic": 3, "lanczos": 1}  # Pillow's Resampling values

# What published weights were trained with, by keras.applications' names for it; `cifar` is what
# pytorchcv, among many, gives nets for CIFAR, `dpn` what the authors of dual path networks did, and
# `raw` nothing, for nets that normalise in themselves.
_PRESETS: dict[str, dict[str, Any]] = {
    "caffe": {"order": "bgr", "mean": (103.939, 116.779, 123.68), "scale": (1.0, 1.0, 1.0)},
    "cifar": {
        "mean": (125.307, 122.961, 113.8575),
        "scale": (1 / 51.5865, 1 / 50.847, 1 / 51.255),
    },
    "dpn": {"mean": (124.0, 117.0, 104.0), "scale": (0.0167,) * 3},
    "raw": {"mean": (0.0,) * 3, "scale": (1.0,) * 3},
    "tf": {"mean": (127.5,) * 3, "scale": (1 / 127.5,) * 3},
    "torch": {"mean": (123.675, 116.28, 103.53), "scale": (1 / 58.395, 1 / 57.12, 1 / 57.375)},
    "unit": {"mean": (0.0,) * 3, "scale": (1 / 255,) * 3},
}


def preset(name: str, height: int, width: int, channels: int = 3, **changes: Any) -> Preprocess:
    """A `Preprocess` by the name of its convention: `caffe`, `cifar`, `dpn`, `raw` (0 to 255),
    `tf` (-1 to 1), `torch` or `unit` (0 to 1).

    A grey net takes the convention's average over the three channels.
    """
    if name not in _PRESETS:
        raise UsageError(
            f"expected a preprocessing preset ({', '.join(_PRESETS)}), got {name!r}."
            f"{did_you_mean(name, _PRESETS)}"
        )
    values = dict(_PRESETS[name])
    if channels == 1:
        values["mean"] = (float(np.mean(values["mean"])),)
        values["scale"] = (float(np.mean(values["scale"])),)
        values["order"] = "rgb"
    return Preprocess(height=height, width=width, channels=channels, **{**values, **changes})


def decode(source: bytes | str | os.PathLike, *, background: int = 255) -> np.ndarray:
    """The picture in `source` (a file's bytes or its path) as uint8 RGB [height, width, 3].

    Upright by its EXIF orientation; palette, grey, CMYK and 16-bit pictures become 8-bit RGB;
    transparent pixels show `background`; of an animation, the first frame. Raises `DataError`,
    naming the file, for what is not a picture, is cut off, or has more than `MAX_PIXELS` pixels or
    a side of more than `MAX_SIDE`.
    """
    return np.asarray(_rgb(_open(source), background))


def frames_of(
    source: bytes | str | os.PathLike, choose: Callable[[int], Sequence[int]]
) -> list[Any]:
    """Some frames of an animation, as Pillow images: those that `choose(how many)` names."""

    def chosen(image):
        frames = []
        for i in choose(getattr(image, "n_frames", 1)):
            image.seek(i)
            frames.append(image.copy())
        return frames

    return _decoded(source, chosen)


def _open(source: Any):
    """A loaded, upright Pillow image, of one that may not be loaded yet or of encoded bytes."""
    from PIL import Image

    if not isinstance(source, Image.Image):
        return _decoded(source, _whole)
    _check_levels(source, "the picture")
    try:
        return _whole(source)
    except Exception as error:  # a file is decoded only now
        raise DataError(f"the picture: expected a whole one, got a damaged one ({error})") from None


def _whole(image):
    """A Pillow image, loaded and upright; as it stands where its EXIF data are damaged."""
    from PIL.ExifTags import Base

    image.load()
    try:
        orientation = image.getexif().get(Base.Orientation)
    except Exception:  # its parser raises whatever the bytes make it raise
        return image
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


_TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # EXIF's orientation -> Pillow's Transpose


def _decoded(source: bytes | str | os.PathLike, load: Callable[[Any], Any]) -> Any:
    """What `load` makes of a Pillow image; every way in which that can fail becomes one line."""
    from PIL import Image

    name, data = stored(source, "the picture")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own bomb warning: the limit below is firm
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            if image.width * image.height > MAX_PIXELS or max(image.size) > MAX_SIDE:
                raise DataError(
                    f"{name}: {image.width} x {image.height} pixels, expected at most "
                    f"{MAX_PIXELS:,} and sides of at most {MAX_SIDE:,}; shrink the picture first"
                )
            _check_levels(image, name)
            return load(image)
    except DataError:
        raise
    except Image.DecompressionBombError:
        raise DataError(f"{name}: expected at most {MAX_PIXELS:,} pixels, got far more") from None
    except Exception as error:  # Pillow's decoders raise whatever the broken file makes them raise
        raise DataError(f"{name}: {_what_is_wrong(data, error)}") from None


def _check_levels(image, name: str) -> None:
    """`DataError` for whole numbers of 32 bits or with a sign, which have no white of their own."""
    if image.mode == "I":
        raise DataError(
            f"{name}: expected levels of 8 bits, of 16 without a sign, or floats, got whole "
            "numbers of 32 bits or with a sign; bring them to 0 to 255 first"
        )


def _what_is_wrong(data: bytes, error: Exception) -> str:
    expected = f"expected a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} picture"
    if not data:
        return f"{expected}, got an empty file"
    if type(error).__name__ == "UnidentifiedImageError":
        return f"{expected}, got something else (it begins with {data[:8]!r})"
    return f"{expected}, got a damaged one ({error})"


def _rgb(image, background: int):
    """Any Pillow mode as 8-bit RGB."""
    from PIL import Image

    see_through = "A" in image.mode or "transparency" in image.info
    if image.mode == "RGB" and not see_through:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if see_through:
        image = image.convert("RGBA")
        behind = Image.new("RGBA", image.size, (background, background, background, 255))
        return Image.alpha_composite(behind, image).convert("RGB")
    return image.convert("RGB")


def _eight_bits(levels: np.ndarray) -> np.ndarray:
    """The high byte of levels of 16 bits, as libpng keeps it, so in colour and in TensorFlow's
    graph too; floats from 0 to 1, or to 255 where any is above 1, as 8 bits."""
    if levels.dtype.kind == "u":
        return (levels >> 8).astype(np.uint8)
    levels = np.nan_to_num(levels, posinf=0.0, neginf=0.0)  # what was not measured is black
    span = 255.0 if levels.max(initial=0) <= 1 else 1.0
    return np.clip(levels * span + 0.5, 0, 255).astype(np.uint8)


def _from_array(array: np.ndarray):
    from PIL import Image

    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    right_rank = array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (3, 4))
    if array.dtype != np.uint8 or not right_rank or not array.size:
        raise DataError(
            "expected a uint8 picture [h, w], [h, w, 1], [h, w, 3] or [h, w, 4], "
            f"got {array.dtype} {list(array.shape)}"
        )
    return Image.fromarray(np.ascontiguousarray(array))


def source_box(width: int, height: int, spec: Preprocess) -> tuple[float, float, float, float]:
    """The box (left, top, right, bottom) of a width x height picture that fills the tensor."""
    if spec.fit == "crop":
        shrink = spec.crop * min(width / spec.width, height / spec.height)
        box_width, box_height = spec.width * shrink, spec.height * shrink
    else:
        box_width, box_height = width * spec.crop, height * spec.crop
    left, top = (width - box_width) / 2, (height - box_height) / 2
    return (
        max(left, 0.0),
        max(top, 0.0),
        min(left + box_width, width),
        min(top + box_height, height),
    )


def _fit(image, spec: Preprocess):
    if spec.fit == "pad":
        return _letterbox(image, spec)
    box = source_box(image.width, image.height, spec)
    return _resample(image, spec.width, spec.height, box, spec)


def _letterbox(image, spec: Preprocess):
    from PIL import Image

    factor = min(spec.width / image.width, spec.height / image.height)
    width = min(spec.width, max(1, round(image.width * factor)))
    height = min(spec.height, max(1, round(image.height * factor)))
    inner = _resample(image, width, height, (0, 0, image.width, image.height), spec)
    fill = spec.background if image.mode == "L" else (spec.background,) * 3
    canvas = Image.new(image.mode, (spec.width, spec.height), fill)
    canvas.paste(inner, ((spec.width - width) // 2, (spec.height - height) // 2))
    return canvas


def _resample(image, width: int, height: int, box, spec: Preprocess):
    """Resize a box of an image in two steps, across and then down, each rounded to 8 bits.

    One step would leave the order of the two passes, and so the last bit of many pixels, to the
    release of Pillow that happens to be installed.
    """
    left, top, right, bottom = box
    resampling = _FILTERS[spec.interpolation]
    across = image.resize((width, image.height), resampling, box=(left, 0, right, image.height))
    return across.resize((width, height), resampling, box=(0, top, width, bottom))
