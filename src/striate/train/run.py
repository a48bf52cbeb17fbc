"""A run from its recipe to its artifact: train, fine-tune, cross-validate."""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from striate import __version__, artifact
from striate.adopt import places_in
from striate.artifact import Artifact
from striate.committee import NAME, Member, committee
from striate.data import Dataset, Examples, load
from striate.data.splits import evenly
from striate.errors import ArtifactError, DataError, UsageError
from striate.lazy import keras
from striate.libraries import is_installed
from striate.preprocess import KINDS, Spec
from striate.train import build, devices, judge, transfer
from striate.train.adopted import is_adopted
from striate.train.checkpoint import (
    METRICS,
    NoStore,
    Store,
    check_output,
    discard,
    open_store,
    other_runs,
)
from striate.train.failures import Diverged
from striate.train.frozen import Known
from striate.train.graphs import logits_of, predict, prediction_graph
from striate.train.loop import Run
from striate.train.progress import Watcher, watcher
from striate.train.recipe import Recipe, finetune_recipe, make_recipe
from striate.train.strategies import phases_of, without_effect
from striate.train.tensorboard import Logs

GOLDENS = 8
BASELINE = 1000  # pictures that the drift baseline is measured on
CALIBRATING = 40  # validation pictures, at least, that a temperature is fitted to


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Fitted:
    """A fitted net and what it says of its validation pictures.

    model: Keras net, normalised floats -> float32 logits, the ensemble where there are snapshots;
    options: of `create_model`, that build one (of an ensemble, each member); preprocess: picture ->
    its input; recipe: with every choice made; history: a row an epoch.
    val: the validation pictures (`.labels`, `.names`, `.indices` into the data set), or None;
    val_logits: float32 [n, classes] of them.
    """

    model: Any
    options: Mapping[str, Any]
    preprocess: Spec
    recipe: Recipe
    classes: tuple[str, ...]
    history: list[dict[str, Any]]
    val: Examples | None = None
    val_logits: np.ndarray | None = None

    def __repr__(self) -> str:
        """In a line: a recipe and a history have pages."""
        n = 0 if self.val_logits is None else len(self.val_logits)
        judged = f"val accuracy {self.val_accuracy:.4f} of {n:,}" if n else "not judged"
        return f"<Fitted {self.recipe.model.name}: {len(self.classes):,} classes, {judged}>"

    @property
    def val_scores(self) -> np.ndarray:
        """float32 probabilities [n, classes] of the validation pictures."""
        return judge.softmax(self._logits())

    @property
    def val_accuracy(self) -> float:
        """The share of the validation pictures that the net names rightly."""
        return judge.accuracy(self._logits(), self.val.labels)

    @property
    def val_loss(self) -> float:
        """The mean cross-entropy of the validation pictures, in nats."""
        return judge.cross_entropy(self._logits(), self.val.labels)

    def _logits(self) -> np.ndarray:
        if self.val_logits is None:
            raise UsageError("this fit had no validation pictures")
        return self.val_logits


def finetune(
    model: str | os.PathLike,
    *,
    data: str | os.PathLike,
    output: str | os.PathLike,
    recipe: Any = "finetune",
    weights: str | os.PathLike | None = None,
    folds: int | None = None,
    progress: bool = True,
    **sets: Any,
) -> Artifact:
    """Fine-tune a pretrained net on one's own pictures and write it as an artifact.

    model: a net with pretrained weights, or the directory of an artifact to go on from, also one
    that `striate.adopt` wrote; data: what `striate.data.load` reads; output: the model's directory,
    which gets the next free version. folds: as in `train`. sets: changes to the recipe, as
    `epochs=20, strategy="full", **{"optimizer.learning_rate": 1e-4}`.
    """
    chosen = finetune_recipe(model, data=data, recipe=recipe, weights=weights, sets=sets)
    return train(chosen, output, folds=folds, progress=progress)


