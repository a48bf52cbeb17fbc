"""TensorFlow Serving's REST API over the core, and the ASGI application of all that speaks HTTP.

    POST /v1/models/NAME[/versions/N|/labels/L]:predict | :classify | :regress
    GET  /v1/models/NAME[/versions/N|/labels/L]              status
    GET  /v1/models/NAME[/versions/N|/labels/L]/metadata     signatures
    GET  /v1/models/NAME[/versions/N|/labels/L]/drift        recent pictures beside the baseline
    POST /v1/models/NAME:resume                              a held canary goes on (`canary`)
    GET  /healthz                                            200 once every model answers, else 503
    GET  /metrics                                            for Prometheus (`observe.metrics`)

A body is JSON whatever its content type says, unless that is image/...: then the body is a picture
(`pictures`). /v2 is the Open Inference Protocol (`oip_http`), / the page to try it (`page`).

Errors are {"error": "..."} with the HTTP code that TensorFlow Serving gives for the gRPC code.
"""

import functools
import re
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

import numpy as np
from google.protobuf import json_format
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from striate.serve import protos, tensors
from striate.serve.core import Core, Request, Target, version_number
from striate.serve.observe import metrics
from striate.serve.protocols import json_tensors, oip, oip_http, page, pictures, tfs_inference
from striate.serve.protocols.tfs_messages import METADATA_FIELD, metadata_of, status_of
from striate.serve.protocols.web import METHODS, Line, json_response, left, raw_path, threaded
from striate.serve.signatures import Signature, Tensors
from striate.serve.status import Code, ServingError, UnknownSignature, invalid

_WHOM = r"/v1/models/(?P<model>[^/:]+)(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_SHOW = re.compile(_WHOM + r":(?P<method>classify|predict|explain)", re.IGNORECASE)
_ASK = re.compile(_WHOM + r":(?P<method>classify|regress|predict)", re.IGNORECASE)
_RESUME = re.compile(r"/v1/models/(?P<model>[^/:]+):resume", re.IGNORECASE)
_LOOK = re.compile(_WHOM + r"(?:/(?P<part>metadata|drift))?", re.IGNORECASE)


def application(
    core: Core,
    executor: Executor,
    *,
    timeout_seconds: float,
    retired: Callable[[], bool],
    crowded: Callable[[], bool],
    cors: bool = False,
    metrics_paths: tuple[str, ...] = (metrics.PATH,),
) -> Starlette:
    """The REST API. Requests are answered on `executor`'s threads, so that none holds up the rest.

    timeout_seconds: how long a request may wait for its turn; retired() says that the server is
    on its way down, crowded() that it has too many connections. cors: whether pages of other sites
    may ask. metrics_paths: for Prometheus.
    """

    async def healthz(request: HttpRequest) -> Response:
        ready = core.repository.ready() and not retired()
        return json_response({"ready": ready}, 200 if ready else 503)

    threads = functools.partial(
        threaded,
        core=core,
        executor=executor,
        timeout_seconds=timeout_seconds,
        line=Line(core.scheduler),
        retired=retired,
        crowded=crowded,
    )
    rest = threads(functools.partial(answer, core), infers=infers)
    kserve = threads(
        functools.partial(oip_http.answer, core, retired), infers=oip_http.infers, full=oip.FULL
    )
    look = threads(functools.partial(page.answer, core))
    scrape = threads(functools.partial(metrics.answer, core), crowded=lambda: False)
    anybody = Middleware(
        CORSMiddleware, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"]
    )
    return Starlette(
        middleware=[anybody] if cors else [],
        routes=[
            Route("/healthz", healthz),
            *(Route(path, scrape) for path in metrics_paths),
            Route("/v1/{rest:path}", rest, methods=METHODS),
            Route("/v2", kserve, methods=METHODS),
            Route("/v2/{rest:path}", kserve, methods=METHODS),
            Route("/", look),
            Route("/page/{rest:path}", look),
        ],
    )


def infers(request: HttpRequest) -> bool:
    """Whether a request under /v1 asks a model for an answer, and has to wait for its turn."""
    path = raw_path(request)
    return request.method == "POST" and bool(_ASK.fullmatch(path) or _SHOW.fullmatch(path))


