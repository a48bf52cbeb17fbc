"""striate.data on what is no picture: voxels, clips and tables of numbers."""

import re
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from striate.data import from_arrays, load
from striate.errors import DataError, UsageError
from striate.preprocess import (
    ClipPreprocess,
    Preprocess,
    VectorPreprocess,
    VoxelPreprocess,
    for_input,
    from_dict,
    pixels,
    preset,
)
from striate.registry import list_models

GREY = preset("unit", 6, 4, channels=1)


def frame(level: int) -> Image.Image:
    return Image.fromarray(np.full((6, 4), level, np.uint8))


def folder_clip(path, levels):
    path.mkdir(parents=True)
    for i, level in enumerate(levels):
        frame(level).save(path / f"frame_{i}.png")
    return path


def gif_clip(path, levels):
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *others = [frame(level) for level in levels]
    first.save(path, save_all=True, append_images=others, duration=40)
    return path


def levels_of(tensor) -> list[int]:
    """The level of each frame of a clip of even frames."""
    assert (tensor == tensor[:, :1, :1]).all()
    return tensor[:, 0, 0, 0].tolist()


# === Specifications ===


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("picture", (6, 4, 1)),
        ("clip", (7, 6, 4, 3)),
        ("voxels", (5, 6, 7, 1)),
        ("vector", (8,)),
    ],
)
def test_a_specification_of_every_kind_survives_json(kind, shape):
    spec = for_input(kind, shape, "unit")
    assert (spec.kind, spec.shape) == (kind, shape)
    assert from_dict(spec.to_dict()) == spec
    assert ("kind" in spec.to_dict()) == (kind != "picture")  # as before there were others


def test_an_unknown_kind_or_key_of_a_specification_is_named():
    with pytest.raises(UsageError, match=r"Did you mean 'voxels'"):
        from_dict({"kind": "voxel"})
    with pytest.raises(UsageError, match=r"no key 'deph'. Did you mean 'depth'"):
        from_dict({"kind": "voxels", "deph": 3})
    for broken in ({"kind": "voxels"}, {"height": "8", "width": 8}, {"kind": []}):
        with pytest.raises(UsageError, match="preprocess: expected "):
            from_dict(broken)
    with pytest.raises(UsageError, match="1 numbers as mean, one a channel"):
        VoxelPreprocess(4, 4, 4, 1, mean=(0, 0))
    with pytest.raises(UsageError, match="sample spread or middle"):
        ClipPreprocess(7, GREY, sample="first")


def test_the_normalisation_of_a_vector_is_inside_the_graph():
    spec = VectorPreprocess(3, mean=(1, 2, 3), scale=(1, 10, 100))
    x = np.array([[1, 2, 3], [2, 3, 4]], np.float32)
    np.testing.assert_array_equal(spec.layer()(x), [[0, 0, 0], [1, 10, 100]])


# === Voxels ===


@pytest.fixture
def grids():
    return np.random.default_rng(0).random((12, 6, 5, 4)) < 0.3


@pytest.mark.parametrize("form", ["packed", "bool", "levels", "channels"])
def test_voxels_are_read_from_every_form_of_array(tmp_path, form):
    cubes = np.random.default_rng(0).random((12, 8, 8, 8)) < 0.3
    images = {
        "packed": {"voxels_packed": np.packbits(cubes.reshape(12, -1), axis=1)},
        "bool": {"voxels": cubes},
        "levels": {"images": cubes.astype(np.uint8)},
        "channels": {"x": cubes[..., None] * np.uint8(255)},
    }[form]
    labels = {"y" if form == "channels" else "labels": np.arange(12) % 2}
    np.savez(tmp_path / "v.npz", **images, **labels, classes=np.array(["bed", "chair"]))
    dataset = load(tmp_path / "v.npz")
    assert (dataset.kind, dataset.classes) == ("voxels", ("bed", "chair"))
    assert "12 voxel grids, 2 classes of 6" in dataset.report()[0]
    examples = dataset.examples(VoxelPreprocess(8, 8, 8))
    np.testing.assert_array_equal(examples.images[..., 0], cubes * 255)


