"""One run of training, described: what a YAML file, a Python object and `--set a.b=c` all become.

A recipe knows no Keras, so that a mistake in it is answered at once. Unknown keys are errors that
offer the nearest one; every value has a type and a range.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from striate.artifact import Artifact, load
from striate.committee import NAME as ENSEMBLE
from striate.errors import UsageError, did_you_mean
from striate.yaml_text import read_yaml

SHIPPED = Path(__file__).parents[1] / "recipes"

Share = Annotated[float, Field(ge=0, lt=1)]
NotNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Side = Annotated[int, Field(ge=1)]
AreaShare = Annotated[float, Field(gt=0, le=1)]
Monitor = Literal["val_loss", "val_accuracy"]
Normalise = Literal[
    "caffe", "cifar", "dpn", "raw", "tf", "torch", "unit", "data", "mean_image", "pca", "zca"
]


class Group(BaseModel):
    """A part of a recipe; it has no keys but its own, and does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Model(Group):
    """The net and where its weights begin.

    name: in the registry. weights: None (fresh), "imagenet", a file, or an artifact's directory.
    options: of the net's family. size: the input's side in pixels, or [height, width]; None for
    what the weights were trained at, or else the paper's. channels: 1 or 3; None for the net's own.
    Of voxels, size is the side of the cube, or [depth, height, width]; of clips, that of a frame,
    or [frames, height, width]. The length of vectors is that of the data.
    """

    name: str
    weights: str | None = None
    options: dict[str, Any] = {}
    size: Side | tuple[Side, Side] | tuple[Side, Side, Side] | None = None
    channels: Literal[1, 3] | None = None


class Data(Group):
    """The pictures.

    source: what `striate.data.load` reads. validation: the share held out where the source gives
    no validation split. strict: an unreadable picture is an error. cache_gb: decoded pictures are
    kept in memory up to this many GiB. balance: of classes that differ in size; `weights` lets a
    picture of class c count n / (k n_c) times in the loss, n pictures of k classes; `sampling`
    draws each class as often as the others. A linear probe takes the weights for both.
    """

    source: str | None = None
    validation: Share = 0.2
    strict: bool = False
    cache_gb: NotNegative = 2.0
    balance: Literal["none", "weights", "sampling"] = "none"


class Preprocessing(Group):
    """How a picture becomes the net's input; None keeps what the weights were trained with.

    normalise: caffe, cifar, dpn, raw, tf, torch, unit, or measured on the training pictures: `data`
    (mean and spread of each channel), `mean_image` (the mean of each pixel), `pca` or `zca`
    (whitened; see `striate.preprocess.whitening`).
    fit, crop, interpolation: as in `striate.preprocess.Preprocess`.
    """

    normalise: Normalise | None = None
    fit: Literal["crop", "stretch", "pad"] | None = None
    crop: Annotated[float, Field(gt=0, le=1)] | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] | None = None


class Augment(Group):
    """Random changes of the training pictures, drawn anew each time; 0 is none.

    Moves. flip: the axis that a picture may be mirrored along, or each of both. translate: by up to
    this share of the side; zoom: in or out by up to this share; rotate: by up to so many degrees
    either way. crop_padding: a window of the picture's size, cut out of it with so many pixels
    around it. crop_scale: a box with a share of the area from the first to the second, enlarged;
    crop_ratio: its width by its height. fill: what appears at the border when a picture moves;
    `constant` is white, `mean` what the net sees as 0.
    Colours. brightness: by up to this share of the range; contrast, saturation: by up to this
    factor either way; hue: by up to this share of the circle, 0.5 for any.
    What is hidden. cutout: the side in pixels of a square of the mean; erase: the chance that a
    rectangle of noise hides a part.
    rand_augment: so many operations out of 14, each of rand_magnitude, 0 to 10.
    mixup, cutmix: alpha, of pictures that become two at once, and of their labels; of both, each
    picture gets one of the two. mix_chance: that a picture is mixed at all.
    quarter_turns: voxels, turned about the vertical axis by 0, 90, 180 or 270 degrees.

    All frames of a clip change alike. Of the others, voxels know flip (horizontal along the width,
    vertical along the height), translate, by whole cells, and mixup; vectors know mixup.
    """

    flip: Literal["none", "horizontal", "vertical", "both"] = "none"
    translate: Share = 0.0
    zoom: Share = 0.0
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0
    crop_padding: Annotated[int, Field(ge=0, le=1000)] = 0
    crop_scale: tuple[AreaShare, AreaShare] | None = None
    crop_ratio: tuple[Positive, Positive] = (3 / 4, 4 / 3)
    brightness: Share = 0.0
    contrast: Share = 0.0
    saturation: Share = 0.0
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    cutout: Annotated[int, Field(ge=0, le=1000)] = 0
    erase: Annotated[float, Field(ge=0, le=1)] = 0.0
    rand_augment: Annotated[int, Field(ge=0, le=14)] = 0
    rand_magnitude: Annotated[float, Field(ge=0, le=10)] = 9.0
    mixup: Annotated[float, Field(ge=0, le=100)] = 0.0
    cutmix: Annotated[float, Field(ge=0, le=100)] = 0.0
    mix_chance: Annotated[float, Field(ge=0, le=1)] = 1.0
    fill: Literal["nearest", "reflect", "wrap", "constant", "mean"] = "nearest"
    quarter_turns: bool = False

    @field_validator("crop_scale", "crop_ratio")
    @classmethod
    def _rises(cls, ends: tuple[float, float] | None) -> tuple[float, float] | None:
        if ends and ends[0] > ends[1]:
            raise ValueError("should begin with the smaller")
        return ends


