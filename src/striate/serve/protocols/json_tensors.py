"""TensorFlow Serving's JSON <-> named numpy tensors, in rows (`instances`) or columns (`inputs`).

Numbers go through numpy in one step; only what numpy refuses is walked through, to say exactly
where it is wrong. Binary strings are objects {"b64": "..."}.
"""

import base64
import binascii
import json
import math
import re
from typing import Any

import numpy as np

from striate.serve.protos import example_pb2
from striate.serve.signatures import Signature, Tensors, TensorSpec, type_name
from striate.serve.status import ServingError, invalid

MAX_DEPTH = 64  # of nested lists and objects; numpy has no more dimensions either

# One without an end goes on to that of the text, or each quote in it would be looked at anew
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)
_DEEPER = np.zeros(256, np.int8)
_DEEPER[[ord("["), ord("{")]] = 1
_DEEPER[[ord("]"), ord("}")]] = -1

# Numbers past all doubles have an exponent of three digits, or 200 digits in a row, which fill a
# block of half as many wherever they begin. To look for these costs less than for the numbers.
_LARGE = re.compile(rb"[eE]\+?\d{3}")
_BLOCK = 100


def parse(body: bytes) -> dict[str, Any]:
    """The JSON object in a request's body; NaN and Infinity are numbers."""
    if not body.strip():
        raise invalid("JSON Parse error: The document is empty")
    outside = _STRING.sub(b"", body)  # brackets in text nest nothing
    if outside.count(b"[") + outside.count(b"{") > MAX_DEPTH:  # fewer cannot nest deeper
        _check_depth(outside)
    try:
        document = json.loads(
            str(body, "utf-8-sig"), parse_float=_finite if _has_large(outside) else None
        )
    except json.JSONDecodeError as error:
        what = "Invalid value." if error.msg == "Expecting value" else f"{error.msg}."
        raise invalid(f"JSON Parse error: {what} at offset: {error.pos}") from None
    except UnicodeDecodeError as error:
        raise invalid(
            f"JSON Parse error: {error}. A picture as the body of :classify or :predict needs "
            "Content-Type: image/..."
        ) from None
    except _TooBig as error:
        where = _STRING.sub(lambda text: b" " * len(text[0]), body).find(error.number.encode())
        raise invalid(
            f"JSON Parse error: Number too big to be stored in double. at offset: {where}"
        ) from None
    except ValueError as error:
        raise invalid(f"JSON Parse error: {error}") from None
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {shown(document)} Is not object")
    return document


def _check_depth(text: bytes) -> None:
    """Refuse JSON, here without its strings, that nests deeper than `MAX_DEPTH`."""
    depth = np.cumsum(_DEEPER[_bytes(text)], dtype=np.int32).max()
    if depth > MAX_DEPTH:
        raise invalid(f"JSON Parse error: nested {depth} deep, expected at most {MAX_DEPTH}")


class _TooBig(Exception):
    """A number that no double holds; json would make it Infinity, which is said in a word."""

    def __init__(self, number: str):
        super().__init__(number)
        self.number = number


def _finite(number: str) -> float:
    found = float(number)
    if math.isinf(found):
        raise _TooBig(number)
    return found


def _has_large(text: bytes) -> bool:
    """Whether there may be numbers past all doubles in JSON without its strings."""
    if _LARGE.search(text):
        return True
    if len(text) < 2 * _BLOCK:
        return False
    blocks = _bytes(text)[: len(text) // _BLOCK * _BLOCK].reshape(-1, _BLOCK)
    return bool((blocks - ord("0") <= 9).all(axis=1).any())


def _bytes(text: bytes) -> np.ndarray:
    return np.frombuffer(text, np.uint8)


def signature_name(document: dict[str, Any]) -> str:
    """The signature that a request names; empty for the default one."""
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(
            f"JSON Value: {shown(document)} not formatted correctly. "
            "'signature_name' key must be a string value."
        )
    return name


def is_rows(document: dict[str, Any]) -> bool:
    """Whether a predict request is in row format; it must be in exactly one of the two."""
    if "instances" in document and "inputs" in document:
        raise invalid(
            f"JSON Value: {shown(document)} Not formatted correctly expecting only one of 'inputs' "
            "or 'instances' keys to exist "
        )
    if "instances" not in document and "inputs" not in document:
        raise invalid("Missing 'inputs' or 'instances' key")
    return "instances" in document


def from_rows(instances: Any, signature: Signature) -> Tensors:
    """The tensors of `instances`: a list of values, or of objects with one value an input."""
    if not isinstance(instances, list):
        raise invalid(f"JSON Value: {shown(instances)} Excepting 'instances' to be an list/array")
    if not instances:
        raise invalid("JSON Value: [] No values in 'instances' array")
    if not _is_named(instances[0]):
        if len(signature.inputs) > 1:
            raise invalid(
                "instances is a plain list, but expecting list of objects as multiple input "
                "tensors required as per tensorinfo_map"
            )
        (name,) = signature.inputs
        return {name: _stack(instances, signature.inputs[name])}
    columns: dict[str, list] = {name: [] for name in signature.inputs}
    for i, element in enumerate(instances):
        if not _is_named(element):
            raise invalid(f"Expecting object but got list at item {i} of input list")
        if set(element) != set(columns):
            raise invalid(
                f"Failed to process element: {i} of 'instances' list. "
                f"JSON object: {shown(element)} keys must be equal to: {','.join(sorted(columns))}"
            )
        for name, value in element.items():
            columns[name].append(value)
    return {
        name: _stack(values, signature.inputs[name], key=f" key: {name}")
        for name, values in columns.items()
    }


def from_columns(inputs: Any, signature: Signature) -> Tensors:
    """The tensors of `inputs`: an object with one value an input, or the value of the only one."""
    if not _is_named(inputs):
        if len(signature.inputs) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors "
                "required as per tensorinfo_map"
            )
        (name,) = signature.inputs
        return {name: to_array(inputs, signature.inputs[name])}
    for name in signature.inputs.keys() - signature.defaults.keys():
        if name not in inputs:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
    return {
        name: to_array(inputs[name], spec)
        for name, spec in signature.inputs.items()
        if name in inputs
    }


