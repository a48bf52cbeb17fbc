"""striate.files: what is written is there whole or not at all."""

import pytest

from striate.errors import UsageError
from striate.files import whole


def test_a_file_takes_its_place_when_it_is_whole(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    with whole(path) as fresh:
        fresh.write_text("new")
        assert fresh.suffix == ".html"  # by which libraries choose a format
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def half_written(path, error):
    with whole(path) as fresh:
        fresh.write_text("ne")
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, OSError(28, "No space left")])
def test_what_goes_wrong_on_the_way_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "report.html"
    path.write_text("old")
    with pytest.raises((KeyboardInterrupt, ValueError, UsageError)):
        half_written(path, error)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_is_none_is_one_clear_line(tmp_path):
    with (
        pytest.raises(UsageError, match=r"none/a\.png: cannot be written \(No such file"),
        whole(tmp_path / "none" / "a.png") as fresh,
    ):
        fresh.write_bytes(b"")
