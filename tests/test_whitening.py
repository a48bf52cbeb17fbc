"""Mean image, PCA and ZCA: the formulas, and one definition from training to every export."""

import json

import numpy as np
import pytest

from striate import artifact, export, runtime
from striate.data import load
from striate.errors import ArtifactError, UsageError
from striate.preprocess import ClipPreprocess, from_dict, preset
from striate.preprocess.whitening import EPSILON, FILE, Whitening, moments, whitening_matrix
from striate.train import fit, train
from striate.train.augment import zero_of
from striate.train.build import measured, start_of
from striate.train.recipe import make_recipe

QUIET = {"progress": False}


def correlated(n=300, shape=(4, 4, 3), seed=0):
    """uint8 pictures whose neighbouring numbers go together, as those of photographs do."""
    generator = np.random.default_rng(seed)
    rough = generator.normal(size=(n, *shape))
    smooth = rough + np.roll(rough, 1, axis=1) + np.roll(rough, 1, axis=2)
    return np.clip(128 + 30 * smooth + 40 * generator.normal(size=(n, 1, 1, 1)), 0, 255).astype(
        np.uint8
    )


def whitened(method, x):
    """(what is measured of pictures, what they become)."""
    found = Whitening.measured(method, np.array_split(x, 7), x[0].size)
    return found, np.asarray(preset("unit", *x.shape[1:], whitening=found).layer()(x))


# === The formulas ===


def test_the_matrix_is_the_lectures_formula_on_a_known_covariance():
    angle = np.radians(30)
    u = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    s = np.array([4.0, 0.25])
    covariance = u @ np.diag(s) @ u.T
    x = np.array([3.0, -1.0])
    x_rot = x @ u
    # An eigenvector's sign is a convention: here its largest number is positive.
    np.testing.assert_allclose(
        x @ whitening_matrix("pca", covariance), x_rot / np.sqrt(s + 1e-5), rtol=1e-9
    )
    np.testing.assert_allclose(
        x @ whitening_matrix("zca", covariance), (x_rot / np.sqrt(s + 1e-5)) @ u.T, rtol=1e-9
    )


