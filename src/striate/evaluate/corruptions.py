"""What a classifier still knows of pictures that were spoilt: twelve ways, five severities each.

After Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations", 2019, arXiv:1903.12261. Ten ways are theirs, with the amounts of ImageNet-C for
pictures of 224 pixels and of CIFAR-10-C for those of 32; `rotate` and `translate` are ours. Their
weather (snow, frost, fog) and the slow ones (glass, elastic) are left out. Amounts that are lengths
in pixels grow with the picture, and are at least those for 32 pixels: a disk of less than a pixel
is no blur. x is a picture on 0 to 1, [H, W, C], and so is what comes out:

    gaussian_noise   x + N(0, a)
    shot_noise       Poisson(a x) / a
    impulse_noise    the share a of all numbers becomes 0 or 1
    defocus_blur     a disk of radius a, its edge softened by a Gaussian of spread b
    motion_blur      a trail exp(-i^2 / 2 b^2), i = 0 to 2 a pixels, at -45 to 45 degrees
    zoom_blur        the mean of the picture and its centre magnified by 1, 1 + b, ..., less than a
    brightness       a more of the value of HSV
    contrast         (x - mean) a + mean, of each channel
    pixelate         shrunk to a of its sides, and enlarged, both by boxes
    jpeg             JPEG of quality a
    rotate           a degrees to one side, borders mirrored
    translate        the share a of the shorter side in any direction, borders repeated

What is random depends on (seed, picture, way, severity) alone.
"""

import dataclasses
import io
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from striate import metrics
from striate.data.pipeline import THREADS
from striate.errors import UsageError, check_known
from striate.preprocess import Preprocess, Spec
from striate.runtime import Engine

SEVERITIES = 5
LARGE, SMALL = 224, 32  # pixels on a side that the two columns of amounts are meant for

Random = np.random.Generator


@dataclasses.dataclass(frozen=True)
class Corruption:
    """One way to spoil a picture: `function(x, amount, unit, random)`.

    large, small: the amount at each severity, for pictures of about `LARGE` and `SMALL` pixels.
    unit: the side of the picture over the one that the amount was meant for.
    """

    function: Callable[[np.ndarray, Any, float, Random], np.ndarray]
    large: tuple[Any, ...]
    small: tuple[Any, ...]


def corrupt(pixels: np.ndarray, name: str, severity: int, random: Random) -> np.ndarray:
    """A spoilt copy of a picture: uint8 [H, W, C], C of 1 or 3. severity: 1 to 5."""
    corruption = CORRUPTIONS[name]
    side = min(pixels.shape[:2])
    is_small = side < math.sqrt(LARGE * SMALL)
    amounts = corruption.small if is_small else corruption.large
    unit = max(1.0, side / SMALL) if is_small else side / LARGE
    spoilt = corruption.function(pixels / 255, amounts[severity - 1], unit, random)
    return np.rint(np.clip(spoilt, 0, 1) * 255).astype(np.uint8)


# === The ways ===


def gaussian_noise(x: np.ndarray, spread: float, unit: float, random: Random) -> np.ndarray:
    return x + random.normal(0, spread, x.shape)


def shot_noise(x: np.ndarray, photons: float, unit: float, random: Random) -> np.ndarray:
    return random.poisson(x * photons) / photons


def impulse_noise(x: np.ndarray, share: float, unit: float, random: Random) -> np.ndarray:
    hit = random.uniform(size=x.shape) < share
    return np.where(hit, random.integers(0, 2, x.shape), x)


def defocus_blur(
    x: np.ndarray, amount: tuple[float, float], unit: float, random: Random
) -> np.ndarray:
    radius, spread = amount[0] * unit, amount[1]
    taps = 1 if amount[0] <= 8 else 2  # of the softening, to each side
    reach = math.ceil(radius) + taps
    grid = np.arange(-reach, reach + 1)
    disk = (grid[:, None] ** 2 + grid**2 <= radius**2).astype(float)
    soft = np.exp(-(np.arange(-taps, taps + 1) ** 2) / (2 * spread**2))
    return _filtered(x, _filtered(disk[..., None], np.outer(soft, soft))[..., 0], "reflect")


