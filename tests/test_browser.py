"""The page of `native/web`: the runner as WebAssembly, under Node and in a real browser; and other
runtimes for the browser over the same pictures."""

import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import threading
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from chromium import chromium
from making import PHOTOS, ROOT, SHIPPED, tiny_artifact
from striate.export import compact
from striate.preprocess import decode
from striate.runtime.runner import FILE

WEB = ROOT / "native" / "web"

ASK = """
import { readFile } from "node:fs/promises";
const [script, wasm, file, pixels, width, height] = process.argv.slice(1);
const { load } = await import(script);
const read = async (path) => (await readFile(path));
const url = "data:application/wasm;base64," + (await read(wasm)).toString("base64");
let answer;
try {
  const model = await load(await read(file), url);
  const picture = { data: await read(pixels), width: +width, height: +height };
  const { scores, best } = model.classify(picture);
  answer = { scores: [...scores], label: best[0].label, kernel: model.kernel };
} catch (error) {
  answer = { error: error.message };
}
console.log(JSON.stringify(answer));
"""


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    """A small binary net of coloured pictures."""
    base = tmp_path_factory.mktemp("models") / "mine"
    return tiny_artifact(base, name="xnor_resnet18", shape=(33, 33, 3))


@pytest.fixture(scope="module")
def site(artifact, tmp_path_factory):
    """The page, with a model beside it, as a directory."""
    directory = tmp_path_factory.mktemp("site") / "web"
    shutil.copytree(WEB, directory)
    compact.write(artifact, directory)
    return directory


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    """A photograph as a PNG, which every decoder decodes alike."""
    path = tmp_path_factory.mktemp("pictures") / "cat.png"
    Image.fromarray(decode(PHOTOS / "cat.jpg")[::2, ::2]).save(path)
    return path


def ask_node(site, file, rgba: np.ndarray, pixels) -> dict:
    """What `striate.js` answers under Node."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs Node")
    pixels.write_bytes(rgba.tobytes())
    height, width, _ = rgba.shape
    arguments = [site / "striate.js", site / "striate.wasm", file, pixels, str(width), str(height)]
    command = [node, "--input-type=module", "-e", ASK, *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_the_shipped_module_answers_as_keras_does(artifact, site, picture, tmp_path):
    rgb = decode(picture)
    rgba = np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])
    found = ask_node(site, site / FILE, rgba, tmp_path / "pixels")
    expected = artifact.predict([picture])[0]
    np.testing.assert_allclose(found["scores"], expected, atol=1e-5)
    assert found["label"] == artifact.labels[expected.argmax()]
    assert found["kernel"] == "wasm"


def test_what_is_transparent_shows_the_models_background(artifact, site, picture, tmp_path):
    rgba = np.dstack([decode(picture), np.zeros(decode(picture).shape[:2], np.uint8)])
    rgba[::3, :, 3], rgba[1::3, :, 3] = 255, 100
    Image.fromarray(rgba).save(tmp_path / "see_through.png")
    found = ask_node(site, site / FILE, rgba, tmp_path / "pixels")
    expected = artifact.predict([tmp_path / "see_through.png"])[0]
    np.testing.assert_allclose(found["scores"], expected, atol=1e-5)


def test_pixels_that_are_not_rgba_are_refused(site, tmp_path):
    found = ask_node(site, site / FILE, np.zeros((2, 3, 3), np.uint8), tmp_path / "pixels")
    assert found == {"error": "expected RGBA, 24 numbers, got 18"}


def test_a_damaged_model_is_refused_in_one_line(site, tmp_path):
    file = (site / FILE).read_bytes()
    (tmp_path / "damaged").write_bytes(file[:-1] + bytes([file[-1] ^ 1]))
    dot = np.zeros((1, 1, 4), np.uint8)
    found = ask_node(site, tmp_path / "damaged", dot, tmp_path / "pixels")
    assert found == {"error": "the checksum is wrong: the file is damaged"}


# === In a browser ===


@pytest.fixture(scope="module")
def page(site):
    """Headless Chromium with the page open, served as any static files."""
    with opened(site) as chrome:
        yield chrome


@contextmanager
def opened(site):
    handler = functools.partial(QuietHandler, directory=str(site))
    with (
        chromium() as chrome,
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        chrome.get(f"http://127.0.0.1:{server.server_port}/")
        yield chrome
        server.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files without a word."""

    def log_message(self, *arguments) -> None:
        pass


