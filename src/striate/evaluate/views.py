"""Test-time augmentation: several views of one picture, and the mean of their scores.

    mirror      the picture and its mirror image
    crops       its four corners and its centre
    ten_crops   those and their mirror images

Krizhevsky, Sutskever, Hinton 2012 (AlexNet), section 4.1: five patches of 224 pixels out of 256,
mirrored, the ten predictions averaged. Crops are cut out of the whole picture where its
preprocessing takes only the centre, else out of one that is 8/7 as large, as 256 is to 224.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from striate.errors import UsageError, did_you_mean
from striate.preprocess import Preprocess, Spec
from striate.runtime import Engine

VIEWS = ("mirror", "crops", "ten_crops")
SHARE = 224 / 256


def check_views(name: str, spec: Spec) -> None:
    """`UsageError` for views that do not exist, or of what is no picture."""
    if name not in VIEWS:
        raise UsageError(
            f"expected test-time augmentation out of {', '.join(VIEWS)}, got {name!r}."
            f"{did_you_mean(name, VIEWS)}"
        )
    if not isinstance(spec, Preprocess):
        raise UsageError(f"expected a net of pictures for views of them, got one of {spec.noun}s")


def spec_of_views(name: str, spec: Preprocess) -> Preprocess:
    """What makes the pixels that the views are cut out of."""
    if name == "mirror":
        return spec
    share = spec.crop if spec.crop < 1 else SHARE
    height, width = (round(side / share) for side in (spec.height, spec.width))
    return dataclasses.replace(spec, height=height, width=width, crop=1.0, whitening=None)


class Viewing:
    """An engine that answers by the mean over views of a picture.

    engine: of the net; images: uint8 [N, H, W, C] by `spec_of_views`.
    """

    def __init__(self, engine: Engine, name: str, spec: Preprocess) -> None:
        self.engine, self.views, self.spec = engine, name, spec
        self.name, self.kernel = engine.name, engine.kernel

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Scores, float32 [N, classes]."""
        scores = [self.engine.predict(view) for view in self._views(images)]
        return np.mean(scores, axis=0, dtype=np.float64).astype(np.float32)

    def _views(self, images: np.ndarray) -> Iterator[np.ndarray]:
        for view in [images] if self.views == "mirror" else self._crops(images):
            yield view
            if self.views != "crops":
                yield np.ascontiguousarray(view[:, :, ::-1])

    def _crops(self, images: np.ndarray) -> Iterator[np.ndarray]:
        height, width = self.spec.height, self.spec.width
        down, right = images.shape[1] - height, images.shape[2] - width
        corners = [(0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)]
        for top, left in corners:
            yield np.ascontiguousarray(images[:, top : top + height, left : left + width])
