"""TensorFlow Serving's answers and refusals, code and text, over real sockets.

The tables read like its error matrix. The models are SavedModels that striate did not write
(tests/saved_models.py); where striate deviates from TensorFlow Serving, docs/serve.md says so.
"""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import numpy as np
import pytest

from served import ServerProcess
from striate.serve import tensors
from striate.serve.core import Request, Target, signature_for
from striate.serve.protos import (
    classification_pb2,
    example_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
    types_pb2,
)
from striate.serve.signatures import CLASSIFY, PREDICT, REGRESS, Signature, TensorSpec
from striate.serve.status import ServingError

MODELS = ("half_plus_two", "half_plus_three", "odd", "conv")
INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
UNIMPLEMENTED = grpc.StatusCode.UNIMPLEMENTED


def f32(*values) -> np.ndarray:
    return np.array(values, np.float32)


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    """The models of tests/saved_models.py and a configuration of all of them, with labels."""
    base = tmp_path_factory.mktemp("foreign")
    script = Path(__file__).with_name("saved_models.py")
    subprocess.run([sys.executable, str(script), str(base)], check=True, capture_output=True)
    configs = "".join(
        f'config: {{ name: "{name}", base_path: "{base / name}", model_platform: "tensorflow"\n'
        '  version_labels { key: "stable" value: 123 } },\n'
        for name in MODELS
    )
    (base / "models.config").write_text(f"model_config_list: {{ {configs} }}")
    return base


@pytest.fixture(scope="session")
def server(models):
    config = str(models / "models.config")
    with ServerProcess("", model_config_file=config, max_message_bytes=100_000) as server:
        yield server


@pytest.fixture(scope="session")
def prediction(server):
    with grpc.insecure_channel(server.address) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture(scope="session")
def service(server):
    with grpc.insecure_channel(server.address) as channel:
        yield model_service_pb2_grpc.ModelServiceStub(channel)


def named(request, model="half_plus_two", signature="", version=None, label=None):
    """A request with its ModelSpec filled in."""
    spec = request.model_spec
    spec.name, spec.signature_name = model, signature
    if version is not None:
        spec.version.value = version
    if label is not None:
        spec.version_label = label
    return request


def predict(outputs=(), tensor_protos=None, *, to=None, **inputs):
    request = predict_pb2.PredictRequest(output_filter=outputs)
    for name, array in inputs.items():
        request.inputs[name].CopyFrom(tensors.to_proto(np.asarray(array)))
    for name, proto in (tensor_protos or {}).items():
        request.inputs[name].CopyFrom(proto)
    return named(request, **(to or {}))


def example(**features) -> example_pb2.Example:
    found = example_pb2.Example()
    for name, value in features.items():
        found.features.feature[name].float_list.value.append(value)
    return found


def about(kind, *examples, **to):
    request = kind()
    request.input.example_list.examples.extend(examples)
    return named(request, **to)


def classification(*examples, **to):
    return about(classification_pb2.ClassificationRequest, *examples, **to)


def regression(*examples, **to):
    return about(regression_pb2.RegressionRequest, *examples, **to)


def several(*tasks):
    """A MultiInferenceRequest of (model, signature, method)."""
    request = inference_pb2.MultiInferenceRequest()
    request.input.example_list.examples.append(example(x=2.0))
    for model, signature, method in tasks:
        task = request.tasks.add(method_name=method)
        task.model_spec.name, task.model_spec.signature_name = model, signature
    return request


def metadata(*fields, **to):
    return named(get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields), **to)


def status(**to):
    return named(get_model_status_pb2.GetModelStatusRequest(), **to)


def arrays(response) -> dict[str, list]:
    return {n: tensors.from_proto(p, 1 << 20).tolist() for n, p in response.outputs.items()}


# What is answered


