"""The nearest picture that is taken for something else: min over r of c |r|^2 + J(x + r, target).

Szegedy, Zaremba, Sutskever, Bruna, Erhan, Goodfellow, Fergus, "Intriguing properties of neural
networks", 2013, arXiv:1312.6199; solved as there by L-BFGS within the range of the pixels.
"""

import functools
from collections.abc import Callable

import numpy as np

from striate.explain.descent import unheard
from striate.explain.fgsm import cross_entropy
from striate.explain.subject import Subject, as_array, value_and_gradient


def minimal(
    subject: Subject,
    pixels: np.ndarray,
    targets: np.ndarray,
    *,
    tries: int = 6,
    iterations: int = 30,
    on_progress: Callable[[int, int], None] = unheard,
) -> np.ndarray:
    """The picture nearest to each that the net takes for its target, float32 [N, H, W, C]: itself
    where the net does so already.

    tries: values of c that are tried, each halfway (in logarithms) between one that succeeded and
    one that failed; iterations: of L-BFGS for each. A picture for which none succeeded comes back
    unchanged. on_progress: called with (tries done, tries) of all the pictures.
    """
    found = []
    for i, (x, target) in enumerate(zip(pixels, targets, strict=True)):
        before, total = i * tries, len(pixels) * tries

        def advance(done: int, before: int = before, total: int = total) -> None:
            on_progress(before + done, total)

        found.append(_nearest(subject, x, target, tries, iterations, advance))
    return np.stack(found)


def _nearest(
    subject: Subject,
    x: np.ndarray,
    target: int,
    tries: int,
    iterations: int,
    on_progress: Callable[[int], None],
) -> np.ndarray:
    found, low, high = x, 1e-4, 1e4  # c: at `low` the target is all that counts, at `high` the norm
    if _answer(subject, x) == target:
        on_progress(tries)
        return x
    for attempt in range(tries):
        c = low if attempt == 0 else float(np.sqrt(low * high))
        candidate = _solve(subject, x, target, c, iterations)
        on_progress(attempt + 1)
        if _answer(subject, candidate) == target:
            found, low = candidate, c
        elif attempt == 0:
            return found
        else:
            high = c
    return found


def _answer(subject: Subject, x: np.ndarray) -> int:
    return int(as_array(subject.logits(x[None])).argmax())


def _solve(subject: Subject, x: np.ndarray, target: int, c: float, iterations: int) -> np.ndarray:
    """min over x' of c |x' - x|^2 / 255^2 + J(x', target), each pixel within 0 to 255."""
    from scipy.optimize import minimize

    loss = functools.partial(cross_entropy, subject, np.array([target]))

    def value_and_slope(flat: np.ndarray) -> tuple[float, np.ndarray]:
        moved = flat.reshape(x.shape).astype(np.float32)
        (value,), slope = value_and_gradient(loss, moved[None])
        far = (moved - x) / 255
        total = float(value) + c * float((far.astype(np.float64) ** 2).sum())
        return total, (slope[0] + 2 * c / 255 * far).ravel().astype(np.float64)

    best = minimize(
        value_and_slope,
        x.ravel().astype(np.float64),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0, 255)] * x.size,
        options={"maxiter": iterations},
    )
    return best.x.reshape(x.shape).astype(np.float32)
