"""`striate info`: one net of the registry, or one artifact."""

from pathlib import Path
from typing import Annotated, Any

import typer

from striate.cli.console import Json, emit, load_tensorflow, table


def info(
    name: Annotated[str, typer.Argument(help="A net (`striate models`) or an artifact directory.")],
    layers: Annotated[bool, typer.Option(help="Also list a net's layers.")] = False,
    as_json: Json = False,
) -> None:
    """Describe one net, or one artifact."""
    document = _artifact(name) if Path(name).is_dir() else _net(name, layers)
    if as_json:
        emit(document)
        return
    rows = document.pop("layers", None)
    for key, value in document.items():
        print(f"{key:>14}  {value}")
    if rows:
        table(["layer", "kind", "output", "parameters"], [list(row.values()) for row in rows])


def _net(name: str, layers: bool) -> dict[str, Any]:
    from striate.registry import create_model, get_spec

    spec = get_spec(name)
    document = {
        **spec.to_dict(),
        "title": spec.title,
        "paper": spec.paper,
        "min_size": spec.min_size,
        "accuracy": spec.accuracy
        and f"{spec.accuracy.top1} % on {spec.accuracy.dataset} ({spec.accuracy.source})",
        "differs": spec.differs,
        "options": dict(spec.options),
        "cam_layer": spec.cam_layer,
        "pyramid": list(spec.pyramid),
    }
    if layers:
        load_tensorflow()
        document["layers"] = [
            {
                "name": layer.name,
                "kind": type(layer).__name__,
                "output": " x ".join(str(n) for n in layer.output.shape[1:]),
                "parameters": layer.count_params(),
            }
            for layer in create_model(name).layers
        ]
    return document


def _artifact(path: str) -> dict[str, Any]:
    from striate.artifact import load

    artifact = load(path)
    artifact.check()
    manifest = artifact.manifest
    return {
        "path": str(artifact.path),
        "name": artifact.name,
        "version": artifact.version,
        "created": manifest.created,
        "model": manifest.model,
        "labels": artifact.labels if len(artifact.labels) <= 20 else f"{len(artifact.labels)}",
        "preprocess": manifest.preprocess,
        "metrics": manifest.metrics,
        "forms": {
            name: sum(manifest.files[f]["bytes"] for f in record.get("files", ()))
            or manifest.files["model.keras"]["bytes"]
            for name, record in manifest.forms.items()
        },
        "environment": manifest.environment,
        "licence": manifest.licence,
    }
