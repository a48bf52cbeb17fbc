"""A pytest plugin: a small artifact in every form, and a server around it."""

import numpy as np
import pytest

from making import tiny_artifact
from served import ServerProcess, encode
from striate.artifact import Artifact


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Artifact:
    """A lenet5 for 32 x 32 colour pictures of 4 classes, version 1 of `tiny`, in every form."""
    from striate.export import export

    artifact = tiny_artifact(tmp_path_factory.mktemp("models") / "tiny", shape=(32, 32, 3))
    return export(artifact)[0]


@pytest.fixture(scope="session")
def picture() -> bytes:
    """A PNG of another size than the net's, smooth enough to resize without surprises."""
    from PIL import Image

    x, y = np.meshgrid(np.linspace(0, 255, 60), np.linspace(0, 255, 48))
    levels = np.stack([x, y, 255 - x], axis=-1).astype(np.uint8)
    return encode(Image.fromarray(levels))


@pytest.fixture(scope="session")
def served(tiny):
    """A server for `tiny`, by its default engine, for tests that only ask."""
    with ServerProcess(tiny.path.parent) as server:
        yield server
