"""The whole report: an evaluation with everything on."""

import os
from typing import Any

from striate.artifact import Source, opened
from striate.data import Dataset
from striate.errors import UsageError
from striate.evaluate import Evaluation, evaluate
from striate.preprocess import Preprocess


def report(
    artifact: Source,
    data: str | os.PathLike | Dataset,
    output: str | os.PathLike = "report.html",
    **options: Any,
) -> Evaluation:
    """Write one HTML page that says all there is to say about a classifier and some data.

    It is `evaluate` with `inside` and, for a net of pictures, `corruptions`; options and errors as
    there. What cannot be had is a line on the page, and no error.
    """
    if taken := {"inside", "corruptions", "report"} & options.keys():
        raise UsageError(f"report has no option {min(taken)!r}: it chooses that itself")
    artifact = opened(artifact)
    spoilt = isinstance(artifact.preprocess, Preprocess)
    return evaluate(artifact, data, inside=True, corruptions=spoilt, report=output, **options)
