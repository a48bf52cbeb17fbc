"""Every exported form gives Keras' answers, and a broken one is caught."""

import io
import os
import time
from importlib import metadata
from types import SimpleNamespace

import numpy as np
import pytest

from making import PHOTOS, tiny_artifact
from striate import runtime
from striate.artifact import load
from striate.errors import ArtifactError, DisagreementError, EngineError, UsageError
from striate.explain import explain
from striate.export import check_names, export, verify
from striate.export.verify import check_form
from striate.preprocess import pixels, preset
from striate.runtime import (
    ENGINES,
    FLOAT_TOLERANCE,
    fastest_engine,
    installed,
    needs_tensorflow,
    open_engine,
    tolerance,
    usable,
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    artifact = tiny_artifact(
        tmp_path_factory.mktemp("models") / "mine",
        name="squeezenet1_1",
        shape=(64, 64, 3),
    )
    return export(artifact)


@pytest.mark.long
def test_a_grouped_convolution_is_one_node_of_an_onnx_file(tmp_path):
    import keras
    import onnx

    artifact = tiny_artifact(tmp_path, name="shufflenet_v1_g3", shape=(64, 64, 3))
    exported, _ = export(artifact, ["onnx"])
    nodes = onnx.load(exported.file("model.onnx")).graph.node
    groups = [a.i for node in nodes for a in node.attribute if a.name == "group"]
    layers = [layer for layer in artifact.model.layers if isinstance(layer, keras.layers.Conv2D)]
    grouped = [layer for layer in layers if layer.groups == 3]
    assert groups.count(3) == len(grouped) > 0
    assert not any("convolution_op" in vars(layer) for layer in grouped)


@pytest.mark.long
def test_a_hard_sigmoid_is_one_node_of_an_onnx_file(tmp_path):
    import onnx

    artifact = tiny_artifact(tmp_path, name="mobilenet_v3_small", shape=(64, 64, 3))
    exported, _ = export(artifact, ["onnx"])
    nodes = onnx.load(exported.file("model.onnx")).graph.node
    layers = [layer.get_config().get("activation") for layer in artifact.model.layers]
    hard = sum(layers.count(name) for name in ("hard_silu", "hard_sigmoid"))
    assert sum(node.op_type == "HardSigmoid" for node in nodes) == hard > 0
    assert not any(node.op_type == "Clip" for node in nodes)


def test_a_clip_that_something_else_reads_is_left_as_it_is():
    import onnx

    from striate.export.hard_sigmoid import fuse

    numbers = {"three": 3.0, "zero": 0.0, "six": 6.0, "sixth": 1 / 6}
    add = onnx.helper.make_node("Add", ["x", "three"], ["a"])
    clip = onnx.helper.make_node("Clip", ["a", "zero", "six"], ["c"])
    gate = onnx.helper.make_node("Mul", ["c", "sixth"], ["y"])
    other = onnx.helper.make_node("Relu", ["c"], ["z"])
    values = [onnx.helper.make_tensor(n, 1, [], [v]) for n, v in numbers.items()]
    for nodes, expected in (
        ([add, clip, gate], ["HardSigmoid"]),
        ([add, clip, gate, other], ["Add", "Clip", "Mul", "Relu"]),
        ([clip, gate], ["Clip", "Mul"]),
    ):
        graph = onnx.helper.make_graph(nodes, "g", [], [], initializer=values)
        fuse(graph)
        assert [node.op_type for node in graph.node] == expected


@pytest.mark.parametrize(
    ("before", "pads", "value", "expected"),
    [
        ("Relu", [0, 0, 1, 1, 0, 0, 1, 1], None, ["Relu", "MaxPool"]),
        ("Relu", [0, 0, 0, 2, 0, 0, 1, 0], 0.0, ["Relu", "MaxPool"]),
        ("Relu", [0, 0, 1, 1, 0, 0, 1, 1], 1.0, ["Relu", "Pad", "MaxPool"]),  # not of zeros
        ("Relu", [0, 0, 3, 1, 0, 0, 1, 1], None, ["Relu", "Pad", "MaxPool"]),  # a window of zeros
        ("Relu", [0, 1, 1, 1, 0, 0, 1, 1], None, ["Relu", "Pad", "MaxPool"]),  # more channels
        ("Neg", [0, 0, 1, 1, 0, 0, 1, 1], None, ["Neg", "Pad", "MaxPool"]),  # maybe all below 0
        ("Identity", [0, 0, 1, 1, 0, 0, 1, 1], None, ["Identity", "Pad", "MaxPool"]),
    ],
)
def test_zeros_around_what_is_never_negative_are_padding_of_the_pooling(
    before, pads, value, expected
):
    import onnx
    import onnxruntime

    from striate.export import padding

    make = onnx.helper.make_node
    numbers = [onnx.numpy_helper.from_array(np.array(pads), "pads")]
    if value is not None:
        numbers.append(onnx.numpy_helper.from_array(np.float32(value), "value"))
    nodes = [
        make(before, ["x"], ["a"]),
        make("Pad", ["a", *(array.name for array in numbers)], ["b"]),
        make("MaxPool", ["b"], ["y"], kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 0, 0]),
    ]
    channels = 2 + pads[1]
    ends = [
        onnx.helper.make_tensor_value_info(name, 1, [1, c, None, None])
        for name, c in (("x", 2), ("y", channels))
    ]
    graph = onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], initializer=numbers)
    opset = [onnx.helper.make_opsetid("", 18)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=10)
    x = np.random.default_rng(0).standard_normal((1, 2, 8, 9)).astype("f4")
    literally = (
        onnxruntime.SessionOptions()
    )  # before 1.32 it would fold a window of zeros, and fail
    literally.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL

    def answer():
        session = onnxruntime.InferenceSession(model.SerializeToString(), literally)
        return session.run(None, {"x": x})[0]

    plain = answer()
    padding.fold(model.graph)
    assert [node.op_type for node in model.graph.node] == expected
    np.testing.assert_array_equal(answer(), plain)


