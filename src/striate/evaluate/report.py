"""One HTML page that holds everything: words, numbers, charts as SVG, pictures as data.

It asks nothing of the network, follows the reader's light or dark setting, and prints. What is
shown is worked out here as plain rows; `report.html` only lays it out.
"""

import base64
import io
import os
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from striate.artifact import Artifact
from striate.files import whole

if TYPE_CHECKING:
    from striate.evaluate import Evaluation

MATRIX = 30  # classes up to which the confusion matrix can be read as a matrix
FIRST = 30  # classes that are listed openly; the others fold away
PAIRS = 20  # confused pairs that are listed
COLOURS = 24  # classes up to which the colours of points are named
SMALL = 64  # pixels on a side below which a picture is enlarged unsmoothed


def write_report(evaluation: "Evaluation", artifact: Artifact, path: str | os.PathLike) -> Path:
    """Write the report of an evaluation as one HTML file; `UsageError` where it cannot be."""
    page = render(evaluation, artifact)
    with whole(path) as fresh:
        fresh.write_text(page, "utf-8")
    return Path(path)


def render(evaluation: "Evaluation", artifact: Artifact) -> str:
    """The page as text."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # labels and file names are a stranger's
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"percent": _percent, "share": _share, "megabytes": _megabytes}
    rows = [row for row in evaluation.class_rows() if row["support"]]
    rows.sort(key=lambda row: (row["f1"], row["label"]))
    spec = artifact.preprocess
    page = environment.get_template("report.html")
    return page.render(
        e=evaluation,
        classes=rows,
        first=FIRST,
        matrix=_matrix(evaluation),
        pairs=_pairs(evaluation),
        pictures=_mistakes(evaluation, spec.kind),
        small=max(spec.shape[-3:-1], default=0) < SMALL,
        wrong=evaluation.n - int(np.trace(evaluation.confusion)),
        curves=_curves(artifact.manifest.metrics.get("training", {}).get("history", [])),
        robustness=_robustness(evaluation),
        inside=evaluation.inside,
        filters=_filters(evaluation),
        plane=_plane(evaluation),
        attack=_attack(evaluation),
        splits=evaluation.data["counts"],
        counts=_counts(evaluation),
        forms=_forms(artifact),
        manifest=artifact.manifest,
        command=_command(evaluation),
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _matrix(evaluation: "Evaluation") -> dict[str, Any] | None:
    """The confusion matrix over the classes that occur, or None where there are too many."""
    confusion = evaluation.confusion
    occurs = np.flatnonzero(confusion.sum(axis=0) + confusion.sum(axis=1))
    if len(occurs) > MATRIX:
        return None
    labels = [evaluation.labels[i] for i in occurs]
    rows = []
    for i in occurs:
        total = max(1, int(confusion[i].sum()))
        rows.append(
            [
                {"n": int(confusion[i, j]), "share": int(confusion[i, j]) / total, "hit": i == j}
                for j in occurs
            ]
        )
    return {"labels": labels, "rows": list(zip(labels, rows, strict=True))}


def _pairs(evaluation: "Evaluation") -> list[dict[str, Any]]:
    """The pairs (true, predicted) that are confused most often."""
    wrong = evaluation.confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    pairs = []
    for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if wrong[i, j]:
            support = int(evaluation.per_class.support[i])
            pairs.append(
                {
                    "true": evaluation.labels[i],
                    "predicted": evaluation.labels[j],
                    "n": int(wrong[i, j]),
                    "support": support,
                }
            )
    return pairs


def _mistakes(evaluation: "Evaluation", kind: str) -> list[tuple[Any, str, str]]:
    """(mistake, its picture, its map) of each, or of those alone that have maps; "" for no map."""
    maps = evaluation.inside.maps if evaluation.inside else None
    mistakes = evaluation.mistakes[: len(maps)] if maps else evaluation.mistakes
    urls = [_picture(heat) for heat in maps] if maps else [""] * len(mistakes)
    return [
        (mistake, _picture(_seen(mistake.pixels, kind)), url)
        for mistake, url in zip(mistakes, urls, strict=True)
    ]


def _counts(evaluation: "Evaluation") -> list[tuple[str, list[int]]]:
    """Class -> its pictures in each split, the classes that have any; by name."""
    counts = evaluation.data["counts"].values()
    every = sorted({label for split in counts for label, n in split.items() if n})
    return [(label, [split.get(label, 0) for split in counts]) for label in every]


def _filters(evaluation: "Evaluation") -> str:
    """The sheet of filters as PNG, each of its pixels one pixel; "" without any."""
    sheet = evaluation.inside.filters if evaluation.inside else None
    return "" if sheet is None else _picture(sheet, "png")


def _plane(evaluation: "Evaluation") -> dict[str, Any] | None:
    """The features as points in a box of 600 x 400, coloured by class around the wheel."""
    inside = evaluation.inside
    if inside is None or inside.points is None:
        return None
    low, high = inside.points.min(axis=0), inside.points.max(axis=0)
    shares = (inside.points - low) / np.where(high > low, high - low, 1)
    present = sorted(set(inside.true.tolist()))
    hue = {label: round(360 * i / len(present)) for i, label in enumerate(present)}
    return {
        "by": inside.plane,
        "points": [
            (f"{600 * x:.1f}", f"{400 * (1 - y):.1f}", hue[label], evaluation.labels[label])
            for (x, y), label in zip(shares, inside.true.tolist(), strict=True)
        ],
        "key": [(hue[label], evaluation.labels[label]) for label in present[:COLOURS]],
        "unnamed": len(present[COLOURS:]),
    }


def _attack(evaluation: "Evaluation") -> dict[str, Any] | None:
    """The curve of accuracy under attack, as a polyline and as rows."""
    found = evaluation.inside.endurance if evaluation.inside else None
    if found is None:
        return None
    return {"rows": found, "points": _points([share for _, share in found], 0, 1)}


def _seen(tensor: np.ndarray, kind: str) -> np.ndarray | None:
    """uint8 [H, W, C] to show of what the net saw: of a clip the frame in the middle, of voxels
    the fullest along the depth; None for a row of numbers."""
    if kind == "vector":
        return None
    if kind == "clip":
        return tensor[len(tensor) // 2]
    return tensor.max(axis=0) if kind == "voxels" else tensor


def _picture(pixels: np.ndarray | None, kind: str = "") -> str:
    """uint8 [H, W, C] as a data URL: JPEG, or PNG where the picture is small; "" for None."""
    from PIL import Image

    if pixels is None:
        return ""
    image = Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
    kind = kind or ("png" if max(image.size) < SMALL else "jpeg")
    data = io.BytesIO()
    image.save(data, kind, quality=85)  # which PNG ignores
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}"


def _curves(history: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One chart for each thing that training measured, with its training and validation lines.

    history: the rows of `metrics.jsonl`; those of an epoch have `epoch`, `loss`, `accuracy`,
    `learning_rate` and, where there were validation pictures, `val_loss` and `val_accuracy`. A rate
    that never changes is not drawn.
    """
    epochs = [row for row in history if "epoch" in row]
    charts = []
    for name in ("loss", "accuracy"):
        lines = {}
        for key, words in ((name, "training"), (f"val_{name}", "validation")):
            if all(key in row for row in epochs):
                lines[words] = [row[key] for row in epochs]
        if len(epochs) > 1 and lines:
            charts.append({"name": name, **_chart(lines)})
    rates = [row["learning_rate"] for row in epochs if "learning_rate" in row]
    if len(set(rates)) > 1:
        charts.append({"name": "learning rate", **_chart({"rate": rates})})
    return charts


