"""Weights that were trained elsewhere: where they are published, and how a file becomes a net's.

A file is first read as arrays per layer, whatever wrote it; a family's `Layout` then says which of
its layers is which of ours. Nothing is unpickled, and a net is only touched once everything fits.
"""

from __future__ import annotations  # so that describing weights does not load numpy

import dataclasses
import io
import itertools
import json
import math
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from striate.errors import StriateError, UsageError
from striate.fetch import fetch
from striate.lazy import Lazy
from striate.torch_files import is_torch_file, read_state

if TYPE_CHECKING:
    import numpy as np
else:
    np = Lazy("numpy")

Arrays = dict[str, "list[np.ndarray]"]
SHIPPED = "shipped:"


@dataclasses.dataclass(frozen=True, eq=False)
class Weights:
    """Published weights of one net.

    name: what `create_model(..., weights=name)` asks for.
    url: where the file is; "shipped:NAME/VERSION/FILE" is one that comes with striate.
    hash: "md5:..." or "sha256:..." of the file, of the latter at least the first eight digits; None
    where no hash is published anywhere.
    preprocess: the preset of `striate.preprocess` that the net was trained with.
    input_shape: what it was trained at; None for the net's own.
    options: builder options that it needs.
    """

    name: str
    url: str
    hash: str | None
    preprocess: str
    licence: str
    input_shape: tuple[int, ...] | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def path(self, model: str) -> Path:
        """The local file, fetched on first use. Raises `StriateError` when it cannot be had."""
        if self.url.startswith(SHIPPED):
            return _shipped(self.url.removeprefix(SHIPPED))
        return fetch(self.url, hash=self.hash, name=f"weights/{model}/{self.url.rsplit('/')[-1]}")


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """How another project's files name and store the weights of a family.

    names: the variant's configuration -> {our layer: its layer}; the classifier included. Where
        several of its layers make one of ours, a tuple of them.
    preprocess: the preset that its weights were trained with.
    options: builder options that its weights need.
    epsilon: of its batch normalisation, where that is not ours.
    top: our layers beside the classifier that its files without a top lack.
    channels_first: its files are torch's, whose maps are [c, h, w].
    numbered: its layers have the names that Keras makes up, whose numbers go on through a session;
        `names` counts the layers of a kind from 0.
    """

    name: str
    names: Callable[..., Mapping[str, str | tuple[str, ...]]]
    preprocess: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    epsilon: float | None = None
    top: tuple[str, ...] = ()
    channels_first: bool = False
    numbered: bool = False


def published(url: str, layout: Layout, *, licence: str) -> Weights:
    """A torch project's weights for ImageNet; the file's name ends in the first digits of its
    sha256, as torch.hub has it."""
    digits = url.removesuffix(".pth").rpartition("-")[2]
    return Weights(
        "imagenet",
        url=url,
        hash=f"sha256:{digits}",
        preprocess=layout.preprocess,
        options=layout.options,
        licence=licence,
    )


def _shipped(relative: str) -> Path:
    """A file of the model repository that striate ships: in the wheel, or in a source checkout."""
    package = Path(__file__).parent
    for root in (package / "saved_models", package.parents[1] / "saved_models"):
        if (root / relative).is_file():
            return root / relative
    raise StriateError(f"{relative} does not come with this installation of striate; reinstall it")


# === Files -> arrays per layer ===


def read_arrays(path: Path) -> Arrays:
    """The weights in a file, by the name of their layer: a layer -> its arrays, as Keras has them.

    Reads `.h5` of Keras 1 and 2 (weights or whole models), `.keras` and `.weights.h5` of Keras 3,
    and the model in a version directory of striate's; a model inside a model is read through. And
    torch's `.pth` and `.safetensors`. Raises `UsageError` for anything else.
    """
    import h5py

    if path.is_dir():
        path = path / "model.keras"
    if not path.exists():
        raise UsageError(f"{path}: expected a file of weights, got nothing there")
    if is_torch_file(path):
        return _torch_arrays(read_state(path))
    try:
        source: Path | io.BytesIO = path
        names: dict[str, str] = {}
        if path.suffix == ".keras":
            with zipfile.ZipFile(path) as archive:
                source = io.BytesIO(archive.read("model.weights.h5"))
                names = _names_by_place(json.loads(archive.read("config.json")))
        with h5py.File(source, "r") as file:
            arrays = _keras2_arrays(file) if _is_keras2(file) else _keras3_arrays(file, names)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise UsageError(
            f"{path}: expected weights saved by Keras (.keras, .weights.h5 or .h5) or torch "
            f"(.pth or .safetensors), got something else ({error})"
        ) from None
    if not arrays:
        raise UsageError(
            f"{path}: expected weights of named layers, found none; if an older Keras 3 wrote this "
            "file, save the model there as .keras"
        )
    return arrays


