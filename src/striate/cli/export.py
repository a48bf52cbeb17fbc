"""`striate export`: write an artifact's other forms, each proven against Keras."""

from pathlib import Path
from typing import Annotated

import typer

from striate.cli.console import (
    Json,
    emit,
    listed,
    load_tensorflow,
    note,
    quiet_libraries,
    table,
    waiting,
)


def export(
    artifact: Annotated[Path, typer.Argument(help="Artifact directory, NAME or NAME/VERSION.")],
    to: Annotated[
        str | None,
        typer.Option(
            help="Forms, separated by commas [default: saved_model,onnx,litert; with --check all "
            "that are there]."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Pictures to compare on: any folder, or as for train; int8 needs them."),
    ] = None,
    pictures: Annotated[int, typer.Option(min=8, help="How many of them.")] = 200,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Keep int8 and float16 whatever they answer.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; verify the forms that are there.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write SavedModel, ONNX, LiteRT and others, each verified.

    Packed, int8 and float16 are written on request alone. A form that does not give Keras' answers
    is an error, and is not kept. Of int8 and float16, the same first class on 99 % of the pictures
    is asked.
    """
    from striate.artifact import load
    from striate.export import FORMS, check_names, check_possible, some_pictures, verify
    from striate.export import export as write_forms

    loaded = load(artifact)
    asked = None if to is None else check_names(listed(to, "--to"))
    forms = asked or list(FORMS)
    images = some_pictures(loaded, data, pictures) if data else None
    if not check:
        check_possible(loaded, forms, images)
    load_tensorflow()
    if check:
        with waiting("verifying"), quiet_libraries():
            rows = verify(loaded, asked, images=images)
        if not rows:
            note(f"{loaded.path}: holds no exported form, only the Keras net, which is as it was")
    else:
        rows = []
        for form in forms:
            note(f"{form}: writing and verifying")
            with quiet_libraries():
                loaded, more = write_forms(loaded, [form], images=images, accept_loss=accept_loss)
            rows += more
    if as_json:
        emit([row.to_dict() for row in rows])
    if as_json or not rows:
        return
    table(
        ["form", "engine", "MB", "|difference|", "same top-1", "n", "ms", "kernel"],
        [
            [
                row.form,
                row.engine,
                round(row.bytes / 1e6, 2),
                f"{row.max_abs_diff:.1e}",
                f"{row.top1_agreement:.0%}",
                row.n,
                row.latency_ms,
                row.kernel,
            ]
            for row in rows
        ],
        title=f"{loaded.path}: the largest difference of a score from Keras; ms for one picture",
        spare=["kernel"],
    )
