"""The Open Inference Protocol (KServe v2) over real sockets, asked by Triton's own clients."""

import gzip
import json
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from types import ModuleType
from typing import Any, NamedTuple

import grpc
import numpy as np
import pytest

from served import ServerProcess
from striate.runtime import FLOAT_TOLERANCE
from striate.serve.core import Target
from striate.serve.protocols.oip import from_raw, to_raw, worded
from striate.serve.protocols.oip_protos import message, pool, service
from striate.serve.status import Code, QueueFull, ServingError

triton_grpc = pytest.importorskip("tritonclient.grpc")
triton_http = pytest.importorskip("tritonclient.http")
from tritonclient.utils import InferenceServerException  # noqa: E402

pytest_plugins = ["serving_fixtures"]

IMAGE = np.zeros((1, 32, 32, 3), np.uint8)


class Road(NamedTuple):
    """One of Triton's clients, and its module."""

    name: str
    lib: ModuleType
    client: Any

    def input(self, name: str, array: np.ndarray, kind: str | None = None, **how):
        words = {"uint8": "UINT8", "object": "BYTES", "float32": "FP32", "int64": "INT64"}
        given = self.lib.InferInput(name, list(array.shape), kind or words[array.dtype.name])
        given.set_data_from_numpy(array, **how)
        return given

    def infer(self, *inputs, model="tiny", version="", outputs=None, **more):
        return self.client.infer(
            model, list(inputs), model_version=version, outputs=outputs, **more
        )


@pytest.fixture(params=["grpc", "http"])
def road(request, served):
    if request.param == "grpc":
        client = triton_grpc.InferenceServerClient(served.address)
        yield Road("grpc", triton_grpc, client)
    else:
        client = triton_http.InferenceServerClient(served.url.removeprefix("http://"))
        yield Road("http", triton_http, client)
    client.close()


@pytest.fixture
def stub(served):
    """Calls of the service by our own messages, for what Triton's client would never send."""
    with grpc.insecure_channel(served.address) as channel:

        def call(method: str, request):
            answer = message(service.FindMethodByName(method).output_type.name)
            unary = channel.unary_unary(
                f"/{service.full_name}/{method}",
                request_serializer=type(request).SerializeToString,
                response_deserializer=answer.FromString,
            )
            return unary(request, timeout=60)

        yield call


