"""The filters of the first convolution as pictures: smooth where training went well."""

import numpy as np

from striate.errors import UsageError
from striate.explain.subject import Subject
from striate.lazy import keras


def filters(subject: Subject, *, layer: str | None = None) -> np.ndarray:
    """The kernels of a convolution as pictures, float32 [filters, h, w, 3 or 1] from 0 to 1.

    layer: by default the spec's first convolution. Kernels on three channels are shown in colour,
    in RGB order whatever the net's; of others the mean over the input's channels. Each is stretched
    to its own range, around grey for 0. Raises `UsageError` for a layer that is no convolution.
    """
    name = layer or subject.spec.first_conv
    if not name:
        raise UsageError(f"{subject.spec.name} has no convolution whose filters could be drawn")
    kernel = np.asarray(getattr(subject.layer(name), "kernel", 0), np.float32)
    if kernel.ndim != 4:
        raise UsageError(f"{subject.spec.name}: the layer {name!r} has no kernels [h, w, in, out]")
    if isinstance(subject.layer(name), keras.layers.DepthwiseConv2D):
        kernel = kernel.reshape(*kernel.shape[:2], 1, -1)  # each filter sees one channel
    pictures = np.moveaxis(kernel, -1, 0)
    if name == subject.spec.first_conv and pictures.shape[-1] == 3:
        pictures = pictures[..., ::-1] if subject.preprocess.order == "bgr" else pictures
    else:
        pictures = pictures.mean(axis=-1, keepdims=True)
    reach = np.abs(pictures).max(axis=(1, 2, 3), keepdims=True)
    return 0.5 + pictures / np.where(reach > 0, reach, 1) / 2


def grid(pictures: np.ndarray, *, gap: int = 1) -> np.ndarray:
    """Pictures float32 [N, h, w, C] from 0 to 1, side by side: uint8 [H, W, C], white between."""
    n, height, width, channels = pictures.shape
    columns = int(np.ceil(np.sqrt(n * height / width)))
    rows = -(-n // columns)
    sheet = np.ones((rows * (height + gap) - gap, columns * (width + gap) - gap, channels))
    for i, picture in enumerate(pictures):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        sheet[top : top + height, left : left + width] = picture
    return np.rint(255 * np.clip(sheet, 0, 1)).astype(np.uint8)
