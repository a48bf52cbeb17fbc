"""striate.train: strategies, the loop, early ends, and the artifact that a run leaves."""

import errno
import os
import shutil
import stat
import subprocess
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import striate
from making import tiny_artifact
from striate import artifact
from striate.data import from_arrays, load
from striate.errors import DataError, StriateError, UsageError
from striate.train import (
    build,
    checkpoint,
    cross_validate,
    finetune_recipe,
    fit,
    make_recipe,
    train,
)
from striate.train.judge import cross_entropy as loss_of
from striate.train.loop import _is_better
from striate.train.probe import solve

QUIET = {"progress": False}


def stripes(path, n=60, classes=3, size=(32, 32), noise=60, seed=0):
    """An .npz of noisy pictures, each with a bright stripe where its class has it."""
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    images = generator.integers(0, noise, (n, *size), dtype=np.uint8)
    height = size[0] // classes
    for image, label in zip(images, labels, strict=True):
        image[height * label : height * (label + 1)] += 80
    np.savez(path, images=images, labels=labels)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return stripes(tmp_path_factory.mktemp("data") / "stripes.npz")


@pytest.fixture(scope="module")
def dataset(data):
    return load(data)


LENET = {"model": "lenet5", "epochs": 3, "optimizer": {"learning_rate": 5e-3}}


# === The artifact ===


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    recipe = {**LENET, "augment": {"translate": 0.05}, "label_smoothing": 0.1}
    return train(recipe, tmp_path_factory.mktemp("models") / "mine", data=data, **QUIET)


