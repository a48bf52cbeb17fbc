"""How good is a classifier, on which pictures does it fail, and can its scores be believed?

evaluation = evaluate("saved_models/mine/1", "my_pictures/", report="report.html")
evaluation.accuracy, evaluation.intervals["accuracy"]

On request it also judges the mean over several views of each picture (`views`) and pictures that
were spoilt in twelve ways (`corruptions`), and looks inside the net (`inside`). `striate.report`
does all of it.
"""

import dataclasses
import os
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from striate import metrics
from striate.artifact import Artifact, Source, add_drift_baseline, environment, opened
from striate.data import Dataset
from striate.data import load as load_data
from striate.errors import UsageError, check_whole
from striate.evaluate.answers import (
    Answers,
    Mistake,
    Questions,
    ask,
    ask_spoilt,
    inputs_and_scores,
    some_of,
)
from striate.evaluate.corruptions import SEVERITIES, Robustness, check_names
from striate.evaluate.inside import ATTACKED, WORK, Inside, look_inside
from striate.evaluate.report import write_report
from striate.evaluate.views import Viewing, check_views, spec_of_views
from striate.files import check_writable
from striate.lazy import Verb
from striate.libraries import need
from striate.runtime import open_engine

__all__ = ["Evaluation", "Inside", "Mistake", "Robustness", "evaluate", "write_report"]

BASELINE = 1000  # pictures that a drift baseline is measured on

sys.modules[__name__].__class__ = Verb  # striate.evaluate(...) is striate.evaluate.evaluate(...)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """What `evaluate` found. Shares are from 0 to 1; intervals hold with 95 % confidence.

    n: pictures judged. top5: the share whose true class is among the five best scores. nll: mean
    -log p(true class), nats. ece: expected calibration error, 15 bins. mean_score: of the answers.
    macro: precision, recall and f1, each class that has pictures counting the same. intervals:
    (low, high) of accuracy, top5 (Wilson), macro_f1, nll (bootstrap). labels: the artifact's;
    per_class and confusion [true, predicted] are in their order. mistakes: the most confident
    first. skipped: a line for each picture that could not be read. data: source, split,
    fingerprint, `counts` (split -> class -> pictures), and whether the net was trained on these
    very pictures (`trained_on`).
    tta: what test-time augmentation makes of it: name, accuracy, top5, nll, ece, mean_score and
    intervals, and the gain in accuracy. corruptions: how it fares on spoilt pictures. inside: what
    a look inside the net found. Each is None where it was not asked for, and all the other numbers
    are of the plain pictures.
    """

    n: int
    accuracy: float
    top5: float
    nll: float
    ece: float
    mean_score: float
    macro: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    labels: tuple[str, ...]
    per_class: metrics.PerClass
    confusion: np.ndarray
    reliability: metrics.Reliability
    mistakes: tuple[Mistake, ...]
    skipped: tuple[str, ...]
    engine: str
    kernel: str
    images_per_second: float
    data: dict[str, Any]
    artifact: dict[str, Any]
    environment: dict[str, str]
    tta: dict[str, Any] | None = None
    corruptions: Robustness | None = None
    inside: Inside | None = None

    def __repr__(self) -> str:
        """In a line: of what, by how many pictures, and how sure that is."""
        low, high = self.intervals["accuracy"]
        judged = f"accuracy {self.accuracy:.4f} ({low:.4f} to {high:.4f}) of {self.n:,} pictures"
        return f"<Evaluation of {self.artifact['name']}: {judged}, {self.engine}>"

    def to_dict(self) -> dict[str, Any]:
        """The evaluation as JSON holds it: plain types, None for what is not defined."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return values | {
            "intervals": {name: list(pair) for name, pair in self.intervals.items()},
            "labels": list(self.labels),
            "per_class": self.class_rows(),
            "confusion": self.confusion.tolist(),
            "reliability": self.reliability_rows(),
            "mistakes": [
                {key: value for key, value in vars(mistake).items() if key != "pixels"}
                for mistake in self.mistakes
            ],
            "skipped": list(self.skipped),
            "corruptions": self.corruptions and self.corruptions.to_dict(),
            "inside": self.inside and self.inside.to_dict(),
        }

    def class_rows(self) -> list[dict[str, Any]]:
        """One row a class, in the labels' order, with the interval of its recall."""
        found = self.per_class
        low, high = metrics.wilson(found.right, found.support)
        return [
            {
                "label": label,
                "precision": _plain(found.precision[i]),
                "recall": _plain(found.recall[i]),
                "recall_interval": [float(low[i]), float(high[i])],
                "f1": _plain(found.f1[i]),
                "support": int(found.support[i]),
            }
            for i, label in enumerate(self.labels)
        ]

    def reliability_rows(self) -> list[dict[str, Any]]:
        """One row a bin of scores, low < score <= high."""
        edges, n, score, accuracy = self.reliability
        return [
            {
                "low": float(edges[i]),
                "high": float(edges[i + 1]),
                "n": int(n[i]),
                "score": _plain(score[i]),
                "accuracy": _plain(accuracy[i]),
            }
            for i in range(len(n))
        ]


