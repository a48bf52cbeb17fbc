"""Test-time augmentation: the mean over views, beside the plain answer."""

import json

import keras
import numpy as np
import pytest
from PIL import Image

from making import PHOTOS
from striate import metrics
from striate.artifact import write_version
from striate.errors import UsageError
from striate.evaluate import evaluate
from striate.evaluate import report as report_module
from striate.evaluate.corruptions import SEVERITIES
from striate.evaluate.views import Viewing, check_views, spec_of_views
from striate.preprocess import VectorPreprocess, pixels, preset

SIDE = 8
LABELS = ["left", "right"]


class Corner:
    """Scores are the levels of the top left pixel and of the bottom right one, over 255."""

    name, kernel = "corner", "numpy"

    def predict(self, images):
        return np.stack([images[:, 0, 0, 0], images[:, -1, -1, 0]], axis=1).astype("float32") / 255


def test_mirror_is_the_mean_of_two():
    images = np.zeros((1, SIDE, SIDE, 1), np.uint8)
    images[0, 0, 0], images[0, 0, -1], images[0, -1, 0] = 100, 200, 50
    found = Viewing(Corner(), "mirror", preset("unit", SIDE, SIDE, 1)).predict(images)
    np.testing.assert_allclose(found, [[(100 + 200) / 2 / 255, 50 / 2 / 255]], rtol=1e-6)


def test_crops_are_the_corners_and_the_centre():
    spec = preset("unit", 7, 7, 1)
    images = np.arange(64, dtype=np.uint8).reshape(1, 8, 8, 1)
    found = Viewing(Corner(), "crops", spec).predict(images)
    first = np.array([0, 1, 8, 9, 0])  # the corners of 7 x 7, and the centre, rounded down
    np.testing.assert_allclose(found * 255, [[first.mean(), (first + 54).mean()]], rtol=1e-6)


def test_ten_crops_are_those_and_their_mirrors():
    spec = preset("unit", 7, 7, 1)
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), dtype=np.uint8)
    five = [Viewing(Corner(), "crops", spec).predict(x) for x in (images, images[:, :, ::-1])]
    ten = Viewing(Corner(), "ten_crops", spec).predict(images)
    # the centre, rounded down, is another one in the mirror
    np.testing.assert_allclose(ten, np.mean(five, axis=0), atol=1 / 5)
    assert np.abs(ten - five[0]).max() > 0.01


def test_crops_come_from_the_whole_picture_where_only_its_centre_is_taken():
    spec = preset("unit", 224, 224, crop=0.875)
    wide = spec_of_views("crops", spec)
    assert (wide.shape, wide.crop) == ((256, 256, 3), 1.0)
    plain = pixels(PHOTOS / "cat.jpg", spec).astype(int)
    centre = pixels(PHOTOS / "cat.jpg", wide)[16:-16, 16:-16].astype(int)
    assert np.abs(plain - centre).max() <= 2  # the same pixels, but for rounding
    assert spec_of_views("mirror", spec) == spec


def test_crops_of_a_net_that_takes_all_come_from_an_enlarged_picture():
    assert spec_of_views("ten_crops", preset("unit", 28, 28, 1)).shape == (32, 32, 1)


def test_what_is_no_view_or_no_picture_is_refused():
    with pytest.raises(UsageError, match="Did you mean 'mirror'"):
        check_views("miror", preset("unit", 8, 8))
    with pytest.raises(UsageError, match="expected a net of pictures"):
        check_views("mirror", VectorPreprocess(3))


# === Evaluation ===


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """(an artifact that says which half is brighter, with a bias to the left; its pictures)."""
    base = tmp_path_factory.mktemp("views")
    image = keras.Input((SIDE, SIDE, 1))
    flat = keras.layers.Flatten()(image)
    net = keras.Model(image, keras.layers.Dense(2, name="logits")(flat))
    half = np.tile(np.repeat([1.0, -1.0], SIDE // 2), SIDE)  # left less right
    net.set_weights([np.stack([half, -half], axis=1), np.array([20.0, 0.0])])
    for label, columns in (("left", slice(0, 4)), ("right", slice(4, 8))):
        for level in (60, 120, 250):
            picture = np.zeros((SIDE, SIDE), np.uint8)
            picture[:, columns] = level
            (base / "data" / label).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(base / "data" / label / f"{level}.png")
    history = [
        {"epoch": i, "loss": 1 / i, "accuracy": 1 - 0.5 / i, "learning_rate": 0.1 / i}
        for i in (1, 2, 3)
    ]
    artifact = write_version(
        base / "halves",
        model=net,
        labels=LABELS,
        preprocess=preset("unit", SIDE, SIDE, 1),
        model_name="halves",
        goldens=np.zeros((1, SIDE, SIDE, 1), np.uint8),
        metrics={"training": {"history": history}},
    )
    return artifact, base / "data"


@pytest.fixture(scope="module")
def evaluation(judged):
    """With everything that can be asked for."""
    steps: list[tuple[int, int]] = []
    found = evaluate(
        *judged,
        tta="mirror",
        corruptions=["brightness", "gaussian_noise"],
        batch_size=4,
        on_progress=lambda *step: steps.append(step),
    )
    return found, steps


def test_views_stand_beside_the_plain_numbers(judged, evaluation):
    found = evaluation[0]
    plain = evaluate(*judged)
    assert (found.accuracy, found.nll, found.n) == (plain.accuracy, plain.nll, 6)
    # A picture and its mirror image together say nothing of sides: only the bias is left.
    assert found.tta["accuracy"] == 0.5
    assert found.tta["gain"] == pytest.approx(0.5 - plain.accuracy)
    assert found.tta["intervals"]["accuracy"] == list(metrics.wilson(3, 6))
    assert found.tta["gain_interval"][0] <= found.tta["gain"] <= found.tta["gain_interval"][1]
    assert (plain.tta, plain.corruptions) == (None, None)


def test_spoilt_pictures_are_counted_by_way_and_severity(evaluation):
    found, steps = evaluation
    assert found.corruptions.right.shape == (6, 2, SEVERITIES)
    assert found.corruptions.names == ("brightness", "gaussian_noise")
    assert steps[-1] == (6 * 12, 6 * 12)
    assert [done for done, _ in steps] == [4, 6, 10, 12, 12 + 40, 12 + 60]
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert document["corruptions"]["mean"] == found.corruptions.mean
    assert document["tta"]["name"] == "mirror"


def test_the_report_shows_views_spoilt_pictures_and_the_rate(judged, evaluation):
    artifact, _ = judged
    page = report_module.render(evaluation[0], artifact)
    assert "Several views" in page
    assert "gaussian noise" in page
    assert page.count('class="faint"') == 2
    assert 'class="rate" points="0.00,0.00 50.00,37.50 100.00,50.00"' in page
    assert "--tta mirror --corruptions --seed 0" in page
    plain = report_module.render(evaluate(*judged), artifact)
    assert "Several views" not in plain
    assert "Spoilt pictures" not in plain
