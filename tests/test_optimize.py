"""Optimisers against their equations, step by step in NumPy, and the rate of a plateau."""

import keras
import numpy as np
import pytest

from striate.data import load
from striate.errors import UsageError
from striate.train import fit
from striate.train.optimize import lower_rate, make_optimizer
from striate.train.recipe import make_recipe

START = np.array([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]])
GRADIENTS = np.random.default_rng(0).standard_normal((5, 2, 3)).astype("float32")


def stepped(gradients=GRADIENTS, schedule="constant", shape=(2, 3), **optimizer):
    """Where START is after one step for each gradient."""
    variable = keras.Variable(START.reshape(shape).astype("float32"))
    recipe = make_recipe({"model": "lenet5", "optimizer": optimizer, "schedule": schedule})
    made = make_optimizer(recipe, [variable], steps=len(gradients), epochs=1)
    made.build([variable])
    for gradient in gradients:
        made.apply([keras.ops.convert_to_tensor(gradient.reshape(shape))])
    return keras.ops.convert_to_numpy(variable)


# === The equations ===


def sgd(x, gradients, rate, momentum=0.0, nesterov=False):
    """v = m v - rate g, x += v; Nesterov's looks ahead. No factor 1 - m before the gradient."""
    v = 0.0
    for g in gradients:
        v = momentum * v - rate * g
        x = x + (momentum * v - rate * g if nesterov else v)
    return x


def adagrad(x, gradients, rate):
    """Duchi, Hazan, Singer 2011; Keras has the 1e-7 inside the root."""
    total = 0.0
    for g in gradients:
        total = total + g**2
        x = x - rate * g / np.sqrt(total + 1e-7)
    return x


def rmsprop(x, gradients, rate, momentum=0.0):
    """Tieleman, Hinton 2012, with decay 0.9; Keras has the 1e-7 inside the root."""
    square, v = 0.0, 0.0
    for g in gradients:
        square = 0.9 * square + 0.1 * g**2
        v = momentum * v + rate * g / np.sqrt(square + 1e-7)
        x = x - v
    return x


def adam(x, gradients, rate, decay=0.0):
    """Kingma, Ba 2014, both moments corrected for their bias; the decay is AdamW's."""
    m = s = 0.0
    for t, g in enumerate(gradients, start=1):
        x = x - rate * decay * x
        m, s = 0.9 * m + 0.1 * g, 0.999 * s + 0.001 * g**2
        x = x - rate * (m / (1 - 0.9**t)) / (np.sqrt(s / (1 - 0.999**t)) + 1e-7)
    return x


def nadam(x, gradients, rate):
    """Dozat 2016: Adam with Nesterov's look ahead and a momentum that warms up."""
    m, s, product = 0.0, 0.0, 1.0
    for t, g in enumerate(gradients, start=1):
        now, ahead = (0.9 * (1 - 0.5 * 0.96**i) for i in (t, t + 1))
        product *= now
        m, s = 0.9 * m + 0.1 * g, 0.999 * s + 0.001 * g**2
        mean = ahead * m / (1 - product * ahead) + (1 - now) * g / (1 - product)
        x = x - rate * mean / (np.sqrt(s / (1 - 0.999**t)) + 1e-7)
    return x


def lion(x, gradients, rate):
    """Chen et al. 2023: only the signs."""
    m = 0.0
    for g in gradients:
        x = x - rate * np.sign(0.9 * m + 0.1 * g)
        m = 0.99 * m + 0.01 * g
    return x


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"name": "sgd", "momentum": 0}, sgd(START, GRADIENTS, 0.1)),
        ({"name": "sgd", "momentum": 0.9, "nesterov": False}, sgd(START, GRADIENTS, 0.1, 0.9)),
        ({"name": "sgd", "momentum": 0.99}, sgd(START, GRADIENTS, 0.1, 0.99, nesterov=True)),
        ({"name": "adagrad"}, adagrad(START, GRADIENTS, 0.1)),
        ({"name": "rmsprop", "momentum": 0}, rmsprop(START, GRADIENTS, 0.1)),
        ({"name": "rmsprop", "momentum": 0.9}, rmsprop(START, GRADIENTS, 0.1, 0.9)),
        ({"name": "adam"}, adam(START, GRADIENTS, 0.1)),
        ({"name": "adamw", "weight_decay": 0.3}, adam(START, GRADIENTS, 0.1, 0.3)),
        ({"name": "nadam"}, nadam(START, GRADIENTS, 0.1)),
        ({"name": "lion"}, lion(START, GRADIENTS, 0.1)),
    ],
)
def test_an_optimiser_steps_as_its_equation_says(options, expected):
    found = stepped(learning_rate=0.1, **options)
    # 1 - 0.999^t, the correction of a bias, has only four digits in float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-5)


# === Around them ===


