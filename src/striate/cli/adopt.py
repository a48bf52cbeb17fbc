"""`striate adopt`: a Keras net that was trained elsewhere becomes an artifact."""

from pathlib import Path
from typing import Annotated

import typer

from striate.cli.console import Json, emit, load_tensorflow, note, print_path, waiting


def adopt(
    model: Annotated[Path, typer.Argument(help="A trained Keras net: a .keras or .h5 file.")],
    data: Annotated[
        str, typer.Option(help="Labelled pictures, to try the net on: as for `striate train`.")
    ],
    preprocess: Annotated[
        str,
        typer.Option(
            help="How it was given pixels: raw (0 to 255), unit (0 to 1), tf (-1 to 1), torch, "
            "caffe, cifar or dpn."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The model's directory [default: saved_models/FILE]."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="A file with a class a line, in the net's order [default: the data's]."),
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=1, help="Of the pictures, where the net takes any.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make an artifact of a Keras net that was trained elsewhere.

    It is then evaluated, explained, exported and served as any other.
    """
    from striate.adopt import adopt as write
    from striate.adopt import check_asked
    from striate.data import load

    check_asked(model, preprocess)
    names = _lines(labels) if labels else None
    dataset = load(data, kind="picture", classes=names)
    load_tensorflow()
    with waiting("trying the net"):
        made = write(
            model,
            output or Path("saved_models") / model.stem,
            data=dataset,
            preprocess=preprocess,
            labels=names,
            size=size,
        )
    for problem in made.manifest.data["left_out"]:
        note(problem)
    found = made.manifest.metrics["adopted"]
    if as_json:
        emit({"path": str(made.path), "labels": made.labels, **found})
        return
    note(
        f"it names {found['accuracy']:.1%} of {found['n']:,} pictures rightly; if that is less "
        "than you know of it, --preprocess or the order of the labels is not that of its training"
    )
    print_path(made.path)


def _lines(path: Path) -> list[str]:
    from striate.errors import DataError

    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    return [line.strip() for line in lines if line.strip()]
