"""Spoilt pictures, each way held to its formula, and what they cost a classifier."""

import numpy as np
import pytest

from making import PHOTOS
from striate.errors import UsageError
from striate.evaluate.corruptions import (
    CORRUPTIONS,
    SEVERITIES,
    Robustness,
    check_names,
    corrupt,
    defocus_blur,
    judge_batch,
    motion_blur,
    zoom_blur,
)
from striate.preprocess import VoxelPreprocess, pixels, preset


def spoilt(x, name: str, severity: int, seed: int = 0) -> np.ndarray:
    return corrupt(x, name, severity, np.random.default_rng(seed))


def grey(level: int, side: int = 224, channels: int = 3) -> np.ndarray:
    return np.full((side, side, channels), level, np.uint8)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("side", [28, 224])
def test_every_way_gets_worse_and_is_the_same_each_time(name, side):
    photo = pixels(PHOTOS / "astronaut.jpg", preset("unit", side, side))
    away = []
    for severity in range(1, SEVERITIES + 1):
        found = spoilt(photo, name, severity)
        assert (found.dtype, found.shape) == (np.uint8, photo.shape)
        away.append(np.sqrt(((found.astype(float) - photo) ** 2).mean()))
    if name != "rotate":  # a picture turned far is as unlike itself as one turned less far
        assert away == sorted(away)
    assert away[0] > 1
    np.testing.assert_array_equal(spoilt(photo, name, 3), spoilt(photo, name, 3))


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 48, 3)])
def test_small_and_grey_pictures_are_taken_too(name, shape):
    x = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    for severity in (1, SEVERITIES):
        found = spoilt(x, name, severity)
        assert (found.dtype, found.shape) == (np.uint8, shape)


def test_noise_has_the_spread_of_its_formula():
    x = grey(128) / 255
    normal = spoilt(grey(128), "gaussian_noise", 2) / 255
    assert normal.std() == pytest.approx(0.12, rel=0.02)
    shot = spoilt(grey(128), "shot_noise", 1) / 255  # variance of Poisson(a x) / a: x / a
    assert shot.mean() == pytest.approx(x.mean(), rel=0.02)
    assert shot.var() == pytest.approx(x.mean() / 60, rel=0.05)
    impulse = spoilt(grey(128), "impulse_noise", 4)
    assert np.mean(impulse == 0) == pytest.approx(0.17 / 2, rel=0.05)
    assert np.mean(impulse == 255) == pytest.approx(0.17 / 2, rel=0.05)


def test_small_pictures_get_the_amounts_that_were_meant_for_them():
    small = spoilt(grey(128, side=32), "gaussian_noise", 2) / 255
    assert small.std() == pytest.approx(0.06, rel=0.05)


@pytest.mark.parametrize("name", ["defocus_blur", "motion_blur", "zoom_blur"])
def test_a_blur_leaves_an_even_picture_and_its_borders_alone(name):
    for level in (0, 77, 255):
        np.testing.assert_array_equal(spoilt(grey(level), name, 4), grey(level))