@pytest.mark.parametrize(("second", "folded"), [("Relu", True), ("Tanh", False)])
def test_what_is_joined_of_relus_is_never_negative(second, folded):
    import onnx

    from striate.export import padding

    make = onnx.helper.make_node
    pads = onnx.numpy_helper.from_array(np.array([0, 0, 0, 0, 0, 0, 1, 1]), "pads")
    nodes = [make("Relu", ["x"], ["a"]), make(second, ["x"], ["b"])]
    nodes += [make("Concat", ["a", "b"], ["c"], axis=1), make("Pad", ["c", "pads"], ["d"])]
    nodes += [make("MaxPool", ["d"], ["y"], kernel_shape=[3, 3])]
    graph = onnx.helper.make_graph(nodes, "g", [], [], initializer=[pads])
    padding.fold(graph)
    assert ("Pad" not in [node.op_type for node in graph.node]) == folded


def test_padding_that_something_else_reads_is_left_as_it_is():
    import onnx

    from striate.export import padding

    make = onnx.helper.make_node
    pads = onnx.numpy_helper.from_array(np.array([0, 0, 1, 1, 0, 0, 1, 1]), "pads")
    nodes = [make("Relu", ["x"], ["a"]), make("Pad", ["a", "pads"], ["b"])]
    nodes += [make("MaxPool", ["b"], [name], kernel_shape=[3, 3]) for name in ("y", "z")]
    graph = onnx.helper.make_graph(nodes, "g", [], [], initializer=[pads])
    padding.fold(graph)
    assert [node.op_type for node in graph.node] == ["Relu", "Pad", "MaxPool", "MaxPool"]


@pytest.mark.long
@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1"])
def test_no_node_of_an_onnx_file_pads_before_a_pooling(tmp_path, name):
    import onnx

    artifact = tiny_artifact(tmp_path, name=name, shape=(64, 64, 3))
    exported, _ = export(artifact, ["onnx"])
    kinds = [node.op_type for node in onnx.load(exported.file("model.onnx")).graph.node]
    assert "MaxPool" in kinds
    assert "Pad" not in kinds