def test_moments_are_numpys_whatever_the_batches():
    rows = np.random.default_rng(0).normal(5, 2, (200, 6))
    mean, covariance = moments(np.array_split(rows, 9), 6)
    np.testing.assert_allclose(mean, rows.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(covariance, np.cov(rows.T, bias=True), rtol=1e-9)


@pytest.mark.parametrize("method", ["pca", "zca"])
def test_whitened_pictures_have_the_identity_as_covariance_up_to_epsilon(method):
    x = correlated()
    _, y = whitened(method, x)
    rows = y.reshape(len(x), -1).astype(np.float64)
    np.testing.assert_allclose(rows.mean(axis=0), 0, atol=1e-3)
    variances = np.linalg.eigvalsh(np.cov((x.reshape(len(x), -1) / 255).T, bias=True))
    expected = variances / (variances + EPSILON)
    assert expected.min() > 0.98
    covariance = np.cov(rows.T, bias=True)
    if method == "pca":
        np.testing.assert_allclose(covariance, np.diag(expected[::-1]), atol=2e-3)
    np.testing.assert_allclose(np.linalg.eigvalsh(covariance), np.sort(expected), atol=2e-3)


def test_a_direction_without_variance_stays_quiet():
    x = correlated()
    x[:, 0, 0] = 77  # the same in all pictures
    _, y = whitened("zca", x)
    assert np.abs(y).max() < 20
    np.testing.assert_allclose(y[:, 0, 0], 0, atol=1e-3)


def test_zca_turns_back_so_that_pictures_keep_their_looks():
    x = correlated()
    _, pca = whitened("pca", x)
    _, zca = whitened("zca", x)
    flat = x.reshape(len(x), -1).astype(float)
    alike = [
        np.mean(
            [np.corrcoef(a, b)[0, 1] for a, b in zip(flat.T, y.reshape(len(x), -1).T, strict=True)]
        )
        for y in (zca, pca)
    ]
    assert alike[0] > 0.4 > 3 * abs(alike[1])


def test_the_mean_image_is_taken_pixel_by_pixel():
    x = correlated()
    found, y = whitened("mean_image", x)
    np.testing.assert_allclose(y, x / 255 - (x / 255).mean(axis=0), atol=1e-6)
    assert found.arrays[1] is None


# === The specification ===


def test_the_arrays_travel_beside_the_specification(tmp_path):
    found, y = whitened("zca", correlated())
    spec = preset("unit", 4, 4, whitening=found)
    spec.write(tmp_path)
    values = json.loads(json.dumps(spec.to_dict()))
    assert values["whitening"].keys() == {"method", "numbers", "file", "sha256"}
    again = from_dict(values, tmp_path)
    assert again == spec
    assert np.array_equal(np.asarray(again.layer()(correlated())), y)


def test_a_specification_without_whitening_says_nothing_of_it():
    assert "whitening" not in preset("unit", 4, 4).to_dict()


def test_every_frame_of_a_clip_is_whitened(tmp_path):
    found, y = whitened("pca", correlated())
    spec = ClipPreprocess(5, preset("unit", 4, 4, whitening=found))
    spec.write(tmp_path)
    again = from_dict(json.loads(json.dumps(spec.to_dict())), tmp_path)
    frames = np.asarray(again.layer()(correlated().reshape(60, 5, 4, 4, 3)))
    np.testing.assert_allclose(frames.reshape(y.shape), y, atol=1e-4)


def test_arrays_that_changed_or_went_are_named(tmp_path):
    found, _ = whitened("mean_image", correlated())
    found.write(tmp_path)
    again = Whitening.from_dict(found.to_dict(), tmp_path)
    (tmp_path / FILE).write_bytes(b"something else")
    with pytest.raises(ArtifactError, match=r"whitening\.npz: its contents changed"):
        _ = again.arrays
    (tmp_path / FILE).unlink()
    with pytest.raises(ArtifactError, match=r"whitening\.npz: cannot be read"):
        _ = again.arrays


def test_whitening_of_another_size_is_one_clear_line():
    found, _ = whitened("mean_image", correlated())
    with pytest.raises(UsageError, match=r"whitening of 192 numbers, measured at this very size"):
        preset("unit", 8, 8, whitening=found)


@pytest.mark.parametrize("method", ["pca", "zca"])
def test_large_pictures_are_refused_before_anything_is_measured(method):
    with pytest.raises(
        UsageError, match=rf"{method}: expected pictures of at most 4,096 numbers.*12,288"
    ):
        Whitening.measured(method, iter(()), 64 * 64 * 3)


def test_cutout_hides_what_a_whitened_net_sees_as_nothing():
    x = correlated()
    for method in ("mean_image", "zca"):
        found, _ = whitened(method, x)
        spec = preset("unit", 4, 4, whitening=found)
        np.testing.assert_allclose(np.asarray(spec.layer()(zero_of(spec)[None])), 0, atol=1e-4)


# === From training to every export ===


@pytest.fixture(scope="module")
def stripes(tmp_path_factory):
    generator = np.random.default_rng(0)
    labels = np.arange(90) % 3
    images = generator.integers(0, 60, (90, 16, 16), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[5 * label : 5 * label + 5] += 80
    path = tmp_path_factory.mktemp("data") / "stripes.npz"
    np.savez(path, images=images, labels=labels)
    return path


RECIPE = {
    "model": {"name": "lenet5", "size": 16},
    "epochs": 2,
    "optimizer": {"learning_rate": 5e-3},
}


@pytest.fixture(scope="module")
def made(stripes, tmp_path_factory):
    recipe = {**RECIPE, "preprocess": {"normalise": "zca"}}
    return train(recipe, tmp_path_factory.mktemp("models") / "mine", data=stripes, **QUIET)


def test_an_artifact_holds_the_arrays_and_their_hash(made):
    made.check()
    said = made.manifest.preprocess["whitening"]
    assert said["file"] == FILE
    assert made.manifest.files[FILE]["sha256"] == said["sha256"]
    images, scores = made.goldens()
    np.testing.assert_allclose(made.predict(list(images)), scores, atol=1e-6)


def test_what_is_measured_are_the_training_pictures(made, stripes):
    dataset = load(stripes)
    recipe = make_recipe({**RECIPE, "preprocess": {"normalise": "zca"}})
    train_pictures = dataset.split("train")
    start = measured(start_of(recipe), recipe, dataset, train_pictures)
    assert start.preprocess == made.preprocess
    x = dataset.examples(start.preprocess, train_pictures).images
    mean = made.preprocess.whitening.arrays[0]
    np.testing.assert_allclose(mean, (x / 255).mean(axis=0).ravel(), atol=1e-6)


@pytest.mark.long
def test_every_form_answers_as_keras_does(made):
    """Each is verified as it is written: scores within 1e-4 of Keras' on goldens and noise."""
    exported, rows = export.export(artifact.load(made.path), ["saved_model", "onnx", "litert"])
    assert [row.top1_agreement for row in rows] == [1.0] * 3
    images, scores = made.goldens()
    for engine in ("tensorflow", "onnx", "litert"):
        answered = runtime.open_engine(exported, engine).predict(images)
        np.testing.assert_allclose(answered, scores, atol=1e-4)


def test_a_net_goes_on_from_its_own_artifact_with_its_whitening(made, stripes):
    recipe = {**RECIPE, "model": {"name": "lenet5", "weights": str(made.path)}}
    dataset = load(stripes)
    fitted = fit(recipe, dataset, *dataset.folds(3)[0], epochs=1)
    assert fitted.preprocess == made.preprocess
    plain = fit(
        {**recipe, "preprocess": {"normalise": "unit"}}, dataset, *dataset.folds(3)[0], epochs=0
    )
    assert plain.preprocess.whitening is None


def test_weights_whose_whitening_does_not_fit_another_size_say_what_to_do(made):
    recipe = make_recipe({"model": {"name": "lenet5", "weights": str(made.path), "size": 20}})
    with pytest.raises(UsageError, match=r"model\.size: expected \[.*normalise=zca to measure it"):
        start_of(recipe)
    anew = start_of(recipe.changed(preprocess={"normalise": "zca"})).preprocess
    assert (anew.shape, anew.whitening) == ((20, 20, 1), None)


def test_training_learns_behind_a_mean_image(stripes):
    dataset = load(stripes)
    recipe = {**RECIPE, "preprocess": {"normalise": "mean_image"}}
    fitted = fit(recipe, dataset, *dataset.folds(3)[0], epochs=4)
    assert fitted.val_accuracy > 0.6


def test_voxels_are_not_whitened():
    recipe = make_recipe({"model": "voxnet", "preprocess": {"normalise": "zca"}})
    with pytest.raises(UsageError, match=r"expected data or a preset, for voxels, got zca"):
        start_of(recipe)
