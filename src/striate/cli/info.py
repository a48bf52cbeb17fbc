"""`striate info`: one net of the registry, or one artifact; its layers and its picture."""

import re
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from striate.cli.console import Json, emit, facts, load_tensorflow, table
from striate.committee import NAME as ENSEMBLE
from striate.errors import UsageError
from striate.files import check_writable
from striate.libraries import need

if TYPE_CHECKING:
    from striate.costs import LayerCosts, Totals
    from striate.registry import Accuracy, ModelSpec

BATCHES = (1, 32)  # whose memory is told


def info(
    name: Annotated[str, typer.Argument(help="A net (`striate models`) or an artifact directory.")],
    layers: Annotated[
        bool, typer.Option("--layers", help="Also list the layers and what each costs.")
    ] = False,
    input_shape: Annotated[
        str | None, typer.Option(help="Of a net: another input, such as 96,96,3.")
    ] = None,
    num_classes: Annotated[int | None, typer.Option(help="Of a net: another number.")] = None,
    png: Annotated[Path | None, typer.Option(help="Draw the net into this file.")] = None,
    svg: Annotated[Path | None, typer.Option(help="Draw the net into this file.")] = None,
    as_json: Json = False,
) -> None:
    """Describe a net or an artifact: facts, work, layers, a picture."""
    artifact = Path(name).is_dir()
    if artifact and (input_shape or num_classes is not None):
        raise UsageError("an artifact's input and classes are fixed: expected the name of a net")
    pictures = [(path, ending) for path, ending in ((png, ".png"), (svg, ".svg")) if path]
    if pictures:
        need("a picture of a net", "matplotlib")
    for path, ending in pictures:
        check_writable(path, ending=ending)
    shape = _shape(input_shape)
    document = _artifact(name) if artifact else _net(name, shape, num_classes)
    if artifact and pictures and document["model"]["name"] == ENSEMBLE:
        raise UsageError(f"{name}: an ensemble has no picture of its own; draw its members")
    if layers or pictures:
        model = _trained(name) if artifact else _built(name, shape, num_classes)
        if layers:
            document["layers"] = _layers(model)
        if pictures:
            _draw(model, [path for path, _ in pictures])
    if as_json:
        emit(document)
        return
    rows = document.pop("layers", None)
    facts((_spoken_artifact if artifact else _spoken)(document))
    if rows:
        _print_layers(rows)


# === A net ===


def _net(name: str, shape: tuple[int, ...] | None, num_classes: int | None) -> dict[str, Any]:
    from striate.registry import get_spec

    spec = get_spec(name)
    parameters, costs = (spec.trainable, spec.total), spec.costs
    if shape or num_classes is not None or costs is None:
        parameters, costs = _counted(spec, shape, num_classes)
    return {
        **spec.to_dict(),
        "input_shape": list(shape or spec.input_shape),
        "classes": spec.classes if num_classes is None else num_classes,
        "trainable": parameters[0],
        "total": parameters[1],
        "macs": costs.macs,
        "activations": costs.activations,
        "memory": _memory(*parameters, costs),
        "receptive_field": costs.receptive_field,
        "jump": costs.jump,
        "title": spec.title,
        "paper": spec.paper,
        "min_size": spec.min_size,
        "accuracy": spec.accuracy and _accuracy(spec.accuracy),
        "differs": spec.differs,
        "options": dict(spec.options),
        "cam_layer": spec.cam_layer,
        "pyramid": list(spec.pyramid),
    }


def _accuracy(accuracy: "Accuracy") -> str:
    top5 = f" top-1, {accuracy.top5} % top-5" if accuracy.top5 else ""
    return f"{accuracy.top1} %{top5} on {accuracy.dataset} ({accuracy.source})"


