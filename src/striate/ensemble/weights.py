"""One net whose weights are the mean of several nets' weights: no dearer to run than one of them.

Izmailov, Podoprikhin, Garipov, Vetrov, Wilson, "Averaging Weights Leads to Wider Optima and Better
Generalization", 2018, arXiv:1803.05407; the uniform soup of Wortsman et al., "Model soups", 2022,
arXiv:2203.05482.
"""

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from striate.artifact import Artifact, Source, write_version
from striate.data import Dataset, Examples
from striate.data import load as load_data
from striate.ensemble.members import facts_of, goldens_of, open_members
from striate.ensemble.statistics import measure_statistics, norms_of
from striate.errors import UsageError


def average_weights(
    artifacts: Iterable[Source],
    output: str | os.PathLike,
    *,
    data: str | os.PathLike | Dataset | None = None,
) -> Artifact:
    """Write the net with the mean of the artifacts' weights: the next free version of `output`.

    artifacts: of one net with the same options, labels and preprocessing. They should come from one
    run, or from the same pretrained weights: the mean of nets that were trained from different
    random weights is worse than either. data: training pictures, needed where the net has
    batch normalisation, whose statistics are measured anew. The temperature is the members'
    geometric mean, since none was fitted to these weights.

    Raises `UsageError` where the artifacts do not fit together.
    """
    members = open_members(artifacts)
    check_same_net(members)
    net = members[0].model
    net.set_weights(mean_of([member.model.get_weights() for member in members]))
    if norms_of(net):
        if data is None:
            raise UsageError(
                f"{members[0].manifest.model['name']} has batch normalisation, whose statistics "
                "must be measured for the averaged weights; expected training pictures: --data"
            )
        measure_statistics(net, learnt_from(members[0], data)[0])
    temperatures = [member.manifest.temperature for member in members]
    model = members[0].manifest.model
    facts = facts_of(members)
    sources = [f"{member.name}/{member.version}" for member in members]
    return write_version(
        output,
        model=net,
        labels=members[0].labels,
        preprocess=members[0].preprocess,
        model_name=model["name"],
        options=model["options"],
        goldens=goldens_of(members),
        temperature=round(float(np.exp(np.log(temperatures).mean())), 4),
        **{**facts, "recipe": {**facts.get("recipe", {}), "average_weights": sources}},
    )


def check_same_net(members: Sequence[Artifact]) -> None:
    """`UsageError` unless the artifacts hold one net, fed alike: weights are comparable then."""
    first = members[0]
    for other in members:
        for what, pair in {
            "the net": [_net(x) for x in (first, other)],
            "the preprocessing": [x.manifest.preprocess for x in (first, other)],
        }.items():
            if pair[0] != pair[1]:
                raise UsageError(
                    f"expected {what} of {first.path} everywhere ({pair[0]}), "
                    f"but {other.path} has {pair[1]}; `striate ensemble` joins different nets"
                )


def _net(artifact: Artifact) -> dict[str, Any]:
    """What decides the shapes of the weights; an ensemble's members differ, its graph does not."""
    model = artifact.manifest.model
    return {"name": model["name"], "options": model["options"], "input": model["input_shape"]}


def mean_of(weights: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
    """The mean of several nets' weights, array by array; whole numbers stay the first net's."""
    return [
        np.mean(arrays, axis=0, dtype=np.float64).astype(arrays[0].dtype)
        if np.issubdtype(arrays[0].dtype, np.floating)
        else arrays[0]
        for arrays in zip(*weights, strict=True)
    ]


def learnt_from(
    artifact: Artifact, data: str | os.PathLike | Dataset
) -> tuple[Examples, Examples | None]:
    """(training pictures, held-out ones or None) of a data set, split as the artifact's was."""
    if not isinstance(data, Dataset):
        recipe = artifact.manifest.recipe or {}
        data = load_data(
            data,
            kind=artifact.preprocess.kind,
            split=recipe.get("data", {}).get("validation", 0.2),
            seed=recipe.get("seed", 0),
            classes=artifact.labels,
        )
    if list(data.classes) != artifact.labels:
        raise UsageError(
            f"{data.source}: expected the classes of {artifact.path} in its order, "
            f"got {', '.join(data.classes[:4])}{', ...' if len(data.classes) > 4 else ''}"
        )
    held_out = data.splits.get("val", data.splits.get("test"))
    train = data.examples(artifact.preprocess, data.split("train"))
    if held_out is None or not len(held_out):
        return train, None
    return train, data.examples(artifact.preprocess, held_out)