class Penalty(Group):
    """What large kernels cost: l1 * sum |w| + l2 * sum w^2 is added to the mean loss.

    Of kernels that learn only, not of biases nor of batch normalisation. With the loss written as
    C0 + (lambda / n) sum |w| or C0 + (lambda / 2n) sum w^2 over n pictures, l1 = lambda / n and
    l2 = lambda / 2n. A step of plain SGD takes 2 * l2 * learning_rate of each weight, as
    `optimizer.weight_decay` = 2 * l2 does; momentum repeats that, and Adam rescales it, which
    decoupled decay avoids.

    group_lasso: of nets with learned group convolutions (CondenseNet, 1e-5 in its code): what is
    added is that times the sum of the norms of the weights from each input to each group.
    """

    l1: NotNegative = 0.0
    l2: NotNegative = 0.0
    group_lasso: NotNegative = 0.0


class Adversarial(Group):
    """Pictures made worse for the net in each step, learnt beside the pictures themselves.

    The loss is (1 - weight) J(x) + weight J(x'), where no pixel of x' is further than epsilon
    levels (of 255) from x. steps: 1 moves each pixel by epsilon along the sign of its gradient
    (Goodfellow et al. 2014, arXiv:1412.6572, with weight 0.5); more walk there in steps of
    2.5 epsilon / steps from a random start (Madry et al. 2017, arXiv:1706.06083, with weight 1).
    Each step costs about as much as a step of training. epsilon 0 is none.
    """

    epsilon: Annotated[float, Field(ge=0, le=255)] = 0.0
    steps: Annotated[int, Field(ge=1, le=100)] = 1
    weight: Annotated[float, Field(gt=0, le=1)] = 0.5


class Optimizer(Group):
    """What turns gradients into steps.

    weight_decay: is multiplied by the learning rate and taken straight off the weights (decoupled:
    Loshchilov and Hutter 2017, arXiv:1711.05101), from kernels only unless decay_all. With sgd and
    momentum m, the L2 penalty of other libraries is 1 / (1 - m) times as strong.
    momentum, nesterov: of sgd; of rmsprop the momentum. clip_norm: the largest norm of the whole
    gradient, None for none. accumulate: batches whose gradients are averaged into one step, for
    nets of which only small batches fit into memory. ema: what of a running average of the weights
    is kept at each step, 0 for no average; it is the average that is validated and saved.
    """

    name: Literal["adamw", "adam", "nadam", "sgd", "rmsprop", "adagrad", "lion"] = "adamw"
    learning_rate: Positive = 1e-3
    weight_decay: NotNegative = 0.0
    decay_all: bool = False
    momentum: Share = 0.9
    nesterov: bool = True
    clip_norm: Positive | None = None
    accumulate: Annotated[int, Field(ge=1, le=10_000)] = 1
    ema: Share = 0.0