@build.own_randomness()
def train(
    recipe: Recipe | Mapping[str, Any] | str | os.PathLike,
    output: str | os.PathLike,
    *,
    data: str | os.PathLike | Dataset | None = None,
    folds: int | None = None,
    progress: bool = True,
    **sets: Any,
) -> Artifact:
    """Train as a recipe says and write an artifact: the next free version under `output`.

    recipe: a `Recipe`, a dictionary, a YAML file or the name of a shipped one; data: in place of
    the recipe's own source; sets: changes to the recipe, as in `finetune`.
    folds: hold out no pictures for validation but cross-validate on so many stratified folds, and
    then train on all of them; the artifact's `metrics["folds"]` say how good such a net is.

    A run leaves a hidden directory under `output` until its artifact is there. The same call again
    continues a killed run from its last checkpoint; on a CPU the weights are the same, bit for bit.

    Raises `UsageError` for a recipe that does not fit, `DataError` for pictures that cannot be used
    and `StriateError` when training diverges.
    """
    recipe = make_recipe(recipe, sets)
    if not isinstance(output, str | os.PathLike):
        raise UsageError(f"expected the path of a model's directory as output, got {output!r:.100}")
    base = Path(output)
    build.check_beginning(recipe)
    if (base / artifact.MANIFEST).exists():
        raise UsageError(f"{base} is a version; expected the model's directory, {base.parent}")
    check_output(base)
    if folds is not None:
        _check_folds(recipe)
        recipe = recipe.changed(data={"validation": 0})
    watch = watcher(progress)
    dataset = open_dataset(recipe, data, watch)
    fits: list[Fitted] = []
    with _stores(base, recipe, watch) as (stores, opened):
        if folds is not None:
            dataset = dataset.without_validation()  # where the source names some itself
            pairs = dataset.folds(folds, recipe.seed, split="train")
            fits = _cross_validated(recipe, dataset, pairs, watch, opened=opened)
            watch.say("now on all of them")
        train_indices = dataset.split("train")
        val_indices = dataset.splits.get("val")
        if val_indices is None and not fits:
            watch.say("no validation pictures: nothing will tell how good the classifier is")
        test_indices = dataset.splits.get("test")
        prepared = prepare(recipe, dataset, train_indices, val_indices, watch, test=test_indices)
        store = opened(prepared, dataset)
        for path in other_runs(base, stores):
            watch.say(
                f"{path} is a run of another recipe or other data; where no process is at work on "
                "it, remove it freely"
            )
        if not is_installed("tensorboard"):
            watch.say("no TensorBoard logs: the package tensorboard is not installed")
        made = _published(base, store)
        if made is None:
            fitted = _run(prepared, store, watch, Logs(store.directory / "tensorboard"))
            with watch.busy("writing the artifact"):
                made = _publish(base, fitted, prepared, dataset, store, fits)
        _keep_logs(store, made)
        for each in stores:
            discard(each)
    watch.say(f"wrote {made.path}")
    return made


@build.own_randomness()
def fit(
    recipe: Recipe | Mapping[str, Any] | str | os.PathLike,
    dataset: Dataset,
    train: str | Sequence[int] | np.ndarray,
    val: str | Sequence[int] | np.ndarray | None = None,
    *,
    progress: bool = False,
    **sets: Any,
) -> Fitted:
    """Train on some pictures of a data set, and judge by others; writes nothing.

    train, val: indices, a mask, or the name of a split.

    >>> recipe = finetune_recipe("squeezenet1_1")
    >>> fits = [fit(recipe, dataset, *fold) for fold in dataset.folds(5)]
    """
    watch = watcher(progress)
    chosen = make_recipe(recipe, sets)
    _check_dataset(dataset)
    train, val = (part if part is None else dataset.indices_of(part) for part in (train, val))
    prepared = prepare(chosen, dataset, train, val, watch)
    return _run(prepared, NoStore(), watch, Logs(None))


@build.own_randomness()
def cross_validate(
    recipe: Recipe | Mapping[str, Any] | str | os.PathLike,
    dataset: Dataset,
    *,
    folds: int = 5,
    seed: int = 0,
    progress: bool = False,
    known: Known | None = None,
    **sets: Any,
) -> list[Fitted]:
    """Fit and judge once for each fold of a data set; seed: of the folds.

    What the frozen net says of a picture is computed once for all folds, unless each fold's
    training pictures decide how pictures are normalised. known: a dictionary that keeps it for
    the next call with the same recipe and data set.
    """
    _check_dataset(dataset)
    pairs = dataset.folds(folds, seed)
    return _cross_validated(make_recipe(recipe, sets), dataset, pairs, watcher(progress), known)


