"""Occlusion: how much the score falls when a grey window hides a part of the picture.

Zeiler, Fergus, "Visualizing and Understanding Convolutional Networks", 2013, arXiv:1311.2901.
"""

import itertools
from collections.abc import Callable, Iterator

import numpy as np

from striate.errors import UsageError
from striate.explain.descent import unheard
from striate.explain.subject import Subject, as_array


def occlusion(
    subject: Subject,
    pixels: np.ndarray,
    targets: np.ndarray,
    *,
    window: float = 0.2,
    stride: float = 0.1,
    grey: float = 127.5,
    batch_size: int = 32,
    on_progress: Callable[[int, int], None] = unheard,
) -> np.ndarray:
    """The mean fall of the logit over the windows that hide a pixel, float32 [N, H, W].

    window, stride: side and step of the window, as shares of the picture's sides; grey: its level.
    on_progress: called with (windows done, windows) of all the pictures.
    """
    if not (0 < window <= 1 and 0 < stride <= window):
        raise UsageError(
            "occlusion: expected a window up to 1 and a stride up to the window, which leaves no "
            f"pixel out, got {window} and {stride}"
        )
    height, width = pixels.shape[1:3]
    places = list(itertools.product(_spans(height, window, stride), _spans(width, window, stride)))
    falls = np.zeros(pixels.shape[:3], np.float32)
    covers = np.zeros(pixels.shape[1:3], np.float32)
    for rows, columns in places:
        covers[rows, columns] += 1
    for n, picture in enumerate(pixels):
        whole = as_array(subject.scores(picture[None], targets[n : n + 1]))[0]
        for i in range(0, len(places), batch_size):
            chunk = places[i : i + batch_size]
            hidden = np.repeat(picture[None], len(chunk), axis=0)
            for image, (rows, columns) in zip(hidden, chunk, strict=True):
                image[rows, columns] = grey
            scores = as_array(subject.scores(hidden, np.repeat(targets[n], len(chunk))))
            for score, (rows, columns) in zip(scores, chunk, strict=True):
                falls[n, rows, columns] += whole - score
            on_progress(n * len(places) + i + len(chunk), len(pixels) * len(places))
    return falls / covers


def _spans(side: int, window: float, stride: float) -> Iterator[slice]:
    """Windows along one axis; the last one ends at the border."""
    size, step = max(1, round(window * side)), max(1, round(stride * side))
    for start in range(0, side - size, step):
        yield slice(start, start + size)
    yield slice(side - size, side)