def _counted(
    spec: "ModelSpec", shape: tuple[int, ...] | None, num_classes: int | None
) -> tuple[tuple[int, int], "Totals"]:
    """The parameters, those that train and all, and the costs of a net as it is asked for."""
    from striate.costs import count

    model = _built(spec.name, shape, num_classes)
    trainable = sum(prod(weight.shape) for weight in model.trainable_weights)
    return (trainable, model.count_params()), count(model).totals(spec.cam_layer)


def _memory(trainable: int, total: int, costs: "Totals") -> dict[str, dict[str, int]]:
    """Bytes for answering and for training, by the size of the batch."""
    from striate.arithmetic import inference_memory, training_memory

    return {
        "inference": {str(n): inference_memory(total, costs.live, n) for n in BATCHES},
        "training": {
            str(n): training_memory(total, costs.activations, n, trainable=trainable)
            for n in BATCHES
        },
    }


def _built(name: str, shape: tuple[int, ...] | None, num_classes: int | None) -> Any:
    from striate.registry import check_asked, create_model, without_values

    check_asked(name, shape, num_classes)
    load_tensorflow()
    with without_values():
        return create_model(name, input_shape=shape, num_classes=num_classes)


def _shape(text: str | None) -> tuple[int, ...] | None:
    """96,96,3 or 96x96x3 as numbers."""
    if text is None:
        return None
    if not re.fullmatch(r"\d+([,x ]\s*\d+)*", text):
        raise UsageError(f"--input-shape: expected numbers such as 96,96,3, got {text!r}")
    return tuple(map(int, re.findall(r"\d+", text)))


def _spoken(document: dict[str, Any]) -> dict[str, str]:
    """The same facts for a person."""
    memory = document["memory"]
    weights, paper = ", ".join(document["pretrained"]), document["paper"]
    paper = f"arXiv:{paper}" if re.fullmatch(r"\d{4}\.\d{4,5}", paper) else paper
    lines = {
        "name": f"{document['name']}, of the family {document['family']}",
        "paper": f"{document['title']}, {document['year']}, {paper}",
        "differs": document["differs"],
        "accuracy": document["accuracy"],
        "weights": weights and f"{weights} (create_model(..., weights={weights.split(',')[0]!r}))",
        "input": f"{_times(document['input_shape'])}, least side {document['min_size']}",
        "classes": f"{document['classes']:,}",
        "parameters": f"{document['trainable']:,} that train, {document['total']:,} in all",
        "work": f"{document['macs']:,} multiply-adds a picture",
        **{
            f"memory to {verb}": ", ".join(
                f"{_bytes(size)} at batch {batch}" for batch, size in sizes.items()
            )
            for verb, sizes in (("answer", memory["inference"]), ("train", memory["training"]))
        },
        "receptive field": _sight(document),
        "pyramid": ", ".join(document["pyramid"]),
        "options": _settings(document["options"]),
    }
    return {key: value for key, value in lines.items() if value}


def _settings(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in values.items())


def _sight(document: dict[str, Any]) -> str:
    if not document["cam_layer"]:
        return ""
    if document["receptive_field"] is None:
        return f"the whole input, at {document['cam_layer']}"
    field, jump = _times(document["receptive_field"]), _times(document["jump"])
    return f"{field} of the input, in steps of {jump}, at {document['cam_layer']}"


# === Its layers and its picture ===


def _layers(model: Any) -> list[dict[str, Any]]:
    from striate.costs import count

    return [_layer(row) for row in count(model).layers]


def _layer(row: "LayerCosts") -> dict[str, Any]:
    return {
        "name": row.name,
        "kind": row.kind,
        "output": list(row.output),
        "parameters": row.parameters,
        "macs": row.macs,
        "activation_bytes": 4 * row.activations,
        "receptive_field": row.receptive_field and list(row.receptive_field),
        "jump": row.jump and list(row.jump),
    }


