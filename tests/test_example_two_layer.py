"""The two-layer net in numpy: its gradients are right, and Keras' twin gives the same logits."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest

from making import ROOT

FILE = ROOT / "examples" / "two_layer_numpy.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("two_layer_numpy", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_needs_nothing_but_numpy():
    imported = "import sys; sys.argv = ['x', '--help']; import two_layer_numpy; print(sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", imported],
        capture_output=True,
        text=True,
        check=True,
        cwd=FILE.parent,
    )
    assert all(f"'{name}'" not in ran.stdout for name in ("keras", "tensorflow", "striate"))


def test_the_net_for_cifar_has_154160_parameters(example):
    assert example.init_two_layer(3072, 50, 10).size == 154_160
    assert example.init_two_layer(8, 50, 4).size == 654


@pytest.mark.parametrize("penalty", [0.0, 0.3])
def test_the_gradient_is_the_slope_of_the_loss(example, penalty):
    generator = np.random.default_rng(0)
    weights = example.init_two_layer(5, 7, 3, seed=1)
    x, y = generator.normal(size=(12, 5)), generator.integers(0, 3, 12)
    assert example.gradient_error(weights, x, y, penalty) < example.GRADIENT_TOLERANCE


def test_the_gradient_check_sees_a_wrong_gradient(example, monkeypatch):
    honest = example.loss_and_gradient

    def forgetful(weights, x, y, penalty):
        return honest(weights, x, y, penalty)[0], honest(weights, x, y, 0.0)[1]

    monkeypatch.setattr(example, "loss_and_gradient", forgetful)
    weights = example.init_two_layer(5, 7, 3, seed=1)
    x, y = np.ones((4, 5)), np.array([0, 1, 2, 0])
    assert example.gradient_error(weights, x, y, penalty=0.3) > 1e-2


def test_keras_twin_gives_the_same_logits(example):
    from striate.registry import create_model

    weights = example.init_two_layer(8, 50, 4, seed=3)
    twin = create_model("mlp_two_layer", num_classes=4, input_shape=(8,), hidden=50)
    twin.set_weights([array.astype("float32") for array in weights])
    x = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")
    logits, _ = example.forward(weights, x.astype("float64"))
    # float32 against float64: a hundred products of numbers around 1 round by some 1e-7
    np.testing.assert_allclose(np.asarray(twin(x)), logits, atol=1e-6)


def test_training_beats_what_no_line_can(example):
    table = example.made_table()
    labels = table[:, -1].astype(int) - 1
    x, x_test = example.standardised(table[:400, :-1], table[400:, :-1])
    settings = example.Settings(rate=3e-2, penalty=1e-3, hidden=16, epochs=20)
    weights, losses = example.train(x, labels[:400], 4, settings)
    assert losses[-1] < losses[0] / 2
    assert example.accuracy(weights, x_test, labels[400:]) > 0.8


def test_the_search_draws_from_the_logarithm_and_sorts(example):
    table = example.made_table()
    x, labels = table[:400, :-1], table[:400, -1].astype(int) - 1
    found = example.search(x, labels, 4, trials=4, seed=1)
    scores = [score for score, _ in found]
    assert scores == sorted(scores, reverse=True)
    assert all(1e-4 <= settings.rate <= 1 for _, settings in found)


def test_a_table_of_ones_own_is_read(example, tmp_path):
    path = tmp_path / "mine.csv"
    np.savetxt(path, example.made_table(n=420), delimiter=",", fmt="%.4f")
    ran = subprocess.run(
        [sys.executable, str(FILE), str(path), "--trials", "2"], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert "test (20 rows)" in ran.stdout
    (tmp_path / "bad.csv").write_text("1,2,3\n4,x,1\n")
    bad = subprocess.run(
        [sys.executable, str(FILE), str(tmp_path / "bad.csv")], capture_output=True, text=True
    )
    assert bad.returncode == 1
    assert "expected the same count of numbers" in bad.stderr
