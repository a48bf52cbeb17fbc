"""Every net that striate can build, as plain data: one `ModelSpec` a net, read without Keras.

A family file in `striate.models` describes its nets with `register_family`; `create_model` builds
one. A test builds every registered net and holds each field of its spec against the graph.
"""

import contextlib
import dataclasses
import fnmatch
import inspect
import math
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from striate import pretrained
from striate.costs import Totals, shipped
from striate.errors import UsageError, did_you_mean, is_whole
from striate.pretrained import Layout, Pretrained, Weights

if TYPE_CHECKING:
    import keras
else:
    from striate.lazy import keras

Builder = Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """A published accuracy, in per cent of the data set's test or validation pictures."""

    dataset: str
    top1: float
    source: str
    top5: float | None = None


@dataclasses.dataclass(frozen=True)
class TrainingHeads:
    """How the further outputs that `training_heads=True` gives a net are learnt.

    weight: what the loss of each counts beside that of the net's answer; fades: it falls in a line
    to 0 at the end of the training. loss: `cross_entropy`, as of the answer, or `squared_hinge`.
    rate: at which their own weights learn, as a share of the net's.
    """

    weight: float
    loss: Literal["cross_entropy", "squared_hinge"] = "cross_entropy"
    fades: bool = False
    rate: float = 1.0