class Schedule(Group):
    """How the learning rate changes; see `striate.train.schedules`.

    warmup: epochs over which it rises from 0. final: what it ends with, or the least of a cycle, as
    a share of the learning rate. steps: epochs after which `step` multiplies it by factor. every:
    epochs after which `exponential` does so, and the length of a cycle of `cyclical` and
    `cosine_restarts`. power: of `polynomial`. rise: the share of the steps in which `one_cycle`
    goes up. patience: epochs without a better `monitor` after which `plateau` multiplies it by
    factor.
    """

    name: Literal[
        "constant",
        "cosine",
        "cosine_restarts",
        "step",
        "exponential",
        "polynomial",
        "one_cycle",
        "cyclical",
        "plateau",
    ] = "cosine"
    warmup: NotNegative = 0.0
    final: Annotated[float, Field(ge=0, le=1)] = 0.0
    steps: tuple[Positive, ...] = ()
    factor: Positive = 0.1
    every: Positive = 1.0
    power: Positive = 1.0
    rise: Annotated[float, Field(gt=0, lt=1)] = 0.3
    patience: Annotated[int, Field(ge=1)] = 5
    monitor: Monitor = "val_loss"


CLASSIFIER_ALONE = ("linear_probe", "early_features")  # strategies under which no body learns


class Strategy(Group):
    """Which part of the net learns, and when; see `striate.train.strategies`.

    name: full, linear_probe, lp_ft, gradual, layerwise, early_features, or auto, which measures the
    training pictures and chooses.
    unfreeze_from: the first layer or block that learns, by the beginning of its name
    (`stage3_block2`); None for all. freeze_bn: batch normalisation keeps its statistics and
    scales; None for: exactly when the weights are pretrained.
    stage_epochs: of `gradual`, for each stage but the last, which has the recipe's epochs.
    decay: of `layerwise`, the rate of a stage as a share of that of the stage above it.
    until: of `early_features`, the layer of the net's `pyramid` where it ends; None for the one
    that measures best.
    reason: why `auto` chose; written into the recipe by it.
    """

    name: Literal[
        "full", "linear_probe", "lp_ft", "gradual", "layerwise", "early_features", "auto"
    ] = "full"
    unfreeze_from: str | None = None
    freeze_bn: bool | None = None
    stage_epochs: Annotated[int, Field(ge=1, le=1000)] = 2
    decay: Annotated[float, Field(gt=0, le=1)] = 0.7
    until: str | None = None
    reason: str | None = None

    @field_validator("unfreeze_from")
    @classmethod
    def _can_learn(cls, layer: str | None, others: ValidationInfo) -> str | None:
        name = others.data.get("name")
        if layer is not None and name in CLASSIFIER_ALONE:
            raise ValueError(
                f"should stand with strategy=lp_ft, gradual, layerwise or full; under {name} the "
                "classifier alone learns"
            )
        return layer


class Probe(Group):
    """The linear classifier on frozen features; see `striate.train.probe`.

    l2: strength of the penalty on its weights, per picture. mirror: each picture and its mirror
    image. copies: so many more copies of each, changed as `augment` says.
    """

    l2: Positive = 0.01
    mirror: bool = False
    copies: Annotated[int, Field(ge=0, le=100)] = 0


class EarlyStopping(Group):
    """Ending before the last epoch.

    patience: epochs without a better `monitor` before the end, None for never.
    restore_best: go back to the weights of the best epoch of a phase, or, after the first phase, to
    those that it began with where no epoch was better.
    """

    monitor: Monitor = "val_loss"
    patience: Annotated[int, Field(ge=1)] | None = None
    restore_best: bool = False


class Recipe(Group):
    """One run of training. Every key has its unit or range in the group that it belongs to.

    epochs: passes over the training pictures. batch_size: pictures a step.
    seed: of everything that is random. label_smoothing: the share of belief spread over all
    classes, except in a linear probe. precision: what is computed in; weights are always float32.
    quantise: `int8` rounds weights and activations while the net learns as its int8 form will, in
    float32 alone; see `striate.train.quantise`.
    deterministic: the same bits every time; None for: on a CPU. devices: of this machine that share
    each batch; more than 1 with JAX alone. calibrate: scores are divided by a
    temperature that suits the validation pictures. snapshots: what is written is the ensemble of
    the weights at the end of so many last cycles of the schedule; 0 for one net, that of the end.
    checkpoint_seconds: the least time between checkpoints.
    """

    model: Model
    data: Data = Data()
    preprocess: Preprocessing = Preprocessing()
    augment: Augment = Augment()
    penalty: Penalty = Penalty()
    adversarial: Adversarial = Adversarial()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    strategy: Strategy = Strategy()
    probe: Probe = Probe()
    early_stopping: EarlyStopping = EarlyStopping()
    epochs: Annotated[int, Field(ge=0, le=100_000)] = 10
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 32
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    label_smoothing: Share = 0.0
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = "float32"
    quantise: Literal["none", "int8"] = "none"
    deterministic: bool | None = None
    devices: Annotated[int, Field(ge=1, le=1024)] = 1
    calibrate: bool = True
    snapshots: Annotated[int, Field(ge=0, le=100)] = 0
    checkpoint_seconds: NotNegative = 15.0

    @field_validator("quantise")
    @classmethod
    def _finely(cls, quantise: str, others: ValidationInfo) -> str:
        if quantise != "none" and others.data.get("precision", "float32") != "float32":
            raise ValueError("should be none where precision is not float32, which is too coarse")
        return quantise

    def to_dict(self) -> dict[str, Any]:
        """The recipe as JSON holds it; `make_recipe` reads it back."""
        return self.model_dump(mode="json")

    def changed(self, **groups: Mapping[str, Any] | Any) -> "Recipe":
        """A copy with other values; of a group, only the keys that are named change."""
        return _validated(_merge(self.to_dict(), groups))


