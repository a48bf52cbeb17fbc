"""An ensemble: k nets in one graph, whose scores are the mean of theirs.

Hansen and Salamon, "Neural Network Ensembles", PAMI 12(10), 1990; seven AlexNets instead of one
took 18.2 % top-5 errors to 15.4 % (Krizhevsky, Sutskever, Hinton 2012). It costs k times the work.
"""

import os
from collections.abc import Iterable
from typing import Any

from striate.artifact import Artifact, Source, write_version
from striate.committee import NAME, Member, committee
from striate.ensemble.members import as_pixels, facts_of, goldens_of, open_members


def ensemble(artifacts: Iterable[Source], output: str | os.PathLike) -> Artifact:
    """Write the ensemble of artifacts: the next free version under `output`.

    artifacts: two or more, as `striate.load` takes them, with the same labels in the same order and
    pictures of the same size and cut; their nets, normalisations and temperatures may differ. The
    ensemble's scores are the mean of the members' scores.

    Raises `UsageError` where members do not fit together, `ArtifactError` where one is damaged.

    >>> made = ensemble(["saved_models/a/1", "saved_models/a/2"], "saved_models/committee")
    """
    members = open_members(artifacts)
    specs = [member.preprocess for member in members]
    alike = all(spec == specs[0] for spec in specs)
    nets = [
        Member(
            member.model,
            member.manifest.temperature,
            None if alike else member.preprocess.layer(),
        )
        for member in members
    ]
    return write_version(
        output,
        model=committee(nets),
        labels=members[0].labels,
        preprocess=specs[0] if alike else as_pixels(specs[0]),
        model_name=NAME,
        options={"members": [_described(member) for member in members]},
        goldens=goldens_of(members),
        **facts_of(members),
    )


def _described(member: Artifact) -> dict[str, Any]:
    """What the manifest of an ensemble says of a member."""
    return {
        "artifact": member.name,
        "version": member.version,
        "model": member.manifest.model["name"],
        "options": member.manifest.model["options"],
        "temperature": member.manifest.temperature,
        "sha256": member.manifest.files["model.keras"]["sha256"],
    }
