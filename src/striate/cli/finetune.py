"""`striate finetune`: a pretrained net learns one's own pictures."""

from pathlib import Path
from typing import Annotated

import typer

from striate.cli.console import Json
from striate.cli.train import BatchSize, Data, Epochs, Folds, Output, Seed, Sets, changes, run


def finetune(
    model: Annotated[str, typer.Argument(help="A net with pretrained weights, or an artifact.")],
    data: Data = None,
    output: Output = None,
    weights: Annotated[
        str | None, typer.Option(help="imagenet, a weights file, or an artifact's directory.")
    ] = None,
    recipe: Annotated[str, typer.Option(help="A YAML file or a shipped recipe.")] = "finetune",
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    seed: Seed = None,
    sets: Sets = None,
    folds: Folds = None,
    as_json: Json = False,
) -> None:
    """Teach a pretrained net one's own classes.

    The same command again continues a run that was interrupted.
    """
    from striate.registry import get_spec
    from striate.train import finetune_recipe

    if not Path(model).is_dir():
        get_spec(model)
    chosen = finetune_recipe(
        model,
        recipe=recipe,
        weights=weights,
        sets=changes(data, epochs, batch_size, seed, sets),
    )
    run(chosen, output, as_json, folds)
