"""What a packed net begins with as one node of integers: `striate.runtime.stem`."""

import dataclasses

import keras
import numpy as np
import onnx
import pytest

from striate.artifact import write_version
from striate.export import export, packed
from striate.preprocess import preset
from striate.registry import create_model
from striate.runtime import FLOAT_TOLERANCE, open_engine, stem
from striate.runtime.binary import chosen_kernel, library, stem_kernel
from striate.runtime.packed import FILE

pytestmark = pytest.mark.long  # nets are built and exported


@pytest.fixture(autouse=True)
def compiled():
    if library() is None:
        pytest.skip("needs the compiled kernels")


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    made = untrained(tmp_path_factory.mktemp("models"), "xnor_resnet18", (33, 45, 3), "torch")
    return export(made, ["packed"])[0]


def untrained(directory, name, shape, kind):
    """An artifact of a net whose batch normalisation is not as it begins."""
    keras.utils.set_random_seed(0)  # another net may lie within rounding of a sign
    model = create_model(name, num_classes=3, input_shape=shape)
    random = np.random.default_rng(0)
    for layer in model.layers:
        if type(layer).__name__ == "BatchNormalization":
            layer.set_weights([random.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    return write_version(
        directory / name,
        model=model,
        labels=["a", "b", "c"],
        preprocess=preset(kind, *shape),
        model_name=name,
        goldens=random.integers(0, 256, (3, *shape), dtype=np.uint8),
    )


def packed_file(artifact, directory):
    """Its packed form, written and not verified."""
    packed.write(artifact, directory)
    return directory / FILE


def session(model):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.register_custom_ops_library(library()._name)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def beginning(path):
    """The nodes of a packed file up to the first binary layer, and what they answer."""
    model = onnx.load(path)
    nodes = list(model.graph.node)
    first = next(i for i, node in enumerate(nodes) if node.op_type == "BinaryConv")
    answer = onnx.helper.make_tensor_value_info(nodes[first].input[0], onnx.TensorProto.FLOAT, None)
    del model.graph.node[first:], model.graph.output[:]
    model.graph.output.append(answer)
    return model


@pytest.mark.parametrize(
    ("name", "shape", "kind"),
    [
        ("xnor_resnet18", (33, 45, 3), "caffe"),  # padding, ReLU, pooling; colours in another order
        ("xnor_vgg_mnist", (12, 9, 1), "unit"),  # a bias, normalisation within the binary layer
        ("xnor_vgg_cifar", (32, 32, 3), "torch"),
    ],
)
def test_it_answers_what_the_nodes_do_and_as_near_to_the_truth(tmp_path, name, shape, kind):
    artifact = untrained(tmp_path, name, shape, kind)
    file = packed_file(artifact, tmp_path)
    plain, fused = (beginning(file) for _ in range(2))
    assert stem.fuse(fused, threads=1)
    assert [node.op_type for node in fused.graph.node] == ["Stem"]
    images, _ = artifact.goldens()
    (theirs,), (ours,) = (session(m).run(None, {"image": images}) for m in (plain, fused))
    exact = truth(plain, images)
    size = np.abs(exact).max()
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 2e-6 * size
    assert np.square(ours - exact).mean() <= 2 * np.square(theirs - exact).mean()


def truth(model, images):
    """What the nodes compute, in float64, by ONNX' own reference implementation."""
    from onnx.reference import ReferenceEvaluator

    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    for array in wide.graph.initializer:
        if array.data_type == onnx.TensorProto.FLOAT:
            values = onnx.numpy_helper.to_array(array).astype(np.float64)
            array.CopyFrom(onnx.numpy_helper.from_array(values, array.name))
    for node in wide.graph.node:
        if node.op_type == "Cast":
            node.attribute[0].i = onnx.TensorProto.DOUBLE
    return ReferenceEvaluator(wide).run(None, {"image": images})[0]


def test_threads_change_nothing(resnet):
    images = np.random.default_rng(0).integers(0, 256, (2, 150, 150, 3), dtype=np.uint8)
    answers = []
    for threads in (1, 2, 5):
        model = beginning(resnet.path / FILE)
        for dim in model.graph.input[0].type.tensor_type.shape.dim[1:3]:
            dim.dim_value = 150  # enough work to share
        assert stem.fuse(model, threads)
        answers.append(session(model).run(None, {"image": images})[0])
    np.testing.assert_array_equal(answers[0], answers[1])
    np.testing.assert_array_equal(answers[0], answers[2])


def test_a_matrix_unit_computes_it_where_there_is_one(resnet, monkeypatch):
    images, scores = resnet.goldens()
    unit = stem_kernel()
    engine = open_engine(resnet, "packed", threads=1)
    assert (f"{unit} stem" in engine.kernel) == (unit is not None)
    assert np.abs(engine.predict(images) - scores).max() <= FLOAT_TOLERANCE
    for narrower in ("portable", "numpy"):
        monkeypatch.setenv("STRIATE_KERNEL", narrower)
        assert chosen_kernel() == narrower
        assert stem_kernel() is None
        assert "stem" not in open_engine(resnet, "packed", threads=1).kernel


def test_a_net_that_begins_otherwise_is_left_as_it_is(tmp_path):
    """MobileNet's first layer is followed by a depthwise one, whose channels come first."""
    artifact = untrained(tmp_path, "xnor_mobilenet_v1", (33, 33, 3), "torch")
    model = onnx.load(packed_file(artifact, tmp_path))
    before = model.SerializeToString()
    assert not stem.fuse(model, threads=1)
    assert model.SerializeToString() == before


@pytest.mark.parametrize(
    "change",
    [
        {"conv": [17, 17, 1, 1, 0, 0, 0, 0]},
        {"pool": [3, 3, 2, 2, 3, 0, 0, 0]},  # a maximum of nothing but padding
        {"conv": [7, 7, 0, 2, 3, 3, 3, 3]},
        {"conv": [7, 7, 2, 2, 3, 3, -1, 3]},
        {"weights": np.zeros((7, 7, 3, 5000), np.float32)},
        {"weights": np.full((7, 7, 3, 64), np.nan, np.float32)},
    ],
    ids=["window", "padding", "stride", "negative", "filters", "nan"],
)
def test_what_the_compiled_code_does_not_take_is_left_to_the_nodes(resnet, change):
    graph = onnx.load(resnet.path / FILE).graph
    found = stem._stem_of(graph)
    assert stem._is_taken(found, graph)
    assert not stem._is_taken(dataclasses.replace(found, **change), graph)


def test_a_node_that_lies_about_its_sizes_answers_nothing(resnet):
    """A file may be damaged, or hostile; ONNX Runtime gives the node what is in it."""
    model = beginning(resnet.path / FILE)
    assert stem.fuse(model, threads=1)
    (rows,) = (a for a in model.graph.node[0].attribute if a.name == "rows")
    rows.i = 9
    answer = session(model).run(None, {"image": np.zeros((1, 33, 45, 3), np.uint8)})[0]
    assert answer.size == 0
