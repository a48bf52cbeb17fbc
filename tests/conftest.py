"""What tests share: real data where it is at hand."""

import os
import sys
from importlib.util import find_spec

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from pathlib import Path

import pytest

from making import ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The developers' real data, which users and the public CI do not have."""
    data = ROOT.parent / "shared" / "data"
    if not data.is_dir():
        pytest.skip("needs the real data beside the checkout (../shared/data), which is not here")
    return data


@pytest.fixture(scope="session")
def jax_python() -> str:
    """An interpreter with JAX: the one that is named, or this one, which then hides TensorFlow."""
    named = os.environ.get("STRIATE_JAX_PYTHON")
    if not named and find_spec("jax") is None:
        pytest.skip("needs jax here, or STRIATE_JAX_PYTHON as an interpreter that has it")
    return named or sys.executable
