"""Whether what is asked and answered looks like what the net was judged on.

An artifact carries a baseline (`artifact.drift_baseline`): how often each class is the best one,
how sure the net is, how bright and contrasted its pictures are. The last `RECENT` pictures that a
version answered are compared with it:

- the distance of the classes, half of the sum over |p - q| (total variation): 0 the same, 1 apart;
  and what it would be by chance alone, since few pictures of many classes never look the same;
- by how many of the baseline's standard deviations the mean of each other number is off.
"""

import math
import threading
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from striate.serve.repository.servable import Servable
from striate.serve.signatures import Tensors

RECENT = 1000  # pictures that are compared
LEVELS = 2048  # of a picture that its brightness and contrast are taken from, spread over it

NUMBERS = ("confidence", "brightness", "contrast")


class Drift:
    """What the versions with a baseline saw lately, from any thread; forgotten with the version."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: WeakKeyDictionary[Servable, Seen] = WeakKeyDictionary()

    def observe(self, servable: Servable, feeds: Tensors, found: Tensors) -> None:
        """Take note of pictures and their scores; nothing where there is no baseline."""
        baseline = servable.artifact and servable.artifact.manifest.drift_baseline
        if not baseline or "image" not in feeds or "scores" not in found:
            return
        measured = measure(feeds["image"], found["scores"])
        with self._lock:
            if servable not in self._seen:
                self._seen[servable] = Seen(baseline)
            self._seen[servable].add(measured)

    def report(self, servable: Servable) -> dict[str, Any] | None:
        """How far the pictures of a version are from its baseline; None before the first one."""
        with self._lock:
            seen = self._seen.get(servable)
            return None if seen is None else seen.report()


def measure(images: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """[4, N]: best class, confidence, brightness and contrast of every picture.

    Ten microseconds for one: of a large picture only `LEVELS` levels are looked at.
    """
    levels = images.reshape(len(images), -1)
    step = max(1, levels.shape[1] // LEVELS)
    while math.gcd(step, math.prod(images.shape[2:])) > 1:
        step += 1  # else all would be of some columns, or of one colour
    levels = levels[:, ::step].astype(np.float64)
    mean = levels.mean(axis=1)
    square = np.einsum("ij,ij->i", levels, levels) / levels.shape[1]
    deviation = np.sqrt(np.maximum(0, square - mean * mean))  # a fifth of the time of np.std
    return np.stack([scores.argmax(axis=1), scores.max(axis=1), mean, deviation])


class Seen:
    """The last pictures of one version, beside its baseline."""

    def __init__(self, baseline: dict[str, Any]):
        self._baseline = baseline
        self._ring = np.empty((1 + len(NUMBERS), RECENT), np.float32)
        self._n = 0

    def add(self, measured: np.ndarray) -> None:
        """measured: [4, N] of `measure`."""
        measured = measured[:, -RECENT:]
        at = (self._n + np.arange(measured.shape[1])) % RECENT
        self._ring[:, at] = measured
        self._n += measured.shape[1]

    def report(self) -> dict[str, Any]:
        n = min(self._n, RECENT)
        prior = np.array(self._baseline["class_prior"])
        classes, *numbers = self._ring[:, :n]
        live = np.bincount(classes.astype(int), minlength=len(prior)) / n
        return {
            "pictures": n,
            "baseline_pictures": self._baseline["n"],
            "class_distance": round(float(np.abs(live - prior).sum() / 2), 6),
            "class_distance_by_chance": round(by_chance(prior, live, self._baseline["n"], n), 6),
            "classes": {"baseline": prior.tolist(), "live": np.round(live, 6).tolist()},
            **{
                name: _shifted(values, self._baseline[name])
                for name, values in zip(NUMBERS, numbers, strict=True)
            },
        }


def by_chance(p: np.ndarray, q: np.ndarray, n: int, m: int) -> float:
    """The class distance to expect of n and m pictures, shares p and q, that do not differ.

    A class of share s differs by a standard deviation of sqrt(s (1 - s) (1/n + 1/m)), whose mean
    size is sqrt(2 / pi) of that, as of anything normal.
    """
    shares = (n * p + m * q) / (n + m)
    deviations = np.sqrt(shares * (1 - shares) * (1 / n + 1 / m))
    return float(math.sqrt(2 / math.pi) * deviations.sum() / 2)


def _shifted(values: np.ndarray, baseline: dict[str, Any]) -> dict[str, float | None]:
    mean, deviation = float(values.mean()), baseline["std"]
    return {
        "baseline": baseline["mean"],
        "live": round(mean, 6),
        "shift": round((mean - baseline["mean"]) / deviation, 6) if deviation else None,
    }
