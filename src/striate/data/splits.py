"""Seeded splits that keep the share of every class, and keep copies of one picture together."""

import numpy as np


def stratified_split(
    labels: np.ndarray, digests: np.ndarray, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Hold out a share of each class.

    labels: int [N]; digests: equal where the pictures are copies; 0 < share < 1.
    Returns sorted indices (kept, held out). Each class keeps at least one picture, and gives at
    least one from two upwards.
    """
    held_out = []
    for label in np.unique(labels):
        groups = _shuffled_groups(labels, digests, label, seed)
        n = sum(map(len, groups))
        wanted = max(1, round(share * n))
        taken: list[int] = []
        for group in groups[:-1]:  # the last group stays, however large the share
            if len(taken) >= wanted:
                break
            taken.extend(group)
        held_out.extend(taken)
    chosen = np.zeros(len(labels), bool)
    chosen[held_out] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def stratified_folds(
    labels: np.ndarray, digests: np.ndarray, k: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """k pairs of sorted indices (train, validation); every picture validates once.

    The classes are dealt out one after another, so that folds differ by one picture at most where
    there are no copies.
    """
    fold = np.zeros(len(labels), np.int64)
    dealt = 0
    for label in np.unique(labels):
        for group in _shuffled_groups(labels, digests, label, seed):
            fold[group] = dealt % k
            dealt += 1
    return [(np.flatnonzero(fold != i), np.flatnonzero(fold == i)) for i in range(k)]


def _shuffled_groups(
    labels: np.ndarray, digests: np.ndarray, label: int, seed: int
) -> list[list[int]]:
    """The pictures of one class, copies grouped, in an order that depends on the seed alone."""
    members: dict[bytes, list[int]] = {}
    for i in np.flatnonzero(labels == label):
        members.setdefault(bytes(digests[i]), []).append(int(i))
    groups = list(members.values())
    order = np.random.default_rng([seed, int(label)]).permutation(len(groups))
    return [groups[i] for i in order]


def evenly(n: int, most: int) -> np.ndarray:
    """At most so many of the indices 0 to n - 1, the same distance from each other."""
    return np.linspace(0, n - 1, min(n, most)).astype(np.int64)