@dataclasses.dataclass(frozen=True)
class Places:
    """Where to look in a net that the registry does not know: layers that a `ModelSpec` names."""

    name: str
    first_conv: str = ""
    cam_layer: str = ""
    features: str = ""
    pyramid: Sequence[str] = ()

    @property
    def explains(self) -> bool:
        """Whether maps over the picture can say where an answer comes from."""
        return bool(self.cam_layer)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ModelSpec:
    """What is known of one net before it is built.

    name, family, year: as listed by `striate models`.
    paper: arXiv number, or the citation where there is none; title: the paper's.
    input_shape: (height, width, channels) of the paper; of a net on volumes or clips (depth or
        frames, height, width, channels), of one on vectors (numbers,).
    kind: what the input is, `picture`, `clip`, `voxels` or `vector` (`striate.preprocess.KINDS`).
    min_size: the least height and width, or one least side for each where they differ.
    classes: outputs in the paper; trainable, total: parameters at `input_shape` and `classes`,
        total with BatchNorm's moving statistics (Keras' `count_params`).
    first_conv: the layer that sees the input; "" for a net of pictures without convolutions.
    head: the classifier is every layer whose name begins so; the output layer has exactly this
        name and gives float32 logits.
    features: the layer whose output is the pooled vector before the classifier.
    cam_layer: the last feature map [N, h, w, c], where class activation maps are taken; "" for a
        net without maps.
    pyramid: `stage{i}_out` layers, one a resolution, fine to coarse.
    accuracy: published, with its source; None where none is comparable.
    preprocess: the preset that a net trained from scratch takes; pretrained weights name their own.
    differs: how the net differs from its paper.
    finetune_options: builder options that suit a pretrained body under a new classifier.
    reduced: builder options that shrink the net without changing its structure, for quick tests.
    exceptions: contract -> reason, for what the contract tests must not expect of this net.
    training_heads: how the outputs are learnt that only training has; None for a net without.
    convert: (trained net, **its options) -> the same as it runs, which `converted=True` builds;
        None for a net that runs as it trains.
    weights: published weights; layouts: files of other projects that `weights=FILE` understands.
    builder, config: `builder(inputs, num_classes=..., **config)` returns the logits tensor.
    """

    name: str
    family: str
    year: int
    paper: str
    title: str
    input_shape: tuple[int, ...]
    classes: int
    trainable: int
    total: int
    min_size: int | tuple[int, ...]
    first_conv: str
    cam_layer: str
    pyramid: tuple[str, ...]
    preprocess: str
    builder: Builder
    config: Mapping[str, Any]
    kind: str = "picture"
    head: str = "logits"
    features: str = "features"
    accuracy: Accuracy | None = None
    differs: str = ""
    finetune_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    reduced: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    exceptions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    training_heads: TrainingHeads | None = None
    convert: Callable[..., Any] | None = None
    weights: tuple[Weights, ...] = ()
    layouts: tuple[Layout, ...] = ()

    def __post_init__(self) -> None:
        for field in ("config", "finetune_options", "reduced", "exceptions"):
            object.__setattr__(self, field, MappingProxyType(dict(getattr(self, field))))

    def __getstate__(self) -> dict[str, Any]:
        """For a copy or another process, which take no mapping proxies."""
        return {
            name: dict(value) if isinstance(value, MappingProxyType) else value
            for name, value in vars(self).items()
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.__post_init__()

    def __repr__(self) -> str:
        """In a line, so that a list of nets can be read."""
        shape = " x ".join(map(str, self.input_shape))
        about = f"{self.family}, {self.year}, {shape}, {self.trainable:,} parameters"
        return f"<ModelSpec {self.name}: {about}>"

    @property
    def min_shape(self) -> tuple[int, ...]:
        """The least side along each axis of the input but the channels; () for vectors."""
        if isinstance(self.min_size, tuple):
            return self.min_size
        return (self.min_size,) * (len(self.input_shape) - 1)

    @property
    def explains(self) -> bool:
        """Whether maps over the picture can say where an answer comes from."""
        return self.kind == "picture" and bool(self.cam_layer) and "output" not in self.exceptions

    def until(self, layers: str | Sequence[str]) -> "ModelSpec":
        """The spec of the net that `create_model(..., until=layers)` gives.

        The parameters and the accuracy are still those of the whole net. Raises `UsageError` where
        a net cannot end there.
        """
        last = layers if isinstance(layers, str) else next(iter(layers[::-1]), "")
        ends = list(dict.fromkeys([*self.pyramid, self.cam_layer]))
        if last not in ends or not last:
            raise UsageError(
                f"{self.name}: until: expected one of {', '.join(filter(None, ends)) or 'nothing'} "
                f"at the end, got {last!r}.{did_you_mean(str(last), ends)}"
            )
        kept = self.pyramid[: self.pyramid.index(last) + 1] if last in self.pyramid else None
        return dataclasses.replace(
            self,
            cam_layer=last,
            pyramid=self.pyramid if kept is None else kept,
            head="logits",
            features="features",
        )

    @property
    def options(self) -> Mapping[str, Any]:
        """What `create_model` accepts beside its own arguments, each with its default."""
        return {
            name: self.config.get(name, parameter.default)
            for name, parameter in inspect.signature(self.builder).parameters.items()
            if parameter.default is not inspect.Parameter.empty
        }

    @property
    def costs(self) -> Totals | None:
        """Work and memory at the paper's input and classes; None where they were never counted."""
        return shipped().get(self.name)

    def to_dict(self) -> dict[str, Any]:
        """The row of `striate models --json`."""
        return {
            "name": self.name,
            "family": self.family,
            "year": self.year,
            "input_shape": list(self.input_shape),
            "classes": self.classes,
            "trainable": self.trainable,
            "total": self.total,
            "macs": self.costs and self.costs.macs,
            "pretrained": [weights.name for weights in self.weights],
        }


_specs: dict[str, ModelSpec] = {}


def register_family(
    builder: Builder,
    *,
    variants: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]],
    **common: Any,
) -> None:
    """Register the nets of one family.

    builder: `builder(inputs, *, num_classes, ...)` -> logits. Its parameters without a default are
        what tells the variants apart; those with one are the user's options.
    variants: name -> (the builder's arguments, `ModelSpec` fields of this net alone).
    common: `ModelSpec` fields that the whole family shares.
    """
    for name, (config, facts) in variants.items():
        if name in _specs:
            raise ValueError(f"{name!r} is registered twice")
        _specs[name] = ModelSpec(name=name, builder=builder, config=config, **{**common, **facts})


