"""The client for Node, in Node, against the real server."""

import json
import shutil
import subprocess

import numpy as np
import pytest

from making import PHOTOS, ROOT, SHIPPED
from served import ServerProcess, free_port
from striate.artifact import load
from striate.runtime import FLOAT_TOLERANCE

CLIENT = ROOT / "serving" / "clients" / "node"

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(shutil.which("node") is None, reason="needs node"),
]


@pytest.fixture(scope="module")
def server():
    with ServerProcess(SHIPPED) as server:
        yield server


def node(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(["node", *arguments], capture_output=True, text=True, timeout=120)


def test_pictures_are_classified_from_the_command_line(server):
    paths = [str(PHOTOS / "cat.jpg"), str(PHOTOS / "coffee.jpg")]
    ran = node(str(CLIENT / "classify.js"), server.url, "squeezenet1_1", *paths)
    assert (ran.returncode, ran.stderr) == (0, "")
    lines = ran.stdout.splitlines()
    assert len(lines) == 12
    assert (lines[0], lines[1]) == (paths[0], "  0.4196  Egyptian cat")
    assert (lines[6], lines[7]) == (paths[1], "  0.9995  espresso")


def test_what_goes_wrong_is_one_line(server, tmp_path):
    ran = node(str(CLIENT / "classify.js"), server.url, "nope", str(PHOTOS / "cat.jpg"))
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == "classify.js: Request for unknown model: 'nope' is not found\n"
    assert node(str(CLIENT / "classify.js")).returncode == 2
    nobody = f"http://127.0.0.1:{free_port()}"
    ran = node(str(CLIENT / "classify.js"), nobody, "tiny", str(PHOTOS / "cat.jpg"))
    assert (ran.returncode, ran.stderr) == (1, "classify.js: fetch failed (ECONNREFUSED)\n")


SCRIPT = """
import {{ Client }} from "{client}";
import {{ readFile }} from "node:fs/promises";
const client = new Client("{url}", "squeezenet1_1", {{ version: 1 }});
const pixels = new Uint8Array(await readFile("{pixels}"));
const scores = await client.predict(pixels, {shape});
const {{ inputs }} = await client.metadata();
const ready = [await client.ready(), await new Client("{url}", "nope").ready()];
console.log(JSON.stringify({{ shape: scores.shape, scores: [...scores.data], inputs, ready }}));
"""


def test_pixels_get_the_golden_scores(server, tmp_path):
    images, expected = load(SHIPPED).goldens()
    (tmp_path / "pixels").write_bytes(images.tobytes())
    script = SCRIPT.format(
        client=CLIENT / "client.js",
        url=server.url,
        pixels=tmp_path / "pixels",
        shape=list(images.shape),
    )
    (tmp_path / "script.mjs").write_text(script)
    ran = node(str(tmp_path / "script.mjs"))
    assert (ran.returncode, ran.stderr) == (0, "")
    found = json.loads(ran.stdout)
    assert found["shape"] == list(expected.shape)
    np.testing.assert_allclose(found["scores"], expected.ravel(), atol=FLOAT_TOLERANCE)
    assert found["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 227, 227, 3]}]
    assert found["ready"] == [True, False]


INFER = """
import {{ Client }} from "{client}";
import {{ readFile }} from "node:fs/promises";
const client = new Client("{url}", "squeezenet1_1");
const data = [await readFile("{picture}")];
const given = {{ name: "image_bytes", datatype: "BYTES", shape: [1], data }};
const {{ scores }} = await client.infer([given], [{{ name: "scores" }}]);
const {{ classes }} = await client.infer([given], [{{ name: "classes" }}]);
console.log(classes.data[scores.data.indexOf(Math.max(...scores.data))].toString());
"""


def test_tensors_by_name_are_sent_and_read_whatever_they_hold(server, tmp_path):
    script = INFER.format(
        client=CLIENT / "client.js", url=server.url, picture=PHOTOS / "coffee.jpg"
    )
    (tmp_path / "script.mjs").write_text(script)
    ran = node(str(tmp_path / "script.mjs"))
    assert (ran.stdout, ran.stderr) == ("espresso\n", "")
