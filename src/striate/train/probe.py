"""The linear probe: multinomial logistic regression on the features of a frozen body.

The problem is convex, so that it is solved rather than trained: no learning rate, no epochs, one
answer. Features are standardised first, and the standardisation is folded into the classifier.
"""

from collections import deque
from collections.abc import Callable

import numpy as np

MOST_STEPS = 500
MEMORY = 10  # pairs of differences that L-BFGS keeps
TOLERANCE = 1e-5  # of the gradient's largest entry


def solve(
    features: np.ndarray, labels: np.ndarray, classes: int, *, l2: float
) -> tuple[np.ndarray, np.ndarray]:
    """(kernel float32 [d, classes], bias float32 [classes]) of the best linear classifier.

    features: float [N, d]; labels: int [N]. It minimises the mean cross-entropy plus
    l2 / 2 times the squared norm of the kernel on standardised features; the bias goes free.
    With scikit-learn's `LogisticRegression` after a `StandardScaler`, l2 = 1 / (C N).
    """
    mean, spread = features.mean(axis=0), features.std(axis=0)
    spread = np.where(spread > 1e-6 * max(float(spread.max()), 1e-30), spread, 1.0)
    x = ((features - mean) / spread).astype(np.float32)
    truth = np.eye(classes, dtype=np.float32)[labels]
    width = x.shape[1]

    def loss_and_gradient(point: np.ndarray) -> tuple[float, np.ndarray]:
        kernel, bias = point[:-classes].reshape(width, classes), point[-classes:]
        logits = (x @ kernel.astype(np.float32)).astype(np.float64) + bias
        logits -= logits.max(axis=1, keepdims=True)
        log_total = np.log(np.exp(logits).sum(axis=1, keepdims=True))
        loss = -(truth * (logits - log_total)).sum() / len(x) + l2 / 2 * (kernel**2).sum()
        error = ((np.exp(logits - log_total) - truth) / len(x)).astype(np.float32)
        slope = (x.T @ error).astype(np.float64) + l2 * kernel
        return float(loss), np.concatenate([slope.ravel(), error.sum(axis=0, dtype=np.float64)])

    best = minimise(loss_and_gradient, np.zeros((width + 1) * classes))
    kernel = best[:-classes].reshape(width, classes) / spread[:, None]
    bias = best[-classes:] - mean @ kernel
    return kernel.astype(np.float32), bias.astype(np.float32)


def minimise(
    loss_and_gradient: Callable[[np.ndarray], tuple[float, np.ndarray]], start: np.ndarray
) -> np.ndarray:
    """The minimum of a smooth convex function by L-BFGS with backtracking.

    Nocedal and Wright, "Numerical Optimization", 2006, algorithms 7.4 and 3.1.
    """
    point = start
    loss, gradient = loss_and_gradient(point)
    pairs: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=MEMORY)
    for _ in range(MOST_STEPS):
        if np.abs(gradient).max() < TOLERANCE:
            break
        direction = -_times_inverse_hessian(gradient, pairs)
        slope = float(direction @ gradient)
        size = 1.0 if pairs else min(1.0, 1.0 / float(np.abs(gradient).sum()))
        while True:
            moved = point + size * direction
            new_loss, new_gradient = loss_and_gradient(moved)
            if new_loss <= loss + 1e-4 * size * slope:
                break
            size /= 2
            if size < 1e-10:  # float precision allows no further descent
                return point
        step, change = moved - point, new_gradient - gradient
        if step @ change > 1e-12:
            pairs.append((step, change))
        point, loss, gradient = moved, new_loss, new_gradient
    return point


def _times_inverse_hessian(vector: np.ndarray, pairs: deque) -> np.ndarray:
    """The two loops of L-BFGS."""
    result = vector.copy()
    weights = []
    for step, change in reversed(pairs):
        weight = (step @ result) / (step @ change)
        result -= weight * change
        weights.append(weight)
    if pairs:
        step, change = pairs[-1]
        result *= (step @ change) / (change @ change)
    for (step, change), weight in zip(pairs, reversed(weights), strict=True):
        result += (weight - (change @ result) / (step @ change)) * step
    return result
