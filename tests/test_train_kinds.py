"""Nets of voxels, clips and vectors: they learn, and their artifacts answer by every road."""

import dataclasses
import json

import numpy as np
import pytest

import striate
from served import ServerProcess
from striate.data import load
from striate.errors import DataError, UsageError
from striate.export import FORMS, export
from striate.export.pooling import flat_pools
from striate.preprocess import VectorPreprocess, for_input
from striate.runtime import FLOAT_TOLERANCE, open_engine, usable
from striate.train import finetune_recipe, fit, make_recipe, train
from striate.train.augment import augmentation
from striate.train.recipe import Augment

QUIET = {"progress": False}
N = 45


def bars(path, side=16, classes=3):
    """Voxels of noisy bars, lying at another height for each class."""
    generator = np.random.default_rng(0)
    labels = np.arange(N) % classes
    voxels = np.zeros((N, side, side, side), bool)
    for grid, label in zip(voxels, labels, strict=True):
        grid[3:-3, 5 * label : 5 * label + 4, 5:-5] = generator.random((side - 6, 4, 6)) < 0.7
    np.savez(path, voxels=voxels, labels=labels)
    return path


def motions(path, frames=7, height=24, width=22):
    """Clips of a bright square that moves down, up, or not at all; no single frame tells which."""
    generator = np.random.default_rng(0)
    labels = np.arange(N) % 3
    clips = generator.integers(0, 40, (N, frames, height, width), dtype=np.uint8)
    for clip, label in zip(clips, labels, strict=True):
        left = generator.integers(2, width - 8)
        for t in range(frames):
            top = (2 * t, 2 * (frames - 1 - t), frames - 1)[label]
            clip[t, top : top + 6, left : left + 6] = 220
    np.savez(path, images=clips, labels=labels)
    return path


def clouds(path, n=120):
    """A table of two clouds a class, in columns of very different spread, classes from 1 on."""
    generator = np.random.default_rng(0)
    labels = np.arange(n) % 3
    x = (
        generator.normal(size=(n, 5))
        + 3 * np.eye(5)[labels] * np.where(np.arange(n) % 2, 1, -1)[:, None]
    )
    x *= [1, 1000, 0.01, 1, 1]
    rows = (
        ",".join(map(repr, row.tolist())) + f",{y + 1}" for row, y in zip(x, labels, strict=True)
    )
    path.write_text("\n".join(rows))
    return path


