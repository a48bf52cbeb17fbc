"""`striate train`: a recipe, or a net, and pictures become an artifact."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from striate.cli.console import Json, emit, load_tensorflow, print_path, table
from striate.errors import UsageError

if TYPE_CHECKING:
    from striate.train import Recipe

Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="Labelled pictures (or what the net takes): a folder, CSV, npz, IDX, hf:NAME, ...",
    ),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="The model's directory [default: saved_models/NET]."),
]
Epochs = Annotated[int | None, typer.Option(help="Passes over the training pictures.")]
BatchSize = Annotated[int | None, typer.Option(help="Pictures a step.")]
Seed = Annotated[int | None, typer.Option(help="Of everything that is random.")]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any key of the recipe, such as optimizer.learning_rate=1e-3; may be repeated.",
    ),
]

Folds = Annotated[
    int | None,
    typer.Option(
        min=2, help="Cross-validate on so many stratified folds, then train on all pictures."
    ),
]


def train(
    recipe: Annotated[
        str, typer.Argument(help="A YAML file, a shipped recipe, a net, or an artifact.")
    ],
    data: Data = None,
    output: Output = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    seed: Seed = None,
    sets: Sets = None,
    folds: Folds = None,
    as_json: Json = False,
) -> None:
    """Train as a recipe says, on one's own data.

    The same command again continues a run that was interrupted.
    """
    run(chosen(recipe, changes(data, epochs, batch_size, seed, sets)), output, as_json, folds)


def chosen(recipe: str, sets: list[str]) -> "Recipe":
    """The recipe that a file, a shipped recipe, a net or an artifact stands for, with changes."""
    from striate.registry import list_models
    from striate.train import make_recipe, shipped_recipes
    from striate.train.recipe import net_of

    base: Any = recipe
    if recipe not in shipped_recipes() and not Path(recipe).is_file():
        if not list_models(recipe) and not Path(recipe).is_dir():
            raise UsageError(_no_such(recipe))
        base = {"model": net_of(recipe)}
    return make_recipe(base, sets)


def changes(
    data: str | None,
    epochs: int | None,
    batch_size: int | None,
    seed: int | None,
    sets: list[str] | None,
) -> list[str]:
    """The command line's own flags as KEY=VALUE, before those of --set."""
    flags = {"data.source": data, "epochs": epochs, "batch_size": batch_size, "seed": seed}
    return [f"{key}={value}" for key, value in flags.items() if value is not None] + (sets or [])


def run(recipe: Any, output: Path | None, as_json: bool, folds: int | None = None) -> None:
    """Train a recipe that is known to be valid, and say what came of it."""
    from striate.adopt import PREFIX
    from striate.train import train as train_recipe

    check_source(recipe)
    load_tensorflow()
    base = output or Path("saved_models") / recipe.model.name.removeprefix(PREFIX)
    artifact = train_recipe(recipe, base, folds=folds)
    found = artifact.manifest.metrics
    document = {
        "artifact": str(artifact.path),
        "model": artifact.manifest.model,
        "classes": artifact.labels,
        "val": found.get("val", {}),
    }
    if folds is not None:
        document["folds"] = found["folds"]
    if as_json:
        emit(document)
        return
    if folds is not None:
        _print_folds(found["folds"])
    print_path(artifact.path)


def _print_folds(judged: dict[str, Any]) -> None:
    low, high = judged["accuracy_interval"]
    rows = [
        [str(i), fold["n"], f"{fold['accuracy']:.1%}"] for i, fold in enumerate(judged["each"], 1)
    ]
    rows.append(["all", judged["n"], f"{judged['accuracy']:.1%} ({low:.1%} to {high:.1%})"])
    table(["fold", "pictures", "named rightly"], rows)


def check_source(recipe: Any) -> None:
    """`UsageError` where there are no pictures to train on, as far as the name tells."""
    from striate.data import hub

    if not recipe.data.source:
        raise UsageError("expected pictures to train on: --data FOLDER")
    if hub.matches(recipe.data.source, None):
        hub.check_installed(recipe.data.source)
    elif not Path(recipe.data.source).exists():
        raise UsageError(f"--data: expected pictures, but {recipe.data.source} does not exist")


def _no_such(name: str) -> str:
    from striate.errors import did_you_mean
    from striate.registry import list_models
    from striate.train import shipped_recipes

    names = [spec.name for spec in list_models()] + list(shipped_recipes())
    return f"expected a recipe or a net, got {name!r}.{did_you_mean(name, names)}"