# A module's arrays in the order of the Keras layer's.
TORCH_ORDER = ("weight", "bias", "running_mean", "running_var")
# torch puts a kernel's output channels first, then the input's; Keras puts them last.
TORCH_AXES = {2: (1, 0), 3: (2, 1, 0), 4: (2, 3, 1, 0), 5: (2, 3, 4, 1, 0)}


def _torch_arrays(state: Mapping[str, np.ndarray]) -> Arrays:
    """Modules are layers; a parameter with another name than torch's own is a layer of its own."""
    arrays: Arrays = {}
    for module in dict.fromkeys(name.rpartition(".")[0] for name in state):
        known = [f"{module}.{kind}" for kind in TORCH_ORDER if f"{module}.{kind}" in state]
        if known:
            arrays[module] = [_keras_axes(state[name]) for name in known]
    for name, array in state.items():
        if name.rpartition(".")[2] not in (*TORCH_ORDER, "num_batches_tracked"):
            arrays[name] = [_keras_axes(array)]
    return arrays


def _keras_axes(array: np.ndarray) -> np.ndarray:
    return array.transpose(TORCH_AXES.get(array.ndim, range(array.ndim)))


def _is_keras2(file) -> bool:
    return "model_weights" in file or bool(_listed(file, "layer_names"))


def _keras2_arrays(file) -> Arrays:
    """Groups named by layer; a group whose weights name several layers holds a nested model."""
    root = file.get("model_weights", file)
    arrays: Arrays = {}
    for layer in _listed(root, "layer_names"):
        group = root[layer]
        names = _listed(group, "weight_names")
        owners = [name.rpartition("/")[0] for name in names]
        nested = len(set(owners)) > 1
        for name, owner in zip(names, owners, strict=True):
            key = owner.rpartition("/")[2] if nested else layer
            arrays.setdefault(key, []).append(np.asarray(group[name]))
    return arrays


def _listed(group, attribute: str) -> list[str]:
    """A list of names; one too long for HDF5 is spread over `attribute`0, `attribute`1, ..."""
    attrs = group.attrs
    if attribute in attrs:
        return _strings(attrs[attribute])
    parts = itertools.takewhile(attrs.__contains__, (f"{attribute}{i}" for i in itertools.count()))
    return [name for part in parts for name in _strings(attrs[part])]


def _keras3_arrays(file, names: Mapping[str, str]) -> Arrays:
    """Groups `.../layers/PLACE/vars`; an attribute or else `names` tells the layer at a place."""
    import h5py

    arrays: Arrays = {}

    def visit(path: str, group) -> None:
        if not (isinstance(group, h5py.Group) and path.endswith("/vars") and len(group)):
            return
        place = path.removesuffix("/vars")
        name = group.attrs.get("name", names.get(place))
        if name is None or place.split("/")[-2:-1] != ["layers"]:
            return  # an optimiser's, a metric's or a dropout seed's
        arrays[_strings([name])[0]] = [np.asarray(group[key]) for key in sorted(group, key=int)]

    file.visititems(visit)
    return arrays


def _names_by_place(config: Mapping[str, Any], within: str = "") -> dict[str, str]:
    """{place of a layer in the weights file: its name} from the configuration of a model.

    Places count the layers of a kind: layers/conv2d, layers/conv2d_1; a model inside has its own.
    """
    names: dict[str, str] = {}
    kinds: dict[str, int] = {}
    for layer in config["config"].get("layers", ()):
        kind = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", layer["class_name"])
        kind = re.sub(r"([a-z])([A-Z])", r"\1_\2", kind).lower()
        n = kinds[kind] = kinds.get(kind, -1) + 1
        place = f"{within}layers/{kind}_{n}" if n else f"{within}layers/{kind}"
        names[place] = layer["config"].get("name", "")
        names |= _names_by_place(layer, f"{place}/")
    return names


def _strings(values: Sequence) -> list[str]:
    return [v.decode() if isinstance(v, bytes) else str(v) for v in values]


# === Arrays -> a net ===


