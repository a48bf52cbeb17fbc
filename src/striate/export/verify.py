"""Hold an exported form to Keras' answers: the same pictures through both, score by score."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np

from striate.artifact import Artifact, inventory
from striate.errors import DisagreementError, EngineError, first_line
from striate.runtime import ENGINES, FLOAT_TOLERANCE, open_engine

PROBES = 16
ROUNDED_AGREEMENT = 0.99  # the same first class, for forms of rounded numbers


@dataclasses.dataclass(frozen=True)
class Agreement:
    """What comparing one form with Keras measured. `latency_ms`: median of one picture, batch 1."""

    form: str
    engine: str
    kernel: str
    bytes: int
    n: int
    max_abs_diff: float
    top1_agreement: float
    latency_ms: float

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def record(self) -> dict[str, Any]:
        """What `striate.json` keeps of it: the latency of another machine is left out."""
        return {k: v for k, v in self.to_dict().items() if k not in ("form", "latency_ms")}


def probe_images(artifact: Artifact, images: np.ndarray | None) -> np.ndarray:
    """The pictures to compare on: the goldens, then `images`, or what is made of the goldens.

    Made ones are mirrored and darkened goldens and uniform noise, from a fixed seed, so that an
    accident of a few real pictures (a dead channel, a saturated score) does not hide a difference.
    Rows of numbers are negated, halved, and joined by normal noise of their own mean and spread.
    """
    goldens, _ = artifact.goldens()
    if images is not None:
        return np.concatenate([goldens, images])
    shape = (max(1, PROBES - 2 * len(goldens)), *goldens.shape[1:])
    generator = np.random.default_rng(0)
    if goldens.dtype == np.uint8:
        noise = generator.integers(0, 256, shape, dtype=np.uint8)
        made = [goldens[..., ::-1, :], goldens // 2, noise]
    else:
        noise = goldens.mean(axis=0) + goldens.std(axis=0) * generator.standard_normal(shape)
        made = [-goldens, goldens / 2, noise.astype(goldens.dtype)]
    return np.concatenate([goldens, *made])[: 2 * PROBES]


def reference_scores(artifact: Artifact, images: np.ndarray) -> np.ndarray:
    """Keras' scores of the pictures, after it gave the goldens' own.

    Raises `DisagreementError` when Keras itself no longer gives the golden answers: then the
    weights or the libraries changed, and no form could be trusted.
    """
    golden_images, golden_scores = artifact.goldens()
    scores = open_engine(artifact, "keras").predict(images)
    difference = float(np.abs(scores[: len(golden_images)] - golden_scores).max())
    if not np.isfinite(scores).all():
        raise DisagreementError(f"{artifact.path}: Keras itself gives scores that are not finite")
    if difference > FLOAT_TOLERANCE:
        raise DisagreementError(
            f"{artifact.path}: Keras differs from the stored goldens by {difference:.2g}, "
            f"expected at most {FLOAT_TOLERANCE:g}; model.keras is not the net that wrote them"
        )
    return scores


def check_form(
    artifact: Artifact,
    form: str,
    engine_name: str,
    images: np.ndarray,
    expected: np.ndarray,
    *,
    root: Path | None = None,
    accept_loss: bool = False,
) -> Agreement:
    """Load a form in its own runtime and compare; `DisagreementError` unless it agrees.

    Agreeing is max |difference| <= 1e-4 on every score, and the same first class on every picture,
    where a class whose score ties with the first within that tolerance counts as first. A form of
    rounded numbers agrees by the same first class on 99 % of the pictures, or, where
    `accept_loss` says so, by whatever numbers it answers.
    """
    engine = open_engine(artifact, engine_name, root=root)
    try:
        scores = np.concatenate([engine.predict(images[:1]), engine.predict(images[1:])])
    except Exception as error:  # each runtime has its own for what it loads and cannot compute
        raise EngineError(
            f"{artifact.path}: {form} cannot be computed by {engine.name} ({first_line(error)}); "
            "it was not kept"
        ) from error
    if not np.isfinite(scores).all():
        raise DisagreementError(
            f"{artifact.path}: {form}, by {engine.name}, gives scores that are NaN or infinite, "
            "where Keras gives numbers; it was not kept"
        )
    difference = float(np.abs(scores - expected).max())
    agreement = Agreement(
        form=form,
        engine=engine.name,
        kernel=engine.kernel,
        bytes=_size(artifact, form, engine.name, root),
        n=len(images),
        max_abs_diff=difference,
        top1_agreement=_top1_agreement(scores, expected),
        latency_ms=_median_ms(engine, images[:1]),
    )
    if not ENGINES[engine.name].exact:
        if not accept_loss:
            _expect_same_classes(artifact, agreement)
    elif difference > FLOAT_TOLERANCE or agreement.top1_agreement < 1:
        raise DisagreementError(
            f"{artifact.path}: {form}, by {engine.name}, disagrees with Keras: max |difference| "
            f"{difference:.2g} (expected at most {FLOAT_TOLERANCE:g}), same first class on "
            f"{agreement.top1_agreement:.1%} of {len(images)} pictures; it was not kept"
        )
    return agreement


def _expect_same_classes(artifact: Artifact, found: Agreement) -> None:
    if found.top1_agreement < ROUNDED_AGREEMENT:
        raise DisagreementError(
            f"{artifact.path}: {found.form} by {found.engine} names Keras' first class on "
            f"{found.top1_agreement:.1%} of {found.n} pictures (expected at least "
            f"{ROUNDED_AGREEMENT:.0%}); it was not kept. Give more pictures of the kind that it "
            "will see, or accept the loss with --accept-loss (accept_loss=True)"
        )


def _top1_agreement(scores: np.ndarray, expected: np.ndarray) -> float:
    """The share of answers (a picture's, or of a map of scores each pixel's) of the same class."""
    first = scores.argmax(-1)[..., np.newaxis]
    theirs = np.take_along_axis(expected, first, -1)[..., 0]
    return float((theirs >= expected.max(-1) - FLOAT_TOLERANCE).mean())


def _size(artifact: Artifact, form: str, engine: str, root: Path | None) -> int:
    """Bytes of a form's files, without those that only another engine reads."""
    files = artifact.manifest.files if root is None else inventory(root)
    names = artifact.manifest.forms[form]["files"] if root is None else list(files)
    others = {kind.file for kind in ENGINES.values()} - {ENGINES[engine].file}
    return sum(files[name]["bytes"] for name in names if name not in others)


def _median_ms(engine, image: np.ndarray, repeats: int = 7) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        engine.predict(image)
        times.append(time.perf_counter() - start)
    return round(1000 * float(np.median(times)), 3)