def test_colours_reversed_by_a_convolution_are_the_same_bit_for_bit():
    import keras

    from striate.export.colours import convolved_colours

    layer = preset("caffe", 9, 7).layer()
    image = keras.Input((9, 7, 3), dtype="uint8")
    net = keras.Model(image, layer(image))
    x = np.random.default_rng(0).integers(0, 256, (2, 9, 7, 3), dtype=np.uint8)
    flipped = np.asarray(net(x))
    with convolved_colours(net):
        assert "reverse" in vars(layer)
        convolved = np.asarray(net(x))
    np.testing.assert_array_equal(convolved, flipped)
    assert "reverse" not in vars(layer)


def test_no_node_of_an_onnx_file_steps_backwards_over_three_colours(tmp_path):
    import onnx

    artifact = tiny_artifact(tmp_path, name="squeezenet1_1", shape=(64, 64, 3), preprocess="caffe")
    exported, _ = export(artifact, ["onnx"])
    nodes = onnx.load(exported.file("model.onnx")).graph.node
    assert artifact.preprocess.order == "bgr"
    assert not {"Slice", "ReverseSequence", "Gather"} & {node.op_type for node in nodes}


def test_every_engine_answers_the_goldens(exported):
    artifact, _ = exported
    images, scores = artifact.goldens()
    exact = {name for name in installed() if ENGINES[name].exact}
    assert set(usable(artifact)) == exact - {"packed", "runner"}
    for name in usable(artifact):
        engine = open_engine(artifact, name, threads=1)
        assert engine.name == name
        assert name in ("keras", "tensorflow") or "fp32" in engine.kernel
        assert np.abs(engine.predict(images) - scores).max() <= FLOAT_TOLERANCE
        assert np.abs(engine.predict(images[:1]) - scores[:1]).max() <= FLOAT_TOLERANCE


def test_auto_takes_a_quick_engine_that_agrees(exported):
    artifact, _ = exported
    extra = ["openvino"] if "openvino" in installed() else []
    assert usable(artifact) == ["onnx", "litert", *extra, "tensorflow", "keras"]
    assert fastest_engine(artifact).name in ("onnx", "litert", "openvino")


def test_auto_takes_no_engine_whose_answers_are_no_numbers(exported, monkeypatch):
    from striate.runtime import litert, onnx, openvino

    for engine in (litert.LiteRtEngine, onnx.OnnxEngine, openvino.OpenVinoEngine):
        answer = engine.predict
        monkeypatch.setattr(engine, "predict", lambda self, x, f=answer: np.nan * f(self, x))
    assert fastest_engine(exported[0]).name == "tensorflow"


def holding(*files, **forms):
    """Stands for an artifact that holds some files, and two goldens."""
    goldens = np.zeros((2, 8, 8, 3), np.uint8), np.eye(2, dtype=np.float32)
    manifest = SimpleNamespace(files=files, forms=forms)
    return SimpleNamespace(path="mine", manifest=manifest, goldens=lambda: goldens)


@pytest.fixture
def engines(monkeypatch):
    """Name -> (seconds, how far its scores are off) of engines that stand for those installed;
    None for one that refuses its file. What is opened knows its threads."""
    given = {}

    class Stub:
        def __init__(self, artifact, name, threads):
            self.name, self.threads, self.expected = name, threads, artifact.goldens()[1]

        def predict(self, images):
            seconds, off = given[self.name]
            time.sleep(seconds)
            return self.expected[: len(images)] + np.float32(off)

    def opened(artifact, name, *, threads=None):
        if given[name] is None:
            raise EngineError(f"the {name} engine refuses it")
        return Stub(artifact, name, threads)

    monkeypatch.setattr(runtime, "open_engine", opened)
    monkeypatch.setattr(runtime, "opened", lambda artifact: artifact)
    monkeypatch.setattr(runtime, "installed", lambda: dict.fromkeys(given, "1.0"))
    return given


@pytest.mark.parametrize("fast", ["onnx", "litert", "openvino"])
def test_auto_takes_the_fastest_engine_whatever_its_place(engines, fast):
    engines.update(dict.fromkeys(["onnx", "litert", "openvino", "keras"], (0.03, 0.0)))
    engines[fast] = (0.0, 0.0)
    artifact = holding("model.onnx", "model.tflite", "model.keras")
    engine = open_engine(artifact, "auto", threads=3)
    assert (engine.name, engine.threads) == (fast, 3)


