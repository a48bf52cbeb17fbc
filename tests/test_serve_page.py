"""The page at `/`, driven in a real browser against the real server."""

import base64
import io
import json
import urllib.error
import urllib.request

import numpy as np
import pytest

from chromium import chromium
from making import PHOTOS, SHIPPED, tiny_artifact
from served import ServerProcess, encode

pytest.importorskip("selenium.webdriver")
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium, which notes every request and every line on its console."""
    with chromium("--window-size=1200,900", performance="ALL") as chrome:
        yield chrome


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Two versions of a net that takes drawings; Keras answers, which can explain."""
    base = tmp_path_factory.mktemp("models") / "digits"
    return [tiny_artifact(base, shape=(28, 28, 1), seed=seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def shipped():
    with ServerProcess(SHIPPED) as server:
        yield server


@pytest.fixture(scope="module")
def drawings(digits):
    base = digits[0].path.parent
    with ServerProcess(base, version_policy="all", engine="keras") as server:
        yield server


def text(browser, name: str) -> str:
    return browser.find_element(By.ID, name).text


def wait(browser, condition, seconds: float = 30):
    return WebDriverWait(browser, seconds, 0.05).until(lambda _: condition())


def answered(browser) -> str:
    """The headline of the answer, once it is there."""

    def settled():
        busy = browser.find_element(By.ID, "answer").get_attribute("aria-busy") == "true"
        return not busy and text(browser, "best")

    return wait(browser, settled)


def opened(browser, server) -> None:
    browser.get(server.url)
    wait(browser, lambda: text(browser, "engine"))


def hosts_asked(browser) -> set[str]:
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert urls
    return {url.split("/")[2] for url in urls if url.startswith("http")}


def test_a_photograph_is_named_and_nobody_else_is_asked(browser, shipped):
    opened(browser, shipped)
    browser.find_element(By.ID, "file").send_keys(str(PHOTOS / "cat.jpg"))
    assert answered(browser) == "Egyptian cat"
    rows = browser.find_elements(By.CSS_SELECTOR, "#bars li")
    assert len(rows) == 5
    assert rows[0].text.split("\n") == ["Egyptian cat", "42.0 %"]
    assert "onnx" in text(browser, "engine")
    assert text(browser, "took").startswith("Version 1, ")
    assert (
        browser.find_element(By.ID, "said").get_attribute("textContent") == "Egyptian cat, 42.0 %"
    )
    assert not browser.find_element(By.ID, "explain").is_displayed()  # ONNX Runtime cannot
    wait(browser, lambda: text(browser, "requests") == "1")
    assert text(browser, "p50").endswith(" ms")
    examples = browser.find_elements(By.CSS_SELECTOR, "#examples button")
    assert len(examples) == 4
    examples[1].click()
    wait(browser, lambda: answered(browser) == "espresso")
    assert browser.get_log("browser") == []
    assert hosts_asked(browser) == {shipped.url.removeprefix("http://")}


def test_what_is_no_picture_is_refused_in_words(browser, shipped, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes((PHOTOS / "cat.jpg").read_bytes()[:100])
    words = tmp_path / "words.txt"
    words.write_text("words")
    opened(browser, shipped)
    browser.find_element(By.ID, "file").send_keys(str(words))
    wait(browser, lambda: "is no picture" in text(browser, "notice"))
    browser.find_element(By.ID, "file").send_keys(str(broken))
    wait(browser, lambda: "expected a JPEG" in text(browser, "notice"))
    wait(browser, lambda: text(browser, "refused") == "1")
    browser.get_log("browser")  # Chromium notes every answer that is not 200


def drawn(browser) -> None:
    pad = browser.find_element(By.ID, "pad")
    lines = ActionChains(browser).move_to_element_with_offset(pad, -80, -120).click_and_hold()
    for right, down in ((160, 0), (-60, 120), (-60, 120)):
        lines.move_by_offset(right, down)
    lines.release().perform()


def test_a_drawing_is_asked_about_in_the_colours_of_the_net(browser, drawings, digits):
    opened(browser, drawings)
    assert browser.find_element(By.ID, "pad").is_displayed()  # a net of small grey pictures
    drawn(browser)
    best = answered(browser)
    found = browser.execute_script(
        "return document.getElementById('pad').toDataURL('image/png').split(',')[1]"
    )
    from PIL import Image

    png = base64.b64decode(found)
    levels = np.asarray(Image.open(io.BytesIO(png)).convert("L"))
    assert 0.01 < np.mean(levels == 0) < 0.5  # a black line on white: the goldens have no ground
    scores = digits[1].predict([png])[0]
    assert best == digits[1].labels[scores.argmax()]
    browser.find_element(By.ID, "clear").click()
    assert browser.get_log("browser") == []


def test_another_version_answers_when_it_is_chosen(browser, drawings, digits):
    opened(browser, drawings)
    examples = browser.find_elements(By.CSS_SELECTOR, "#examples button")
    examples[0].click()
    answered(browser)
    assert text(browser, "took").startswith("Version 2, ")
    Select(browser.find_element(By.ID, "version")).select_by_value("1")
    wait(browser, lambda: text(browser, "took").startswith("Version 1, "))
    picture = np.load(digits[1].path / "assets.extra/goldens.npz")["images"][0]
    scores = digits[0].predict([picture])[0]
    assert answered(browser) == digits[0].labels[scores.argmax()]
    assert browser.get_log("browser") == []


def test_the_map_of_where_it_looked_lies_over_the_picture(browser, drawings, digits):
    from striate.explain import explain

    images, _ = digits[1].goldens()
    loud = explain(digits[1], images).maps.max(axis=(1, 2)).argmax()  # some maps are empty
    opened(browser, drawings)
    browser.find_elements(By.CSS_SELECTOR, "#examples button")[loud].click()
    answered(browser)
    heat = browser.find_element(By.ID, "heat")
    assert not heat.is_displayed()
    browser.find_element(By.ID, "explains").click()
    wait(browser, heat.is_displayed)
    veil = browser.execute_script(
        """const [canvas] = arguments, [width, height] = [canvas.width, canvas.height];
        const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
        const opacities = data.filter((_, i) => i % 4 === 3).sort();
        return [opacities.at(0), opacities.at(-1)];""",
        heat,
    )
    assert veil[0] < 20 < 150 < veil[1]  # light where it looked, dark where it did not
    browser.find_element(By.ID, "explains").click()
    wait(browser, lambda: not heat.is_displayed())
    assert browser.get_log("browser") == []


def test_every_control_has_a_name_and_can_be_reached(browser, shipped):
    opened(browser, shipped)
    nameless = browser.execute_script("""
        return [...document.querySelectorAll("button, input, select, canvas[role], img")]
          .filter((each) => !(each.labels?.[0]?.textContent.trim() || each.ariaLabel ||
                              each.textContent.trim() || each.hasAttribute("alt") ||
                              each.querySelector("img[alt]")))
          .map((each) => each.outerHTML)
    """)
    assert nameless == []
    body = browser.find_element(By.TAG_NAME, "body")
    reached = []
    for _ in range(12):
        body.send_keys("\ue004")  # Tab
        active = browser.switch_to.active_element
        reached.append(active.get_attribute("id") or active.tag_name)
    assert {"version", "file", "button", "summary"} <= set(reached)


# What the page is made of, without a browser


def fetched(request):
    with urllib.request.urlopen(request, timeout=60) as response:
        return response.headers, response.read()


def test_the_page_may_load_nothing_from_elsewhere(shipped):
    headers, page = fetched(shipped.url)
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'")
    assert "unsafe" not in policy
    assert b"http" not in page
    for name in ("page.css", "page.js", "icon.svg"):
        headers, content = fetched(f"{shipped.url}/page/{name}")
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert b"://" not in content.replace(b"http://www.w3.org/2000/svg", b"")
    ninth = "/page/models/squeezenet1_1/versions/1/examples/9.png"
    endless = ninth.replace("/1/", f"/{'1' * 5000}/"), ninth.replace("/9.", f"/{'1' * 5000}.")
    for path in ("/page/", "/page/nope", "/page/../__init__.py", ninth, *endless):
        with pytest.raises(urllib.error.HTTPError) as error:
            fetched(shipped.url + path)
        assert error.value.code == 404


def test_what_the_page_knows(drawings):
    _, found = fetched(f"{drawings.url}/page/models")
    (model,) = json.loads(found)
    assert model["name"] == "digits"
    assert [version["version"] for version in model["versions"]] == [2, 1]
    newest = model["versions"][0]
    assert (newest["engine"], newest["explains"], newest["takes"]) == ("keras", True, "picture")
    assert (newest["input"], newest["classes"], newest["examples"]) == ([28, 28, 1], 4, 4)
    _, found = fetched(f"{drawings.url}/page/counters")
    assert json.loads(found)["seconds"] > 0


def test_a_picture_as_a_body_is_explained(drawings, digits):
    from PIL import Image

    from striate.explain import explain

    wide = Image.fromarray(np.tile(digits[1].goldens()[0][0], (2, 3, 1))[..., 0])  # 84 x 56
    data = encode(wide)
    url = f"{drawings.url}/v1/models/digits:explain?top=2"
    _, found = fetched(urllib.request.Request(url, data, {"Content-Type": "image/png"}))
    found = json.loads(found)
    assert found["box"] == [14, 0, 70, 56]
    assert len(found["top"]) == 2
    png = Image.open(io.BytesIO(base64.b64decode(found["heat_map"]["b64"])))
    assert (png.size, png.mode) == ((28, 28), "L")
    heat = explain(digits[1], [data]).maps[0]
    np.testing.assert_allclose(np.asarray(png), 255 * heat / max(heat.max(), 1e-9), atol=1)


def test_the_ground_of_drawings_is_the_level_of_their_rims():
    from striate.serve.protocols.page import paper

    digits = np.zeros((3, 28, 28, 1), np.uint8)
    digits[:, 8:20, 8:20] = 255
    assert paper(digits) == 0
    assert paper(255 - digits) == 255
    photographs = np.random.default_rng(0).integers(0, 200, (3, 28, 28, 3)).astype(np.uint8)
    assert paper(photographs) == 255


def test_counters_of_the_page_tell_refusals_from_answers(shipped):
    def count():
        _, found = fetched(f"{shipped.url}/page/counters")
        versions = json.loads(found)["versions"]
        return versions[0]["codes"] if versions else {}

    before = count()
    url = f"{shipped.url}/v1/models/squeezenet1_1:classify"
    headers = {"Content-Type": "image/jpeg"}
    fetched(urllib.request.Request(url, (PHOTOS / "cat.jpg").read_bytes(), headers))
    with pytest.raises(urllib.error.HTTPError):
        fetched(urllib.request.Request(url, b"no picture", headers))
    after = count()
    for code in ("OK", "INVALID_ARGUMENT"):
        assert after[code] == before.get(code, 0) + 1
