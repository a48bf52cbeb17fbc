"""`striate recipes`: the recipes that come with striate."""

from typing import Annotated, Any

import typer

from striate.cli.console import Json, emit, table
from striate.errors import UsageError, did_you_mean


def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this one, a YAML file.")] = None,
    as_json: Json = False,
) -> None:
    """List the recipes of `striate train`, or print one."""
    from striate.train import make_recipe, recipe_head, shipped_recipes

    shipped = shipped_recipes()
    if name is not None and name not in shipped:
        raise UsageError(
            f"expected a recipe ({', '.join(shipped)}), got {name!r}.{did_you_mean(name, shipped)}"
        )
    if name is not None and not as_json:
        print(shipped[name].read_text("utf-8"), end="")
        return
    chosen = shipped if name is None else {name: shipped[name]}
    rows: list[dict[str, Any]] = [
        {"name": each, **recipe_head(path), "recipe": make_recipe(each).to_dict()}
        for each, path in chosen.items()
    ]
    if as_json:
        emit(rows)
        return
    table(
        ["name", "net", "purpose"],
        [[row["name"], row["recipe"]["model"]["name"], row["purpose"]] for row in rows],
    )
