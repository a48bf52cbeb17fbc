"""Attacks: they stay in their ball and in the range, and do what their formula says."""

import keras
import numpy as np
import pytest

import striate
from making import PHOTOS, SHIPPED
from striate.explain import subject_of
from striate.explain.fgsm import EPSILON, cross_entropy, fgsm, uphill
from striate.explain.minimal import minimal
from striate.explain.pgd import pgd
from striate.preprocess import pixels
from striate.registry import create_model


@pytest.fixture(scope="module")
def subject():
    keras.utils.set_random_seed(0)
    return subject_of(create_model("lenet5", input_shape=(28, 28, 1), num_classes=5))


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 28, 28, 1)).astype("float32")


def answers(subject, x: np.ndarray) -> np.ndarray:
    return np.asarray(subject.logits(x)).argmax(axis=1)


def test_fgsm_is_one_signed_step_of_epsilon(subject, pictures):
    labels = answers(subject, pictures)
    moved = fgsm(subject, pictures, labels, epsilon=0.05)
    slope = uphill(subject, pictures, labels)
    inside = (moved > 0) & (moved < 255) & (slope != 0)
    np.testing.assert_allclose(
        (moved - pictures)[inside], 12.75 * np.sign(slope)[inside], rtol=1e-3
    )


def test_the_gradient_of_the_loss_is_probability_minus_truth_through_a_linear_net():
    image = keras.Input((4, 4, 1))
    x = keras.layers.Flatten(name="flatten")(image)
    net = keras.Model(image, keras.layers.Dense(3, name="logits")(x), name="lenet5")
    linear = subject_of(net)
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 4, 4, 1)).astype("float32")
    labels = np.array([0, 2])
    error = np.asarray(keras.ops.softmax(linear.logits(pixels))) - np.eye(3)[labels]
    scale = linear.preprocess.scale[0]
    expected = (error @ net.get_layer("logits").get_weights()[0].T * scale).reshape(2, 4, 4, 1)
    np.testing.assert_allclose(uphill(linear, pixels, labels), expected, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("attack", [fgsm, pgd])
@pytest.mark.parametrize("epsilon", [EPSILON, 0.1, 0.9])
def test_no_attack_leaves_its_ball_or_the_range(subject, pictures, attack, epsilon):
    moved = attack(subject, pictures, answers(subject, pictures), epsilon=epsilon)
    assert np.abs(moved - pictures).max() <= 255 * epsilon * (1 + 1e-5)
    assert moved.min() >= 0
    assert moved.max() <= 255
    assert moved.dtype == np.float32


def test_a_longer_walk_hurts_more(subject, pictures):
    labels = answers(subject, pictures)

    def loss(x: np.ndarray) -> float:
        return float(np.mean(cross_entropy(subject, labels, x)))

    one = fgsm(subject, pictures, labels, epsilon=0.05)
    walk = pgd(subject, pictures, labels, epsilon=0.05, steps=20)
    assert loss(pictures) < loss(one) < loss(walk)


def test_a_walk_towards_a_class_arrives(subject, pictures):
    wanted = (answers(subject, pictures) + 1) % 5
    moved = pgd(subject, pictures, wanted, epsilon=0.5, steps=40, towards=True)
    assert (answers(subject, moved) == wanted).mean() > 0.8


def test_the_nearest_picture_of_what_it_is_taken_for_is_the_picture_itself(subject, pictures):
    few = pictures[:2]
    done = []
    near = minimal(
        subject, few, answers(subject, few), tries=2, on_progress=lambda *at: done.append(at)
    )
    np.testing.assert_array_equal(near, few)
    assert done == [(2, 4), (4, 4)]


@pytest.mark.long
def test_the_nearest_adversary_is_nearer_than_any_walk(subject, pictures):
    few = pictures[:2]
    wanted = (answers(subject, few) + 1) % 5
    near = minimal(subject, few, wanted)
    assert (answers(subject, near) == wanted).all()
    assert near.min() >= 0
    assert near.max() <= 255
    for epsilon in (0.02, 0.05, 0.1, 0.3):
        walk = pgd(subject, few, wanted, epsilon=epsilon, steps=40, towards=True)
        arrived = answers(subject, walk) == wanted
        far = np.sqrt(((walk - few) ** 2).sum(axis=(1, 2, 3)))
        assert (np.sqrt(((near - few) ** 2).sum(axis=(1, 2, 3)))[arrived] < far[arrived]).all()


def test_the_paper_s_epsilon_flips_most_photographs():
    net = subject_of(striate.load(SHIPPED))
    photographs = [pixels(path, net.preprocess) for path in sorted(PHOTOS.glob("*.jpg"))]
    before = np.stack(photographs).astype("float32")
    labels = answers(net, before)
    after = fgsm(net, before, labels, epsilon=EPSILON)
    assert np.abs(after - before).max() <= EPSILON * 255 + 1e-3
    assert (answers(net, after) != labels).mean() > 0.5
