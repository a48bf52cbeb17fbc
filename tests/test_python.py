"""striate as a library, for scripts and notebooks: what it takes, what it refuses, what it leaves
as it found it."""

import inspect
import random
import subprocess
import sys

import numpy as np
import pytest

import striate
from making import tiny_artifact
from striate.errors import DataError, StriateError, UsageError


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    return tiny_artifact(tmp_path_factory.mktemp("saved") / "tiny")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Twelve grey pictures, rows or columns."""
    path = tmp_path_factory.mktemp("data") / "lines.npz"
    images = np.zeros((12, 32, 32), np.uint8)
    images[::2, 5:9], images[1::2, :, 5:9] = 200, 200
    images[:, 0, 0] = np.arange(12)  # no two are copies
    np.savez(path, images=images, labels=np.arange(12) % 2)
    return striate.data.load(path)


# === What there is ===


@pytest.mark.parametrize("name", ["search", "layers", "metrics", "StriateError", "runtime"])
def test_every_part_is_there_after_import_striate(name):
    code = f"import striate; striate.{name}; assert {name!r} in dir(striate)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("verb", ["bench", "ensemble", "evaluate", "explain", "export", "train"])
def test_a_verb_shows_the_arguments_that_it_takes(verb):
    package = getattr(striate, verb)
    assert inspect.signature(package) == inspect.signature(getattr(package, verb))


def test_what_is_found_shows_itself_in_a_line(artifact, dataset):
    examples = dataset.examples(artifact.preprocess)
    spec = striate.list_models("lenet5")[0]
    explanation = striate.explain(artifact, [np.zeros((32, 32), np.uint8)], target=1)
    for thing, word in (
        (dataset, "12 pictures"),
        (examples, "12 pictures"),
        (spec, "1998"),
        (explanation, "grad_cam"),
    ):
        assert word in repr(thing)
        assert len(repr(thing)) < 200 + len(dataset.source)


# === What stands for an artifact ===


@pytest.mark.parametrize("as_path", [str, lambda path: path])
def test_a_path_stands_for_its_artifact(artifact, dataset, as_path):
    path = as_path(artifact.path)
    images, scores = artifact.goldens()
    engine = striate.runtime.open_engine(path, "keras")
    assert np.abs(engine.predict(images) - scores).max() <= 1e-6
    assert len(striate.explain(path, images).maps) == len(images)
    with pytest.raises(DataError, match="classes that tiny knows"):  # so it was opened
        striate.evaluate(path, dataset, engine="keras")


@pytest.mark.parametrize("other", [None, 3, b"saved", ["saved"]])
def test_what_is_no_artifact_is_told_by_every_verb(dataset, tmp_path, other):
    for verb in (
        striate.load,
        lambda x: striate.evaluate(x, dataset),
        lambda x: striate.report(x, dataset, tmp_path / "report.html"),
        lambda x: striate.explain(x, ["a.jpg"]),
        lambda x: striate.export(x, ["onnx"]),
        striate.bench,
        striate.runtime.open_engine,
    ):
        with pytest.raises(UsageError, match="expected an artifact"):
            verb(other)


def test_members_of_an_ensemble_come_in_a_list(artifact, tmp_path):
    for one in (artifact, artifact.path, str(artifact.path)):
        with pytest.raises(UsageError, match="put it in brackets"):
            striate.ensemble(one, tmp_path / "committee")
    with pytest.raises(UsageError, match="at least 2 artifacts, got 1"):
        striate.ensemble((x for x in [artifact]), tmp_path / "committee")


def test_a_model_of_another_make_is_told_from_a_net_that_is_misspelt():
    import keras

    own = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()], name="own")
    with pytest.raises(UsageError, match="a model of another make, 'own'"):
        striate.explain(own, np.zeros((1, 8, 8, 1), np.uint8))


# === What an engine is asked ===


@pytest.mark.parametrize(
    "spoil",
    [
        lambda images: images.astype(np.float32) / 255,
        lambda images: images.astype(np.int64),
        lambda images: images[0],
        lambda images: images[..., 0],
        lambda images: np.moveaxis(images, -1, 1),
        lambda images: np.repeat(images, 3, axis=-1),
        lambda images: images[:, 2:30, 2:30],
        lambda images: images[:0],
        list,
    ],
)
def test_an_engine_answers_nothing_but_what_its_net_takes(artifact, spoil):
    engine = striate.runtime.open_engine(artifact, "keras")
    images, _ = artifact.goldens()
    with pytest.raises(UsageError, match=r"expected pictures as uint8 \[N, 32, 32, 1\], got"):
        engine.predict(spoil(images))


def test_export_compares_on_nothing_but_what_the_net_takes(artifact):
    for images in (np.zeros((9, 32, 32, 1)), np.zeros((9, 28, 28, 1), np.uint8), ["a.jpg"] * 9):
        with pytest.raises(UsageError, match="expected pictures as uint8"):
            striate.export(artifact, ["onnx"], images=images)


# === Pictures, classes, numbers ===


def test_an_array_of_paths_is_a_list_of_them(artifact, tmp_path):
    from PIL import Image

    paths = [str(tmp_path / f"{i}.png") for i in range(2)]
    for path in paths:
        Image.new("L", (40, 40)).save(path)
    expected = artifact.predict(paths)
    for several in (np.array(paths), np.array(paths, dtype=object)):
        assert np.array_equal(artifact.predict(several), expected)
        assert len(striate.explain(artifact, several).maps) == 2
    with pytest.raises(UsageError, match=r"make a list\(\) of it"):
        artifact.predict(path for path in paths)


def test_targets_may_stand_in_any_list(artifact):
    images, _ = artifact.goldens()
    pandas = pytest.importorskip("pandas", reason="needs pandas, whose column is such a list")
    for wanted in (pandas.Series([3, 2, 1, 0]), np.array([3, 2, 1, 0]), (3, 2, 1, 0)):
        assert striate.explain(artifact, images, target=wanted).targets.tolist() == [3, 2, 1, 0]
    one = striate.explain(artifact, images, target=np.array(2))
    assert one.targets.tolist() == [2] * 4


@pytest.mark.parametrize("size", [0, -1, 2.5, "3", None, True])
def test_a_batch_size_is_a_whole_number(artifact, dataset, size):
    images, _ = artifact.goldens()
    for verb in (
        lambda: artifact.predict(images, batch_size=size),
        lambda: striate.explain(artifact, images, batch_size=size),
        lambda: striate.evaluate(artifact, dataset, batch_size=size),
    ):
        with pytest.raises(UsageError, match="expected batch_size as a whole number"):
            verb()


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ({"split": "0.2"}, "validation split"),
        ({"split": None}, "validation split"),
        ({"seed": -1}, "expected seed"),
        ({"seed": 1.5}, "expected seed"),
        ({"kind": 3}, "expected a kind"),
        ({"classes": "cat"}, "a list of names"),
    ],
)
def test_options_of_another_kind_are_told(dataset, option, complaint):
    with pytest.raises(UsageError, match=complaint):
        striate.data.load(dataset.source, **option)


def test_numbers_of_a_search_are_told_before_anything_is_trained(artifact, dataset):
    recipe, rates = {"model": "lenet5"}, "optimizer.learning_rate=log:1e-3:1e-2"
    for verb, complaint in (
        (lambda: striate.search.random_search(recipe, dataset, rates, trials="3"), "trials"),
        (lambda: striate.search.random_search(recipe, dataset, rates, seed=-1), "seed"),
        (lambda: striate.search.architecture_search(recipe, dataset, trials=2.0), "trials"),
        (lambda: striate.search.range_test(recipe, dataset, steps=None), "steps"),
        (lambda: striate.search.range_test(recipe, dataset, low="1e-5"), "rates"),
        (lambda: striate.ensemble.connect(artifact, artifact, dataset, points=2.5), "points"),
    ):
        with pytest.raises(UsageError, match=f"expected {complaint}"):
            verb()
    assert striate.search.random_search(recipe, dataset, rates, trials=0) == []


@pytest.mark.parametrize("source", [None, 3, b"pictures", [("a.jpg", "cat")], np.zeros((2, 8, 8))])
def test_what_is_no_source_of_pictures_is_told(source):
    with pytest.raises(UsageError, match="expected the path of a folder"):
        striate.data.load(source)


def test_classes_may_be_numbers(dataset):
    found = striate.data.load(dataset.source, classes=[1, 0])
    assert found.classes == ("1", "0")
    assert found.labels.tolist() == [1 - label for label in dataset.labels]


@pytest.mark.parametrize("options", [{"split": 1}, {"engine": 3}, {"engine": None}, {"tta": True}])
def test_a_name_that_is_no_word_is_told(artifact, dataset, options):
    known = tiny_classes(dataset)
    with pytest.raises(UsageError):
        striate.evaluate(artifact, known, **options)


def tiny_classes(dataset):
    """The data set with the classes of the artifact."""
    import dataclasses

    return dataclasses.replace(dataset, classes=("class 0", "class 1"))


def test_a_single_corruption_may_be_named_by_itself(artifact, dataset):
    found = striate.evaluate(artifact, tiny_classes(dataset), engine="keras", corruptions="jpeg")
    assert found.corruptions.names == ("jpeg",)
    assert repr(found).startswith("<Evaluation of tiny: accuracy 0.")
    assert len(repr(found)) < 100
    for wrong in ("fog", 3):
        with pytest.raises(UsageError, match=f"got {wrong!r}"):
            striate.evaluate(artifact, dataset, corruptions=wrong)


# === Pictures in memory ===


def test_arrays_in_memory_are_the_data_set_of_the_file_that_holds_them(tmp_path):
    pandas = pytest.importorskip("pandas", reason="needs pandas, whose column labels may be")
    images = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)
    labels, classes = np.arange(20) % 2, ["cat", "dog"]
    np.savez(tmp_path / "pets.npz", images=images, labels=labels, classes=classes)
    stored = striate.data.load(tmp_path / "pets.npz", seed=3)
    words = [classes[label] for label in labels]
    for same in (
        striate.data.from_arrays(images, labels, classes=classes, seed=3),
        striate.data.from_arrays(images, pandas.Series(words), seed=3),
        striate.data.from_arrays(list(images), words, seed=3),
    ):
        assert same.fingerprint == stored.fingerprint
        assert same.split("val").tolist() == stored.split("val").tolist()


@pytest.mark.parametrize(
    ("images", "labels", "complaint"),
    [
        (np.zeros((4, 8, 8, 3)), [0, 1, 0, 1], "uint8 pictures from 0 to 255"),
        (np.zeros((4, 3, 8, 8), np.uint8), [0, 1, 0, 1], "channels last"),
        (np.zeros((4, 8, 8), np.uint8), np.eye(4, dtype=int), "one whole number or word"),
        (np.zeros((4, 8, 8), np.uint8), [0.0, 1.0, 0.0, 1.0], "one whole number or word"),
        (np.zeros((4, 8, 8), np.uint8), [0, 1], "a label a picture"),
        (np.zeros((0, 8, 8), np.uint8), [], "got none|one whole number"),
        (None, [0, 1], "expected"),
    ],
)
def test_arrays_that_are_no_pictures_or_labels_are_told(images, labels, complaint):
    with pytest.raises(DataError, match=complaint):
        striate.data.from_arrays(images, labels)


# === Which pictures ===


def test_a_mask_chooses_the_pictures_that_it_marks(artifact, dataset):
    mask = dataset.labels == 1
    assert (dataset.examples(artifact.preprocess, mask).labels == 1).all()
    assert dataset.examples(artifact.preprocess, mask).indices.tolist() == [1, 3, 5, 7, 9, 11]
    fitted = striate.train.fit({"model": "lenet5", "epochs": 1}, dataset, "train", mask)
    assert fitted.val.labels.tolist() == [1] * 6


@pytest.mark.parametrize("which", [[12], [-1], [0.5], [True] * 3, [[0, 1]], ["0"], slice(3), 5])
def test_indices_that_mean_no_picture_are_told(artifact, dataset, which):
    with pytest.raises(UsageError, match="expected indices from 0 to 11"):
        dataset.examples(artifact.preprocess, which)


def test_a_fit_needs_a_data_set_and_not_its_path(dataset):
    recipe = {"model": "lenet5", "epochs": 1}
    for verb in (
        lambda: striate.train.fit(recipe, dataset.source, [0, 1]),
        lambda: striate.train.cross_validate(recipe, dataset.source),
    ):
        with pytest.raises(UsageError, match=r"striate.data.load\(...\)"):
            verb()


def test_a_recipe_or_an_output_that_is_neither_is_told(dataset):
    with pytest.raises(UsageError, match="expected a recipe"):
        striate.train(3, "saved_models/x", data=dataset)
    with pytest.raises(UsageError, match="as output"):
        striate.train({"model": "lenet5"}, None, data=dataset)


# === What its user has set ===


def test_channels_first_is_refused_before_a_net_of_other_axes_is_built(artifact):
    import keras

    keras.config.set_image_data_format("channels_first")
    try:
        for verb in (
            lambda: striate.create_model("resnet18", num_classes=3, input_shape=(64, 64, 3)),
            lambda: striate.load(artifact.path).model,
        ):
            with pytest.raises(StriateError, match="channels_last"):
                verb()
    finally:
        keras.config.set_image_data_format("channels_last")


def test_random_numbers_go_on_after_a_fit_where_they_stood(dataset):
    import tensorflow as tf
    from tensorflow.python.framework.config import is_op_determinism_enabled

    random.seed(7)
    np.random.seed(7)
    expected = random.random(), np.random.random()
    random.seed(7)
    np.random.seed(7)
    exact = is_op_determinism_enabled()
    striate.train.fit({"model": "lenet5", "epochs": 1}, dataset, "train", "val")
    assert (random.random(), np.random.random()) == expected
    assert is_op_determinism_enabled() == exact
    assert tf.executing_eagerly()


def test_a_search_keeps_the_precision_that_its_user_has_set(dataset):
    import keras

    keras.config.set_dtype_policy("mixed_float16")
    try:
        ranges = ["optimizer.learning_rate=log:1e-3:1e-2"]
        recipe = {"model": "lenet5", "epochs": 1}
        striate.search.random_search(recipe, dataset, ranges, trials=1)
        assert keras.config.dtype_policy().name == "mixed_float16"
    finally:
        keras.config.set_dtype_policy("float32")


def test_threads_that_build_nets_at_once_leave_the_recursion_limit_alone():
    from striate.registry import deep_graphs

    before = sys.getrecursionlimit()
    first, second = deep_graphs(), deep_graphs()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)  # the first thread is done, the other still builds
    assert sys.getrecursionlimit() >= 100_000
    second.__exit__(None, None, None)
    assert sys.getrecursionlimit() == before