def test_auto_passes_over_engines_that_answer_otherwise_or_refuse_their_file(engines):
    engines.update(onnx=(0.0, 1.5e-4), litert=None, openvino=(0.01, 0.5e-4), keras=(0.0, 0.0))
    assert fastest_engine(holding("model.onnx", "model.tflite", "model.keras")).name == "openvino"


def test_auto_takes_tensorflow_then_keras_where_no_quick_engine_answers(engines):
    engines.update(onnx=None, tensorflow=(0.01, 0.0), keras=(0.0, 0.0))
    engine = fastest_engine(holding("model.onnx", "saved_model.pb", "model.keras"), threads=2)
    assert (engine.name, engine.threads) == ("tensorflow", 2)
    assert fastest_engine(holding("model.onnx", "model.keras")).name == "keras"


def test_auto_says_what_there_is_where_no_engine_reads_any_of_it(engines):
    engines.update(litert=(0.0, 0.0))
    with pytest.raises(EngineError, match=r"holds the forms onnx, .* installed engines \(litert\)"):
        fastest_engine(holding("model.onnx", onnx={}))


def test_a_command_knows_whether_its_engine_loads_tensorflow(engines):
    engines.update(dict.fromkeys(ENGINES, (0.0, 0.0)))
    quick, slow = holding("model.onnx", "model.keras"), holding("model.int8.onnx", "model.keras")
    assert not needs_tensorflow(quick)
    assert needs_tensorflow(slow), "rounded answers are given to nobody unasked"
    assert not needs_tensorflow(slow, "onnx-int8")
    assert needs_tensorflow(quick, "keras")
    assert not needs_tensorflow(quick, "no engine")


def test_rounded_scores_may_be_twice_as_far_off_as_when_they_were_written():
    """Each engine by its own record, where there is one."""
    int8 = {"max_abs_diff": 0.01, "litert-int8": {"max_abs_diff": 0.03}}
    artifact = holding("model.int8.onnx", "model.int8.tflite", int8=int8)
    assert tolerance(artifact, "onnx") == FLOAT_TOLERANCE
    assert tolerance(artifact, "onnx-int8") == pytest.approx(0.02 + FLOAT_TOLERANCE)
    assert tolerance(artifact, "litert-int8") == pytest.approx(0.06 + FLOAT_TOLERANCE)


def test_an_engine_whose_package_is_missing_names_it(exported, monkeypatch):
    monkeypatch.setattr(runtime, "is_installed", lambda module: module != "ai_edge_litert")
    with pytest.raises(EngineError, match=r"litert-int8 engine needs .* install ai-edge-litert"):
        open_engine(exported[0], "litert-int8")
    assert "litert" not in installed()


def test_an_engine_is_given_its_file_and_its_threads(exported, tmp_path, monkeypatch):
    artifact, given = exported[0], []

    def open_form(*arguments):
        given.append(arguments)
        return SimpleNamespace(name="litert", kernel="fp32")

    monkeypatch.setattr(runtime, "import_module", lambda name: SimpleNamespace(open_form=open_form))
    open_engine(artifact, "litert", threads=3)
    open_engine(artifact, "litert", root=tmp_path)
    assert given == [
        (artifact, artifact.path / "model.tflite", 3),
        (artifact, tmp_path / "model.tflite", None),
    ]


def test_another_build_of_an_engine_s_package_serves_as_well(monkeypatch):
    """`pip install onnxruntime-gpu` brings the module `onnxruntime` under another name."""
    of = metadata.version

    def version(distribution):
        if distribution in ("onnxruntime", "openvino"):
            raise metadata.PackageNotFoundError(distribution)
        return "1.2.3" if distribution == "onnxruntime-gpu" else of(distribution)

    monkeypatch.setattr(metadata, "version", version)
    builds = {"onnxruntime": ["onnxruntime-gpu"]}
    monkeypatch.setattr(metadata, "packages_distributions", lambda: builds)
    found = installed()
    assert (found["onnx"], found["packed"]) == ("1.2.3", "1.2.3")
    assert found.get("openvino", "?") == "?"


