"""TensorFlow Serving's protocol over real sockets: the same answers by every road; refusals."""

import base64
import json
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from served import ServerProcess, encode
from striate.errors import StriateError
from striate.runtime import FLOAT_TOLERANCE
from striate.serve.client import Client, HttpClient
from striate.serve.protos import (
    classification_pb2,
    example_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    types_pb2,
)
from striate.serve.status import Code, ServingError

pytest_plugins = ["serving_fixtures"]

STATUS = grpc.StatusCode


class Stubs:
    """The generated stubs of tensorflow-serving-api, and requests for model `tiny`."""

    def __init__(self, server: ServerProcess):
        self.channel = grpc.insecure_channel(
            server.address, options=[("grpc.max_send_message_length", -1)]
        )
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.model = model_service_pb2_grpc.ModelServiceStub(self.channel)

    def predict(self, signature="", version=None, outputs=(), model="tiny", **inputs):
        """Predict, with inputs made by TensorFlow itself."""
        import tensorflow as tf

        request = predict_pb2.PredictRequest(output_filter=outputs)
        request.model_spec.name = model
        request.model_spec.signature_name = signature
        if version is not None:
            request.model_spec.version.value = version
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        return self.prediction.Predict(request, timeout=60)

    def classify(self, *examples, signature="classify"):
        request = classification_pb2.ClassificationRequest()
        request.model_spec.name = "tiny"
        request.model_spec.signature_name = signature
        request.input.example_list.examples.extend(examples)
        return self.prediction.Classify(request, timeout=60)


@pytest.fixture(scope="session")
def stubs(served):
    with_channel = Stubs(served)
    yield with_channel
    with_channel.channel.close()


def example(picture: bytes) -> example_pb2.Example:
    found = example_pb2.Example()
    found.features.feature["image/encoded"].bytes_list.value.append(picture)
    return found


