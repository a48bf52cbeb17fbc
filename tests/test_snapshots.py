"""One run, several nets: the weights where cycles of the learning rate end, as an ensemble."""

import numpy as np
import pytest

import striate
from striate.errors import UsageError
from striate.train import fit, make_recipe
from striate.train.checkpoint import read_arrays
from striate.train.recipe import Schedule
from striate.train.schedules import cycle_ends, learning_rate

RECIPE = {
    "model": {"name": "lenet5"},
    "data": {"validation": 0.25},
    "optimizer": {"name": "sgd", "learning_rate": 0.05},
    "schedule": {"name": "cosine_restarts", "every": 2},
    "epochs": 5,
    "batch_size": 16,
    "snapshots": 2,
    "checkpoint_seconds": 0,
}


@pytest.fixture(scope="module")
def stripes(tmp_path_factory):
    """Three classes of noisy stripes."""
    random = np.random.default_rng(0)
    labels = np.arange(64) % 3
    images = random.integers(0, 120, (64, 32, 32)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[8 * label : 8 * label + 12] += 60
    path = tmp_path_factory.mktemp("data") / "stripes.npz"
    np.savez(path, images=images, labels=labels)
    return path


def test_cycles_end_where_the_rate_is_lowest():
    for name in ("cosine_restarts", "cyclical"):
        schedule = Schedule(name=name, every=3, warmup=1, final=0.1)
        ends = cycle_ends(schedule, epochs=11)
        assert list(ends) == [4, 7, 10]
        rates = learning_rate(1.0, schedule, steps=100, epochs=11)
        at = [float(rates(100 * end - 1)) for end in ends]
        every = [float(rates(step)) for step in range(100, 1000)]
        np.testing.assert_allclose(at, min(every), atol=0.01)


@pytest.fixture(scope="module")
def made(stripes, tmp_path_factory):
    """(artifact, the weights that were kept after an epoch) of a run of two whole cycles."""
    kept: dict[int, list[np.ndarray]] = {}
    base = tmp_path_factory.mktemp("saved") / "snapshots"
    with pytest.MonkeyPatch.context() as patch:

        def discard(store):
            for path in store.directory.glob("snapshot-*.npz"):
                kept[int(path.stem[-5:])] = read_arrays(path)[1]["variables"]

        patch.setattr("striate.train.run.discard", discard)
        artifact = striate.train(RECIPE, base, data=stripes, progress=False)
    return artifact, kept


def test_the_artifact_is_the_ensemble_of_the_ends_of_the_last_cycles(made):
    artifact, kept = made
    assert sorted(kept) == [2, 4]
    assert artifact.manifest.model["name"] == "ensemble"
    members = artifact.manifest.model["options"]["members"]
    assert [member["model"] for member in members] == ["lenet5", "lenet5"]
    stored = artifact.model.get_weights()
    for one, number in ((kept[2], 1), (kept[4], 2)):
        mine = [
            weight
            for layer in artifact.model.layers
            if layer.name.startswith(f"member{number}_")
            for weight in layer.get_weights()
        ]
        for a, b in zip(one, mine, strict=True):
            np.testing.assert_array_equal(a, b)
    assert len(stored) == 2 * len(kept[2])


def test_its_scores_are_the_mean_of_the_members_before_the_temperature(made, stripes):
    artifact, kept = made
    net = striate.create_model("lenet5", num_classes=3, input_shape=artifact.preprocess.shape)
    with np.load(stripes) as data:
        x = artifact.preprocess.layer()(data["images"][:5, ..., None])
    believed = []
    for weights in kept.values():
        net.set_weights(weights)
        logits = np.asarray(net(x, training=False))
        believed.append(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))
    found = np.asarray(artifact.model(x, training=False))
    np.testing.assert_allclose(np.exp(found), np.mean(believed, axis=0), rtol=1e-5)
    assert artifact.manifest.metrics["val"]["n"] == 16


def test_a_fit_without_a_disk_gives_the_same_ensemble(made, stripes):
    artifact, _ = made
    dataset = striate.data.load(stripes, split=0.25)
    fitted = fit(RECIPE, dataset, dataset.split("train"), dataset.split("val"))
    for a, b in zip(fitted.model.get_weights(), artifact.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


class Killed(Exception):
    """What stands for a kill."""


def test_a_run_that_stops_after_a_snapshot_goes_on_to_the_same(made, stripes, tmp_path):
    artifact, _ = made
    with pytest.MonkeyPatch.context() as patch:

        def save_snapshot(store, epoch, variables):
            whole(store, epoch, variables)
            if epoch == 4:
                raise Killed

        whole = striate.train.checkpoint.Store.save_snapshot
        patch.setattr("striate.train.checkpoint.Store.save_snapshot", save_snapshot)
        with pytest.raises(Killed):
            striate.train(RECIPE, tmp_path / "mine", data=stripes, progress=False)
    again = striate.train(RECIPE, tmp_path / "mine", data=stripes, progress=False)
    for a, b in zip(again.model.get_weights(), artifact.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "cosine"}, "expected schedule=cosine_restarts or schedule=cyclical"),
        ({"schedule.every": 1.5}, "expected whole numbers as schedule.every"),
        ({"snapshots": 3}, r"snapshots=3 needs as many cycles, but 5 epochs of .* have 2"),
        ({"early_stopping.patience": 2}, "leave early_stopping out"),
        ({"strategy": "linear_probe"}, "expected epochs of strategy=full, .* got .*linear_probe"),
        ({"epochs": 0}, "expected epochs of strategy=full, .* got .*epochs=0"),
    ],
)
def test_what_has_no_snapshots_is_refused(stripes, tmp_path, changes, message):
    recipe = make_recipe(RECIPE, changes)
    with pytest.raises(UsageError, match=message):
        striate.train(recipe, tmp_path / "mine", data=stripes, progress=False)


def test_an_ensemble_gives_no_weights_to_begin_with(made, stripes, tmp_path):
    artifact, _ = made
    recipe = {"model": {"name": "lenet5", "weights": str(artifact.path)}}
    with pytest.raises(UsageError, match="expected weights of one net, got an ensemble in"):
        striate.train(recipe, tmp_path / "mine", data=stripes, progress=False)