def test_a_smaller_grid_stands_in_the_middle_and_fills_every_channel(grids):
    tensor = pixels(grids[0], VoxelPreprocess(8, 8, 8, 3, (0,) * 3, (1,) * 3))
    np.testing.assert_array_equal(tensor[1:7, 1:6, 2:6], grids[0][..., None] * ([255] * 3))
    assert np.count_nonzero(tensor) == 3 * grids[0].sum()


@pytest.mark.parametrize("side", [8, 10])
def test_a_grid_is_asked_about_with_the_levels_that_it_was_learnt_with(side):
    cubes = np.random.default_rng(0).integers(0, 2, (12, 8, 8, 8), np.uint8)
    cubes[0] *= 100  # beside one of levels
    spec = VoxelPreprocess(side, side, side)
    learnt = from_arrays(cubes, np.arange(12) % 2, kind="voxels").examples(spec).images
    for asked, tensor in zip(cubes, learnt, strict=True):
        np.testing.assert_array_equal(pixels(asked, spec), tensor)
        np.testing.assert_array_equal(pixels(asked.astype(bool), spec) > 0, tensor > 0)
        assert tensor.max() in (100, 255)


def test_a_larger_grid_is_refused_in_one_line(grids, tmp_path):
    with pytest.raises(DataError, match=r"at most 4 x 4 x 4 voxels, got 6 x 5 x 4; give the net"):
        pixels(grids[0], VoxelPreprocess(4, 4, 4))
    with pytest.raises(DataError, match=r"got float64 \[6, 5, 4\]"):
        pixels(grids[0] * 0.5, VoxelPreprocess(8, 8, 8))
    np.save(tmp_path / "one.npy", grids[0])
    assert pixels(tmp_path / "one.npy", VoxelPreprocess(8, 8, 8)).shape == (8, 8, 8, 1)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "one.npy").read_bytes()[:40])
    with pytest.raises(DataError, match=r"cut.npy: expected an array in a .npy file"):
        pixels(tmp_path / "cut.npy", VoxelPreprocess(8, 8, 8))


@pytest.mark.parametrize("name", ["a.npz", "a.png"])
def test_a_file_of_another_kind_is_no_voxel_grid(tmp_path, name):
    """NumPy opens an archive of arrays, and takes a photograph for a pickle."""
    np.savez(tmp_path / "a.npz", grid=np.zeros((8, 8, 8), np.uint8))
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    said = rf"{name}: expected an array in a .npy file, got something else \(it begins with b'"
    with pytest.raises(DataError, match=said):
        pixels(tmp_path / name, VoxelPreprocess(8, 8, 8))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"voxels_packed": np.zeros((2, 10), np.uint8)}, r"packbits of cubes.*got uint8 \[2, 10\]"),
        ({"voxels": np.zeros((2, 4, 4, 4))}, r"uint8 or bool, got float64"),
        ({"voxels": np.zeros((2, 4), np.uint8)}, r"got uint8 \[2, 4\]"),
    ],
)
def test_voxels_of_the_wrong_kind_are_an_error(tmp_path, content, message):
    np.savez(tmp_path / "v.npz", **content, labels=[0, 1])
    with pytest.raises(DataError, match=message):
        load(tmp_path / "v.npz")


