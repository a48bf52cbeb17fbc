"""Several artifacts as one: the mean of their scores, or the mean of their weights."""

import dataclasses

import keras
import numpy as np
import pytest

import striate
from making import colourful_noise, tiny_artifact
from striate.artifact import load, write_version
from striate.ensemble import average_weights, ensemble
from striate.ensemble.statistics import measure_statistics, norms_of
from striate.errors import UsageError
from striate.export import export
from striate.layers import MeanProbability
from striate.preprocess import preset

SHAPE = (32, 32, 3)


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    """Two LeNets of different weights and temperatures."""
    base = tmp_path_factory.mktemp("members")
    return [tiny_artifact(base / f"net{seed}", shape=SHAPE, seed=seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def pictures():
    return colourful_noise(6, SHAPE, seed=7)


@pytest.fixture
def table(tmp_path):
    """Twelve pictures of the artifacts' four classes."""
    labels = np.repeat([f"class {i}" for i in range(4)], 3)
    np.savez(tmp_path / "data.npz", images=colourful_noise(12, SHAPE, seed=3), labels=labels)
    return tmp_path / "data.npz"


def again(artifact, base, **changes):
    """The same net as another artifact, something changed."""
    values = {
        "model": artifact.model,
        "labels": artifact.labels,
        "preprocess": artifact.preprocess,
        "model_name": artifact.manifest.model["name"],
        "options": artifact.manifest.model["options"],
        "temperature": artifact.manifest.temperature,
        "goldens": artifact.goldens()[0],
    }
    return write_version(base, **{**values, **changes})


def mean_scores(artifacts, images) -> np.ndarray:
    return np.mean([artifact.predict(images) for artifact in artifacts], axis=0)


# === The mean of scores ===


def test_scores_are_the_mean_of_the_members(members, pictures, tmp_path):
    made = ensemble([member.path for member in members], tmp_path / "committee")
    np.testing.assert_allclose(
        made.predict(pictures), mean_scores(members, pictures), rtol=0, atol=1e-6
    )
    assert members[0].manifest.temperature != members[1].manifest.temperature
    assert made.manifest.model["name"] == "ensemble"
    described = made.manifest.model["options"]["members"]
    assert [row["artifact"] for row in described] == ["net0", "net1"]
    assert (made.spec, made.preprocess) == (None, members[0].preprocess)


def test_it_is_one_flat_graph_of_logits(members, tmp_path):
    net = ensemble(members, tmp_path / "committee").model
    assert not any(isinstance(layer, keras.Model) for layer in net.layers)
    names = {layer.name for layer in net.layers}
    for layer in members[0].model.layers[1:]:
        assert {f"member1_{layer.name}", f"member2_{layer.name}"} <= names
    assert (net.layers[-1].name, net.output.dtype) == ("logits", "float32")
    assert net.count_params() == sum(member.model.count_params() for member in members)


@pytest.mark.long
def test_members_of_other_nets_and_normalisations_each_get_their_own(members, pictures, tmp_path):
    other = tiny_artifact(tmp_path / "other", name="squeezenet1_1", shape=SHAPE, seed=2)
    other = again(other, tmp_path / "caffe", preprocess=preset("caffe", *SHAPE))
    made = ensemble([members[0], other], tmp_path / "committee")
    np.testing.assert_allclose(
        made.predict(pictures), mean_scores([members[0], other], pictures), rtol=0, atol=1e-6
    )
    assert made.preprocess == preset("unit", *SHAPE, scale=(1.0, 1.0, 1.0))


def test_an_ensemble_may_be_a_member_and_an_artifact_twice(members, pictures, tmp_path):
    twice = ensemble([members[0], members[0]], tmp_path / "twice")
    np.testing.assert_allclose(
        twice.predict(pictures), members[0].predict(pictures), rtol=0, atol=1e-6
    )
    nested = ensemble([twice, members[1]], tmp_path / "nested")
    expected = (members[0].predict(pictures) + members[1].predict(pictures)) / 2
    np.testing.assert_allclose(nested.predict(pictures), expected, rtol=0, atol=1e-6)


def test_its_goldens_are_the_members_in_turn(members, tmp_path):
    made = ensemble(members, tmp_path / "committee")
    images, scores = made.goldens()
    first, second = (member.goldens()[0] for member in members)
    np.testing.assert_array_equal(images[:3], [first[0], second[0], first[1]])
    np.testing.assert_allclose(scores, mean_scores(members, images), rtol=0, atol=1e-6)


@pytest.mark.long
def test_every_exported_form_gives_its_scores(members, pictures, tmp_path):
    other = again(members[1], tmp_path / "other", preprocess=preset("caffe", *SHAPE))
    made, rows = export(ensemble([members[0], other], tmp_path / "committee"))
    assert {row.form for row in rows} == {"saved_model", "onnx", "litert"}
    expected = mean_scores([members[0], other], pictures)
    for name in ("tensorflow", "onnx", "litert"):
        scores = striate.runtime.open_engine(made, name).predict(pictures)
        np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5)


def test_the_mean_keeps_what_is_too_small_for_a_float():
    layer = MeanProbability((1.0, 2.0), dtype="float32")
    x = np.array([[0, -200, 5000]], "float32")
    y = np.array([[0, -400, -5000]], "float32")
    found = np.asarray(layer([x, y]))
    # the second net says (1, e^-200, 0): half of that is left of the first two classes
    np.testing.assert_allclose(found, np.log(0.5) + np.array([[0, -200, 0]]), atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": ["class 1", "class 0", "class 2", "class 3"]}, "in another order"),
        ({"labels": ["class 0", "class 1", "class 2", "cat"]}, "differs in 'cat', 'class 3'"),
        ({"preprocess": preset("unit", *SHAPE, crop=0.9)}, r"takes crop 0\.9"),
    ],
)
def test_members_that_do_not_fit_are_refused(members, tmp_path, changes, message):
    other = again(members[1], tmp_path / "other", **changes)
    with pytest.raises(UsageError, match=message):
        ensemble([members[0], other], tmp_path / "committee")
    assert not (tmp_path / "committee").exists()