def _cross_validated(
    recipe: Recipe,
    dataset: Dataset,
    pairs: list[tuple[np.ndarray, np.ndarray]],
    watch: Watcher,
    known: Known | None = None,
    opened: "Callable[[Prepared, Dataset], Store | NoStore]" = lambda prepared, fold: NoStore(),
) -> list[Fitted]:
    """opened: where the run of a fold, a data set with splits of its own, keeps what it has."""
    known = {} if known is None else known
    fits = []
    for i, (train, val) in enumerate(pairs, start=1):
        watch.say(f"fold {i} of {len(pairs)}")
        prepared = prepare(recipe, dataset, train, val, watch, known)
        fold = dataclasses.replace(dataset, splits={"train": train, "val": val})
        fits.append(_run(prepared, opened(prepared, fold), watch, Logs(None)))
    return fits


def _check_dataset(dataset: Dataset) -> None:
    """`UsageError` for a path, whose splits and folds nobody has seen yet."""
    if not isinstance(dataset, Dataset):
        raise UsageError(
            f"expected a data set, as striate.data.load(...) gives, got {dataset!r:.100}"
        )


def _check_folds(recipe: Recipe) -> None:
    """The last net sees all pictures, so that nothing is left for a recipe to look at."""
    stopping = recipe.early_stopping
    looks = stopping.patience or stopping.restore_best or recipe.schedule.name == "plateau"
    if looks:
        raise UsageError(
            "folds: expected a recipe that trains on all pictures in the end, got one that looks "
            "at validation pictures (early_stopping or schedule=plateau); leave that or folds out"
        )


# === The stations of a run ===


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """Everything that a run starts from, and the test pictures that its end is judged by.

    known: features that were computed before.
    """

    recipe: Recipe
    start: build.Start
    net: Any
    classes: tuple[str, ...]
    train: Examples
    val: Examples | None
    test: Examples | None = None
    known: Known | None = None


def open_dataset(recipe: Recipe, data: Any, watch: Watcher) -> Dataset:
    """The data set that is given, or what is at a source or the recipe's own, with its report."""
    if not isinstance(data, Dataset):
        source = data or recipe.data.source
        if source is None:
            raise UsageError("expected pictures to train on; give data=..., or set data.source")
        data = load(
            source,
            kind=build.spec_of(recipe).kind,
            split=recipe.data.validation,
            seed=recipe.seed,
            strict=recipe.data.strict,
        )
    for line in data.report():
        watch.say(line)
    return data


def prepare(
    recipe: Recipe,
    dataset: Dataset,
    train: np.ndarray,
    val: np.ndarray | None,
    watch: Watcher,
    known: Known | None = None,
    test: np.ndarray | None = None,
) -> Prepared:
    """Open the weights, decode the pictures, build the net, choose what was left to be measured."""
    if not len(train):
        raise UsageError(f"{dataset.source}: expected {dataset.noun}s to train on, got none")
    recipe, left_out = build.suited(recipe)
    if left_out:
        kind = KINDS[build.spec_of(recipe).kind].noun
        watch.say(f"left out, since {recipe.model.name} takes {kind}s: {', '.join(left_out)}")
    with watch.busy("opening the weights"):
        start = build.start_of(recipe)
    with watch.busy(f"measuring the {dataset.noun}s"):
        start = build.measured(start, recipe, dataset, train)
    recipe = build.resolved(recipe, start)
    build.make_deterministic(recipe)
    devices.use(recipe.devices, recipe.batch_size)
    with watch.busy(f"reading {dataset.noun}s"):
        every = [build.pixels_of(dataset, start, recipe, part) for part in (train, val, test)]
    train_examples = every[0]
    problems = [str(p) for examples in every if examples for p in examples.problems]
    for line in dict.fromkeys(problems):  # what is wrong with all of them, once
        watch.say(line)
    _check_classes(dataset, train_examples)
    net = build.build(start, recipe, len(dataset.classes))
    recipe, reason = transfer.decided(recipe, net, start, train_examples, known, watch)
    if reason:
        watch.say(reason)
    if recipe.model.options != start.options:  # the net ends earlier
        start = build.with_options(start, recipe.model.options)
        net = build.build(start, recipe, len(dataset.classes))
    return Prepared(recipe, start, net, dataset.classes, *every, known)