def asked(server: ServerProcess, method: str, path: str, body=None, **headers):
    """(status, document) of a request; headers with _ for -."""
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(server.url + path, body, names, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


# The same answers by every road


def test_pixels_get_the_scores_of_the_artifact(road, tiny):
    images, expected = tiny.goldens()
    found = road.infer(road.input("image", images), request_id="seven")
    np.testing.assert_allclose(found.as_numpy("scores"), expected, atol=FLOAT_TOLERANCE)
    response = found.get_response()
    if road.name == "grpc":
        said = (response.model_name, response.model_version, response.id)
    else:
        said = (response["model_name"], response["model_version"], response["id"])
    assert said == ("tiny", "1", "seven")


def test_the_inputs_that_a_request_names_choose_the_signature(road, tiny, picture):
    expected = tiny.predict([picture])
    encoded = road.input("image_bytes", np.array([picture, picture], object))
    found = road.infer(encoded)
    np.testing.assert_allclose(found.as_numpy("scores")[1:], expected, atol=FLOAT_TOLERANCE)
    assert [label.decode() for label in found.as_numpy("classes")[0]] == tiny.labels
    only = road.infer(encoded, outputs=[road.lib.InferRequestedOutput("classes")])
    assert only.as_numpy("scores") is None
    assert [label.decode() for label in only.as_numpy("classes")[1]] == tiny.labels


def test_the_outputs_that_a_request_names_choose_the_signature(road):
    """`explain` takes what `serving_default` takes; this engine cannot answer it."""
    with pytest.raises(InferenceServerException, match="onnx engine cannot explain"):
        road.infer(road.input("image", IMAGE), outputs=[road.lib.InferRequestedOutput("heat_map")])
    with pytest.raises(InferenceServerException, match="onnx engine cannot explain"):
        road.infer(road.input("image", IMAGE), parameters={"signature_name": "explain"})


def test_class_count_gives_the_best_labels(road, tiny, picture):
    scores = tiny.predict([picture])[0]
    best = np.argsort(-scores)[:2]
    wanted = [road.lib.InferRequestedOutput("scores", class_count=2)]
    from_pixels = road.infer(road.input("image", np.repeat(IMAGE, 3, axis=0)), outputs=wanted)
    assert from_pixels.as_numpy("scores").shape == (3, 2)
    found = road.infer(road.input("image_bytes", np.array([picture], object)), outputs=wanted)
    for text, index in zip(found.as_numpy("scores")[0], best, strict=True):
        score, number, label = text.decode().split(":")
        assert float(score) == pytest.approx(scores[index], abs=FLOAT_TOLERANCE)
        assert (int(number), label) == (index, tiny.labels[index])


def test_more_classes_than_there_are_is_all_of_them(road, tiny):
    wanted = [road.lib.InferRequestedOutput("scores", class_count=1000)]
    found = road.infer(road.input("image", IMAGE), outputs=wanted)
    assert found.as_numpy("scores").shape == (1, len(tiny.labels))


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_rest_takes_and_gives_binary_and_json(served, tiny, picture, binary_in, binary_out):
    client = triton_http.InferenceServerClient(served.url.removeprefix("http://"))
    road = Road("http", triton_http, client)
    images, expected = tiny.goldens()
    outputs = [triton_http.InferRequestedOutput("scores", binary_data=binary_out)]
    found = road.infer(road.input("image", images, binary_data=binary_in), outputs=outputs)
    np.testing.assert_allclose(found.as_numpy("scores"), expected, atol=FLOAT_TOLERANCE)
    (described,) = found.get_response()["outputs"]
    assert ("data" in described) is not binary_out
    classes = [triton_http.InferRequestedOutput("classes", binary_data=binary_out)]
    found = road.infer(road.input("image_bytes", np.array([picture], object)), outputs=classes)
    labels = found.as_numpy("classes")[0].tolist()
    assert [x.decode() if isinstance(x, bytes) else x for x in labels] == tiny.labels
    client.close()


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_rest_takes_compressed_requests(served, tiny, algorithm):
    client = triton_http.InferenceServerClient(served.url.removeprefix("http://"))
    images, expected = tiny.goldens()
    road = Road("http", triton_http, client)
    found = road.infer(road.input("image", images), request_compression_algorithm=algorithm)
    np.testing.assert_allclose(found.as_numpy("scores"), expected, atol=FLOAT_TOLERANCE)
    client.close()


def test_typed_values_are_answered_by_typed_values_and_raw_by_raw(stub, tiny):
    images, expected = tiny.goldens()
    request = message("ModelInferRequest")(model_name="tiny")
    tensor = request.inputs.add(name="image", datatype="UINT8", shape=images.shape)
    tensor.contents.uint_contents.extend(images.ravel().tolist())
    response = stub("ModelInfer", request)
    assert not response.raw_output_contents
    (scores,) = response.outputs
    found = np.array(scores.contents.fp32_contents).reshape(scores.shape)
    np.testing.assert_allclose(found, expected, atol=FLOAT_TOLERANCE)
    tensor.ClearField("contents")
    request.raw_input_contents.append(images.tobytes())
    response = stub("ModelInfer", request)
    assert not response.outputs[0].HasField("contents")
    found = np.frombuffer(response.raw_output_contents[0], np.float32).reshape(expected.shape)
    np.testing.assert_allclose(found, expected, atol=FLOAT_TOLERANCE)


def test_json_tensors_may_be_nested_or_flat_and_strings_may_be_base64(served, tiny, picture):
    import base64

    images, expected = tiny.goldens()
    for data in (images.tolist(), images.ravel().tolist()):
        tensor = {"name": "image", "shape": images.shape, "datatype": "UINT8", "data": data}
        status, found = asked(served, "POST", "/v2/models/tiny/infer", {"inputs": [tensor]})
        assert status == 200
        (scores,) = found["outputs"]
        assert (scores["datatype"], scores["shape"]) == ("FP32", list(expected.shape))
        np.testing.assert_allclose(scores["data"], expected.ravel(), atol=FLOAT_TOLERANCE)
    b64 = {"b64": base64.b64encode(picture).decode()}
    tensor = {"name": "image_bytes", "shape": [1], "datatype": "BYTES", "data": [b64]}
    status, found = asked(served, "POST", "/v2/models/tiny/infer", {"inputs": [tensor]})
    by_name = {output["name"]: output["data"] for output in found["outputs"]}
    np.testing.assert_allclose(by_name["scores"], tiny.predict([picture])[0], atol=FLOAT_TOLERANCE)
    assert by_name["classes"] == tiny.labels


def test_a_stream_answers_in_order_and_survives_a_bad_request(served, tiny):
    images, expected = tiny.goldens()
    answers = []
    with triton_grpc.InferenceServerClient(served.address) as client:
        road = Road("grpc", triton_grpc, client)
        client.start_stream(lambda result, error: answers.append((result, error)))
        for i, image in enumerate(images):
            client.async_stream_infer(
                "tiny", [road.input("image", image[np.newaxis])], request_id=str(i)
            )
        client.async_stream_infer("nope", [road.input("image", IMAGE)])
        client.async_stream_infer("tiny", [road.input("image", IMAGE)], request_id="last")
        client.stop_stream()
    *good, (nothing, error), (last, _) = answers
    assert [result.get_response().id for result, _ in good] == [str(i) for i in range(len(images))]
    for (result, _), scores in zip(good, expected, strict=True):
        np.testing.assert_allclose(result.as_numpy("scores")[0], scores, atol=FLOAT_TOLERANCE)
    assert nothing is None
    assert "unknown model: 'nope'" in str(error)
    assert last.get_response().id == "last"
    # Models of any number of answers say which is the last, and their clients wait for that
    assert last.get_response().parameters["triton_final_response"].bool_param


# What is there, and how it does


def test_health(road, served):
    assert road.client.is_server_live()
    assert road.client.is_server_ready()
    assert road.client.is_model_ready("tiny")
    assert road.client.is_model_ready("tiny", "1")
    assert not road.client.is_model_ready("tiny", "2")
    assert not road.client.is_model_ready("nope")
    assert asked(served, "GET", "/v2/health/ready") == (200, {"ready": True})


def as_dict(found) -> dict[str, Any]:
    from google.protobuf.json_format import MessageToDict

    if isinstance(found, dict | list):
        return found
    return MessageToDict(found, preserving_proto_field_name=True)


def test_metadata(road):
    server = as_dict(road.client.get_server_metadata())
    assert server["name"] == "striate"
    assert {"classification", "binary_tensor_data", "statistics"} <= set(server["extensions"])
    found = as_dict(road.client.get_model_metadata("tiny"))
    shape = [-1, 32, 32, 3]
    assert found["versions"] == ["1"]
    assert found["platform"] == "onnxruntime_onnx"
    assert [(x["name"], x["datatype"]) for x in found["inputs"]] == [("image", "UINT8")]
    assert [int(size) for size in found["inputs"][0]["shape"]] == shape
    assert [(x["name"], x["datatype"]) for x in found["outputs"]] == [("scores", "FP32")]
    config = as_dict(road.client.get_model_config("tiny"))
    config = config.get("config", config)
    assert config["max_batch_size"] == (64 << 20) // (32 * 32 * 3)
    assert config["input"][0]["data_type"] == "TYPE_UINT8"
    assert [int(size) for size in config["input"][0]["dims"]] == shape[1:]


def test_the_repository_is_listed_and_its_policy_alone_loads(road):
    index = as_dict(road.client.get_model_repository_index())
    index = index["models"] if isinstance(index, dict) else index
    assert index == [{"name": "tiny", "version": "1", "state": "READY"}]
    for call in (road.client.load_model, road.client.unload_model):
        with pytest.raises(InferenceServerException, match="load / unload is not allowed"):
            call("tiny")


def test_statistics_count_answers_and_their_pictures(road):
    def stats():
        found = as_dict(road.client.get_inference_statistics("tiny"))
        return found["model_stats"][0]

    road.infer(road.input("image", IMAGE))
    before = stats()
    road.infer(road.input("image", np.repeat(IMAGE, 3, axis=0)))
    with pytest.raises(InferenceServerException):
        road.infer(road.input("image", IMAGE[:, :16]))
    after = stats()
    assert (after["name"], after["version"]) == ("tiny", "1")
    assert int(after["inference_count"]) == int(before["inference_count"]) + 3
    assert int(after["execution_count"]) == int(before["execution_count"]) + 1
    times = {name: int(value.get("ns", 0)) for name, value in after["inference_stats"].items()}
    parts = times["queue"] + times["compute_input"] + times["compute_infer"]
    assert times["success"] == pytest.approx(parts, rel=0.01)
    failed = int(after["inference_stats"]["fail"]["count"])
    assert failed > int(before["inference_stats"].get("fail", {}).get("count", 0))


def test_statistics_of_all_models(served):
    status, found = asked(served, "GET", "/v2/models/stats")
    assert (status, [each["name"] for each in found["model_stats"]]) == (200, ["tiny"])


# What is refused, in Triton's words

NO_MODEL = "Request for unknown model: 'nope' is not found"


@pytest.mark.parametrize(
    ("inputs", "options", "code", "text"),
    [
        ({"image": IMAGE}, {"model": "nope"}, "NOT_FOUND", NO_MODEL),
        (
            {"image": IMAGE},
            {"version": "99"},
            "NOT_FOUND",
            "Request for unknown model: 'tiny' version 99 is not found",
        ),
        (
            {"image": IMAGE},
            {"version": "abc"},
            "INVALID_ARGUMENT",
            "failed to get model version from specified version string 'abc' (details: stoll), "
            "version should be an integral value > 0",
        ),
        (
            {},
            {},
            "INVALID_ARGUMENT",
            "expected 1 inputs but got 0 inputs for model 'tiny'. Got input(s) [], but missing "
            "required input(s) ['image']. Please provide all required input(s).",
        ),
        (
            {"foo": IMAGE},
            {},
            "INVALID_ARGUMENT",
            "unexpected inference input 'foo' for model 'tiny'",
        ),
        (
            {"image": IMAGE.astype(np.float32)},
            {},
            "INVALID_ARGUMENT",
            "inference input 'image' data-type is 'FP32', but model 'tiny' expects 'UINT8'",
        ),
        (
            {"image": IMAGE[:, :16]},
            {},
            "INVALID_ARGUMENT",
            "unexpected shape for input 'image' for model 'tiny'. Expected [-1,32,32,3], "
            "got [1,16,32,3].",
        ),
        (
            {"image": IMAGE[0]},
            {},
            "INVALID_ARGUMENT",
            "unexpected shape for input 'image' for model 'tiny'. Expected [-1,32,32,3], "
            "got [32,32,3].",
        ),
        (
            {"image": IMAGE},
            {"outputs": ["zzz"]},
            "INVALID_ARGUMENT",
            "unexpected inference output 'zzz' for model 'tiny'",
        ),
        (
            {"image": IMAGE},
            {"parameters": {"signature_name": "x"}},
            "INVALID_ARGUMENT",
            'Serving signature key "x" not found.',
        ),
    ],
)
def test_infer_refuses(road, inputs, options, code, text):
    if "outputs" in options:
        wanted = [road.lib.InferRequestedOutput(name) for name in options["outputs"]]
        options = {**options, "outputs": wanted}
    with pytest.raises(InferenceServerException) as error:
        road.infer(*(road.input(name, array) for name, array in inputs.items()), **options)
    assert error.value.message() == text
    statuses = {"NOT_FOUND": "404", "INVALID_ARGUMENT": "400"}
    expected = f"StatusCode.{code}" if road.name == "grpc" else statuses[code]
    assert error.value.status() == expected


def test_a_broken_picture_is_named(road, picture):
    with pytest.raises(InferenceServerException, match=r"image_bytes\[1\]: the picture: expected"):
        road.infer(road.input("image_bytes", np.array([picture, b"x"], object)))


def classify_by(request, count: str) -> None:
    request.outputs.add(name="scores").parameters["classification"].string_param = count


def typed(**contents):
    request = message("ModelInferRequest")(model_name="tiny")
    tensor = request.inputs.add(name="image", datatype="UINT8", shape=[1, 32, 32, 3])
    for name, values in contents.items():
        getattr(tensor.contents, name).extend(values)
    return request


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda r: None, "got unexpected elements count 1, expected 3072"),
        (lambda r: r.raw_input_contents.append(b"\0" * 3072), "contents field must not be"),
        (lambda r: r.inputs[0].shape.__setitem__(0, -1), "unexpected shape for input 'image'"),
        (
            lambda r: r.inputs[0].contents.uint_contents.__setitem__(0, 256),
            "expected values from 0 to 255",
        ),
        (lambda r: r.inputs.append(r.inputs[0]), "input 'image' already exists in request"),
        (lambda r: r.inputs.add(name="x"), "expected 1 inputs but got 2 inputs for model"),
        (lambda r: classify_by(r, "x"), "expected classification of at least 0, got 'x'"),
    ],
)
def test_grpc_refuses_what_its_messages_can_say_wrongly(stub, change, text):
    request = typed(uint_contents=[7])
    change(request)
    with pytest.raises(grpc.RpcError, match=text) as error:
        stub("ModelInfer", request)
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_raw_bytes_of_the_wrong_number_are_refused(stub):
    request = typed()
    request.inputs[0].ClearField("contents")
    request.raw_input_contents.append(b"\0" * 3071)
    with pytest.raises(grpc.RpcError, match="elements count 3071, expected 3072"):
        stub("ModelInfer", request)
    request.raw_input_contents.append(b"")
    with pytest.raises(grpc.RpcError, match="expected raw_input_contents for each of the 1"):
        stub("ModelInfer", request)