def motion_blur(
    x: np.ndarray, amount: tuple[float, float], unit: float, random: Random
) -> np.ndarray:
    length, spread = 2 * round(amount[0] * unit), amount[1] * unit
    angle = math.radians(random.uniform(-45, 45))
    kernel = np.zeros((2 * length + 1, 2 * length + 1))
    for i in range(length + 1):
        row = length + round(i * math.sin(angle))
        kernel[row, length + round(i * math.cos(angle))] += math.exp(-(i**2) / (2 * spread**2))
    return _filtered(x, kernel, "edge")


def zoom_blur(
    x: np.ndarray, amount: tuple[float, float], unit: float, random: Random
) -> np.ndarray:
    end, step = amount
    zooms = np.arange(1, end, step)
    return (x + sum(_zoomed(x, zoom) for zoom in zooms)) / (len(zooms) + 1)


def brightness(x: np.ndarray, more: float, unit: float, random: Random) -> np.ndarray:
    value = x.max(axis=-1, keepdims=True)
    brighter = np.minimum(value + more, 1)
    colour = np.divide(x, value, out=np.ones_like(x), where=value > 0)  # black becomes grey
    return colour * brighter


def contrast(x: np.ndarray, share: float, unit: float, random: Random) -> np.ndarray:
    mean = x.mean(axis=(0, 1))
    return (x - mean) * share + mean


def pixelate(x: np.ndarray, share: float, unit: float, random: Random) -> np.ndarray:
    from PIL import Image

    height, width = x.shape[:2]
    small = (max(1, int(width * share)), max(1, int(height * share)))
    image = _image(x).resize(small, Image.Resampling.BOX)
    return _levels(image.resize((width, height), Image.Resampling.BOX), x.shape)


def jpeg(x: np.ndarray, quality: int, unit: float, random: Random) -> np.ndarray:
    from PIL import Image

    data = io.BytesIO()
    _image(x).save(data, "jpeg", quality=quality)
    return _levels(Image.open(data), x.shape)


def rotate(x: np.ndarray, degrees: float, unit: float, random: Random) -> np.ndarray:
    from scipy import ndimage

    angle = degrees * random.choice((-1, 1))
    return ndimage.rotate(x, angle, axes=(1, 0), reshape=False, order=1, mode="mirror")


def translate(x: np.ndarray, share: float, unit: float, random: Random) -> np.ndarray:
    height, width = x.shape[:2]
    angle, length = random.uniform(0, 2 * np.pi), share * min(height, width)
    down, right = round(length * math.sin(angle)), round(length * math.cos(angle))
    most = max(abs(down), abs(right))
    wide = np.pad(x, ((most, most), (most, most), (0, 0)), mode="edge")
    return wide[most - down : most - down + height, most - right : most - right + width]


CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": Corruption(
        gaussian_noise, (0.08, 0.12, 0.18, 0.26, 0.38), (0.04, 0.06, 0.08, 0.09, 0.1)
    ),
    "shot_noise": Corruption(shot_noise, (60, 25, 12, 5, 3), (500, 250, 100, 75, 50)),
    "impulse_noise": Corruption(
        impulse_noise, (0.03, 0.06, 0.09, 0.17, 0.27), (0.01, 0.02, 0.03, 0.05, 0.07)
    ),
    "defocus_blur": Corruption(
        defocus_blur,
        ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    ),
    "motion_blur": Corruption(
        motion_blur,
        ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
        ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    ),
    "zoom_blur": Corruption(
        zoom_blur,
        ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
        ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
    ),
    "brightness": Corruption(brightness, (0.1, 0.2, 0.3, 0.4, 0.5), (0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": Corruption(contrast, (0.4, 0.3, 0.2, 0.1, 0.05), (0.75, 0.5, 0.4, 0.3, 0.15)),
    "pixelate": Corruption(pixelate, (0.6, 0.5, 0.4, 0.3, 0.25), (0.95, 0.9, 0.85, 0.75, 0.65)),
    "jpeg": Corruption(jpeg, (25, 18, 15, 10, 7), (80, 65, 58, 50, 40)),
    "rotate": Corruption(rotate, (5, 10, 15, 20, 30), (5, 10, 15, 20, 30)),
    "translate": Corruption(
        translate, (0.04, 0.08, 0.12, 0.16, 0.2), (0.04, 0.08, 0.12, 0.16, 0.2)
    ),
}


def _filtered(x: np.ndarray, kernel: np.ndarray, border: Any = "constant") -> np.ndarray:
    """x [H, W, C] convolved with a kernel of odd sides, which is brought to the sum 1."""
    from scipy import signal

    down, right = kernel.shape[0] // 2, kernel.shape[1] // 2
    wide = np.pad(x, ((down, down), (right, right), (0, 0)), mode=border)
    return signal.fftconvolve(wide, (kernel / kernel.sum())[..., None], mode="valid", axes=(0, 1))


def _zoomed(x: np.ndarray, zoom: float) -> np.ndarray:
    """The centre of a picture, magnified to its size."""
    from PIL import Image

    height, width = x.shape[:2]
    left, top = (width - width / zoom) / 2, (height - height / zoom) / 2
    box = (left, top, width - left, height - top)
    planes = [
        Image.fromarray(plane.astype(np.float32)).resize(
            (width, height), Image.Resampling.BILINEAR, box
        )
        for plane in np.moveaxis(x, -1, 0)
    ]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


def _image(x: np.ndarray) -> Any:
    from PIL import Image

    levels = np.rint(x * 255).astype(np.uint8)
    return Image.fromarray(levels[..., 0] if x.shape[-1] == 1 else levels)


def _levels(image: Any, shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(image).reshape(shape) / 255


# === What they cost a classifier ===


@dataclasses.dataclass(frozen=True, eq=False)
class Robustness:
    """How often spoilt pictures were named rightly.

    names: of `CORRUPTIONS`; right: bool [pictures, names, severities]; seed: of what was random.
    """

    names: tuple[str, ...]
    right: np.ndarray = dataclasses.field(repr=False)
    seed: int

    @property
    def accuracy(self) -> np.ndarray:
        """float [names, severities]."""
        return self.right.mean(axis=0)

    @property
    def mean(self) -> float:
        """The mean corruption accuracy: over all ways and severities, each counting the same."""
        return float(self.right.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """Of `mean`, 95 %: the bootstrap over pictures."""
        return metrics.bootstrap(np.mean, self.right.mean(axis=(1, 2)))

    def to_dict(self) -> dict[str, Any]:
        """The numbers as JSON holds them."""
        accuracy = self.accuracy
        return {
            "mean": self.mean,
            "interval": list(self.interval),
            "by_severity": accuracy.mean(axis=0).tolist(),
            "seed": self.seed,
            "rows": [
                {"name": name, "mean": float(row.mean()), "accuracy": row.tolist()}
                for name, row in zip(self.names, accuracy, strict=True)
            ],
        }


def check_names(wanted: Iterable[str] | bool, spec: Spec) -> tuple[str, ...]:
    """The corruptions asked for; True stands for all.

    `UsageError` for one that is unknown, and for a net that takes no pictures.
    """
    if isinstance(wanted, str):
        wanted = (wanted,)
    if not isinstance(wanted, Iterable | bool | None):
        raise UsageError(f"expected corruptions as True or a list of names, got {wanted!r}")
    names = tuple(CORRUPTIONS if wanted is True else wanted or ())
    if names and not isinstance(spec, Preprocess):
        raise UsageError(f"expected a net of pictures to spoil them, got one of {spec.noun}s")
    check_known("corruptions", names, CORRUPTIONS)
    return names


def judge_batch(
    engine: Engine,
    images: np.ndarray,
    true: np.ndarray,
    indices: Sequence[int],
    names: Sequence[str],
    seed: int,
) -> np.ndarray:
    """Whether each spoilt picture of a batch is named rightly: bool [N, names, severities].

    images: uint8 [N, H, W, C]; true: int [N]; indices: of the pictures in their data set.
    """
    right = np.empty((len(images), len(names), SEVERITIES), bool)
    with ThreadPoolExecutor(THREADS) as pool:
        for at, name in enumerate(names):
            for severity in range(1, SEVERITIES + 1):

                def spoil(i: int, name: str = name, severity: int = severity) -> np.ndarray:
                    key = [seed, int(indices[i]), severity, *name.encode()]
                    return corrupt(images[i], name, severity, np.random.default_rng(key))

                spoilt = np.stack(list(pool.map(spoil, range(len(images)))))
                right[:, at, severity - 1] = engine.predict(spoilt).argmax(axis=1) == true
    return right