@dataclasses.dataclass(eq=False)
class Pretrained:
    """The weights of one file, and how they belong to one net; `open_weights` makes it.

    preprocess: the preset they were trained with, None where the file does not tell.
    input_shape: what they were trained at, None where nothing tells.
    options: builder options that they need. classes: of their classifier, None without one.
    names: {our layer: the file's}, None for striate's own names. fresh: layers that may be missing.
    channels_first: a dense layer in the file counts a map's values in the order [c, h, w].
    """

    path: Path
    arrays: Arrays
    head: str
    names: Mapping[str, str] | None = None
    fresh: tuple[str, ...] = ()
    channels_first: bool = False
    epsilon: float | None = None
    preprocess: str | None = None
    input_shape: tuple[int, ...] | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def classes(self) -> int | None:
        heads = [self._theirs(name) for name in self.names or self.arrays if self._is_head(name)]
        kernels = [self.arrays[name][0] for name in heads if name in self.arrays]
        return kernels[0].shape[-1] if kernels else None

    def assign(self, model, *, first_conv: str, left_out: Sequence[str] = ()) -> None:
        """Load everything into `model`; a classifier for other classes stays as it is.

        left_out: layers that the file may have though the net ends before them. The first
        convolution adapts to the model's channels. Raises `UsageError` that names the
        first layer that does not fit, before anything is changed.
        """
        plan: list[tuple[Any, np.ndarray]] = []
        biases: dict[str, np.ndarray] = {}
        for layer in model.layers:
            if not layer.weights or self._stays_fresh(layer.name):
                continue
            arrays = self._arrays(model, layer.name)
            if layer.name == first_conv:
                arrays = [adapt_channels(arrays[0], layer.weights[0].shape[-2]), *arrays[1:]]
            arrays = self._folded(layer, arrays, biases)
            if self.channels_first:
                arrays = channels_last(layer, arrays)
            shapes = [tuple(weight.shape) for weight in layer.weights]
            if _fit(arrays, shapes):
                arrays = [a.reshape(shape) for a, shape in zip(arrays, shapes, strict=True)]
                plan += zip(layer.weights, arrays, strict=True)
            elif not self._is_head(layer.name):
                raise self._misfit(
                    model,
                    f"layer {self._theirs(layer.name)!r} has {_join(a.shape for a in arrays)}, "
                    f"expected {_join(shapes)}",
                )
        if biases:
            raise self._misfit(model, f"it has a bias for {min(biases)!r}, which takes none")
        self._refuse_left_over(model, left_out)
        for weight, array in plan:
            weight.assign(array)

    def _theirs(self, ours: str) -> str:
        return ours if self.names is None else self.names.get(ours, ours)

    def _is_head(self, ours: str) -> bool:
        return ours.startswith(self.head)

    def _stays_fresh(self, ours: str) -> bool:
        may = self._is_head(ours) or ours in self.fresh
        return may and self._theirs(ours) not in self.arrays

    def _arrays(self, model, ours: str) -> list[np.ndarray]:
        theirs = self._theirs(ours)
        if theirs not in self.arrays:
            has = ", ".join(map(repr, sorted(self.arrays)[:3]))
            raise self._misfit(model, f"it has no layer {theirs!r} (its layers: {has}, ...)")
        return self.arrays[theirs]

    def _folded(self, layer, arrays: list[np.ndarray], biases: dict) -> list[np.ndarray]:
        """A convolution's bias moves into the mean of the batch normalisation after it, and the
        difference of epsilons into its variance: the same function, exactly."""
        if layer.name.endswith("_conv") and len(arrays) == 2 and len(layer.weights) == 1:
            biases[layer.name.removesuffix("_conv") + "_bn"] = arrays[1]
            return arrays[:1]
        if layer.name.endswith("_bn") and len(arrays) == 4:
            gamma, beta, mean, variance = arrays
            mean = mean - biases.pop(layer.name, np.float32(0))
            if self.epsilon is not None:
                # In float64: a smaller epsilon than ours cancels most of a small variance.
                variance = variance + np.float64(self.epsilon - layer.epsilon)
            return [gamma, beta, mean, variance]
        return arrays

    def _refuse_left_over(self, model, left_out: Sequence[str]) -> None:
        """Convolutions that the net has no place for mean that the file is another net's."""
        ours = [*(layer.name for layer in model.layers), *left_out]
        known = {self._theirs(name) for name in ours} | set((self.names or {}).values())
        known |= {name for name in self.arrays if self.names is None and self._is_head(name)}
        for theirs, arrays in self.arrays.items():
            if theirs not in known and (arrays[0].ndim > 2 or len(arrays) > 2):
                raise self._misfit(
                    model, f"it has a layer {theirs!r} for which the net has no place"
                )

    def _misfit(self, model, what: str) -> UsageError:
        return UsageError(f"{self.path} does not hold weights of {model.name}: {what}")