def post(server, path, document, content_type="application/json"):
    """(status, document) of a POST; an error's body is JSON as well."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    request = urllib.request.Request(server.url + path, body, {"Content-Type": content_type})
    return opened(request)


def opened(request):
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def refused(call, *args, **kwargs) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as error:
        call(*args, **kwargs)
    return error.value.code(), error.value.details()


# The same answers by every road


@pytest.mark.parametrize(
    "engine",
    [
        "onnx",
        "litert",
        "openvino",
        pytest.param("tensorflow", marks=pytest.mark.long),
        pytest.param("keras", marks=pytest.mark.long),
    ],
)
def test_the_same_picture_gets_the_same_answers_by_every_road(tiny, picture, engine):
    import tensorflow as tf

    from striate.explain import explain
    from striate.preprocess import pixels
    from striate.runtime import installed

    if engine not in installed():
        pytest.skip(f"needs {engine}")

    expected = tiny.predict([picture])[0]
    image = pixels(picture, tiny.preprocess)[np.newaxis]
    b64 = {"b64": base64.b64encode(picture).decode()}
    with ServerProcess(tiny.path.parent, engine=engine) as server:
        assert f"tiny version 1: {engine} ({engine}" in server.announced[0]
        stubs = Stubs(server)
        code, _ = refused(stubs.predict, image=image[0])  # which would end TensorFlow's process
        assert code == STATUS.INVALID_ARGUMENT
        by_pixels = tf.make_ndarray(stubs.predict(image=image).outputs["scores"])
        by_bytes = stubs.predict("bytes", image_bytes=[picture]).outputs
        classified = stubs.classify(example(picture)).result.classifications[0].classes
        _, rest = post(
            server, "/v1/models/tiny:predict", {"signature_name": "bytes", "instances": [b64]}
        )
        _, rest_pixels = post(server, "/v1/models/tiny:predict", {"instances": image.tolist()})
        _, rest_classified = post(
            server, "/v1/models/tiny:classify", {"examples": [{"image/encoded": b64}]}
        )
        if engine in ("tensorflow", "keras"):
            explained = stubs.predict("explain", image=image).outputs
            _, rest_explained = post(
                server,
                "/v1/models/tiny:predict",
                {"signature_name": "explain", "instances": image.tolist()},
            )
        else:
            code, words = refused(stubs.predict, "explain", image=image)
            assert code == STATUS.UNIMPLEMENTED
            assert words.startswith(f"The {engine} engine cannot explain its answers; serve")
        stubs.channel.close()
    if engine in ("tensorflow", "keras"):
        heat = explain(tiny, image).maps
        assert heat.max() > 0
        by_graph = tf.make_ndarray(explained["heat_map"])
        np.testing.assert_allclose(by_graph, heat, atol=1e-4 * heat.max())
        (row,) = rest_explained["predictions"]
        np.testing.assert_allclose(row["heat_map"], heat[0], atol=1e-4 * heat.max())
        np.testing.assert_allclose(row["scores"], expected, atol=FLOAT_TOLERANCE)
    found = {
        "Predict on pixels": by_pixels[0],
        "Predict on bytes": tf.make_ndarray(by_bytes["scores"])[0],
        "Classify": [each.score for each in classified],
        "REST on base64": rest["predictions"][0]["scores"],
        "REST on pixels": rest_pixels["predictions"][0],
        "REST classify": [score for _, score in rest_classified["results"][0]],
    }
    for road, scores in found.items():
        np.testing.assert_allclose(scores, expected, atol=FLOAT_TOLERANCE, err_msg=road)
    labels = {
        "Predict on bytes": [s.decode() for s in tf.make_ndarray(by_bytes["classes"])[0]],
        "Classify": [each.label for each in classified],
        "REST on base64": rest["predictions"][0]["classes"],
        "REST classify": [label for label, _ in rest_classified["results"][0]],
    }
    assert labels == dict.fromkeys(labels, tiny.labels)


def test_both_clients_of_striate_ask_about_paths_bytes_and_arrays(served, tiny, picture, tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(picture)
    images, scores = tiny.goldens()
    expected = tiny.predict([picture, picture])
    with Client(served.address, "tiny", version=1) as client:
        for asked in (client, HttpClient(served.url, "tiny", version=1)):
            np.testing.assert_allclose(asked.predict(images), scores, atol=FLOAT_TOLERANCE)
            np.testing.assert_allclose(
                asked.predict([path, picture]), expected, atol=FLOAT_TOLERANCE
            )
            (best,) = asked.classify([path], top=2)
            assert [label for label, _ in best] == [
                tiny.labels[i] for i in np.argsort(-expected[0])[:2]
            ]
            assert asked.status() == {1: "AVAILABLE"}
            with pytest.raises(StriateError, match="a list of pictures"):
                asked.predict("picture.png")
            with pytest.raises(StriateError, match="cannot be read"):
                asked.predict(["no such file.png"])
            with pytest.raises(StriateError, match="top of at least 1, got 0"):
                asked.classify([path], top=0)
            with pytest.raises(ServingError, match=r"image_bytes\[1\].*damaged") as error:
                asked.predict([picture, picture[: len(picture) // 2]])
            assert error.value.code == Code.INVALID_ARGUMENT


def test_the_http_client_says_what_it_met_instead_of_an_answer(served):
    with pytest.raises(StriateError, match="begins with http"):
        HttpClient("127.0.0.1:8501", "tiny")
    with pytest.raises(ServingError, match="no answer") as error:
        HttpClient("http://127.0.0.1:9", "tiny").status()
    assert error.value.code == Code.UNAVAILABLE
    with pytest.raises(ServingError, match="not find any versions of model nobody") as error:
        HttpClient(served.url, "nobody").status()
    assert error.value.code == Code.NOT_FOUND
    with pytest.raises(ServingError, match=r"expected gRPC \(HTTP/2\); REST has a port"):
        HttpClient(f"http://{served.address}", "tiny").status()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(ServingError, match=r"no answer within 0\.2 s") as error:
            HttpClient(f"http://127.0.0.1:{port}", "tiny", timeout=0.2).status()
        assert error.value.code == Code.DEADLINE_EXCEEDED


def test_the_http_client_says_that_what_answered_is_no_model_server():
    class Other(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Other) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{other.server_port}"
        with pytest.raises(
            ServingError, match="tiny: expected JSON, got what no model server"
        ) as e:
            HttpClient(url, "tiny").status()
        assert e.value.code == Code.UNKNOWN
        other.shutdown()


OVMS = """
import json, sys
import numpy as np
from ovmsclient import make_grpc_client, make_http_client
from ovmsclient.tfs_compat.base.errors import InvalidInputError, ModelNotFoundError
grpc_address, http_address, images = sys.argv[1], sys.argv[2], np.load(sys.argv[3])
found = {}
clients = {"grpc": make_grpc_client(grpc_address), "http": make_http_client(http_address)}
for name, client in clients.items():
    scores = client.predict(inputs={"image": images}, model_name="tiny")
    status = client.get_model_status("tiny")
    metadata = client.get_model_metadata("tiny")
    refused = []
    for wrong in ({"image": images[0]}, {"picture": images}):
        try:
            client.predict(inputs=wrong, model_name="tiny")
        except InvalidInputError as error:
            refused.append(str(error))
    try:
        client.predict(inputs={"image": images}, model_name="nope")
    except ModelNotFoundError as error:
        refused.append(str(error))
    found[name] = [np.asarray(scores).tolist(), status, metadata, refused]