def test_info_names_the_members_and_sends_whoever_wants_a_picture_to_them(members, tmp_path):
    from typer.testing import CliRunner

    from striate.cli import app

    made = ensemble([m.path for m in members], tmp_path / "committee")
    told = CliRunner().invoke(app, ["info", str(made.path)])
    assert "ensemble of net0/1 (lenet5), net1/1 (lenet5)\n" in told.stdout
    drawn = CliRunner().invoke(app, ["info", str(made.path), "--png", str(tmp_path / "a.png")])
    assert isinstance(drawn.exception, UsageError)
    assert "draw its members" in str(drawn.exception)


def test_one_alone_is_no_ensemble(members, tmp_path):
    with pytest.raises(UsageError, match="at least 2 artifacts, got 1"):
        ensemble(members[:1], tmp_path / "committee")


def test_only_what_every_member_held_out_is_held_out(members, tmp_path):
    def trained(name, seed):
        recipe = {"data": {"validation": 0.25}, "seed": seed}
        data = {"fingerprint": "abc"}
        return again(members[0], tmp_path / name, recipe=recipe, data=data)

    alike = ensemble([trained("a", 1), trained("b", 1)], tmp_path / "alike").manifest
    assert (alike.recipe["data"]["validation"], alike.recipe["seed"]) == (0.25, 1)
    assert alike.data == {"fingerprint": "abc"}
    learnt = again(members[0], tmp_path / "e", data={"fingerprint": "abc", "split_digests": {}})
    kept = {"fingerprint": "abc", "split_digests": {"val": "1"}}
    kept = again(members[0], tmp_path / "f", data=kept)
    for pair in ([learnt, kept], [kept, learnt]):
        assert ensemble(pair, tmp_path / "learnt").manifest.data["split_digests"] == {}
    mixed = ensemble([trained("c", 1), trained("d", 2)], tmp_path / "mixed").manifest
    assert mixed.recipe["data"]["validation"] == 0
    assert ensemble(members, tmp_path / "unknown").manifest.recipe is None


