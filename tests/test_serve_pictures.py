"""Pictures as the bodies of requests: what `curl --data-binary @cat.jpg` gets."""

import io
import json
import urllib.error
import urllib.request
import zlib

import numpy as np
import pytest
from PIL import Image

from making import PHOTOS, SHIPPED
from served import ServerProcess, encode
from striate.artifact import load
from striate.preprocess import pixels, preset
from striate.runtime import FLOAT_TOLERANCE, open_engine
from striate.serve.core import Request, Target
from striate.serve.protocols import pictures
from striate.serve.protocols.pictures import _covered

CAT = (PHOTOS / "cat.jpg").read_bytes()
ASK = "/v1/models/squeezenet1_1:classify"


@pytest.fixture(scope="module")
def server():
    with ServerProcess(SHIPPED, max_message_bytes=1 << 20) as server:
        yield server


def post(server, path, body, content_type="image/jpeg", **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(
        server.url + path, body, {"Content-Type": content_type, **headers}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_a_jpeg_gets_its_labels(server):
    artifact = load(SHIPPED)
    scores = open_engine(artifact, "onnx").predict(pixels(CAT, artifact.preprocess)[np.newaxis])[0]
    status, found = post(server, f"{ASK}?top=3", CAT)
    assert status == 200
    assert (found["model"], found["version"], found["engine"]) == ("squeezenet1_1", 1, "onnx")
    assert [each["index"] for each in found["top"]] == np.argsort(-scores)[:3].tolist()
    for each in found["top"]:
        assert each["label"] == artifact.labels[each["index"]]
        assert each["score"] == pytest.approx(scores[each["index"]], abs=FLOAT_TOLERANCE)
    assert found["compute_ms"] > 0


def test_every_format_is_found_in_the_bytes_whatever_the_type_says(server):
    image = Image.open(io.BytesIO(CAT))
    for kind in ("PNG", "BMP", "WEBP", "GIF"):
        small = encode(image.resize((227, 227)), kind)
        for content_type in (f"image/{kind.lower()}", "IMAGE/JPEG"):
            status, found = post(server, ASK, small, content_type)
            assert status == 200
            assert "cat" in found["top"][0]["label"]
            assert len(found["top"]) == 5


def test_a_version_can_be_named_and_predict_does_the_same(server):
    expected = post(server, ASK, CAT)[1]["top"]
    for path in (
        "/v1/models/squeezenet1_1/versions/1:classify",
        "/v1/models/squeezenet1_1:predict",
    ):
        assert post(server, path, CAT)[1]["top"] == expected


def bomb(side: int) -> bytes:
    """A PNG that says to be side x side pixels, in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)

    header = side.to_bytes(4) * 2 + bytes([8, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        (ASK, CAT[: len(CAT) // 2], 400, "the picture: expected a JPEG"),
        (ASK, b"", 400, "the picture: expected a JPEG"),
        (ASK, bomb(20_000), 400, "the picture: expected at most 100,000,000 pixels, got far more"),
        (ASK, bomb(12_000), 400, "the picture: 12000 x 12000 pixels, expected at most"),
        (ASK, bytes(2 << 20), 413, "Expected a body of at most 1,048,576 bytes"),
        (f"{ASK}?top=0", CAT, 400, "expected top of at least 1, got '0'"),
        (f"{ASK}?top=x", CAT, 400, "expected top of at least 1, got 'x'"),
        ("/v1/models/nope:classify", CAT, 404, "Servable not found for request: Latest(nope)"),
        ("/v1/models/squeezenet1_1:explain", CAT, 501, "The onnx engine cannot explain"),
        ("/v1/models/squeezenet1_1:regress", CAT, 400, "JSON Parse error"),
    ],
)
def test_what_is_refused_is_one_line(server, path, body, status, text):
    code, found = post(server, path, body)
    assert (code, list(found)) == (status, ["error"])
    assert found["error"].startswith(text)
    assert "\n" not in found["error"]


def test_a_body_of_another_type_is_json_as_ever_and_the_error_says_what_pictures_need(server):
    status, found = post(server, ASK, CAT, "application/x-www-form-urlencoded")  # curl's own
    assert (status, found["error"].startswith("JSON Parse error")) == (400, True)
    assert found["error"].endswith("needs Content-Type: image/...")


def test_the_box_of_a_heat_map_is_what_the_net_saw():
    crop = preset("unit", 100, 100, fit="crop", crop=0.5)
    assert _covered(400, 200, crop) == [150, 50, 250, 150]
    assert _covered(400, 200, preset("unit", 100, 100, fit="stretch")) == [0, 0, 400, 200]
    assert _covered(400, 200, preset("unit", 100, 100, fit="pad")) == [0, -100, 400, 300]


def test_a_picture_of_the_net_s_size_is_explained_as_cropped_as_it_is_classified(monkeypatch):
    """Decoded and handed on as an array, it would have counted as the net's input."""
    spec = preset("unit", 40, 40, crop=0.5)
    body = encode(Image.fromarray(np.mgrid[:40, :40][0].astype(np.uint8)))
    asked = Request(Target("net"), "", read=lambda signature: {})
    seen = []

    class Reads:
        def predict(self, request):
            seen.append(request.read(None)["image"])
            raise InterruptedError

    monkeypatch.setattr(pictures, "_preprocess", lambda core, target: spec)
    for answer in (pictures.classify, pictures.explain):
        with pytest.raises(InterruptedError):
            answer(Reads(), asked, body, {})
    np.testing.assert_array_equal(*seen)
