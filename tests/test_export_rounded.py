"""int8 and float16: smaller numbers, the same classes, and never an answer unasked."""

import numpy as np
import pytest
from PIL import Image

from making import colourful_noise, tiny_artifact
from striate.artifact import load
from striate.errors import DataError, DisagreementError, UsageError
from striate.export import export, int8, ranges, some_pictures, verify
from striate.runtime import FLOAT_TOLERANCE, fastest_engine, open_engine, readable, usable
from striate.serve.repository.servable import open_artifact

SHAPE = (32, 32, 3)


@pytest.fixture(scope="module")
def pictures():
    return np.concatenate([colourful_noise(4, SHAPE, seed) for seed in range(12)])


@pytest.fixture(scope="module")
def rounded(tmp_path_factory, pictures):
    artifact = tiny_artifact(tmp_path_factory.mktemp("models") / "mine", shape=SHAPE)
    return export(artifact, ["onnx", "int8", "float16"], images=pictures, accept_loss=True)


def test_the_answers_stay_near_and_the_files_get_smaller(rounded):
    artifact, rows = rounded
    found = {row.engine: row for row in rows}
    assert list(found) == ["onnx", "litert-int8", "onnx-int8", "litert-float16"]
    whole = found["onnx"].bytes
    for engine, share in (("litert-int8", 0.5), ("onnx-int8", 0.5), ("litert-float16", 0.7)):
        row = found[engine]
        assert row.bytes < share * whole
        assert FLOAT_TOLERANCE < row.max_abs_diff < 0.1  # rounded, and not broken
        assert engine.split("-")[1] in row.kernel
        assert artifact.manifest.forms[row.form]["n"] == 4 + 24  # the half that was not shown


def test_pictures_go_in_as_bytes_and_scores_come_out_as_floats(rounded, pictures):
    artifact, _ = rounded
    for name in ("litert-int8", "onnx-int8", "litert-float16"):
        engine = open_engine(artifact, name, threads=1)
        assert engine.name == name
        scores = engine.predict(pictures[:3])
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)  # the softmax is not rounded


def test_weights_have_a_scale_for_every_channel(rounded):
    import onnx

    graph = onnx.load(rounded[0].file("model.int8.onnx")).graph
    sizes = {tensor.name: tensor.dims for tensor in graph.initializer}
    shapes = [
        (sizes[node.input[0]][0], *sizes[node.input[1]])
        for node in graph.node
        if node.op_type == "DequantizeLinear" and len(sizes.get(node.input[0], ())) == 4
    ]
    assert shapes
    assert all(channels == scales for channels, scales in shapes)


def test_a_small_classifier_stays_in_floats(rounded):
    import onnx
    from ai_edge_litert.interpreter import Interpreter

    graph = onnx.load(rounded[0].file("model.int8.onnx")).graph
    dense, *_ = (node for node in graph.node if "/logits" in node.name)  # and its bias, or with it
    (kernel,) = (tensor for tensor in graph.initializer if tensor.name == dense.input[1])
    assert kernel.data_type == onnx.TensorProto.FLOAT
    tensors = Interpreter(str(rounded[0].file("model.int8.tflite"))).get_tensor_details()
    of_classifier = [tensor["dtype"] for tensor in tensors if "/logits" in tensor["name"]]
    assert of_classifier
    assert set(of_classifier) == {np.float32}


def scales_of(directory) -> tuple[np.ndarray, np.ndarray]:
    """(every scale in LiteRT's int8 file, those of what layers with kernels answer in ONNX's)."""
    import onnx
    from ai_edge_litert.interpreter import Interpreter

    tensors = Interpreter(str(directory / "model.int8.tflite")).get_tensor_details()
    of_lite = [tensor["quantization"][0] for tensor in tensors if tensor["quantization"][0]]
    graph = onnx.load(directory / "model.int8.onnx").graph
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    answers = [node for node in graph.node if node.name.endswith("BiasAdd:0_QuantizeLinear")]
    return np.array(of_lite), np.array([values[node.input[1]] for node in answers])


def test_both_runtimes_leave_out_the_same_few_activations(rounded, pictures, tmp_path, monkeypatch):
    _, whole = scales_of(rounded[0].path)
    for module in (int8, ranges):
        monkeypatch.setattr(module, "PERCENTILE", 95.0)
    int8.write(rounded[0], tmp_path, images=pictures[::2])
    of_lite, of_onnx = scales_of(tmp_path)
    assert (of_onnx < 0.9 * whole).all()
    nearest = np.abs(of_lite[:, None] / of_onnx - 1).min(axis=0)
    np.testing.assert_allclose(nearest, 0, atol=0.01)  # ONNX Runtime counts in bins


