"""Classes that differ in size: weights and sampling, and that the small class is found again."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.data import load
from striate.data.pipeline import class_weights, epoch_order
from striate.train import fit
from striate.train.optimize import cross_entropy
from striate.train.probe import solve


def test_weights_let_each_class_count_alike_and_a_picture_one_on_average():
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    weights = class_weights(labels, 4)
    np.testing.assert_allclose(weights, [100 / 180, 100 / 90, 100 / 30, 1])
    np.testing.assert_allclose(np.bincount(labels, weights[labels]), 100 / 3)
    assert weights[labels].mean() == pytest.approx(1)


def test_the_loss_of_a_picture_is_weighted_by_its_class():
    logits = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    labels = np.array([0, 2, 1, 1, 0])
    weights = np.array([0.5, 2.0, 4.0])
    plain, weighted = (np.array(cross_entropy(0.1, w)(labels, logits)) for w in (None, weights))
    np.testing.assert_allclose(weighted, weights[labels] * plain, rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=2, max_size=6), st.integers(0, 5))
def test_sampling_draws_each_class_as_often_and_each_picture_of_a_class(counts, epoch):
    labels = np.repeat(np.arange(len(counts)), counts)
    n = len(labels)
    drawn = np.concatenate(list(epoch_order(n, 7, seed=3, epoch=epoch, balance=labels)))
    assert len(drawn) == n
    of_class = np.bincount(labels[drawn], minlength=len(counts))
    assert of_class.max() - of_class.min() <= 1
    times = np.bincount(drawn, minlength=n)
    for label in range(len(counts)):
        of_pictures = times[labels == label]
        assert of_pictures.max() - of_pictures.min() <= 1


def test_the_order_is_a_function_of_seed_epoch_and_step_alone():
    labels = np.repeat([0, 1], [50, 5])
    whole = list(epoch_order(55, 8, seed=1, epoch=2, balance=labels))
    rest = list(epoch_order(55, 8, seed=1, epoch=2, start=3, balance=labels))
    assert all((a == b).all() for a, b in zip(whole[3:], rest, strict=True))
    other = np.concatenate(list(epoch_order(55, 8, seed=1, epoch=3, balance=labels)))
    assert (other != np.concatenate(whole)).any()


def test_a_probe_with_weights_is_that_of_scikit_learn():
    linear = pytest.importorskip("sklearn.linear_model")
    generator = np.random.default_rng(0)
    x, labels = generator.normal(size=(60, 4)), np.repeat([0, 1, 2], [40, 15, 5])
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    kernel, bias = solve(x, labels, 3, l2=0.01, weights=class_weights(labels, 3))
    oracle = linear.LogisticRegression(C=1 / (0.01 * 60), tol=1e-8, class_weight="balanced")
    ours, theirs = x @ kernel + bias, oracle.fit(x, labels).decision_function(x)
    centred = [z - z.mean(axis=1, keepdims=True) for z in (ours, theirs)]
    np.testing.assert_allclose(*centred, atol=2e-3)


@pytest.fixture(scope="module")
def unbalanced(tmp_path_factory):
    """200 pictures of noise, 10 with a faint stripe, and as many of both to judge by."""
    generator = np.random.default_rng(0)

    def pictures(labels):
        images = generator.integers(0, 200, (len(labels), 16, 16), dtype=np.uint8)
        images[labels == 1, 6:10] += 40
        return images

    y_train, y_val = np.repeat([0, 1], [200, 10]), np.repeat([0, 1], [60, 60])
    path = tmp_path_factory.mktemp("data") / "unbalanced.npz"
    arrays = {"x_train": pictures(y_train), "y_train": y_train}
    np.savez(path, **arrays, x_val=pictures(y_val), y_val=y_val)
    return load(path)


def recall_of_the_small_class(dataset, balance, strategy):
    recipe = {
        "model": {"name": "lenet5", "size": 16},
        "epochs": 4,
        "optimizer": {"learning_rate": 3e-3},
        "data": {"balance": balance},
        "strategy": strategy,
    }
    fitted = fit(recipe, dataset, dataset.split("train"), dataset.split("val"))
    return (fitted.val_logits.argmax(axis=1)[fitted.val.labels == 1] == 1).mean()


@pytest.mark.long
def test_the_small_class_is_found_again(unbalanced):
    recall = {
        balance: recall_of_the_small_class(unbalanced, balance, "full")
        for balance in ("none", "weights", "sampling")
    }
    print(recall)
    assert recall["weights"] > recall["none"] + 0.2
    assert recall["sampling"] > recall["none"] + 0.2


def test_a_probe_finds_it_too(unbalanced):
    plain, balanced = (
        recall_of_the_small_class(unbalanced, balance, "linear_probe")
        for balance in ("none", "sampling")
    )
    assert balanced > plain


def test_the_report_before_training_names_the_remedy(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (105, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "d.npz", images=images, labels=np.repeat([0, 1], [100, 5]))
    (problem,) = [p for p in load(tmp_path / "d.npz").problems if p.kind == "imbalance"]
    assert "data.balance=weights or sampling" in str(problem)
