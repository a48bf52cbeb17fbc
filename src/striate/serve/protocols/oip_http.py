"""The Open Inference Protocol over REST, under /v2, with the binary tensor extension.

GET  /v2                                          who serves, and which extensions
GET  /v2/health/live | ready
GET  /v2/models/NAME[/versions/V]                 inputs and outputs
GET  /v2/models/NAME[/versions/V]/ready | config | stats
POST /v2/models/NAME[/versions/V]/infer
GET  /v2/models/stats
POST /v2/repository/index
POST /v2/repository/models/NAME/load | unload
"""

import json
import re
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import unquote

import numpy as np
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from striate.serve.calls import current
from striate.serve.core import Core, Target
from striate.serve.protocols import json_tensors, oip, oip_about
from striate.serve.protocols.web import json_response, left, raw_path
from striate.serve.status import Code, ServingError, invalid

HEADER_LENGTH = "Inference-Header-Content-Length"

_MODEL = re.compile(
    r"/v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?(?:/(?P<part>[a-z]+))?"
)
_CONTROL = re.compile(r"/v2/repository/models/[^/]+/(load|unload)")


def infers(request: HttpRequest) -> bool:
    """Whether a request under /v2 asks a model for an answer, and has to wait for its turn."""
    match = _MODEL.fullmatch(raw_path(request).rstrip("/"))
    return request.method == "POST" and match is not None and match["part"] == "infer"


def answer(
    core: Core, retired: Callable[[], bool], request: HttpRequest, body: bytes, deadline: float
) -> Response:
    """The response to one request under /v2."""
    path = raw_path(request).rstrip("/")
    asked = (request.method, path)
    if asked == ("GET", "/v2"):
        return json_response(oip_about.server_metadata())
    if asked == ("GET", "/v2/health/live"):
        return json_response({"live": True})
    if asked == ("GET", "/v2/health/ready"):
        ready = core.repository.ready() and not retired()
        return json_response({"ready": ready}, 200 if ready else 400)
    if asked == ("GET", "/v2/models/stats"):
        return _stats(core, Target(""))
    if asked == ("POST", "/v2/repository/index"):
        only_ready = bool(_parsed(body or b"{}").get("ready", False))
        return json_response(oip_about.repository_index(core, only_ready=only_ready))
    if request.method == "POST" and _CONTROL.fullmatch(path):
        raise oip_about.control_refused()
    if match := _MODEL.fullmatch(path):
        target = oip.target_of(unquote(match["model"]), unquote(match["version"] or ""))
        if infers(request):
            return _infer(core, target, request, body, deadline)
        if request.method == "GET" and match["part"] in _LOOKS:
            return _LOOKS[match["part"]](core, target)
    raise ServingError(Code.NOT_FOUND, f"Not Found: {request.method} {path}")


def _ready(core: Core, target: Target) -> Response:
    ready = oip_about.model_ready(core, target)
    document = {"name": target.model, "ready": ready}
    return json_response(document, 200 if ready else 400)


def _stats(core: Core, target: Target) -> Response:
    return json_response({"model_stats": oip_about.statistics(core, target)})


_LOOKS: dict[str | None, Callable[[Core, Target], Response]] = {
    None: lambda core, target: json_response(oip_about.model_metadata(core, target)),
    "ready": _ready,
    "config": lambda core, target: json_response(oip_about.model_config(core, target)),
    "stats": _stats,
}


def _infer(
    core: Core, target: Target, request: HttpRequest, body: bytes, deadline: float
) -> Response:
    length = _header_length(request, len(body))
    document = _parsed(body[:length])
    current().named(str(document.get("id", "")))
    asked = oip.Inference(
        target,
        inputs=_inputs(document, memoryview(body)[length:]),
        outputs={
            name: oip.class_count(parameters) for name, parameters in _wanted(document).items()
        },
        parameters=_parameters(document),
        deadline=deadline,
        gone=left(request),
    )
    return _written(document, oip.infer(core, asked))


def _written(document: dict[str, Any], found: oip.Inferred) -> Response:
    """The answer to the request in `document`, each tensor as it wants to have it."""
    wanted = _wanted(document)
    otherwise = _parameters(document).get("binary_data_output", False)
    outputs, parts = [], []
    for name, array in found.outputs.items():
        output = {"name": name, "datatype": oip.datatype(array.dtype), "shape": list(array.shape)}
        if wanted.get(name, {}).get("binary_data", otherwise):
            parts.append(oip.to_raw(array))
            outputs.append({**output, "parameters": {"binary_data_size": len(parts[-1])}})
        else:
            outputs.append({**output, "data": _values(array)})
    answer = {"model_name": found.model, "model_version": found.version, "outputs": outputs}
    if "id" in document:
        answer["id"] = document["id"]
    return _with_parts(answer, parts)


