"""What artifacts must have in common before anything can be made of several of them."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from striate.artifact import Artifact, Source, load
from striate.errors import UsageError
from striate.preprocess import ClipPreprocess, Spec

GOLDENS = 8


def open_members(sources: Iterable[Source], least: int = 2) -> list[Artifact]:
    """The artifacts, their weights checked; `UsageError` for too few, or other labels or pixels."""
    if isinstance(sources, Source):
        raise UsageError(f"expected a list of artifacts, got {sources!r:.200}: put it in brackets")
    sources = list(sources)
    if len(sources) < least:
        raise UsageError(f"expected at least {least} artifacts, got {len(sources)}")
    # Read anew, so that no caller's net is changed, nor one that is named twice.
    members = [load(x.path if isinstance(x, Artifact) else x) for x in sources]
    first = members[0]
    for other in members:
        other.check()
        _check_labels(first, other)
        _check_pixels(first, other)
    return members


def _check_labels(first: Artifact, other: Artifact) -> None:
    if first.labels == other.labels:
        return
    if sorted(first.labels) == sorted(other.labels):
        what = "has the same labels in another order"
    else:
        odd = sorted(set(first.labels) ^ set(other.labels))
        what = f"differs in {', '.join(map(repr, odd[:3]))}{', ...' if len(odd) > 3 else ''}"
    raise UsageError(f"expected the labels of {first.path} everywhere, but {other.path} {what}")


def _check_pixels(first: Artifact, other: Artifact) -> None:
    expected, found = (as_pixels(x.preprocess).to_dict() for x in (first, other))
    for key in expected | found:
        if expected.get(key) != found.get(key):
            raise UsageError(
                f"expected pictures as {first.path} takes them everywhere ({key} "
                f"{expected.get(key)}), but {other.path} takes {key} {found.get(key)}"
            )


def as_pixels(spec: Spec) -> Spec:
    """The specification that gives the same pixels and leaves their levels as they are."""
    if isinstance(spec, ClipPreprocess):
        return dataclasses.replace(spec, frame=as_pixels(spec.frame))
    n = len(spec.mean)
    changes: dict[str, Any] = {"mean": (0.0,) * n, "scale": (1.0,) * n}
    for key, plain in (("order", "rgb"), ("whitening", None)):
        if hasattr(spec, key):
            changes[key] = plain
    return dataclasses.replace(spec, **changes)


def facts_of(members: Sequence[Artifact]) -> dict[str, Any]:
    """The fields of a manifest that members hand on: data and licence, and what training held out.

    Pictures that every member held out are held out still: then `recipe` says which. Where one of
    them learnt from what another held out, nothing is.
    """
    data = dict(members[0].manifest.data)
    licence = "; ".join(dict.fromkeys(x.manifest.licence for x in members if x.manifest.licence))
    fingerprints = {x.manifest.data.get("fingerprint") for x in members}
    if len(fingerprints) > 1 or None in fingerprints:
        return {"licence": licence}
    if "split_digests" in data:
        common = set.intersection(
            *(set(x.manifest.data.get("split_digests", {}).items()) for x in members)
        )
        data["split_digests"] = dict(sorted(common))
    splits = [_held_out(x) for x in members]
    share, seed = splits[0] if all(split == splits[0] for split in splits) else (0.0, 0)
    recipe = {"data": {"validation": share}, "seed": seed}
    return {"licence": licence, "data": data, "recipe": recipe}


def _held_out(artifact: Artifact) -> tuple[float, int]:
    recipe = artifact.manifest.recipe or {}
    return recipe.get("data", {}).get("validation", 0.2), recipe.get("seed", 0)


def goldens_of(members: Sequence[Artifact]) -> np.ndarray:
    """Golden pictures of all members in turn, each once: uint8 [at most 8, H, W, C]."""
    every = [list(member.goldens()[0]) for member in members]
    longest = max(map(len, every))
    turns = [images[i] for i in range(longest) for images in every if i < len(images)]
    distinct = {image.tobytes(): image for image in turns}
    return np.stack(list(distinct.values())[:GOLDENS])
