"""ONNX files that striate did not write, as they are: over real sockets, by real clients."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request

import grpc
import numpy as np
import onnx
import pytest
import tritonclient.grpc
import tritonclient.http
from onnx import TensorProto, helper

from served import ServerProcess
from striate.errors import ArtifactError
from striate.serve import protos, tensors
from striate.serve.repository.foreign_onnx import OnnxServable

FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING


def save(path, inputs, outputs, nodes, constants=()) -> None:
    """inputs, outputs: name -> (type, shape); nodes: (operator, inputs, outputs, attributes)."""
    graph = helper.make_graph(
        [helper.make_node(op, i, o, **attributes) for op, i, o, attributes in nodes],
        "graph",
        [helper.make_tensor_value_info(n, *spec) for n, spec in inputs.items()],
        [helper.make_tensor_value_info(n, *spec) for n, spec in outputs.items()],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Three models: `means` of a picture's channels, `sum` of two rows, `words` of text."""
    base = tmp_path_factory.mktemp("onnx")
    save(
        base / "means" / "7" / "model.onnx",
        {"pixels": (FLOAT, ["N", 3, 8, 8])},
        {"means": (FLOAT, ["N", 3]), "best": (INT64, ["N"])},
        [
            ("GlobalAveragePool", ["pixels"], ["pooled"], {}),
            ("Flatten", ["pooled"], ["means"], {}),
            ("ArgMax", ["means"], ["best"], {"axis": 1, "keepdims": 0}),
        ],
    )
    rows = {name: (FLOAT, ["N", "M"]) for name in "ab"}
    save(
        base / "sum" / "1" / "model.onnx",
        rows,
        {"y": (FLOAT, ["N", "M"])},
        [("Add", ["a", "b"], ["y"], {})],
    )
    words = {"words": (STRING, [None])}, {"same": (STRING, [None])}
    save(base / "words" / "1" / "model.onnx", *words, [("Identity", ["words"], ["same"], {})])
    return base


@pytest.fixture(scope="module")
def server(base):
    with ServerProcess(base) as server:
        yield server


@pytest.fixture(scope="module")
def stub(server):
    with grpc.insecure_channel(server.address) as channel:
        yield protos.prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)


def predict(stub, model: str, **feeds):
    request = protos.predict_pb2.PredictRequest()
    request.model_spec.name = model
    for name, array in feeds.items():
        request.inputs[name].CopyFrom(tensors.to_proto(np.asarray(array)))
    found = stub.Predict(request)
    return {name: tensors.from_proto(proto, 1 << 20) for name, proto in found.outputs.items()}


def refused(call, *arguments, **named) -> str:
    with pytest.raises(grpc.RpcError) as error:
        call(*arguments, **named)
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "\n" not in error.value.details()
    return error.value.details()


def test_predict_answers_by_the_graphs_own_names_and_dtypes(stub, pictures):
    found = predict(stub, "means", pixels=pictures)
    means = pictures.mean(axis=(2, 3))
    np.testing.assert_allclose(found["means"], means, atol=1e-6)
    assert found["best"].dtype == np.int64
    np.testing.assert_array_equal(found["best"], means.argmax(axis=1))