@pytest.mark.long
def test_predict_takes_any_shape_that_the_graph_takes(prediction):
    for x, y in [(f32(2), [3.0]), (np.float32(2), 3.0), (f32(1, 2, 3), [2.5, 3.0, 3.5])]:
        assert arrays(prediction.Predict(predict(x=x))) == {"y": y}
    to = {"model": "half_plus_three", "label": "stable"}
    response = prediction.Predict(predict(x=[[f32(2)]], to=to))
    assert arrays(response) == {"y": [[[4.0]]]}
    assert list(response.outputs["y"].float_val) == [4.0]  # typed values, as some clients read
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == (
        "half_plus_three",
        123,
        "serving_default",
    )
    assert spec.WhichOneof("version_choice") == "version"  # a label is never echoed


def test_an_input_with_a_default_may_be_left_out(prediction):
    to = {"model": "odd", "signature": "add_default"}
    assert arrays(prediction.Predict(predict(x=f32(1), to=to))) == {"sum": [11.0]}
    assert arrays(prediction.Predict(predict(x=f32(1), z=f32(2), to=to))) == {"sum": [3.0]}


def test_a_filter_keeps_outputs_and_an_empty_one_all(prediction):
    to = {"model": "odd", "signature": "uneven_rows"}
    assert arrays(prediction.Predict(predict(x=f32(1, 2), to=to))) == {"a": [1, 2], "b": [1]}
    assert arrays(prediction.Predict(predict(["b"], x=f32(1, 2), to=to))) == {"b": [1]}


def test_classify_gives_every_example_its_classes_in_the_models_order(prediction):
    to = {"signature": "classify_x_to_y"}
    response = prediction.Classify(classification(example(x=2.0), example(x=4.0), **to))
    found = [[(c.label, c.score) for c in e.classes] for e in response.result.classifications]
    assert found == [[("", 3.0)], [("", 4.0)]]
    assert response.model_spec.signature_name == "classify_x_to_y"
    for signature, classes in [
        ("both", [("word", 1.0)] * 2),
        ("only_classes", [("word", 0.0)] * 2),
    ]:
        request = classification(example(), model="odd", signature=signature)
        (found,) = prediction.Classify(request).result.classifications
        assert [(c.label, c.score) for c in found.classes] == classes


def test_regress_gives_every_example_a_value(prediction):
    request = regression(example(x=2.0), example(x=4.0), signature="regress_x_to_y")
    response = prediction.Regress(request)
    assert [each.value for each in response.result.regressions] == [3.0, 4.0]
    assert response.model_spec.version.value == 123


def test_a_context_is_merged_into_each_example(prediction):
    request = named(regression_pb2.RegressionRequest(), signature="regress_x_to_y")
    given = request.input.example_list_with_context
    given.context.CopyFrom(example(x=6.0))
    given.examples.extend([example(), example()])
    assert [e.value for e in prediction.Regress(request).result.regressions] == [5.0, 5.0]


def test_multi_inference_answers_tasks_in_their_order(prediction):
    response = prediction.MultiInference(
        several(
            ("half_plus_two", "regress_x_to_y", REGRESS),
            ("half_plus_two", "classify_x_to_y", CLASSIFY),
            ("half_plus_two", "regress_x_to_y2", REGRESS),
        )
    )
    first, second, third = response.results
    assert first.regression_result.regressions[0].value == 3.0
    assert second.classification_result.classifications[0].classes[0].score == 3.0
    assert third.regression_result.regressions[0].value == 4.0
    assert second.model_spec.signature_name == "classify_x_to_y"
    assert {result.model_spec.version.value for result in response.results} == {123}


def test_metadata_is_that_of_the_saved_model(prediction):
    response = prediction.GetModelMetadata(metadata("signature_def"))
    assert (response.model_spec.version.value, response.model_spec.signature_name) == (123, "")
    found = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(found)
    default = found.signature_def["serving_default"]
    assert default.inputs["x"].name == "x:0"
    assert default.inputs["x"].dtype == types_pb2.DT_FLOAT
    assert [dim.size for dim in default.inputs["x"].tensor_shape.dim] == [-1, 1]
    assert found.signature_def["regress_x_to_y"].method_name == REGRESS
    odd = prediction.GetModelMetadata(metadata("signature_def", model="odd"))
    odd.metadata["signature_def"].Unpack(found)
    assert not found.signature_def["add_default"].defaults


