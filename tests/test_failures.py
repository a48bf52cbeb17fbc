"""What goes wrong in training is caught, told in one line, and leaves a way on."""

import keras
import numpy as np
import pytest

from striate.data import load
from striate.errors import DataError
from striate.train import fit, make_recipe, train
from striate.train.failures import Diverged, OutOfMemory, check_loss, memory_explained

LENET = {"model": "lenet5", "epochs": 3, "batch_size": 8, "checkpoint_seconds": 0}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    generator = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "noise.npz"
    images = generator.integers(0, 256, (40, 32, 32), dtype=np.uint8)
    np.savez(path, images=images, labels=np.arange(40) % 2)
    return path


def breaking_fit(monkeypatch, at, error=None, loss=None):
    """Let the n-th call of Keras' fit raise an error, or tell of a loss."""
    calls, real = [], keras.Model.fit

    def fit_or_break(model, *arguments, **options):
        calls.append(model)
        if len(calls) == at and error:
            raise error
        done = real(model, *arguments, **options)
        if len(calls) == at and loss:
            done.history["loss"] = [loss]
        return done

    monkeypatch.setattr(keras.Model, "fit", fit_or_break)


# === The loss ===


@pytest.mark.parametrize(
    ("loss", "least"),
    [
        (300.0, None),  # badly scaled first weights, or a penalty, before the first step
        (300.0, 40.0),  # and while they settle
        (0.4, 1e-3),  # one hard picture after many easy ones
        (20.0, 0.1),  # 2 ln 10 is the loss of a net that halves its chance
    ],
)
def test_a_loss_that_nets_recover_from_is_no_explosion(loss, least):
    check_loss(make_recipe(LENET), loss, least=least, classes=10, epoch=2)


@pytest.mark.parametrize(
    ("loss", "least", "message"),
    [
        (float("nan"), None, "training diverged: the loss became nan in epoch 2"),
        (float("inf"), 1.0, "training diverged: the loss became inf in epoch 2"),
        (24.0, 1.5, "training is exploding: the loss rose from 1.5 to 24 in epoch 2"),
        (401.0, 40.0, "training is exploding: the loss rose from 40 to 401 in epoch 2"),
        (4.3e6, None, "training is exploding: the loss rose to 4.3e+06 in epoch 2"),
    ],
)
def test_a_lost_run_is_one_line_that_says_what_to_change(loss, least, message):
    with pytest.raises(Diverged) as caught:
        check_loss(make_recipe(LENET), loss, least=least, classes=10, epoch=2)
    text = str(caught.value)
    assert text.startswith(message)
    assert "lower optimizer.learning_rate (now 0.001)" in text
    assert "\n" not in text


def test_an_exploding_run_ends_and_leaves_nothing(data, tmp_path, monkeypatch):
    breaking_fit(monkeypatch, at=2, loss=1e4)
    with pytest.raises(Diverged, match=r"exploding.* to 1e\+04 in epoch 2"):
        train(LENET, tmp_path / "m", data=data, progress=False)
    assert not (tmp_path / "m").exists()


# === Memory ===


def errors_about_memory():
    tensorflow = pytest.importorskip("tensorflow")
    return [
        tensorflow.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor"),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes."),  # XLA's
        MemoryError(),
    ]


@pytest.mark.parametrize("which", range(3))
def test_a_lack_of_memory_is_one_line_that_halves_the_batch(which):
    recipe = make_recipe({**LENET, "batch_size": 25, "optimizer": {"accumulate": 3}})
    with pytest.raises(OutOfMemory) as caught, memory_explained(recipe):
        raise errors_about_memory()[which]
    text = str(caught.value)
    assert text.startswith("out of memory with batches of 25")
    assert "batch_size=13 optimizer.accumulate=6" in text
    assert "\n" not in text


def test_other_errors_pass_as_they_are():
    with pytest.raises(ZeroDivisionError), memory_explained(make_recipe(LENET)):
        _ = 1 / 0


def test_a_batch_of_one_gets_other_advice():
    recipe = make_recipe({**LENET, "batch_size": 1})
    with pytest.raises(OutOfMemory, match=r"smaller model\.size"), memory_explained(recipe):
        raise MemoryError


@pytest.mark.long
def test_a_run_out_of_memory_goes_on_where_it_was_or_begins_anew_with_less(
    data, tmp_path, monkeypatch
):
    whole = train(LENET, tmp_path / "whole", data=data, progress=False)
    with monkeypatch.context() as patch:
        breaking_fit(patch, at=2, error=errors_about_memory()[0])
        with pytest.raises(OutOfMemory):
            train(LENET, tmp_path / "m", data=data, progress=False)
    assert len(list((tmp_path / "m").glob(".run-*/checkpoint.npz"))) == 1
    resumed = train(LENET, tmp_path / "m", data=data, progress=False)
    for a, b in zip(whole.model.get_weights(), resumed.model.get_weights(), strict=True):
        assert a.tobytes() == b.tobytes()
    halved = {"batch_size": 4, "optimizer.accumulate": 2}
    assert train(LENET, tmp_path / "m", data=data, progress=False, **halved).version == 2


# === Classes ===


def test_a_class_that_only_validation_has_is_one_line(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (9, 32, 32), dtype=np.uint8)
    arrays = {"x_train": x[:6], "y_train": [0, 0, 0, 1, 1, 1], "x_val": x[6:], "y_val": [0, 1, 2]}
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(DataError, match=r"class '2' has pictures in val but none in train"):
        load(tmp_path / "d.npz")


def test_a_class_that_is_missing_from_a_fold_is_one_line(data):
    dataset = load(data)
    only = np.flatnonzero(dataset.labels == 0)
    with pytest.raises(DataError, match=r"class '1' has no readable picture to learn from"):
        fit(LENET, dataset, only)