Sets = Mapping[str, Any] | Iterable[str]


def make_recipe(
    base: Recipe | Mapping[str, Any] | str | os.PathLike | None = None, sets: Sets = ()
) -> Recipe:
    """A recipe from a base and changes to it.

    base: a recipe, a dictionary of its groups, a YAML file, or the name of one that striate ships.
    sets: `{"optimizer.learning_rate": 1e-3}` or `["optimizer.learning_rate=1e-3"]`; a group that
    has a name may be given by it alone: `strategy=full`.

    Raises `UsageError`, one line, for a file, key or value that does not fit.

    >>> make_recipe({"model": "lenet5"}, ["epochs=3"]).epochs
    3
    """
    values = _read(base)
    for key, value in _pairs(sets):
        values = _merge(values, _nested(key, value))
    return _validated(values)


def finetune_recipe(
    model: str | os.PathLike,
    *,
    data: str | os.PathLike | None = None,
    recipe: Any = "finetune",
    weights: str | os.PathLike | None = None,
    sets: Sets = (),
) -> Recipe:
    """The recipe of `finetune`: the shipped one for this net, then what `sets` changes.

    model: a net's name, or the directory of an artifact to go on from. weights: "imagenet" (the
    recipe's), a file, or an artifact's directory. Answers without Keras.
    """
    base = make_recipe(recipe, {f"model.{key}": value for key, value in net_of(model).items()})
    if data is not None:
        base = base.changed(data={"source": os.fspath(data)})
    if weights is not None:
        base = base.changed(model={"weights": os.fspath(weights)})
    return make_recipe(base, sets)


def net_of(model: str | os.PathLike) -> dict[str, str]:
    """`model.name` and `model.weights` of a recipe for a net's name, which has no weights yet, or
    for the directory of an artifact to go on from."""
    if not Path(model).is_dir():
        return {"name": os.fspath(model)}
    return {"name": one_net(model).manifest.model["name"], "weights": os.fspath(model)}


def one_net(path: str | os.PathLike) -> Artifact:
    """The artifact in a directory; `UsageError` for that of an ensemble."""
    made = load(path)
    if made.manifest.model["name"] == ENSEMBLE:
        raise UsageError(
            f"expected weights of one net, got an ensemble in {path}; give a member, or train anew"
        )
    return made