def point(side: int = 65) -> np.ndarray:
    x = np.zeros((side, side, 1))
    x[side // 2, side // 2] = 1
    return x


def test_defocus_spreads_a_point_over_a_disk():
    found = defocus_blur(point(), (6, 0.01), 1.0, None)[..., 0]
    rows, columns = np.mgrid[-32:33, -32:33]
    disk = rows**2 + columns**2 <= 36
    np.testing.assert_allclose(found, disk / disk.sum(), atol=1e-9)


def test_motion_leaves_a_trail_that_fades_as_a_gaussian():
    found = motion_blur(point(), (5, 3), 1.0, np.random.default_rng(0))[..., 0]
    trail = np.sort(found[found > 1e-9])[::-1]
    expected = np.exp(-(np.arange(11) ** 2) / 18)
    np.testing.assert_allclose(trail, expected / expected.sum(), rtol=1e-6)
    rows, columns = np.nonzero(found > 1e-9)
    assert np.ptp(columns) >= np.ptp(rows)  # at most 45 degrees from level


def test_zoom_is_the_mean_of_the_picture_and_its_magnified_centres():
    x = np.linspace(0, 1, 64)[None, :, None] * np.ones((64, 1, 1))
    found = zoom_blur(x, (1.25, 0.1), 1.0, None)
    places = (np.arange(64) - 31.5) / 63  # a slope of 1 becomes one of 1 / zoom
    slopes = np.mean([1, 1, 1 / 1.1, 1 / 1.2])
    inner = slice(4, -4)
    np.testing.assert_allclose(found[0, inner, 0], (0.5 + places * slopes)[inner], atol=1e-3)


def test_light_changes_by_its_formula():
    x = np.array([[[200, 100, 0], [0, 0, 0]]], np.uint8)
    brighter = spoilt(np.tile(x, (32, 16, 1)), "brightness", 2)[0, :2]  # value + 0.1
    np.testing.assert_array_equal(brighter, [[226, 113, 0], [26, 26, 26]])
    flat = spoilt(np.tile(x, (32, 16, 1)), "contrast", 4)[0, :2]  # 0.3 of the way from the mean
    np.testing.assert_array_equal(flat, [[130, 65, 0], [70, 35, 0]])


def test_pixels_grow_and_the_picture_moves():
    x = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    quarter = spoilt(x, "pixelate", 5)  # to 56 x 56 and back: squares of 4 x 4
    squares = quarter.reshape(56, 4, 56, 4, 3)
    assert (squares == squares[:, :1, :, :1]).all()
    means = x.reshape(56, 4, 56, 4, 3).mean(axis=(1, 3))
    assert np.abs(squares[:, 0, :, 0] - means).max() <= 1
    moved = spoilt(x, "translate", 1)
    kept = x[40:180, 40:180]
    distance = round(0.04 * 224)
    reach = range(-distance, distance + 1)
    places = [
        (i, j)
        for i in reach
        for j in reach
        if (moved[40 + i : 180 + i, 40 + j : 180 + j] == kept).all()
    ]
    assert len(places) == 1
    assert np.hypot(*places[0]) == pytest.approx(0.04 * 224, abs=1)


def test_rotation_turns_about_the_middle():
    x = np.zeros((65, 65, 1), np.uint8)
    x[32, 52] = 255  # 20 pixels to the right of the middle
    found = spoilt(np.tile(x, (1, 1, 3)), "rotate", 5)[..., 0].astype(float)
    rows, columns = np.mgrid[-32:33, -32:33]
    row, column = ((found * grid).sum() / found.sum() for grid in (rows, columns))
    assert abs(np.degrees(np.arctan2(row, column))) == pytest.approx(30, abs=2)
    assert np.hypot(row, column) == pytest.approx(20, abs=0.7)


# === What they cost ===


class Bright:
    """Answers 1 where the mean level is above 127."""

    name = kernel = "bright"

    def predict(self, images):
        above = images.mean(axis=(1, 2, 3)) > 127
        return np.stack([~above, above], axis=1).astype(np.float32)


def test_judging_counts_each_way_and_severity():
    images = np.stack([grey(110, 32), grey(100, 32), grey(200, 32)])
    true = np.array([0, 0, 1])
    right = judge_batch(Bright(), images, true, [0, 1, 2], ["brightness", "jpeg"], 0)
    assert right.shape == (3, 2, SEVERITIES)
    # 0.05, 0.1, 0.15, 0.2, 0.3 of 255 more: 110 + 25 and 100 + 38 are called bright
    assert right[:, 0].tolist() == [
        [True, False, False, False, False],
        [True, True, False, False, False],
        [True] * 5,
    ]
    assert right[:, 1].all()
    found = Robustness(("brightness", "jpeg"), right, 0)
    assert found.mean == pytest.approx((1 + 2 + 5 + 15) / 30)
    assert found.accuracy[0].tolist() == pytest.approx([1, 2 / 3, 1 / 3, 1 / 3, 1 / 3])
    document = found.to_dict()
    assert document["by_severity"][0] == 1
    assert document["interval"][0] <= found.mean <= document["interval"][1]


def test_chance_hangs_on_the_picture_and_not_on_the_batch():
    images = np.random.default_rng(1).integers(90, 160, (6, 32, 32, 3), dtype=np.uint8)
    true = np.ones(6, int)
    names = ["gaussian_noise", "translate"]
    whole = judge_batch(Bright(), images, true, range(6), names, 3)
    parts = [
        judge_batch(Bright(), images[i : i + 2], true[:2], [i, i + 1], names, 3) for i in (0, 2, 4)
    ]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


def test_unknown_ways_and_other_things_than_pictures_are_refused():
    assert check_names(True, preset("unit", 8, 8)) == tuple(CORRUPTIONS)
    assert check_names(False, preset("unit", 8, 8)) == ()
    with pytest.raises(UsageError, match="Did you mean 'zoom_blur'"):
        check_names(["zoom_blurr"], preset("unit", 8, 8))
    with pytest.raises(UsageError, match="expected a net of pictures"):
        check_names(True, VoxelPreprocess(4, 4, 4))
