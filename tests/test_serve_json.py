"""The JSON of the REST API: rows and columns, base64, numbers, and what is said of mistakes."""

import base64
import json
import time

import numpy as np
import pytest

from striate.serve.protocols import json_tensors
from striate.serve.protos import example_pb2
from striate.serve.signatures import PREDICT, Signature, TensorSpec
from striate.serve.status import Code, ServingError


def signature(**inputs) -> Signature:
    specs = {name: TensorSpec(np.dtype(dtype), ()) for name, dtype in inputs.items()}
    return Signature("s", PREDICT, specs, {})


PIXELS = signature(image="uint8")
FLOATS = signature(x="float32")
TEXT = signature(image_bytes="object")
TWO = signature(a="float32", b="int32")


def refused(call, *args) -> str:
    with pytest.raises(ServingError) as error:
        call(*args)
    assert error.value.code == Code.INVALID_ARGUMENT
    return str(error.value)


def test_rows_and_columns_give_the_same_tensor():
    rows = json_tensors.from_rows([[1, 2], [3, 255]], PIXELS)["image"]
    assert rows.dtype == np.uint8
    assert rows.tolist() == [[1, 2], [3, 255]]
    assert json_tensors.from_rows([{"image": [1, 2]}, {"image": [3, 255]}], PIXELS)[
        "image"
    ].tolist() == [[1, 2], [3, 255]]
    assert json_tensors.from_columns([[1, 2], [3, 255]], PIXELS)["image"].tolist() == rows.tolist()
    named = json_tensors.from_columns({"image": [[1, 2], [3, 255]]}, PIXELS)
    assert named["image"].tolist() == rows.tolist()


def test_several_inputs_are_named():
    rows = json_tensors.from_rows([{"a": 1, "b": 2}, {"a": 0.5, "b": 3}], TWO)
    assert rows["a"].tolist() == [1, 0.5]
    assert rows["b"].dtype == np.int32
    assert "multiple input tensors" in refused(json_tensors.from_rows, [1, 2], TWO)
    assert "multiple input tensors" in refused(json_tensors.from_columns, [1, 2], TWO)
    assert refused(json_tensors.from_columns, {"a": [1]}, TWO) == (
        "Missing named input: b in 'inputs' object."
    )
    assert "keys must be equal to: a,b" in refused(json_tensors.from_rows, [{"a": 1}], TWO)


def test_base64_is_bytes_and_text_is_utf8():
    data = bytes(range(256))
    b64 = {"b64": base64.b64encode(data).decode()}
    assert json_tensors.from_rows([b64, "ü"], TEXT)["image_bytes"].tolist() == [data, "ü".encode()]
    row = [{"image_bytes": b64}]
    assert json_tensors.from_rows(row, TEXT)["image_bytes"].tolist() == [data]
    assert refused(json_tensors.from_rows, [{"b64": "%"}], TEXT).endswith("Unable to base64 decode")
    assert "Type: Object is not of expected type: uint8" in refused(
        json_tensors.from_rows, [b64], PIXELS
    )


def test_brackets_in_text_nest_nothing_and_hide_nothing():
    texts = ['say "[', "{" * 80, "\\", *["["] * 100]
    document = json_tensors.parse(json.dumps({"instances": texts}).encode())
    found = json_tensors.from_rows(document["instances"], TEXT)["image_bytes"]
    assert found.tolist() == [text.encode() for text in texts]
    hidden = b'{"a": "%b", "instances": %b' % (b"]" * 200_000, b"[" * 100_000)
    assert "nested 100001 deep" in refused(json_tensors.parse, hidden)


def test_lists_and_objects_side_by_side_nest_no_deeper():
    rows = [{"image": [row]} for row in range(200)]
    assert json_tensors.parse(json.dumps({"instances": rows}).encode()) == {"instances": rows}
    deepest = b'{"inputs": ' + b"[[]," * 62 + b"[]" + b"]" * 62 + b"}"
    assert "inputs" in json_tensors.parse(deepest)
    deeper = deepest.replace(b"[]]", b"[[]]]")
    assert "nested 65 deep, expected at most 64" in refused(json_tensors.parse, deeper)


@pytest.mark.parametrize("part", [b'\\"', b'"', b"\\", b'"\\'])
def test_strings_without_an_end_cost_no_more_than_others(part):
    """A megabyte; where each quote looks through all that follows it, that takes an hour."""
    begun = time.process_time()
    refused(json_tensors.parse, b'"' + part * 500_000)
    assert time.process_time() - begun < 5