TENSOR = {"name": "image", "shape": [1, 32, 32, 3], "datatype": "UINT8", "data": [0] * 3072}
BAD_COUNT = {"name": "scores", "parameters": {"classification": "x"}}
INFER = "/v2/models/tiny/infer"


@pytest.mark.parametrize(
    ("path", "document", "status", "text"),
    [
        (INFER, b"{", 400, "failed to parse the request JSON buffer: "),
        (INFER, b"", 400, "failed to parse the request JSON buffer: "),
        (INFER, {}, 400, "expected 'inputs' to be an array, got nothing"),
        (INFER, {"inputs": [3]}, 400, "expected an object with a name in 'inputs', got 3"),
        (INFER, {"inputs": [{"name": "image"}]}, 400, "expected 'shape' to be an array"),
        (INFER, {"inputs": [{**TENSOR, "shape": ["a"]}]}, 400, "expected a shape of integers"),
        (INFER, {"inputs": [{**TENSOR, "data": [0]}]}, 400, "input 'image' for model 'tiny' got"),
        (INFER, {"inputs": [{**TENSOR, "data": [[1], 2]}]}, 400, "input 'image' for model "),
        (INFER, {"inputs": [{**TENSOR, "data": [256] * 3072}]}, 400, "input 'image' for model "),
        (
            INFER,
            {"inputs": [{**TENSOR, "parameters": {"binary_data_size": 9}}]},
            400,
            "expected binary_data_size of at most 0 for input 'image', got 9",
        ),
        (
            INFER,
            {"inputs": [TENSOR], "outputs": [BAD_COUNT]},
            400,
            "expected classification of at least 0, got 'x'",
        ),
        ("/v2/models/nope/infer", {"inputs": [TENSOR]}, 404, NO_MODEL),
        ("/v2/models/tiny/explain", {}, 404, "Not Found: POST /v2/models/tiny/explain"),
    ],
)  # fmt: skip
def test_rest_refuses(served, path, document, status, text):
    code, found = asked(served, "POST", path, document)
    assert (code, list(found)) == (status, ["error"])
    assert found["error"].startswith(text)