def test_a_file_system_that_lacks_locks_and_modes_is_trained_on(data, tmp_path, monkeypatch):
    """Shared folders of other machines often do, and cannot flush a folder either."""
    flush = os.fsync

    def refuse(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    def flush_files(handle):
        return refuse() if stat.S_ISDIR(os.fstat(handle).st_mode) else flush(handle)

    monkeypatch.setattr("fcntl.flock", refuse)
    monkeypatch.setattr(Path, "chmod", refuse)
    monkeypatch.setattr(os, "fsync", flush_files)
    assert train(LENET, tmp_path / "m", data=data, epochs=1, **QUIET).version == 1


def test_a_run_that_was_killed_while_it_was_cleared_away_goes_with_the_next(tmp_path, monkeypatch):
    with checkpoint.open_store(tmp_path, "f" * 64, 1) as store, monkeypatch.context() as killed:
        killed.setattr(os, "getpid", lambda: 2**22 + 1)  # a process that cannot exist
        killed.setattr(shutil, "rmtree", lambda *_, **__: None)
        checkpoint.discard(store)
    (left,) = tmp_path.iterdir()
    tiny_artifact(tmp_path)
    assert not left.exists()


def test_a_run_leaves_a_whole_artifact_and_nothing_else(trained):
    assert (trained.name, trained.version) == ("mine", 1)
    assert trained.labels == ["0", "1", "2"]
    trained.check()
    beside = {path.name for path in trained.path.parent.iterdir()}
    assert beside == {"1", ".logs"}


def test_the_artifact_answers_as_its_goldens_say(trained):
    images, scores = trained.goldens()
    assert len(images) == 8
    np.testing.assert_allclose(trained.predict(images), scores, atol=1e-6)
    assert trained.manifest.metrics["val"]["accuracy"] == 1.0


def test_the_manifest_tells_what_was_done(trained, dataset):
    manifest = trained.manifest
    recipe = make_recipe(manifest.recipe)
    assert (recipe.epochs, recipe.model.size, recipe.deterministic) == (3, (32, 32), True)
    assert manifest.data["fingerprint"] == dataset.fingerprint
    assert manifest.data["splits"] == {"train": 48, "val": 12}
    assert manifest.data["split_digests"]["val"] == dataset.digest_of("val")
    assert [row["epoch"] for row in manifest.metrics["training"]["history"]] == [1, 2, 3]
    low, high = manifest.metrics["val"]["accuracy_interval"]
    assert low < 1.0 == high
    assert manifest.drift_baseline["n"] == 12


def test_the_net_in_the_artifact_is_clean(trained):
    names = [layer.name for layer in trained.model.layers]
    assert not any("augment" in name or "normalise" in name for name in names)
    assert all(layer.trainable for layer in trained.model.layers)


def test_the_next_run_is_the_next_version(data, tmp_path):
    for version in (1, 2):
        made = train(LENET, tmp_path / "m", data=data, epochs=1, seed=version, **QUIET)
        assert made.version == version


def test_test_pictures_given_by_the_source_are_judged_too(tmp_path):
    x, y = (np.load(stripes(tmp_path / "a.npz", 80))[name] for name in ("images", "labels"))
    given = {"x_train": x[:60], "y_train": y[:60], "x_test": x[60:], "y_test": y[60:]}
    np.savez(tmp_path / "given.npz", **given)
    made = train(LENET, tmp_path / "m", data=tmp_path / "given.npz", epochs=1, **QUIET)
    assert made.manifest.metrics["test"]["n"] == 20


def test_without_validation_pictures_an_artifact_is_still_written(data, tmp_path, capsys):
    made = train({**LENET, "data": {"validation": 0}}, tmp_path / "m", data=data, epochs=1)
    assert "val" not in made.manifest.metrics
    assert len(made.goldens()[0]) == 8
    assert "no validation pictures" in capsys.readouterr().err


@pytest.mark.long
def test_a_recipe_file_a_dictionary_and_sets_train_the_same(data, tmp_path):
    (tmp_path / "r.yaml").write_text(f"model: lenet5\nepochs: 1\nseed: 4\ndata: {{source: {data}}}")
    made = [
        train(tmp_path / "r.yaml", tmp_path / "a", **QUIET),
        train({"model": "lenet5", "epochs": 1, "seed": 4}, tmp_path / "b", data=data, **QUIET),
        train({"model": "lenet5"}, tmp_path / "c", data=data, epochs=1, seed=4, **QUIET),
    ]
    first, *others = (a.model.get_weights() for a in made)
    for other in others:
        assert all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


# === Fits without an artifact ===


def test_cross_validation_judges_every_picture_once(dataset):
    fits = cross_validate(LENET, dataset, folds=3, epochs=1, strategy="linear_probe")
    judged = np.concatenate([f.val.indices for f in fits])
    assert sorted(judged) == list(range(60))
    assert all(f.val_scores.shape == (20, 3) for f in fits)
    np.testing.assert_allclose(fits[0].val_scores.sum(axis=1), 1, rtol=1e-5)


def test_a_linear_probe_on_frozen_random_features_beats_chance(dataset):
    fitted = fit(LENET, dataset, *dataset.folds(3)[0], strategy="linear_probe")
    assert fitted.val_accuracy > 0.6
    assert fitted.history[0]["phase"] == "linear_probe"
    assert fitted.history[0]["accuracy"] > 0.6


def test_a_linear_probe_takes_mirrored_and_augmented_copies(dataset):
    changes = {"probe": {"mirror": True, "copies": 1}, "augment": {"brightness": 0.1}}
    fitted = fit({**LENET, **changes}, dataset, *dataset.folds(3)[0], strategy="linear_probe")
    assert fitted.val_accuracy > 0.6


def test_the_same_fit_gives_the_same_bits(dataset):
    fold = dataset.folds(3)[1]
    recipe = {**LENET, "augment": {"rotate": 10, "contrast": 0.2, "erase": 0.3, "zoom": 0.1}}
    first, second = (fit(recipe, dataset, *fold, epochs=1) for _ in range(2))
    for a, b in zip(first.model.get_weights(), second.model.get_weights(), strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("schedule", ["constant", "cosine", "step"])
def test_every_optimiser_and_schedule_learns(dataset, name, schedule):
    recipe = {
        "model": "lenet5",
        "optimizer": {"name": name, "learning_rate": 0.02 if name == "sgd" else 2e-3},
        "schedule": {"name": schedule, "warmup": 0.5, "steps": [2]},
        "epochs": 3,
    }
    recipe["optimizer"] |= {"weight_decay": 1e-3, "clip_norm": 1.0}
    fitted = fit(recipe, dataset, *dataset.folds(3)[0])
    losses = [row["loss"] for row in fitted.history]
    assert losses[-1] < losses[0]


def test_mixed_precision_ends_in_a_float32_net(dataset):
    fitted = fit(LENET, dataset, *dataset.folds(3)[0], precision="mixed_bfloat16", epochs=1)
    assert {layer.compute_dtype for layer in fitted.model.layers} == {"float32"}
    assert fitted.val_logits.dtype == np.float32


def test_a_policy_of_the_user_s_own_ends_in_a_float32_net_too(dataset):
    import keras

    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        fitted = fit(LENET, dataset, *dataset.folds(3)[0], epochs=1)
    finally:
        keras.config.set_dtype_policy("float32")
    assert {layer.compute_dtype for layer in fitted.model.layers} == {"float32"}


def test_normalising_by_the_data_centres_the_pictures(dataset):
    fitted = fit({**LENET, "preprocess": {"normalise": "data"}}, dataset, *dataset.folds(3)[0])
    pixels = dataset.examples(fitted.preprocess).images
    x = np.array(fitted.preprocess.layer()(pixels))
    assert abs(x.mean()) < 0.05
    assert abs(x.std() - 1) < 0.05


def test_measuring_many_pictures_takes_no_more_memory_than_they_do():
    images = np.random.default_rng(0).integers(0, 256, (500, 64, 64, 3), dtype=np.uint8)
    data = from_arrays(images, np.arange(500) % 2)
    recipe = make_recipe({**LENET, "preprocess": {"normalise": "data"}}, {"model.channels": 3})
    recipe = recipe.changed(model={"size": 64})
    start = build.start_of(recipe)
    tracemalloc.start()
    found = build.measured(start, recipe, data, np.arange(500)).preprocess
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.mean == tuple(np.round(images.mean(axis=(0, 1, 2)), 3))
    spread = np.round(images.std(axis=(0, 1, 2)), 3)
    np.testing.assert_allclose(found.scale, 1 / spread, rtol=1e-9)
    assert peak < 5 * images.nbytes


# === Freezing ===


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    return load(stripes(tmp_path_factory.mktemp("c") / "c.npz", 24, noise=100), split=0)


MOBILENET = {
    "model": {"name": "mobilenet_v2_035", "size": 32},
    "optimizer": {"learning_rate": 1e-2},
    "epochs": 2,
}


def weights_by_layer(net):
    return {layer.name: layer.get_weights() for layer in net.layers}


def changed_layers(recipe, dataset):
    """(layers whose weights moved, batch normalisations) of a net under a fit."""
    from striate.train import build

    recipe = make_recipe(recipe)
    start = build.start_of(recipe)
    before = weights_by_layer(build.build(start, build.resolved(recipe, start), 3))
    after = weights_by_layer(fit(recipe, dataset, np.arange(24)).model)
    moved = {
        name
        for name, arrays in after.items()
        if any(a.tobytes() != b.tobytes() for a, b in zip(arrays, before[name], strict=True))
    }
    return moved, {name for name in after if name.endswith("_bn")}


def test_frozen_batch_norm_is_bit_identical_after_fit(colours):
    moved, norms = changed_layers({**MOBILENET, "strategy": {"freeze_bn": True}}, colours)
    assert len(norms) == 52
    assert not moved & norms
    assert {"stem_conv", "stage7_block1_project_conv", "logits"} <= moved


@pytest.mark.long
def test_unfreezing_from_a_block_leaves_everything_before_it(colours):
    strategy = {"name": "full", "unfreeze_from": "stage6_block2", "freeze_bn": False}
    moved, _ = changed_layers({**MOBILENET, "strategy": strategy}, colours)
    assert {"stage6_block2_expand_conv", "stage6_block2_expand_bn", "top_conv", "logits"} <= moved
    assert not any(name.startswith(("stem", "stage1", "stage5", "stage6_block1")) for name in moved)


def test_a_linear_probe_moves_the_classifier_alone(colours):
    assert changed_layers({**MOBILENET, "strategy": "linear_probe"}, colours)[0] == {"logits"}


def test_a_probe_of_a_classifier_that_is_not_linear_follows_the_gradient(colours):
    recipe = {
        "model": {"name": "squeezenet1_1", "size": 33},
        "strategy": "linear_probe",
        "epochs": 1,
    }
    assert changed_layers(recipe, colours)[0] == {"logits_conv"}


@pytest.mark.long
def test_the_shipped_recipe_reaches_its_band_on_real_pictures():
    """12 kinds of furniture, one fold: chance is 0.19, a probe on frozen features gives 0.8."""
    samples = Path(striate.__file__).parent / "samples" / "furniture"
    dataset = load(samples)
    fitted = fit(finetune_recipe("squeezenet1_1"), dataset, *dataset.folds(5)[0])
    assert fitted.val_accuracy > 0.7


def test_weights_that_there_are_not_are_said_before_the_pictures_are_read(tmp_path):
    with pytest.raises(UsageError, match=r"expected weights as a file .* none are published"):
        striate.finetune("lenet5", data=tmp_path / "nothing", output=tmp_path / "mine")


# === Ends before the last epoch ===


def test_early_stopping_goes_back_to_the_best_epoch(dataset):
    recipe = {
        **LENET,
        "early_stopping": {"monitor": "val_accuracy", "patience": 2, "restore_best": True},
        "schedule": "constant",
    }
    fitted = fit(recipe, dataset, *dataset.folds(3)[0], epochs=30)
    accuracies = [row["val_accuracy"] for row in fitted.history]
    best = int(np.argmax(accuracies))  # the first of the best
    assert len(accuracies) == best + 3 < 30
    at_the_end = loss_of(fitted.val_logits, fitted.val.labels)
    assert at_the_end == pytest.approx(fitted.history[best]["val_loss"], rel=1e-5)
    assert at_the_end != pytest.approx(fitted.history[-1]["val_loss"], rel=1e-5)


def test_a_loss_that_is_no_number_is_one_clear_line_and_leaves_nothing(data, tmp_path):
    recipe = {
        "model": {"name": "lenet5", "options": {"activation": "relu"}},
        "optimizer": {"name": "sgd", "learning_rate": 1e30},
    }
    with pytest.raises(StriateError, match=r"diverged.*lower optimizer\.learning_rate") as caught:
        train(recipe, tmp_path / "m", data=data, **QUIET)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "m").exists()


def test_weights_that_explode_in_the_last_step_are_not_written(data, tmp_path):
    recipe = {
        "model": {"name": "lenet5", "options": {"activation": "relu"}},
        "optimizer": {"name": "sgd", "learning_rate": 1e39},
        "data": {"validation": 0},
        "epochs": 1,
        "batch_size": 60,
    }
    with pytest.raises(StriateError, match=r"diverged: weights are no numbers after epoch 1"):
        train(recipe, tmp_path / "m", data=data, **QUIET)
    assert not (tmp_path / "m").exists()


def test_a_rate_that_rises_to_the_end_is_said(data, tmp_path, capsys):
    train(LENET, tmp_path / "m", data=data, progress=True, epochs=1, **{"schedule.warmup": 2})
    said = "full: the learning rate rises to the end, as schedule.warmup is 2 and the epochs are 1"
    assert said in capsys.readouterr().err


def test_a_rate_that_should_fall_and_does_not_is_said(data, tmp_path, capsys):
    step = {"name": "step", "steps": [2]}
    train(LENET, tmp_path / "m", data=data, epochs=2, schedule=step)
    said = "stays the same, as none of schedule.steps [2.0] lies before the end of 2 epochs"
    assert said in capsys.readouterr().err


def test_copies_that_nothing_would_change_are_not_made_and_it_is_said(data, tmp_path, capsys):
    probe = {"strategy": "linear_probe", "probe": {"copies": 2}}
    train({**LENET, **probe}, tmp_path / "m", data=data)
    said = capsys.readouterr().err
    assert "no copies are made for the probe, as augment changes nothing" in said


def test_an_epoch_whose_loss_is_no_number_is_never_the_best():
    row = {"val_loss": 5.0, "val_accuracy": 0.1}
    assert _is_better(row, "val_loss", float("nan"))
    assert not _is_better({"val_loss": float("nan")}, "val_loss", 5.0)


# === Mistakes ===


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.name": "lenet"}, r"'lenet5'"),
        ({"model.options": {"actvation": "relu"}}, r"'activation'"),
        ({"model.size": 8}, r"at least 16 x 16"),
        ({"model.weights": "nowhere.h5"}, r"nowhere\.h5"),
        ({"strategy.unfreeze_from": "stage9"}, r"unfreeze_from.*'stage9'"),
        ({"data.validation": 0, "early_stopping.patience": 3}, r"needs validation pictures"),
        ({"optimizer.accumulate": 7}, r"accumulate=7 takes more batches .* than the 6 that there"),
    ],
)
def test_a_recipe_that_does_not_fit_the_net_is_one_line(data, tmp_path, changes, message):
    with pytest.raises(UsageError, match=message):
        train(LENET, tmp_path / "m", data=data, **QUIET, **changes)
    assert list((tmp_path / "m").glob(".run-*")) == []


