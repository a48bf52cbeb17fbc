"""A look inside the net for the report: maps of its mistakes, filters, features, attacks, latency.

Each part stands alone: where one cannot be had (a net without maps, no Keras, no pictures), a line
says why and the others go on.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from striate.artifact import Artifact
from striate.errors import StriateError, UsageError
from striate.evaluate.answers import Mistake, Questions, read
from striate.explain import Subject, explain, subject_of
from striate.explain.drawing import overlay
from striate.explain.embedding import codes, pca, tsne
from striate.explain.fgsm import LEVELS, endurance
from striate.explain.filters import filters, grid
from striate.runtime import Engine

MAPS = 12  # mistakes that are explained
POINTS = 500  # pictures whose features are drawn
ATTACKED = 200  # pictures that are attacked, and spoilt where the whole report is asked for
BATCH = 16
CALLS, PATIENCE = 50, 2.0  # calls that are timed at most, and for how many seconds

WORK = MAPS + POINTS + ATTACKED  # of a look inside, in pictures, for the progress


@dataclasses.dataclass(frozen=True, eq=False)
class Inside:
    """What a look inside found; None where something was missing, and `missing` says what.

    maps: uint8 [H, W, 3] of the first mistakes, what spoke for the wrong answer. filters: the
    kernels of the first convolution in one picture, uint8 [H, W, 1 or 3]. points: float [N, 2], the
    features of N pictures in a plane; plane: "t-SNE" or "principal components"; true: int [N],
    their classes. endurance: (grey levels, accuracy) of the fast gradient sign method;
    attacked: how many pictures it moved. latency: `median_ms`, `p90_ms` and `n` of one picture.
    missing: part -> why it is missing.
    """

    latency: dict[str, float]
    maps: tuple[np.ndarray, ...] | None = None
    filters: np.ndarray | None = None
    points: np.ndarray | None = None
    plane: str = ""
    true: np.ndarray | None = None
    endurance: tuple[tuple[float, float], ...] | None = None
    attacked: int = 0
    missing: dict[str, str] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The numbers as JSON holds them; the pictures are in the report."""
        found = self.endurance or ()
        return {
            "latency": self.latency,
            "fgsm": [{"grey_levels": level, "accuracy": share} for level, share in found],
            "attacked": self.attacked,
            "missing": self.missing,
        }


def look_inside(
    artifact: Artifact,
    engine: Engine,
    questions: Questions,
    mistakes: Sequence[Mistake],
    seed: int,
    on_progress: Callable[[int], None],
) -> Inside:
    """Every part that can be had. engine: what latency is measured of; on_progress: called with
    the pictures done, up to `WORK`."""
    pixels, true, _ = read(questions, artifact.preprocess, POINTS, seed)
    found: dict[str, Any] = {"latency": latency(engine, pixels[:1])}
    missing: dict[str, str] = {}

    def attempt(part: str, make: Callable[[], dict[str, Any]]) -> None:
        try:
            found.update(make())
        except StriateError as error:
            missing[part] = str(error).rstrip(".")
        except ModuleNotFoundError as error:
            missing[part] = f"{error.name} is not installed"

    subject: list[Subject] = []
    attempt("everything", lambda: subject.append(subject_of(artifact)) or {})
    if subject:
        attempt("maps", lambda: {"maps": _maps(subject[0], mistakes[:MAPS])})
        on_progress(MAPS)
        attempt("filters", lambda: {"filters": grid(filters(subject[0]))})
        attempt("features", lambda: {**_plane(subject[0], pixels, seed), "true": true})
        on_progress(MAPS + POINTS)
        some = slice(0, ATTACKED)
        attempt("attack", lambda: _attack(subject[0], pixels[some], true[some]))
    on_progress(WORK)
    return Inside(**found, missing=missing)


def _maps(subject: Subject, mistakes: Sequence[Mistake]) -> tuple[np.ndarray, ...]:
    """The pictures in grey under the maps of the classes that they were taken for."""
    if not mistakes:
        return ()
    pixels = np.stack([mistake.pixels for mistake in mistakes])
    found = explain(subject, pixels, method="grad_cam", batch_size=BATCH)
    return tuple(overlay(x, heat) for x, heat in zip(pixels, found.maps, strict=True))


def _plane(subject: Subject, pixels: np.ndarray, seed: int) -> dict[str, Any]:
    """The features of pictures in a plane: by t-SNE, or by principal components."""
    if len(pixels) < 4:
        raise UsageError(f"expected at least 4 pictures to draw their features, got {len(pixels)}")
    points = codes(subject, pixels.astype(np.float32), batch_size=BATCH)
    points = points.reshape(len(points), -1)
    try:
        return {"points": tsne(points, seed=seed), "plane": "t-SNE"}
    except UsageError:  # scikit-learn is not there
        return {"points": pca(points), "plane": "principal components"}


def _attack(subject: Subject, pixels: np.ndarray, true: np.ndarray) -> dict[str, Any]:
    """How the accuracy falls as an attack may move pixels further."""
    shares = [level / 255 for level in LEVELS]
    accuracy = endurance(subject, pixels.astype(np.float32), true, shares).mean(axis=1).tolist()
    return {"endurance": tuple(zip(LEVELS, accuracy, strict=True)), "attacked": len(pixels)}


def latency(engine: Engine, image: np.ndarray) -> dict[str, float]:
    """Milliseconds that an engine takes for one picture that is decoded: median, 90 % and n."""
    engine.predict(image)  # the first call may prepare something
    times: list[float] = []
    while len(times) < CALLS and sum(times) < PATIENCE:
        start = time.perf_counter()
        engine.predict(image)
        times.append(time.perf_counter() - start)
    median, p90 = 1000 * np.percentile(times, [50, 90])
    return {"median_ms": float(median), "p90_ms": float(p90), "n": len(times)}
