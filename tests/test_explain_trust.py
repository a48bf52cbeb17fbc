"""Whether maps can be believed: planted evidence, taking pixels away, and random weights."""

import keras
import numpy as np
import pytest

from striate.errors import UsageError
from striate.explain import METHODS, explain, subject_of
from striate.explain.planted import PATTERNS, planted, pointing_game
from striate.explain.trust import STEPS, deletion, filled, insertion, randomisation, road
from striate.registry import create_model

pytestmark = pytest.mark.long  # a net is trained for them


@pytest.fixture(scope="module")
def sighted():
    """A small net that has learnt to name the planted patterns, and pictures it has not seen."""
    keras.utils.set_random_seed(0)
    net = create_model("resnet20_cifar", num_classes=4, input_shape=(48, 48, 3), depths=(1, 1, 1))
    subject = subject_of(net)
    pixels = keras.Input((48, 48, 3))
    trainer = keras.Model(pixels, net(subject.normalise(pixels)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    trainer.compile(keras.optimizers.AdamW(3e-3), loss=loss)
    known = planted(2000, seed=1)
    trainer.fit(known.images.astype("float32"), known.labels, batch_size=50, epochs=4, verbose=0)
    unseen = planted(60, seed=2)
    logits = np.asarray(subject.logits(unseen.images.astype("float32")))
    assert (logits.argmax(axis=1) == unseen.labels).mean() > 0.95
    return subject, unseen


def maps_of(sighted, method: str, **options) -> np.ndarray:
    subject, unseen = sighted
    return explain(subject, unseen.images, method=method, target=unseen.labels, **options).maps


@pytest.mark.parametrize("method", ["grad_cam", "grad_cam_plus_plus", "occlusion"])
def test_maps_point_at_the_planted_evidence_and_not_at_its_decoy(sighted, method):
    coarse = {"window": 0.25, "stride": 0.125} if method == "occlusion" else {}
    maps = maps_of(sighted, method, **coarse)
    assert pointing_game(maps, sighted[1].masks) >= 0.9


def test_patterns_without_room_for_both_are_refused():
    assert planted(2, side=29, seed=0).images.shape == (2, 29, 29, 3)
    with pytest.raises(UsageError, match="a side of more than two patches, 28 pixels"):
        planted(1, side=28)


def test_evidence_and_decoy_hold_the_same_pixels():
    found = planted(40, seed=3)
    assert set(found.labels) == set(range(len(PATTERNS)))
    assert found.masks.sum(axis=(1, 2)).tolist() == [14 * 14] * 40
    chance = pointing_game(np.random.default_rng(0).random((40, 48, 48)), found.masks)
    assert chance < 0.3


def test_a_map_in_its_right_order_takes_the_score_away_sooner_than_one_backwards(sighted):
    subject, unseen = sighted
    maps = maps_of(sighted, "grad_cam")
    for i in range(3):
        x, target = unseen.images[i].astype("float32"), unseen.labels[i]
        for curve, sign in ((deletion, 1), (road, 1), (insertion, -1)):
            right, wrong = curve(subject, x, maps[i], target), curve(subject, x, -maps[i], target)
            assert sign * right.mean() < sign * wrong.mean()


def test_the_curves_begin_and_end_where_they_should(sighted):
    subject, unseen = sighted
    x, target = unseen.images[0].astype("float32"), unseen.labels[0]
    heat = np.random.default_rng(0).random((48, 48))
    whole = keras.ops.softmax(subject.logits(x[None]))[0, target]
    grey = keras.ops.softmax(subject.logits(np.full_like(x, 127.5)[None]))[0, target]
    gone = deletion(subject, x, heat, target)
    assert len(gone) == STEPS
    np.testing.assert_allclose(gone[[0, -1]], [whole, grey], rtol=1e-4)
    np.testing.assert_allclose(insertion(subject, x, heat, target)[-1], whole, rtol=1e-4)
    np.testing.assert_allclose(road(subject, x, heat, target)[0], whole, rtol=1e-4)


def test_a_hole_in_a_slope_is_filled_with_the_slope():
    """A plane solves the mean-of-neighbours equations exactly; only the noise of 1 % remains."""
    row, column = np.mgrid[:20, :20]
    plane = (5.0 * row + 3.0 * column)[..., None].repeat(3, axis=-1)
    gone = np.zeros((20, 20), bool)
    gone[6:12, 5:14] = True
    found = filled(np.where(gone[..., None], 0, plane), gone)
    np.testing.assert_array_equal(found[~gone], plane[~gone].astype("float32"))
    assert np.abs(found[gone] - plane[gone]).max() < 5 * 2.55
    assert np.abs((found - plane)[gone].mean()) < 1


@pytest.mark.parametrize("method", ["grad_cam", "saliency", "integrated_gradients"])
def test_maps_of_a_net_without_its_weights_are_others(sighted, method):
    subject, unseen = sighted
    few = unseen.images[:6].astype("float32")
    found = randomisation(METHODS[method].function, subject, few, unseen.labels[:6], stops=3)
    assert [step.layer for step in found][::2] == ["logits", "stem_conv"]
    assert found[-1].similarity < 0.5


def test_randomising_leaves_the_net_itself_alone(sighted):
    subject, unseen = sighted
    few = unseen.images[:2].astype("float32")
    before = np.asarray(subject.logits(few))
    randomisation(METHODS["saliency"].function, subject, few, unseen.labels[:2], stops=2)
    np.testing.assert_array_equal(np.asarray(subject.logits(few)), before)