def test_an_output_that_cannot_be_is_said_before_the_pictures_are_read(data, tmp_path):
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "m"):
        with pytest.raises(StriateError, match=r"cannot be written to \(.*file is no directory\)"):
            train(LENET, output, data="nowhere", **QUIET)


def test_the_number_of_a_removed_version_can_be_given_again(data, tmp_path):
    pytest.importorskip("tensorboard")
    for _ in range(2):
        made = train(LENET, tmp_path / "m", data=data, epochs=1, **QUIET)
        assert made.version == 1
        shutil.rmtree(made.path)
    log = tmp_path / "m" / ".logs" / "1"
    assert len((log / "metrics.jsonl").read_text().splitlines()) == 1
    assert len(list((log / "tensorboard").glob("train/*"))) == 1


def test_a_disk_that_is_full_is_one_line_and_leaves_no_half_file(data, tmp_path, monkeypatch):
    def full(file, **_):
        file.write(b"the first bytes")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.np, "savez", full)
        with pytest.raises(StriateError, match=r"checkpoint\.npz: cannot be written \(No space"):
            train(LENET, tmp_path / "m", data=data, **QUIET)
    (run,) = (tmp_path / "m").glob(".run-*")
    assert not list(run.glob("*.new"))
    assert train(LENET, tmp_path / "m", data=data, **QUIET).version == 1


