"""TensorBoard logs of a run, written with the `tensorboard` package alone: no TensorFlow needed."""

from pathlib import Path
from typing import Any

from striate.libraries import is_installed

SERIES = {"train": ("loss", "accuracy", "learning_rate"), "val": ("val_loss", "val_accuracy")}


class Logs:
    """Writes the rows of a run below a directory, or nothing where TensorBoard is not installed."""

    def __init__(self, directory: Path | None) -> None:
        self._writers: dict[str, Any] = {}
        if directory is None or not is_installed("tensorboard"):
            return
        from tensorboard.summary import Writer

        self._writers = {name: Writer(str(directory / name)) for name in SERIES}

    def add(self, row: dict[str, Any], step: int) -> None:
        """Add the scalars of an epoch; step: epochs since the beginning of the run."""
        for name, writer in self._writers.items():
            for key in SERIES[name]:
                if key in row:
                    writer.add_scalar(f"epoch_{key.removeprefix('val_')}", row[key], step)
            writer.flush()

    def close(self) -> None:
        """Flush and close the files."""
        for writer in self._writers.values():
            writer.close()