def _check_classes(dataset: Dataset, train: Examples) -> None:
    found = np.bincount(train.labels, minlength=len(dataset.classes))
    for name, n in zip(dataset.classes, found, strict=True):
        if n == 0:
            raise DataError(
                f"{dataset.source}: class {name!r} has no readable picture to learn from; "
                "add some or take the class out"
            )


@contextlib.contextmanager
def _stores(
    base: Path, recipe: Recipe, watch: Watcher
) -> Iterator[tuple[list[Store], Callable[[Prepared, Dataset], Store]]]:
    """(the stores so far, what opens another) of the runs of one call: the folds' and the last.

    Runs that cannot end well leave nothing; interrupted ones go on.
    """
    stores: list[Store] = []
    with contextlib.ExitStack() as held:

        def opened(prepared: Prepared, dataset: Dataset) -> Store:
            fingerprint = _fingerprint(prepared, dataset)
            store = open_store(base, fingerprint, recipe.checkpoint_seconds)
            stores.append(held.enter_context(store))
            return stores[-1]

        try:
            yield stores, opened
        except (Diverged, UsageError):  # which the same call would raise again
            for store in stores:
                discard(store)
            if stores:
                with contextlib.suppress(OSError):  # where there are other versions
                    base.rmdir()
            raise
        except KeyboardInterrupt:
            watch.say("interrupted; the same command continues from the last checkpoint")
            raise


def _run(prepared: Prepared, store: Store | NoStore, watch: Watcher, logs: Logs) -> Fitted:
    recipe, start = prepared.recipe, prepared.start
    phases = phases_of(recipe, prepared.net, start.spec)
    unused = without_effect(recipe, phases)
    if unused:
        watch.say(f"without effect, since a linear probe is solved for: {', '.join(unused)}")
    run = Run(
        prepared.net,
        start.spec,
        recipe,
        prepared.train,
        prepared.val,
        store=store,
        watch=watch,
        logs=logs,
        known=prepared.known,
    )
    try:
        history = run.through(phases)
    finally:
        devices.use(1, recipe.batch_size)
    logs.close()
    net, options = build.to_run(prepared.net, start, len(prepared.classes))
    if recipe.snapshots:
        net = _joined(prepared, [store.load_snapshot(epoch) for epoch in phases[-1].snapshots])
    fitted = Fitted(net, options, start.preprocess, recipe, prepared.classes, history, prepared.val)
    if prepared.val is None:
        return fitted
    graph = prediction_graph(net, start.preprocess)
    return dataclasses.replace(fitted, val_logits=logits_of(graph, prepared.val, recipe.batch_size))


def _joined(prepared: Prepared, snapshots: list[list[np.ndarray]]) -> Any:
    """The ensemble of the weights that were kept where cycles of the schedule ended."""
    members = []
    for weights in snapshots:
        prepared.net.set_weights(weights)
        net, _ = build.to_run(prepared.net, prepared.start, len(prepared.classes))
        members.append(Member(net))
    return committee(members)


# === The artifact ===

_NOT_IN_THE_RESULT = {"data": {"source", "cache_gb"}, "checkpoint_seconds": True}


def _fingerprint(prepared: Prepared, dataset: Dataset) -> str:
    """SHA-256 over all that decides the result: recipe, pictures, first weights, backend."""
    recipe = prepared.recipe.model_dump(mode="json", exclude=_NOT_IN_THE_RESULT)
    splits = {name: indices.tolist() for name, indices in dataset.splits.items()}
    facts = [recipe, dataset.fingerprint, splits, keras.backend.backend(), __version__]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for array in prepared.net.get_weights():
        digest.update(array.tobytes())
    return digest.hexdigest()


def _published(base: Path, store: Store) -> Artifact | None:
    """The version that this very run has written already, before it was killed."""
    for version in reversed(artifact.version_directories(base)):
        try:
            made = artifact.load(version)
        except ArtifactError:  # somebody else's version, which is not ours to judge
            continue
        if made.manifest.metrics.get("training", {}).get("run") == store.run:
            return made
    return None


