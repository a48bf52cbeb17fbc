"""Put every picture to an engine, once, and keep what judging needs: five numbers of each, and of
the worst mistakes their pixels. A million pictures take 20 MB.
"""

import dataclasses
import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np

from striate import metrics
from striate.data import Dataset
from striate.data.pipeline import THREADS
from striate.data.records import Source
from striate.errors import DataError, EngineError
from striate.evaluate.corruptions import SEVERITIES, Robustness, judge_batch
from striate.preprocess import Spec, pixels
from striate.runtime import Engine

MISTAKES = 24  # the worst that are kept

# true and predicted class, place of the true one (0 is best), score of the predicted and the true
ANSWER = np.dtype(
    [("true", "i4"), ("predicted", "i4"), ("rank", "i4"), ("score", "f4"), ("true_score", "f4")]
)


@dataclasses.dataclass(frozen=True, eq=False)
class Mistake:
    """A picture that was answered wrongly.

    score: of the predicted class; true_score: of the true one; pixels: what the net saw, uint8
    [H, W, C].
    """

    path: str
    true: str
    predicted: str
    score: float
    true_score: float
    pixels: np.ndarray = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True, eq=False)
class Answers:
    """table: `ANSWER` records [N]; mistakes: the most confident first; skipped: a line for each
    picture that could not be read."""

    table: np.ndarray
    mistakes: tuple[Mistake, ...]
    skipped: tuple[str, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Questions:
    """Which pictures are put to an engine, and what would be right.

    indices: of the pictures in the data set; targets: class of the data -> index of its label;
    labels: the artifact's; batch_size: pictures put at once.
    """

    dataset: Dataset
    indices: np.ndarray
    targets: np.ndarray
    labels: tuple[str, ...]
    batch_size: int

    def true(self, where: Sequence[int]) -> np.ndarray:
        """The right labels of some pictures, by their indices: int64 [N]."""
        return self.targets[self.dataset.labels[list(where)]]


def ask(
    engine: Engine, spec: Spec, questions: Questions, on_progress: Callable[[int], None]
) -> Answers:
    """The engine's answers to the pictures, whose pixels `spec` makes.

    on_progress: called with the pictures done after every batch. Raises `DataError` where no
    picture can be read, `EngineError` where a score is not finite.
    """
    dataset = questions.dataset
    tables: list[np.ndarray] = []
    worst: list[tuple[float, int, Mistake]] = []  # a heap, the least confident on top
    skipped = [str(problem) for problem in dataset.problems if problem.kind == "unreadable"]
    done = 0
    for batch in _batches(questions, spec):
        skipped += [str(tensor) for _, tensor in batch if isinstance(tensor, DataError)]
        good = [(i, tensor) for i, tensor in batch if isinstance(tensor, np.ndarray)]
        if good:
            where, tensors = zip(*good, strict=True)
            scores = _scores(engine, np.stack(tensors), dataset.names[where[0]])
            table = _table(scores, questions.true(where))
            tables.append(table)
            for row in np.flatnonzero(table["predicted"] != table["true"]):
                i = where[row]
                mistake = _mistake(dataset.names[i], table[row], questions.labels, tensors[row])
                heapq.heappush(worst, (mistake.score, -int(i), mistake))
            worst = heapq.nlargest(MISTAKES, worst)[::-1]
        done += len(batch)
        on_progress(done)
    if not tables:
        why = f": {skipped[0]}" if skipped else ""
        raise DataError(
            f"{dataset.source}: expected pictures to judge by, none of {len(questions.indices)} "
            f"can be read{why}"
        )
    mistakes = tuple(mistake for *_, mistake in reversed(worst))
    return Answers(np.concatenate(tables), mistakes, tuple(skipped))


def inputs_and_scores(
    engine: Engine, spec: Spec, questions: Questions
) -> tuple[np.ndarray, np.ndarray]:
    """The pictures that can be read, as the engine is given them, and their scores [N, classes]."""
    images, scores = [], []
    for batch in _batches(questions, spec):
        good = [tensor for _, tensor in batch if isinstance(tensor, np.ndarray)]
        if good:
            images.append(np.stack(good))
            scores.append(engine.predict(images[-1]))
    return np.concatenate(images), np.concatenate(scores)


def ask_spoilt(
    engine: Engine,
    spec: Spec,
    questions: Questions,
    names: tuple[str, ...],
    seed: int,
    on_progress: Callable[[int], None],
) -> Robustness:
    """The engine's answers to spoilt copies of the pictures that can be read.

    names: of the corruptions; on_progress: called with the copies done after every batch.
    """
    right, done = [], 0
    for batch in _batches(questions, spec):
        good = [(int(i), tensor) for i, tensor in batch if isinstance(tensor, np.ndarray)]
        if good:
            where, tensors = zip(*good, strict=True)
            true = questions.true(where)
            right.append(judge_batch(engine, np.stack(tensors), true, where, names, seed))
        done += len(batch) * len(names) * SEVERITIES
        on_progress(done)
    return Robustness(names, np.concatenate(right), seed)


def read(
    questions: Questions, spec: Spec, most: int, seed: int
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """(pixels uint8 [N, H, W, C], right labels int64 [N], names) of some that can be read."""
    chosen = some_of(questions, most, seed)
    good = [
        (i, tensor)
        for batch in _batches(chosen, spec)
        for i, tensor in batch
        if isinstance(tensor, np.ndarray)
    ]
    where, tensors = zip(*good, strict=True)
    names = [questions.dataset.names[i] for i in where]
    return np.stack(tensors), questions.true(where), names


def some_of(questions: Questions, most: int, seed: int) -> Questions:
    """At most so many of the pictures, drawn by the seed, in an order that is random too."""
    order = np.random.default_rng(seed).permutation(questions.indices)
    return dataclasses.replace(questions, indices=order[:most])


def _scores(engine: Engine, images: np.ndarray, name: str) -> np.ndarray:
    scores = engine.predict(images)
    if not np.isfinite(scores).all():
        raise EngineError(
            f"the {engine.name} engine gives scores that are not finite, in the batch from {name} "
            "on; export the artifact again, or train it again"
        )
    return scores


def _table(scores: np.ndarray, true: np.ndarray) -> np.ndarray:
    table = np.empty(len(true), ANSWER)
    table["true"] = true
    table["predicted"] = scores.argmax(axis=1)
    table["rank"] = metrics.ranks(scores, true)
    table["score"] = scores.max(axis=1)
    table["true_score"] = scores[np.arange(len(true)), true]
    return table


def _mistake(name: str, answer: np.void, labels: Sequence[str], tensor: np.ndarray) -> Mistake:
    return Mistake(
        path=name,
        true=labels[answer["true"]],
        predicted=labels[answer["predicted"]],
        score=float(answer["score"]),
        true_score=float(answer["true_score"]),
        pixels=tensor,
    )


def _batches(
    questions: Questions, spec: Spec
) -> Iterator[list[tuple[int, np.ndarray | DataError]]]:
    """Lists of (index, pixels or why there are none), each `batch_size` long but the last."""
    size, indices = questions.batch_size, questions.indices
    sources = (questions.dataset.images[i] for i in indices)
    decoded = zip(indices, _decoded(sources, spec, ahead=2 * size), strict=True)
    while batch := list(islice(decoded, size)):
        yield batch


def _decoded(sources: Iterable[Source], spec: Spec, ahead: int) -> Iterator[np.ndarray | DataError]:
    """Pixels in order, decoded by threads; at most `ahead` of them wait for the engine."""

    def decode(source: Source) -> np.ndarray | DataError:
        try:
            return pixels(source, spec)
        except DataError as error:
            return error

    with ThreadPoolExecutor(THREADS) as pool:
        waiting: deque = deque()
        for source in sources:
            waiting.append(pool.submit(decode, source))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