def test_a_class_that_a_fold_could_not_learn_is_said_before_any_fold(tmp_path):
    x, y = (np.load(stripes(tmp_path / "a.npz", 13))[name] for name in ("images", "labels"))
    y[:] = np.arange(13) % 2
    y[-1] = 2
    np.savez(tmp_path / "lone.npz", images=x, labels=y)
    with pytest.raises(DataError, match=r"class '2' has one picture, or copies of one"):
        train(LENET, tmp_path / "m", data=tmp_path / "lone.npz", folds=3, **QUIET)


def test_a_broken_test_picture_is_said_before_training_and_in_the_artifact(tmp_path, capsys):
    for i in range(12):
        path = tmp_path / "data" / ("train", "test")[i // 8] / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((28, 28), 20 * i, np.uint8)).save(path)
    path.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"11.png: .* \(strict\)"):
        train(LENET, tmp_path / "m", data=tmp_path / "data", **QUIET, **{"data.strict": True})
    assert not (tmp_path / "m").exists()
    made = train(LENET, tmp_path / "m", data=tmp_path / "data", epochs=1)
    assert made.manifest.metrics["test"]["n"] == 3
    assert "11.png" in made.manifest.data["left_out"][0]
    assert "11.png" in capsys.readouterr().err


@pytest.mark.parametrize("sets", [{}, {"preprocess.normalise": "data"}])
def test_data_without_pictures_to_train_on_is_one_line(data, tmp_path, sets):
    with np.load(data) as arrays:
        np.savez(tmp_path / "test.npz", x_test=arrays["images"], y_test=arrays["labels"])
    with pytest.raises(UsageError, match="expected pictures to train on, got none"):
        train(LENET, tmp_path / "m", data=tmp_path / "test.npz", **QUIET, **sets)
    assert not (tmp_path / "m").exists()


