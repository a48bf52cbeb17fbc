"""What a classifier's logits are worth, in NumPy: the same numbers on every backend."""

import numpy as np

from striate.metrics import wilson


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


def summary(logits: np.ndarray, labels: np.ndarray) -> dict[str, float | int | list[float]]:
    """n, top-1 accuracy with its 95 % interval, and the loss."""
    right = int((logits.argmax(axis=1) == labels).sum())
    low, high = wilson(right, len(labels))
    return {
        "n": len(labels),
        "accuracy": right / len(labels),
        "accuracy_interval": [round(float(low), 6), round(float(high), 6)],
        "loss": cross_entropy(logits, labels),
    }
