"""What tests share: real data where it is at hand."""

import os

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