def test_what_a_net_cannot_have_is_said_with_what_it_takes(data, tmp_path, capsys):
    train(LENET, tmp_path / "m", data=data, epochs=0, **{"augment.quarter_turns": True})
    assert "left out, since lenet5 takes pictures: augment.quarter_turns" in capsys.readouterr().err


def test_weights_of_another_net_are_one_line(trained, data, tmp_path):
    wanted = {"model.name": "lenet1", "model.weights": str(trained.path)}
    with pytest.raises(UsageError, match=r"expected weights of .*, got those of lenet5 in"):
        train(LENET, tmp_path / "m", data=data, **QUIET, **wanted)


def test_an_output_that_is_a_version_is_one_line(trained, data):
    with pytest.raises(UsageError, match=r"is a version; expected the model's directory"):
        train(LENET, trained.path, data=data, **QUIET)


def test_a_recipe_without_pictures_is_one_line(tmp_path):
    with pytest.raises(UsageError, match=r"expected pictures to train on"):
        train(LENET, tmp_path / "m", **QUIET)


def test_a_class_whose_pictures_are_all_broken_is_one_line(tmp_path):
    from PIL import Image

    for label in "ab":
        for i in range(4):
            path = tmp_path / "data" / label / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8), 20 * i + ord(label), np.uint8)).save(path)
    for path in (tmp_path / "data" / "b").iterdir():
        path.write_bytes(b"broken" + path.name.encode())
    with pytest.raises(DataError, match=r"class 'b' has no readable picture"):
        train(LENET, tmp_path / "m", data=tmp_path / "data", **QUIET)