# === The mean of weights ===


def test_averaged_weights_are_the_mean(members, tmp_path):
    made = average_weights(members, tmp_path / "soup")
    pairs = zip(*(member.model.get_weights() for member in members), strict=True)
    for found, (a, b) in zip(made.model.get_weights(), pairs, strict=True):
        np.testing.assert_allclose(found, (a + b) / 2, rtol=1e-6, atol=1e-7)
    assert made.manifest.model == members[0].manifest.model
    product = members[0].manifest.temperature * members[1].manifest.temperature
    assert made.manifest.temperature == pytest.approx(product**0.5, abs=1e-4)


@pytest.mark.long
def test_batch_normalisation_is_measured_anew_and_needs_data(table, tmp_path):
    nets = [tiny_artifact(tmp_path / f"n{i}", name="resnet18", shape=SHAPE, seed=i) for i in (0, 1)]
    with pytest.raises(UsageError, match=r"batch normalisation.*--data"):
        average_weights(nets, tmp_path / "soup")
    dataset = striate.data.load(table, split=0)
    made = average_weights(nets, tmp_path / "soup", data=dataset)
    net = made.model
    first = norms_of(net)[0]
    maps = keras.Model(net.input, first.input)
    x = made.preprocess.layer()(dataset.images)
    seen = np.asarray(maps(x, training=False))
    np.testing.assert_allclose(first.moving_mean, seen.mean(axis=(0, 1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(first.moving_variance, seen.var(axis=(0, 1, 2)), rtol=1e-3)


def test_statistics_are_the_mean_over_batches_whatever_was_stored(monkeypatch, table):
    monkeypatch.setattr("striate.ensemble.statistics.BATCH", 4)
    image = keras.Input(SHAPE)
    norm = keras.layers.BatchNormalization(momentum=0.9)
    net = keras.Model(image, norm(image))
    norm.moving_mean.assign([9, 9, 9])
    norm.trainable = False
    dataset = striate.data.load(table, split=0)
    examples = dataset.examples(preset("unit", *SHAPE), np.arange(12))
    measure_statistics(net, examples)
    expected = (dataset.images / 255).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(norm.moving_mean, expected, rtol=1e-5)
    assert (norm.momentum, norm.trainable) == (0.9, False)


def test_only_one_net_fed_alike_can_be_averaged(members, tmp_path):
    other = tiny_artifact(tmp_path / "other", name="squeezenet1_1", shape=SHAPE)
    with pytest.raises(UsageError, match=r"the net of .* everywhere.*squeezenet1_1"):
        average_weights([members[0], other], tmp_path / "soup")
    caffe = again(members[1], tmp_path / "caffe", preprocess=preset("caffe", *SHAPE))
    with pytest.raises(UsageError, match="the preprocessing of"):
        average_weights([members[0], caffe], tmp_path / "soup")


def test_a_changed_member_is_refused(members, tmp_path):
    broken = again(members[0], tmp_path / "broken")
    with (broken.path / "model.keras").open("ab") as file:
        file.write(b"x")
    with pytest.raises(striate.errors.ArtifactError, match=r"model\.keras"):
        ensemble([members[1], broken], tmp_path / "committee")


def test_members_stay_as_they_are(members, tmp_path):
    before = members[0].model.get_weights()
    average_weights(members, tmp_path / "soup")
    ensemble(members, tmp_path / "committee")
    for a, b in zip(before, members[0].model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    load(members[0].path).check()
    assert dataclasses.asdict(load(members[0].path).manifest) == dataclasses.asdict(
        members[0].manifest
    )
