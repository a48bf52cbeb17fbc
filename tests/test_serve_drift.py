"""Live pictures and answers beside the baseline of the artifact."""

import json
import shutil
import urllib.error
import urllib.request

import numpy as np
import pytest

from served import ServerProcess
from striate.artifact import MANIFEST, drift_baseline, load
from striate.serve.client import Client
from striate.serve.observe.drift import LEVELS, RECENT, Seen, by_chance, measure

pytest_plugins = ["serving_fixtures"]


def pictures(n: int, level: int = 128, seed: int = 0, shape=(8, 8, 3)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(level - 50, level + 50, (n, *shape)).astype(np.uint8)


def scores(n: int, classes: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(classes), n).astype(np.float32)


def test_the_baselines_own_pictures_are_no_drift_at_all():
    images, found = pictures(200), scores(200)
    seen = Seen(drift_baseline(images, found))
    seen.add(measure(images, found))
    report = seen.report()
    assert report["pictures"] == report["baseline_pictures"] == 200
    assert report["class_distance"] == pytest.approx(0, abs=1e-5)
    for number in ("confidence", "brightness", "contrast"):
        assert report[number]["shift"] == pytest.approx(0, abs=1e-3)


def test_brighter_pictures_and_another_class_show():
    seen = Seen(drift_baseline(pictures(200), scores(200)))
    one = np.tile(np.float32([0, 0, 0, 1]), (300, 1))
    seen.add(measure(pictures(300, level=180), one))
    report = seen.report()
    prior = report["classes"]["baseline"]
    assert report["class_distance"] == pytest.approx(1 - prior[3], abs=1e-5)
    assert report["classes"]["live"] == [0, 0, 0, 1]
    assert report["brightness"]["live"] - report["brightness"]["baseline"] == pytest.approx(
        52, abs=1
    )
    assert report["brightness"]["shift"] > 10
    assert report["confidence"]["shift"] > 1


def test_only_the_recent_pictures_count():
    seen = Seen(drift_baseline(pictures(50), scores(50)))
    seen.add(measure(pictures(3 * RECENT // 2), scores(3 * RECENT // 2)))
    bright = pictures(RECENT, level=200)
    for start in range(0, RECENT, 100):
        seen.add(measure(bright[start : start + 100], scores(100)))
    report = seen.report()
    assert report["pictures"] == RECENT
    assert report["brightness"]["live"] == pytest.approx(bright.mean(), abs=0.01)


def test_what_chance_alone_would_do_is_what_it_does():
    rng = np.random.default_rng(0)
    prior = rng.dirichlet(np.ones(30))
    n, m = 400, 250
    found, expected = [], []
    for _ in range(300):
        p, q = rng.multinomial(n, prior) / n, rng.multinomial(m, prior) / m
        found.append(np.abs(p - q).sum() / 2)
        expected.append(by_chance(p, q, n, m))
    # 300 draws of a distance whose deviation is about a seventh of it: their mean is within 1 %
    assert np.mean(expected) == pytest.approx(np.mean(found), rel=0.03)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_part_of_a_large_picture_is_of_all_its_columns_and_colours(channels):
    for width in range(200, 520):
        left = np.zeros((1, 200, width, channels), np.uint8)
        left[:, :, : width // 2] = 255
        red = np.zeros_like(left)
        red[..., 0] = 255
        for picture in (left, red):
            bright = measure(picture, np.ones((1, 2)))[2, 0]
            assert bright == pytest.approx(picture.mean(), abs=5), width


def test_of_large_pictures_a_part_is_measured_and_that_is_near_the_whole():
    large = pictures(3, shape=(224, 224, 3), seed=1)
    large[..., 0] //= 4  # so that looking at one colour alone would show
    _, _, brightness, contrast = measure(large, scores(3))
    whole = large.reshape(3, -1).astype(np.float32)
    assert whole.shape[1] > 10 * LEVELS
    # standard error of a mean of 2000 levels that deviate by 50: 1.1
    np.testing.assert_allclose(brightness, whole.mean(axis=1), atol=4)
    np.testing.assert_allclose(contrast, whole.std(axis=1), atol=4)


@pytest.fixture(scope="module")
def drifting(tiny, tmp_path_factory):
    """A server for an artifact that has a baseline: that of its goldens."""
    base = tmp_path_factory.mktemp("models") / "tiny"
    shutil.copytree(tiny.path, base / "1")
    manifest = json.loads((base / "1" / MANIFEST).read_text())
    manifest["drift_baseline"] = drift_baseline(*load(tiny.path).goldens())
    (base / "1" / MANIFEST).write_text(json.dumps(manifest))
    with ServerProcess(base) as server:
        yield server


def read(url: str):
    with urllib.request.urlopen(url) as response:
        return response.read().decode()


def test_the_server_reports_drift_as_json_and_as_metrics(drifting, tiny):
    url = f"{drifting.url}/v1/models/tiny/versions/1/drift"
    assert json.loads(read(url))["pictures"] == 0
    images, _ = tiny.goldens()
    with Client(drifting.address, "tiny") as client:
        client.predict(images)
        report = json.loads(read(url))
        assert (report["model"], report["version"], report["pictures"]) == ("tiny", 1, 4)
        assert report["labels"] == tiny.labels
        assert report["class_distance"] == pytest.approx(0, abs=1e-5)
        assert report["brightness"]["shift"] == pytest.approx(0, abs=0.05)
        client.predict(np.full((6, 32, 32, 3), 255, np.uint8))
    assert json.loads(read(url))["brightness"]["shift"] > 1
    one = '{model="tiny",version="1"'
    lines = read(f"{drifting.url}/metrics").splitlines()
    assert f"striate_drift_pictures{one}}} 10" in lines
    shift = next(
        line for line in lines if line.startswith(f'striate_drift_shift{one},of="brightness"')
    )
    assert float(shift.split()[-1]) > 1


def test_a_version_without_a_baseline_has_no_drift(served, tiny):
    with Client(served.address, "tiny") as client:
        client.predict(tiny.goldens()[0])
    with pytest.raises(urllib.error.HTTPError) as error:
        read(f"{served.url}/v1/models/tiny/drift")
    assert error.value.code == 404
    message = json.loads(error.value.read())["error"]
    assert message.startswith("tiny version 1 has no drift baseline to compare with")
    assert "striate evaluate ARTIFACT --data PICTURES --baseline" in message
    assert "striate_drift_pictures{" not in read(f"{served.url}/metrics")


def test_an_evaluation_makes_the_baseline_of_an_artifact_that_has_none(tiny, tmp_path, capsys):
    from striate.cli import app

    base = tmp_path / "tiny"
    shutil.copytree(tiny.path, base / "1")
    images, scores = tiny.goldens()
    labels = np.array(tiny.labels)
    np.savez(tmp_path / "data.npz", images=images, labels=labels)
    arguments = ["evaluate", str(base / "1"), "--data", str(tmp_path / "data.npz"), "--baseline"]
    app(arguments, standalone_mode=False)
    assert f"drift baseline: kept in {base / '1'}" in capsys.readouterr().out
    made = load(base / "1")
    made.check()
    expected = drift_baseline(images, scores)
    assert made.manifest.drift_baseline["n"] == 4
    found = made.manifest.drift_baseline["brightness"]["mean"]
    assert found == pytest.approx(expected["brightness"]["mean"], rel=1e-5)  # in another order
    assert made.manifest.drift_baseline["class_prior"] == expected["class_prior"]