def test_an_unknown_engine_or_form_offers_the_nearest(exported):
    artifact, _ = exported
    with pytest.raises(UsageError, match="Did you mean 'onnx'"):
        open_engine(artifact, "onx")
    with pytest.raises(UsageError, match="Did you mean 'saved_model'"):
        export(artifact, ["savedmodel"])


def test_one_form_needs_no_list():
    assert check_names("onnx") == check_names(["onnx", "onnx"]) == ["onnx"]


def test_an_engine_without_its_form_says_which_forms_there_are(tmp_path):
    artifact = tiny_artifact(tmp_path / "bare")
    with pytest.raises(ArtifactError, match=r"has no model.onnx; it holds the forms keras"):
        open_engine(artifact, "onnx")


def test_a_changed_file_is_caught(tmp_path):
    artifact, _ = export(tiny_artifact(tmp_path / "mine"), ["onnx"])
    path = artifact.path / "model.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match=r"model.onnx: its contents changed"):
        verify(load(artifact.path))


def test_a_form_that_answers_differently_is_never_kept(tmp_path, monkeypatch):
    artifact = tiny_artifact(tmp_path / "mine")
    other = tiny_artifact(tmp_path / "other", seed=1)
    from striate.export import onnx

    honest = onnx.write
    monkeypatch.setattr(onnx, "write", lambda _, directory: honest(other, directory))
    with pytest.raises(DisagreementError, match="onnx, by onnx, disagrees with Keras"):
        export(artifact, ["onnx"])
    assert set(load(artifact.path).manifest.forms) == {"keras"}
    assert not (artifact.path / "model.onnx").exists()


def judged(monkeypatch, artifact, engine, scores, expected, **options):
    """`check_form` of an engine that gives these scores, a picture each."""
    stub = SimpleNamespace(name=engine, kernel="", predict=lambda x: scores[x[:, 0, 0, 0]])
    monkeypatch.setitem(check_form.__globals__, "open_engine", lambda *_, **__: stub)
    images = np.arange(len(scores))[:, None, None, None]
    return check_form(artifact, "onnx", engine, images, expected, **options)


def test_a_form_of_floats_agrees_within_a_ten_thousandth(exported, monkeypatch):
    expected = np.tile(np.float32([0.7, 0.2, 0.1]), (200, 1))
    scores = expected.copy()
    scores[7, 1] += 0.9e-4
    found = judged(monkeypatch, exported[0], "onnx", scores, expected)
    assert (found.max_abs_diff, found.top1_agreement) == (pytest.approx(0.9e-4, rel=1e-2), 1)
    for apart in (1.2e-4, -1.2e-4):
        scores[7, 1] = 0.2 + apart
        with pytest.raises(DisagreementError, match=r"0\.00012 \(expected at most 0\.0001\)"):
            judged(monkeypatch, exported[0], "onnx", scores, expected)


def test_a_first_class_that_ties_within_the_tolerance_is_the_same(exported, monkeypatch):
    expected = np.float32([[0.50002, 0.49998], [0.9, 0.1]])
    scores = np.float32([[0.49999, 0.50001], [0.9, 0.1]])
    assert judged(monkeypatch, exported[0], "onnx", scores, expected).top1_agreement == 1


def test_a_form_of_rounded_numbers_agrees_by_99_of_100_first_classes(exported, monkeypatch):
    expected = np.tile(np.float32([0.7, 0.2, 0.1]), (200, 1))
    scores = expected + np.float32([-0.1, 0.1, 0])  # another score, the same class
    scores[:2] = [0.1, 0.8, 0.1]
    found = judged(monkeypatch, exported[0], "litert-int8", scores, expected)
    assert found.top1_agreement == 0.99
    scores[2] = [0.1, 0.8, 0.1]
    with pytest.raises(
        DisagreementError, match=r"98\.5% of 200 pictures \(expected at least 99%\)"
    ):
        judged(monkeypatch, exported[0], "litert-int8", scores, expected)
    accepted = judged(monkeypatch, exported[0], "litert-int8", scores, expected, accept_loss=True)
    assert accepted.top1_agreement == 0.985
    with pytest.raises(DisagreementError, match="disagrees with Keras"):
        judged(monkeypatch, exported[0], "onnx", scores, expected, accept_loss=True)