def to_array(value: Any, spec: TensorSpec) -> np.ndarray:
    """A JSON value as an array of the dtype that a signature wants; its shape is the value's."""
    shape = _shape(value)
    if spec.dtype.kind == "O":
        flat = _flat(value, shape, spec.dtype)
        array = np.empty(len(flat), object)
        array[:] = flat
        return array.reshape(shape)
    try:
        array = np.array(value)
    except (ValueError, OverflowError):  # lists of several lengths, or integers past all dtypes
        array = np.array(_flat(value, shape, spec.dtype)).reshape(shape)
    if not _holds(array, spec.dtype):
        array = np.array(_flat(value, shape, spec.dtype)).reshape(shape)
    return array.astype(spec.dtype)


def write(outputs: Tensors, *, rows: bool) -> dict[str, Any]:
    """The answer to a predict request, in the format of the request."""
    if not rows:
        columns = {name: to_json(array, name) for name, array in outputs.items()}
        return {"outputs": next(iter(columns.values())) if len(columns) == 1 else columns}
    _check_rows(outputs)
    columns = {name: to_json(array, name) for name, array in outputs.items()}
    if len(columns) == 1:
        return {"predictions": next(iter(columns.values()))}
    names = list(columns)
    return {
        "predictions": [
            dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)
        ]
    }


def _check_rows(outputs: Tensors) -> None:
    """Row format needs a row in every output for every row in the others."""
    sizes = {name: len(array) if array.ndim else None for name, array in outputs.items()}
    first = next(iter(sizes.values()))
    for name, size in sizes.items():
        if size is None:
            raise invalid(f"Tensor name: {name} has no shape information ")
        if size != first:
            raise invalid(
                f"Tensor name: {name} has inconsistent batch size: {size} expecting: {first}"
            )


def to_json(array: np.ndarray, name: str) -> Any:
    """An array as JSON values: floats in as few digits as they need; `*_bytes` as base64."""
    if array.dtype.kind == "O":
        encode = _encode if name.endswith("_bytes") else bytes.decode
        flat = [encode(value) for value in array.ravel()]
        return np.array(flat, object).reshape(array.shape).tolist()
    if array.dtype == np.float32:
        return array.astype(str).astype(np.float64).tolist()
    return array.tolist()


def to_examples(document: dict[str, Any], method: str = "classify") -> list[bytes]:
    """The serialized tf.Examples of a classify or regress request, its context merged into each."""
    examples = document.get("examples")
    if examples is None:
        raise invalid(
            f"JSON Value: {shown(document)} When method is {method}, "
            "key 'examples' is expected and was not found"
        )
    if not isinstance(examples, list):
        raise invalid(
            f"JSON Value: {shown(examples)} Expecting 'examples' value to be an list/array"
        )
    if not examples:
        raise invalid("JSON Value: [] 'examples' value is an empty array")
    context = _example(document["context"]) if "context" in document else b""
    return [context + _example(example) for example in examples]


def _example(features: Any) -> bytes:
    """{feature: value or list} as a serialized tf.Example: strings, whole numbers or decimals."""
    if not isinstance(features, dict):
        raise invalid(f"Example must be JSON object but got JSON {shown(features)}")
    example = example_pb2.Example()
    for name, value in features.items():
        _utf8(name)
        feature = example.features.feature[name]
        for element in value if isinstance(value, list) else [value]:
            _add(feature, name, element)
    return example.SerializeToString()