def wait(page, condition):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(page, 60, 0.05).until(lambda _: condition())


def element(page, name: str):
    return page.find_element("id", name)


def choose(page, path) -> None:
    element(page, "file").send_keys(str(path))


def test_a_picture_is_classified_on_the_device(page, artifact, picture):
    wait(page, lambda: "4 classes, 33 x 33 pixels" in element(page, "model").text)
    choose(page, picture)
    lines = wait(page, lambda: page.find_elements("css selector", "#answers li"))
    shown = [line.text.split("\n") for line in lines]
    scores = [float(line.get_attribute("data-score")) for line in lines]
    expected = artifact.predict([picture])[0]
    order = np.argsort(-expected)
    assert [label for label, _ in shown] == [artifact.labels[i] for i in order]
    np.testing.assert_allclose(scores, expected[order], atol=1e-5)
    assert shown[0][1] == f"{100 * scores[0]:.1f} %"
    assert "ms on this device (kernel wasm)" in element(page, "says").text
    assert page.get_log("browser") == []


def test_what_cannot_be_used_is_said_and_what_was_there_still_works(page, site, tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    choose(page, tmp_path / "notes.txt")
    wait(page, lambda: "neither a picture nor a packed model" in element(page, "says").text)
    (tmp_path / "cut.packed").write_bytes((site / FILE).read_bytes()[:-64])
    choose(page, tmp_path / "cut.packed")
    wait(page, lambda: "the file is cut off" in element(page, "says").text)
    assert "4 classes" in element(page, "model").text
    choose(page, site / FILE)
    wait(page, lambda: element(page, "says").text == "")


# === Any net, by other runtimes ===

MODULES = {
    "@mediapipe/tasks-vision": "./node_modules/@mediapipe/tasks-vision/vision_bundle.mjs",
    "onnxruntime-web/wasm": "./node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs",
}
PAGE = """<!doctype html>
<link rel="icon" href="data:,"><pre id="best"></pre>
<script type="importmap">{modules}</script>
<script type="module">
const picture = await createImageBitmap(await (await fetch("coffee.jpg")).blob());
let best;
try {{
{code}
}} catch (error) {{
  best = String(error);
}}
document.querySelector("#best").textContent = best;
</script>
"""


def documented(module: str) -> tuple[str, str]:
    """The code in docs/edge.md that uses a module: what imports it, and what comes after."""
    blocks = re.findall(r"```js\n(.*?)```", (ROOT / "docs" / "edge.md").read_text(), re.DOTALL)
    (code,) = [block for block in blocks if f'from "{module}"' in block]
    first, _, rest = code.partition("\n")
    return first, rest


@pytest.mark.long
@pytest.mark.oracle
@pytest.mark.parametrize("module", MODULES)
def test_a_browser_runs_any_net_as_the_docs_say(module, tmp_path):
    if not (installed := os.environ.get("STRIATE_WEB_RUNTIMES")):
        pytest.skip("needs STRIATE_WEB_RUNTIMES, a node_modules with the runtimes")
    imports, code = documented(module)
    page = PAGE.format(
        modules=json.dumps({"imports": MODULES}), code=code.replace("const best", "best")
    )
    page = page.replace('<script type="module">', f'<script type="module">\n{imports}')
    (tmp_path / "index.html").write_text(page)
    (tmp_path / "node_modules").symlink_to(installed)
    for file in ("model.onnx", "model.tflite", "assets/labels.txt"):
        shutil.copy(SHIPPED / "1" / file, tmp_path)
    shutil.copy(PHOTOS / "coffee.jpg", tmp_path)
    with opened(tmp_path) as chrome:
        assert wait(chrome, lambda: element(chrome, "best").text) == "espresso"