def answer(core: Core, request: HttpRequest, body: bytes, deadline: float) -> Response:
    """The response to one request under /v1."""
    method, path = request.method, raw_path(request)
    if method == "POST" and pictures.is_picture(request) and (match := _SHOW.fullmatch(path)):
        show = pictures.explain if match["method"].lower() == "explain" else pictures.classify
        asked = Request(_target(match), "", _nothing, deadline=deadline, gone=left(request))
        return json_response(show(core, asked, body, request.query_params))
    if method == "POST" and (match := _ASK.fullmatch(path)):
        ask = {"predict": predict, "classify": classify, "regress": regress}
        asked = Request(_target(match), "", _nothing, deadline=deadline, gone=left(request))
        return json_response(ask[match["method"].lower()](core, asked, body))
    if method == "POST" and (match := _RESUME.fullmatch(path)):
        name = unquote(match["model"])
        return json_response({"model": name, "resumed": core.resume(name)})
    if method == "GET" and re.fullmatch("/v1/models/?", path, re.IGNORECASE):
        raise invalid("Missing model name in request.")
    if method == "GET" and (match := _LOOK.fullmatch(path)):
        return json_response(_look(core, match), indent=1)
    raise invalid(f"Malformed request: {method} {path}")


def predict(core: Core, asked: Request, body: bytes) -> dict[str, Any]:
    """Tensors in row or column format -> predictions or outputs."""
    document = json_tensors.parse(body)
    rows = json_tensors.is_rows(document)

    def read(signature: Signature) -> Tensors:
        if rows:
            return json_tensors.from_rows(document["instances"], signature)
        return json_tensors.from_columns(document["inputs"], signature)

    try:
        found = core.predict(
            replace(asked, signature=json_tensors.signature_name(document), read=read)
        )
    except UnknownSignature as error:
        raise invalid(
            f'Serving signature name: "{error.signature}" not found in signature def'
        ) from None
    return json_tensors.write(found.outputs, rows=rows)


def classify(core: Core, asked: Request, body: bytes) -> dict[str, Any]:
    """Examples as JSON objects -> a list of [label, score] for each."""
    _, found = tfs_inference.classify(core, _about(asked, body, "classify"))
    return {"results": [[[label, _short(score)] for label, score in row] for row in found]}


def regress(core: Core, asked: Request, body: bytes) -> dict[str, Any]:
    """Examples as JSON objects -> a number for each."""
    _, found = tfs_inference.regress(core, _about(asked, body, "regress"))
    return {"results": [_short(value) for value in found]}


def _about(asked: Request, body: bytes, method: str) -> Request:
    """A request about examples; they are read before the model is looked for, as any body is."""
    document = json_tensors.parse(body)
    examples = tensors.strings(json_tensors.to_examples(document, method))
    return replace(
        asked,
        signature=json_tensors.signature_name(document),
        read=lambda _: {"inputs": examples},
    )


def _nothing(signature: Signature) -> Tensors:
    return {}


def _short(value: float) -> float:
    """A float32 in as few digits as it needs."""
    return float(str(np.float32(value)))


def _look(core: Core, match: re.Match) -> dict[str, Any]:
    """Status or metadata, as TensorFlow Serving prints its messages: defaults and all; drift."""
    target = _target(match)
    if match["part"] and match["part"].lower() == "drift":
        return _drift(core, target)
    if not match["part"]:
        request = protos.get_model_status_pb2.GetModelStatusRequest()
        _fill(request.model_spec, target)
        return _printed(status_of(core, request))
    request = protos.get_model_metadata_pb2.GetModelMetadataRequest()
    request.metadata_field.append(METADATA_FIELD)
    _fill(request.model_spec, target)
    response = metadata_of(core, request)
    signatures = protos.get_model_metadata_pb2.SignatureDefMap()
    response.metadata[METADATA_FIELD].Unpack(signatures)
    return {
        "model_spec": _printed(response.model_spec),
        "metadata": {METADATA_FIELD: _printed(signatures)},
    }


def _drift(core: Core, target: Target) -> dict[str, Any]:
    with core.lease(target) as lease:
        report = core.drift.report(lease.servable)
        artifact = lease.servable.artifact
    if artifact is None or not artifact.manifest.drift_baseline:
        raise ServingError(
            Code.NOT_FOUND,
            f"{lease.model} version {lease.version} has no drift baseline to compare with: it was "
            "written without validation pictures. striate evaluate ARTIFACT --data PICTURES "
            "--baseline makes one",
        )
    whom = {"model": lease.model, "version": lease.version, "labels": artifact.labels}
    return {**whom, **(report or {"pictures": 0})}


def _printed(message) -> dict[str, Any]:
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _target(match: re.Match) -> Target:
    version, label = match["version"], match["label"]
    number = None if version is None else version_number(version)
    if version is not None and number is None:
        raise invalid(f"Failed to convert version: {version} to numeric.")
    return Target(
        unquote(match["model"]),
        version=number,
        label=None if label is None else unquote(label),
    )


def _fill(spec, target: Target) -> None:
    spec.name = target.model
    if target.version is not None:
        spec.version.value = target.version
    if target.label is not None:
        spec.version_label = target.label
