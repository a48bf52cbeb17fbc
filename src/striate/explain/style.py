"""One picture's content in another's style: features of the one, their correlations of the other.

Gatys, Ecker, Bethge, "A Neural Algorithm of Artistic Style", 2015, arXiv:1508.06576; the losses as
in Johnson, Alahi, Fei-Fei, 2016, arXiv:1603.08155.
"""

from collections.abc import Callable, Sequence

import numpy as np

from striate.errors import UsageError
from striate.explain.descent import descend, total_variation, unheard
from striate.explain.inversion import feature_loss
from striate.explain.subject import Subject, Tensor, as_array
from striate.lazy import keras


def transfer_style(
    subject: Subject,
    pixels: np.ndarray,
    style: np.ndarray,
    *,
    content_layer: str | None = None,
    style_layers: str | Sequence[str] | None = None,
    style_weight: float = 10.0,
    smooth: float = 1e-5,
    steps: int = 200,
    rate: float = 4.0,
    on_progress: Callable[[int, int], None] = unheard,
) -> np.ndarray:
    """Pictures float32 [N, H, W, C] with the content of `pixels` in the style of one [1, H, W, C].

    style_layers: whose Gram matrices are matched, by default all stages of the spec's pyramid;
    content_layer: whose features are kept, by default the last but one of them; steps, rate and
    on_progress: as of `descend`.
    """
    chosen = style_layers or subject.spec.pyramid
    named = [chosen] if isinstance(chosen, str) else chosen
    stages = [subject.cam_layer(name) for name in named]  # layers that have maps
    if not stages:
        raise UsageError(f"{subject.spec.name} has no stages of maps to take a style from")
    content = content_layer or stages[max(0, len(stages) - 2)]
    kept = as_array(subject.at(content, pixels))
    grams = {name: as_array(gram(subject.at(name, style))) for name in stages}

    def loss(x: Tensor) -> Tensor:
        manner = sum(feature_loss(gram(subject.at(name, x)), grams[name]) for name in stages)
        total = feature_loss(subject.at(content, x), kept) + style_weight / len(stages) * manner
        return total + smooth * total_variation(x / 255 - 0.5)

    return descend(loss, pixels, steps=steps, rate=rate, on_progress=on_progress)


def gram(maps: Tensor) -> Tensor:
    """sum over places of f f^T / (h w C), float32 [N, C, C] of maps [N, h, w, C]."""
    h, w, channels = maps.shape[1:]
    flat = keras.ops.reshape(maps, (-1, h * w, channels))
    return keras.ops.matmul(keras.ops.transpose(flat, (0, 2, 1)), flat) / (h * w * channels)
