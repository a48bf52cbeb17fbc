"""The linear probe: multinomial logistic regression on the features of a frozen body.

The problem is convex, so that it is solved rather than trained: no learning rate, no epochs, one
answer. Features are standardised first, and the standardisation is folded into the classifier.
"""

import numpy as np

MOST_STEPS = 500
TOLERANCE = 1e-5  # of the gradient's largest entry


def solve(
    features: np.ndarray,
    labels: np.ndarray,
    classes: int,
    *,
    l2: float,
    weights: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """(kernel float32 [d, classes], bias float32 [classes]) of the best linear classifier.

    features: float [N, d]; labels: int [N]. It minimises the mean cross-entropy plus
    l2 / 2 times the squared norm of the kernel on standardised features; the bias goes free.
    With scikit-learn's `LogisticRegression` after a `StandardScaler`, l2 = 1 / (C N).
    weights: float [classes], what a picture of each class counts, None for 1.
    """
    from scipy.optimize import minimize

    mean, spread = features.mean(axis=0), features.std(axis=0)
    spread = np.where(spread > 1e-6 * max(float(spread.max()), 1e-30), spread, 1.0)
    x = ((features - mean) / spread).astype(np.float32)
    truth = np.eye(classes, dtype=np.float32)[labels]
    counts = np.ones(len(x), np.float32) if weights is None else np.float32(weights)[labels]
    width = x.shape[1]

    def loss_and_gradient(point: np.ndarray) -> tuple[float, np.ndarray]:
        kernel, bias = point[:-classes].reshape(width, classes), point[-classes:]
        logits = (x @ kernel.astype(np.float32)).astype(np.float64) + bias
        logits -= logits.max(axis=1, keepdims=True)
        log_total = np.log(np.exp(logits).sum(axis=1, keepdims=True))
        surprise = -(truth * (logits - log_total)).sum(axis=1)
        loss = (counts * surprise).sum() / len(x) + l2 / 2 * (kernel**2).sum()
        error = np.exp(logits - log_total) - truth
        error = (counts[:, None] * error / len(x)).astype(np.float32)
        slope = (x.T @ error).astype(np.float64) + l2 * kernel
        return float(loss), np.concatenate([slope.ravel(), error.sum(axis=0, dtype=np.float64)])

    best = minimize(
        loss_and_gradient,
        np.zeros((width + 1) * classes),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": MOST_STEPS, "gtol": TOLERANCE},
    ).x
    kernel = best[:-classes].reshape(width, classes) / spread[:, None]
    bias = best[-classes:] - mean @ kernel
    return kernel.astype(np.float32), bias.astype(np.float32)