def test_status_lists_every_version_whatever_the_label(service):
    for to in ({}, {"version": 123}, {"label": "nope"}):
        (found,) = service.GetModelStatus(status(**to)).model_version_status
        assert (found.version, found.state, found.status.error_code) == (123, 30, 0)


def test_method_names_count_only_when_they_are_told_to():
    """Of signatures exported by Keras, the method name is always `predict`."""
    text = TensorSpec(np.dtype(object), (-1,))
    scores = TensorSpec(np.dtype("float32"), (-1, 2))
    signatures = {"s": Signature("s", PREDICT, {"inputs": text}, {"scores": scores})}
    request = Request(Target("m"), "s", lambda signature: {}, method=CLASSIFY)
    assert signature_for(signatures, request) is signatures["s"]
    with pytest.raises(ServingError) as error:
        signature_for(signatures, request, check_method=True)
    assert str(error.value) == (
        "Expected classification signature method_name to be tensorflow/serving/classify. "
        "Was: tensorflow/serving/predict"
    )


# What is refused over gRPC: the error matrix

NO_SPEC = "Missing ModelSpec"
NO_NAME = "ModelSpec has no name specified."
LATEST = "Servable not found for request: Latest(nope)"
SPECIFIC = "Servable not found for request: Specific(half_plus_two, 99)"
LABEL = "Unrecognized servable version label: x"
SIZE = (
    "input size does not match signature: {}!=1 len({{{}}}) != len({{x}}). "
    "Sent extra: {{{}}}. Missing but required: {{{}}}."
)
ALIAS = (
    "Signature input alias: {}(feed name: {}) not found in request and no default value provided. "
    "Inputs expected to be in the request {{{}}}, or default input alias set: {}"
)
OUTPUT = "output tensor alias not found in signature: q Outputs expected to be in the set {y}."
NOT_CLASSES = "No classification inputs found in SignatureDef: serving_default: {x} -> {y}, "
NOT_SCORES = (
    'Expected classification signature outputs to contain at least one of "classes" or "scores". '
    "Signature was: regress_x_to_y: {inputs} -> {outputs}, "
)
TABLE = "Expected Tensor shape: [batch_size num_classes] but got [1]"
COLUMNS = "Tensors class and score should match in dim_size(1). Got 1 vs. 2"
VALUES = "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [1,2]"
BATCH = "Input batch size did not match output batch size: 1 vs. 7"
ONE_MODEL = "All ModelSpecs in a MultiInferenceRequest must access the same model name."
TWICE = "Duplicate evaluation of signature: regress_x_to_y"
ONE_INPUT = "Input tensor must be the same for all Signatures."
X = f32(2)
E = example(x=2.0)
ADD = {"model": "odd", "signature": "add"}
ADD_DEFAULT = {"model": "odd", "signature": "add_default"}
BROKEN = tensors.to_proto(X)
BROKEN.tensor_content = b"123"
VAST = tensors.to_proto(X)  # one value that stands for a million
VAST.tensor_shape.dim[0].size = 1_000_000
TWO = "half_plus_two"


def odd(kind, signature):
    return kind(example(), model="odd", signature=signature)


