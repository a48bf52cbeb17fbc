"""`striate report`: everything there is to say about a classifier and some data, on one page."""

from pathlib import Path
from typing import Annotated

import typer

from striate.cli.console import Json, emit, load_tensorflow, note, progress, quiet_libraries
from striate.cli.evaluate import BatchSize, Engine, Split, Views, print_evaluation


def report(
    artifact: Annotated[Path, typer.Argument(help="Artifact directory, NAME or NAME/VERSION.")],
    data: Annotated[str, typer.Option(help="Labelled pictures: a folder, CSV, npz or IDX.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page.")] = Path("report.html"),
    split: Split = None,
    engine: Engine = "auto",
    batch_size: BatchSize = 32,
    tta: Views = None,
    seed: Annotated[int, typer.Option(min=0, help="Of which pictures are drawn by lot.")] = 0,
    as_json: Json = False,
) -> None:
    """Write one self-contained HTML page with everything.

    It is evaluate with all switched on: the data, the worst mistakes with what the net looked at,
    calibration, spoilt and attacked pictures, features, filters, training, forms and latency.
    """
    from striate.artifact import load
    from striate.evaluate.everything import report as write

    loaded = load(artifact)
    loaded.check()
    load_tensorflow()  # the look inside needs the net in Keras
    with progress("reporting", ends=False) as advance, quiet_libraries():
        found = write(
            loaded,
            data,
            output,
            engine=engine,
            batch_size=batch_size,
            split=split,
            tta=tta,
            seed=seed,
            on_progress=advance,
        )
    for line in found.skipped:
        note(f"striate: skipped {line}")
    if as_json:
        emit(found.to_dict() | {"report": str(output)})
        return
    print_evaluation(found)
    print(f"report: {output}")
