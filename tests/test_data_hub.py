"""Published collections by name: read by the libraries that fetch them, from files of our own."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from striate.data import load
from striate.errors import DataError, UsageError
from striate.evaluate import evaluate
from striate.preprocess import preset
from striate.train import make_recipe, train

UNIT = preset("unit", 8, 8, 3)
CLASSES = ["stripe", "dot"]


def picture(level: int, size=(8, 8)) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", size, (level, 0, 0)).save(data, "PNG")
    return data.getvalue()


def pictures(n: int, first: int = 0) -> dict:
    """n different pictures, every third of the second class."""
    images = [{"bytes": picture(first + i), "path": None} for i in range(n)]
    return {"image": images, "label": [int(i % 3 == 0) for i in range(n)]}


def run(*arguments):
    """The program, as it is from a shell."""
    command = [sys.executable, "-m", "striate", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture
def written(tmp_path):
    """A function that writes a collection of Hugging Face's by its splits, and returns its name."""
    datasets = pytest.importorskip("datasets")

    def write(splits: dict, **columns) -> str:
        features = datasets.Features(
            {"image": datasets.Image(), "label": datasets.ClassLabel(names=CLASSES), **columns}
        )
        made = {name: datasets.Dataset.from_dict(x, features) for name, x in splits.items()}
        datasets.DatasetDict(made).save_to_disk(tmp_path / "written")
        return f"hf:{tmp_path / 'written'}"

    return write


def test_a_collection_keeps_its_classes_and_splits_and_its_very_bytes(written):
    source = written({"train": pictures(9), "validation": pictures(3, 20), "test": pictures(6, 40)})
    found = load(source)
    assert found.classes == ("stripe", "dot")
    assert {name: len(found.split(name)) for name in ("train", "val", "test")} == {
        "train": 9,
        "val": 3,
        "test": 6,
    }
    assert found.images[found.split("test")[1]] == picture(41)
    examples = found.examples(UNIT, "test")
    assert examples.images[:, 0, 0, 0].tolist() == [40, 41, 42, 43, 44, 45]
    assert examples.labels.tolist() == [1, 0, 0, 1, 0, 0]


def test_rows_without_a_picture_or_a_label_are_left_out_and_said(written):
    some = pictures(12)
    some["label"][1] = some["label"][2] = some["image"][4] = None
    found = load(written({"train": some}))
    assert len(found) == 9
    said = " | ".join(found.report())
    assert "2 rows of split 'train' left out, without a label" in said
    assert "1 row of split 'train' left out, without a picture" in said


def test_what_has_no_label_or_a_split_of_another_name_is_left_out_and_said(written):
    nameless = pictures(4, 60)
    nameless["label"] = [-1] * 4
    found = load(written({"train": pictures(12), "test": nameless, "extra": pictures(5, 80)}))
    assert len(found) == 12
    said = " | ".join(found.report())
    assert "4 rows of split 'test' left out, without a label" in said
    assert "split 'extra' left out" in said


def test_of_several_labels_the_one_that_is_called_so_counts(written):
    datasets = pytest.importorskip("datasets")
    more = pictures(9) | {"breed": [0] * 9}
    source = written({"train": more}, breed=datasets.ClassLabel(names=["a", "b"]))
    found = load(source)
    assert found.classes == ("stripe", "dot")
    assert "the classes are those of 'label'; there are breed as well" in " ".join(found.report())


def test_a_folder_of_pictures_can_be_read_by_hugging_faces_library(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    for split in ("train", "test"):
        for i in range(6):
            place = tmp_path / "mine" / split / CLASSES[i % 2]
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{i}.png").write_bytes(picture(10 * i + len(split)))
    found = load(f"hf:{tmp_path / 'mine'}")
    assert set(found.classes) == set(CLASSES)
    assert len(found.split("test")) == 6
    assert picture(14) in [bytes(image) for image in found.images]


def test_collections_of_tensorflow_datasets(tmp_path, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))

    class StriateSpots(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(8, 8, 3), encoding_format="png"),
                "label": tfds.features.ClassLabel(names=CLASSES),
            }
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, _):
            return {"train": self._generate_examples(12, 0), "test": self._generate_examples(3, 50)}

        def _generate_examples(self, n, first):
            for i in range(n):
                level = np.full((8, 8, 3), first + i, np.uint8)
                yield i, {"image": level, "label": i % 2}

    found = load("tfds:striate_spots")
    assert found.classes == ("stripe", "dot")
    assert sorted(found.examples(UNIT, "test").images[:, 0, 0, 0].tolist()) == [50, 51, 52]
    assert len(found.split("train")) + len(found.split("val")) == 12


def test_what_the_library_cannot_find_is_one_line(tmp_path):
    pytest.importorskip("datasets")
    with pytest.raises(DataError, match=r"^hf:.*nothing_here: cannot be loaded \(.+\)$"):
        load(f"hf:{tmp_path / 'nothing_here'}")
    pytest.importorskip("tensorflow_datasets")
    with pytest.raises(DataError, match=r"^tfds:no_such_collection: cannot be loaded \(.+\)$"):
        load("tfds:no_such_collection")


def test_collections_without_pictures_or_classes_are_refused(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"text": ["a"], "label": [0]}).save_to_disk(tmp_path / "words")
    with pytest.raises(DataError, match="expected a column of pictures, got text, label"):
        load(f"hf:{tmp_path / 'words'}")


@pytest.mark.parametrize(
    ("source", "module", "package"),
    [("hf:x", "datasets", "datasets"), ("tfds:x", "tensorflow_datasets", "tensorflow-datasets")],
)
def test_without_the_library_it_is_said_what_to_install(monkeypatch, source, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=f"pip install {package}"):
        load(source)


@pytest.mark.long
def test_a_collection_trains_a_net_from_the_command_line(written, tmp_path):
    source = written({"train": pictures(30), "test": pictures(9, 100)})
    quick = ["--epochs", "1", "--batch-size", "8", "--set", "model.channels=3"]
    ran = run("train", "lenet5", "--data", source, "-o", tmp_path / "spots", *quick)
    assert ran.returncode == 0, ran.stderr
    ran = run("evaluate", tmp_path / "spots", "--data", source, "--json")
    assert json.loads(ran.stdout)["n"] == 9


@pytest.mark.long
def test_a_collection_trains_a_net_and_judges_it(written, tmp_path):
    source = written({"train": pictures(30), "test": pictures(9, 100)})
    recipe = make_recipe({"model": {"name": "lenet5", "channels": 3}, "epochs": 1, "batch_size": 8})
    made = train(recipe, tmp_path / "spots", data=source)
    judged = evaluate(made, source)
    assert judged.n == 9
    assert judged.data["split"] == "test"