MATRIX = [
    ("Predict", predict_pb2.PredictRequest(), INVALID, NO_SPEC),
    ("Classify", classification_pb2.ClassificationRequest(), INVALID, NO_SPEC),
    ("Regress", regression_pb2.RegressionRequest(), INVALID, NO_SPEC),
    ("GetModelMetadata", get_model_metadata_pb2.GetModelMetadataRequest(), INVALID, NO_SPEC),
    ("GetModelStatus", get_model_status_pb2.GetModelStatusRequest(), INVALID, NO_SPEC),
    ("Predict", predict(x=X, to={"model": ""}), INVALID, NO_NAME),
    ("GetModelMetadata", metadata("signature_def", model=""), INVALID, NO_NAME),
    ("GetModelStatus", status(model=""), INVALID, NO_NAME),
    ("Predict", predict(x=X, to={"model": "nope"}), NOT_FOUND, LATEST),
    ("Classify", classification(E, model="nope"), NOT_FOUND, LATEST),
    ("Regress", regression(E, model="nope"), NOT_FOUND, LATEST),
    ("MultiInference", several(("nope", "", REGRESS)), NOT_FOUND, LATEST),
    ("GetModelMetadata", metadata("signature_def", model="nope"), NOT_FOUND, LATEST),
    ("Predict", predict(x=X, to={"version": 99}), NOT_FOUND, SPECIFIC),
    ("Predict", predict(x=X, to={"label": "x"}), INVALID, LABEL),
    ("Predict", predict(x=X, to={"model": "nope", "label": "x"}), INVALID, LABEL),
    (
        "Predict",
        predict(x=X, to={"signature": "q"}),
        PRECONDITION,
        'Serving signature key "q" not found.',
    ),
    (
        "Classify",
        classification(E, signature="q"),
        INVALID,
        "No signature was found with the name: q",
    ),
    ("Regress", regression(E, signature="q"), INVALID, "No signature was found with the name: q"),
    (
        "MultiInference",
        several((TWO, "q", REGRESS)),
        INVALID,
        "Requested signature not found in model graph: q",
    ),
    ("Predict", predict(), INVALID, SIZE.format(0, "", "", "x")),
    ("Predict", predict(x=X, q=X), INVALID, SIZE.format(2, "q,x", "q", "")),
    ("Predict", predict(q=X), INVALID, ALIAS.format("x", "x:0", "q", "")),
    ("Predict", predict(z=X, to=ADD_DEFAULT), INVALID, ALIAS.format("x", "x:0", "z", "z")),
    (
        "Predict",
        predict(x=X, q=X, to=ADD_DEFAULT),
        INVALID,
        "Inputs contains invalid name. Used request inputs: x, request input: q,x",
    ),
    ("Predict", predict(tensor_protos={"x": BROKEN}), INVALID, "tensor parsing error: x"),
    (
        "Predict",
        predict(tensor_protos={"x": VAST}),
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "Input x: its shape [1000000] is over the limit of 100,000 bytes",
    ),
    (
        "Predict",
        predict(x=np.int32([2])),
        INVALID,
        "Expects arg[0] to be float but int32 is provided",
    ),
    (
        "Predict",
        predict(x=np.array([b"2"], object)),
        INVALID,
        "Expects arg[0] to be float but string is provided",
    ),
    (
        "Predict",
        predict(x=f32(1, 2), z=f32(1, 2, 3), to=ADD),
        INVALID,
        "Incompatible shapes: [2] vs. [3]",
    ),
    (
        "Predict",
        predict(image=np.zeros((8, 8, 3), np.float32), to={"model": "conv"}),
        INVALID,
        "Input image expects shape [-1,8,8,3], got [8,8,3]: the first dimension counts the images",
    ),
    ("Predict", predict(["q"], x=X), INVALID, OUTPUT),
    ("Predict", predict(["y", "y"], x=X), INVALID, "duplicate output tensor alias: y"),
    ("Classify", classification(signature="classify_x_to_y"), INVALID, "Input is empty."),
    ("Regress", regression(signature="regress_x_to_y"), INVALID, "Input is empty."),
    ("Classify", classification(E), INVALID, NOT_CLASSES),
    ("Classify", classification(E, signature="regress_x_to_y"), INVALID, NOT_SCORES),
    ("Classify", classification(E, **ADD), INVALID, "Expected one input Tensor."),
    ("Regress", regression(E, **ADD), INVALID, "Expected one input Tensor."),
    (
        "Regress",
        regression(E),
        INVALID,
        "No regression inputs found in SignatureDef: serving_default: {x} -> {y}, ",
    ),
    (
        "Regress",
        regression(E, signature="classify_x_to_y"),
        INVALID,
        "No regression outputs found in SignatureDef: classify_x_to_y: {inputs} -> {scores}, ",
    ),
    ("Regress", odd(regression, "both"), INVALID, "Expected one output Tensor."),
    (
        "Classify",
        odd(classification, "number_classes"),
        INVALID,
        "Expected classes Tensor of DT_STRING. Got: DT_FLOAT",
    ),
    (
        "Classify",
        odd(classification, "whole_scores"),
        INVALID,
        "Expected scores Tensor of DT_FLOAT. Got: DT_INT32",
    ),
    ("Classify", odd(classification, "flat_scores"), INVALID, TABLE),
    (
        "Classify",
        odd(classification, "more_scores"),
        INVALID,
        "Expected scores output batch size of 1. Got: 7",
    ),
    ("Classify", odd(classification, "uneven"), INVALID, COLUMNS),
    ("Regress", odd(regression, "wide_values"), INVALID, VALUES),
    ("Regress", odd(regression, "more_values"), INVALID, BATCH),
    (
        "Regress",
        odd(regression, "whole_values"),
        INVALID,
        "Expected output Tensor of DT_FLOAT.  Got: DT_INT32",
    ),
    ("MultiInference", inference_pb2.MultiInferenceRequest(), INVALID, NO_NAME),
    (
        "MultiInference",
        several((TWO, "regress_x_to_y", REGRESS), ("", "", REGRESS)),
        INVALID,
        "Found ModelSpec with an empty model name.",
    ),
    (
        "MultiInference",
        several((TWO, "regress_x_to_y", REGRESS), ("odd", "both", CLASSIFY)),
        INVALID,
        ONE_MODEL,
    ),
    ("MultiInference", several(*[(TWO, "regress_x_to_y", REGRESS)] * 2), INVALID, TWICE),
    (
        "MultiInference",
        several((TWO, "serving_default", "tensorflow/serving/predict")),
        UNIMPLEMENTED,
        "Unsupported signature method_name: tensorflow/serving/predict",
    ),
    (
        "MultiInference",
        several((TWO, "regress_x_to_y", REGRESS), (TWO, "classify_x2_to_y3", CLASSIFY)),
        INVALID,
        ONE_INPUT,
    ),
    (
        "GetModelMetadata",
        metadata(),
        INVALID,
        "GetModelMetadataRequest must specify at least one metadata_field",
    ),
    ("GetModelMetadata", metadata("q"), INVALID, "Metadata field q is not supported"),
    (
        "GetModelStatus",
        status(version=99),
        NOT_FOUND,
        "Could not find version 99 of model half_plus_two",
    ),
    (
        "GetModelStatus",
        status(model="nope"),
        NOT_FOUND,
        "Could not find any versions of model nope",
    ),
    (
        "HandleReloadConfigRequest",
        model_management_pb2.ReloadConfigRequest(),
        INVALID,
        "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList "
        "is currently supported",
    ),
    (
        "Predict",
        predict(x=np.zeros(30_000, np.float32)),
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "SERVER: Received message larger than max",
    ),
]


