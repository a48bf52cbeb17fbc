"""`striate evaluate`: how good a classifier is on labelled pictures."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from striate.cli.console import Json, emit, load_tensorflow, note, progress, quiet_libraries, table

if TYPE_CHECKING:
    from striate.evaluate import Evaluation

Split = Annotated[
    str | None, typer.Option(help="train, val, test or all [default: the held-out part].")
]
Engine = Annotated[
    str,
    typer.Option(
        help="auto, onnx, litert, packed, runner, openvino, tensorflow or keras; rounded: "
        "onnx-int8, litert-int8, litert-float16."
    ),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Pictures at a time.")]
Views = Annotated[
    str | None, typer.Option(help="Also the mean over views: mirror, crops (five) or ten_crops.")
]


def evaluate(
    artifact: Annotated[Path, typer.Argument(help="Artifact directory, NAME or NAME/VERSION.")],
    data: Annotated[str, typer.Option(help="Labelled pictures: a folder, CSV, npz or IDX.")],
    split: Split = None,
    engine: Engine = "auto",
    batch_size: BatchSize = 32,
    tta: Views = None,
    corruptions: Annotated[
        bool, typer.Option("--corruptions", help="Also spoilt pictures: 12 ways, 5 severities.")
    ] = False,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="Keep what they look like, for drift in the server.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of what is random in spoilt pictures.")] = 0,
    report: Annotated[
        Path | None, typer.Option(help="Write a self-contained HTML report here.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure accuracy, calibration and mistakes.

    Shares come with 95 % confidence intervals; --report writes one HTML file with the worst
    mistakes as pictures. --tta answers by several views of each picture, --corruptions asks how
    much noise, blur or bad light the net bears; both stand beside the plain numbers. --baseline
    keeps what the pictures and answers look like in the artifact, for `striate serve` to compare.
    """
    from striate.artifact import load
    from striate.evaluate import evaluate as measure
    from striate.runtime import needs_tensorflow

    loaded = load(artifact)
    loaded.check()
    if needs_tensorflow(loaded, engine):
        load_tensorflow()
    with progress("evaluating") as advance, quiet_libraries():
        found = measure(
            loaded,
            data,
            engine=engine,
            batch_size=batch_size,
            split=split,
            tta=tta,
            corruptions=corruptions,
            baseline=baseline,
            seed=seed,
            report=report,
            on_progress=advance,
        )
    for line in found.skipped:
        note(f"striate: skipped {line}")
    if as_json:
        emit(found.to_dict())
        return
    print_evaluation(found)
    if baseline:
        print(f"drift baseline: kept in {loaded.path}")
    if report:
        print(f"report: {report}")


def print_evaluation(found: "Evaluation") -> None:
    """The headline and the classes, as tables."""
    low, high = found.intervals["accuracy"]
    top5 = f"top-5 {found.top5:.1%}, " if len(found.labels) > 5 else ""  # else it says nothing
    print(
        f"accuracy {found.accuracy:.1%} (95 %: {low:.1%} to {high:.1%}) on {found.n} pictures "
        f"({found.data['split']})"
    )
    print(f"{top5}calibration error {found.ece:.3f}")
    if found.data["trained_on"]:
        print("the net learnt from these very pictures: it does better here than on new ones")
    print(f"{found.images_per_second:.0f} pictures a second by {found.kernel}")
    if found.tta:
        _print_views(found.tta)
    rows = [row for row in found.class_rows() if row["support"]]
    table(
        ["class", "precision", "recall", "f1", "pictures"],
        [
            [
                row["label"],
                *(_share(row[key]) for key in ("precision", "recall", "f1")),
                row["support"],
            ]
            for row in rows
        ],
    )

    if found.corruptions:
        _print_corruptions(found.corruptions.to_dict())


def _print_views(tta: dict[str, Any]) -> None:
    low, high = tta["intervals"]["accuracy"]
    least, most = tta["gain_interval"]
    print(
        f"accuracy {tta['accuracy']:.1%} (95 %: {low:.1%} to {high:.1%}) by {tta['name']}, "
        f"{100 * tta['gain']:+.1f} points ({100 * least:+.1f} to {100 * most:+.1f})"
    )


def _print_corruptions(found: dict[str, Any]) -> None:
    rows = [
        [row["name"], f"{row['mean']:.1%}", *(f"{share:.1%}" for share in row["accuracy"])]
        for row in found["rows"]
    ]
    severities = [str(i + 1) for i in range(len(found["by_severity"]))]
    table(["spoilt by", "mean", *severities], rows)
    low, high = found["interval"]
    print(f"mean corruption accuracy {found['mean']:.1%} (95 %: {low:.1%} to {high:.1%})")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
