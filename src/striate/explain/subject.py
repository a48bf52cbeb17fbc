"""The net under the lens: what every method of explaining asks of it, and nothing more."""

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from striate import gradients
from striate.artifact import Artifact, load
from striate.costs import calls_of
from striate.errors import UsageError, did_you_mean
from striate.lazy import keras
from striate.preprocess import Preprocess, Spec, preset
from striate.registry import ModelSpec, Places, deep_graphs, get_spec, list_models

Tensor = Any


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """A classifier, from pixels to logits, with the layers that its spec names.

    Pixels are float32 [N, H, W, C] on 0 to 255, RGB, at the size of the net's input, so that a
    gradient says what one grey level would change. Scores are logits: a probability also moves when
    another class does, and its gradient vanishes where the net is sure.

    net: normalised floats -> logits; labels: the classes' names, "0", "1", ... without any.
    """

    net: Any
    preprocess: Spec
    spec: ModelSpec | Places
    labels: tuple[str, ...]

    @functools.cached_property
    def normalise(self) -> Any:
        """The layer pixels -> the net's input."""
        return self.preprocess.layer()

    def logits(self, pixels: Tensor) -> Tensor:
        """float32 [N, classes] of pixels, in inference mode."""
        return self.net(self.normalise(pixels), training=False)

    def scores(self, pixels: Tensor, targets: np.ndarray) -> Tensor:
        """float32 [N]: the logit of each picture's target."""
        return of_targets(self.logits(pixels), targets)

    def at(self, layer: str, pixels: Tensor) -> Tensor:
        """The output of one layer for pixels."""
        part = self._cut("at", layer, self.net.input, self.layer(layer).output)
        return part(self.normalise(pixels), training=False)

    def beyond(self, layer: str, maps: Tensor, beside: Sequence[Tensor] = ()) -> Tensor:
        """The logits that follow from the output of one layer, and of those `beside` it."""
        starts, given = [self.layer(layer).output, *self._past(layer)], [maps, *beside]
        alone = len(starts) == 1
        part = self._cut("beyond", layer, starts[0] if alone else starts, self.net.output)
        return part(given[0] if alone else given, training=False)

    def beside(self, layer: str, pixels: Tensor) -> list[Tensor]:
        """What reaches the classifier past a layer: shortcuts, other paths, earlier stages."""
        past = self._past(layer)
        if not past:
            return []
        found = self._cut("beside", layer, self.net.input, past)(
            self.normalise(pixels), training=False
        )
        return found if len(past) > 1 else [found]

    def _past(self, layer: str) -> list[Any]:
        """The tensors that meet what follows from a layer, and do not follow from it."""
        follow = {id(self.layer(layer).output)}
        past = {}
        for _, inputs, output in calls_of(self.net):
            if any(id(x) in follow for x in inputs):
                follow.add(id(output))
                past |= {id(x): x for x in inputs if id(x) not in follow}
        return list(past.values())

    @functools.cached_property
    def _cuts(self) -> dict[tuple[str, str], Any]:
        return {}

    def _cut(self, part: str, layer: str, start: Any, end: Any) -> Any:
        """A part of the net on one side of a layer, made once."""
        if (part, layer) not in self._cuts:
            with deep_graphs():
                self._cuts[part, layer] = keras.Model(start, end)
        return self._cuts[part, layer]

    def layer(self, name: str) -> Any:
        """One layer of the net; `UsageError` with the nearest name where there is none."""
        names = [layer.name for layer in self.net.layers]
        if name not in names:
            raise UsageError(
                f"{self.spec.name} has no layer {name!r}.{did_you_mean(name, names)} "
                "`striate info NAME --layers` lists them."
            )
        return self.net.get_layer(name)

    def unit(self, layer: str, number: Any) -> int:
        """The number of one map (or one value) of a layer; `UsageError` for one that it lacks."""
        units = self.layer(layer).output.shape[-1]
        if not str(number).isdecimal() or int(number) >= units:
            raise UsageError(f"expected a unit of {layer} from 0 to {units - 1}, got {number}")
        return int(number)

    def cam_layer(self, layer: str | None = None) -> str:
        """The last maps [N, h, w, c] before the classifier: the spec's, or the one asked for.

        Raises `UsageError` for a net that has no maps, and for a layer that gives none.
        """
        name = layer or self.spec.cam_layer
        if not name:
            raise UsageError(
                f"{self.spec.name} has no maps to look at; saliency and occlusion work"
            )
        shape = self.layer(name).output.shape
        if len(shape) != 4:
            raise UsageError(
                f"{self.spec.name}: expected a layer with maps [h, w, channels], "
                f"got {name!r} with {shape[1:]}"
            )
        return name

    def targets(self, wanted: Any, logits: np.ndarray) -> np.ndarray:
        """int64 [N]: the classes to explain, by default what the net answers.

        wanted: None, an index, a label, or one of them for each picture.
        """
        if wanted is None:
            return logits.argmax(axis=-1)
        if isinstance(wanted, str) or np.ndim(wanted) == 0:
            each = [wanted] * len(logits)
        else:
            each = list(wanted)
        if len(each) != len(logits):
            raise UsageError(
                f"expected one class for all pictures, or one for each of {len(logits)}, "
                f"got {len(each)}"
            )
        return np.array([self.index(target) for target in each], np.int64)

    def index(self, target: Any) -> int:
        """A class as its number, from its label or its number; `UsageError` for any other."""
        if isinstance(target, str) and target in self.labels:
            return self.labels.index(target)
        if str(target).isdecimal() and int(target) < len(self.labels):
            return int(target)
        raise UsageError(
            f"expected a class of {self.spec.name} as its label or as an index from 0 to "
            f"{len(self.labels) - 1}, got {target!r}.{did_you_mean(str(target), self.labels)}"
        )