CASES = {
    "voxnet": (bars, "bars.npz", {"model.size": 16}),
    "mnist3d": (bars, "bars.npz", {"model.options": {"fc_units": [32, 16], "dropout": [0, 0]}}),
    "cnn3d_ji": (motions, "motions.npz", {"model.size": [24, 22]}),
    "mlp_two_layer": (clouds, "clouds.csv", {"optimizer.learning_rate": 0.03}),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """name -> (artifact, data) of a net trained on made data; trained when first asked for."""
    found = {}

    def get(name):
        if name not in found:
            folder = tmp_path_factory.mktemp(name)
            make, file, sets = CASES[name]
            data = make(folder / file)
            recipe = make_recipe({"model": {"name": name}, "epochs": 10, "batch_size": 9}, sets)
            found[name] = train(recipe, folder / "models" / name, data=data, **QUIET), data
        return found[name]

    return get


# === Training ===


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_training_learns_and_leaves_a_whole_artifact(trained, name):
    made, data = trained(name)
    made.check()
    history = made.manifest.metrics["training"]["history"]
    assert history[-1]["loss"] < history[0]["loss"] / 2
    assert made.manifest.metrics["val"]["accuracy"] > 0.6  # chance is a third
    images, scores = made.goldens()
    np.testing.assert_allclose(made.predict(images), scores, atol=1e-6)
    assert (images.dtype, images.shape[1:]) == (made.preprocess.dtype, made.preprocess.shape)
    evaluation = striate.evaluate(made, data, engine="keras", report=data.parent / "report.html")
    assert evaluation.accuracy == made.manifest.metrics["val"]["accuracy"]


def test_a_table_decides_how_many_numbers_a_net_takes_and_standardises_them(trained):
    made, data = trained("mlp_two_layer")
    assert isinstance(made.preprocess, VectorPreprocess)
    assert made.model.input_shape == (None, 5)
    assert made.labels == ["1", "2", "3"]
    dataset = load(data, seed=0)
    rows = dataset.images[dataset.split("train")]
    inside = np.asarray(made.preprocess.layer()(rows))
    np.testing.assert_allclose(inside.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(inside.std(axis=0), 1, rtol=1e-4)


def test_training_goes_on_from_an_artifact_of_any_kind(trained, tmp_path):
    made, data = trained("mlp_two_layer")
    recipe = {"model": {"name": "mlp_two_layer", "weights": str(made.path)}, "epochs": 1}
    again = train(recipe, tmp_path / "again", data=data, **QUIET)
    assert again.preprocess == made.preprocess
    wider = tmp_path / "wider.csv"
    wider.write_text("".join(f"{i},1,2,3,4,5,{i % 3}\n" for i in range(30)))
    with pytest.raises(DataError, match="expected 5 numbers, got float32 \\[6\\]"):
        train(recipe, tmp_path / "wider", data=wider, **QUIET)


def test_what_only_pictures_can_have_is_left_out_in_one_line(trained, tmp_path, capsys):
    _, data = trained("mlp_two_layer")
    recipe = {"model": "mlp_two_layer", "epochs": 1}
    made = train(recipe, tmp_path / "m", data=data, **{"augment.flip": "both", "probe.copies": 2})
    said = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert said == ["left out, since mlp_two_layer takes rows: augment.flip, probe.copies"]
    assert make_recipe(made.manifest.recipe).augment.flip == "none"


def test_the_recipe_of_finetune_serves_voxels_too(trained):
    made, data = trained("voxnet")
    recipe = finetune_recipe("voxnet", weights=made.path, sets=["probe.mirror=true"])
    dataset = load(data)
    fitted = fit(recipe, dataset, dataset.split("train"), dataset.split("val"))
    assert fitted.recipe.augment.zoom == 0
    assert fitted.val_accuracy > 0.8


@pytest.mark.parametrize(
    ("name", "sets", "message"),
    [
        ("mlp_two_layer", {"model.size": 8}, "takes as many numbers as a row of the data has"),
        ("mlp_two_layer", {"preprocess.normalise": "torch"}, "expected data, for rows of numbers"),
        ("lenet5", {"model.size": [4, 32, 32]}, r"at most 2 sides for lenet5, got \[4, 32, 32\]"),
    ],
)
def test_a_size_or_normalisation_of_another_kind_is_refused(name, sets, message):
    from striate.train.build import start_of

    with pytest.raises(UsageError, match=message):
        start_of(make_recipe({"model": {"name": name}}, sets))


def test_sizes_mean_what_the_kind_of_input_makes_of_them():
    from striate.train.build import start_of

    def shape(name, **model):
        return start_of(make_recipe({"model": {"name": name, **model}})).preprocess.shape

    assert shape("voxnet", size=24) == (24, 24, 24, 1)
    assert shape("voxnet", size=[16, 24, 16], channels=3) == (16, 24, 16, 3)
    assert shape("cnn3d_ji", size=50) == (7, 50, 50, 1)
    assert shape("cnn3d_ji", size=[9, 60, 40]) == (9, 60, 40, 1)


def test_a_net_for_voxels_refuses_pictures_in_one_line(tmp_path):
    np.savez(tmp_path / "p.npz", images=np.zeros((20, 8, 8, 3), np.uint8), labels=np.arange(20) % 2)
    dataset = load(tmp_path / "p.npz")
    with pytest.raises(DataError, match="expected voxel grids for this net, got pictures"):
        fit({"model": "voxnet"}, dataset, dataset.split("train"))


# === Augmentation ===


def moved(kind, shape, augment, x):
    for layer in augmentation(Augment(**augment), 3, for_input(kind, shape, "unit")):
        x = layer(x, training=True)
    return np.asarray(x)


def test_quarter_turns_are_those_about_the_vertical_axis():
    grid = np.random.default_rng(0).integers(0, 256, (6, 5, 6, 1), dtype=np.uint8)
    turns = [np.rot90(grid, k, axes=(0, 2)) for k in range(4)]
    seen = moved("voxels", grid.shape, {"quarter_turns": True}, np.stack([grid] * 64))
    found = [next(k for k in range(4) if np.array_equal(turns[k], one)) for one in seen]
    assert set(found) == {0, 1, 2, 3}
    with pytest.raises(UsageError, match="as deep as they are wide, got 4 and 6"):
        moved("voxels", (4, 5, 6, 1), {"quarter_turns": True}, grid[None])


def test_voxels_are_shifted_by_whole_cells_and_empty_cells_follow():
    grid = np.zeros((8, 8, 8, 1), np.uint8)
    grid[3:5, 3:5, 3:5] = 255
    seen = moved("voxels", grid.shape, {"translate": 0.25}, np.stack([grid] * 64))
    assert {int(one.sum()) for one in seen} == {8 * 255}
    corners = {tuple(np.argwhere(one)[0][:3].tolist()) for one in seen}
    assert corners <= {(a, b, c) for a in range(1, 6) for b in range(1, 6) for c in range(1, 6)}
    assert {corner[0] for corner in corners} == {1, 2, 3, 4, 5}
    edge = moved(
        "voxels", (8, 8, 8, 1), {"translate": 0.9}, np.full((32, 8, 8, 8, 1), 255, "uint8")
    )
    assert set(np.unique(edge)) == {0, 255}


@pytest.mark.parametrize(("flip", "axis"), [("horizontal", 2), ("vertical", 1)])
def test_voxels_are_mirrored_along_their_width_or_height(flip, axis):
    grid = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 1), dtype=np.uint8)
    seen = moved("voxels", grid.shape, {"flip": flip}, np.stack([grid] * 16))
    mirrored = [np.array_equal(one, np.flip(grid, axis)) for one in seen]
    kept = [np.array_equal(one, grid) for one in seen]
    assert any(mirrored)
    assert any(kept)
    assert all(a or b for a, b in zip(mirrored, kept, strict=True))