def _add(feature, name: str, element: Any) -> None:
    value: bytes | float
    if is_b64(element):
        kind, value = "bytes_list", decode_b64(element)
    elif isinstance(element, str):
        kind, value = "bytes_list", _utf8(element)
    elif isinstance(element, float):
        kind, value = "float_list", element
    elif isinstance(element, int) and -(1 << 63) <= element < 1 << 63:
        kind, value = "int64_list", int(element)
    else:
        raise invalid(f"Feature: {name} has element with unexpected JSON type: {shown(element)}")
    if feature.WhichOneof("kind") not in (None, kind):
        expected = feature.WhichOneof("kind").removesuffix("_list")
        raise invalid(f"Unexpected element type in feature: {name} expecting type: {expected}")
    getattr(feature, kind).value.append(value)


def shown(value: Any) -> str:
    """A JSON value in an error message, shortened."""
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def is_b64(value: Any) -> bool:
    """Whether a JSON value is {"b64": "..."} and nothing else."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def decode_b64(value: dict[str, str]) -> bytes:
    """The bytes of {"b64": "..."}."""
    try:
        return base64.b64decode(value["b64"], validate=True)
    except (binascii.Error, ValueError):
        raise invalid("Unable to base64 decode") from None


def _encode(value: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(value).decode()}


def _utf8(text: str) -> bytes:
    """Text as bytes; JSON can write what is none, half of a character of four bytes."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise invalid(f"JSON Value: {shown(text)} is not Unicode text") from None


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not is_b64(value)


def _stack(values: list, spec: TensorSpec, key: str = "") -> np.ndarray:
    """The values of one input, one an instance, as one array; an error names the instance."""
    try:
        return to_array(values, spec)
    except ServingError:
        first = None
        for i, value in enumerate(values):
            try:
                array = to_array(value, spec)
                first = array.shape if first is None else first
                if array.shape != first:
                    raise invalid(
                        f"Expecting shape {_listed(first)} but got: {_listed(array.shape)}"
                    )
            except ServingError as error:
                raise invalid(
                    f"Failed to process element: {i}{key} of 'instances' list. "
                    f"Error: INVALID_ARGUMENT: {error}"
                ) from None
        raise


def _shape(value: Any) -> tuple[int, ...]:
    """The shape of nested lists by their first elements."""
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        value = value[0] if value else None
    return tuple(shape)


def _holds(array: np.ndarray, dtype: np.dtype) -> bool:
    """Whether JSON numbers, as numpy read them, are values of a dtype."""
    if dtype.kind == "f":
        return array.dtype.kind in "iuf" and not _beyond(array, dtype).any()
    if dtype.kind not in "iu" or array.dtype.kind not in "iu":
        return array.dtype.kind == dtype.kind == "b"
    limits = np.iinfo(dtype)
    return array.size == 0 or bool(limits.min <= array.min() and array.max() <= limits.max)


def _beyond(array: np.ndarray, dtype: np.dtype) -> np.ndarray | np.bool_:
    """Which numbers a floating dtype would make infinite, though they are not."""
    if dtype.itemsize >= array.dtype.itemsize:
        return np.False_
    most = np.finfo(dtype).max
    return (np.abs(array) > most) & np.isfinite(array)


def _flat(value: Any, shape: tuple[int, ...], dtype: np.dtype, level: int = 0) -> list:
    """The leaves of nested lists in order; the first that does not fit is an error."""
    if not isinstance(value, list):
        if level != len(shape):
            raise invalid(
                f"JSON Value: {shown(value)} found at incorrect level: {level + 1} in the JSON "
                f"DOM. Expected at level: {len(shape)}"
            )
        return [_leaf(value, dtype)]
    if level >= len(shape):
        raise invalid(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        raise invalid(
            f"Encountered list at unexpected size: {len(value)} at level: {level} "
            f"expected size: {shape[level]}"
        )
    return [leaf for element in value for leaf in _flat(element, shape, dtype, level + 1)]


def _leaf(value: Any, dtype: np.dtype) -> Any:
    if dtype.kind == "O" and isinstance(value, str):
        return _utf8(value)
    if dtype.kind == "O" and is_b64(value):
        return decode_b64(value)
    if dtype.kind == "O" and isinstance(value, dict):
        raise invalid(f"JSON Value: {shown(value)} not formatted correctly for base64 data")
    if dtype.kind != "O" and not isinstance(value, list | dict | str | None):
        number = np.array(value)
        if _holds(number, dtype):
            return value
        if dtype.kind == "f" and number.dtype.kind in "iuf":
            word = type_name(dtype)
            raise invalid(
                f"Cannot convert JSON value: {shown(value)} to {word} without loss of precision."
            )
    hint = ' (encoded pictures go to the signature "bytes")' if is_b64(value) else ""
    raise invalid(
        f"JSON Value: {shown(value)} Type: {_json_type(value)} "
        f"is not of expected type: {type_name(dtype)}{hint}"
    )


def _json_type(value: Any) -> str:
    if isinstance(value, bool):
        return str(value)
    words = {dict: "Object", list: "Array", str: "String", type(None): "Null"}
    return words.get(type(value), "Number")


def _listed(shape: tuple[int, ...]) -> str:
    return f"[{','.join(str(size) for size in shape)}]"
