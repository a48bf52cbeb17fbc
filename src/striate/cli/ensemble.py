"""`striate ensemble`: several artifacts as one, and the curve between two."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from striate.cli.console import Json, emit, load_tensorflow, progress, table, write_json
from striate.errors import UsageError
from striate.files import made_folder
from striate.libraries import need

if TYPE_CHECKING:
    from striate.ensemble import Curve


class _JoinsByDefault(TyperGroup):
    """`striate ensemble A B` is `striate ensemble join A B`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "-h", "--help"):
            args = ["join", *args]
        return super().parse_args(ctx, args)


ensemble = typer.Typer(
    cls=_JoinsByDefault,
    help="Several artifacts as one: `striate ensemble A B -o C`.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Data = Annotated[
    str | None,
    typer.Option(help="The pictures that they were trained on: a folder, CSV, npz or IDX."),
]


@ensemble.command()
def join(
    artifacts: Annotated[
        list[Path], typer.Argument(help="Artifact directories, NAME or NAME/VERSION.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The model's directory; it gets a new version.")
    ],
    average_weights: Annotated[
        bool,
        typer.Option("--average-weights", help="One net with the mean of the weights instead."),
    ] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Write one artifact whose scores are the mean of several.

    The members need the same labels and the same size of picture; their nets may differ. It costs
    the work of all of them; --average-weights costs that of one, and suits nets of one training run
    or of one pretrained net.
    """
    from striate import ensemble as making

    if data is not None and not average_weights:
        raise UsageError("expected --data with --average-weights only; nothing is trained here")
    load_tensorflow()
    if average_weights:
        made = making.average_weights(artifacts, output, data=data)
    else:
        made = making.ensemble(artifacts, output)
    if as_json:
        emit({"artifact": str(made.path), "model": made.manifest.model, "classes": made.labels})
        return
    print(made.path)


@ensemble.command()
def curve(
    first: Annotated[Path, typer.Argument(help="One end: an artifact directory.")],
    second: Annotated[Path, typer.Argument(help="The other: of the same net.")],
    data: Data = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A directory for curve.png and curve.json.")
    ] = Path("curve"),
    kind: Annotated[str, typer.Option(help="bezier or chain.")] = "bezier",
    epochs: Annotated[int, typer.Option(min=0, help="Passes that train the bend.")] = 30,
    learning_rate: Annotated[float, typer.Option(help="Of SGD; it falls to 0.")] = 0.01,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures a step.")] = 64,
    points: Annotated[int, typer.Option(min=3, help="Places that are measured.")] = 21,
    seed: Annotated[int, typer.Option(min=0, help="Of everything that is random.")] = 0,
    as_json: Json = False,
) -> None:
    """Find a curve of low loss between two trainings of a net.

    Loss and accuracy along it stand beside those of the straight line between the weights.
    """

    from striate.ensemble import connect

    if data is None:
        raise UsageError("expected the pictures that both were trained on: --data FOLDER")
    need("the picture of a curve", "matplotlib")
    with made_folder(output):
        load_tensorflow()
        with progress("connecting", ends=False) as advance:
            found = connect(
                first,
                second,
                data,
                kind=kind,
                epochs=epochs,
                learning_rate=learning_rate,
                batch_size=batch_size,
                points=points,
                seed=seed,
                on_progress=advance,
            )
    picture = found.draw(output / "curve.png")
    document = {**found.to_dict(), "plot": str(picture)}
    write_json(document, output / "curve.json")
    if as_json:
        emit(document)
        return
    _print_curve(found)
    print(picture)


def _print_curve(found: "Curve") -> None:
    """The losses at each t, and how high either way rises."""
    split = "val" if "val_loss" in found.line else "train"
    ways = {"line": found.line, found.kind: found.curve}
    columns = ["t", *(f"{way} {what}" for way in ways for what in ("loss", "accuracy"))]
    rows = [
        [f"{t:.2f}", *(_cells(values, split, i) for values in ways.values())]
        for i, t in enumerate(found.t)
    ]
    table(
        columns,
        [[row[0], *row[1], *row[2]] for row in rows],
        title="held-out pictures" if split == "val" else "training pictures",
    )
    print(
        f"barrier of the training loss: {found.barrier(found.line):.3f} nats on the line, "
        f"{found.barrier(found.curve):.3f} on the curve"
    )


def _cells(values: dict[str, Any], split: str, i: int) -> tuple[str, str]:
    return f"{values[f'{split}_loss'][i]:.3f}", f"{values[f'{split}_accuracy'][i]:.1%}"
