"""`striate predict`: name what is in pictures."""

from pathlib import Path
from typing import Annotated

import typer

from striate.cli.console import Json, emit, load_tensorflow, note, quiet_libraries
from striate.cli.evaluate import Engine
from striate.cli.pictures import readable


def predict(
    artifact: Annotated[Path, typer.Argument(help="Artifact directory, NAME or NAME/VERSION.")],
    images: Annotated[list[Path], typer.Argument(help="Pictures, or folders of them.")],
    engine: Engine = "auto",
    top: Annotated[int, typer.Option(min=1, help="How many classes to name.")] = 5,
    as_json: Json = False,
) -> None:
    """Name what is in pictures, likeliest first."""
    import numpy as np

    from striate.artifact import load
    from striate.data.files import named
    from striate.errors import EngineError, UsageError
    from striate.runtime import needs_tensorflow, open_engine

    loaded = load(artifact)
    if needs_tensorflow(loaded, engine):
        load_tensorflow()
    with quiet_libraries():
        opened = open_engine(loaded, engine)
    if loaded.preprocess.kind == "picture":
        images = named(images)
    answers = []
    for path, tensor in readable(images, loaded.preprocess):
        scores = opened.predict(tensor[np.newaxis])[0]
        if scores.ndim > 1:
            raise UsageError(
                f"{loaded.path}: expected a net that names what is in a picture, got one that "
                f"answers with a map {list(scores.shape)}; ask it in Python"
            )
        if not np.isfinite(scores).all():
            raise EngineError(
                f"{path}: the {opened.name} engine's scores are no numbers (NaN); "
                f"`striate export {artifact} --check` says which forms agree"
            )
        order = np.argsort(-scores, kind="stable")[:top]
        best = [
            {"index": int(i), "label": loaded.labels[i], "score": float(scores[i])} for i in order
        ]
        answers.append({"path": str(path), "engine": opened.name, "top": best})
    if as_json:
        emit(answers)
    else:
        _print(answers, opened.kernel)
    if len(answers) < len(images):
        raise typer.Exit(1)


def _print(answers: list[dict], kernel: str) -> None:
    for answer in answers:
        print(answer["path"])
        for row in answer["top"]:
            print(f"  {row['score']:7.2%}  {row['label']}")
    if answers:
        note(f"answered by {kernel}")
