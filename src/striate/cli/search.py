"""`striate search`: a learning rate by a range test, several numbers at random, a net."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from striate.cli.console import Json, emit, load_tensorflow, note, table, write_json
from striate.cli.train import BatchSize, Data, Epochs, Seed, Sets, changes, check_source, chosen
from striate.errors import UsageError
from striate.files import made_folder
from striate.libraries import need

if TYPE_CHECKING:
    from striate.search import Trial
    from striate.train import Recipe

search = typer.Typer(
    help="Look for a learning rate, hyper-parameters or a net.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

RecipeOrNet = Annotated[str, typer.Argument(help="A YAML file, a shipped recipe, or a net.")]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="A directory for what is found [default: search/NET]."),
]


@search.command()
def lr(
    recipe: RecipeOrNet,
    data: Data = None,
    output: Output = None,
    low: Annotated[float, typer.Option(help="The first rate.")] = 1e-6,
    high: Annotated[float, typer.Option(help="The last rate.")] = 10.0,
    steps: Annotated[int, typer.Option(help="Steps between them.")] = 200,
    batch_size: BatchSize = None,
    seed: Seed = None,
    sets: Sets = None,
    as_json: Json = False,
) -> None:
    """Suggest a learning rate by a short run at rising rates.

    Writes the curve as lr.png and lr.json. The suggestion is where the loss falls fastest.
    """
    from striate.search import range_test

    need("the curve of a search", "matplotlib")
    wanted = _wanted(recipe, changes(data, None, batch_size, seed, sets))
    with _folder(output, wanted) as folder:
        found = range_test(wanted, low=low, high=high, steps=steps, progress=True)
    picture = found.draw(folder / "lr.png", wanted.model.name)
    document = {**found.to_dict(), "plot": str(picture)}
    write_json(document, folder / "lr.json")
    if as_json:
        emit(document)
        return
    if found.suggestion is None:
        print(f"the loss never fell: no rate to suggest; look at {picture}")
        return
    print(f"--set optimizer.learning_rate={found.suggestion:g}")
    print(
        f"the loss falls fastest at {found.steepest:.1e}; "
        f"a tenth of the rate of its lowest is {found.tenth:.1e}"
    )
    print(picture)


@search.command()
def random(
    recipe: RecipeOrNet,
    data: Data = None,
    output: Output = None,
    trials: Annotated[int, typer.Option(min=1, help="Draws to train.")] = 20,
    ranges: Annotated[
        list[str] | None,
        typer.Option(
            "--range",
            metavar="KEY=RANGE",
            help="log:LOW:HIGH, uniform:LOW:HIGH or choice:A:B:...; may be repeated "
            "[default: optimizer.learning_rate=log:1e-5:1e-1, optimizer.weight_decay=log:1e-5:1].",
        ),
    ] = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    seed: Seed = None,
    sets: Sets = None,
    as_json: Json = False,
) -> None:
    """Train with random draws from ranges; list the best first.

    The same command again goes on where it was interrupted; more --trials add to them.
    """
    from striate.search import Range, random_search
    from striate.search.random import at_the_edge

    wanted = _wanted(recipe, changes(data, epochs, batch_size, seed, sets))
    drawn_from = [Range.parse(text) for text in ranges or DEFAULT_RANGES]
    with _folder(output, wanted) as folder:
        found = random_search(
            wanted, None, drawn_from, trials=trials, output=folder, seed=wanted.seed, progress=True
        )
    best = found[0]
    notes = at_the_edge(best, drawn_from) if best.error is None else []
    _tell(found, folder, as_json, notes)


Choices = Annotated[str, typer.Option(metavar="A:B:...", help="Of each layer, to choose among.")]


@search.command()
def architecture(
    recipe: Annotated[
        str, typer.Argument(help="nas_v1_cifar, whose layers are written, or a recipe of it.")
    ] = "nas_v1_cifar",
    data: Data = None,
    output: Output = None,
    trials: Annotated[int, typer.Option(min=1, help="Nets to train.")] = 100,
    layers: Annotated[int, typer.Option(min=1, help="Of each net.")] = 8,
    filters: Choices = "24:36:48:64",
    sizes: Annotated[
        str, typer.Option(metavar="A:B:...", help="Of filters, down and across, to choose among.")
    ] = "1:3:5:7",
    strides: Choices = "1",
    rate: Annotated[float, typer.Option(help="The learning rate of the net that writes.")] = 6e-4,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    seed: Seed = None,
    sets: Sets = None,
    as_json: Json = False,
) -> None:
    """Let a recurrent net write nets and learn from their accuracy (Zoph and Le 2016).

    Lists the nets, the best first. The same command again goes on where it was interrupted; more
    --trials add to them.
    """
    from striate.search import Space, architecture_search

    space = Space(
        layers,
        filters=_choices("--filters", filters),
        sizes=_choices("--sizes", sizes),
        strides=_choices("--strides", strides),
    )
    wanted = _wanted(recipe, changes(data, epochs, batch_size, seed, sets))
    with _folder(output, wanted) as folder:
        found = architecture_search(
            wanted,
            None,
            space,
            trials=trials,
            output=folder,
            seed=wanted.seed,
            learning_rate=rate,
            progress=True,
        )
    _tell(found, folder, as_json)


def _choices(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(map(int, text.split(":")))
    except ValueError:
        raise UsageError(f"{option}: expected whole numbers such as 1:3:5, got {text!r}") from None


DEFAULT_RANGES = (
    "optimizer.learning_rate=log:1e-5:1e-1",
    "optimizer.weight_decay=log:1e-5:1",
)


def _wanted(recipe: str, sets: list[str]) -> "Recipe":
    wanted = chosen(recipe, sets)
    check_source(wanted)
    load_tensorflow()
    return wanted


def _folder(output: Path | None, wanted: "Recipe") -> AbstractContextManager[Path]:
    return made_folder(output or Path("search") / wanted.model.name)


def _tell(
    found: "list[Trial]", folder: Path, as_json: bool, notes: list[str] | None = None
) -> None:
    """Keep the trials, show them, and say what repeats the best."""
    document = [trial.to_dict() for trial in found]
    write_json(document, folder / "trials.json")
    if as_json:
        emit(document)
        return
    _print_trials(found)
    for line in notes or []:
        note(f"striate: {line}")
    if found[0].error is None:
        print(found[0].sets)


def _print_trials(found: "list[Trial]") -> None:
    keys = list(found[0].values)
    ends = [key.rpartition(".")[2] for key in keys]
    table(
        [
            "trial",
            *(keys if len(set(ends)) < len(ends) else ends),
            "val_accuracy",
            "val_loss",
            "seconds",
            "",
        ],
        [
            [
                trial.number,
                *(f"{v:.3g}" if isinstance(v, float) else v for v in trial.values.values()),
                "" if trial.val_accuracy is None else f"{trial.val_accuracy:.4f}",
                "" if trial.val_loss is None else f"{trial.val_loss:.4f}",
                f"{trial.seconds:.1f}",
                (trial.error or "").split(";")[0],
            ]
            for trial in found
        ],
        spare=["seconds"],
    )