def shipped_recipes() -> dict[str, Path]:
    """The recipes that come with striate, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}


def recipe_head(path: Path) -> dict[str, str]:
    """What a shipped recipe says at its head: purpose, command, result and maybe source.

    Each begins with its name (`# Purpose: ...`) and goes on in lines that are indented.
    """
    head: dict[str, str] = {}
    name = ""
    for line in path.read_text("utf-8").splitlines():
        text = line.removeprefix("#")
        if text == line or not text.strip():
            break
        first, colon, rest = text.strip().partition(":")
        if not text.startswith("   ") and colon:
            name, text = first.lower(), rest
        head[name] = f"{head.get(name, '')} {text.strip()}".strip()
    return head


def _read(base: Any) -> dict[str, Any]:
    if base is None:
        return {}
    if isinstance(base, Recipe):
        return base.to_dict()
    if isinstance(base, Mapping):
        return _merge({}, base)
    if not isinstance(base, str | os.PathLike):
        came = type(base).__name__
        raise UsageError(f"expected a recipe, a dictionary of one, its file or name, got {came}")
    shipped = shipped_recipes()
    path = shipped.get(os.fspath(base), Path(base))
    try:
        values = read_yaml(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(
            f"{base}: expected a recipe file or one that striate ships ({', '.join(shipped)}), "
            f"but {(error.strerror or str(error)).lower()}.{did_you_mean(str(base), shipped)}"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        raise UsageError(f"{base}{line}: expected YAML, got something else") from None
    if not isinstance(values, dict):
        raise UsageError(
            f"{base}: expected a recipe (keys and values), got {type(values).__name__}"
        )
    return _merge({}, values)


def _pairs(sets: Sets) -> list[tuple[str, Any]]:
    if isinstance(sets, Mapping):
        return list(sets.items())
    pairs = []
    for text in sets:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UsageError(
                f"expected key=value, such as optimizer.learning_rate=1e-3, got {text!r}"
            )
        pairs.append((key.strip(), _value(key.strip(), value)))
    return pairs


def _value(key: str, text: str) -> Any:
    """The value in KEY=VALUE; paths and names are taken as they are typed."""
    if _is_text(key) and text != "null":
        return text
    try:
        return read_yaml(text)
    except yaml.YAMLError:
        raise UsageError(f"expected a value after {key}=, got {text!r}") from None


def _is_text(key: str) -> bool:
    """Whether a key holds free text, which may look like a number or like YAML."""
    group, _, field = key.partition(".")
    found = Recipe.model_fields.get(group)
    kind = found.annotation if found else None
    if not (isinstance(kind, type) and issubclass(kind, Group)) or field not in kind.model_fields:
        return False
    return kind.model_fields[field].annotation in (str, str | None)


def _nested(key: str, value: Any) -> dict[str, Any]:
    """{"a": {"b": value}} from "a.b"."""
    first, dot, rest = key.partition(".")
    return {first: _nested(rest, value)} if dot else {first: value}


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Groups merge key by key; a group's name alone stands for the group."""
    merged = dict(base)
    for key, value in changes.items():
        if key in _NAMED and isinstance(value, str):
            value = {"name": value}
        if isinstance(value, BaseModel):
            value = value.model_dump(mode="json", exclude_unset=True)
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            value = _merge(merged[key], value)
        merged[key] = value
    return merged


_NAMED = {
    name
    for name, field in Recipe.model_fields.items()
    if isinstance(field.annotation, type)
    and issubclass(field.annotation, Group)
    and "name" in field.annotation.model_fields
}


def _validated(values: Mapping[str, Any]) -> Recipe:
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise UsageError(_first_problem(error)) from None


def _first_problem(error: ValidationError) -> str:
    """One line for the first thing that is wrong; a misspelt key explains a missing one."""
    problems = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    problem = problems[0]
    path = [
        str(part)
        for part in problem["loc"]
        if part not in ("constrained-int", "tuple[int, int]", "tuple[int, int, int]")
    ]
    key = ".".join(path)
    if problem["type"] == "extra_forbidden":
        return f"recipe has no key {key!r}.{_nearest_key(path)}"
    if problem["type"] == "missing" and isinstance(problem["loc"][-1], str):
        return (
            f"recipe needs {key!r}, such as {key}={'lenet5' if key.startswith('model') else '...'}"
        )
    should = _SHOULD.get(problem["type"], problem["msg"])
    should = should.replace("Input should", "should").replace("Value error, ", "")
    hint = ""
    if problem["type"] == "literal_error":
        hint = did_you_mean(
            str(problem["input"]),
            problem["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", "),
        )
    return f"recipe: {key} {should}, got {problem['input']!r}.{hint}"


# What pydantic says of these speaks of Python; a recipe has groups of keys, and lists.
_SHOULD = {
    "missing": "should be there, since the list is too short",
    "too_long": "should have fewer values",
    "model_type": "should be a group of keys with values, or be left out",
    "tuple_type": "should be a list, such as [1, 2]",
}


def _nearest_key(path: list[str]) -> str:
    """The key that was meant: of this very name elsewhere, or a near one in its group."""
    group: type[BaseModel] = Recipe
    for part in path[:-1]:
        annotation = group.model_fields[part].annotation
        group = annotation if isinstance(annotation, type) else Recipe
    everywhere = {
        key: f"{name}.{key}"
        for name, field in Recipe.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Group)
        for key in field.annotation.model_fields
    }
    if path[-1] in everywhere:
        return f" Did you mean {everywhere[path[-1]]!r}?"
    prefix = "".join(f"{part}." for part in path[:-1])
    near = did_you_mean(path[-1], group.model_fields)
    if near:
        return near.replace("'", f"'{prefix}", 1) if prefix else near
    return f" Its keys: {', '.join(group.model_fields)}."