def test_broken_pictures_are_named_and_the_rest_is_trained_on(tmp_path, capsys):
    from PIL import Image

    generator = np.random.default_rng(0)
    for label in "ab":
        for i in range(6):
            path = tmp_path / "data" / label / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 255, (9, 9, 3), dtype=np.uint8)).save(path)
    (tmp_path / "data" / "a" / "text.png").write_text("no picture")
    made = train(LENET, tmp_path / "m", data=tmp_path / "data", epochs=1)
    assert "text.png" in capsys.readouterr().err
    assert any("text.png" in line for line in made.manifest.data["left_out"])


# === Mathematics ===


def test_the_probe_finds_the_minimum_that_scikit_learn_finds():
    linear = pytest.importorskip("sklearn.linear_model")
    generator = np.random.default_rng(0)
    x = generator.normal(3, [1, 5, 0.1, 2], (200, 4))
    y = (x @ generator.normal(size=(4, 3)) + generator.normal(size=(200, 3))).argmax(axis=1)
    kernel, bias = solve(x, y, 3, l2=0.01)
    spread = x.std(axis=0)
    oracle = linear.LogisticRegression(C=1 / (0.01 * 200), tol=1e-8, max_iter=10_000)
    oracle.fit((x - x.mean(axis=0)) / spread, y)
    ours, theirs = x @ kernel + bias, oracle.decision_function((x - x.mean(axis=0)) / spread)
    centred = [z - z.mean(axis=1, keepdims=True) for z in (ours, theirs)]
    np.testing.assert_allclose(*centred, atol=2e-3)


def test_a_feature_that_never_changes_does_no_harm():
    x = np.zeros((20, 3), np.float32)
    x[:, 1] = np.arange(20) >= 10
    kernel, bias = solve(x, np.arange(20) // 10, 2, l2=0.01)
    assert np.isfinite(kernel).all()
    assert ((x @ kernel + bias).argmax(axis=1) == np.arange(20) // 10).all()


def test_smoothed_cross_entropy_agrees_with_keras_on_one_hot_labels():
    import keras

    from striate.train.optimize import cross_entropy

    logits = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    labels = np.array([0, 1, 2, 3, 4, 0])
    oracle = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=0.1, reduction=None
    )
    expected = oracle(np.eye(5, dtype=np.float32)[labels], logits)
    found = cross_entropy(0.1)(labels, logits)
    np.testing.assert_allclose(np.array(found), np.array(expected), rtol=1e-5)


# === Without TensorFlow ===


@pytest.mark.long
@pytest.mark.parametrize("name", ["lenet5", "resnet20_cifar"])
def test_jax_trains_and_writes_an_artifact_without_tensorflow(name, data, jax_python, tmp_path):
    code = f"""
import sys
class Hide:  # an import of TensorFlow fails, whether or not it is there
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "tensorflow":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hide())
from striate.train import train
recipe = {{"model": {name!r}, "epochs": 1, "augment": {{"flip": "horizontal", "translate": 0.1}}}}
train(recipe, {str(tmp_path / "m")!r}, data={str(data)!r}, progress=False)
"""
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    subprocess.run([jax_python, "-c", code], check=True, env=environment, cwd=Path(__file__).parent)
    made = artifact.load(tmp_path / "m")
    images, scores = made.goldens()
    np.testing.assert_allclose(made.predict(images), scores, atol=1e-4)