def test_a_full_queue_is_said_in_tritons_words():
    full = QueueFull("The queue is full: 2 requests are computed and 64 wait; try again later")
    with pytest.raises(ServingError) as error, worded(Target("tiny")):
        raise full
    assert (error.value.code, str(error.value)) == (Code.UNAVAILABLE, "Exceeds maximum queue size")


def test_rest_get_refuses(served):
    assert asked(served, "GET", "/v2/models/nope") == (404, {"error": NO_MODEL})
    assert asked(served, "GET", "/v2/models/nope/ready")[0] == 400
    assert asked(served, "GET", "/v2/models/nope/stats") == (404, {"error": NO_MODEL})
    assert asked(served, "GET", "/v2/foo") == (404, {"error": "Not Found: GET /v2/foo"})


def test_rest_refuses_headers_and_bodies_that_do_not_fit(served):
    body = json.dumps({"inputs": [TENSOR]}).encode()
    length = {"Inference_Header_Content_Length": str(len(body) + 1)}
    status, found = asked(served, "POST", INFER, body, **length)
    assert (status, "Inference-Header-Content-Length" in found["error"]) == (400, True)
    length = {"Inference_Header_Content_Length": str(len(body))}
    status, found = asked(served, "POST", INFER, body + b"more", **length)
    assert (status, found["error"]) == (400, "unexpected 4 bytes after the last binary tensor")
    shape = [True, *TENSOR["shape"][1:]]
    body = json.dumps({"inputs": [{**TENSOR, "shape": shape}]}).encode()
    status, found = asked(served, "POST", INFER, body)
    assert (status, "a shape of integers" in found["error"]) == (400, True)
    assert asked(served, "POST", INFER, body, Content_Encoding="br")[0] == 400
    assert asked(served, "POST", INFER, body, Content_Encoding="gzip")[0] == 400


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda body: body[:-1], "it is cut off"),
        (lambda body: body[: len(body) // 2], "it is cut off"),
        (lambda body: body * 2, "more than one stream"),
        (lambda body: body[:-5] + bytes([body[-5] ^ 1]) + body[-4:], "incorrect data check"),
    ],
)
def test_rest_refuses_compressed_bodies_that_are_not_one_whole_stream(served, spoil, why):
    body = spoil(gzip.compress(b'{"instances": []}'))
    status, found = asked(served, "POST", "/v1/models/tiny:predict", body, Content_Encoding="gzip")
    assert (status, why in found["error"]) == (400, True)
    # Without a body there is nothing to unfold, whatever the headers of a client's session say
    assert asked(served, "GET", "/v1/models/tiny", Content_Encoding="gzip")[0] == 200