def _with_parts(document: dict[str, Any], parts: list[bytes]) -> Response:
    """JSON, and after it the binary tensors; the header says where one ends."""
    if not parts:
        return json_response(document)
    head = json.dumps(document).encode()
    return Response(
        b"".join([head, *parts]),
        media_type="application/octet-stream",
        headers={HEADER_LENGTH: str(len(head))},
    )


def _wanted(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The outputs that a request names, and the parameters of each."""
    outputs = _member(document, "outputs", list, [])
    for output in outputs:
        _expect_name(output, "outputs")
    return {output["name"]: _parameters(output) for output in outputs}


def _inputs(document: dict[str, Any], tail: memoryview) -> list[oip.Input]:
    """The tensors of a request: JSON values, or the bytes that follow the JSON, in order."""
    found, position = [], 0
    for tensor in _member(document, "inputs", list):
        _expect_name(tensor, "inputs")
        name, shape = tensor["name"], _member(tensor, "shape", list)
        if not all(map(oip.is_integer, shape)):
            raise invalid(f"expected a shape of integers for input '{name}', got {shape}")
        size = _parameters(tensor).get("binary_data_size")
        if size is None:
            if "data" not in tensor:
                raise invalid(f"expected 'data' or 'binary_data_size' for input '{name}'")
            read = partial(_from_json, tensor["data"], tuple(shape))
        else:
            if not oip.is_integer(size) or not 0 <= size <= len(tail) - position:
                raise invalid(
                    f"expected binary_data_size of at most {len(tail) - position} for input "
                    f"'{name}', got {size!r}"
                )
            read = partial(oip.from_raw, tail[position : position + size])
            position += size
        found.append(oip.Input(name, _member(tensor, "datatype", str), tuple(shape), read))
    if position != len(tail):
        raise invalid(f"unexpected {len(tail) - position} bytes after the last binary tensor")
    return found


def _from_json(data: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """JSON values, nested as the shape says or in one flat list."""
    if not isinstance(data, list):
        data = [data]
    if dtype.kind == "O":
        return oip.objects(_strings(data))
    try:
        return json_tensors.to_array(data, oip.TensorSpec(dtype, shape)).ravel()
    except ServingError as error:
        raise ValueError(str(error)) from None


def _strings(data: Any) -> list[bytes]:
    """Strings in lists of any depth; {"b64": "..."} where one is no text, as in TensorFlow's."""
    if isinstance(data, list):
        return [text for element in data for text in _strings(element)]
    if isinstance(data, str):
        return [data.encode()]
    if json_tensors.is_b64(data):
        return [json_tensors.decode_b64(data)]
    raise ValueError(f"expected strings, got {json_tensors.shown(data)}")


def _values(array: np.ndarray) -> list[Any]:
    """An array as one flat list, row by row."""
    if array.dtype.kind != "O":
        return json_tensors.to_json(array.ravel(), "")
    try:
        return [text.decode() for text in array.ravel()]
    except UnicodeDecodeError:
        raise invalid("the output is no text: ask for it with binary_data") from None


def _parsed(head: bytes) -> dict[str, Any]:
    try:
        return json_tensors.parse(head)
    except ServingError as error:
        raise invalid(f"failed to parse the request JSON buffer: {error}") from None


def _header_length(request: HttpRequest, most: int) -> int:
    text = request.headers.get(HEADER_LENGTH, str(most))
    if not text.isdecimal() or len(text) > 19 or int(text) > most:
        raise invalid(f"expected {HEADER_LENGTH} from 0 to {most}, got {text[:20]!r}")
    return int(text)


def _parameters(tensor: dict[str, Any]) -> dict[str, Any]:
    return _member(tensor, "parameters", dict, {})


def _expect_name(tensor: Any, where: str) -> None:
    if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
        raise invalid(f"expected an object with a name in '{where}', got {tensor!r:.200}")


_WORDS: dict[type, str] = {dict: "an object", list: "an array", str: "a string"}


def _member(document: dict[str, Any], key: str, kind: type, default: Any = None) -> Any:
    """A member of a JSON object, of the type that the protocol gives it."""
    value = document.get(key, default)
    if not isinstance(value, kind):
        got = "nothing" if value is None else f"{value!r:.200}"
        raise invalid(f"expected '{key}' to be {_WORDS[kind]}, got {got}")
    return value
