"""The running average of the weights: its formula, what it follows, and what it is used for."""

import keras
import numpy as np
import pytest

from striate.data import load
from striate.train import fit, loop
from striate.train.average import Average
from striate.train.judge import cross_entropy

RECIPE = {  # with batch normalisation
    "model": {"name": "resnet20_cifar", "size": 16, "options": {"depths": [1, 1, 1]}},
    "optimizer": {"name": "sgd", "learning_rate": 0.05},
    "epochs": 2,
    "batch_size": 8,
}


def followed(start, weights, decay):
    """avg += (1 - d_t) (w - avg), with d_t = min(decay, (1 + t) / (10 + t)), in float64."""
    average = [np.asarray(w, np.float64) for w in start]
    for t, now in enumerate(weights, start=1):
        kept = min(decay, (1 + t) / (10 + t))
        average = [a + (1 - kept) * (w - a) for a, w in zip(average, now, strict=True)]
    return average


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    generator = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "noise.npz"
    images = generator.integers(0, 256, (30, 32, 32, 3), dtype=np.uint8)
    np.savez(path, images=images, labels=np.arange(30) % 3)
    return load(path)


@pytest.fixture(scope="module")
def fits(dataset):
    """A fit without an average, its weights before and after each step, and one with it."""
    fold = dataset.folds(5)[0]
    seen = []
    take = loop.Run._add_stretch

    def watched(run, *arguments):
        seen.append([np.array(w) for w in run.net.weights])
        take(run, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "STRETCH", 1)
        patch.setattr(loop.Run, "_add_stretch", watched)
        plain = fit(RECIPE, dataset, *fold)
        averaged = fit(RECIPE, dataset, *fold, **{"optimizer.ema": 0.5})
    start = fit(RECIPE, dataset, *fold, epochs=0).model.get_weights()
    return start, seen[:6], plain, averaged


def test_the_artifact_gets_the_average_of_all_weights_and_moving_statistics(fits):
    start, seen, plain, averaged = fits
    expected = followed(start, seen, 0.5)
    found = averaged.model.get_weights()
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert any((a != b).any() for a, b in zip(found, plain.model.get_weights(), strict=True))


def test_training_goes_on_with_the_weights_themselves(fits):
    *_, plain, averaged = fits
    losses = [[row["loss"] for row in fitted.history] for fitted in (plain, averaged)]
    assert losses[0] == losses[1]


def test_what_is_validated_is_the_average(fits):
    *_, plain, averaged = fits
    at_the_end = cross_entropy(averaged.val_logits, averaged.val.labels)
    assert averaged.history[-1]["val_loss"] == pytest.approx(at_the_end, rel=1e-5)
    assert averaged.history[-1]["val_loss"] != plain.history[-1]["val_loss"]


def net_of_one_layer():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="dense")])


@pytest.mark.parametrize("batches", [1, 4])
def test_a_step_of_several_batches_counts_once(batches):
    net = net_of_one_layer()
    average = Average(net, 0.3, batches)
    start = net.get_weights()
    generator = np.random.default_rng(0)
    steps = [[generator.standard_normal(w.shape) for w in start] for _ in range(5)]
    for t, weights in enumerate(steps, start=1):
        net.set_weights(weights)
        for _ in range(batches):
            average.follow(t)
    for a, b in zip(average.values, followed(start, steps, 0.3), strict=True):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(a), b, rtol=1e-5, atol=1e-6)


def test_what_is_frozen_is_not_averaged():
    net = net_of_one_layer()
    net.get_layer("dense").trainable = False
    assert Average(net, 0.9).values == []


class Counting(keras.layers.Layer):
    """Has a weight that is no float, as a mask or an index is."""

    def build(self, shape):
        self.count = self.add_weight(dtype="int32", trainable=False, initializer="ones")

    def call(self, x):
        return x


def test_whole_numbers_among_the_weights_are_left_as_they_are():
    net = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), Counting()])
    average = Average(net, 0.9)
    assert len(average.values) == 2
    net.layers[-1].count.assign(7)
    average.follow(1)
    average.take_place()
    assert int(net.layers[-1].count) == 7


def test_in_place_of_the_weights_only_for_a_while():
    """Also where the while ends by Ctrl-C: what is saved then goes on training."""
    net = net_of_one_layer()
    average = Average(net, 0.9)
    first = net.get_weights()
    own = [w + 1 for w in first]
    net.set_weights(own)

    def interrupted():
        with average.in_place():
            for a, b in zip(net.get_weights(), first, strict=True):
                np.testing.assert_array_equal(a, b)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    for a, b in zip(net.get_weights(), own, strict=True):
        np.testing.assert_array_equal(a, b)
