"""The page at `/`: drop or draw a picture, see what the model says. Plain files, no build step.

It asks the server that it comes from and nobody else; the policy that it is sent with holds the
browser to that. What it needs to know beyond an answer is here, as JSON:

    GET /page/models      what is served, and what it takes
    GET /page/counters    how often, how well and how fast it answered
    GET /page/models/NAME/versions/N/examples/I.png     a golden picture of the artifact
"""

import io
import re
import time
from collections.abc import Callable
from importlib.resources import files
from typing import Any
from urllib.parse import unquote

import numpy as np
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from striate.preprocess import Preprocess
from striate.serve.core import Core, Target
from striate.serve.observe.counters import EARLIER, Count
from striate.serve.protocols.web import json_response, raw_path
from striate.serve.repository.servable import ArtifactServable, Servable
from striate.serve.status import Code, ServingError

EXPLAINING = ("tensorflow", "keras")  # the engines whose graphs can be differentiated

_FILES = {
    "/": ("index.html", "text/html"),
    "/page/page.css": ("page.css", "text/css"),
    "/page/page.js": ("page.js", "text/javascript"),
    "/page/icon.svg": ("icon.svg", "image/svg+xml"),
}

_EXAMPLE = re.compile(
    r"/page/models/(?P<model>[^/]+)/versions/(?P<version>\d{1,18})/examples/(?P<index>\d{1,9})\.png"
)

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def answer(core: Core, request: HttpRequest, body: bytes, deadline: float) -> Response:
    """The response to one request for the page or for something of it."""
    core.permit(None)  # it shows all models
    path = raw_path(request)
    if path in _FILES:
        name, media_type = _FILES[path]
        content = files("striate.serve.protocols.page").joinpath(name).read_bytes()
        return Response(content, headers=_HEADERS, media_type=media_type)
    if path in _DOCUMENTS:
        return json_response(_DOCUMENTS[path](core))
    if match := _EXAMPLE.fullmatch(path):
        target = Target(unquote(match["model"]), version=int(match["version"]))
        png = example(core, target, int(match["index"]))
        return Response(png, headers=_HEADERS, media_type="image/png")
    raise ServingError(Code.NOT_FOUND, f"Not Found: GET {path}")


def models(core: Core) -> list[dict[str, Any]]:
    """Every model with a version that answers, and those versions, the newest first."""
    found = []
    for name, model in list(core.repository.models.items()):
        versions = [
            {"version": number, **_described(servable)}
            for number in reversed(model.available())
            if (servable := model.serving(number))  # it may just have been replaced
        ]
        if versions:
            found.append({"name": name, "versions": versions})
    return found


def counters(core: Core) -> dict[str, Any]:
    """What became of the requests to every version that is listed, since the server started."""
    by_version: dict[tuple[str, int], list[Count]] = {}
    for key, count in core.counters.snapshot().items():
        if key.version != EARLIER:
            by_version.setdefault((key.model, key.version), []).append(count)
    return {
        "seconds": round(time.monotonic() - core.counters.since, 1),
        "versions": [
            {"model": model, "version": version, **_summed(counts)}
            for (model, version), counts in sorted(by_version.items())
        ],
    }


_DOCUMENTS: dict[str, Callable[[Core], Any]] = {
    "/page/models": models,
    "/page/counters": counters,
}


def example(core: Core, target: Target, index: int) -> bytes:
    """One of the golden pictures of an artifact, as a PNG."""
    from PIL import Image

    with core.lease(target) as lease:
        images = _examples(lease.servable)
    if index >= len(images):
        raise ServingError(Code.NOT_FOUND, f"{target.model} has {len(images)} pictures to show")
    image = images[index]
    data = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(data, "PNG")
    return data.getvalue()


def _described(servable: Servable) -> dict[str, Any]:
    """What the page must know about a version: who computes, what it takes, how to draw for it."""
    described: dict[str, Any] = {
        "engine": servable.engine,
        "kernel": servable.kernel,
        "classes": len(servable.labels),
    }
    artifact = servable.artifact
    if artifact is None or not isinstance(artifact.preprocess, Preprocess):
        kind = "tensors" if artifact is None else artifact.preprocess.kind
        return {**described, "takes": kind, "explains": False, "examples": 0}
    images = _examples(servable)
    return {
        **described,
        "takes": "picture",
        "input": list(artifact.preprocess.shape),
        "paper": paper(images) if len(images) else 255,
        "explains": "explain" in servable.signatures and servable.engine in EXPLAINING,
        "examples": len(images),
    }


def _examples(servable: Servable) -> np.ndarray:
    """The golden pictures of a version; none where it has none."""
    if isinstance(servable, ArtifactServable):
        return servable.examples
    return np.empty((0, 1, 1, 1), np.uint8)


def paper(images: np.ndarray) -> int:
    """The level, 0 to 255, of the ground that a net's pictures lie on, white where they have none.

    images: uint8 [N, H, W, C]. A ground is a level that half of all pixels along the rims have:
    digits that are light on dark want to be drawn so.
    """
    rims = [images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]]
    seen = np.bincount(np.concatenate([rim.ravel() for rim in rims]), minlength=256)
    return int(seen.argmax()) if 2 * seen.max() >= seen.sum() else 255


def _summed(counts: list[Count]) -> dict[str, Any]:
    """The counts of a version's signatures as one; times in milliseconds, None before any."""
    codes: dict[str, int] = {}
    for count in counts:
        for code, n in count.codes.items():
            codes[code.name] = codes.get(code.name, 0) + n
    answered = sum(count.whole.n for count in counts)
    recent = [seconds for count in counts for seconds in count.recent]
    half, most = np.quantile(recent, [0.5, 0.99]) if recent else (None, None)
    return {
        "requests": sum(codes.values()),
        "codes": codes,
        "p50_ms": _ms(half),
        "p99_ms": _ms(most),
        "queue_ms": _ms(sum(c.queue.seconds for c in counts) / answered if answered else None),
        "compute_ms": _ms(sum(c.compute.seconds for c in counts) / answered if answered else None),
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 3)
