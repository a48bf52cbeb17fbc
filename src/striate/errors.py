"""What striate raises for a mistake that its user can mend.

Every message is one clear line: what was expected, what came, what to do. The command line prints
it without a traceback and exits with the error's `exit_code`.
"""

import difflib
from collections.abc import Iterable
from numbers import Integral
from typing import Any


class StriateError(Exception):
    """Base of every error that a user can mend; the command line exits with 1."""

    exit_code = 1


class UsageError(StriateError):
    """A name, option or key that does not exist or does not fit; the command line exits with 2."""

    exit_code = 2


class DataError(StriateError):
    """Pictures, labels or splits that cannot be used as they are."""


class ArtifactError(StriateError):
    """A version directory that is missing, truncated, foreign or from another schema."""


class DisagreementError(StriateError):
    """An exported form that does not give Keras' answers."""


class EngineError(StriateError):
    """An engine that is not installed, or that refuses the file it was given."""


def check_known(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Raise `UsageError` for the first name that is not known, with the nearest that is.

    what: in the plural, for the message.
    """
    known = list(known)
    for name in names:
        if name not in known:
            raise UsageError(
                f"expected {what} out of {', '.join(known)}, got {name!r}."
                f"{did_you_mean(name, known)}"
            )


def is_whole(number: Any, least: int = 0) -> bool:
    """Whether something is a whole number of at least so much; NumPy's are numbers."""
    return isinstance(number, Integral) and not isinstance(number, bool) and number >= least


def check_whole(what: str, number: Any, least: int = 0) -> None:
    """Raise `UsageError` for what is no whole number of at least so much."""
    if not is_whole(number, least):
        raise UsageError(f"expected {what} as a whole number of at least {least}, got {number!r}")


def first_line(error: Exception) -> str:
    """What a library said, or the kind of its error where it said nothing, for one line of ours."""
    lines = str(error).strip().splitlines() or [repr(error)]
    return lines[0][:300]


def did_you_mean(name: Any, choices: Iterable[str]) -> str:
    """A sentence that offers the choices nearest to `name`, or an empty string.

    What is no word has none near it.

    >>> did_you_mean("resnet5", ["resnet50", "vgg16"])
    " Did you mean 'resnet50'?"
    """
    if not isinstance(name, str):
        return ""
    near = difflib.get_close_matches(name.lower(), list(choices), n=3, cutoff=0.5)
    if not near:
        return ""
    return f" Did you mean {' or '.join(repr(n) for n in near)}?"
