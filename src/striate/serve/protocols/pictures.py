"""A picture as the whole body of a request: what `curl --data-binary @cat.jpg` sends.

    POST /v1/models/NAME[/versions/N|/labels/L]:classify?top=5     Content-Type: image/jpeg
    POST /v1/models/NAME[/versions/N|/labels/L]:explain            the same, and a heat map

TensorFlow Serving's paths, told apart by the content type: a body of an `image/...` type can be no
JSON. The format is found in the bytes themselves, whatever the type says.
"""

import base64
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from starlette.requests import Request as HttpRequest

from striate.errors import DataError
from striate.preprocess import Preprocess, decode, pixels, source_box
from striate.serve.core import Answer, Core, Request, Target
from striate.serve.signatures import DEFAULT, Signature, Tensors
from striate.serve.status import UnknownSignature, invalid

TOP = 5  # classes, where a request does not say how many


def is_picture(request: HttpRequest) -> bool:
    """Whether the body of a request says that it is a picture."""
    return request.headers.get("content-type", "").strip().lower().startswith("image/")


def classify(core: Core, asked: Request, body: bytes, query: Mapping[str, str]) -> dict[str, Any]:
    """The best classes of a picture, and who found them in how long."""
    top = _top(query)
    spec = _preprocess(core, asked.target)

    def read(_: Signature) -> Tensors:
        with _named():
            return {"image": pixels(body, spec)[np.newaxis]}

    return _described(core.predict(replace(asked, signature=DEFAULT, read=read)), top)


def explain(core: Core, asked: Request, body: bytes, query: Mapping[str, str]) -> dict[str, Any]:
    """The best classes of a picture, and where in it the first of them comes from.

    heat_map: a grey PNG of the net's size, the most important place white. box: the part of the
    upright picture that it covers, [left, top, right, bottom] in pixels; of a net that pads, more
    than the picture.
    """
    top = _top(query)
    spec = _preprocess(core, asked.target)
    box: list[float] = []

    def read(_: Signature) -> Tensors:
        from PIL import Image

        with _named():
            whole = Image.fromarray(decode(body, background=spec.background))
        box[:] = _covered(*whole.size, spec)
        return {"image": spec.fitted(whole)[np.newaxis]}

    try:
        answer = core.predict(replace(asked, signature="explain", read=read))
    except UnknownSignature:
        raise invalid(f"{asked.target.model} cannot explain its answers") from None
    heat = base64.b64encode(_png(answer.outputs["heat_map"][0])).decode()
    return {**_described(answer, top), "heat_map": {"b64": heat}, "box": box}


@contextmanager
def _named() -> Iterator[None]:
    """What is wrong with a picture is the client's mistake."""
    try:
        yield
    except DataError as error:
        raise invalid(str(error)) from None


def _preprocess(core: Core, target: Target) -> Preprocess:
    """How the model's pictures become tensors; an error for one that takes none."""
    with core.lease(target) as lease:
        artifact = lease.servable.artifact
    if artifact is None or not isinstance(artifact.preprocess, Preprocess):
        raise invalid(f"{target.model} takes no pictures: ask predict about its tensors")
    return artifact.preprocess


def _top(query: Mapping[str, str]) -> int:
    text = query.get("top", str(TOP))
    if not text.isdecimal() or len(text) > 9 or int(text) < 1:
        raise invalid(f"expected top of at least 1, got {text[:20]!r}")
    return int(text)


def _described(answer: Answer, top: int) -> dict[str, Any]:
    scores = answer.outputs["scores"][0]
    labels = answer.servable.labels
    order = np.argsort(-scores, kind="stable")[:top]
    return {
        "model": answer.model,
        "version": answer.version,
        "engine": answer.servable.engine,
        "kernel": answer.servable.kernel,
        "top": [
            {"index": int(i), "label": labels[i], "score": round(float(scores[i]), 6)}
            for i in order
        ],
        "queue_ms": round(1000 * answer.queue, 3),
        "compute_ms": round(1000 * answer.compute, 3),
    }


def _png(heat: np.ndarray) -> bytes:
    """A map as a grey picture, its largest value white; negative values count as nothing."""
    from PIL import Image

    most = max(float(heat.max()), np.finfo(np.float32).tiny)
    levels = np.rint(255 * np.clip(heat / most, 0, 1)).astype(np.uint8)
    data = io.BytesIO()
    Image.fromarray(levels).save(data, "PNG")
    return data.getvalue()


def _covered(width: int, height: int, spec: Preprocess) -> list[float]:
    """The box of a width x height picture that the net's input covers."""
    if spec.fit != "pad":
        return list(source_box(width, height, spec))
    longest = max(width / spec.width, height / spec.height)
    across, down = spec.width * longest, spec.height * longest
    left, top = (width - across) / 2, (height - down) / 2
    return [left, top, left + across, top + down]