def test_all_frames_of_a_clip_change_alike():
    picture = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    clip = np.stack([picture] * 5)[None]
    everything = {"flip": "both", "translate": 0.2, "zoom": 0.2, "rotate": 20, "brightness": 0.2}
    seen = moved("clip", (5, 8, 9, 3), everything, clip)
    assert seen.shape == clip.shape
    assert not np.array_equal(seen, clip)
    assert all(np.array_equal(seen[:, 0], seen[:, t]) for t in range(5))


def test_augmentation_leaves_everything_alone_outside_training():
    grid = np.random.default_rng(0).integers(0, 256, (2, 6, 6, 6, 1), dtype=np.uint8)
    wanted = Augment(flip="both", quarter_turns=True, translate=0.3)
    x = grid
    for layer in augmentation(wanted, 0, for_input("voxels", grid.shape[1:], "unit")):
        x = layer(x, training=False)
    np.testing.assert_array_equal(x, grid)


# === Roads to an answer ===


@pytest.fixture(scope="module")
def exported(trained):
    """name -> the artifact with every form, and what its verification found."""
    found = {}

    def get(name):
        if name not in found:
            found[name] = export(trained(name)[0])
        return found[name]

    return get


SLOW = {"cnn3d_ji"}  # some 400 operations, of which the converters take their time


