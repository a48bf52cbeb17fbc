"""The one training loop: phases of epochs of steps, with a checkpoint that any kill survives.

Keras' `fit` takes the steps, a stretch of at most `STRETCH` at a time, so that gradients, jit,
mixed precision and devices are Keras' own on every backend; what happens between stretches is read
here from top to bottom. A stretch begins at (epoch, step), and the pictures of a step depend on
(seed, epoch, step) alone: continuing from a checkpoint is the same computation, bit for bit.
"""

import functools
import itertools
import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from striate.data.pipeline import Examples, class_weights, epoch_order, steps_per_epoch
from striate.errors import UsageError
from striate.registry import ModelSpec
from striate.train import judge, probe
from striate.train.augment import augmentation
from striate.train.checkpoint import NoStore, State, Store, arrays_of, assign
from striate.train.failures import check_loss, check_weights, memory_explained
from striate.train.frozen import Body, Known, mirrored
from striate.train.graphs import augmented, compile_graph, logits_of, training_graph
from striate.train.optimize import lower_rate
from striate.train.progress import Watcher, row_line
from striate.train.recipe import Recipe
from striate.train.strategies import Phase, forget_sooner, freeze, learning_rates, linear_head
from striate.train.tensorboard import Logs

LOOKS = 8  # batches that give activations their first ranges
STRETCH = 250  # steps between looks at the loss, and between checkpoints within an epoch