def subject_of(source: Any, preprocess: Spec | None = None) -> Subject:
    """The subject of an artifact, of the one at a path, or of a net that `create_model` built.

    preprocess: for a net, how its pixels are normalised; by default as its spec says. Raises
    `UsageError` for a net that takes no pictures in grey or colour, or whose answer is a map.
    """
    if isinstance(source, str | os.PathLike):
        source = load(source)
    if isinstance(source, Artifact):
        check_artifact(source)
        subject = Subject(source.model, source.preprocess, source.places, tuple(source.labels))
    else:
        spec = _spec_of(source)
        _check_pictures(source, spec)
        labels = tuple(str(i) for i in range(source.output_shape[-1]))
        chosen = preprocess or preset(spec.preprocess, *source.input_shape[1:])
        subject = Subject(source, chosen, spec, labels)
    _check_pictures(subject.net, subject.spec)
    return subject


def _check_pictures(net: Any, spec: ModelSpec | Places) -> None:
    if len(net.input_shape) != 4 or len(net.output_shape) != 2:
        raise UsageError(
            f"{spec.name}: expected a net that classifies pictures, got one from "
            f"{net.input_shape[1:]} to {net.output_shape[1:]}"
        )
    if net.input_shape[-1] not in (1, 3):
        raise UsageError(
            f"{spec.name}: expected a net of pictures in grey or colour, 1 or 3 channels, got "
            f"{net.input_shape[-1]}"
        )


def check_artifact(artifact: Artifact) -> None:
    """`UsageError` for an artifact whose net cannot be explained; its weights are not loaded."""
    if artifact.places is None:
        raise UsageError(
            f"{artifact.path}: expected a net that `striate models` lists or that was adopted, "
            f"got {artifact.manifest.model['name']!r}; of an ensemble, explain its members"
        )
    if not isinstance(artifact.preprocess, Preprocess):
        raise UsageError(
            f"{artifact.path}: expected a net that classifies pictures, got one of "
            f"{artifact.preprocess.noun}s"
        )


def _spec_of(net: Any) -> ModelSpec:
    """The spec of a net of the registry, cut where that is; `UsageError` for anything else."""
    name = getattr(net, "name", None)
    if isinstance(net, keras.Model) and list_models(name):
        spec = get_spec(name)
        layers = {layer.name for layer in net.layers}
        ends = [end for end in (*spec.pyramid, spec.cam_layer) if f"{end}_average" in layers]
        return spec.until(ends) if ends else spec
    got = f"a model of another make, {name!r}" if isinstance(net, keras.Model) else repr(net)[:60]
    raise UsageError(
        f"expected an artifact, its path or a net of create_model, got {got}; striate.adopt makes "
        "an artifact of a Keras net"
    )


def copy_of(net: Any, clone_function: Callable[[Any], Any] | None = None) -> Any:
    """A copy of a net with its weights, whose layers a function may make anew."""
    with deep_graphs():
        copy = keras.models.clone_model(net, clone_function=clone_function)
    copy.set_weights(net.get_weights())
    return copy


def of_targets(logits: Tensor, targets: np.ndarray) -> Tensor:
    """float32 [N]: each row's entry of its target."""
    picked = keras.ops.one_hot(targets, logits.shape[-1], dtype=logits.dtype)
    return keras.ops.sum(logits * picked, axis=-1)


def value_and_gradient(
    function: Callable[[Tensor], Tensor], x: Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """(values [N], their gradients, shaped as x) of a function that treats each example alone."""
    values, gradient = gradients.value_and_gradient(
        function, keras.ops.convert_to_tensor(x, "float32")
    )
    return as_array(values), as_array(gradient)


def in_batches(
    function: Callable[..., Tensor], *arrays: np.ndarray, batch_size: int = 16
) -> np.ndarray:
    """What a function gives for arrays of as many examples, float32 [N, ...], a batch at a time."""
    starts = range(0, len(arrays[0]), batch_size)
    parts = [function(*(array[i : i + batch_size] for array in arrays)) for i in starts]
    return np.concatenate([as_array(part) for part in parts])


def as_array(tensor: Tensor) -> np.ndarray:
    """float32 in NumPy."""
    return np.asarray(keras.ops.convert_to_numpy(tensor), np.float32)