def test_the_greatest_numbers_are_found():
    x = np.random.default_rng(0).permutation(100)
    assert sorted(ranges.greatest(x, 3)) == [97, 98, 99]
    assert len(ranges.greatest(x, 200)) == 100


@pytest.mark.parametrize("ends", [(-1, 1), (-0.3, 6), (-49.3, 43.6), (-1e-4, 2), (-2, 1e-4)])
def test_ranges_are_widened_until_zero_is_a_level(ends):
    low, high = ranges.with_zero(*ends)
    step = (high - low) / 255
    assert low / step == pytest.approx(round(low / step), abs=1e-6)
    assert low <= ends[0] + 1e-9
    assert high >= ends[1] - 1e-9
    assert high - low < (ends[1] - ends[0]) * 1.01
    assert ranges.with_zero(0, 6) == (0, 6)


def test_nobody_gets_rounded_answers_unasked(rounded):
    artifact, _ = rounded
    assert {"onnx-int8", "litert-int8", "litert-float16"} <= set(readable(artifact))
    assert usable(artifact) == ["onnx", *(n for n in usable(artifact) if n != "onnx")]
    assert not [name for name in usable(artifact) if "int8" in name or "float16" in name]
    assert "fp32" in fastest_engine(artifact).kernel


def test_a_server_answers_by_them_when_told_to(rounded):
    artifact, _ = rounded
    for name in ("litert-int8", "onnx-int8"):
        served = open_artifact(artifact.path, engine=name, workers=1, threads=1)
        assert "int8" in served.kernel
    served = open_artifact(artifact.path, engine=None, workers=1, threads=1)
    assert "fp32" in served.kernel


def test_they_can_be_checked_again(rounded, pictures):
    rows = verify(rounded[0], images=pictures)
    assert [row.form for row in rows] == ["onnx", "int8", "int8", "float16"]


def test_int8_without_pictures_says_what_it_needs(tmp_path):
    with pytest.raises(UsageError, match="int8 needs at least 8 pictures"):
        export(tiny_artifact(tmp_path / "mine"), ["int8"])


@pytest.mark.long
def test_another_first_class_too_often_is_an_error_unless_accepted(rounded, tmp_path, monkeypatch):
    from striate.export import float16

    other = tiny_artifact(tmp_path / "other", shape=SHAPE, seed=5)
    honest = float16.write
    monkeypatch.setattr(float16, "write", lambda _, directory: honest(other, directory))
    artifact = tiny_artifact(tmp_path / "mine", shape=SHAPE)
    with pytest.raises(DisagreementError, match=r"float16 by litert-float16 .* --accept-loss"):
        export(artifact, ["float16"])
    assert set(load(artifact.path).manifest.forms) == {"keras"}
    accepted, rows = export(artifact, ["float16"], accept_loss=True)
    assert rows[0].top1_agreement < 0.99
    assert "float16" in accepted.manifest.forms


def test_some_pictures_are_of_every_class(tmp_path, rounded):
    path = tmp_path / "data.npz"
    labels = np.repeat([0, 1, 2], 20)
    images = np.broadcast_to(labels[:, None, None, None] * 50, (60, *SHAPE)).astype(np.uint8)
    images = images + np.arange(60, dtype=np.uint8)[:, None, None, None] % 20
    np.savez(path, images=images, labels=labels)
    taken = some_pictures(rounded[0], path, 12)
    assert taken.shape == (12, *SHAPE)
    assert set(taken[:, 0, 0, 0] // 50) == {0, 1, 2}


def test_pictures_need_no_classes_to_learn_ranges_from(tmp_path, rounded):
    """A folder of them will do, as it lies there: some below others, one of them broken."""
    for i in range(10):
        place = tmp_path / "album" / ("below" if i % 2 else "")
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (20 * i, 0, 0)).save(place / f"{i}.png")
    (tmp_path / "album" / "5.jpg").write_bytes(b"no picture")
    taken = some_pictures(rounded[0], tmp_path / "album", 200)
    assert taken.shape == (10, *SHAPE)
    assert sorted(set(taken[:, 0, 0, 0])) == list(range(0, 200, 20))
    for path in (tmp_path / "album").rglob("*.png"):
        path.unlink()
    with pytest.raises(DataError, match="none of its 1 pictures can be read"):
        some_pictures(rounded[0], tmp_path / "album", 200)