@pytest.mark.parametrize(
    ("method", "request_", "code", "text"), MATRIX, ids=[f"{m}-{t[:40]}" for m, _, _, t in MATRIX]
)
def test_the_error_matrix(prediction, service, method, request_, code, text):
    stub = prediction if hasattr(prediction, method) else service
    with pytest.raises(grpc.RpcError) as error:
        getattr(stub, method)(request_, timeout=60)
    found = error.value.details()
    assert (error.value.code(), found[: len(text)]) == (code, text)


def test_an_rpc_that_does_not_exist_is_unimplemented(server):
    with grpc.insecure_channel(server.address) as channel:
        call = channel.unary_unary("/tensorflow.serving.PredictionService/Explain")
        with pytest.raises(grpc.RpcError) as error:
            call(b"")
    assert error.value.code() == UNIMPLEMENTED
    assert error.value.details() == "Method not found!"


def test_a_tensor_that_ends_tensorflows_process_ends_no_server(server, prediction):
    """The signature declares no rank, so the picture without its batch reaches the kernel."""
    picture = np.zeros((8, 8, 3), np.float32)
    to = {"model": "conv", "signature": "unsaid"}
    with pytest.raises(grpc.RpcError) as error:
        prediction.Predict(predict(image=picture, to=to))
    if error.value.code() == INVALID:
        pytest.skip("this TensorFlow refuses the tensor itself")
    assert error.value.code() == grpc.StatusCode.INTERNAL
    assert "process ended" in error.value.details()
    image, deadline = picture[np.newaxis], time.monotonic() + 300
    while (code := code_of(prediction.Predict, predict(image=image, to=to))) is not None:
        assert code == grpc.StatusCode.UNAVAILABLE  # while TensorFlow starts again
        assert time.monotonic() < deadline
        time.sleep(0.2)