def open_weights(
    path: Path,
    *,
    head: str,
    layouts: Sequence[Layout],
    config: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Pretrained:
    """Read a file for the net of a family's `config`, in the layout whose layer names it has.

    head: what the names of the classifier's layers begin with. options: that the user chose; of
    layouts with the same names, the one that needs none but these is taken. Raises `UsageError` for
    a file that is not one of weights.
    """
    arrays = read_arrays(path)
    best, layout, names, found = (0, False), None, {}, arrays
    channels_first = is_torch_file(path)
    for candidate in layouts:
        if candidate.channels_first != channels_first:
            continue
        as_named = _renumbered(arrays) if candidate.numbered else arrays
        candidate_names, joined = _joined(candidate.names(**config), as_named)
        theirs = len(joined.keys() & set(candidate_names.values()))
        ours = len(arrays.keys() & candidate_names.keys())
        agrees = all(options.get(key, need) == need for key, need in candidate.options.items())
        if theirs > ours and (theirs, agrees) > best:
            best, layout, names, found = (theirs, agrees), candidate, candidate_names, joined
    if layout is None:  # our own names, or a file of another net, which `assign` will refuse
        return Pretrained(path, arrays, head)
    return Pretrained(
        path,
        found,
        head,
        names=_with_head(names, found, head),
        fresh=layout.top,
        channels_first=channels_first,
        epsilon=layout.epsilon,
        preprocess=layout.preprocess,
        options=layout.options,
    )


def _joined(
    names: Mapping[str, str | tuple[str, ...]], arrays: Arrays
) -> tuple[dict[str, str], Arrays]:
    """Names and arrays with one layer for each of ours where the file has several."""
    single, arrays = {}, dict(arrays)
    for ours, theirs in names.items():
        several = () if isinstance(theirs, str) else theirs
        single[ours] = " + ".join(several) or theirs
        if several and arrays.keys() >= set(several):
            arrays[single[ours]] = [array for one in several for array in arrays.pop(one)]
    return single, arrays


def _renumbered(arrays: Arrays) -> Arrays:
    """Layers whose names Keras made up, `conv2d_94`, counted from 0 in each kind: `conv2d`, ..."""
    kinds: dict[str, list[tuple[int, str]]] = {}
    for name in arrays:
        if made_up := re.fullmatch(r"(conv2d|batch_normalization)(?:_(\d+))?", name):
            kinds.setdefault(made_up[1], []).append((int(made_up[2] or 0), name))
    new = {
        name: f"{kind}_{n}" if n else kind
        for kind, numbered in kinds.items()
        for n, (_, name) in enumerate(sorted(numbered))
    }
    return {new.get(name, name): values for name, values in arrays.items()}


def _with_head(names: Mapping[str, str], arrays: Arrays, head: str) -> Mapping[str, str]:
    """A classifier under another name is known by being the one dense layer that is left over."""
    ours = next(name for name in names if name.startswith(head))
    left_over = [name for name in arrays if name not in names.values()]
    if names[ours] in arrays or len(left_over) != 1:
        return names
    kernel = arrays[left_over[0]][0]
    return {**names, ours: left_over[0]} if np.squeeze(kernel).ndim == 2 else names


def _fit(arrays: Sequence[np.ndarray], shapes: Sequence[tuple[int, ...]]) -> bool:
    """The same shapes, but for axes of length 1 (a 1x1 convolution is a dense layer)."""

    def bare(shape: Sequence[int]) -> list[int]:
        return [n for n in shape if n != 1]

    return len(arrays) == len(shapes) and all(
        bare(array.shape) == bare(shape) for array, shape in zip(arrays, shapes, strict=True)
    )


def _join(shapes) -> str:
    return " and ".join(str(tuple(shape)) for shape in shapes)


def channels_last(layer, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """The rows of a dense kernel on a flattened map, from the order [c, h, w] to [h, w, c].

    Those of a convolution over the whole map are in that order already.
    """
    shape = _flattened(layer)
    if shape is not None and arrays[0].shape[:-1] == shape:
        return [arrays[0].reshape(-1, arrays[0].shape[-1]), *arrays[1:]]
    if shape is None or arrays[0].shape[0] != math.prod(shape):
        return arrays
    *sides, channels = shape
    kernel = arrays[0].reshape(channels, *sides, -1)
    return [np.moveaxis(kernel, 0, -2).reshape(arrays[0].shape), *arrays[1:]]


def _flattened(layer) -> tuple[int, ...] | None:
    """The shape of the map that a dense layer sees through `Flatten`, None for any other layer."""
    if type(layer).__name__ != "Dense":
        return None
    source = layer.input._keras_history.operation
    while type(source).__name__ == "Dropout":
        source = source.input._keras_history.operation
    return tuple(source.input.shape[1:]) if type(source).__name__ == "Flatten" else None


def adapt_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """A first convolution's kernel [h, w, c, f] for another number of input channels.

    For 1 channel the kernels of all colours are summed: grey pixels give the very answer that the
    same grey in every channel would. For more, they are repeated in turn and rescaled by
    c / channels, so that the response keeps its size.
    """
    given = kernel.shape[-2]
    if channels == given:
        return kernel
    if channels == 1:
        return kernel.sum(axis=-2, keepdims=True)
    turns = np.arange(channels) % given
    return kernel[..., turns, :] * np.float32(given / channels)