def evaluate(
    artifact: Source,
    data: str | os.PathLike | Dataset,
    *,
    engine: str = "auto",
    batch_size: int = 32,
    split: str | None = None,
    tta: str | None = None,
    corruptions: bool | Iterable[str] = False,
    inside: bool = False,
    baseline: bool = False,
    seed: int = 0,
    report: str | os.PathLike | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Judge an artifact on labelled pictures.

    artifact: itself, or its path.
    data: whatever `striate.data.load` reads, or a `Dataset`; its classes are matched to the
        artifact's labels by name, and may be some of them only.
    engine: as for `striate.runtime.open_engine`.
    split: `train`, `val`, `test` or `all`. None takes the test or validation pictures that the data
        names itself; else, where the net was trained on this data, those that training held out;
        else all.
    tta: also judge the mean over views of each picture: `mirror`, `crops` or `ten_crops`.
    corruptions: also judge spoilt pictures: True for every way of `corruptions.CORRUPTIONS`, or the
        names of some. With `inside`, only 200 of the pictures are spoilt, so that it ends soon.
    inside: also look inside the net: maps of its mistakes, filters, features, attacks, latency.
    baseline: also keep in the artifact what these pictures and answers look like (1000 of them at
        most), which is what a server compares drift with.
    seed: of what is random in them.
    report: where to write one self-contained HTML page.
    on_progress: called with (pictures done, pictures) after every batch; each spoilt copy counts.

    Raises `DataError` for a class that the artifact does not know and where no picture can be
    read; a single unreadable picture is skipped and listed.
    """
    artifact = opened(artifact)
    check_whole("batch_size", batch_size, 1)
    check_whole("seed", seed)
    if report is not None:
        need("a report", "jinja2", *["matplotlib"] * inside)
        check_writable(report)
    if baseline and not os.access(artifact.path, os.W_OK):
        raise UsageError(f"{artifact.path}: expected a folder that takes a drift baseline")
    if tta is not None:
        check_views(tta, artifact.preprocess)
    ways = check_names(corruptions, artifact.preprocess)
    split, questions = questions_of(artifact, data, split, batch_size)
    dataset = questions.dataset
    runner = open_engine(artifact, engine)
    spec, n = artifact.preprocess, len(questions.indices)
    spoilt = some_of(questions, ATTACKED, seed) if inside else questions
    copies = len(spoilt.indices) * len(ways) * SEVERITIES
    total = n * (1 + (tta is not None)) + copies + inside * WORK

    def progress_after(before: int) -> Callable[[int], None]:
        return lambda done: on_progress(before + done, total)

    start = time.perf_counter()
    answers = ask(runner, spec, questions, progress_after(0))
    seconds = time.perf_counter() - start
    viewed = robustness = seen = None
    if tta is not None:
        views = Viewing(runner, tta, spec)
        found = ask(views, spec_of_views(tta, spec), questions, progress_after(n))
        viewed = {"name": tta, **_compared(answers, found, len(artifact.labels))}
    if ways:
        before = total - copies - inside * WORK
        robustness = ask_spoilt(runner, spec, spoilt, ways, seed, progress_after(before))
    if inside:
        after = progress_after(total - WORK)
        seen = look_inside(artifact, runner, questions, answers.mistakes, seed, after)
    evaluation = Evaluation(
        **_measure(answers.table, len(artifact.labels)),
        labels=tuple(artifact.labels),
        mistakes=answers.mistakes,
        skipped=answers.skipped,
        engine=runner.name,
        kernel=runner.kernel,
        images_per_second=len(answers.table) / seconds,
        data=_described(artifact, dataset, split),
        artifact={
            "path": str(artifact.path),
            "name": artifact.name,
            "version": artifact.version,
            "model": artifact.manifest.model["name"],
        },
        environment=environment(),
        tta=viewed,
        corruptions=robustness,
        inside=seen,
    )
    if baseline:
        few = some_of(questions, BASELINE, seed)
        add_drift_baseline(artifact, *inputs_and_scores(runner, spec, few))
    if report is not None:
        write_report(evaluation, artifact, report)
    return evaluation


def questions_of(
    artifact: Artifact,
    data: str | os.PathLike | Dataset,
    split: str | None = None,
    batch_size: int = 32,
) -> tuple[str, Questions]:
    """(name of the split, what to ask) of labelled pictures; arguments and errors of `evaluate`."""
    dataset = data if isinstance(data, Dataset) else _load(artifact, data)
    targets = dataset.targets(artifact.labels, artifact.name)
    name, indices = _choose(artifact, dataset, split)
    return name, Questions(dataset, indices, targets, tuple(artifact.labels), batch_size)


def _load(artifact: Artifact, source: str | os.PathLike) -> Dataset:
    """The data, split as training split it."""
    recipe = artifact.manifest.recipe or {}
    share, seed = recipe.get("data", {}).get("validation", 0.2), recipe.get("seed", 0)
    kind = artifact.preprocess.kind
    return load_data(source, kind=kind, split=share, seed=seed, classes=artifact.labels)


def _choose(artifact: Artifact, dataset: Dataset, split: str | None) -> tuple[str, np.ndarray]:
    """(name, indices) of the pictures to judge by; `evaluate` states the rule."""
    if split is None:
        splits = [name for name in ("test", "val") if name in dataset.splits]
        if _same_data(artifact, dataset):
            fair = [name for name in splits if _is_held_out(artifact, dataset, name)]
        else:
            fair = [name for name in splits if name in dataset.given]
        split = fair[0] if fair else "all"
    return split, np.arange(len(dataset)) if split == "all" else dataset.split(split)


def _described(artifact: Artifact, dataset: Dataset, split: str) -> dict[str, Any]:
    """What an `Evaluation` says of its data."""
    same = _same_data(artifact, dataset)
    return {
        "source": dataset.source,
        "split": split,
        "fingerprint": dataset.fingerprint,
        "counts": _counts(dataset, trusted=same),
        "trained_on": same and not _is_held_out(artifact, dataset, split),
    }


def _counts(dataset: Dataset, *, trusted: bool) -> dict[str, dict[str, int]]:
    """Split -> class -> pictures. "all" where neither the data names splits nor (`trusted`) the net
    was trained on it: a split that nobody used says nothing."""
    if not (dataset.given or trusted):
        return {"all": dataset.counts()}
    return {name: dataset.counts(indices) for name, indices in dataset.splits.items()}


def _is_held_out(artifact: Artifact, dataset: Dataset, split: str) -> bool:
    """Whether these pictures, out of the very data of the training, were kept from it."""
    if split not in ("val", "test"):
        return False
    digests = artifact.manifest.data.get("split_digests")
    return digests is None or digests.get(split) == dataset.digest_of(split)


def _same_data(artifact: Artifact, dataset: Dataset) -> bool:
    return dataset.fingerprint == artifact.manifest.data.get("fingerprint")


def _measure(table: np.ndarray, classes: int) -> dict[str, Any]:
    """Every number of an `Evaluation` that comes out of the answers alone."""
    n, true, predicted, rank = len(table), table["true"], table["predicted"], table["rank"]
    correct = predicted == true
    confusion = metrics.confusion_matrix(true, predicted, classes)
    per_class = metrics.per_class(confusion)
    judged = per_class.support > 0
    loss = metrics.negative_log_likelihood
    return {
        "n": n,
        "accuracy": metrics.top_k_accuracy(rank, 1),
        "top5": metrics.top_k_accuracy(rank, 5),
        "nll": loss(table["true_score"]),
        "ece": metrics.calibration_error(table["score"], correct),
        "mean_score": float(table["score"].mean(dtype=float)),
        "macro": {
            name: float(np.nan_to_num(getattr(per_class, name)[judged]).mean())
            for name in ("precision", "recall", "f1")
        },
        "intervals": {
            "accuracy": metrics.wilson(correct.sum(), n),
            "top5": metrics.wilson((rank < 5).sum(), n),
            "macro_f1": metrics.bootstrap(metrics.macro_f1, true, predicted),
            "nll": metrics.bootstrap(loss, table["true_score"]),
        },
        "per_class": per_class,
        "confusion": confusion,
        "reliability": metrics.reliability(table["score"], correct),
    }


def _compared(plain: Answers, viewed: Answers, classes: int) -> dict[str, Any]:
    """The numbers of another way to answer the same pictures, and its gain in accuracy."""
    found = _measure(viewed.table, classes)
    before, after = (x.table["predicted"] == x.table["true"] for x in (plain, viewed))
    gain = after.astype(float) - before
    return {
        **{key: found[key] for key in ("accuracy", "top5", "nll", "ece", "mean_score")},
        "intervals": {key: list(pair) for key, pair in found["intervals"].items()},
        "gain": float(gain.mean()),
        "gain_interval": list(metrics.bootstrap(np.mean, gain)),
    }


def _plain(value: np.floating) -> float | None:
    return None if np.isnan(value) else float(value)