def _publish(
    base: Path,
    fitted: Fitted,
    prepared: Prepared,
    dataset: Dataset,
    store: Store,
    fits: list[Fitted],
) -> Artifact:
    judged = prepared.val or prepared.train
    graph = prediction_graph(fitted.model, fitted.preprocess)
    found: dict[str, Any] = {"training": {"run": store.run, "history": fitted.history}}
    temperature = _temperature(fits or [fitted])
    if fits:
        found["folds"] = _judged_folds(fits, temperature)
    if fitted.val is not None:
        found["val"] = judge.summary(fitted.val_logits / temperature, fitted.val.labels)
    if prepared.test is not None:
        logits = logits_of(graph, prepared.test, fitted.recipe.batch_size)
        found["test"] = judge.summary(logits / temperature, prepared.test.labels)
    sample = judged.pixels(evenly(len(judged), BASELINE))
    batches = np.array_split(sample, -(-len(sample) // 32))
    logits = np.concatenate([predict(graph, images, 32) for images in batches])
    scores = judge.softmax(logits / temperature)
    return artifact.write_version(
        base,
        model=fitted.model,
        labels=list(fitted.classes),
        preprocess=fitted.preprocess,
        **_identity(fitted, prepared.start.spec.name),
        goldens=judged.pixels(_one_of_each(judged.labels, GOLDENS)),
        recipe=fitted.recipe.to_dict(),
        metrics=found,
        data={
            "fingerprint": dataset.fingerprint,
            "source": Path(dataset.source).name,
            "n": len(dataset),
            "classes": dataset.counts(),
            "splits": {name: len(indices) for name, indices in dataset.splits.items()},
            "split_digests": {name: dataset.digest_of(name) for name in dataset.splits},
            "left_out": [str(p) for p in _left_out(dataset, prepared)],
        },
        drift_baseline=artifact.drift_baseline(sample, scores),
        temperature=temperature,
    )


def _identity(fitted: Fitted, name: str) -> dict[str, Any]:
    """What a manifest calls the net: its name and options, or those of an ensemble's members."""
    if fitted.model.name != NAME:
        places = places_in(fitted.model) if is_adopted(name) else None
        return {"model_name": name, "options": fitted.options, "places": places}
    member = {"model": name, "options": fitted.options, "temperature": 1.0}
    return {"model_name": NAME, "options": {"members": [member] * fitted.recipe.snapshots}}


def _judged_folds(fits: list[Fitted], temperature: float) -> dict[str, Any]:
    """What all folds together say of their validation pictures, and each alone."""
    logits = np.concatenate([f.val_logits for f in fits]) / temperature
    labels = np.concatenate([f.val.labels for f in fits])
    each = [
        {"n": len(f.val), "accuracy": f.val_accuracy, "strategy": f.recipe.strategy.name}
        for f in fits
    ]
    return {**judge.summary(logits, labels), "each": each}


def _temperature(fits: list[Fitted]) -> float:
    """Fitted to the validation pictures where there are enough of them; else scores stay as is."""
    judged = [f for f in fits if f.val is not None]
    if not fits[0].recipe.calibrate or sum(len(f.val) for f in judged) < CALIBRATING:
        return 1.0
    logits = np.concatenate([f.val_logits for f in judged])
    return round(judge.temperature(logits, np.concatenate([f.val.labels for f in judged])), 4)


def _left_out(dataset: Dataset, prepared: Prepared) -> list[Any]:
    problems = list(dataset.problems)
    for examples in (prepared.train, prepared.val, prepared.test):
        problems += examples.problems if examples else ()
    return [problem for problem in problems if problem.leaves_out]


def _keep_logs(store: Store, made: Artifact) -> None:
    """Move a run's logs to `.logs/VERSION` beside the versions, where servers do not look."""
    logs = made.path.parent / ".logs" / made.path.name
    for name in (METRICS, "tensorboard"):
        if (store.directory / name).exists():
            logs.mkdir(parents=True, exist_ok=True)
            if (logs / name).is_dir():  # of a version that was removed, whose number is free again
                shutil.rmtree(logs / name)
            (store.directory / name).rename(logs / name)


def _one_of_each(labels: np.ndarray, most: int) -> np.ndarray:
    """Positions of one picture of each class in turn, as many as wanted."""
    turns = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        turns[of_class] = np.arange(len(of_class))
    return np.sort(np.lexsort((labels, turns))[:most])
