"""striate.data: every source becomes the same kind of data set, and says what is wrong with it."""

import errno
import gzip
import os
import re
import shutil
import struct
import subprocess
import sys
import time
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from striate.data import from_arrays, load
from striate.data.pipeline import epoch_order, steps_per_epoch
from striate.data.splits import stratified_folds, stratified_split
from striate.errors import DataError, UsageError
from striate.preprocess import preset

GREY = preset("unit", 8, 8, channels=1)
COLOUR = preset("unit", 8, 8)


def picture(path, colour=0, size=(10, 12), mode="RGB"):
    """Write a small picture whose content depends on `colour`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.random.default_rng(colour).integers(0, 255, (*size, 3), dtype=np.uint8)
    Image.fromarray(levels).convert(mode).save(path)
    return path


@pytest.fixture
def tree(tmp_path):
    """Two classes of ten pictures."""
    for i in range(10):
        picture(tmp_path / "cat" / f"{i}.png", i)
        picture(tmp_path / "dog" / f"{i}.jpg", 100 + i)
    return tmp_path


ANIMALS = (("cat", "png"), ("dog", "jpg"))


def kinds(dataset):
    return [problem.kind for problem in dataset.problems]


# === Folders ===


def test_a_class_folder_tree_becomes_classes_labels_and_a_stratified_split(tree):
    dataset = load(tree)
    assert dataset.classes == ("cat", "dog")
    assert len(dataset) == 20
    assert dataset.names[0] == "cat/0.png"
    assert dataset.counts(dataset.split("val")) == {"cat": 2, "dog": 2}
    assert not set(dataset.split("train")) & set(dataset.split("val"))
    assert dataset.problems == ()


def test_files_that_are_no_pictures_are_passed_over_in_silence(tree):
    for name in ("cat/notes.txt", "cat/.DS_Store", "cat/Thumbs.db", "README.md", ".git/x/a.png"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(b"text")
    dataset = load(tree)
    assert len(dataset) == 20
    assert dataset.problems == ()


def test_pictures_that_cannot_be_used_are_said(tree):
    picture(tree / "stray.png")
    (tree / "cat" / "phone.HEIC").write_bytes(b"x")
    (tree / "empty").mkdir()
    dataset = load(tree)
    assert len(dataset) == 20
    assert dataset.classes == ("cat", "dog")
    said = " ".join(map(str, dataset.problems))
    for part in ("stray.png", "phone.HEIC", "'empty'"):
        assert part in said


def test_train_and_test_folders_are_given_splits_and_val_comes_out_of_train(tmp_path):
    for split, offset in (("train", 0), ("Test", 50)):
        for i in range(10):
            for c, label in enumerate("ab"):
                picture(tmp_path / split / label / f"{i}.png", 100 * c + offset + i)
    dataset = load(tmp_path)
    assert {name: len(i) for name, i in dataset.splits.items()} == {
        "train": 16,
        "val": 4,
        "test": 20,
    }
    assert dataset.given == ("test",)
    assert all(dataset.names[i].startswith("Test/") for i in dataset.split("test"))


def test_val_and_test_without_train_are_splits_to_judge_by_and_no_classes(tmp_path):
    for i in range(8):
        picture(tmp_path / ("val", "test")[i % 2] / ("cat", "dog")[i // 4] / f"{i}.png", i)
    dataset = load(tmp_path)
    assert dataset.classes == ("cat", "dog")
    assert {name: len(at) for name, at in dataset.splits.items()} == {
        "train": 0,
        "val": 4,
        "test": 4,
    }
    with pytest.raises(DataError, match="expected pictures to cut into folds, got none"):
        dataset.folds(2, split="train")


def test_arrays_of_a_test_split_alone_are_read(tmp_path):
    x, y = arrays()
    np.savez(tmp_path / "a.npz", x_test=x, y_test=y)
    assert {name: len(at) for name, at in load(tmp_path / "a.npz").splits.items()} == {
        "train": 0,
        "test": 20,
    }


def test_a_link_to_a_folder_above_is_not_followed(tree):
    (tree / "cat" / "all").symlink_to("..")
    (tree / "dog" / "more").symlink_to(tree / "cat" / "0.png")
    assert load(tree).counts() == {"cat": 10, "dog": 10}
    (tree / "elsewhere").symlink_to(tree / "cat")  # another folder is
    assert load(tree).counts()["elsewhere"] == 10


def test_a_class_may_have_the_name_of_a_split(tmp_path):
    for label in ("train", "tram", "bus"):
        picture(tmp_path / label / "side" / "1.png", len(label))
    assert load(tmp_path, split=0).classes == ("bus", "train", "tram")


def test_test_pictures_without_labels_are_left_out_and_no_class(tmp_path):
    for i, label in enumerate("aabb"):
        picture(tmp_path / "train" / label / f"{i}.png", i)
        picture(tmp_path / "test" / f"{i}.png", 10 + i)
    (tmp_path / "notes").mkdir()
    dataset = load(tmp_path, split=0)
    assert dataset.classes == ("a", "b")
    assert {name: len(i) for name, i in dataset.splits.items()} == {"train": 4}
    assert any("test/0.png" in str(problem) for problem in dataset.problems)


def test_pictures_beside_splits_are_refused_rather_than_learnt_as_a_class(tmp_path):
    for folder in ("train/a", "train/b", "val/a", "unlabelled"):
        picture(tmp_path / folder / "1.png", len(folder))
    with pytest.raises(DataError, match="got 'unlabelled' with pictures beside train and val"):
        load(tmp_path)


def test_a_class_that_only_validation_has_is_an_error(tmp_path):
    for split, labels in (("train", "ab"), ("val", "abc")):
        for label in labels:
            picture(tmp_path / split / label / "1.png", ord(label))
    with pytest.raises(DataError, match=r"'c' has pictures in val but none in train"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "an empty folder"),
        (lambda root: (root / "cat").mkdir(), "folders without a picture"),
        (lambda root: picture(root / "a.png"), "in no class folder, such as a.png"),
        (
            lambda root: picture(root / "cat" / "a.png"),
            "got one, 'cat'; put the pictures of each class into a folder",
        ),
        (
            lambda root: [picture(root / "set" / c / "a.png", ord(c)) for c in "ab"],
            r"did you mean .*set\?",
        ),
        (
            lambda root: [picture(root / s / "a.png", ord(s[0])) for s in ("train", "val")],
            "2 pictures in no class folder, such as train/a.png",
        ),
    ],
)
def test_a_folder_without_classes_gets_one_line_that_says_what_was_expected(
    tmp_path, make, message
):
    make(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["nothing_there", "file.bin"])
def test_a_source_of_no_known_kind_is_an_error(tmp_path, name):
    (tmp_path / "file.bin").write_bytes(b"x")
    with pytest.raises(DataError, match=r"expected a folder with a folder of pictures"):
        load(tmp_path / name)


# === Broken and unusual pictures ===


def test_broken_pictures_are_named_left_out_and_stop_nothing(tree):
    (tree / "cat" / "text.png").write_text("not a picture")
    whole = picture(tree / "dog" / "cut.jpg", 7, size=(200, 200)).read_bytes()
    (tree / "dog" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tree / "dog" / "empty.png").write_bytes(b"")
    examples = load(tree).examples(COLOUR)
    assert len(examples) == 20
    said = [str(problem) for problem in examples.problems]
    assert len(said) == 3
    for name in ("text.png", "cut.jpg", "empty.png"):
        assert any(name in line for line in said)
    assert all(problem.kind == "unreadable" for problem in examples.problems)
    assert not any("text.png" in name for name in examples.names)


def test_a_pipe_among_the_pictures_is_named_and_not_waited_for(tree):
    os.mkfifo(tree / "cat" / "pipe.png")
    os.mkfifo(tree / "pipe.png")
    dataset = load(tree)
    assert len(dataset.examples(COLOUR)) == 20
    (problem,) = dataset.problems
    assert problem.kind == "unreadable"
    assert "cat/pipe.png: cannot be read (a pipe or a device, not a file)" in str(problem)


def test_broken_pictures_are_found_without_a_cache_too(tree):
    (tree / "cat" / "text.png").write_text("not a picture")
    examples = load(tree).examples(COLOUR, cache_bytes=1)
    assert examples.images is None
    assert len(examples) == 20
    assert sum(len(labels) for _, labels in examples.batches(6)) == 20


@pytest.mark.parametrize("closed", ["", "cat", "dog/deeper"])
def test_a_folder_that_nobody_may_look_into_is_an_error_and_no_empty_class(
    tree, monkeypatch, closed
):
    picture(tree / "dog" / "deeper" / "more.png", 300)
    look, refused = os.scandir, tree / closed

    def scandir(path="."):
        if os.fspath(path) == str(refused):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return look(path)

    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(os, "listdir", lambda path=".": [entry.name for entry in scandir(path)])
    message = re.escape(f"{refused}: cannot be read (Permission denied)")
    with pytest.raises(DataError, match=message):
        load(tree)


def test_strict_turns_a_broken_picture_into_an_error(tree):
    (tree / "cat" / "text.png").write_text("not a picture")
    with pytest.raises(DataError, match=r"text\.png"):
        load(tree, strict=True).examples(COLOUR)


def test_unusual_pictures_are_read(tmp_path):
    picture(tmp_path / "a" / "palette.png", 1, mode="P")
    picture(tmp_path / "a" / "cmyk.jpg", 2, mode="CMYK")
    picture(tmp_path / "b" / "grey.png", 3, mode="L")
    deep = np.random.default_rng(4).integers(0, 65535, (9, 9)).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "b" / "deep.png")
    examples = load(tmp_path, split=0).examples(COLOUR)
    assert examples.problems == ()
    assert examples.images.shape == (4, 8, 8, 3)


# === What is wrong with a set ===


@pytest.mark.parametrize("cache", [0, 1 << 20])
def test_pictures_of_12_bits_in_files_of_16_are_said_to_be_dark(tmp_path, cache):
    random = np.random.default_rng(0)
    for i in range(12):
        levels = random.integers(0, 4096, (9, 9)).astype(np.uint16)
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.fromarray(levels).save(tmp_path / "ab"[i % 2] / f"{i}.png")
    dataset = load(tmp_path, split=0)
    (problem,) = dataset.examples(COLOUR, cache_bytes=cache).problems
    assert problem.kind == "dark"
    assert "no level above 63 of 255" in str(problem)
    picture(tmp_path / "a" / "bright.png", 1)
    assert load(tmp_path, split=0).examples(COLOUR, cache_bytes=cache).problems == ()


def test_arrays_as_dark_as_masks_are_said_to_be():
    images = np.random.default_rng(0).integers(0, 5, (12, 8, 8, 3), dtype=np.uint8)
    dataset = from_arrays(images, [0, 1] * 6, split=0)
    assert [p.kind for p in dataset.examples(COLOUR).problems] == ["dark"]


def test_copies_across_given_splits_are_a_leak(tmp_path):
    for split in ("train", "val"):
        for c, label in enumerate("ab"):
            for i in range(5):
                picture(tmp_path / split / label / f"{i}.png", 1000 * (split == "val") + 10 * c + i)
    picture(tmp_path / "val" / "a" / "copy.png", 3)
    dataset = load(tmp_path)
    assert kinds(dataset) == ["leak"]
    assert set(dataset.problems[0].names) == {"train/a/3.png", "val/a/copy.png"}


def test_many_copies_are_counted_in_a_time_that_grows_with_them(tmp_path):
    numbers = np.arange(40_000, dtype=np.uint32)
    images = numbers.view(np.uint8).reshape(-1, 2, 2)
    labels = numbers % 2
    arrays = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}
    np.savez(tmp_path / "a.npz", **arrays)
    began = time.perf_counter()
    dataset = load(tmp_path / "a.npz")
    assert time.perf_counter() - began < 8
    assert str(dataset.problems[0]).startswith("40000 pictures are there in two splits")


def test_copies_stay_on_one_side_of_our_own_split(tree):
    for i in range(10):
        (tree / "cat" / f"copy{i}.png").write_bytes((tree / "cat" / f"{i}.png").read_bytes())
    for seed in range(5):
        dataset = load(tree, seed=seed)
        assert kinds(dataset) == ["duplicate"]
        sides = [set(dataset.digests[dataset.split(s)]) for s in ("train", "val")]
        assert not sides[0] & sides[1]


def test_one_picture_under_two_classes_is_said(tree):
    (tree / "dog" / "same.png").write_bytes((tree / "cat" / "1.png").read_bytes())
    assert any("under two classes" in str(p) for p in load(tree).problems)


def test_small_and_unbalanced_classes_are_said(tree):
    for i in range(40):
        picture(tree / "dog" / f"more{i}.png", 200 + i)
    for i in range(6):
        (tree / "cat" / f"{i}.png").unlink()
    assert sorted(kinds(load(tree))) == ["imbalance", "small_class"]


# === Fingerprint ===


def test_the_fingerprint_follows_the_content_and_not_the_place(tree, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for path in tree.rglob("*.*"):
        copy = elsewhere / path.relative_to(tree)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
    first = load(tree).fingerprint
    assert load(elsewhere).fingerprint == first
    (elsewhere / "cat" / "1.png").rename(elsewhere / "dog" / "1.png")
    assert load(elsewhere).fingerprint != first
    picture(tree / "cat" / "1.png", 999)
    assert load(tree).fingerprint != first


@pytest.mark.skipif(os.name == "nt", reason="Windows has no names but Unicode")
def test_names_in_another_coding_are_shown_as_text_that_can_be_stored(tree):
    os.rename(tree / "cat" / "0.png", os.fsencode(tree / "cat") + b"/k\xe4tzchen.png")
    (tree / "dog" / "0.jpg").write_bytes(b"broken")
    os.rename(tree / "dog" / "0.jpg", os.fsencode(tree / "dog") + b"/h\xfcndchen.jpg")
    dataset = load(tree)
    assert r"cat/k\xe4tzchen.png" in dataset.names
    said = " ".join(map(str, dataset.examples(GREY).problems))
    assert r"dog/h\xfcndchen.jpg" in said
    assert len(dataset.fingerprint) == 64
    said.encode()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no names but Unicode")
@pytest.mark.parametrize("name", [b"k\xe4tzchen", b"two\nlines"])
def test_a_class_that_is_no_line_of_text_is_refused(tree, name):
    os.rename(tree / "cat", os.fsencode(tree) + b"/" + name)
    with pytest.raises(DataError, match="expected a class name of one line in UTF-8"):
        load(tree)


def test_a_class_has_one_name_however_its_accents_are_written(tmp_path):
    """A folder from a Mac has two characters for an accented letter."""
    for i, form in enumerate(("NFC", "NFD", "NFD")):
        picture(tmp_path / "mac" / unicodedata.normalize(form, ("café", "thé")[i % 2]) / "x.png", i)
    picture(tmp_path / "mac" / unicodedata.normalize("NFD", "café") / "y.png", 7)
    dataset = load(tmp_path / "mac", split=0)
    assert dataset.counts() == {"café": 3, "thé": 1}
    assert load(tmp_path / "mac", classes=["thé", "café"], split=0).classes == ("thé", "café")


# === Tables ===


def test_a_table_with_a_header_and_other_columns(tree):
    rows = ["id,label,file", *(f"{i},feline,cat/{i}.png" for i in range(10))]
    rows += [f'{i},"canine, big",dog/{i}.jpg' for i in range(10)]
    (tree / "t.csv").write_text("\n".join(rows))
    dataset = load(tree / "t.csv")
    assert dataset.classes == ("canine, big", "feline")
    assert dataset.counts() == {"canine, big": 10, "feline": 10}
    assert len(dataset.examples(COLOUR)) == 20


@pytest.mark.parametrize("header", [[], ["what\tkind"]])
def test_a_table_of_two_columns(tree, header):
    rows = [f"cat/{i}.png\tcat" for i in range(10)] + [f"dog/{i}.jpg\tdog" for i in range(10)]
    (tree / "t.tsv").write_text("\r\n".join(header + rows))
    assert load(tree / "t.tsv").counts() == {"cat": 10, "dog": 10}


def test_the_first_row_is_no_header_if_its_file_is_there(tree):
    for i in range(6):
        shutil.copy(tree / "cat" / f"{i}.png", tree / f"IMG{i}")
    (tree / "t.csv").write_text("\n".join(f"IMG{i},{'ab'[i % 2]}" for i in range(6)))
    assert load(tree / "t.csv").counts() == {"a": 3, "b": 3}


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("t.tsv", "{}\t{}, small, tame, grey"),  # commas inside, of which there are more
        ("t.csv", '"{}";"{}"'),
        ("t.csv", "\n\n{},{}"),
    ],
)
def test_the_delimiter_is_found_whatever_the_cells_hold(tree, name, row):
    files = [(f"{kind}/{i}.{end}", kind) for kind, end in ANIMALS for i in range(10)]
    (tree / name).write_text("\n".join(row.format(*file) for file in files))
    assert list(load(tree / name).counts().values()) == [10, 10]


def test_a_table_from_windows_is_that_of_here(tree):
    rows = ["image_path,label", *(f"{k}/{i}.{end},{k}" for k, end in ANIMALS for i in range(10))]
    (tree / "here.csv").write_text("\n".join(rows))
    text = "\r\n".join(rows).replace("/", "\\")
    (tree / "there.csv").write_bytes(text.encode("utf-8-sig"))
    assert load(tree / "there.csv").fingerprint == load(tree / "here.csv").fingerprint


def test_a_file_that_is_listed_again_counts_once_and_is_said(tree):
    rows = [f"{kind}/{i}.{end},{kind}" for kind, end in ANIMALS for i in range(10)]
    (tree / "t.csv").write_text("\n".join([*rows, *rows[:3]]))
    dataset = load(tree / "t.csv")
    assert len(dataset) == 20
    assert "3 rows list a file again" in str(dataset.problems[0])
    assert "cat/0.png in row 21" in str(dataset.problems[0])


def test_a_file_in_two_splits_of_a_table_is_an_error(tree):
    """Its first row alone would count, and the test split would be gone without a word."""
    rows = ["path,label,split", "cat/1.png,cat,train", "dog/1.jpg,dog,train", "cat/1.png,cat,test"]
    (tree / "t.csv").write_text("\n".join(rows))
    with pytest.raises(DataError, match=r"row 4: cat/1.png is 'test' here and 'train' in row 2"):
        load(tree / "t.csv")


def test_a_split_column_gives_the_splits(tree):
    rows = ["path,label,split"]
    rows += [f"cat/{i}.png,cat,{'train' if i else 'validation'}" for i in range(10)]
    rows += [f"dog/{i}.jpg,dog,{'train' if i else 'test'}" for i in range(10)]
    (tree / "t.csv").write_text("\n".join(rows))
    dataset = load(tree / "t.csv")
    assert {name: len(i) for name, i in dataset.splits.items()} == {
        "train": 18,
        "val": 1,
        "test": 1,
    }


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["cat/1.png"], r"row 1: expected a path and a label"),
        (["cat/1.png,cat", "dog/1.jpg"], r"row 2: expected a path and a label"),
        (["cat/1.png,cat", "dog/1.jpg,"], r"row 2: the path or the label is empty"),
        (["cat/1.png,cat", "cat/1.png,dog"], r"row 2: cat/1.png is 'dog' here and 'cat' in row 1"),
        (["file,label", "nowhere/1.png,cat", "nowhere/2.png,dog"], r"relative to the table"),
        (["id,path,breed", "1,cat/1.png,cat"], r"a column label .*, got id, path, breed"),
        (["breed,path", "cat,cat/1.png"], r"a column label .*, got breed, path"),
        (["path,label", "cat/\0.png,cat"], r"expected text in UTF-8"),
        ([f"{'x' * 200_000},cat"], r"got something else \(field larger"),
        ([], r"empty file"),
    ],
)
def test_a_malformed_table_names_the_row(tree, rows, message):
    (tree / "t.csv").write_text("\n".join(rows))
    with pytest.raises(DataError, match=message):
        load(tree / "t.csv")


def test_a_missing_file_in_a_table_is_said_with_its_row(tree):
    rows = ["cat/1.png,cat", "cat/none.png,cat", "dog/1.jpg,dog"]
    (tree / "t.csv").write_text("\n".join(rows))
    dataset = load(tree / "t.csv")
    assert len(dataset) == 2
    assert any("row 2: cat/none.png" in str(problem) for problem in dataset.problems)


# === Arrays ===


def arrays(n=20, size=(8, 8), seed=0):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 255, (n, *size), dtype=np.uint8), np.arange(n) % 2


def test_an_npz_of_images_and_labels(tmp_path):
    images, labels = arrays()
    np.savez(tmp_path / "a.npz", images=images, labels=labels, classes=["no", "yes"])
    dataset = load(tmp_path / "a.npz")
    assert dataset.classes == ("no", "yes")
    examples = dataset.examples(GREY)
    assert np.array_equal(examples.images[..., 0], images)
    assert np.array_equal(examples.labels, labels)


def test_a_single_class_in_arrays_is_told_what_to_do_about_labels(tmp_path):
    images, _ = arrays()
    with pytest.raises(DataError, match=r"got one, '7'; give more than one label$"):
        from_arrays(images, [7] * len(images))


def test_arrays_that_cannot_be_used_are_one_line():
    images, labels = arrays()
    with pytest.raises(DataError, match="expected pictures of one shape, got several"):
        from_arrays([np.zeros((8, 8), np.uint8), np.zeros((9, 8), np.uint8)], [0, 1])
    with pytest.raises(UsageError, match="expected classes as a list of names, got 'ab'"):
        from_arrays(images, labels, classes="ab")


def test_an_empty_path_is_not_the_folder_that_one_is_in(tree, monkeypatch):
    monkeypatch.chdir(tree)
    with pytest.raises(UsageError, match=r"expected the path of a folder.* got an empty one"):
        load("")
    assert len(load(".")) == 20


def test_an_npz_with_given_splits(tmp_path):
    x, y = arrays(40)
    np.savez(tmp_path / "a.npz", x_train=x[:30], y_train=y[:30], x_test=x[30:], y_test=y[30:])
    dataset = load(tmp_path / "a.npz", split=0)
    assert {name: len(i) for name, i in dataset.splits.items()} == {"train": 30, "test": 10}
    assert np.array_equal(dataset.examples(GREY, "test").images[..., 0], x[30:])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"pictures": np.zeros(3)}, r"expected arrays images and labels.*got pictures"),
        ({"x_train": np.zeros((2, 4, 4), np.uint8)}, r"got x_train"),
        ({"images": np.zeros((2, 4, 4)), "labels": [0, 1]}, r"expected uint8.*got float64"),
        ({"images": np.zeros((2, 3, 8, 8), np.uint8), "labels": [0, 1]}, r"channels last"),
        ({"images": np.zeros((2, 64), np.uint8), "labels": [0, 1]}, r"got \[2, 64\]"),
        ({"images": np.zeros((2, 4, 4), np.uint8), "labels": [0]}, r"got 2 and 1"),
        ({"images": np.zeros((2, 4, 4), np.uint8), "labels": [0.5, 1]}, r"whole number"),
        ({"images": np.zeros((2, 4, 4), np.uint8), "labels": 1}, r"whole number"),
        (
            {"images": np.zeros((2, 4, 4), np.uint8), "labels": [0, 5], "classes": ["a", "b"]},
            r"from 0 to 1",
        ),
        (
            {"images": np.zeros((2, 4, 4), np.uint8), "labels": ["a", "c"], "classes": ["a", "b"]},
            r"expected labels out of its classes, got 'c'",
        ),
    ],
)
def test_an_npz_of_the_wrong_kind_is_an_error(tmp_path, content, message):
    np.savez(tmp_path / "a.npz", **content)
    with pytest.raises(DataError, match=message):
        load(tmp_path / "a.npz")


def test_a_damaged_npz_is_an_error(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(DataError, match=r"a\.npz"):
        load(tmp_path / "a.npz")


def test_a_single_array_that_is_named_npz_is_an_error(tmp_path):
    np.save(tmp_path / "a.npy", arrays()[0])
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    with pytest.raises(DataError, match=r"expected a \.npz.*got another file"):
        load(tmp_path / "a.npz")


def test_labels_that_are_python_objects_are_told_what_to_become(tmp_path):
    words = np.array(["no", "yes"], object)
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 4, 4), np.uint8), labels=words)
    with pytest.raises(DataError, match=r"got Python objects; save words as .astype\(str\)"):
        load(tmp_path / "a.npz")


def test_numbers_as_classes_stand_by_value_below_zero_too(tmp_path):
    images, labels = arrays()
    np.savez(tmp_path / "a.npz", images=images, labels=np.where(labels, 10, -1))
    assert load(tmp_path / "a.npz").classes == ("-1", "10")


def test_classes_of_one_value_stand_in_one_order_in_every_process(tmp_path):
    images, labels = arrays()
    words = np.array(["001", "01", "1"])[np.arange(len(labels)) % 3]
    np.savez(tmp_path / "a.npz", images=images, labels=words)
    code = "import sys, striate.data; print(striate.data.load(sys.argv[1]).classes)"
    for seed in ("0", "1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", code, str(tmp_path / "a.npz")]
        found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert found.stdout.strip() == "('001', '01', '1')"


def test_a_class_of_an_npz_without_pictures_is_said(tmp_path):
    images, labels = arrays()
    np.savez(tmp_path / "a.npz", images=images, labels=labels, classes=["no", "yes", "maybe"])
    dataset = load(tmp_path / "a.npz")
    assert dataset.classes == ("no", "yes")
    assert "class 'maybe' has no picture" in str(dataset.problems[0])
    assert kinds(dataset) == ["empty_class"]


def test_class_names_may_be_bytes(tmp_path):
    images, labels = arrays()
    np.savez(tmp_path / "a.npz", images=images, labels=labels, classes=[b"no", b"yes"])
    assert load(tmp_path / "a.npz").classes == ("no", "yes")


def idx(path, array, compress=True):
    data = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    data += array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if compress else data)


def test_idx_files_are_read_with_their_splits(tmp_path):
    x, y = arrays(40)
    idx(tmp_path / "train-images-idx3-ubyte.gz", x[:30])
    idx(tmp_path / "train-labels-idx1-ubyte.gz", y[:30])
    idx(tmp_path / "t10k-images-idx3-ubyte", x[30:], compress=False)
    idx(tmp_path / "t10k-labels-idx1-ubyte", y[30:], compress=False)
    dataset = load(tmp_path, split=0)
    assert {name: len(i) for name, i in dataset.splits.items()} == {"train": 30, "test": 10}
    assert np.array_equal(dataset.examples(GREY, "train").images[..., 0], x[:30])
    alone = load(tmp_path / "t10k-images-idx3-ubyte", split=0)
    assert len(alone.split("train")) == 10


def test_idx_files_may_be_called_with_a_dot(tmp_path):
    x, y = arrays(30)
    idx(tmp_path / "train-images.idx3-ubyte", x, compress=False)
    idx(tmp_path / "train-labels.idx1-ubyte", y, compress=False)
    for source in (tmp_path, *tmp_path.iterdir()):
        assert np.array_equal(load(source, split=0).examples(GREY).images[..., 0], x)


def test_broken_idx_files_are_errors(tmp_path):
    x, y = arrays(10)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    idx(path, x)
    with pytest.raises(DataError, match=r"expected its labels"):
        load(tmp_path)
    idx(tmp_path / "train-labels-idx1-ubyte.gz", y)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"damaged"):
        load(tmp_path)
    path.write_bytes(gzip.compress(gzip.compress(b"")))
    with pytest.raises(DataError, match=r"expected an IDX file"):
        load(tmp_path)


# === Splits, folds and order ===


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(0, 4), min_size=2, max_size=60),
    st.floats(0.05, 0.95),
    st.integers(0, 3),
    st.integers(1, 40),
)
def test_a_stratified_split_partitions_and_leaves_every_class_something(labels, share, seed, kinds):
    labels = np.array(labels)
    digests = np.array([f"{label}-{i % kinds}" for i, label in enumerate(labels)], dtype="S32")
    kept, held_out = stratified_split(labels, digests, share, seed)
    assert sorted([*kept, *held_out]) == list(range(len(labels)))
    assert set(labels[kept]) == set(labels)
    assert not set(digests[kept]) & set(digests[held_out])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=5, max_size=60), st.integers(2, 5))
def test_folds_validate_every_picture_once_and_evenly(labels, k):
    labels = np.array(labels)
    digests = np.arange(len(labels)).astype("S32")
    folds = stratified_folds(labels, digests, k, seed=0)
    assert sorted(np.concatenate([val for _, val in folds])) == list(range(len(labels)))
    for label in set(labels):
        counts = [int((labels[val] == label).sum()) for _, val in folds]
        assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize(
    ("share", "taken"), [(0.1, [1, 1, 2]), (0.5, [1, 5, 10]), (0.9, [1, 9, 18])]
)
def test_a_split_takes_its_share_of_every_class(share, taken):
    labels = np.repeat([0, 1, 2], [2, 10, 20])
    digests = np.arange(len(labels)).astype("S32")
    _, held_out = stratified_split(labels, digests, share, seed=0)
    assert np.bincount(labels[held_out]).tolist() == taken


def test_folds_of_a_data_set(tree):
    folds = load(tree).folds(5, seed=3)
    assert len(folds) == 5
    assert all(len(train) == 16 and len(val) == 4 for train, val in folds)
    with pytest.raises(UsageError, match="folds"):
        load(tree).folds(21)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 300), st.integers(1, 64), st.integers(0, 5), st.integers(0, 5))
def test_an_epoch_is_every_picture_once_in_a_repeatable_order(n, batch_size, seed, epoch):
    batches = list(epoch_order(n, batch_size, seed=seed, epoch=epoch))
    assert len(batches) == steps_per_epoch(n, batch_size)
    assert sorted(np.concatenate(batches)) == list(range(n))
    sizes = [len(batch) for batch in batches]
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    start = len(batches) // 2
    resumed = list(epoch_order(n, batch_size, seed=seed, epoch=epoch, start=start))
    assert [b.tolist() for b in resumed] == [b.tolist() for b in batches[start:]]


def test_epochs_and_seeds_differ():
    orders = {
        tuple(np.concatenate(list(epoch_order(50, 7, seed=seed, epoch=epoch))))
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(orders) == 9


def test_decoding_ahead_gives_the_same_batches_as_the_cache(tree):
    dataset = load(tree)
    cached, streamed = dataset.examples(COLOUR), dataset.examples(COLOUR, cache_bytes=1)
    order = list(epoch_order(20, 6, seed=0, epoch=0))
    for (x, a), (y, b) in zip(cached.stream(order), streamed.stream(order), strict=True):
        assert np.array_equal(x, y)
        assert np.array_equal(a, b)


def test_wanted_classes_fix_the_labels(tree):
    dataset = load(tree, classes=["zebra", "dog", "cat"])
    assert dataset.classes == ("zebra", "dog", "cat")
    assert set(dataset.labels) == {1, 2}
    with pytest.raises(DataError, match=r"expected classes that the classifier knows, got 'cat'"):
        load(tree, classes=["dog", "bat"])


def test_an_unknown_split_offers_the_nearest(tree):
    with pytest.raises(UsageError, match=r"'vall'.*'val'"):
        load(tree).split("vall")
    with pytest.raises(UsageError, match=r"from 0 to less than 1"):
        load(tree, split=1.0)
