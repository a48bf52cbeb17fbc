"""What a classifier's logits are worth, in NumPy: the same numbers on every backend."""

import numpy as np

from striate.metrics import share


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


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """What logits are divided by so that scores can be believed: the least mean -log p(true).

    It changes no answer, only how sure the net is of it. Guo, Pleiss, Sun, Weinberger, "On
    Calibration of Modern Neural Networks", 2017, arXiv:1706.04599. One answer more is taken to be
    wrong than was seen (as by Platt, 1999): a net that names n pictures without a mistake has not
    shown that it makes none. Between 1/20 and 20.
    """
    from scipy.optimize import minimize_scalar

    n, classes = logits.shape
    doubt = 1 / (n + 2)
    truth = np.full(logits.shape, doubt / max(1, classes - 1))
    truth[np.arange(n), labels] = 1 - doubt

    def loss(log_temperature: float) -> float:
        cooled = logits.astype(np.float64) / np.exp(log_temperature)
        log_total = np.logaddexp.reduce(cooled, axis=1, keepdims=True)
        return float((truth * (log_total - cooled)).sum() / n)

    found = minimize_scalar(loss, bounds=(-np.log(20), np.log(20)), method="bounded")
    return float(np.exp(found.x))


def summary(logits: np.ndarray, labels: np.ndarray) -> dict[str, float | int | list[float]]:
    """n, top-1 accuracy with its 95 % interval, and the loss."""
    return {**share(logits.argmax(axis=1) == labels), "loss": cross_entropy(logits, labels)}
