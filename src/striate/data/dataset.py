"""A labelled collection of pictures: classes, splits, a fingerprint, and what is wrong with it."""

import dataclasses
import functools
import hashlib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from striate.artifact import is_label
from striate.data.pipeline import CACHE_BYTES, Examples, prepare
from striate.data.records import Images, Problem, Records
from striate.data.splits import stratified_folds, stratified_split
from striate.errors import DataError, UsageError, check_whole, did_you_mean
from striate.preprocess import KINDS, Spec

SPLITS = ("train", "val", "test")
IMBALANCE = 10.0  # the largest class over the smallest, from which a warning is due


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Labelled pictures; `striate.data.load` makes one.

    source: where they came from; classes: names, in the order of the labels; names: of the
    pictures, sorted; labels: int32 [N]; images: N paths or files' bytes, or uint8 [N, h, w, c];
    digests: SHA-256 of each picture's content; splits: train, val, test -> indices, int64;
    given: the splits that the source named itself; problems: what a user should know; kind: what
    the "pictures" are, of `striate.preprocess.KINDS`.
    """

    source: str
    classes: tuple[str, ...]
    names: tuple[str, ...]
    labels: np.ndarray
    images: Images
    digests: np.ndarray
    splits: Mapping[str, np.ndarray]
    given: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    strict: bool = False
    kind: str = "picture"

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        """In a line; `report` says more."""
        splits = ", ".join(f"{name} {len(indices)}" for name, indices in self.splits.items())
        count = len(self.classes)
        return f"<Dataset {self.source}: {len(self):,} {self.noun}s, {count:,} classes; {splits}>"

    @property
    def noun(self) -> str:
        """What one of the pictures is called: a clip, a voxel grid, a row."""
        return KINDS[self.kind].noun

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, over the classes and every picture's name, label and content.

        It does not depend on where the source lies, nor on the order in which it was read.
        """
        digest = hashlib.sha256("\0".join(self.classes).encode())
        for name, label, content in zip(self.names, self.labels, self.digests, strict=True):
            digest.update(f"\0{name}\0{self.classes[label]}\0".encode() + bytes(content))
        return digest.hexdigest()

    def split(self, name: str) -> np.ndarray:
        """The indices of one split; `UsageError` when there is no such split."""
        if not isinstance(name, str) or name not in self.splits:
            raise UsageError(
                f"{self.source}: expected one of its splits ({', '.join(self.splits)}), "
                f"got {name!r}.{did_you_mean(name, self.splits)}"
            )
        return self.splits[name]

    def indices_of(self, which: str | Sequence[int] | np.ndarray | None) -> np.ndarray:
        """int64 indices of a split by its name, of a mask bool [N], of indices, or of all (None).

        Raises `UsageError` for what is none of these, as indices below 0 or from N on are.
        """
        if which is None:
            return np.arange(len(self))
        if isinstance(which, str):
            return self.split(which)
        given = np.asarray(which)
        if given.dtype == bool and given.shape == (len(self),):
            return np.flatnonzero(given)
        if given.shape == (0,):
            return np.empty(0, np.int64)
        whole = given.ndim == 1 and given.dtype.kind in "iu"
        if not whole or given.min() < 0 or given.max() >= len(self):
            raise UsageError(
                f"{self.source}: expected indices from 0 to {len(self) - 1}, a mask of {len(self)} "
                f"or a split ({', '.join(self.splits)}), got {np.array2string(given, threshold=6)}"
            )
        return given.astype(np.int64)

    def digest_of(self, split: str) -> str:
        """SHA-256, in hexadecimal, over the names of the pictures in a split."""
        names = "\0".join(self.names[i] for i in self.split(split))
        return hashlib.sha256(names.encode()).hexdigest()

    def counts(self, indices: np.ndarray | None = None) -> dict[str, int]:
        """Class -> number of pictures, of all or of those in `indices`."""
        labels = self.labels if indices is None else self.labels[indices]
        found = np.bincount(labels, minlength=len(self.classes))
        return dict(zip(self.classes, map(int, found), strict=True))

    def examples(
        self,
        preprocess: Spec,
        which: str | Sequence[int] | np.ndarray | None = None,
        *,
        cache_bytes: int = CACHE_BYTES,
    ) -> Examples:
        """The pictures of a split (or of indices, a mask, all) as pixels at a net's input size.

        They are decoded now, in parallel, and kept where they fit into `cache_bytes`; larger sets
        are checked now and decoded again whenever they are used. A picture that cannot be decoded
        is left out and listed in `Examples.problems`; a `DataError` where the data set is strict,
        and where the net takes another kind of thing.
        """
        self.check_kind(preprocess)
        return prepare(
            self.images,
            self.labels,
            self.names,
            self.indices_of(which),
            preprocess,
            cache_bytes=cache_bytes,
            strict=self.strict,
        )

    def check_kind(self, preprocess: Spec) -> None:
        """`DataError` where a net takes another kind of thing than these."""
        if preprocess.kind != self.kind:
            raise DataError(
                f"{self.source}: expected {preprocess.noun}s for this net, got {self.noun}s; "
                f"load it with kind={preprocess.kind!r}, or take another net"
            )

    def targets(self, labels: Sequence[str], net: str) -> np.ndarray:
        """Class -> index of a net's label of that name, int64; -1 where it has no pictures.

        Raises `DataError` for a class that is none of the labels, or several.
        """
        position = {label: i for i, label in enumerate(labels)}
        for label in (label for label, n in self.counts().items() if n):
            if label not in position:
                raise DataError(
                    f"{self.source}: expected classes that {net} knows, got {label!r}."
                    f"{did_you_mean(label, position)}"
                )
            if labels.count(label) > 1:
                raise DataError(
                    f"{self.source}: expected classes that name one label each, but {net} "
                    f"has {labels.count(label)} labels {label!r}"
                )
        return np.array([position.get(label, -1) for label in self.classes], np.int64)

    def folds(
        self, k: int = 5, seed: int = 0, split: str | None = None
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """k pairs (train, validation) of indices for cross-validation over all the pictures.

        Every picture validates exactly once, and each class is spread evenly; copies of one
        picture stay together. split: only over the pictures of this one. `DataError` where a fold
        has all the pictures of a class, so that nothing would be left to learn it from.
        """
        check_whole("k", k)
        check_whole("seed", seed)
        pool = self.indices_of(split)
        if not len(pool):
            raise DataError(f"{self.source}: expected {self.noun}s to cut into folds, got none")
        smallest = min(n for n in self.counts(pool).values() if n)
        if not 2 <= k <= len(pool):
            raise UsageError(
                f"expected from 2 to {len(pool)} folds, got {k} (smallest class: {smallest})"
            )
        pairs = stratified_folds(self.labels[pool], self.digests[pool], k, seed)
        for train, _ in pairs:
            for label in np.setdiff1d(self.labels[pool], self.labels[pool[train]]):
                raise DataError(
                    f"{self.source}: class {self.classes[label]!r} has one {self.noun}, or copies "
                    "of one, which a fold would have to learn from and to judge by; add some or "
                    "take the class out"
                )
        return [(pool[train], pool[val]) for train, val in pairs]

    def without_validation(self) -> "Dataset":
        """The same pictures, those of `val` among those to train on."""
        splits = dict(self.splits)
        held_out = splits.pop("val", np.empty(0, np.int64))
        splits["train"] = np.sort(np.concatenate([splits["train"], held_out]))
        return dataclasses.replace(self, splits=splits)

    def report(self) -> list[str]:
        """What there is, in lines for a person: sizes first, then one line a problem."""
        counts = [n for n in self.counts().values() if n]
        sizes = (
            f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
        )
        lines = [f"{self.source}: {len(self)} {self.noun}s, {len(counts)} classes of {sizes}"]
        lines.append(
            "splits: "
            + ", ".join(
                f"{name} {len(indices)}{' (given)' if name in self.given else ''}"
                for name, indices in self.splits.items()
            )
        )
        return lines + [str(problem) for problem in self.problems]


def assemble(
    source: str,
    records: Records,
    *,
    split: float,
    seed: int,
    strict: bool,
    classes: Sequence[str] | None,
) -> Dataset:
    """Sort, number the classes, split, and look for what is wrong; see `load` for the arguments."""
    order = sorted(range(len(records.names)), key=records.names.__getitem__)
    labels_found = composed(records.labels[i] for i in order)
    class_names = _class_names(source, records, labels_found, classes)
    number = {name: i for i, name in enumerate(class_names)}
    labels = np.array([number[label] for label in labels_found], np.int32)
    digests = np.array([records.digests[i] for i in order], dtype="S32")
    images = _reorder(records.images, order)
    given = {} if records.splits is None else _given([records.splits[i] for i in order])
    splits = _complete(given, labels, digests, split, seed)
    dataset = Dataset(
        source=source,
        classes=class_names,
        names=tuple(records.names[i] for i in order),
        labels=labels,
        images=images,
        digests=digests,
        splits=splits,
        given=tuple(name for name in given if len(given[name]) == len(splits[name])),
        strict=strict,
        kind=records.kind,
    )
    problems = (*records.problems, *find_problems(dataset))
    unreadable = [problem for problem in problems if problem.kind == "unreadable"]
    if strict and unreadable:
        raise DataError(f"{unreadable[0]} (strict)")
    return dataclasses.replace(dataset, problems=problems)


def find_problems(dataset: Dataset) -> list[Problem]:
    """Small, unbalanced and untaught classes, and copies of one picture; `DataError` where a class
    is in another split but has no picture to learn from."""
    return [*_class_problems(dataset), *_copies(dataset)]


def _class_names(
    source: str, records: Records, labels: Sequence[str], wanted: Sequence[str] | None
) -> tuple[str, ...]:
    """The wanted classes, the source's own, or the sorted labels; at least two."""
    present = set(labels)
    _check_names(source, present)
    if wanted is not None:
        if isinstance(wanted, str):
            raise UsageError(f"expected classes as a list of names, got {wanted!r}")
        wanted = composed(str(name) for name in wanted)
        unknown = sorted(present - set(wanted))
        if unknown:
            raise DataError(
                f"{source}: expected classes that the classifier knows, got {unknown[0]!r}."
                f"{did_you_mean(unknown[0], wanted)}"
            )
        return tuple(wanted)
    if len(present) < 2:
        noun, in_arrays = KINDS[records.kind].noun, isinstance(records.images, np.ndarray)
        folders = f"put the {noun}s of each class into a folder of its own, or "
        raise DataError(
            f"{source}: expected at least two classes, got one, {min(present)!r}; "
            f"{'' if in_arrays else folders}give more than one label"
        )
    if records.classes is not None:
        return tuple(name for name in composed(records.classes) if name in present)
    return tuple(sorted(present, key=_label_key))


def composed(names: Iterable[str]) -> list[str]:
    """Names with each accented letter as one character: a folder from a Mac may have two."""
    return [unicodedata.normalize("NFC", name) for name in names]


def _check_names(source: str, names: Iterable[str]) -> None:
    """`DataError` for a class that cannot be a line of an artifact's labels."""
    for name in names:
        if not name or not is_label(name):
            raise DataError(f"{source}: expected a class name of one line in UTF-8, got {name!r}")


def _label_key(label: str) -> tuple[int, int, str]:
    """Numbers by value, before words; by letter where the value is the same, as of 1 and 01."""
    is_number = label.removeprefix("-").isdecimal()
    return (0, int(label), label) if is_number else (1, 0, label)


def _reorder(images: Images, order: list[int]) -> Images:
    if not isinstance(images, np.ndarray):
        return [images[i] for i in order]
    return images if order == list(range(len(order))) else images[order]


def _given(splits: Sequence[str]) -> dict[str, np.ndarray]:
    named = np.array(splits)
    return {name: np.flatnonzero(named == name) for name in SPLITS if (named == name).any()}


def _complete(
    given: dict[str, np.ndarray], labels: np.ndarray, digests: np.ndarray, share: float, seed: int
) -> dict[str, np.ndarray]:
    """Given splits as they are; a missing validation split comes out of the training pictures."""
    train = given.get("train", np.arange(len(labels)) if not given else np.arange(0))
    if "val" in given or not share:
        return {"train": train, **given}
    kept, held_out = stratified_split(labels[train], digests[train], share, seed)
    splits = {"train": train[kept], "val": train[held_out], **_only(given, "test")}
    return {name: indices for name, indices in splits.items() if name == "train" or len(indices)}


def _only(splits: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    return {name: splits[name]} if name in splits else {}


def _class_problems(dataset: Dataset) -> list[Problem]:
    problems = []
    taught = dataset.counts(dataset.splits["train"])
    for name, indices in dataset.splits.items():
        counts = dataset.counts(indices)
        for label in dataset.classes:
            if counts[label] and not taught[label] and len(dataset.splits["train"]):
                raise DataError(
                    f"{dataset.source}: class {label!r} has {dataset.noun}s in {name} but none in "
                    "train, so it cannot be learnt; add some or take the class out"
                )
    present = {label: n for label, n in dataset.counts().items() if n}
    small = [label for label, n in present.items() if n < 5]
    if small:
        problems.append(
            Problem(
                "small_class",
                f"{_some(small)}: fewer than 5 {dataset.noun}s, too few to learn from or to judge "
                "by",
                tuple(small),
            )
        )
    fewest, most = min(present, key=present.__getitem__), max(present, key=present.__getitem__)
    if present[most] >= IMBALANCE * present[fewest]:
        problems.append(
            Problem(
                "imbalance",
                f"classes are unbalanced: {present[most]} {dataset.noun}s of {most!r}, "
                f"{present[fewest]} of {fewest!r}; accuracy alone will flatter the large ones; "
                "data.balance=weights or sampling lets each class count alike",
                (most, fewest),
            )
        )
    return problems


def _copies(dataset: Dataset) -> list[Problem]:
    """Pictures of equal content: in two splits, under two classes, or simply twice."""
    _, group, sizes = np.unique(dataset.digests, return_inverse=True, return_counts=True)
    repeated = np.flatnonzero(sizes[group] > 1)
    if not len(repeated):
        return []
    where = np.full(len(dataset), "", dtype="<U5")
    for name, indices in dataset.splits.items():
        where[indices] = name
    members: dict[int, list[int]] = {}
    for i in repeated:
        members.setdefault(int(group[i]), []).append(int(i))
    leaks = [g for g, m in members.items() if len(set(where[m]) - {""}) > 1]
    contradictions = [g for g, m in members.items() if len(set(dataset.labels[m])) > 1]
    said = {*leaks, *contradictions}
    plain = [g for g in members if g not in said]
    problems = []
    for kind, found, what in (
        ("leak", leaks, "in two splits, so that the score will be too good"),
        ("duplicate", contradictions, "under two classes, so that one of them is wrong"),
        ("duplicate", plain, "more than once"),
    ):
        if found:
            names = tuple(dataset.names[i] for g in found for i in members[g])
            first = " and ".join(names[:2])
            noun = dataset.noun
            they = f"1 {noun} is" if len(found) == 1 else f"{len(found)} {noun}s are"
            problems.append(Problem(kind, f"{they} there {what}: {first}", names))
    return problems


def _some(names: Sequence[str], most: int = 3) -> str:
    """The first names of a list, and how many more there are."""
    shown = ", ".join(repr(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