def _robustness(evaluation: "Evaluation") -> dict[str, Any] | None:
    """The rows and lines of the pictures that were spoilt; severity 0 is the plain pictures."""
    found = evaluation.corruptions
    if found is None:
        return None
    numbers = found.to_dict()
    lines = [[evaluation.accuracy, *row["accuracy"]] for row in numbers["rows"]]
    mean = [evaluation.accuracy, *numbers["by_severity"]]
    return {
        **numbers,
        "rows": sorted(numbers["rows"], key=lambda row: row["mean"]),
        "lines": [_points(line, 0, 1) for line in lines],
        "mean_line": _points(mean, 0, 1),
        "severities": range(1, len(mean)),
        "n": len(found.right),
    }


def _chart(lines: dict[str, list[float]]) -> dict[str, Any]:
    """Polylines in a box, and what its corners mean."""
    every = [value for values in lines.values() for value in values]
    low, high = min(every), max(every)
    longest = max(map(len, lines.values()))
    return {
        "low": low,
        "high": high,
        "epochs": longest,
        "lines": [
            {
                "name": name,
                "last": values[-1],
                "points": _points(values, low, high, longest),
            }
            for name, values in lines.items()
        ],
    }


def _points(values: Sequence[float], low: float, high: float, longest: int | None = None) -> str:
    """A polyline through evenly spaced values, in a box of 100 x 50 from low to high."""
    last, span = max(1, (longest or len(values)) - 1), (high - low) or 1.0
    return " ".join(
        f"{100 * i / last:.2f},{50 * (1 - (value - low) / span):.2f}"
        for i, value in enumerate(values)
    )


def _forms(artifact: Artifact) -> list[dict[str, Any]]:
    """What the verification of each exported form measured."""
    return [
        {"form": form, **record}
        for form, record in artifact.manifest.forms.items()
        if "max_abs_diff" in record
    ]


def _command(evaluation: "Evaluation") -> str:
    """What to type to get this page again."""
    data = evaluation.data
    verb = "report" if evaluation.inside else "evaluate"
    words = ["striate", verb, evaluation.artifact["path"], "--data", data["source"]]
    words += ["--split", data["split"], "--engine", evaluation.engine]
    if evaluation.tta:
        words += ["--tta", evaluation.tta["name"]]
    if evaluation.corruptions:
        words += [] if evaluation.inside else ["--corruptions"]
        words += ["--seed", str(evaluation.corruptions.seed)]
    return shlex.join(words)


def _percent(value: float | None) -> str:
    """0.913 -> 91.3%; a dash for what is not defined."""
    return "\N{EN DASH}" if value is None else f"{100 * value:.1f}%"


def _share(value: float) -> str:
    """A share as a CSS or SVG length on a scale of 100."""
    return f"{100 * value:.2f}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