@pytest.mark.parametrize("engine", ["onnx", "litert-int8"])
@pytest.mark.parametrize("answer", [np.nan, np.inf])
def test_a_form_whose_answers_are_no_numbers_is_never_kept(exported, monkeypatch, engine, answer):
    expected = np.tile(np.float32([0.7, 0.2, 0.1]), (200, 1))
    scores = expected.copy()
    scores[7, 1] = answer
    with pytest.raises(DisagreementError, match="gives scores that are NaN or infinite"):
        judged(monkeypatch, exported[0], engine, scores, expected, accept_loss=True)


def test_a_form_that_its_runtime_cannot_load_is_never_kept(tmp_path, monkeypatch):
    artifact = tiny_artifact(tmp_path / "mine")
    from striate.export import litert

    monkeypatch.setattr(litert, "write", lambda _, d: (d / "model.tflite").write_bytes(b"broken"))
    with pytest.raises(EngineError, match="litert engine refuses it"):
        export(artifact, ["litert"])
    assert not (artifact.path / "model.tflite").exists()


def test_the_saved_model_has_every_signature_of_the_contract(exported):
    import tensorflow as tf

    artifact, _ = exported
    signatures = tf.saved_model.load(str(artifact.path)).signatures
    pictures = [path.read_bytes() for path in sorted(PHOTOS.glob("*.jpg"))]
    expected = artifact.predict(pictures)

    answer = signatures["bytes"](image_bytes=tf.constant(pictures))
    assert np.abs(answer["scores"].numpy() - expected).max() <= FLOAT_TOLERANCE
    assert [c.decode() for c in answer["classes"].numpy()[0]] == artifact.labels

    examples = [
        tf.train.Example(
            features=tf.train.Features(
                feature={
                    "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[data]))
                }
            )
        ).SerializeToString()
        for data in pictures
    ]
    classified = signatures["classify"](inputs=tf.constant(examples))
    assert np.abs(classified["scores"].numpy() - expected).max() <= FLOAT_TOLERANCE


def test_the_saved_model_explains_its_scores_as_grad_cam_does(exported):
    import tensorflow as tf

    artifact, _ = exported
    images, expected = artifact.goldens()
    signature = tf.saved_model.load(str(artifact.path)).signatures["explain"]
    found = signature(image=tf.constant(images))
    heat = explain(artifact, images).maps
    assert np.abs(found["scores"].numpy() - expected).max() <= FLOAT_TOLERANCE
    assert found["heat_map"].shape == images.shape[:3]
    np.testing.assert_allclose(found["heat_map"], heat, atol=1e-4 * heat.max())


@pytest.mark.long
def test_the_saved_model_of_a_net_that_reads_several_stages_explains_by_the_last(tmp_path):
    import tensorflow as tf

    ends = ["stage1_out", "stage3_out"]
    artifact = tiny_artifact(tmp_path / "two", name="resnet20_cifar", shape=(32, 32, 3), until=ends)
    export(artifact, to=["saved_model"])
    images, _ = artifact.goldens()
    found = tf.saved_model.load(str(artifact.path)).signatures["explain"](image=images)
    heat = explain(artifact, images).maps
    assert heat.max() > 0
    np.testing.assert_allclose(found["heat_map"], heat, atol=1e-4 * heat.max())


def test_the_warm_up_request_is_one_that_the_server_would_accept(exported):
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    artifact, _ = exported
    path = artifact.path / "assets.extra" / "tf_serving_warmup_requests"
    records = [r.numpy() for r in tf.data.TFRecordDataset(str(path))]
    log = prediction_log_pb2.PredictionLog.FromString(records[0])
    request = log.predict_log.request
    assert request.model_spec.signature_name == "serving_default"
    assert tf.make_ndarray(request.inputs["image"]).shape == (1, 64, 64, 3)