def list_models(
    pattern: str = "*",
    *,
    family: str | None = None,
    year: int | None = None,
    since: int | None = None,
    until: int | None = None,
    max_params: int | None = None,
    max_macs: int | None = None,
    pretrained: bool | None = None,
) -> list[ModelSpec]:
    """The nets whose name matches a shell pattern, oldest first.

    family: only this one; an unknown one is a `UsageError` that offers the nearest.
    year: only of this year; since, until: of the years between, both included.
    max_params: at most so many trainable parameters; max_macs: at most so many multiply-adds, at
    the input and classes of the paper. pretrained: only nets with (True) or without (False)
    published weights.
    """
    if not isinstance(pattern, str):
        raise UsageError(f"expected a pattern of names, such as '*resnet*', got {pattern!r}")
    limits = {"year": year, "since": since, "until": until}
    limits |= {"max_params": max_params, "max_macs": max_macs}
    for name, limit in limits.items():
        if limit is not None and not isinstance(limit, Real):
            raise UsageError(f"expected {name} as a number, got {limit!r}")
    families = {spec.family for spec in _specs.values()}
    if family is not None and family not in families:
        raise UsageError(
            f"expected a family of nets, got {family!r}.{did_you_mean(family, families)} "
            f"There are: {', '.join(sorted(families))}."
        )
    return [
        spec
        for spec in sorted(_specs.values(), key=lambda spec: spec.year)
        if fnmatch.fnmatch(spec.name, pattern)
        and family in (None, spec.family)
        and year in (None, spec.year)
        and (since is None or spec.year >= since)
        and (until is None or spec.year <= until)
        and (max_params is None or spec.trainable <= max_params)
        and (max_macs is None or (spec.costs is not None and spec.costs.macs <= max_macs))
        and pretrained in (None, bool(spec.weights))
    ]


def get_spec(name: str) -> ModelSpec:
    """The spec of one net; an unknown name is a `UsageError` that offers the nearest."""
    if not isinstance(name, str) or name not in _specs:
        raise UsageError(
            f"expected the name of a net, got {name!r}.{did_you_mean(name, _specs)} "
            "`striate models` lists them all."
        )
    return _specs[name]


def open_weights(name: str, weights: str | Path, **options: Any) -> Pretrained:
    """What a name or a file of weights holds for a net, before the net is built.

    `.preprocess` is the preset it was trained with, `.input_shape` at what size, `.classes` and
    `.options` are what `create_model` takes from it; the result can be passed as its `weights`.
    options: those that the net will have; they decide where a file's names are those of two nets.
    Raises `UsageError` for weights that do not exist or are no weights, `StriateError` when they
    cannot be fetched.
    """
    spec = get_spec(name)
    check_weights(spec, weights)
    for published in spec.weights:
        if published.name == weights:
            opened = _open_file(spec, published.path(spec.name), published.options)
            opened.preprocess = published.preprocess
            opened.input_shape = published.input_shape or spec.input_shape
            opened.options = published.options
            return opened
    return _open_file(spec, Path(weights), options)


def check_weights(spec: ModelSpec, weights: str | Path) -> None:
    """`UsageError` for weights that are neither published ones of a net nor a file or folder."""
    names = [published.name for published in spec.weights]
    if weights in names or Path(str(weights)).exists():
        return
    if names:
        expected = f"as {', '.join(map(repr, names))}, a file or None"
    else:
        expected = "as a file or None (fresh ones, as `striate train` takes; none are published)"
    raise UsageError(
        f"{spec.name}: expected weights {expected}, got {str(weights)!r}, which is no file."
        f"{did_you_mean(str(weights), names)} "
        "`striate models --pretrained` lists the nets with published weights."
    )


def _open_file(spec: ModelSpec, path: Path, options: Mapping[str, Any]) -> Pretrained:
    return pretrained.open_weights(
        path, head=spec.head, layouts=spec.layouts, config=spec.config, options=options
    )


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    input_shape: tuple[int, ...] | None = None,
    weights: str | Path | Pretrained | None = None,
    until: str | Sequence[str] | None = None,
    **options: Any,
) -> "keras.Model":
    """Build a net: normalised pixels float [N, H, W, C] -> float32 logits [N, num_classes].

    num_classes: by default the classes of the weights, or else the paper's.
    input_shape: (height, width, channels); by default that of published weights, or else the
        paper's.
    weights: None (fresh), the name of published weights ("imagenet"), a file, or what
        `open_weights` gave. The body is loaded whole; the classifier too where the number of
        classes is the same, and starts fresh where it is not. The first convolution adapts to
        other channel counts.
    until: a layer of the spec's `pyramid`, where the net ends: a linear classifier on the averages
        of its map takes the place of all that follows. Of several layers, the last of which is
        such a one, the classifier sees the averages of each, side by side.
    options: of the net's family, see `get_spec(name).options`; by default what the weights need.

    Raises `UsageError` for a name, option, shape or weights file that does not fit.

    >>> create_model("squeezenet1_1", num_classes=12, input_shape=(96, 96, 3)).output_shape
    (None, 12)
    """
    return create(
        get_spec(name),
        num_classes=num_classes,
        input_shape=input_shape,
        weights=weights,
        until=until,
        **options,
    )


