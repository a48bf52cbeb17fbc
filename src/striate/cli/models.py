"""`striate models`: the nets that can be built."""

import re
from typing import Annotated

import typer

from striate.cli.console import Json, emit, table
from striate.errors import UsageError

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}


def models(
    pattern: Annotated[str, typer.Argument(help="Shell pattern, such as 'resnet*'.")] = "*",
    family: Annotated[str | None, typer.Option(help="Only this family.")] = None,
    year: Annotated[int | None, typer.Option(help="Only nets of this year.")] = None,
    since: Annotated[
        int | None, typer.Option("--since", "--from", help="Of this year and later.")
    ] = None,
    until: Annotated[
        int | None, typer.Option("--until", "--to", help="Of this year and earlier.")
    ] = None,
    max_params: Annotated[
        str | None, typer.Option(help="At most so many parameters, such as 5M.")
    ] = None,
    max_macs: Annotated[
        str | None, typer.Option(help="At most so many multiply-adds a picture, such as 600M.")
    ] = None,
    pretrained: Annotated[
        bool | None,
        typer.Option("--pretrained/--not-pretrained", help="Only with, or without, weights."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the nets with their exact parameters and work."""
    from striate.registry import list_models

    found = list_models(
        pattern,
        family=family,
        year=year,
        since=since,
        until=until,
        max_params=_number(max_params, "--max-params"),
        max_macs=_number(max_macs, "--max-macs"),
        pretrained=pretrained,
    )
    if as_json:
        emit([spec.to_dict() for spec in found])
        return
    table(
        ["name", "family", "year", "input", "classes", "trainable", "total", "MACs", "pretrained"],
        [
            [
                spec.name,
                spec.family,
                str(spec.year),
                " x ".join(map(str, spec.input_shape)),
                spec.classes,
                spec.trainable,
                spec.total,
                spec.costs and spec.costs.macs,
                ", ".join(weights.name for weights in spec.weights),
            ]
            for spec in found
        ],
        spare=["family", "total", "classes", "input", "pretrained"],
    )
    print(f"{len(found)} nets")


def _number(text: str | None, option: str) -> int | None:
    """5000000, 5M or 0.005G as a whole number."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d*)?)([kKmMgG]?)", text)
    if not found:
        raise UsageError(f"{option}: expected a number such as 600000 or 5M, got {text!r}")
    return round(float(found[1]) * UNITS[found[2].upper()])