def _print_layers(rows: list[dict[str, Any]]) -> None:
    table(
        ["layer", "kind", "output", "parameters", "MACs", "activation bytes", "sees"],
        [
            [
                row["name"],
                row["kind"],
                _times(row["output"]),
                row["parameters"],
                row["macs"],
                row["activation_bytes"],
                _times(row["receptive_field"]) if row["receptive_field"] else "all",
            ]
            for row in rows
        ],
        spare=["kind", "activation bytes", "sees"],
    )
    sums = (sum(row[key] for row in rows) for key in ("parameters", "macs", "activation_bytes"))
    print("{:,} parameters, {:,} multiply-adds, {:,} bytes of activations".format(*sums))


def _draw(model: Any, paths: list[Path]) -> None:
    from striate.diagram import draw

    draw(model, *paths)


def _times(sides: Any) -> str:
    return " x ".join(map(str, sides))


def _bytes(size: int) -> str:
    for unit, name in ((10**9, "GB"), (10**6, "MB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}" if size < 1000 * unit else f"{size // unit:,} {name}"
    return f"{size / 1000:.3g} kB"


# === An artifact ===


def _trained(path: str) -> Any:
    load_tensorflow()
    from striate.artifact import load

    return load(path).model


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
        "labels": artifact.labels,
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


def _spoken_artifact(document: dict[str, Any]) -> dict[str, str]:
    """The same facts for a person."""
    net, metrics = document["model"], document["metrics"]
    version = "" if document["version"] is None else f", version {document['version']}"
    lines = {
        "path": document["path"],
        "name": f"{document['name']}{version}, written {document['created']}",
        "net": _spoken_net(net),
        "input": _times(net["input_shape"]),
        "pixels": _settings({k: _short(v) for k, v in document["preprocess"].items()}),
        "classes": f"{net['num_classes']:,}: {_listed(document['labels'])}",
        "training": _training(metrics.get("training", {}).get("history", [])),
        **{
            f"accuracy, {split}": _accuracy_on(metrics[split])
            for split in ("folds", "val", "test", "adopted")
            if split in metrics
        },
        "forms": ", ".join(f"{form} {_bytes(size)}" for form, size in document["forms"].items()),
        "made with": ", ".join(f"{name} {v}" for name, v in document["environment"].items()),
        "licence": document["licence"],
    }
    return {key: value for key, value in lines.items() if value}


def _spoken_net(net: dict[str, Any]) -> str:
    """The net with its options, or an ensemble's members with their nets."""
    if net["name"] == ENSEMBLE:
        return f"ensemble of {', '.join(_member(m) for m in net['options']['members'])}"
    options = _settings(net["options"])
    return f"{net['name']}{f' ({options})' if options else ''}"


def _member(member: dict[str, Any]) -> str:
    """A member of an ensemble: an artifact, or a snapshot of the run that wrote it."""
    where = [str(member[key]) for key in ("artifact", "version") if member.get(key)]
    return f"{'/'.join(where)} ({member['model']})" if where else member["model"]


def _short(value: Any) -> Any:
    """The value, or how many numbers it has where these are many."""
    return f"{len(value)} numbers" if isinstance(value, list | tuple) and len(value) > 4 else value


def _listed(labels: list[str], most: int = 8) -> str:
    more = f", and {len(labels) - most:,} more" if len(labels) > most else ""
    return ", ".join(labels[:most]) + more


def _training(history: list[dict[str, Any]]) -> str:
    """Its phases with their epochs, and how long it took."""
    epochs = {row["phase"]: row.get("epoch", 0) for row in history}
    seconds = sum(row["seconds"] for row in history)
    phases = [f"{name}, {n} epoch{'s' * (n > 1)}" if n else name for name, n in epochs.items()]
    took = f"{seconds / 60:.0f} min" if seconds > 120 else f"{seconds:.0f} s"
    return f"{'; '.join(phases)}; {took}" if history else ""


def _accuracy_on(found: dict[str, Any]) -> str:
    low, high = found["accuracy_interval"]
    return f"{found['accuracy']:.1%} ({low:.1%} to {high:.1%}) of {found['n']:,} pictures"
