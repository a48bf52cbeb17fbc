"""Can a map be believed? Three tests that it may fail.

Take away what it marks, and the score must fall; show only that, and it must rise (deletion and
insertion: Petsiuk, Das, Saenko, "RISE", 2018, arXiv:1806.07421). Fill the holes with what their
surroundings suggest, so that no outline gives them away (ROAD: Rong, Leemann, Borisov, Kasneci,
Kasneci, 2022, arXiv:2202.00449). Give the net random weights, and the map must change: one that
does not was never about the net (Adebayo et al., "Sanity Checks for Saliency Maps", 2018,
arXiv:1810.03292).
"""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from striate.explain.subject import Subject, as_array, copy_of
from striate.lazy import keras

STEPS = 11  # from no pixel to all of them
# ROAD: a missing pixel is this mean of its eight neighbours (section 4 of the paper).
NEIGHBOURS = {
    **dict.fromkeys([(-1, 0), (1, 0), (0, -1), (0, 1)], 1 / 6),
    **dict.fromkeys([(-1, -1), (-1, 1), (1, -1), (1, 1)], 1 / 12),
}


def deletion(subject: Subject, picture: np.ndarray, heat: np.ndarray, target: int) -> np.ndarray:
    """The target's probability while pixels go grey, the highest of the map first: float32 [11].

    picture: [H, W, C] on 0 to 255; heat: [H, W]. The lower the mean of the curve, the better.
    """
    grey = np.full_like(picture, 127.5, dtype=np.float32)
    steps = [np.where(gone[..., None], grey, picture) for gone in _growing(heat)]
    return _probabilities(subject, steps, target)


def insertion(subject: Subject, picture: np.ndarray, heat: np.ndarray, target: int) -> np.ndarray:
    """The target's probability while a blurred picture gets its pixels back, the highest first.

    float32 [11]; the higher the mean of the curve, the better.
    """
    from scipy.ndimage import gaussian_filter

    width = 0.05 * max(heat.shape)
    blurred = gaussian_filter(picture.astype(np.float32), (width, width, 0))
    steps = [np.where(back[..., None], picture, blurred) for back in _growing(heat)]
    return _probabilities(subject, steps, target)


def road(
    subject: Subject, picture: np.ndarray, heat: np.ndarray, target: int, *, seed: int = 0
) -> np.ndarray:
    """The target's probability while pixels become what lies around them, the highest first.

    float32 [10], up to 90 % of the pixels; the lower the mean of the curve, the better.
    """
    steps = [filled(picture, gone, seed=seed) for gone in list(_growing(heat))[:-1]]
    return _probabilities(subject, steps, target)


def filled(picture: np.ndarray, gone: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """A picture [H, W, C] whose pixels at `gone` [H, W] are the weighted means of their neighbours,
    missing ones too (a linear system), and a little noise: float32."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.linalg import spsolve

    found = picture.astype(np.float32)
    if not gone.any():
        return found
    number = np.full(gone.shape, -1)
    number[gone] = np.arange(gone.sum())
    here, known = np.argwhere(gone), np.zeros((int(gone.sum()), picture.shape[-1]))
    weights = np.zeros(len(here))
    entries: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for step, weight in NEIGHBOURS.items():
        there = here + step
        inside = ((there >= 0) & (there < gone.shape)).all(axis=1)
        rows, (y, x) = np.flatnonzero(inside), there[inside].T
        weights[rows] += weight
        missing = gone[y, x]
        known[rows[~missing]] += weight * found[y[~missing], x[~missing]]
        entries.append((rows[missing], number[y[missing], x[missing]], -weight))
    rows = np.concatenate([np.arange(len(here)), *(r for r, _, _ in entries)])
    columns = np.concatenate([np.arange(len(here)), *(c for _, c, _ in entries)])
    values = np.concatenate([weights, *(np.full(len(r), w) for r, _, w in entries)])
    system = csr_matrix((values, (rows, columns)))
    solved = spsolve(system, known).reshape(known.shape)
    noise = np.random.default_rng(seed).normal(0, 0.01 * 255, known.shape)
    found[gone] = np.clip(solved + noise, 0, 255)
    return found


def _growing(heat: np.ndarray) -> Iterator[np.ndarray]:
    """bool [H, W], eleven of them: from no place to all, the highest first."""
    rank = np.empty(heat.size, np.int64)
    rank[np.argsort(-heat, axis=None, kind="stable")] = np.arange(heat.size)
    for share in np.linspace(0, 1, STEPS):
        yield (rank < round(share * heat.size)).reshape(heat.shape)


def _probabilities(subject: Subject, pictures: list[np.ndarray], target: int) -> np.ndarray:
    logits = subject.logits(np.stack(pictures).astype(np.float32))
    return as_array(keras.ops.softmax(logits))[:, target]


# === Random weights ===


@dataclasses.dataclass(frozen=True)
class Sanity:
    """How alike maps of a trained net and of a randomised one are.

    layer: the last layer, from the classifier down, that has random weights; similarity: the rank
    correlation of the absolute maps, 1 for the same.
    """

    layer: str
    similarity: float


def randomisation(
    method: Callable[..., np.ndarray],
    subject: Subject,
    pixels: np.ndarray,
    targets: np.ndarray,
    *,
    stops: int = 5,
    seed: int = 0,
) -> list[Sanity]:
    """Randomise a copy of the net from the classifier down, and compare the maps on the way.

    method: of `METHODS`; stops: how many maps are compared, evenly spaced, the last one with every
    weight random. Weights are shuffled among themselves, so that each layer keeps its scale.
    """
    random = np.random.default_rng(seed)
    trained = np.abs(method(subject, pixels, targets))
    net = copy_of(subject.net)
    copy = dataclasses.replace(subject, net=net)
    layers = [layer for layer in net.layers if any(len(w.shape) > 1 for w in layer.weights)][::-1]
    halts = set(np.linspace(0, len(layers) - 1, stops).round().astype(int).tolist())
    found = []
    for i, layer in enumerate(layers):
        shuffled = [random.permutation(w.ravel()).reshape(w.shape) for w in layer.get_weights()]
        layer.set_weights(shuffled)
        if i in halts:
            other = np.abs(method(copy, pixels, targets))
            pairs = zip(trained, other, strict=True)
            found.append(Sanity(layer.name, float(np.mean([_alike(a, b) for a, b in pairs]))))
    return found


def _alike(a: np.ndarray, b: np.ndarray) -> float:
    """The rank correlation of two maps; 0 where one of them says nothing at all."""
    from scipy.stats import spearmanr

    return float(spearmanr(a, b, axis=None).statistic) if np.ptp(a) and np.ptp(b) else 0.0