def create(
    spec: ModelSpec,
    *,
    num_classes: int | None = None,
    input_shape: tuple[int, ...] | None = None,
    weights: str | Path | Pretrained | None = None,
    until: str | Sequence[str] | None = None,
    **options: Any,
) -> "keras.Model":
    """`create_model` for a spec, which may be of a net that the registry does not have."""
    _check_options(spec, options)
    loaded = (
        weights
        if isinstance(weights, Pretrained | None)
        else open_weights(spec.name, weights, **options)
    )
    if loaded is not None:
        options = {**loaded.options, **options}
        _check_options(spec, options)  # the weights may have been opened for another net
        num_classes = loaded.classes if num_classes is None else num_classes
        input_shape = loaded.input_shape if input_shape is None else input_shape
    model = _build(spec, *_asked(spec, input_shape, num_classes), options)
    whole = [layer.name for layer in model.layers]
    if until is not None:
        layers = _checked_ends(spec, until)
        model = _cut(model, spec.until(layers), layers)
    if loaded is not None:
        loaded.assign(model, first_conv=spec.first_conv, left_out=whole)
    return model


def _checked_ends(spec: ModelSpec, until: str | Sequence[str]) -> list[str]:
    ends = [until] if isinstance(until, str) else until
    if not isinstance(ends, list | tuple) or not all(isinstance(end, str) for end in ends):
        raise UsageError(f"{spec.name}: until: expected a layer or several, got {until!r}")
    if len(set(ends)) < len(ends):
        raise UsageError(f"{spec.name}: until: expected each layer once, got {', '.join(ends)}")
    return list(ends)


def _cut(whole: Any, spec: ModelSpec, ends: list[str]) -> Any:
    """The net up to some layers, then their averages and a linear classifier."""
    names = [layer.name for layer in whole.layers]
    last = names.index(spec.features) if spec.features in names else len(names)
    for name in ends:
        if name not in names:
            raise UsageError(
                f"{spec.name}: until: it has no layer {name!r}.{did_you_mean(name, names)}"
            )
        if names.index(name) >= last or name == spec.head:
            raise UsageError(
                f"{spec.name}: until: expected layers before its classifier, got {name!r}"
            )
    averages = [_averaged(whole.get_layer(name)) for name in ends]
    if len(averages) == 1:
        features = keras.layers.Identity(name=spec.features)(averages[0])
    else:
        features = keras.layers.Concatenate(name=spec.features)(averages)
    classes = whole.outputs[0].shape[-1]
    logits = keras.layers.Dense(classes, dtype="float32", name=spec.head)(features)
    with deep_graphs():
        return keras.Model(whole.input, logits, name=whole.name)


def _averaged(layer: Any) -> Any:
    """A layer's map, averaged over all its places; a vector as it is."""
    pooling = {4: keras.layers.GlobalAveragePooling2D, 5: keras.layers.GlobalAveragePooling3D}
    maps = layer.output
    if len(maps.shape) == 2:
        return maps
    return pooling[len(maps.shape)](name=f"{layer.name}_average")(maps)


def _build(spec: ModelSpec, shape: tuple[int, ...], num_classes: int, options: dict) -> Any:
    check_layout()
    inputs = keras.Input(shape, name="input")
    logits = spec.builder(inputs, num_classes=num_classes, **{**spec.config, **options})
    name = spec.name.rpartition(":")[-1]  # without the word that marks a net of another make
    with deep_graphs():
        return keras.Model(inputs, logits, name=name)


def check_layout() -> None:
    """`UsageError` where Keras puts channels first: every net here has them last, and layers that
    go by Keras' setting would take the rows of a picture for its colours."""
    layout = keras.config.image_data_format()
    if layout != "channels_last":
        raise UsageError(
            f"expected Keras' image_data_format channels_last, got {layout}; call "
            'keras.config.set_image_data_format("channels_last")'
        )


_turn, _limits = threading.Lock(), list[int]()  # of threads that are inside `deep_graphs`