@pytest.mark.parametrize("fit", ["crop", "stretch", "pad"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_graph_decodes_to_the_same_pixels_bit_for_bit(tmp_path, fit, interpolation, channels):
    import tensorflow as tf
    from PIL import Image

    from striate.export.decode import pixels_function

    rng = np.random.default_rng(0)
    shapes = [(1, 1, 3), (7, 90, 3), (400, 90, 3), (128, 128, 4), (300, 200, 3)]
    for i, shape in enumerate(shapes):
        picture = rng.integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    sources = [p.read_bytes() for p in [*sorted(tmp_path.glob("*.png")), *PHOTOS.glob("*.jpg")]]
    for size in ((33, 70), (224, 224)):
        crop = 1.0 if fit == "pad" else 0.875
        spec = preset("unit", *size, channels, fit=fit, interpolation=interpolation, crop=crop)
        in_graph = tf.function(pixels_function(spec))(tf.constant(sources)).numpy()
        on_host = np.stack([pixels(data, spec) for data in sources])
        assert (in_graph == on_host).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_the_graph_decodes_every_kind_of_file_as_the_host_does(channels):
    import tensorflow as tf
    from PIL import Image

    from striate.export.decode import pixels_function

    small = np.random.default_rng(0).integers(0, 256, (8, 10, 4), dtype=np.uint8)
    rgba = Image.fromarray(small).resize((50, 40), Image.Resampling.BILINEAR)
    rgb, bilevel = rgba.convert("RGB"), rgba.convert("1")
    pictures = {
        "1 bit": encode(bilevel),
        "1 bit, transparent": encode(bilevel, transparency=0),
        "transparent grey": encode(rgba.convert("LA")),
        "16 bits": encode(Image.fromarray(np.asarray(rgb)[..., 0].astype(np.uint16) * 257)),
        "16 bits, dark": encode(
            Image.fromarray(np.arange(2000, dtype=np.uint16).reshape(40, 50) % 256)
        ),
        "WebP": encode(rgb, "WEBP"),
        "transparent WebP": encode(rgba, "WEBP", lossless=True, exact=True),
        "GIF": encode(rgb.quantize(32), "GIF"),
        "BMP": encode(rgb, "BMP"),
        "transparent BMP": encode(rgba, "BMP"),
    }
    for bits in (1, 2, 4, 8):
        few = rgb.quantize(1 << bits)
        pictures[f"palette of {bits} bits"] = encode(few, bits=bits)
        pictures[f"the same, transparent, {bits}"] = encode(
            few, bits=bits, transparency=b"\x01\x64"
        )
    spec = preset("unit", 40, 50, channels, fit="stretch", interpolation="nearest", background=7)
    in_graph = tf.function(pixels_function(spec))
    for what, data in pictures.items():
        found = in_graph(tf.constant([data]))[0].numpy()
        np.testing.assert_array_equal(found, pixels(data, spec), what)
    with pytest.raises(tf.errors.InvalidArgumentError, match="PNG"):
        in_graph(tf.constant([pictures["1 bit"][:20]]))


def encode(image, kind: str = "PNG", **options) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs limits of POSIX")
@pytest.mark.parametrize("form", ["saved_model", "onnx", "litert"])
def test_a_full_disk_is_one_clear_line_and_leaves_the_version_as_it_was(tmp_path, form):
    import resource

    made = tiny_artifact(tmp_path / "mine")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(EngineError, match=f"{form} cannot be written .*; it was not kept"):
            export(made, [form])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    left = load(made.path)
    left.check()
    assert list(left.manifest.forms) == ["keras"]
    assert [path.name for path in made.path.parent.iterdir()] == ["1"]


def test_a_version_that_takes_no_files_is_refused_before_any_work(tmp_path, monkeypatch):
    made = tiny_artifact(tmp_path / "mine")
    monkeypatch.setattr(os, "access", lambda path, mode: path != made.path)
    with pytest.raises(UsageError, match="expected a folder that takes files"):
        export(made, ["onnx"])


def test_a_batch_of_any_size_has_a_name_in_onnx(tmp_path):
    import onnx

    made, _ = export(tiny_artifact(tmp_path / "mine"), ["onnx"])
    graph = onnx.load(made.path / "model.onnx").graph
    axes = [value.type.tensor_type.shape.dim[0] for value in (*graph.input, *graph.output)]
    assert [axis.dim_param for axis in axes] == ["N", "N"]


def test_export_needs_the_tensorflow_backend_and_says_so(tmp_path, monkeypatch):
    import keras

    artifact = tiny_artifact(tmp_path / "mine")
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(EngineError, match="KERAS_BACKEND=tensorflow"):
        export(artifact)