def test_strings_are_text(stub):
    words = tensors.strings(["Füße".encode(), b""])
    np.testing.assert_array_equal(predict(stub, "words", words=words)["same"], words)
    said = refused(predict, stub, "words", words=tensors.strings([b"\xff"]))
    assert said == "Expected strings in UTF-8, got bytes that are none"


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((2, 3, 9, 8), "Input pixels expects shape [-1,3,8,8], got [2,3,9,8]"),
        (
            (3, 8, 8),
            "Input pixels expects shape [-1,3,8,8], got [3,8,8]: the first dimension counts the "
            "images, send [1,3,8,8] for one",
        ),
        ((0, 3, 8, 8), "Input pixels expects at least one item, got [0,3,8,8]"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_in_one_line(stub, shape, said):
    assert refused(predict, stub, "means", pixels=np.zeros(shape, np.float32)) == said


def test_what_is_wrong_is_said_in_tensorflow_servings_words(stub, pictures):
    said = refused(predict, stub, "means", pixels=pictures.astype(np.float64))
    assert said == "Expects arg[0] to be float but double is provided"
    assert "Signature input alias: pixels" in refused(predict, stub, "means", image=pictures)


def test_sizes_that_do_not_fit_each_other_are_refused_and_do_no_harm(stub):
    rows = np.ones((2, 3), np.float32)
    said = refused(predict, stub, "sum", a=rows, b=np.ones((2, 2), np.float32))
    assert said == "Attempting to broadcast an axis by a dimension other than 1. 2 by 3"
    np.testing.assert_array_equal(predict(stub, "sum", a=rows, b=rows)["y"], 2 * rows)


def test_its_metadata_is_the_graphs(stub, server):
    request = protos.get_model_metadata_pb2.GetModelMetadataRequest(
        metadata_field=["signature_def"]
    )
    request.model_spec.name = "means"
    response = stub.GetModelMetadata(request)
    assert response.model_spec.version.value == 7
    found = protos.get_model_metadata_pb2.SignatureDefMap()
    response.metadata["signature_def"].Unpack(found)
    (signature,) = found.signature_def.values()
    pixels = signature.inputs["pixels"]
    assert pixels.dtype == protos.types_pb2.DT_FLOAT
    assert [dim.size for dim in pixels.tensor_shape.dim] == [-1, 3, 8, 8]
    assert signature.outputs["best"].dtype == protos.types_pb2.DT_INT64
    with urllib.request.urlopen(f"{server.url}/v1/models/means") as response:
        (status,) = json.load(response)["model_version_status"]
    assert (status["version"], status["state"]) == ("7", "AVAILABLE")


def test_rest_answers_rows(server):
    body = json.dumps({"instances": [{"a": [1, 2], "b": [3, 4]}]}).encode()
    with urllib.request.urlopen(f"{server.url}/v1/models/sum:predict", body) as response:
        assert json.load(response) == {"predictions": [[4.0, 6.0]]}


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_tritons_client_sees_and_asks_it(server, pictures, protocol):
    triton = getattr(tritonclient, protocol)
    address = {"grpc": server.address, "http": server.url.removeprefix("http://")}[protocol]
    with triton.InferenceServerClient(address) as client:
        as_json = {"as_json": True} if protocol == "grpc" else {}
        about = client.get_model_metadata("means", **as_json)
        given = triton.InferInput("pixels", [2, 3, 8, 8], "FP32")
        given.set_data_from_numpy(pictures)
        found = client.infer("means", [given])
    assert about["platform"] == "onnxruntime_onnx"
    (pixels,) = about["inputs"]
    assert (pixels["name"], pixels["datatype"]) == ("pixels", "FP32")
    assert [int(size) for size in pixels["shape"]] == [-1, 3, 8, 8]
    assert {tensor["name"]: tensor["datatype"] for tensor in about["outputs"]} == {
        "means": "FP32",
        "best": "INT64",
    }
    np.testing.assert_allclose(found.as_numpy("means"), pictures.mean(axis=(2, 3)), atol=1e-6)
    assert found.as_numpy("best").dtype == np.int64


def test_a_file_that_is_none_and_types_that_nobody_carries_are_one_line(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(ArtifactError, match="ONNX Runtime cannot load it") as error:
        OnnxServable(path, threads=1)
    assert "\n" not in str(error.value)
    half = {"x": (TensorProto.BFLOAT16, [2])}, {"y": (TensorProto.BFLOAT16, [2])}
    save(path, *half, [("Identity", ["x"], ["y"], {})])
    with pytest.raises(ArtifactError, match=r"x is a tensor\(bfloat16\), which is not served"):
        OnnxServable(path, threads=1)


def test_onnx_runtime_tells_nobody_what_it_runs(tmp_path):
    """It keeps an identifier of the machine in the home directory where it would."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    command = [sys.executable, "-c", "import striate, onnxruntime"]
    subprocess.run(command, env={**kept, "HOME": str(tmp_path)}, check=True)
    assert [path.name for path in tmp_path.rglob("*")] == []
