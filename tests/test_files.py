"""striate.files: what is written is there whole or not at all."""

import pytest

from striate.errors import StriateError, UsageError
from striate.files import check_writable, held, made_folder, whole


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


def test_a_file_that_can_be_written_is_seen_before_the_work(tmp_path):
    path = tmp_path / "a" / "b" / "picture.PNG"
    check_writable(path, ending=".png")
    assert path.parent.is_dir()
    assert not path.exists()
    path.write_bytes(b"old")
    check_writable(path, ending=".png")
    assert path.read_bytes() == b"old"


def test_a_file_that_cannot_be_written_is_refused_before_the_work(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"ends in \.png, got .*a\.svg"):
        check_writable(tmp_path / "a.svg", ending=".png")
    with pytest.raises(UsageError, match=r"a\.png: cannot be written \((Not a dir|File exists)"):
        check_writable(tmp_path / "file" / "a.png")
    with pytest.raises(UsageError, match="expected a file that can be written"):
        check_writable(tmp_path)


def failing_in(folder, *, after_writing):
    with made_folder(folder):
        if after_writing:
            (folder / "found").touch()
        raise ZeroDivisionError


def test_a_folder_made_for_what_fails_is_gone_again_but_nothing_that_was_there(tmp_path):
    (tmp_path / "old").mkdir()
    with pytest.raises(ZeroDivisionError):
        failing_in(tmp_path / "old" / "new" / "newer", after_writing=False)
    assert list(tmp_path.rglob("*")) == [tmp_path / "old"]
    with pytest.raises(ZeroDivisionError):
        failing_in(tmp_path / "old", after_writing=False)
    assert (tmp_path / "old").is_dir()
    with pytest.raises(ZeroDivisionError):
        failing_in(tmp_path / "kept" / "in", after_writing=True)
    assert (tmp_path / "kept" / "in" / "found").exists()


def test_a_folder_is_held_by_one_at_a_time(tmp_path):
    with (
        held(tmp_path, "busy"),
        pytest.raises(StriateError, match="busy"),
        held(tmp_path, "busy"),
    ):
        pass
    with held(tmp_path, "busy"):
        pass
    with (
        pytest.raises(StriateError, match=r"none: cannot be written to \(No such"),
        held(tmp_path / "none", "busy"),
    ):
        pass
