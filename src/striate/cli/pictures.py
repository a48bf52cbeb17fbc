"""What the verbs that take single pictures share: reading those that can be read."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from striate.cli.console import note

if TYPE_CHECKING:
    import numpy as np

    from striate.preprocess import Spec


def readable(paths: Iterable[Path], spec: "Spec") -> "Iterator[tuple[Path, np.ndarray]]":
    """(path, pixels) of each picture that can be read; of each other one it is said why not."""
    from striate.errors import DataError
    from striate.preprocess import pixels

    for path in paths:
        try:
            read = pixels(path, spec)
        except DataError as error:
            note(f"striate: {error}")
        else:
            yield path, read