class Run:
    """One net on its way through the phases of a recipe.

    net: float pixels -> logits; train, val: uint8 pixels; store: where checkpoints go.
    known: features of the frozen net that were computed before.
    """

    def __init__(
        self,
        net: Any,
        spec: ModelSpec,
        recipe: Recipe,
        train: Examples,
        val: Examples | None,
        *,
        store: Store | NoStore,
        watch: Watcher,
        logs: Logs,
        known: Known | None = None,
    ) -> None:
        self.net, self.spec, self.recipe = net, spec, recipe
        self.classes = net.outputs[0].shape[-1]
        self.train, self.val = train, val
        self.store, self.watch, self.logs = store, watch, logs
        self.known = known
        self.state = State()
        if val is None and (recipe.early_stopping.patience or recipe.early_stopping.restore_best):
            raise UsageError("early_stopping needs validation pictures; set data.validation")
        if val is None and recipe.schedule.name == "plateau":
            raise UsageError("schedule=plateau needs validation pictures; set data.validation")

    def through(self, phases: list[Phase]) -> list[dict[str, Any]]:
        """Go through all the phases from where the store says; returns the history, a row an epoch.

        Raises `Diverged` when the loss explodes, `OutOfMemory` when a batch does not fit.
        """
        with memory_explained(self.recipe):
            return self._through(phases)

    def _through(self, phases: list[Phase]) -> list[dict[str, Any]]:
        self.state, arrays = self.store.load()
        if arrays:
            self.watch.say(f"resuming {_where(self.state, phases)}")
        if "net" in arrays:
            assign(self.net.variables, arrays["net"])
        while self.state.phase < len(phases):
            phase = phases[self.state.phase]
            freeze(self.net, phase)
            if phase.kind == "probe":
                self._probe(phase)
            else:
                self._fit(phase, arrays)
            self.state.next_phase()
            self.store.save(self.state, {"net": self.net.variables})
            arrays = {}
        return self.state.history

    # === Phases ===

    def _probe(self, phase: Phase) -> None:
        """Solve for the classifier on the features of the frozen body."""
        started = time.monotonic()
        head = linear_head(self.net, self.spec)
        size = min(self.recipe.batch_size, len(self.train))
        body = Body(self.net, [self.spec.features], self.train.preprocess, self.known)
        features, labels = self._copies(body, size)
        classes = head.kernel.shape[-1]
        weights = self._class_weights(("weights", "sampling"))
        l2 = self.recipe.probe.l2
        with self.watch.busy("solving for the classifier"):
            kernel, bias = probe.solve(features, labels, classes, l2=l2, weights=weights)
        assign([head.kernel, head.bias], [kernel, bias])
        logits = features @ kernel + bias
        row = {
            "phase": phase.name,
            "loss": judge.cross_entropy(logits, labels),
            "accuracy": judge.accuracy(logits, labels),
        }
        if self.val is not None:
            row |= _judged(body.vectors(self.val, size) @ kernel + bias, self.val)
        self._record({**row, "seconds": round(time.monotonic() - started, 3)}, phase)

    def _copies(self, body: Body, size: int) -> tuple[np.ndarray, np.ndarray]:
        """(float32 [n, d], int [n]) of the training pictures and the copies that a recipe wants."""
        recipe, train, watch = self.recipe, self.train, self.watch
        features = [body.vectors(train, size, watch=watch)]
        if recipe.probe.mirror:
            features.append(
                body.vectors(train, size, version="mirrored", change=mirrored, watch=watch)
            )
        layers = functools.partial(augmentation, recipe.augment, preprocess=train.preprocess)
        changes = bool(layers(seed=0))
        if recipe.probe.copies and not changes:
            watch.say("no copies are made for the probe, as augment changes nothing")
        for i in range(recipe.probe.copies if changes else 0):
            change = functools.partial(augmented, layers=layers, seed=(recipe.seed, i))
            copies = body.vectors(train, size, version=f"copy {i}", change=change, watch=watch)
            features.append(copies)
        return np.concatenate(features), np.tile(train.labels, len(features))

    def _fit(self, phase: Phase, arrays: dict[str, list[np.ndarray]]) -> None:
        """Follow the gradient for a phase's epochs, from where a checkpoint left it."""
        recipe, state = self.recipe, self.state
        steps = steps_per_epoch(len(self.train), recipe.batch_size)
        trainer = self.trainer(phase)
        if "optimizer" in arrays:
            assign(trainer.variables, arrays["trainer"])
            assign(trainer.optimizer.variables, arrays["optimizer"])
        elif state.phase and recipe.early_stopping.restore_best:
            self._measure_ranges(trainer)
            self._compare(self._validate(trainer))  # no epoch may be better than the beginning

        while state.epoch < phase.epochs and not state.stopped:
            started = time.monotonic()
            for step, stop, batches in self._stretches(phase, steps):
                trainer.advance((state.epoch + step / steps) / phase.epochs)
                losses = trainer.fit(
                    batches, steps_per_epoch=stop - step, shuffle=False, verbose=0
                ).history
                self._add_stretch(losses, stop - step)
                state.step = stop
                if stop < steps:
                    self._checkpoint(trainer, due=False)
            self._end_epoch(phase, trainer, started)
            self._checkpoint(trainer, due=state.epoch == phase.epochs or state.stopped)
        if recipe.early_stopping.restore_best and state.best:
            assign(self.net.weights, self.store.load_best(state.best["epoch"]))
        elif trainer.average:
            trainer.average.take_place()
        check_weights(recipe, arrays_of(self.net.weights), state.epoch)

    def _measure_ranges(self, trainer: Any) -> None:
        """Let a graph that rounds see pictures before it is judged: its ranges begin empty."""
        if self.recipe.quantise != "none":
            from striate.train.quantise import measure_ranges

            batches = self.train.stream(itertools.islice(self.order(0), LOOKS))
            measure_ranges(trainer, (images for images, _ in batches))

    def _stretches(self, phase: Phase, steps: int) -> Iterator[tuple[int, int, Iterator]]:
        """(step, stop, batches) of what is left of the epoch."""
        state, first = self.state, self.state.step
        order = self.order(state.epoch, first)
        what = f"{phase.name}  epoch {state.epoch + 1}/{phase.epochs}"
        stream = self.watch.steps(self.train.stream(order), steps, what, done=first)
        for step in range(first, steps, STRETCH):
            stop = min(step + STRETCH, steps)
            yield step, stop, (batch for batch in itertools.islice(stream, stop - step))
        next(stream, None)  # let the stream see its end

    def trainer(self, phase: Phase) -> Any:
        """The compiled training graph of a phase, for the net as `freeze` has left it."""
        recipe, train = self.recipe, self.train
        steps = steps_per_epoch(len(train), recipe.batch_size)
        if recipe.optimizer.accumulate > steps * phase.epochs:
            raise UsageError(
                f"{phase.name}: optimizer.accumulate={recipe.optimizer.accumulate} takes more "
                f"batches for one step than the {steps * phase.epochs} that there are"
            )
        self._say_how_rates_end(phase)
        trainer = training_graph(self.net, recipe, train.preprocess, self.spec.training_heads)
        if not trainer.trainable_variables:
            raise UsageError(f"{phase.name}: nothing is left to learn; see strategy.unfreeze_from")
        forget_sooner(self.net, steps)
        compile_graph(
            trainer,
            recipe,
            steps=steps,
            epochs=phase.epochs,
            weights=self._class_weights(("weights",)),
            rates=learning_rates(self.net, trainer.trainable_variables, self.spec, phase),
        )
        return trainer

    def _say_how_rates_end(self, phase: Phase) -> None:
        """Where a schedule does not come to what it is for within the epochs of a phase."""
        schedule, epochs = self.recipe.schedule, phase.epochs
        if schedule.warmup >= epochs:
            self.watch.say(
                f"{phase.name}: the learning rate rises to the end, as schedule.warmup is "
                f"{schedule.warmup:g} and the epochs are {epochs}"
            )
        if schedule.name == "step" and not any(epoch < epochs for epoch in schedule.steps):
            self.watch.say(
                f"{phase.name}: the learning rate stays the same, as none of schedule.steps "
                f"{list(schedule.steps)} lies before the end of {epochs} epochs"
            )

    def order(self, epoch: int, start: int = 0) -> Iterator[np.ndarray]:
        """The positions in each batch of an epoch, from step `start`."""
        recipe = self.recipe
        return epoch_order(
            len(self.train),
            recipe.batch_size,
            seed=recipe.seed,
            epoch=epoch,
            start=start,
            balance=self.train.labels if recipe.data.balance == "sampling" else None,
            parts=recipe.devices,
        )

    def _class_weights(self, where: tuple[str, ...]) -> np.ndarray | None:
        """What a picture of each class counts, where the recipe balances in one of these ways."""
        if self.recipe.data.balance not in where:
            return None
        return class_weights(self.train.labels, self.classes)

    def _add_stretch(self, losses: dict[str, list[float]], steps: int) -> None:
        """Fold a stretch into the means of its epoch; `Diverged` where its loss explodes."""
        state, partial = self.state, self.state.partial
        loss = float(losses["loss"][0])
        check_loss(
            self.recipe, loss, least=state.least, classes=self.classes, epoch=state.epoch + 1
        )
        state.least = loss if state.least is None else min(loss, state.least)
        before = partial.get("steps", 0)
        for name in ("loss", "accuracy"):
            total = partial.get(name, 0.0) * before + float(losses[name][0]) * steps
            partial[name] = total / (before + steps)
        partial["steps"] = before + steps

    def _end_epoch(self, phase: Phase, trainer: Any, started: float) -> None:
        """Validate, note the row, and decide whether this was the best epoch or the last."""
        state = self.state
        with trainer.judged():
            row = {
                "phase": phase.name,
                "epoch": state.epoch + 1,
                "loss": state.partial["loss"],
                "accuracy": state.partial["accuracy"],
                "learning_rate": float(trainer.optimizer.learning_rate),
                **self._validate(trainer),
                "seconds": round(time.monotonic() - started, 3),
            }
            self._record(row, phase)
            state.epoch, state.step, state.partial = state.epoch + 1, 0, {}
            if self.val is not None and trainer.whole:
                self._compare(row)
            if state.epoch in phase.snapshots:
                self.store.save_snapshot(state.epoch, self.net.weights)
        if self.recipe.schedule.name == "plateau":
            self._lower_on_plateau(row, trainer)

    def _compare(self, row: dict[str, Any]) -> None:
        """Keep the weights if this was the best epoch; stop if the best is too long ago."""
        state, stopping = self.state, self.recipe.early_stopping
        if _is_better(row, stopping.monitor, state.best and state.best["value"]):
            state.best, state.stale = {"epoch": state.epoch, "value": row[stopping.monitor]}, 0
            if stopping.restore_best:
                self.store.save_best(state.epoch, self.net.weights)
        else:
            state.stale += 1
        state.stopped = stopping.patience is not None and state.stale >= stopping.patience
        if state.stopped:
            self.watch.say(f"no better {stopping.monitor} for {state.stale} epochs: stopping")

    def _lower_on_plateau(self, row: dict[str, Any], trainer: Any) -> None:
        """Lower the learning rate once `patience` epochs have brought nothing better."""
        schedule = self.recipe.schedule
        seen = self.state.plateau or {"value": None, "stale": 0}
        if _is_better(row, schedule.monitor, seen["value"]):
            seen = {"value": row[schedule.monitor], "stale": 0}
        else:
            seen = {**seen, "stale": seen["stale"] + 1}
        if seen["stale"] >= schedule.patience:
            lower_rate(trainer.optimizer, schedule.factor)
            seen["stale"] = 0
            rate = float(trainer.optimizer.learning_rate)
            self.watch.say(
                f"no better {schedule.monitor} for {schedule.patience} epochs: "
                f"the learning rate falls to {rate:.3g}"
            )
        self.state.plateau = seen

    def _validate(self, graph: Any) -> dict[str, float]:
        if self.val is None:
            return {}
        return _judged(logits_of(graph, self.val, self.recipe.batch_size), self.val)

    def _record(self, row: dict[str, Any], phase: Phase) -> None:
        self.state.history.append(row)
        self.store.log(row)
        self.logs.add(row, len(self.state.history))
        self.watch.say(row_line(row, phase.epochs))

    def _checkpoint(self, trainer: Any, *, due: bool) -> None:
        groups = {"trainer": trainer.variables, "optimizer": trainer.optimizer.variables}
        self.store.save(self.state, groups, due=due)


def _judged(logits: np.ndarray, examples: Examples) -> dict[str, float]:
    return {
        "val_loss": judge.cross_entropy(logits, examples.labels),
        "val_accuracy": judge.accuracy(logits, examples.labels),
    }


def _is_better(row: dict[str, Any], monitor: str, best: float | None) -> bool:
    """Whether an epoch is better than the best so far: a smaller loss, a larger accuracy."""
    if best is None or math.isnan(best):
        return True
    return row[monitor] > best if monitor == "val_accuracy" else row[monitor] < best


def _where(state: State, phases: list[Phase]) -> str:
    if state.phase >= len(phases):
        return "after the last epoch"
    step = f", step {state.step}" if state.step else ""
    return f"in phase {phases[state.phase].name}, after epoch {state.epoch}{step}"