@pytest.mark.long
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in CASES]
)
def test_every_form_agrees_and_every_engine_gives_the_goldens(exported, name):
    made, rows = exported(name)
    assert [row.form for row in rows] == list(FORMS)
    assert {row.top1_agreement for row in rows} == {1.0}
    images, scores = made.goldens()
    assert {"onnx", "litert", "tensorflow", "keras"} <= set(usable(made))
    for engine in usable(made):
        answered = open_engine(made, engine, threads=1).predict(images)
        np.testing.assert_allclose(answered, scores, atol=FLOAT_TOLERANCE)


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_a_flat_pooling_is_the_same_bit_for_bit(padding):
    import keras

    inputs = keras.Input((7, 9, 8, 3))
    pool = keras.layers.MaxPooling3D((2, 3, 2), strides=(2, 1, 2), padding=padding)
    net = keras.Model(inputs, pool(inputs))
    x = np.random.default_rng(0).standard_normal((2, 7, 9, 8, 3)).astype("float32")
    whole = np.asarray(net(x))
    with flat_pools(net):
        flat = np.asarray(net(x))
    np.testing.assert_array_equal(flat, whole)
    assert "call" not in vars(net.layers[-1])


def test_predict_at_the_command_line_names_a_grid_in_a_file(exported, tmp_path, capsys):
    from typer.testing import CliRunner

    from striate.cli import app

    made, _ = exported("voxnet")
    images, scores = made.goldens()
    np.save(tmp_path / "grid.npy", images[0] > 0)
    ran = CliRunner().invoke(
        app, ["predict", str(made.path), str(tmp_path / "grid.npy"), "--engine", "onnx", "--json"]
    )
    assert ran.exit_code == 0, ran.output
    best = json.loads(ran.stdout)[0]["top"][0]
    assert best["index"] == scores[0].argmax()
    assert best["score"] == pytest.approx(scores[0].max(), abs=FLOAT_TOLERANCE)


@pytest.mark.parametrize("name", ["voxnet", "mlp_two_layer"])
def test_the_server_answers_tensors_of_any_rank_and_has_no_signature_for_pictures(exported, name):
    from striate.serve.client import Client, HttpClient
    from striate.serve.signatures import signatures_of

    made, _ = exported(name)
    assert set(signatures_of(made)) == {"serving_default"}
    images, scores = made.goldens()
    with (
        ServerProcess(made.path.parent) as server,
        Client(server.address, name) as client,
    ):
        np.testing.assert_allclose(client.predict(images), scores, atol=FLOAT_TOLERANCE)
        answered = HttpClient(server.url, name).predict(images)
        np.testing.assert_allclose(answered, scores, atol=FLOAT_TOLERANCE)


@pytest.mark.parametrize(("name", "shows"), [("voxnet", True), ("mlp_two_layer", False)])
def test_the_report_shows_what_can_be_shown_of_a_mistake(trained, tmp_path, name, shows):
    made, data = trained(name)
    dataset = load(data)
    wrong = dataclasses.replace(dataset, labels=(dataset.labels + 1) % 3)
    judged = striate.evaluate(made, wrong, engine="keras", report=tmp_path / "report.html")
    assert judged.mistakes
    page = (tmp_path / "report.html").read_text()
    assert ('<img src="data:image/png' in page) == shows
    assert judged.mistakes[0].path in page


def test_the_random_state_of_moves_is_part_of_a_checkpoint():
    from striate.registry import create_model
    from striate.train.graphs import training_graph

    net = create_model("voxnet", num_classes=2, input_shape=(16, 16, 16, 1), dropout=(0, 0, 0))
    wanted = {"flip": "both", "quarter_turns": True, "translate": 0.1}
    spec = for_input("voxels", (16, 16, 16, 1), "unit")
    plain, random = (
        training_graph(net, make_recipe({"model": "voxnet", "augment": augment}), spec)
        for augment in ({}, wanted)
    )
    assert len(random.variables) - len(plain.variables) == 4  # one for each move