def code_of(call, request) -> grpc.StatusCode | None:
    try:
        call(request)
    except grpc.RpcError as error:
        return error.code()
    return None


# The same over REST


def ask(server, path, document=None, method=None, **headers):
    """(status, document) of a GET, or of a POST with a JSON document or bytes."""
    body = document
    if document is not None and not isinstance(document, bytes):
        body = json.dumps(document).encode()
    request = urllib.request.Request(server.url + path, body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


ANSWERS = [
    (f"{TWO}:predict", {"instances": [2.0, 4]}, {"predictions": [3.0, 4.0]}),
    (f"{TWO}:predict", {"instances": [{"x": 2.0}]}, {"predictions": [3.0]}),
    (f"{TWO}/versions/123:predict", {"instances": [[2.0]]}, {"predictions": [[3.0]]}),
    (f"{TWO}/labels/stable:predict", {"inputs": [[2.0]]}, {"outputs": [[3.0]]}),
    (f"{TWO}:predict", {"inputs": {"x": 2.0}}, {"outputs": 3.0}),
    (
        "odd:predict",
        {"signature_name": "add", "instances": [{"x": 1, "z": 2}, {"x": 3, "z": 4}]},
        {"predictions": [3.0, 7.0]},
    ),
    (
        "odd:predict",
        {"signature_name": "uneven_rows", "inputs": [1, 2]},
        {"outputs": {"a": [1.0, 2.0], "b": [1.0]}},
    ),
    ("odd:predict", {"signature_name": "scalar", "inputs": [1, 2]}, {"outputs": 3.0}),
    (
        "odd:predict",
        {"signature_name": "words", "instances": ["a"]},
        {"predictions": [{"text": ["word"] * 2, "text_bytes": [{"b64": "d29yZA=="}] * 2}]},
    ),
    (
        f"{TWO}:classify",
        {"signature_name": "classify_x_to_y", "examples": [{"x": 2.0}, {"x": [4.0]}]},
        {"results": [[["", 3.0]], [["", 4.0]]]},
    ),
    (
        f"{TWO}:regress",
        {"signature_name": "regress_x_to_y", "context": {"x": 2.0}, "examples": [{}, {}]},
        {"results": [3.0, 3.0]},
    ),
]


@pytest.mark.parametrize(("path", "document", "answer"), ANSWERS)
def test_rest_answers(server, path, document, answer):
    found = ask(server, f"/v1/models/{path}", document)
    assert found == (200, json.loads(json.dumps(answer)))


def test_rest_takes_nan_and_infinity_and_writes_them(server):
    body = b'{"inputs": [NaN, Infinity, -Infinity]}'
    request = urllib.request.Request(f"{server.url}/v1/models/half_plus_three:predict", body)
    with urllib.request.urlopen(request) as response:
        assert response.read() == b'{"outputs": [NaN, Infinity, -Infinity]}'


REFUSALS = [
    ("nope:predict", {"instances": [1.0]}, 404, LATEST),
    (f"{TWO}/versions/99:predict", {"instances": [1.0]}, 404, SPECIFIC),
    (f"{TWO}/labels/x:predict", {"instances": [1.0]}, 400, LABEL),
    (
        f"{TWO}:predict",
        {"signature_name": "q", "instances": [1.0]},
        400,
        'Serving signature name: "q" not found in signature def',
    ),
    (f"{TWO}:predict", b"", 400, "JSON Parse error: The document is empty"),
    (f"{TWO}:predict", b"{ nope", 400, "JSON Parse error: "),
    (f"{TWO}:predict", b"nope", 400, "JSON Parse error: Invalid value. at offset: 0"),
    (f"{TWO}:predict", {}, 400, "Missing 'inputs' or 'instances' key"),
    (
        f"{TWO}:predict",
        {"instances": [1.0], "inputs": [1.0]},
        400,
        'JSON Value: {"instances": [1.0], "inputs": [1.0]} Not formatted correctly expecting only '
        "one of 'inputs' or 'instances' keys to exist",
    ),
    (
        f"{TWO}:predict",
        {"inputs": {"q": 1.0}},
        400,
        "Missing named input: x in 'inputs' object.",
    ),
    (
        f"{TWO}:predict",
        {"instances": [1.0, "x"]},
        400,
        "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: "
        '"x" Type: String is not of expected type: float',
    ),
    (
        f"{TWO}:predict",
        {"inputs": [[1, 2, 3], [1, 2]]},
        400,
        "Encountered list at unexpected size: 2 at level: 1 expected size: 3",
    ),
    (
        "odd:predict",
        {"signature_name": "uneven_rows", "instances": [1.0, 2.0]},
        400,
        "Tensor name: ",
    ),
    (
        "odd:predict",
        {"signature_name": "scalar", "instances": [1.0]},
        400,
        "Tensor name: y has no shape information",
    ),
    (
        f"{TWO}:classify",
        {"signature_name": "q", "examples": [{}]},
        400,
        "No signature was found with the name: q",
    ),
    (
        f"{TWO}:regress",
        {"signature_name": "regress_x_to_y", "examples": [{"x": [1.0, "y"]}]},
        400,
        "Unexpected element type in feature: x expecting type: float",
    ),
    (f"{TWO}:explain", {}, 400, f"Malformed request: POST /v1/models/{TWO}:explain"),
    (
        f"{TWO}/versions/1/labels/x:predict",
        {},
        400,
        f"Malformed request: POST /v1/models/{TWO}/versions/1/labels/x:predict",
    ),
]


@pytest.mark.parametrize(
    ("path", "document", "code", "text"), REFUSALS, ids=[f"{r[2]}-{r[3][:40]}" for r in REFUSALS]
)
def test_rest_refuses(server, path, document, code, text):
    found, body = ask(server, f"/v1/models/{path}", document)
    assert (found, body["error"][: len(text)]) == (code, text)


def test_rest_status_and_metadata_by_label(server):
    found = ask(server, f"/v1/models/{TWO}/labels/stable")
    assert found[1]["model_version_status"][0]["version"] == "123"
    _, found = ask(server, f"/v1/models/{TWO}/labels/stable/metadata")
    default = found["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert default == {
        "inputs": {
            "x": {
                "dtype": "DT_FLOAT",
                "tensor_shape": {
                    "dim": [{"size": "-1", "name": ""}, {"size": "1", "name": ""}],
                    "unknown_rank": False,
                },
                "name": "x:0",
            }
        },
        "outputs": {
            "y": {
                "dtype": "DT_FLOAT",
                "tensor_shape": {
                    "dim": [{"size": "-1", "name": ""}, {"size": "1", "name": ""}],
                    "unknown_rank": False,
                },
                "name": "y:0",
            }
        },
        "method_name": "tensorflow/serving/predict",
        "defaults": {},
    }
