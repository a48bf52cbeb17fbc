"""From pictures to batches: decoded once, in parallel, and dealt out in an order that is a pure
function of (seed, epoch, step), so that a resumed run sees exactly what the killed one would have.
"""

import dataclasses
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from striate.data.records import Images, Problem, Source
from striate.errors import DataError
from striate.preprocess import Spec, pixels

CACHE_BYTES = 2 << 30  # pictures are kept in memory up to this, decoded again and again beyond it
THREADS = min(32, os.cpu_count() or 1)  # Pillow lets go of the interpreter while it decodes
AHEAD = 2  # batches that are being decoded while one is used
DARK = 63  # of 255: the white of 14 bits in a file of 16


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Examples:
    """Labelled pixels at the input size of one net.

    preprocess: what made the pixels; labels: int32 [N]; names: of the pictures; indices: int64 [N],
    where they stand in their data set; sources: paths, files' bytes or arrays; images: uint8
    [N, H, W, C], or None where they are too large to keep; problems: the pictures that could not be
    decoded.
    Of other kinds than pictures, the tensors have `preprocess.shape` and `preprocess.dtype`.
    """

    preprocess: Spec
    labels: np.ndarray
    names: tuple[str, ...]
    indices: np.ndarray
    sources: Sequence[Source]
    images: np.ndarray | None
    problems: tuple[Problem, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        """In a line, whatever they hold."""
        kept = "as they are used" if self.images is None else "in memory"
        return f"<Examples: {len(self):,} {self.preprocess.noun}s {self.preprocess.shape}, {kept}>"

    def pixels(self, positions: Sequence[int] | np.ndarray) -> np.ndarray:
        """uint8 [k, H, W, C] at some positions, 0 to N - 1."""
        return next(self.stream([np.asarray(positions, np.int64)]))[0]

    def some(self, positions: np.ndarray) -> "Examples":
        """The examples at some positions, 0 to N - 1."""
        sources = [self.sources[i] for i in positions]
        return dataclasses.replace(
            self,
            labels=self.labels[positions],
            names=tuple(self.names[i] for i in positions),
            indices=self.indices[positions],
            sources=np.stack(sources) if isinstance(self.sources, np.ndarray) else sources,
            images=None if self.images is None else self.images[positions],
        )

    def batches(self, batch_size: int = 32) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(uint8 [B, H, W, C], int32 [B]) in order, each picture once; the last batch may be
        smaller."""
        starts = range(0, len(self), batch_size)
        return self.stream(np.arange(i, min(i + batch_size, len(self))) for i in starts)

    def stream(self, order: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """One batch (uint8 [B, H, W, C], int32 [B]) for each array of positions in `order`."""
        if self.images is not None:
            for positions in order:
                yield self.images[positions], self.labels[positions]
            return
        with ThreadPoolExecutor(THREADS) as pool:
            waiting: deque = deque()
            for positions in order:
                jobs = [pool.submit(pixels, self.sources[i], self.preprocess) for i in positions]
                waiting.append((jobs, self.labels[positions]))
                if len(waiting) > AHEAD:
                    yield _collect(*waiting.popleft())
            while waiting:
                yield _collect(*waiting.popleft())


def steps_per_epoch(n: int, batch_size: int) -> int:
    """How many batches of at most `batch_size` hold n pictures."""
    return -(-n // batch_size)


def epoch_order(
    n: int,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    start: int = 0,
    balance: np.ndarray | None = None,
    parts: int = 1,
) -> Iterator[np.ndarray]:
    """The positions in each batch of one epoch, from step `start`: every picture once, shuffled.

    The batches differ in size by one at most, so that no tiny last one spoils the statistics of
    batch normalisation or weighs more than its pictures. balance: int labels [n], for n positions
    of which each class has as many as another, and within a class each picture (but for one).
    parts: that each batch can be shared out to evenly; a few pictures more may then come twice.
    """
    random = np.random.default_rng([seed, epoch])
    order = np.arange(n) if balance is None else _each_class_alike(balance, random)
    order = random.permutation(order)
    shared = np.resize(order, (-(-n // parts), parts))
    batches = np.array_split(shared, steps_per_epoch(n, batch_size))
    return (batch.ravel() for batch in batches[start:])


def class_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """float64 [classes]: n / (k n_c), with which k classes count alike and pictures 1 on average.

    Of a class without pictures, 1.
    """
    found = np.bincount(labels, minlength=classes)
    weights = len(labels) / (np.count_nonzero(found) * np.maximum(found, 1))
    return np.where(found > 0, weights, 1.0)


def _each_class_alike(labels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """As many positions as labels, each class and each picture of a class as often as another."""
    present = random.permutation(np.unique(labels))  # who gets one more is left to chance
    shares = np.array_split(np.arange(len(labels)), len(present))
    return np.concatenate(
        [
            np.resize(random.permutation(np.flatnonzero(labels == label)), len(share))
            for label, share in zip(present, shares, strict=True)
        ]
    )


def prepare(
    images: Images,
    labels: np.ndarray,
    names: Sequence[str],
    indices: np.ndarray,
    preprocess: Spec,
    *,
    cache_bytes: int = CACHE_BYTES,
    strict: bool = False,
) -> Examples:
    """Decode the pictures at `indices` and keep what fits; see `Dataset.examples`."""
    sources = images[indices] if isinstance(images, np.ndarray) else [images[i] for i in indices]
    size = len(indices) * int(np.prod(preprocess.shape))
    ready = isinstance(sources, np.ndarray) and sources.shape[1:] == preprocess.shape
    if ready:
        kept, errors, highest = sources, {}, sources.max(initial=0)
    elif size <= cache_bytes:
        kept = np.empty((len(indices), *preprocess.shape), preprocess.dtype)
        errors, highest = _decode_all(sources, preprocess, into=kept)
    else:
        kept = None
        errors, highest = _decode_all(sources, preprocess)
    if errors and strict:
        raise DataError(f"{next(iter(errors.values()))} (strict)")
    if errors and len(errors) == len(indices):
        raise DataError(f"none of {len(indices)} {preprocess.noun}s can be decoded; {errors[0]}")
    good = np.array([i for i in range(len(indices)) if i not in errors], np.int64)
    if errors:
        sources = [sources[i] for i in good]
        kept = None if kept is None else kept[good]
    return Examples(
        preprocess=preprocess,
        labels=labels[indices[good]],
        names=tuple(names[i] for i in indices[good]),
        indices=indices[good],
        sources=sources,
        images=kept,
        problems=(
            *(
                Problem("unreadable", f"{error}; left out", (names[indices[i]],))
                for i, error in errors.items()
            ),
            *_too_dark(preprocess, len(good), highest),
        ),
    )


def _too_dark(preprocess: Spec, count: int, highest: float) -> list[Problem]:
    """That all pictures are next to black: their levels may have fewer bits than their files."""
    if preprocess.kind != "picture" or not count or highest > DARK:
        return []
    return [
        Problem(
            "dark",
            f"the pictures are nearly black, no level above {DARK} of 255; levels of 10 to 14 bits "
            "in files of 16, and numbered masks, have to be stretched to the whole range first",
        )
    ]


def _decode_all(
    sources: Sequence[Source], preprocess: Spec, into: np.ndarray | None = None
) -> tuple[dict[int, DataError], float]:
    """Decode every picture, into an array or only to see that it can be.

    (position -> error, the highest level of all the others).
    """

    def decode(i: int) -> DataError | float:
        try:
            tensor = pixels(sources[i], preprocess)
        except DataError as error:
            return error
        if into is not None:
            into[i] = tensor
        return float(tensor.max())

    with ThreadPoolExecutor(THREADS) as pool:
        results = list(pool.map(decode, range(len(sources))))
    errors = {i: found for i, found in enumerate(results) if isinstance(found, DataError)}
    return errors, max((found for found in results if isinstance(found, float)), default=0.0)


def _collect(jobs: list, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.stack([job.result() for job in jobs]), labels
