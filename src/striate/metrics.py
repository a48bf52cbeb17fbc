"""What a classifier's answers are worth, in plain numpy.

Everything here works on a few numbers a picture (its label, its prediction, two scores), so that
judging a million pictures needs megabytes. `ranks` takes those numbers out of a batch of scores.
"""

from collections.abc import Callable
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

BINS = 15  # of the calibration error, as in Guo et al. 2017


def ranks(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The place of the true class among the scores, 0 for the best: int64 [N].

    scores: float [N, classes]; labels: int [N]. Of equal scores the lower index comes first, which
    is the order of `argmax`.
    """
    rows = np.arange(len(labels))
    true = scores[rows, labels][:, None]
    before = np.arange(scores.shape[1]) < labels[:, None]
    return ((scores > true) | ((scores == true) & before)).sum(axis=1)


def top_k_accuracy(ranks: np.ndarray, k: int = 1) -> float:
    """The share of pictures whose true class is among the k best scores."""
    return float(np.mean(ranks < k))


def wilson(successes: ArrayLike, n: ArrayLike, confidence: float = 0.95) -> tuple[Any, Any]:
    """The score interval (low, high) of a proportion, or of an array of them; (0, 1) where n is 0.

    (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n). Wilson, "Probable Inference, the Law
    of Succession, and Statistical Inference", JASA 22, 1927. It stays within 0 and 1 and is honest
    for few pictures and for accuracies near 1, where the textbook interval is neither.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    successes, n = np.asarray(successes, float), np.asarray(n, float)
    p = np.divide(successes, n, out=np.full(np.shape(n), 0.5), where=n > 0)
    centre = p * n + z * z / 2
    spread = z * np.sqrt(p * (1 - p) * n + z * z / 4)
    low, high = (centre - spread) / (n + z * z), (centre + spread) / (n + z * z)
    low = np.where(successes > 0, low, 0.0)  # exactly, whatever the rounding says
    high = np.where(successes < n, high, 1.0)
    return (float(low), float(high)) if low.ndim == 0 else (low, high)


def share(right: np.ndarray) -> dict[str, Any]:
    """Of answers that are right or not, as a manifest keeps it: n, accuracy, its 95 % interval."""
    low, high = wilson(right.sum(), len(right))
    return {
        "n": len(right),
        "accuracy": float(right.mean()),
        "accuracy_interval": [round(low, 6), round(high, 6)],
    }


def bootstrap(
    statistic: Callable[..., float],
    *values: np.ndarray,
    resamples: int = 500,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """The percentile interval (low, high) of statistic(*values) over pictures drawn again.

    values: arrays [N, ...], resampled together. Efron, "Bootstrap Methods: Another Look at the
    Jackknife", Annals of Statistics 7, 1979.
    """
    rng = np.random.default_rng(seed)
    n = len(values[0])
    found = []
    for _ in range(resamples):
        drawn = rng.integers(0, n, n)
        found.append(statistic(*(value[drawn] for value in values)))
    tail = (1 - confidence) / 2
    low, high = np.quantile(found, [tail, 1 - tail])
    return float(low), float(high)


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """How often class i (row) was answered as class j (column): int64 [classes, classes]."""
    pairs = labels.astype(np.int64) * classes + predicted
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


class PerClass(NamedTuple):
    """One number a class, [classes]; NaN where it is not defined.

    precision: of the pictures answered so, the share that is so; recall: of the pictures that are
    so, the share answered so; f1: their harmonic mean; support: how many pictures are so;
    answered: how many were answered so; right: how many were both.
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray
    answered: np.ndarray
    right: np.ndarray


def per_class(confusion: np.ndarray) -> PerClass:
    """Precision, recall and F1 = 2 right / (support + answered) of every class."""
    right, support, answered = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    return PerClass(
        precision=_share(right, answered),
        recall=_share(right, support),
        f1=_share(2 * right, support + answered),
        support=support,
        answered=answered,
        right=right,
    )


def macro_f1(labels: np.ndarray, predicted: np.ndarray) -> float:
    """The mean F1 over the classes that have pictures, each counting the same."""
    classes = int(max(labels.max(), predicted.max())) + 1
    support = np.bincount(labels, minlength=classes)
    answered = np.bincount(predicted, minlength=classes)
    right = np.bincount(labels[labels == predicted], minlength=classes)
    return float(_share(2 * right, support + answered)[support > 0].mean())


class Reliability(NamedTuple):
    """A reliability diagram: bins of confidence, (edges[i], edges[i + 1]].

    edges: [bins + 1]; n: pictures in each bin; confidence, accuracy: their means there, NaN where
    a bin is empty.
    """

    edges: np.ndarray
    n: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


def reliability(confidences: np.ndarray, correct: np.ndarray, bins: int = BINS) -> Reliability:
    """How often the answers of each confidence were right.

    confidences: the largest score of each picture, 0 to 1; correct: bool [N]. Bins of equal width.
    """
    edges = np.linspace(0, 1, bins + 1)
    where = np.searchsorted(edges[1:-1], confidences, side="left")
    n = np.bincount(where, minlength=bins)
    return Reliability(
        edges=edges,
        n=n,
        confidence=_share(np.bincount(where, confidences, minlength=bins), n),
        accuracy=_share(np.bincount(where, correct, minlength=bins), n),
    )


def calibration_error(confidences: np.ndarray, correct: np.ndarray, bins: int = BINS) -> float:
    """The expected calibration error: sum over bins of n_b / N |accuracy_b - confidence_b|.

    Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", 2017,
    arXiv:1706.04599, equation 3. It is biased upwards where there are few pictures.
    """
    diagram = reliability(confidences, correct, bins)
    gaps = np.nan_to_num(np.abs(diagram.accuracy - diagram.confidence))
    return float((diagram.n * gaps).sum() / diagram.n.sum())


def negative_log_likelihood(true_scores: np.ndarray) -> float:
    """The mean of -log p(true class), in nats; a score of 0 counts as the least float32."""
    floor = np.finfo(np.float32).tiny
    return float(-np.log(np.maximum(true_scores.astype(np.float64), floor)).mean())


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