def test_half_a_character_is_the_clients_mistake():
    for text in ('["\\ud800"]', '[{"image_bytes": "\\ud800"}]'):
        assert 'JSON Value: "\\ud800" is not Unicode text' in refused(
            json_tensors.from_rows, json.loads(text), TEXT
        )
    for example in ({"a": "\ud800"}, {"\ud800": 1}):
        assert "is not Unicode text" in refused(json_tensors.to_examples, {"examples": [example]})
    assert "utf-8" in refused(json_tensors.parse, '{"instances": [1]}'.encode("utf-16"))


def test_nan_and_infinity_are_numbers_both_ways():
    document = json_tensors.parse(b'{"inputs": [NaN, Infinity, -Infinity]}')
    found = json_tensors.from_columns(document["inputs"], FLOATS)["x"]
    np.testing.assert_array_equal(found, np.array([np.nan, np.inf, -np.inf], np.float32))
    assert json.dumps(json_tensors.to_json(found, "x")) == "[NaN, Infinity, -Infinity]"


@pytest.mark.parametrize("number", ["1e400", "-1E+0309", "2" * 309 + ".0", "0.1e310"])
@pytest.mark.parametrize("key", ["instances", "inputs"])
def test_a_number_past_all_doubles_is_refused_where_it_stands_and_no_infinity(key, number):
    body = f'{{"a": "{number}é", "{key}": [1.5, {number}]}}'.encode()
    assert refused(json_tensors.parse, body) == (
        "JSON Parse error: Number too big to be stored in double. at offset: "
        f"{body.rindex(number.encode())}"
    )


def test_large_and_long_numbers_that_doubles_hold_are_taken():
    text = f"[1.7976931348623157e308, 1e-400, {'1' * 300}.5, 0.{'1' * 500}]"
    assert json_tensors.parse(f'{{"inputs": {text}}}'.encode())["inputs"] == json.loads(text)


def test_a_number_beyond_a_dtype_is_refused_and_not_made_infinite():
    for values in ([1.0, 1e39], [-1e39]):
        assert refused(json_tensors.from_columns, values, FLOATS) == (
            f"Cannot convert JSON value: {values[-1]} to float without loss of precision."
        )
    half = signature(x="float16")
    assert "to half without loss" in refused(json_tensors.from_rows, [70_000], half)
    wide = json_tensors.from_columns([1e39], signature(x="float64"))["x"]
    assert wide.tolist() == [1e39]
    most = float(np.finfo(np.float32).max)
    assert json_tensors.from_columns([most, -most], FLOATS)["x"].tolist() == [most, -most]


def test_floats_are_written_as_short_as_they_read_back():
    values = np.array([0.2, 3, 1e-8, 1 / 3], np.float32)
    written = json.dumps(json_tensors.to_json(values, "scores"))
    assert written == "[0.2, 3.0, 1e-08, 0.33333334]"
    assert (np.array(json.loads(written), np.float32) == values).all()


def test_bytes_are_written_by_the_name_of_their_tensor():
    values = np.array([b"chair"], object)
    assert json_tensors.to_json(values, "classes") == ["chair"]
    assert json_tensors.to_json(values, "picture_bytes") == [{"b64": "Y2hhaXI="}]


def test_one_output_is_bare_and_several_are_objects():
    scores, classes = np.ones((2, 1), np.float32), np.array([[b"a"], [b"b"]], object)
    one, two = {"scores": scores}, {"scores": scores, "classes": classes}
    assert json_tensors.write(one, rows=True) == {"predictions": [[1.0], [1.0]]}
    assert json_tensors.write(one, rows=False) == {"outputs": [[1.0], [1.0]]}
    assert json_tensors.write(two, rows=True)["predictions"][1] == {
        "scores": [1.0],
        "classes": ["b"],
    }
    assert json_tensors.write(two, rows=False)["outputs"]["classes"] == [["a"], ["b"]]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "JSON Parse error: The document is empty"),
        (b"{", "at offset: 1"),
        (b"nope", "JSON Parse error: Invalid value. at offset: 0"),
        (b"[1]", "JSON Value: [1] Is not object"),
        (b"\xff{}", "JSON Parse error: "),
        (b'{"inputs": ' + b"9" * 5000 + b"}", "JSON Parse error: "),
        (b'{"inputs": ' + b"[" * 100_000, "nested 100001 deep, expected at most 64"),
    ],
)
def test_what_is_no_json_object_is_refused(body, message):
    assert message in refused(json_tensors.parse, body)