def test_one_class_of_voxels_is_an_error_and_few_of_one_are_said(tmp_path, grids):
    np.savez(tmp_path / "one.npz", voxels=grids, labels=np.zeros(12, int))
    with pytest.raises(DataError, match=r"at least two classes, got one, '0'; give more than one"):
        load(tmp_path / "one.npz")
    np.savez(tmp_path / "few.npz", voxels=grids, labels=np.arange(12) // 11)
    said = " ".join(map(str, load(tmp_path / "few.npz").problems))
    assert "'1': fewer than 5 voxel grids" in said
    assert "11 voxel grids of '0', 1 of '1'" in said


# === Clips ===


@pytest.fixture
def clips(tmp_path):
    """Two classes of six clips: folders of frames and GIFs, that rise and that fall."""
    for i in range(5):
        folder_clip(tmp_path / "rise" / f"clip{i}", range(10 + i, 210, 15))
        folder_clip(tmp_path / "fall" / f"clip{i}", range(210, 10 + i, -15))
    gif_clip(tmp_path / "rise" / "last.gif", range(10, 200, 20))
    gif_clip(tmp_path / "fall" / "last.gif", range(200, 10, -20))
    return tmp_path


def test_a_tree_of_clips_becomes_one_example_a_clip(clips):
    dataset = load(clips, kind="clip")
    assert dataset.counts() == {"fall": 6, "rise": 6}
    assert dataset.names[:2] == ("fall/clip0", "fall/clip1")
    assert "12 clips, 2 classes of 6" in dataset.report()[0]
    examples = dataset.examples(ClipPreprocess(4, GREY))
    assert examples.images.shape == (12, 4, 6, 4, 1)
    for clip, label in zip(examples.images, examples.labels, strict=True):
        steps = np.diff(levels_of(clip))
        assert (steps > 0).all() if dataset.classes[label] == "rise" else (steps < 0).all()


def test_the_same_folder_is_pictures_where_a_net_takes_pictures(clips):
    assert load(clips).kind == "picture"
    assert len(load(clips)) > 12  # every frame is one


def test_frames_are_taken_in_the_order_of_their_numbers(tmp_path):
    clip = folder_clip(tmp_path / "c", range(0, 240, 20))  # frame_0 ... frame_11
    spec = ClipPreprocess(12, GREY)
    assert levels_of(pixels(clip, spec)) == list(range(0, 240, 20))


def test_frames_are_spread_over_the_clip_or_taken_from_its_middle():
    clip = np.arange(0, 90, 10, dtype=np.uint8)[:, None, None] * np.ones((6, 4), np.uint8)
    assert levels_of(pixels(clip, ClipPreprocess(3, GREY))) == [0, 40, 80]
    assert levels_of(pixels(clip, ClipPreprocess(3, GREY, sample="middle"))) == [30, 40, 50]
    assert levels_of(pixels(clip[:2], ClipPreprocess(4, GREY))) == [0, 0, 10, 10]


@pytest.mark.parametrize("frames", [1, 4])
def test_a_folder_without_a_frame_is_no_clip(tmp_path, frames):
    with pytest.raises(DataError, match="expected a clip of several frames, got 0"):
        pixels(tmp_path, ClipPreprocess(frames, GREY))


def test_a_frame_has_the_pixels_of_a_picture(tmp_path):
    spec = preset("unit", 5, 5, fit="crop", crop=0.9)
    levels = np.random.default_rng(0).integers(0, 256, (3, 9, 8, 3), dtype=np.uint8)
    tensor = pixels(levels, ClipPreprocess(3, spec))
    for taken, whole in zip(tensor, levels, strict=True):
        np.testing.assert_array_equal(taken, pixels(whole, spec))


def test_an_animation_is_read_from_a_file_and_from_its_bytes(tmp_path):
    path = gif_clip(tmp_path / "a.gif", range(0, 200, 20))
    spec = ClipPreprocess(10, GREY)
    tensor = pixels(path, spec)
    assert levels_of(tensor) == list(range(0, 200, 20))
    np.testing.assert_array_equal(pixels(path.read_bytes(), spec), tensor)


def test_a_damaged_frame_leaves_its_clip_out_by_name(clips):
    (clips / "rise" / "clip3" / "frame_0.png").write_bytes(b"no picture")
    examples = load(clips, kind="clip").examples(ClipPreprocess(4, GREY))
    assert len(examples) == 11
    assert "frame_0.png: expected a" in str(examples.problems[0])
    with pytest.raises(DataError, match=r"frame_0.png.*\(strict\)"):
        load(clips, kind="clip", strict=True).examples(ClipPreprocess(4, GREY))


def test_videos_are_said_with_what_to_make_of_them(clips, tmp_path):
    clip = next(path for path in clips.iterdir() if path.is_dir())
    (clip / "v.mp4").touch()
    said = [str(p) for p in load(clips, kind="clip").problems if p.kind == "ignored"]
    assert re.search(r"1 file \(.mp4\) left out, a video is not read, make a folder of", said[-1])
    (tmp_path / "only" / "left").mkdir(parents=True)
    (tmp_path / "only" / "left" / "v.MOV").touch()
    with pytest.raises(DataError, match=r"got videos, such as .*v.MOV; make a folder of frames"):
        load(tmp_path / "only", kind="clip")


def test_clips_may_lie_deeper_below_their_class(tmp_path):
    for name in ("left/monday/1", "left/tuesday/2", "right/3"):
        folder_clip(tmp_path / name, range(0, 40, 20))
    assert load(tmp_path, kind="clip", split=0).counts() == {"left": 2, "right": 1}


def test_a_picture_is_no_clip(clips):
    frame(9).save(clips / "rise" / "still.png")
    dataset = load(clips, kind="clip")
    assert len(dataset) == 12
    assert "a single picture is no clip: rise/still.png" in str(dataset.problems[0])
    with pytest.raises(DataError, match="expected a clip of several frames, got 1"):
        pixels(clips / "rise" / "still.png", ClipPreprocess(4, GREY))
    for label in "ab":
        (clips / "stills" / label).mkdir(parents=True)
        frame(1).save(clips / "stills" / label / "1.png")
    with pytest.raises(DataError, match=r"one folder of clips for each class.*such as .*1.png"):
        load(clips / "stills", kind="clip")


def test_clips_as_arrays_are_those_of_voxels_with_another_word(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (10, 7, 6, 5), dtype=np.uint8)
    np.savez(tmp_path / "c.npz", images=frames, labels=np.arange(10) % 2)
    assert load(tmp_path / "c.npz").kind == "voxels"
    dataset = load(tmp_path / "c.npz", kind="clip")
    examples = dataset.examples(ClipPreprocess(7, preset("unit", 6, 5, channels=1)))
    np.testing.assert_array_equal(examples.images[..., 0], frames)


# === Numbers ===

ROWS = "".join(f"{i},{-i / 2},{1 + i % 3}\n" for i in range(30))


@pytest.mark.parametrize(
    "text",
    [
        ROWS,
        "height,width,class\n" + ROWS,
        "kind of,two,three\n" + ROWS,
        ROWS.replace(",", ";"),
        ROWS.replace(",", "\t"),
    ],
)
def test_a_table_of_numbers_is_read_with_a_header_or_without(tmp_path, text):
    (tmp_path / "t.csv").write_text(text)
    dataset = load(tmp_path / "t.csv")
    assert (dataset.kind, dataset.classes) == ("vector", ("1", "2", "3"))
    assert "30 rows, 3 classes of 10" in dataset.report()[0]
    examples = dataset.examples(VectorPreprocess(2))
    assert examples.images.dtype == np.float32
    np.testing.assert_array_equal(examples.images[:3], [[0, 0], [1, -0.5], [2, -1]])
    assert examples.labels[:4].tolist() == [0, 1, 2, 0]


def test_a_header_may_consist_of_numbers_but_for_the_label(tmp_path):
    """As that of an array's columns; `y` may also be a label, beside `n`."""
    (tmp_path / "t.csv").write_text("0,1,label\n5,6,a\n7,8,b\n9,1,a\n")
    assert load(tmp_path / "t.csv", split=0).counts() == {"a": 2, "b": 1}
    (tmp_path / "t.csv").write_text("0,1,y\n5,6,n\n7,8,y\n")
    assert load(tmp_path / "t.csv", split=0).counts() == {"n": 1, "y": 2}


def test_the_label_may_stand_anywhere_and_splits_may_be_given(tmp_path):
    rows = "".join(f"{'test' if i > 19 else 'train'},{'ab'[i % 2]},{i},7\n" for i in range(30))
    (tmp_path / "t.csv").write_text("split,label,one,two\n" + rows)
    dataset = load(tmp_path / "t.csv")
    assert dataset.classes == ("a", "b")
    assert {name: len(i) for name, i in dataset.splits.items()} == {
        "train": 16,
        "val": 4,
        "test": 10,
    }
    assert dataset.images.shape == (30, 2)


def test_a_table_of_pictures_is_never_taken_for_one_of_numbers(tmp_path):
    for i in range(10):
        frame(i).save(tmp_path / f"{i}.png")
    rows = "".join(f"{i}.png,{i % 2}\n" for i in range(10))
    for text in (rows, "path,label\n" + rows):
        (tmp_path / "t.csv").write_text(text)
        assert load(tmp_path / "t.csv").kind == "picture"
    with pytest.raises(DataError, match=r"none of its rows can be used.*got '[01].png'"):
        load(tmp_path / "t.csv", kind="vector")
    (tmp_path / "n.csv").write_text(ROWS)
    with pytest.raises(DataError, match=r"none of its 29 pictures is there"):
        load(tmp_path / "n.csv", kind="picture")


def test_a_row_that_is_no_row_of_numbers_is_left_out_and_said(tmp_path):
    (tmp_path / "t.csv").write_text(ROWS + "1,,2\n1,2,3,4\n1,nan,2\n")
    dataset = load(tmp_path / "t.csv")
    assert len(dataset) == 30
    said = [str(p) for p in dataset.problems if p.kind == "unreadable"]
    assert re.search(r"row 31: expected a number in column 2, got ''; left out", said[0])
    assert re.search(r"row 32: expected 3 cells, got 4", said[1])
    assert re.search(r"row 33: .* got 'nan'", said[2])
    with pytest.raises(DataError, match=r"row 31.*\(strict\)"):
        load(tmp_path / "t.csv", strict=True)


def test_a_first_row_with_a_gap_is_no_header(tmp_path):
    (tmp_path / "t.csv").write_text("1,,2\n" + ROWS)
    dataset = load(tmp_path / "t.csv")
    assert len(dataset) == 30
    assert "row 1: expected a number in column 2, got ''; left out" in str(dataset.problems[0])


def test_a_column_without_a_name_is_left_out_and_said(tmp_path):
    """It is the number of the row, which tells the class where rows are sorted by class."""
    rows = [f"{i},{i % 3}.5,{'ab'[i // 10]}" for i in range(20)]
    for header in (",length,label", "Unnamed: 0,length,label"):
        (tmp_path / "t.csv").write_text("\n".join([header, *rows]))
        dataset = load(tmp_path / "t.csv")
        assert dataset.images[:3].tolist() == [[0.5], [1.5], [2.5]]
        assert "column 1 has no name; left out" in str(dataset.problems[0])


def test_a_large_table_of_numbers_takes_little_more_memory_than_its_numbers(tmp_path):
    row = ",".join(f"{i}.25" for i in range(500))
    (tmp_path / "t.csv").write_text("".join(f"{row},{i % 2}\n" for i in range(1000)))
    tracemalloc.start()
    dataset = load(tmp_path / "t.csv")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * dataset.images.nbytes


def test_classes_with_underscores_are_words(tmp_path):
    rows = "".join(f"{i},{i % 3},{('1_2', '12')[i % 2]}\n" for i in range(20))
    (tmp_path / "t.csv").write_text(rows)
    assert load(tmp_path / "t.csv").classes == ("12", "1_2")


def test_a_number_beyond_float32_is_no_number(tmp_path):
    (tmp_path / "t.csv").write_text(ROWS + "1e300,2,2\n")
    assert len(load(tmp_path / "t.csv")) == 30
    np.savez(tmp_path / "n.npz", x=[[1.0], [1e300]], y=[0, 1])
    with pytest.raises(DataError, match="finite numbers, got others in row 1"):
        load(tmp_path / "n.npz")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,0.5\n3,4,0.7\n", r"row 1: expected a class as label, .*got 0.5"),
        ("1,2,\n3,4,1\n", r"row 1: the label is empty"),
        ("1,2,1\n3,4,1\n", r"at least two classes, got one, '1'; give more than one label"),
    ],
)
def test_a_table_without_classes_is_an_error(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        load(tmp_path / "t.csv")


def test_numbers_in_arrays_are_rows_too(tmp_path):
    x = np.random.default_rng(0).normal(size=(20, 5))
    np.savez(tmp_path / "n.npz", x=x, y=np.arange(20) % 2)
    assert load(tmp_path / "n.npz").kind == "vector"
    np.savez(tmp_path / "bad.npz", x=np.where(x > 2, np.nan, x) * np.inf, y=np.arange(20) % 2)
    with pytest.raises(DataError, match=r"finite numbers, got others in row 0"):
        load(tmp_path / "bad.npz")


@pytest.mark.parametrize("content", ["1 2.5 -3", "1,2.5,-3\n", "1; 2.5; -3"])
def test_a_vector_is_read_from_a_text_or_a_npy_file(tmp_path, content):
    (tmp_path / "v.txt").write_text(content)
    np.save(tmp_path / "v.npy", np.array([1, 2.5, -3]))
    for name in ("v.txt", "v.npy"):
        vector = pixels(tmp_path / name, VectorPreprocess(3))
        assert (vector.dtype, vector.tolist()) == (np.float32, [1, 2.5, -3])
    with pytest.raises(DataError, match=r"expected 4 numbers, got float64 \[3\]"):
        pixels(tmp_path / "v.txt", VectorPreprocess(4))
    with pytest.raises(DataError, match="expected numbers, got something else"):
        pixels(b"one two", VectorPreprocess(2))
    with pytest.raises(DataError, match="expected finite numbers, got inf at 1"):
        pixels(np.array([1.0, np.inf]), VectorPreprocess(2))


# === Kinds ===


@pytest.mark.parametrize(("kind", "word"), [("voxels", "voxels"), ("clip", "clips")])
def test_colour_pictures_are_not_taken_for_clips_or_voxels(tmp_path, kind, word):
    np.savez(tmp_path / "p.npz", images=np.zeros((4, 8, 8, 3), np.uint8), labels=[0, 1, 0, 1])
    with pytest.raises(DataError, match=rf"expected {word}.*which look like pictures"):
        load(tmp_path / "p.npz", kind=kind)


def test_every_net_says_what_kind_of_input_it_takes():
    for spec in list_models():
        assert for_input(spec.kind, spec.input_shape, spec.preprocess).shape == spec.input_shape


def test_a_net_for_something_else_is_refused_in_one_line(tmp_path, grids):
    np.savez(tmp_path / "v.npz", voxels=grids, labels=np.arange(12) % 2)
    dataset = load(tmp_path / "v.npz")
    with pytest.raises(DataError, match=r"expected pictures for this net, got voxel grids") as e:
        dataset.examples(Preprocess(8, 8))
    assert "\n" not in str(e.value)
    with pytest.raises(UsageError, match=r"Did you mean 'voxels'"):
        load(tmp_path / "v.npz", kind="voxel")
    with pytest.raises(DataError, match=r"expected voxel grids \(an .npz\), got nothing there"):
        load(tmp_path / "none", kind="voxels")


def test_voxels_take_a_preset_in_the_order_of_their_own_channels():
    picture, voxels = preset("caffe", 4, 4), for_input("voxels", (4, 4, 4, 3), "caffe")
    grid = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 4, 3), dtype=np.uint8)
    reversed_too = np.asarray(picture.layer()(grid))[..., ::-1]
    np.testing.assert_array_equal(np.asarray(voxels.layer()(grid)), reversed_too)