def test_a_bomb_of_compressed_zeros_is_not_unfolded(served):
    bomb = gzip.compress(b" " * (65 << 20))
    assert len(bomb) < 100_000
    status, found = asked(served, "POST", INFER, bomb, Content_Encoding="gzip")
    assert (status, "at most 67,108,864 bytes" in found["error"]) == (413, True)


# The messages


def test_strings_and_numbers_travel_raw_and_come_back():
    for array in (
        np.array([b"", b"a", b"\0\xff" * 300], object),
        np.arange(5, dtype=np.int16),
        np.array([True, False]),
        np.array([1.5, -2], np.float16),
    ):
        raw = to_raw(array)
        np.testing.assert_array_equal(from_raw(raw, array.dtype), array)
        behind = from_raw(memoryview(b"\0\0\0" + raw)[3:], array.dtype)  # as after some JSON
        np.testing.assert_array_equal(behind, array)
        assert behind.flags.aligned
    with pytest.raises(ValueError, match="no multiple of 4"):
        from_raw(b"12345", np.dtype(np.float32))
    with pytest.raises(ValueError, match="cut off"):
        from_raw(b"\5\0\0\0abcd", np.dtype(object))


def test_our_messages_are_a_part_of_tritons():
    """Every field of ours is one of theirs: the same name, number, type and label."""
    from google.protobuf.descriptor_pool import Default

    theirs = Default()
    methods = theirs.FindServiceByName(service.full_name).methods_by_name
    assert {method.name for method in service.methods} <= set(methods)

    def compare(ours, other):
        for field in ours.fields:
            twin = other.fields_by_number[field.number]
            assert (field.name, field.type, field.is_repeated) == (
                twin.name, twin.type, twin.is_repeated,
            ), ours.full_name  # fmt: skip
        for nested in ours.nested_types:
            compare(nested, other.nested_types_by_name[nested.name])

    file = pool.FindFileByName("oip.proto")
    assert len(file.message_types_by_name) > 30
    for name, ours in file.message_types_by_name.items():
        compare(ours, theirs.FindMessageTypeByName(f"inference.{name}"))