def test_a_request_is_in_one_format():
    assert "only one of 'inputs' or 'instances'" in refused(
        json_tensors.is_rows, {"inputs": [], "instances": []}
    )
    assert refused(json_tensors.is_rows, {}) == "Missing 'inputs' or 'instances' key"
    assert "to be an list/array" in refused(json_tensors.from_rows, 3, PIXELS)
    assert "No values in 'instances'" in refused(json_tensors.from_rows, [], PIXELS)
    assert "'signature_name' key must be a string" in refused(
        json_tensors.signature_name, {"signature_name": 3}
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([["x"]], 'JSON Value: "x" Type: String is not of expected type: uint8'),
        ([[1.5]], "JSON Value: 1.5 Type: Number is not of expected type: uint8"),
        ([[300]], "JSON Value: 300 Type: Number is not of expected type: uint8"),
        ([[-1]], "JSON Value: -1 Type: Number is not of expected type: uint8"),
        ([[True]], "JSON Value: true Type: True is not of expected type: uint8"),
        ([[None]], "JSON Value: null Type: Null is not of expected type: uint8"),
        ([[float("nan")]], "JSON Value: NaN Type: Number is not of expected type: uint8"),
        ([[1 << 70]], "Type: Number is not of expected type: uint8"),
        (
            [[1, 2, 3], [1, 2]],
            "Encountered list at unexpected size: 2 at level: 1 expected size: 3",
        ),
        ([[1], 2], "found at incorrect level: 2"),
        ([1, [2]], "Encountered list at unexpected level: 1 expected < 1"),
    ],
)
def test_a_wrong_value_is_named(value, message):
    assert message in refused(json_tensors.from_columns, value, PIXELS)


def test_a_wrong_instance_is_counted():
    assert refused(json_tensors.from_rows, [[1], ["x"]], PIXELS) == (
        "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "
        'JSON Value: "x" Type: String is not of expected type: uint8'
    )
    assert refused(json_tensors.from_rows, [[1], [1, 2]], PIXELS) == (
        "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "
        "Expecting shape [1] but got: [2]"
    )
    assert "element: 0 key: image of" in refused(json_tensors.from_rows, [{"image": "x"}], PIXELS)


def test_examples_take_whole_numbers_of_64_bits_and_no_larger_ones():
    ends = [-(2**63), 2**63 - 1]
    (serialized,) = json_tensors.to_examples({"examples": [{"i": ends}]})
    features = example_pb2.Example.FromString(serialized).features
    assert features.feature["i"].int64_list.value == ends
    for number in (ends[0] - 1, ends[1] + 1):
        assert f"unexpected JSON type: {number}" in refused(
            json_tensors.to_examples, {"examples": [{"i": number}]}
        )


def test_examples_take_the_types_of_their_values():
    document = {
        "context": {"c": "x"},
        "examples": [{"i": [1, True], "f": 0.5, "s": ["a", {"b64": "AP8="}]}],
    }
    (serialized,) = json_tensors.to_examples(document)
    feature = example_pb2.Example.FromString(serialized).features.feature
    assert feature["i"].int64_list.value == [1, 1]
    assert feature["f"].float_list.value == [0.5]
    assert feature["s"].bytes_list.value == [b"a", b"\x00\xff"]
    assert feature["c"].bytes_list.value == [b"x"]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "key 'examples' is expected and was not found"),
        ({"examples": 3}, "Expecting 'examples' value to be an list/array"),
        ({"examples": []}, "'examples' value is an empty array"),
        ({"examples": [3]}, "Example must be JSON object but got JSON 3"),
        ({"examples": [{"f": [1, "x"]}]}, "Unexpected element type in feature: f expecting type: "),
        ({"examples": [{"f": [[1]]}]}, "Feature: f has element with unexpected JSON type"),
        ({"examples": [{"f": None}]}, "Feature: f has element with unexpected JSON type"),
    ],
)
def test_wrong_examples_are_refused(document, message):
    assert message in refused(json_tensors.to_examples, document)
