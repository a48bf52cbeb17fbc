"""`striate explain`: why a classifier answers as it does, as pictures."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from striate.cli.console import Json, emit, load_tensorflow, note, progress, table
from striate.cli.evaluate import Split
from striate.cli.pictures import readable
from striate.files import made_folder

if TYPE_CHECKING:
    import numpy as np

    from striate.artifact import Artifact


def explain(
    artifact: Annotated[
        Path | None, typer.Argument(help="Artifact directory, NAME or NAME/VERSION.")
    ] = None,
    images: Annotated[
        list[Path] | None, typer.Argument(help="Pictures, or folders of them.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Labelled pictures instead, explained by their right classes."),
    ] = None,
    split: Split = None,
    most: Annotated[int, typer.Option(min=1, help="So many of --data, by lot.")] = 500,
    method: Annotated[
        str, typer.Option("--method", "-m", help="See `striate explain --list`.")
    ] = "grad_cam",
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the pictures.")] = Path(
        "explained"
    ),
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            metavar="LABEL",
            help="Label or index to explain, by default the answer; may be repeated.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="An option of the method, as window=0.3; may be repeated.",
        ),
    ] = None,
    show: Annotated[bool, typer.Option("--list", help="List the methods, and end.")] = False,
    as_json: Json = False,
) -> None:
    """Say why a classifier answers so: maps over pictures, views.

    Maps say where in a picture the answer comes from, views what the net sees; --list names all.
    """
    if show:
        _list(as_json)
        return
    from striate.errors import UsageError

    if artifact is None:
        raise UsageError("expected an artifact and pictures; `striate explain --help` tells more")
    if images and data is not None:
        raise UsageError("expected pictures or --data, got both")
    from striate.artifact import load
    from striate.data.files import named
    from striate.explain import check_asked, draw
    from striate.explain.drawing import save_picture
    from striate.explain.subject import check_artifact
    from striate.libraries import need

    options, rows = _options(settings or []), []
    check_asked(method, options)
    need("an explanation", "matplotlib")
    source = load(artifact)
    check_artifact(source)
    pictures: Any = named(images or [])
    _check_subjects(method, pictures, data, target)
    classes: Any = target[0] if target and len(target) == 1 else target  # one is for all of them
    asked = len(pictures)
    pictures = [path for path, _ in readable(pictures, source.preprocess)]
    broken = asked - len(pictures)
    if broken and (not pictures or isinstance(classes, list)):  # a class each, so none may lack
        raise typer.Exit(1)
    load_tensorflow()
    names = None
    if data is not None:
        pictures, right, names = _labelled(source, data, split, most)
        classes = classes or right
    with made_folder(output), progress(method, ends=False) as advance:
        drawn = draw(source, pictures, method, classes, names=names, on_progress=advance, **options)
        for name, drawing in drawn:
            path = output / f"{name}.{method}.png"
            save_picture(drawing.pixels, path)
            rows.append({"file": str(path), "method": method, **drawing.facts})
            note(f"{path}: {drawing.caption}")
    if as_json:
        emit(rows)
    if broken:
        raise typer.Exit(1)


def _check_subjects(
    method: str, images: list[Path], data: str | None, target: list[str] | None
) -> None:
    """`UsageError` where there is nothing of what the method explains."""
    from striate.errors import DataError, UsageError
    from striate.explain import needed

    if needed(method) in ("pictures", "set") and not images and data is None:
        raise UsageError(f"{method} explains pictures: name some, or a data set with --data")
    if needed(method) == "classes" and not target:
        raise UsageError(f"{method} draws what a class looks like: name it with --class")
    if missing := [path for path in images if not path.is_file()]:
        raise DataError(f"{missing[0]}: cannot be read (there is no such picture)")


def _list(as_json: bool) -> None:
    from striate.explain import METHODS
    from striate.explain.views import VIEWS

    rows = [
        {"method": name, "needs": "pictures", "says": m.measures} for name, m in METHODS.items()
    ]
    rows += [{"method": name, "needs": v.of, "says": v.shows} for name, v in VIEWS.items()]
    if as_json:
        emit(rows)
        return
    table(["method", "needs", "says"], [list(row.values()) for row in rows])


def _labelled(
    artifact: "Artifact", data: str, split: str | None, most: int
) -> tuple["np.ndarray", list[int], list[str]]:
    """(pixels, right classes, names) of some pictures of a data set."""
    from striate.evaluate import questions_of
    from striate.evaluate.answers import read

    questions = questions_of(artifact, data, split)[1]
    pixels, right, names = read(questions, artifact.preprocess, most, seed=0)
    return pixels, right.tolist(), [Path(name).with_suffix("").as_posix() for name in names]


def _options(settings: list[str]) -> dict[str, Any]:
    import yaml

    from striate.errors import UsageError
    from striate.yaml_text import read_yaml

    options = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise UsageError(f"expected --set NAME=VALUE, such as window=0.3, got {setting!r}")
        try:
            options[name] = read_yaml(value)
        except yaml.YAMLError:
            raise UsageError(f"expected a value after {name}=, got {value!r}") from None
    return options
