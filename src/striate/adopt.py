"""A Keras net that striate did not build becomes an artifact, to be exported and served like any.

    artifact = adopt("my_net.keras", "saved_models/mine", data="my_pictures/", preprocess="unit")

What the net says stays what it said. What an artifact asks for is brought about: one flat graph
from normalised floats to logits, without the softmax at its end. Whether pixels are normalised as
in its training, and labels in its order, nothing in a net can tell; pictures that come along can.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from striate import artifact
from striate.artifact import Artifact
from striate.data import Dataset, load
from striate.data.dataset import composed
from striate.data.splits import evenly
from striate.errors import ArtifactError, UsageError, check_whole, first_line
from striate.lazy import Verb, keras
from striate.metrics import share
from striate.preprocess import Preprocess, preset
from striate.registry import Places, deep_graphs

sys.modules[__name__].__class__ = Verb  # striate.adopt(...) is striate.adopt.adopt(...)

GOLDENS = 8
MOST = 1000  # pictures that the net is tried on
PREFIX = "keras:"  # before the name of the net, which no net of the registry has


def adopt(
    model: Any,
    output: str | os.PathLike,
    *,
    data: str | os.PathLike | Dataset,
    preprocess: str | Preprocess,
    labels: Sequence[str] | None = None,
    size: int | tuple[int, int] | None = None,
) -> Artifact:
    """Write a trained Keras net as an artifact: the next free version under `output`.

    model: a functional or Sequential `keras.Model`, or the path of a `.keras` or `.h5` file; one
        input, [N, H, W, C], and one output, [N, classes]: logits, a softmax of them, or, of two
        classes, a sigmoid [N, 1], the probability of the second. Nets within it are laid open.
    data: labelled pictures, as `striate.data.load` reads them, out of which come the goldens and
        the drift baseline; `metrics["adopted"]` says how many of them (1,000 at most) the net names
        rightly. Few, and `preprocess` or the order of the labels is not that of its training.
    preprocess: how it was given pictures: a preset's name ("raw" for 0 to 255, "unit" for 0 to 1,
        "tf", "torch", "caffe", ...), the whole picture being resized, or a `Preprocess`.
    labels: the names of its classes in its order; by default those of the data, of a folder in the
        order of `keras.utils.image_dataset_from_directory`.
    size: of the pictures, where the net takes any.

    Raises `UsageError` for a net that cannot be held so, `ArtifactError` for a file that cannot be
    read and `DataError` for pictures that cannot be used.

    >>> adopt(net, "saved_models/mine", data="my_pictures/", preprocess="unit").manifest.metrics
    {'adopted': {'n': 344, 'accuracy': 0.93, 'accuracy_interval': [0.898, 0.953]}}
    """
    check_asked(model, preprocess, size)
    net = _with_logits(_flat(_sized(_opened(model), size)))
    spec = _spec_of(net, preprocess)
    dataset = data if isinstance(data, Dataset) else load(data, kind=spec.kind, classes=labels)
    names = composed(labels or _names(dataset))
    if len(names) != net.output_shape[-1]:
        raise UsageError(
            f"{net.name}: expected {net.output_shape[-1]} classes, one for each of its outputs, "
            f"got {len(names)}: {', '.join(names[:5])}{', ...' * (len(names) > 5)}; "
            "labels may name them all"
        )
    artifact.check_net(net, names, spec)
    targets = dataset.targets(names, net.name)
    examples = dataset.examples(spec, evenly(len(dataset), MOST))
    pictures = examples.pixels(np.arange(len(examples)))
    _check_logits(net, spec, pictures[:GOLDENS])
    scores = artifact.scores_of(artifact.classifier(net, spec), pictures)
    problems = (*dataset.problems, *examples.problems)
    return artifact.write_version(
        output,
        model=net,
        labels=names,
        preprocess=spec,
        model_name=f"{PREFIX}{net.name}",
        places=places_in(net),
        goldens=pictures[evenly(len(pictures), GOLDENS)],
        metrics={"adopted": share(scores.argmax(axis=-1) == targets[examples.labels])},
        data={"left_out": [str(problem) for problem in problems if problem.leaves_out]},
        drift_baseline=artifact.drift_baseline(pictures, scores),
    )


def check_asked(
    model: Any, preprocess: str | Preprocess, size: int | tuple[int, int] | None = None
) -> None:
    """Raise what `adopt` raises for a file that is not there, a preset that is none and a size that
    cannot be; no Keras is loaded for it."""
    if isinstance(model, str | os.PathLike) and not Path(model).is_file():
        raise ArtifactError(f"{model}: expected a .keras or .h5 file, got nothing there")
    if isinstance(preprocess, str):
        preset(preprocess, 1, 1)
    elif not isinstance(preprocess, Preprocess):
        raise UsageError(f"expected preprocess as a preset's name, got {preprocess!r:.60}")
    sides = (1, 1) if size is None else _both(size)
    if len(sides) != 2:
        raise UsageError(f"expected size as one side or as (height, width), got {size!r}")
    for side in sides:
        check_whole("size", side, 1)


def _both(size: int | tuple[int, int]) -> tuple[int, ...]:
    return tuple(size) if isinstance(size, tuple | list) else (size, size)


def _names(dataset: Dataset) -> list[str]:
    """The classes as whoever trained on the data has numbered them: Keras sorts folders as text."""
    folders = Path(dataset.source).is_dir()
    return sorted(dataset.classes) if folders else list(dataset.classes)


# === The net ===


def _opened(model: Any) -> Any:
    """The net itself, or the one in a file."""
    if isinstance(model, str | os.PathLike):
        path = Path(model)
        try:
            model = keras.saving.load_model(path, compile=False)
        except Exception as error:  # Keras has many for a file that it cannot read
            why = f"Keras reads none ({first_line(error)})"
            raise ArtifactError(f"{path}: expected a whole net, {why}") from error
    if not isinstance(model, keras.Model):
        raise UsageError(f"expected a Keras net or its file, got {model!r:.100}")
    _check_graph(model)
    if len(model.outputs[0].shape) != 2:
        raise UsageError(
            f"{model.name}: expected an output [N, classes], got {list(model.outputs[0].shape)}"
        )
    return model


def _check_graph(model: Any) -> None:
    """`UsageError` for a net whose layers are not known, or with several inputs or outputs."""
    if not _is_graph(model) or not model.built:
        raise UsageError(
            f"{model.name}: expected a functional or Sequential net whose input has a shape, "
            f"got a {type(model).__name__}"
        )
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise UsageError(
            f"{model.name}: expected a net of one input and one output, got {len(model.inputs)} "
            f"and {len(model.outputs)}"
        )


def _is_graph(layer: Any) -> bool:
    return isinstance(layer, keras.Sequential) or type(layer).__name__ == "Functional"


def _sized(net: Any, size: int | tuple[int, int] | None) -> Any:
    """The net for pictures of one size."""
    shape = net.inputs[0].shape[1:]
    if len(shape) != 3 or shape[-1] is None:
        raise UsageError(
            f"{net.name}: expected an input [N, H, W, C], got {list(net.inputs[0].shape)}"
        )
    wanted = shape[:2] if size is None else _both(size)
    if None in wanted:
        raise UsageError(f"{net.name} takes pictures of any size: say which, as size=224")
    if any(own not in (None, side) for own, side in zip(shape, wanted, strict=False)):
        raise UsageError(f"{net.name}: expected size {shape[0]} x {shape[1]}, got {wanted}")
    if None not in shape:
        return net
    try:
        sized = keras.models.clone_model(net, input_tensors=keras.Input((*wanted, shape[-1])))
    except (ValueError, UsageError) as error:  # a window larger than what is left, say
        raise UsageError(
            f"{net.name}: expected a size that its layers can take, got {wanted} "
            f"({first_line(error)})"
        ) from error
    sized.set_weights(net.get_weights())
    return sized


def _flat(net: Any) -> Any:
    """A copy of the net, with the layers of the nets within it among its own.

    What explains a net looks at its layers one by one. Raises `UsageError` for a layer of the
    user's own, which no other process could load.
    """
    copies: list[tuple[Any, Any]] = []
    with deep_graphs():
        laid = _laid_open(net, copies, set())
        for layer, copy in copies:
            if isinstance(layer, keras.layers.Layer):  # and no operation of keras.ops
                copy.set_weights(layer.get_weights())
        flat = keras.models.clone_model(laid)  # whose layers remember no other graph
    flat.set_weights(laid.get_weights())
    return flat


def _laid_open(net: Any, copies: list[tuple[Any, Any]], taken: set[str]) -> Any:
    """The flat copy, without its weights; (layer, copy) are added to `copies`, names to `taken`."""

    def copy_of(layer: Any) -> Any:
        if _is_graph(layer):
            _check_graph(layer)
            return _laid_open(layer, copies, taken)
        _check_known(net, layer)
        name = layer.name if layer.name not in taken else f"{net.name}_{layer.name}"
        taken.add(name)
        copy = type(layer).from_config({**layer.get_config(), **_in_floats(layer), "name": name})
        copies.append((layer, copy))
        return copy

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        return layer.call(args[0]) if _is_graph(layer) else layer(*args, **kwargs)

    if isinstance(net, keras.Sequential):
        net = keras.Model(net.inputs[0], net.outputs[0], name=net.name)
    return keras.models.clone_model(net, clone_function=copy_of, call_function=call)


def _in_floats(layer: Any) -> dict[str, str]:
    """What makes float32 of a layer that learnt in fewer bits."""
    policy = getattr(layer, "dtype_policy", None)
    fewer = policy and "float16" in (policy.compute_dtype or "") and not policy.quantization_mode
    return {"dtype": "float32"} if fewer else {}


def _check_known(net: Any, layer: Any) -> None:
    kind = type(layer)
    ours = kind.__module__.split(".")[0] in ("keras", "striate")
    if not ours or kind.__name__ == "Lambda":
        raise UsageError(
            f"{net.name}: expected layers of Keras or striate, which every process can load, got "
            f"{layer.name!r}, a {kind.__module__}.{kind.__name__}; write what it computes with "
            "keras.ops"
        )


def _with_logits(net: Any) -> Any:
    """The net without the softmax, or sigmoid, at its end. The net is ours to change."""
    end = net.outputs[0]
    last, outputs = end._keras_history.operation, end.shape[-1]
    softmax = type(last).__name__ == "Softmax"
    says = (
        "softmax" if softmax else getattr(getattr(last, "activation", None), "__name__", "linear")
    )
    fits = ("linear", "sigmoid") if outputs == 1 else ("linear", "softmax")
    if says not in fits:
        raise UsageError(
            f"{net.name}: expected logits or probabilities of one class out of several "
            f"({' or '.join(fits)} at the end of {outputs} outputs), got {says}"
        )
    if softmax and getattr(last, "axis", -1) not in (-1, 1):
        raise UsageError(
            f"{net.name}: expected a softmax over the classes, got one along axis {last.axis}"
        )
    if softmax:
        end = last.input
    elif says != "linear":
        last.activation = keras.activations.linear
    if outputs == 1:  # softmax of (0, z) is sigmoid of z
        nothing = keras.layers.Rescaling(0.0, name="logits_first")(end)
        end = keras.layers.Concatenate(name="logits")([nothing, end])
    return keras.Model(net.inputs[0], end, name=net.name)


def _check_logits(net: Any, spec: Preprocess, pictures: np.ndarray) -> None:
    """Raise `UsageError` for probabilities, whose softmax would be taken once more, and for what is
    no number."""
    said = keras.ops.convert_to_numpy(net(spec.layer()(pictures), training=False))
    if not np.isfinite(said).all():
        raise UsageError(
            f"{net.name}: expected finite answers, got {said[~np.isfinite(said)][0]} for a picture "
            "of the data; its weights may have come out of a training that failed"
        )
    if np.all(said >= 0) and np.allclose(said.sum(axis=-1), 1, atol=1e-3):
        last = net.outputs[0]._keras_history.operation
        raise UsageError(
            f"{net.name}: expected logits, or a softmax at the end, got probabilities out of "
            f"{last.name!r}, a {type(last).__name__}; end the net in keras.layers.Softmax"
        )


def _spec_of(net: Any, preprocess: str | Preprocess) -> Preprocess:
    shape = net.input_shape[1:]
    if shape[-1] not in (1, 3):
        raise UsageError(f"{net.name}: expected pictures of 1 or 3 channels, got {shape[-1]}")
    return preset(preprocess, *shape, fit="stretch") if isinstance(preprocess, str) else preprocess


def places_in(net: Any) -> Places:
    """Where to look in a flat net that no spec describes: the first kernels, from there on the last
    maps of each size, and what the classifier reads."""
    first_conv = ""
    maps: dict[tuple[int, ...], str] = {}
    for layer in net.layers:
        if not first_conv and len(getattr(layer, "kernel", np.empty(0)).shape) == 4:
            first_conv = layer.name
        shape = getattr(getattr(layer, "output", None), "shape", ())  # none of one that is shared
        if first_conv and len(shape) == 4 and min(shape[1:3]) > 1:
            maps[shape[1:3]] = layer.name
    pyramid = tuple(maps.values())
    head = classifier_in(net)
    features = head.input._keras_history.operation.name if head else ""
    return Places(net.name, first_conv, pyramid[-1] if pyramid else "", features, pyramid)


def classifier_in(net: Any) -> Any:
    """The dense layer that makes logits of a vector, the answer of another layer; None where there
    is none, or something that has learnt lies between it and the net's answer."""
    tensor = net.outputs[0]
    layer, reads = _made_by(tensor)
    while not isinstance(layer, keras.layers.Dense):
        both_of_one = layer.name == "logits"  # of one output, as `_with_logits` does it
        if getattr(layer, "weights", None) or not (len(reads) == 1 or (reads and both_of_one)):
            return None
        layer, reads = _made_by(reads[-1])
    of_layer = isinstance(_made_by(reads[0])[0], keras.layers.Layer)
    return layer if of_layer and len(reads[0].shape) == 2 else None


def _made_by(tensor: Any) -> tuple[Any, list[Any]]:
    """The layer, or operation, that a tensor comes from, and what it has read for it."""
    made, node, _ = tensor._keras_history
    return made, made._inbound_nodes[node].input_tensors