def test_the_whole_gradient_is_clipped_to_its_norm():
    gradients = 5 * GRADIENTS[:1]
    found = stepped(gradients, name="sgd", momentum=0, learning_rate=0.1, clip_norm=2.0)
    expected = START - 0.1 * 2 * gradients[0] / np.linalg.norm(gradients[0])
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    small = stepped(gradients, name="sgd", momentum=0, learning_rate=0.1, clip_norm=1e3)
    np.testing.assert_allclose(small, START - 0.1 * gradients[0], rtol=1e-5)


def test_decay_shrinks_kernels_and_spares_biases_unless_asked():
    still = np.zeros((1, 2, 3), "float32")
    options = {"name": "sgd", "learning_rate": 0.1, "weight_decay": 0.5}
    kernel, bias = (stepped(still, shape=shape, **options) for shape in ((2, 3), (6,)))
    np.testing.assert_allclose(kernel, 0.95 * START, rtol=1e-6)
    np.testing.assert_array_equal(bias, START.ravel())
    every = stepped(still, shape=(6,), decay_all=True, **options)
    np.testing.assert_allclose(every, 0.95 * START.ravel(), rtol=1e-6)


def test_accumulated_gradients_are_averaged_and_the_schedule_goes_on_counting_batches():
    gradients = np.random.default_rng(1).standard_normal((8, 2, 3)).astype("float32")
    options = {"name": "sgd", "momentum": 0, "learning_rate": 0.5, "accumulate": 4}
    found = stepped(gradients, schedule="polynomial", **options)
    first, second = gradients[:4].mean(axis=0), gradients[4:].mean(axis=0)
    expected = START - 0.5 * (5 / 8 * first + 1 / 8 * second)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


# === Plateau ===


@pytest.fixture(scope="module")
def hard():
    """Pictures of pure noise: validation stalls at once."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (60, 32, 32), dtype=np.uint8)
    return images, np.arange(60) % 3


PLATEAU = {
    "model": "lenet5",
    "epochs": 9,
    "optimizer": {"learning_rate": 2e-3},
    "schedule": {"name": "plateau", "patience": 2, "factor": 0.5},
}


def test_the_rate_falls_when_validation_stalls_and_only_then(hard, tmp_path):
    np.savez(tmp_path / "hard.npz", images=hard[0], labels=hard[1])
    dataset = load(tmp_path / "hard.npz")
    history = fit(PLATEAU, dataset, *dataset.folds(3)[0]).history
    rate, best, stale, expected = 2e-3, np.inf, 0, []
    for row in history:
        expected.append(rate)
        stale = 0 if row["val_loss"] < best else stale + 1
        best = min(best, row["val_loss"])
        if stale == 2:
            rate, stale = rate * 0.5, 0
    assert expected[-1] < expected[0]
    np.testing.assert_allclose([row["learning_rate"] for row in history], expected, rtol=1e-6)


def test_under_loss_scaling_too_with_an_average_and_several_batches_a_step(hard, tmp_path):
    np.savez(tmp_path / "hard.npz", images=hard[0], labels=hard[1])
    dataset = load(tmp_path / "hard.npz")
    half = {"precision": "mixed_float16", "epochs": 3, "schedule.patience": 1}
    more = {"optimizer.ema": 0.9, "optimizer.accumulate": 2}
    fitted = fit(PLATEAU, dataset, *dataset.folds(3)[0], **half, **more)
    lowest = 2e-3 * 0.5 ** sum(
        b["val_loss"] >= min(row["val_loss"] for row in fitted.history[:i])
        for i, b in enumerate(fitted.history[:-1])
        if i
    )
    assert fitted.history[-1]["learning_rate"] == pytest.approx(lowest, rel=1e-6)
    assert {w.dtype for w in fitted.model.get_weights()} == {np.dtype("float32")}


def test_a_lowered_rate_stays_low_after_a_warm_up():
    variable = keras.Variable(START.astype("float32"))
    schedule = {"name": "plateau", "warmup": 1}
    recipe = make_recipe({"model": "lenet5", "schedule": schedule})
    optimizer = make_optimizer(recipe, [variable], steps=4, epochs=3)
    optimizer.build([variable])
    lower_rate(optimizer, 0.1)
    rates = []
    for gradient in GRADIENTS:
        rates.append(float(optimizer.learning_rate))
        optimizer.apply([keras.ops.convert_to_tensor(gradient)])
    np.testing.assert_allclose(rates, 1e-4 * np.array([0, 0.25, 0.5, 0.75, 1]), rtol=1e-6)


def test_plateau_without_validation_pictures_is_one_line(hard, tmp_path):
    np.savez(tmp_path / "hard.npz", images=hard[0], labels=hard[1])
    dataset = load(tmp_path / "hard.npz")
    with pytest.raises(UsageError, match=r"schedule=plateau needs validation pictures"):
        fit(PLATEAU, dataset, np.arange(60))
