"""`striate models`: the nets that can be built."""

from typing import Annotated

import typer

from striate.cli.console import Json, emit, table


def models(
    pattern: Annotated[str, typer.Argument(help="Shell pattern, such as 'resnet*'.")] = "*",
    family: Annotated[str | None, typer.Option(help="Only this family.")] = None,
    max_params: Annotated[int | None, typer.Option(help="At most so many parameters.")] = None,
    pretrained: Annotated[
        bool | None,
        typer.Option("--pretrained/--not-pretrained", help="Only with, or without, weights."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the nets and their exact parameter counts."""
    from striate.registry import list_models

    found = list_models(pattern, family=family, max_params=max_params, pretrained=pretrained)
    if as_json:
        emit([spec.to_dict() for spec in found])
        return
    table(
        ["name", "family", "year", "input", "classes", "trainable", "total", "pretrained"],
        [
            [
                spec.name,
                spec.family,
                str(spec.year),
                " x ".join(map(str, spec.input_shape)),
                spec.classes,
                spec.trainable,
                spec.total,
                ", ".join(weights.name for weights in spec.weights),
            ]
            for spec in found
        ],
    )
    print(f"{len(found)} nets")