def test_the_compiled_messages_are_those_of_the_proto_file(tmp_path):
    pytest.importorskip("grpc_tools")
    from importlib.resources import files

    folder = files("striate.serve.protocols")
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", f"-I{folder}",
         f"--descriptor_set_out={tmp_path / 'oip.binpb'}", "oip.proto"],
        check=True,
    )  # fmt: skip
    assert (tmp_path / "oip.binpb").read_bytes() == folder.joinpath("oip.binpb").read_bytes()


def test_reflection_knows_both_families_of_services(served):
    from google.protobuf.descriptor_pool import DescriptorPool
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
        ProtoReflectionDescriptorDatabase,
    )

    with grpc.insecure_channel(served.address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        names = database.get_services()
        assert {service.full_name, "tensorflow.serving.PredictionService"} <= set(names)
        found = DescriptorPool(database).FindServiceByName(service.full_name)
        assert "ModelInfer" in found.methods_by_name


@pytest.fixture(scope="module")
def labelled(tiny, tmp_path_factory):
    """Versions 1 and 2 of the same net, the older one called `stable`."""
    base = tmp_path_factory.mktemp("models") / "tiny"
    for number in ("1", "2"):
        shutil.copytree(tiny.path, base / number)
    config = base.parent / "models.config"
    config.write_text(
        f'model_config_list {{ config {{ name: "tiny" base_path: "{base}" '
        "model_version_policy { all {} } "
        'version_labels { key: "stable" value: 1 } } }'
    )
    with ServerProcess("", model_config_file=str(config)) as server:
        yield server


@pytest.mark.parametrize("kind", ["grpc", "http"])
def test_a_label_is_a_version_wherever_one_can_be_named(labelled, tiny, kind):
    triton = {"grpc": triton_grpc, "http": triton_http}[kind]
    address = {"grpc": labelled.address, "http": labelled.url.removeprefix("http://")}[kind]
    images, scores = tiny.goldens()
    given = triton.InferInput("image", [1, 32, 32, 3], "UINT8")
    given.set_data_from_numpy(images[:1])
    as_json = {"as_json": True} if kind == "grpc" else {}
    with triton.InferenceServerClient(address) as client:
        found = client.infer("tiny", [given], model_version="stable")
        response = found.get_response(as_json=True) if kind == "grpc" else found.get_response()
        assert response["model_version"] == "1"
        np.testing.assert_allclose(found.as_numpy("scores"), scores[:1], atol=1e-4)
        assert client.is_model_ready("tiny", "stable")
        assert client.get_model_metadata("tiny", "stable", **as_json)["versions"] == ["1"]
        assert client.get_model_metadata("tiny", **as_json)["versions"] == ["1", "2"]
        stats = client.get_inference_statistics("tiny", "stable", **as_json)["model_stats"]
        assert [each["version"] for each in stats] == ["1"]
        for ask in (
            lambda: client.infer("tiny", [given], model_version="newest"),
            lambda: client.get_model_metadata("tiny", "newest"),
            lambda: client.get_model_config("tiny", "newest"),
        ):
            with pytest.raises(InferenceServerException, match="version string 'newest'"):
                ask()
