"""A file that went on its own still knows what its classes are called."""

import json
import zipfile

import numpy as np
import pytest

from making import PHOTOS, SHIPPED, colourful_noise, tiny_artifact
from striate.export import export

CLASSES = ["class 0", "class 1", "class 2", "class 3"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    artifact = tiny_artifact(tmp_path_factory.mktemp("models") / "mine", shape=(32, 32, 3))
    pictures = np.concatenate([colourful_noise(4, (32, 32, 3), seed) for seed in range(2)])
    forms = ["onnx", "litert", "int8", "float16"]
    return export(artifact, forms, images=pictures, accept_loss=True)[0]


@pytest.mark.long
@pytest.mark.parametrize("file", ["model.onnx", "model.int8.onnx"])
def test_onnx_runtime_reads_the_labels_from_the_file(exported, file):
    import onnxruntime

    facts = onnxruntime.InferenceSession(exported.file(file)).get_modelmeta()
    assert json.loads(facts.custom_metadata_map["labels"]) == CLASSES


@pytest.mark.long
def test_a_packed_file_has_them_too(tmp_path):
    import onnx

    made, _ = export(
        tiny_artifact(tmp_path / "mine", name="xnor_vgg_mnist", shape=(28, 28, 1)), ["packed"]
    )
    props = {p.key: p.value for p in onnx.load(made.file("model.packed.onnx")).metadata_props}
    assert json.loads(props["labels"]) == CLASSES


@pytest.mark.long
@pytest.mark.parametrize("file", ["model.tflite", "model.int8.tflite", "model.float16.tflite"])
def test_a_litert_file_ends_with_the_labels_as_an_archive(exported, file):
    with zipfile.ZipFile(exported.file(file)) as archive:
        assert archive.read("labels.txt").decode().splitlines() == CLASSES


@pytest.mark.long
@pytest.mark.oracle
def test_mediapipe_answers_with_the_names_of_the_classes():
    tasks = pytest.importorskip("mediapipe.tasks.python", reason="needs mediapipe as the oracle")
    from mediapipe import Image

    options = tasks.vision.ImageClassifierOptions(
        base_options=tasks.BaseOptions(model_asset_path=str(SHIPPED / "1" / "model.tflite")),
        max_results=1,
    )
    with tasks.vision.ImageClassifier.create_from_options(options) as classifier:
        for photo, name in (("coffee", "espresso"), ("cat", "cat")):
            found = classifier.classify(Image.create_from_file(str(PHOTOS / f"{photo}.jpg")))
            assert name in found.classifications[0].categories[0].category_name
