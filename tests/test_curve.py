"""The curve between two trainings of one net, on a net small enough to see why it exists."""

import json

import keras
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from striate.artifact import write_version
from striate.cli import app
from striate.ensemble import connect
from striate.ensemble.curve import KINDS, _bent, bezier, chain, line
from striate.errors import UsageError
from striate.preprocess import VectorPreprocess
from striate.registry import create_model

LABELS = ["inside", "outside"]


def test_every_way_begins_and_ends_at_the_ends():
    for shares in (line, bezier, chain):
        assert (shares(0.0), shares(1.0)) == ((1, 0, 0), (0, 0, 1))
        for t in np.linspace(0, 1, 7):
            assert sum(shares(t)) == pytest.approx(1)


def test_the_formulas_are_those_of_the_paper():
    t = 0.25
    assert bezier(t) == pytest.approx(((1 - t) ** 2, 2 * t * (1 - t), t**2))
    assert chain(t) == pytest.approx((2 * (0.5 - t), 2 * t, 0))
    assert chain(0.75) == pytest.approx((0, 2 * 0.25, 2 * (0.75 - 0.5)))


@pytest.fixture(scope="module")
def ring(tmp_path_factory):
    """(rows in a disk or in the ring around it as an npz, two artifacts of one function).

    The second net is the first with its hidden units in another order: it answers the same, and
    half way between the two, units that have nothing to do with each other are averaged.
    """
    base = tmp_path_factory.mktemp("ring")
    rng = np.random.default_rng(0)
    angle, radius = rng.uniform(0, 2 * np.pi, 400), rng.uniform(0, 1, 400)
    radius += np.where(radius > 0.5, 0.2, 0)
    rows = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).astype("float32")
    labels = np.where(radius < 0.6, *LABELS)
    np.savez(base / "rows.npz", images=rows, labels=labels)
    keras.utils.set_random_seed(0)
    net = create_model("mlp_two_layer", num_classes=2, input_shape=(2,), hidden=16)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    net.compile("adam", loss)
    net.optimizer.learning_rate = 0.02
    net.fit(rows, (labels == "outside").astype("int32"), epochs=40, batch_size=40, verbose=0)
    kernel, bias, head, head_bias = net.get_weights()
    order = rng.permutation(16)
    other = create_model("mlp_two_layer", num_classes=2, input_shape=(2,), hidden=16)
    other.set_weights([kernel[:, order], bias[order], head[order], head_bias])
    artifacts = [
        write_version(
            base / name,
            model=model,
            labels=LABELS,
            preprocess=VectorPreprocess(2),
            model_name="mlp_two_layer",
            options={"hidden": 16},
            goldens=rows[:4],
            recipe={"data": {"validation": 0.2}, "seed": 0},
        )
        for name, model in (("a", net), ("b", other))
    ]
    return base / "rows.npz", artifacts


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_the_bend_lowers_the_barrier_of_the_straight_line(ring, kind):
    data, (a, b) = ring
    found = connect(a, b, data, kind=kind, epochs=15, learning_rate=0.1, batch_size=32, points=9)
    assert found.line["train_loss"][0] == pytest.approx(found.line["train_loss"][-1], rel=1e-4)
    assert found.line["train_loss"][0] < 0.2
    assert found.barrier(found.line) > 0.05
    assert found.barrier(found.curve) < 0.5 * found.barrier(found.line)
    for way in (found.line, found.curve):  # the ends are the two nets, whatever lies between
        assert way["val_loss"][[0, -1]] == pytest.approx(found.line["val_loss"][[0, -1]], rel=1e-4)


@pytest.mark.long
def test_the_command_prints_and_draws_both_ways(ring, tmp_path):
    data, (a, b) = ring
    words = ["ensemble", "curve", str(a.path), str(b.path), "--data", str(data)]
    words += ["-o", str(tmp_path / "curve"), "--epochs", "1", "--points", "5"]
    ran = CliRunner().invoke(app, words)
    assert ran.exit_code == 0, ran.output
    assert "barrier of the training loss" in ran.stdout
    written = json.loads((tmp_path / "curve" / "curve.json").read_text())
    assert len(written["t"]) == len(written["curve"]["val_loss"]) == 5
    assert Image.open(tmp_path / "curve" / "curve.png").width > 500


def test_a_curve_of_no_such_kind_is_refused(ring):
    data, (a, b) = ring
    with pytest.raises(UsageError, match="Did you mean 'bezier'"):
        connect(a, b, data, kind="besier")


def test_a_rate_that_climbs_is_refused(ring):
    data, (a, b) = ring
    with pytest.raises(UsageError, match="expected a learning rate above 0, got -1"):
        connect(a, b, data, learning_rate=-1)
    with pytest.raises(UsageError, match="expected a learning rate above 0, got 'fast'"):
        connect(a, b, data, learning_rate="fast")
    with pytest.raises(UsageError, match="expected a momentum from 0 to less than 1, got 2"):
        connect(a, b, data, momentum=2)


def test_a_folder_that_cannot_be_made_is_said_before_the_training(ring, tmp_path):
    data, (a, b) = ring
    (tmp_path / "file").write_text("")
    words = ["ensemble", "curve", str(a.path), str(b.path), "--data", str(data)]
    ran = CliRunner().invoke(app, [*words, "-o", str(tmp_path / "file")])
    assert isinstance(ran.exception, UsageError)
    assert "file: cannot be written to" in str(ran.exception)


def test_only_the_bend_learns_and_chance_goes_on():
    """Batch normalisation uses the batch, dropout draws anew each step, and the ends stand."""
    image = keras.Input((4,))
    x = keras.layers.BatchNormalization()(keras.layers.Dense(8, use_bias=False)(image))
    dropout = keras.layers.Dropout(0.5, seed=1)
    net = keras.Model(image, keras.layers.Dense(2)(dropout(x)))
    ends = [[w.numpy() + i for w in net.trainable_variables] for i in (0, 1)]
    before = net.get_weights()
    curve = _bent(net, ends, keras.layers.Identity(), bezier, 0)
    curve.compile(keras.optimizers.SGD(0.1), "mse")
    state = np.asarray(dropout.seed_generator.state)
    middle = [np.asarray(b) for b in curve.bend]
    x = np.random.default_rng(0).standard_normal((8, 4)).astype("float32")
    curve.fit(x, np.zeros((8, 2)), epochs=2, verbose=0)
    assert len(curve.trainable_variables) == len(curve.bend) == 5
    assert all((np.asarray(b) != m).any() for b, m in zip(curve.bend, middle, strict=True))
    assert (np.asarray(dropout.seed_generator.state) != state).any()
    moved = [not np.array_equal(a, b) for a, b in zip(before, net.get_weights(), strict=True)]
    assert moved == [False] * 3 + [True, True] + [False] * 2  # the moving statistics alone
