"""What a classifier's logits are worth, in NumPy: the same numbers on every backend."""

import math

import numpy as np


def softmax(logits: np.ndarray) -> np.ndarray:
    """float [N, classes] -> float32 probabilities, each row adding up to 1."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    exponents = np.exp(shifted)
    return (exponents / exponents.sum(axis=1, keepdims=True)).astype(np.float32)


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """The mean negative log-likelihood, in nats."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    log_total = np.log(np.exp(shifted).sum(axis=1))
    return float((log_total - shifted[np.arange(len(labels)), labels]).mean())


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """The share of rows whose largest entry is the label's."""
    return float((logits.argmax(axis=1) == labels).mean())


def wilson(successes: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval for a share, 95 % by default. Wilson 1927, JASA 22(158)."""
    if n == 0:
        return (0.0, 1.0)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (max(0.0, centre - half), min(1.0, centre + half))


def summary(logits: np.ndarray, labels: np.ndarray) -> dict[str, float | int | list[float]]:
    """n, top-1 accuracy with its 95 % interval, and the loss."""
    right = int((logits.argmax(axis=1) == labels).sum())
    low, high = wilson(right, len(labels))
    return {
        "n": len(labels),
        "accuracy": right / len(labels),
        "accuracy_interval": [round(low, 6), round(high, 6)],
        "loss": cross_entropy(logits, labels),
    }