@contextlib.contextmanager
def deep_graphs() -> Iterator[None]:
    """Inside, Keras may build and load nets of thousands of layers, which it walks by recursion."""
    with _turn:
        _limits.append(sys.getrecursionlimit())
        sys.setrecursionlimit(max(_limits[-1], 100_000))
    try:
        yield
    finally:
        with _turn:  # the limit that the first thread found is taken by the last one to leave
            sys.setrecursionlimit(_limits.pop())


@contextlib.contextmanager
def without_values() -> Iterator[None]:
    """Inside, nets are built of shapes alone, in no memory: to look at and count, not to call."""
    from keras.src.backend.common import global_state

    waiting = list(global_state.get_global_attribute("uninitialized_variables") or ())
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        # Else the next stateless scope, any traced function, would make the values up.
        global_state.set_global_attribute("uninitialized_variables", waiting)


def check_asked(
    name: str, input_shape: tuple[int, ...] | None, num_classes: int | None
) -> tuple[tuple[int, ...], int]:
    """(input shape, classes) of a net as it is asked for, those of its spec where None is said.

    Raises `UsageError` for what the net cannot have. It needs no Keras.
    """
    return _asked(get_spec(name), input_shape, num_classes)


def _asked(
    spec: ModelSpec, input_shape: tuple[int, ...] | None, num_classes: int | None
) -> tuple[tuple[int, ...], int]:
    shape = _checked_shape(spec, input_shape)
    num_classes = spec.classes if num_classes is None else num_classes
    if not is_whole(num_classes, 1):
        raise UsageError(f"{spec.name}: expected num_classes of at least 1, got {num_classes!r}")
    return shape, int(num_classes)


def _checked_shape(spec: ModelSpec, shape: tuple[int, ...] | None) -> tuple[int, ...]:
    if shape is None:
        return spec.input_shape
    rank = len(spec.input_shape)
    shape = tuple(shape) if isinstance(shape, list | tuple) else (shape,)
    if len(shape) != rank or not all(is_whole(n, 1) for n in shape):
        raise UsageError(
            f"{spec.name}: expected input_shape as {rank} positive integers with the channels "
            f"last, such as {spec.input_shape}, got {shape}"
        )
    if any(side < least for side, least in zip(shape[:-1], spec.min_shape, strict=True)):
        raise UsageError(
            f"{spec.name}: expected an input of at least {' x '.join(map(str, spec.min_shape))} "
            f"{'voxels' if rank > 3 else 'pixels'}, got {' x '.join(map(str, shape[:-1]))}"
        )
    return tuple(map(int, shape))


def _check_options(spec: ModelSpec, options: Mapping[str, Any]) -> None:
    known = spec.options
    for option, value in options.items():
        if option not in known:
            raise UsageError(
                f"{spec.name} has no option {option!r}.{did_you_mean(option, known)} "
                f"Its options: {', '.join(known) or 'none'}."
            )
        wanted, fits = _kind(known[option])
        if not fits(value):
            raise UsageError(
                f"{spec.name}: expected {option} as {wanted}, such as {known[option]!r}, "
                f"got {value!r}"
            )


def _kind(default: Any) -> tuple[str, Callable[[Any], bool]]:
    """(words, test) for the values that an option takes, which are of its default's kind.

    A flag, a word, a count or a share: counts are of at least 1, but of at least 0 where that is
    the default; numbers lie between 0 and 1, but anywhere where the default is negative.
    """
    if isinstance(default, tuple):
        words, fits = _kind(default[0])

        def all_fit(value: Any) -> bool:
            of_this_length = isinstance(value, list | tuple) and len(value) == len(default)
            return of_this_length and all(map(fits, value))

        return f"{len(default)} values, each {words}", all_fit
    if isinstance(default, bool):
        return "True or False", lambda value: isinstance(value, bool)
    if isinstance(default, str):
        return "a word", lambda value: isinstance(value, str)
    if default == 0 and isinstance(default, Integral):
        return "an integer of at least 0", is_whole
    if isinstance(default, Integral):
        return "an integer of at least 1", lambda value: is_whole(value, 1)
    if default is None:
        return "an integer of at least 1 or None", lambda v: v is None or is_whole(v, 1)
    if default < 0:
        return "a number", lambda value: math.isfinite(_number(value))
    return "a number from 0 to 1", lambda value: 0 <= _number(value) <= 1


def _number(value: Any) -> float:
    """A real number as a float; nan for whatever else."""
    is_one = isinstance(value, Real) and not isinstance(value, bool)
    return float(value) if is_one else math.nan
