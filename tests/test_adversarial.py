"""Adversarial training: its formulas on a linear net, and that a net comes to withstand attacks."""

import keras
import numpy as np
import pytest
from keras import ops

from striate.data import load
from striate.explain.fgsm import fgsm
from striate.explain.subject import subject_of
from striate.preprocess import preset
from striate.train import fit
from striate.train.adversarial import Attack
from striate.train.graphs import compile_graph, training_graph
from striate.train.recipe import Adversarial, make_recipe


def linear_net(seed=0):
    """Float pixels [N, 4, 4, 1] -> logits [N, 3]."""
    keras.utils.set_random_seed(seed)
    image = keras.Input((4, 4, 1))
    logits = keras.layers.Dense(3, name="logits")(keras.layers.Flatten()(image))
    return keras.Model(image, logits)


@pytest.fixture
def batch():
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (6, 4, 4, 1), dtype=np.uint8)
    return x, np.array([0, 1, 2, 0, 2, 1], np.int32)


def judged(net, x, labels):
    """(mean cross-entropy, its gradient with regard to the pixels 0 to 255) in NumPy."""
    kernel, bias = net.get_weights()
    logits = x.reshape(len(x), -1) / 255 @ kernel + bias
    scores = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores /= scores.sum(axis=1, keepdims=True)
    truth = np.eye(3)[labels]
    slope = (scores - truth) @ kernel.T / 255 / len(x)
    return -np.log((scores * truth).sum(axis=1)).mean(), slope.reshape(x.shape)


def trainer_of(net, adversarial, **groups):
    sgd = {"name": "sgd", "momentum": 0, "learning_rate": 0.1}
    recipe = make_recipe(
        {
            "model": "lenet5",
            "optimizer": sgd,
            "schedule": "constant",
            "adversarial": adversarial,
            **groups,
        }
    )
    trainer = training_graph(net, recipe, preset("unit", 4, 4, 1))
    compile_graph(trainer, recipe, steps=1, epochs=1)
    return trainer


@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_the_loss_is_that_of_the_pictures_and_of_those_one_signed_step_away(batch, weight):
    x, labels = batch
    net = linear_net()
    clean, slope = judged(net, x.astype(float), labels)
    worse = np.clip(x + 8 * np.sign(slope), 0, 255)
    expected = (1 - weight) * clean + weight * judged(net, worse, labels)[0]
    trainer = trainer_of(net, {"epsilon": 8, "weight": weight})
    found = trainer.train_on_batch(x, labels, return_dict=True)["loss"]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert expected > clean


def test_a_step_follows_the_gradient_at_the_attacked_pictures(batch):
    x, labels = batch
    net = linear_net()
    kernel, bias = net.get_weights()
    worse = np.clip(x + 8 * np.sign(judged(net, x.astype(float), labels)[1]), 0, 255)
    flat = worse.reshape(6, -1) / 255
    scores = np.exp(flat @ kernel + bias)
    error = scores / scores.sum(axis=1, keepdims=True) - np.eye(3)[labels]
    trainer_of(net, {"epsilon": 8, "weight": 1.0}).train_on_batch(x, labels)
    np.testing.assert_allclose(
        net.get_weights()[0], kernel - 0.1 * flat.T @ error / 6, rtol=1e-4, atol=1e-6
    )


def test_a_walk_stays_within_epsilon_and_the_range_and_ends_where_the_loss_is_larger(batch):
    x, labels = batch
    net = linear_net()
    attack = Attack(Adversarial(epsilon=20, steps=5), seed=0)

    def loss(pixels):
        logits = net(pixels / 255)
        return ops.mean(keras.losses.sparse_categorical_crossentropy(labels, logits, True))

    pixels = x.astype("float32")
    worse = ops.convert_to_numpy(attack(ops.convert_to_tensor(pixels), loss=loss))
    assert np.abs(worse - pixels).max() <= 20 + 1e-4
    assert (worse.min() >= 0, worse.max() <= 255) == (True, True)
    # of a linear net, the steps' end is the corner that one whole step reaches
    corner = np.clip(pixels + 20 * np.sign(judged(net, pixels, labels)[1]), 0, 255)
    at_the_corner = judged(net, corner, labels)[0]
    assert judged(net, worse, labels)[0] == pytest.approx(at_the_corner, rel=1e-3)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_pictures_that_a_net_is_sure_of_are_attacked_in_every_precision(policy):
    x = np.random.default_rng(0).uniform(50, 200, (64, 16)).astype("float32")
    net = keras.Sequential([keras.Input((16,)), keras.layers.Dense(2, dtype=policy)])
    kernel = np.where(np.arange(16) % 2, 0.25, -0.25)
    net.set_weights([np.stack([kernel, -kernel], axis=1), np.float32([-7, 7])])
    labels = np.ones(64, np.int32)

    def loss(pixels):
        logits = ops.cast(net(pixels / 255), "float32")
        return ops.mean(keras.losses.sparse_categorical_crossentropy(labels, logits, True))

    sure = np.float64(loss(x))
    worse = ops.convert_to_numpy(Attack(Adversarial(epsilon=4), seed=0)(x, loss=loss))
    assert sure < 1e-5
    np.testing.assert_allclose(worse - x, np.broadcast_to(4 * np.sign(kernel), x.shape), atol=1e-4)


def test_attacked_pictures_are_learnt_with_the_rounding_that_int8_brings(batch):
    """Of an attack that moves nothing the loss is that of the pictures, of the net that rounds."""
    x, labels = batch
    still = {"epsilon": 1e-4, "weight": 1.0}

    def loss(adversarial, **groups):
        trainer = trainer_of(linear_net(), adversarial, **groups)
        return trainer.train_on_batch(x, labels, return_dict=True)["loss"]

    rounded = loss({}, quantise="int8")
    assert abs(rounded - loss({})) > 1e-4
    assert loss(still, quantise="int8") == pytest.approx(rounded, abs=1e-5)


def test_it_goes_with_mixed_pictures(batch):
    x, labels = batch
    trainer = trainer_of(linear_net(), {"epsilon": 8, "steps": 2}, augment={"mixup": 0.4})
    found = trainer.train_on_batch(x, labels, return_dict=True)
    assert np.isfinite(found["loss"])
    assert 0 <= found["accuracy"] <= 1


@pytest.mark.long
def test_a_net_that_has_learnt_attacked_digits_withstands_attacks(tmp_path):
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    images = np.kron(digits.images * 15.9, np.ones((2, 2))).astype(np.uint8)  # 16 x 16
    np.savez(tmp_path / "digits.npz", images=images, labels=digits.target)
    dataset = load(tmp_path / "digits.npz")
    recipe = {
        "model": {"name": "lenet5", "size": 16},
        "epochs": 12,
        "optimizer": {"learning_rate": 3e-3},
    }
    found = {}
    for epsilon in (0, 40):
        fitted = fit(
            recipe,
            dataset,
            dataset.split("train"),
            dataset.split("val"),
            **{"adversarial.epsilon": epsilon},
        )
        subject = subject_of(fitted.model, fitted.preprocess)
        pixels = fitted.val.images.astype(np.float32)
        worse = fgsm(subject, pixels, fitted.val.labels, epsilon=40 / 255)
        logits = ops.convert_to_numpy(subject.logits(worse))
        found[epsilon] = (fitted.val_accuracy, (logits.argmax(axis=1) == fitted.val.labels).mean())
    print(found)
    assert found[40][1] > found[0][1] + 0.2
    assert found[40][0] > 0.9
