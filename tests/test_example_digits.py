"""The examples' digits in space and time are what they say, and nets of three axes learn them."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest

from making import ROOT
from striate.data import load

FILE = ROOT / "examples" / "digits_in_space_and_time.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("digits_in_space_and_time", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def digits():
    """Made digits: a ring and a bar."""
    rows, columns = np.mgrid[:28, :28] - 13.5
    ring = np.abs(np.hypot(rows, columns) - 9) < 2.5
    bar = (np.abs(columns) < 2.5) & (np.abs(rows) < 11)
    return np.stack([ring, bar] * 6) * np.uint8(250)


def test_a_digit_that_is_not_turned_is_a_plate_of_itself(example, digits, monkeypatch):
    monkeypatch.setattr(example, "TURN", 0)
    monkeypatch.setattr(example, "TILT", 0)
    cells = example.voxels_of(digits[:2])
    assert (cells.shape, cells.dtype) == ((2, 16, 16, 16, 3), np.uint8)
    full = cells.max(axis=-1) > 0
    front = full.any(axis=1)
    assert front[0, 8, 8] == 0  # through the ring one sees
    assert front[1, 8, 8] == 1
    assert full[1, :, 8, 8].sum() == example.THICK
    red, blue = cells[1, :, 8, 8, 0].astype(int), cells[1, :, 8, 8, 2].astype(int)
    inside = np.flatnonzero(full[1, :, 8, 8])
    assert red[inside[0]] > blue[inside[0]]
    assert red[inside[-1]] < blue[inside[-1]]


def test_turned_digits_keep_their_volume_and_leave_the_plane(example, digits):
    flat = 28 * 28 / 16**2
    for grid, digit in zip(example.voxels_of(digits), digits, strict=True):
        volume = (grid.max(axis=-1) > 0).sum()
        assert volume == pytest.approx((digit > 0).sum() / flat * example.THICK, rel=0.25)


def test_clips_move_the_way_of_their_class_and_stay_in_the_frame(example, digits):
    ways = np.arange(12) % 3
    for clip, way, digit in zip(example.clips_of(digits, ways), ways, digits, strict=True):
        assert {int(frame.sum()) for frame in clip} == {int(digit.sum())}
        rows = [np.argwhere(frame)[:, 0].min() for frame in clip]
        columns = [np.argwhere(frame)[:, 1].min() for frame in clip]
        steps = {"left": np.diff(columns), "right": -np.diff(columns), "up": np.diff(rows)}
        assert set(steps[example.WAYS[way]]) in ({-1}, {-2})
        other = rows if example.WAYS[way] != "up" else columns
        assert len(set(other)) == 1


@pytest.mark.parametrize(("what", "kind"), [("voxels", "voxels"), ("clips", "clip")])
def test_the_files_that_it_writes_are_read(example, digits, tmp_path, what, kind):
    np.savez(tmp_path / "digits.npz", images=digits, labels=np.arange(12) % 2)
    out = tmp_path / "out.npz"
    subprocess.run([sys.executable, FILE, tmp_path / "digits.npz", what, out], check=True)
    dataset = load(out, kind=kind)
    assert len(dataset) == 12
    assert dataset.classes == (("0", "1") if what == "voxels" else example.WAYS)