print(json.dumps(found))
"""


def test_an_independent_client_understands_both_faces(served, tiny, tmp_path):
    """ovmsclient brings its own protobuf modules, so it runs in a process of its own."""
    pytest.importorskip("ovmsclient")
    images, expected = tiny.goldens()
    np.save(tmp_path / "images.npy", images)
    found = subprocess.run(
        [sys.executable, "-c", OVMS, served.address, served.url.removeprefix("http://"),
         str(tmp_path / "images.npy")],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    found = json.loads(found.stdout)
    for scores, status, _, refusals in found.values():
        np.testing.assert_allclose(scores, expected, atol=FLOAT_TOLERANCE)
        assert status["1"]["state"] == "AVAILABLE"
        assert len(refusals) == 3
    assert found["grpc"][2] == {
        "model_version": 1,
        "inputs": {"image": {"shape": [-1, 32, 32, 3], "dtype": "DT_UINT8"}},
        "outputs": {"scores": {"shape": [-1, 4], "dtype": "DT_FLOAT"}},
    }
    assert found["http"][2]["model_spec"]["version"] == "1"


# What answers say


def test_an_answer_names_the_version_and_the_signature_that_gave_it(stubs, tiny):
    images, _ = tiny.goldens()
    spec = stubs.predict(image=images).model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("tiny", 1, "serving_default")
    spec = stubs.predict("bytes", version=1, image_bytes=[png(images[0])]).model_spec
    assert (spec.version.value, spec.signature_name) == (1, "bytes")


def png(pixels: np.ndarray) -> bytes:
    from PIL import Image

    return encode(Image.fromarray(pixels))


def test_version_0_is_the_newest_where_there_is_no_version_0(stubs, tiny):
    images, _ = tiny.goldens()
    assert stubs.predict(version=0, image=images).model_spec.version.value == 1


def test_scores_are_typed_values_and_an_output_filter_is_obeyed(stubs, tiny):
    images, _ = tiny.goldens()
    response = stubs.predict("bytes", outputs=["scores"], image_bytes=[png(images[0])])
    assert list(response.outputs) == ["scores"]
    assert len(response.outputs["scores"].float_val) == 4
    assert response.outputs["scores"].tensor_content == b""


def test_a_request_may_carry_one_repeated_value(stubs, tiny):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "tiny"
    request.inputs["image"].dtype = types_pb2.DT_UINT8
    for size in (2, 32, 32, 3):
        request.inputs["image"].tensor_shape.dim.add(size=size)
    request.inputs["image"].int_val.append(7)
    found = stubs.prediction.Predict(request).outputs["scores"].float_val
    expected = tiny.predict(np.full((2, 32, 32, 3), 7, np.uint8))
    np.testing.assert_allclose(found, expected.ravel(), atol=FLOAT_TOLERANCE)


def test_classify_without_a_signature_name_takes_examples(stubs, picture):
    response = stubs.classify(example(picture), example(picture), signature="")
    assert response.model_spec.signature_name == "classify"
    assert len(response.result.classifications) == 2


def test_a_context_is_merged_into_every_example(stubs, picture):
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name = "tiny"
    request.input.example_list_with_context.context.CopyFrom(example(picture))
    request.input.example_list_with_context.examples.add()
    found = stubs.prediction.Classify(request).result
    assert found == stubs.classify(example(picture)).result


def test_metadata_lists_the_signatures(stubs):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "tiny"
    response = stubs.prediction.GetModelMetadata(request)
    assert (response.model_spec.version.value, response.model_spec.signature_name) == (1, "")
    found = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(found)
    assert set(found.signature_def) == {"serving_default", "bytes", "classify", "explain"}
    image = found.signature_def["serving_default"].inputs["image"]
    assert image.dtype == types_pb2.DT_UINT8
    assert [dim.size for dim in image.tensor_shape.dim] == [-1, 32, 32, 3]
    classify = found.signature_def["classify"]
    assert classify.method_name == "tensorflow/serving/classify"
    assert classify.outputs["classes"].dtype == types_pb2.DT_STRING


def test_status_over_both_faces(served, stubs):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "tiny"
    (version,) = stubs.model.GetModelStatus(request).model_version_status
    assert (version.version, version.state) == (1, version.AVAILABLE)
    assert opened(f"{served.url}/v1/models/tiny") == (
        200,
        {
            "model_version_status": [
                {
                    "version": "1",
                    "state": "AVAILABLE",
                    "status": {"error_code": "OK", "error_message": ""},
                }
            ]
        },
    )


def test_rest_metadata_prints_defaults_like_tensorflow_serving(served):
    status, found = opened(f"{served.url}/v1/models/tiny/versions/1/metadata")
    assert status == 200
    assert found["model_spec"] == {"name": "tiny", "signature_name": "", "version": "1"}
    default = found["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert default["method_name"] == "tensorflow/serving/predict"
    assert default["defaults"] == {}
    assert default["inputs"]["image"] == {
        "dtype": "DT_UINT8",
        "name": "serving_default_image:0",
        "tensor_shape": {
            "dim": [{"size": str(size), "name": ""} for size in (-1, 32, 32, 3)],
            "unknown_rank": False,
        },
    }


def test_health_and_reflection_answer(stubs, served):
    health = health_pb2_grpc.HealthStub(stubs.channel)
    for service in ("", "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert opened(f"{served.url}/healthz") == (200, {"ready": True})

    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    reflection = reflection_pb2_grpc.ServerReflectionStub(stubs.channel)
    ask = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = reflection.ServerReflectionInfo(iter([ask]))
    names = {service.name for service in answer.list_services_response.service}
    assert {"tensorflow.serving.PredictionService", "grpc.health.v1.Health"} <= names


# What is refused over gRPC, code and text

IMAGE = np.zeros((1, 32, 32, 3), np.uint8)
NOT_FOUND_LATEST = "Servable not found for request: Latest(nope)"
SIZE = (
    "input size does not match signature: {}!=1 len({{{}}}) != len({{image}}). "
    "Sent extra: {{{}}}. Missing but required: {{{}}}."
)
NO_PICTURE = (
    "image_bytes[0]: the picture: expected a JPEG, PNG, WEBP, GIF, BMP or TIFF picture, "
    "got something else (it begins with b'not a pi')"
)
WRONG_NAME = (
    "Signature input alias: image(feed name: serving_default_image:0) not found in request and no "
    "default value provided. Inputs expected to be in the request {picture}, or default input "
    "alias set: "
)


@pytest.mark.parametrize(
    ("ask", "code", "text"),
    [
        ({"model": "nope", "image": IMAGE}, STATUS.NOT_FOUND, NOT_FOUND_LATEST),
        (
            {"model": "", "image": IMAGE},
            STATUS.INVALID_ARGUMENT,
            "ModelSpec has no name specified.",
        ),
        (
            {"version": 99, "image": IMAGE},
            STATUS.NOT_FOUND,
            "Servable not found for request: Specific(tiny, 99)",
        ),
        (
            {"signature": "x", "image": IMAGE},
            STATUS.FAILED_PRECONDITION,
            'Serving signature key "x" not found.',
        ),
        ({}, STATUS.INVALID_ARGUMENT, SIZE.format(0, "", "", "image")),
        (
            {"image": IMAGE, "other": IMAGE},
            STATUS.INVALID_ARGUMENT,
            SIZE.format(2, "image,other", "other", ""),
        ),
        ({"picture": IMAGE}, STATUS.INVALID_ARGUMENT, WRONG_NAME),
        (
            {"image": IMAGE.astype(np.float32)},
            STATUS.INVALID_ARGUMENT,
            "Expects arg[0] to be uint8 but float is provided",
        ),
        (
            {"image": [b"picture"]},
            STATUS.INVALID_ARGUMENT,
            "Expects arg[0] to be uint8 but string is provided",
        ),
        (
            {"image": IMAGE[0]},
            STATUS.INVALID_ARGUMENT,
            "Input image expects shape [-1,32,32,3], got [32,32,3]: the first dimension counts the "
            "images, send [1,32,32,3] for one",
        ),
        (
            {"image": IMAGE[:, :16]},
            STATUS.INVALID_ARGUMENT,
            "Input image expects shape [-1,32,32,3], got [1,16,32,3]",
        ),
        (
            {"image": IMAGE[..., :1]},
            STATUS.INVALID_ARGUMENT,
            "Input image expects shape [-1,32,32,3], got [1,32,32,1]",
        ),
        (
            {"image": np.uint8(3)},
            STATUS.INVALID_ARGUMENT,
            "Input image expects shape [-1,32,32,3], got []",
        ),
        (
            {"image": IMAGE[:0]},
            STATUS.INVALID_ARGUMENT,
            "Input image expects at least one item, got [0,32,32,3]",
        ),
        (
            {"image": IMAGE, "outputs": ["x"]},
            STATUS.INVALID_ARGUMENT,
            "output tensor alias not found in signature: x Outputs expected to be in the set "
            "{scores}.",
        ),
        (
            {"image": IMAGE, "outputs": ["scores", "scores"]},
            STATUS.INVALID_ARGUMENT,
            "duplicate output tensor alias: scores",
        ),
        (
            {"signature": "bytes", "image_bytes": [b"not a picture"]},
            STATUS.INVALID_ARGUMENT,
            NO_PICTURE,
        ),
        (
            {"signature": "bytes", "image_bytes": b"one, without a batch"},
            STATUS.INVALID_ARGUMENT,
            "Input image_bytes expects shape [-1], got []: the first dimension counts the images, "
            "send [1] for one",
        ),
        (
            {"signature": "classify", "inputs": [b"\xff\xff"]},
            STATUS.INVALID_ARGUMENT,
            "Could not parse example input, value: inputs[0]",
        ),
        (
            {"signature": "classify", "inputs": [b""]},
            STATUS.INVALID_ARGUMENT,
            "inputs[0]: Feature: image/encoded (data type: string) is required but could not be "
            "found. Expected one encoded picture in it, got 0.",
        ),
    ],
)
def test_predict_refuses(stubs, ask, code, text):
    assert refused(stubs.predict, **ask) == (code, text)


def test_the_bad_picture_of_a_batch_is_named_and_the_server_goes_on(stubs, picture, tiny):
    code, text = refused(
        stubs.predict, "bytes", image_bytes=[picture, picture, picture[: len(picture) // 2]]
    )
    assert code == STATUS.INVALID_ARGUMENT
    assert text.startswith("image_bytes[2]: the picture: expected")
    assert stubs.predict("bytes", image_bytes=[picture]).outputs["scores"].float_val


def test_a_malformed_tensor_is_named(stubs):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "tiny"
    request.inputs["image"].tensor_content = b"123"
    code, text = refused(stubs.prediction.Predict, request)
    assert code == STATUS.INVALID_ARGUMENT
    assert text == "tensor parsing error: image"


def test_a_request_without_a_model_spec_is_refused(stubs):
    for call, request in [
        (stubs.prediction.Predict, predict_pb2.PredictRequest()),
        (stubs.prediction.Classify, classification_pb2.ClassificationRequest()),
        (stubs.prediction.GetModelMetadata, get_model_metadata_pb2.GetModelMetadataRequest()),
        (stubs.model.GetModelStatus, get_model_status_pb2.GetModelStatusRequest()),
    ]:
        assert refused(call, request) == (STATUS.INVALID_ARGUMENT, "Missing ModelSpec")


def test_a_label_is_refused(stubs):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "tiny"
    request.model_spec.version_label = "canary"
    assert refused(stubs.prediction.Predict, request) == (
        STATUS.INVALID_ARGUMENT,
        "Unrecognized servable version label: canary",
    )


@pytest.mark.parametrize(
    ("signature", "text"),
    [
        ("x", "No signature was found with the name: x"),
        ("serving_default", "No classification inputs found in SignatureDef: serving_default"),
        ("bytes", "No classification inputs found in SignatureDef: bytes"),
    ],
)
def test_classify_refuses_what_takes_no_examples(stubs, picture, signature, text):
    code, found = refused(stubs.classify, example(picture), signature=signature)
    assert code == STATUS.INVALID_ARGUMENT
    assert found.startswith(text)


def test_classify_of_nothing_is_refused(stubs):
    assert refused(stubs.classify) == (STATUS.INVALID_ARGUMENT, "Input is empty.")


def test_metadata_and_status_refuse(stubs):
    request = get_model_metadata_pb2.GetModelMetadataRequest()
    request.model_spec.name = "tiny"
    assert refused(stubs.prediction.GetModelMetadata, request) == (
        STATUS.INVALID_ARGUMENT,
        "GetModelMetadataRequest must specify at least one metadata_field",
    )
    request.metadata_field.append("x")
    assert refused(stubs.prediction.GetModelMetadata, request) == (
        STATUS.INVALID_ARGUMENT,
        "Metadata field x is not supported",
    )
    status = get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name = "nope"
    assert refused(stubs.model.GetModelStatus, status) == (
        STATUS.NOT_FOUND,
        "Could not find any versions of model nope",
    )
    status.model_spec.name = "tiny"
    status.model_spec.version.value = 99
    assert refused(stubs.model.GetModelStatus, status) == (
        STATUS.NOT_FOUND,
        "Could not find version 99 of model tiny",
    )


def test_a_long_text_is_cut(stubs):
    code, text = refused(stubs.predict, signature="x" * 3000, image=IMAGE)
    assert code == STATUS.FAILED_PRECONDITION
    assert len(text) == 1024 + len("...TRUNCATED")
    assert text.endswith("x...TRUNCATED")


# What is refused over REST

PREDICT = "/v1/models/tiny:predict"
ROW = IMAGE.tolist()


@pytest.mark.parametrize(
    ("path", "document", "status", "text"),
    [
        ("/v1/models/nope:predict", {"instances": ROW}, 404, NOT_FOUND_LATEST),
        (
            "/v1/models/tiny/versions/99:predict",
            {"instances": ROW},
            404,
            "Servable not found for request: Specific(tiny, 99)",
        ),
        (
            "/v1/models/tiny/labels/x:predict",
            {"instances": ROW},
            400,
            "Unrecognized servable version label: x",
        ),
        (
            f"/v1/models/tiny/versions/{1 << 63}:predict",
            {"instances": ROW},
            400,
            f"Failed to convert version: {1 << 63} to numeric.",
        ),
        (
            PREDICT,
            {"signature_name": "x", "instances": ROW},
            400,
            'Serving signature name: "x" not found in signature def',
        ),
        (PREDICT, b"", 400, "JSON Parse error: The document is empty"),
        (PREDICT, b"x", 400, "JSON Parse error: Invalid value. at offset: 0"),
        (PREDICT, {}, 400, "Missing 'inputs' or 'instances' key"),
        (
            PREDICT,
            {"inputs": {"picture": ROW}},
            400,
            "Missing named input: image in 'inputs' object.",
        ),
        (
            PREDICT,
            {"instances": [ROW[0][:16]]},
            400,
            "Input image expects shape [-1,32,32,3], got [1,16,32,3]",
        ),
        (
            PREDICT,
            {"signature_name": "bytes", "instances": [{"b64": "bm90IGEgcGljdHVyZQ=="}]},
            400,
            NO_PICTURE,
        ),
        ("/v1/models/tiny:classify", {"examples": [{}]}, 400, None),
        ("/v1/models/tiny:regress", {"examples": [{}]}, 400, None),
        ("/v1/models/tiny:explain", {}, 400, "Malformed request: POST /v1/models/tiny:explain"),
        ("/v1/models/tiny", {}, 400, "Malformed request: POST /v1/models/tiny"),
    ],
)
def test_rest_refuses(served, path, document, status, text):
    code, found = post(served, path, document)
    assert code == status
    assert list(found) == ["error"]
    assert text is None or found["error"] == text


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/v1/models", 400, "Missing model name in request."),
        ("/v1/models/nope", 404, "Could not find any versions of model nope"),
        ("/v1/models/tiny/versions/9", 404, "Could not find version 9 of model tiny"),
        ("/v1/models/nope/metadata", 404, NOT_FOUND_LATEST),
        ("/v1/foo", 400, "Malformed request: GET /v1/foo"),
        ("/v1/models/tiny:predict", 400, "Malformed request: GET /v1/models/tiny:predict"),
    ],
)
def test_rest_get_refuses(served, path, status, text):
    assert opened(served.url + path) == (status, {"error": text})


def test_outside_of_v1_is_not_found(served):
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(f"{served.url}/nope")
    assert error.value.code == 404


def test_rest_reads_json_whatever_the_content_type_and_names_in_any_case(served):
    status, found = post(served, "/v1/Models/tiny:PREDICT", {"instances": ROW}, "text/plain")
    assert status == 200
    assert len(found["predictions"][0]) == 4
    status, found = post(served, "/v1/models/%74iny:predict", {"inputs": ROW})
    assert status == 200
    assert len(found["outputs"][0]) == 4


def test_deep_json_and_long_bodies_do_no_harm(served):
    status, found = post(served, PREDICT, b'{"instances": ' + b"[" * 1_000_000)
    assert (status, "nested" in found["error"]) == (400, True)
    assert post(served, PREDICT, {"instances": ROW})[0] == 200
