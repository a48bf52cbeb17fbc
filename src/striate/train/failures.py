"""What can go wrong while a net trains, each told in one line that says what to change."""

import contextlib
import math
from collections.abc import Iterable, Iterator

import numpy as np

from striate.errors import StriateError
from striate.train.recipe import Recipe

EXPLODED = 10.0


class Diverged(StriateError):
    """The run is lost, and the same call would lose it again."""


class OutOfMemory(StriateError):
    """A batch does not fit into the device's memory; the run stands at its last checkpoint."""


def check_loss(
    recipe: Recipe, loss: float, *, least: float | None, classes: int, epoch: int
) -> None:
    """Raises `Diverged` for a mean loss over a stretch of steps that is no number, or exploding.

    Exploding is a loss over 10 times the least of a stretch so far and over 10 times that of a net
    that knows nothing, ln(classes): there the net is wrong and certain of it, everywhere. Either
    alone happens to runs that end well: a penalty or badly scaled first weights make a loss large
    from the start, and a loss close to 0 can rise tenfold by one picture. A first stretch, which
    has none before it, may reach 1000 ln(classes).
    """
    if not math.isfinite(loss):
        raise Diverged(
            f"training diverged: the loss became {loss} in epoch {epoch}; {_remedies(recipe)}"
        )
    ignorant = math.log(classes)
    if loss > EXPLODED * max(100 * ignorant if least is None else least, ignorant):
        rose = "to" if least is None else f"from {least:.3g} to"
        raise Diverged(
            f"training is exploding: the loss rose {rose} {loss:.3g} in epoch {epoch}; "
            f"{_remedies(recipe)}"
        )


def check_weights(recipe: Recipe, weights: Iterable[np.ndarray], epoch: int) -> None:
    """Raises `Diverged` for weights that are no numbers, which no loss told of: of a last step."""
    if not all(np.isfinite(array).all() for array in weights):
        raise Diverged(
            f"training diverged: weights are no numbers after epoch {epoch}; {_remedies(recipe)}"
        )


@contextlib.contextmanager
def memory_explained(recipe: Recipe) -> Iterator[None]:
    """Within it, an error of any backend about a lack of memory is an `OutOfMemory`."""
    try:
        yield
    except Exception as error:
        if not _is_about_memory(error):
            raise
        raise OutOfMemory(
            f"out of memory with batches of {recipe.batch_size}; {_smaller(recipe)}. "
            "Where something else took the memory, the same command goes on from the last "
            "checkpoint"
        ) from None


def _remedies(recipe: Recipe) -> str:
    """What helps against a loss that grows; the run with it begins anew."""
    penalty = " or the penalty" if recipe.penalty.l1 or recipe.penalty.l2 else ""
    return (
        f"lower optimizer.learning_rate (now {recipe.optimizer.learning_rate:g}){penalty}, "
        "lengthen schedule.warmup or set optimizer.clip_norm=1, and begin anew"
    )


def _smaller(recipe: Recipe) -> str:
    if recipe.batch_size == 1:
        return "begin anew with a smaller model.size or net, or with precision=mixed_bfloat16"
    half = math.ceil(recipe.batch_size / 2)
    return (
        f"begin anew with batch_size={half} optimizer.accumulate={2 * recipe.optimizer.accumulate}"
        ", which takes the same steps in half the memory"
    )


def _is_about_memory(error: Exception) -> bool:
    """TensorFlow has a class for it, XLA a word in the text, Python `MemoryError`."""
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return True
    text = str(error)
    return any(word in text for word in ("RESOURCE_EXHAUSTED", "Out of memory", "OOM when"))
