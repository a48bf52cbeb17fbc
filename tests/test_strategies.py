"""Fine-tuning strategies: what learns when and how fast, where a net ends, and why it was so."""

import keras
import numpy as np
import pytest

from striate import artifact
from striate.data import load
from striate.errors import UsageError
from striate.preprocess import preset
from striate.registry import create_model, get_spec
from striate.train import (
    build,
    cross_validate,
    finetune,
    finetune_recipe,
    fit,
    make_recipe,
    train,
)
from striate.train.checkpoint import NoStore
from striate.train.failures import Diverged
from striate.train.loop import Run
from striate.train.optimize import make_optimizer
from striate.train.progress import watcher
from striate.train.strategies import (
    Phase,
    forget_sooner,
    freeze,
    learning_rates,
    phases_of,
    stages_of,
)
from striate.train.tensorboard import Logs
from striate.train.transfer import RULE, Measured, chosen

MOBILENET = {"model": {"name": "mobilenet_v2_035", "size": 32}}
LENET = {"model": {"name": "lenet5", "size": 32, "channels": 1}, "epochs": 1}


@pytest.fixture(scope="module")
def stripes(tmp_path_factory):
    """36 noisy grey pictures of three classes, each with a bright stripe where its class has it."""
    generator = np.random.default_rng(0)
    labels = np.arange(36) % 3
    images = generator.integers(0, 100, (36, 32, 32), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[10 * label : 10 * label + 10] += 60
    path = tmp_path_factory.mktemp("data") / "stripes.npz"
    np.savez(path, images=images, labels=labels)
    return load(path)


@pytest.fixture(scope="module")
def mobilenet():
    return create_model("mobilenet_v2_035", num_classes=3, input_shape=(32, 32, 3))


def phases(net, **strategy):
    recipe = make_recipe({**MOBILENET, "strategy": strategy, "epochs": 5})
    return phases_of(recipe, net, get_spec("mobilenet_v2_035"))


# === What batch normalisation remembers ===


def momenta(net):
    return {x.momentum for x in net.layers if type(x).__name__ == "BatchNormalization"}


@pytest.mark.parametrize(("steps", "momentum"), [(5004, 0.999), (100, 0.96), (9, 0.9)])
def test_the_first_statistics_are_forgotten_within_an_epoch(steps, momentum):
    net = create_model("mobilenet_v2_035", num_classes=3, input_shape=(32, 32, 3))
    assert momenta(net) == {0.999}
    forget_sooner(net, steps)
    assert momenta(net) == {momentum}


def test_a_short_run_ends_with_the_statistics_of_its_pictures(stripes):
    """A momentum of 0.999 for 40 steps would have kept 96 % of the first ones, 0 and 1."""
    layers = keras.layers
    image = keras.Input((32, 32, 1))
    maps = layers.Dense(8)(layers.Flatten()(image))
    norm = layers.BatchNormalization(momentum=0.999)
    net = keras.Model(image, layers.Dense(3)(norm(maps)))
    pictures = stripes.examples(preset("unit", 32, 32, 1), np.arange(36))
    recipe = make_recipe({**LENET, "batch_size": 9, "optimizer": {"learning_rate": 1e-6}})
    quiet = {"store": NoStore(), "watch": watcher(False), "logs": Logs(None)}
    run = Run(net, get_spec("lenet5"), recipe, pictures, pictures, **quiet)
    run.through([Phase("full", "fit", 10)])
    seen = keras.Model(image, maps).predict(pictures.images / np.float32(255), verbose=0)
    np.testing.assert_allclose(norm.moving_mean, seen.mean(axis=0), atol=0.1 * seen.std())
    np.testing.assert_allclose(norm.moving_variance, seen.var(axis=0), atol=0.05)  # from 1 on


# === Gradual ===


def test_the_stages_of_a_net_are_listed_from_the_classifier_down(mobilenet):
    stages = stages_of(mobilenet, get_spec("mobilenet_v2_035"))
    assert stages == ["top", *(f"stage{i}" for i in range(7, 0, -1)), "stem"]


def test_gradual_unfreezes_one_stage_more_in_each_phase(mobilenet):
    found = phases(mobilenet, name="gradual", unfreeze_from="stage6", stage_epochs=2)
    assert [(p.name, p.kind, p.epochs) for p in found] == [
        ("linear_probe", "probe", 0),
        ("top", "fit", 2),
        ("stage7", "fit", 2),
        ("stage6", "fit", 5),
    ]
    learning = []
    for phase in found[1:]:
        freeze(mobilenet, phase)
        learning.append({w.path for w in mobilenet.trainable_weights})
    assert learning[0] < learning[1] < learning[2]
    assert not any(path.startswith("stage5") for path in learning[2])
    assert any(path.startswith("stage6_block1_expand_conv") for path in learning[2])


def test_a_gradual_run_moves_what_it_should_and_nothing_else(stripes):
    recipe = make_recipe({**LENET, "strategy": {"name": "gradual", "unfreeze_from": "fc1"}})
    start = build.start_of(recipe)
    before = build.build(start, recipe, 3)
    fitted = fit(recipe, stripes, np.arange(36))
    assert [row["phase"] for row in fitted.history] == ["linear_probe", "fc2", "fc2", "fc1"]
    for layer in before.layers:
        same = [
            np.array_equal(a, b)
            for a, b in zip(
                layer.get_weights(), fitted.model.get_layer(layer.name).get_weights(), strict=True
            )
        ]
        assert all(same) == (not layer.name.startswith(("fc1", "fc2", "logits")) or not same)


def test_fine_tuning_that_spoils_the_probe_ends_with_the_probe(stripes):
    spoiling = {"name": "sgd", "learning_rate": 6}
    sets = {"epochs": 2, "optimizer": spoiling, "early_stopping.restore_best": True}
    pictures = stripes.split("train"), stripes.split("val")
    fitted = fit({**LENET, "strategy": "lp_ft"}, stripes, *pictures, **sets)
    probe, *tuned = fitted.history
    assert min(row["val_loss"] for row in tuned) > 2 * probe["val_loss"]
    assert fitted.val_loss == pytest.approx(probe["val_loss"], rel=1e-5)


def test_what_a_quantised_phase_begins_with_is_judged_by_ranges_that_have_seen_pictures(
    stripes, monkeypatch
):
    judged, compare = [], Run._compare

    def looking(self, row):
        judged.append(row["val_loss"])
        compare(self, row)

    monkeypatch.setattr(Run, "_compare", looking)
    sets = {"strategy": "lp_ft", "quantise": "int8", "early_stopping.restore_best": True}
    pictures = stripes.split("train"), stripes.split("val")
    fitted = fit(LENET, stripes, *pictures, epochs=1, **sets)
    assert judged[0] == pytest.approx(fitted.history[0]["val_loss"], rel=0.2)


@pytest.mark.long
def test_what_a_probe_does_not_know_is_said(stripes, tmp_path, capsys):
    recipe = {**LENET, "strategy": "linear_probe", "quantise": "int8", "label_smoothing": 0.1}
    train(recipe, tmp_path / "m", data=stripes)
    said = capsys.readouterr().err
    assert "without effect, since a linear probe is solved for: label_smoothing, quantise\n" in said
    train({**recipe, "strategy": "lp_ft"}, tmp_path / "m", data=stripes)
    assert "without effect" not in capsys.readouterr().err


# === Layer by layer ===


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd", "rmsprop", "lion", "nadam", "adagrad"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_a_stage_moves_by_exactly_the_decay_of_the_one_above(name, weight_decay):
    """The same weight under the same gradients, three steps long, one at 0.25 of the rate."""
    recipe = make_recipe(
        {
            "model": "lenet5",
            "optimizer": {"name": name, "learning_rate": 2**-10, "weight_decay": weight_decay},
            "schedule": "constant",
        }
    )
    start = np.float32([[0.0, 0.0], [0.0, 0.0]])
    pair = [keras.Variable(start), keras.Variable(start)]
    optimizer = make_optimizer(recipe, pair, steps=10, epochs=1, rates=[1.0, 0.25])
    alone = [keras.Variable(start)]
    quarter = make_recipe(recipe, {"optimizer.learning_rate": 2**-12})
    slow = make_optimizer(quarter, alone, steps=10, epochs=1)
    for step in range(3):
        gradient = np.float32([[0.5, -1.0], [2.0, 0.125]]) * (step + 1)
        optimizer.apply([gradient, gradient], pair)
        slow.apply([gradient], alone)
        if step == 0:
            np.testing.assert_array_equal(np.array(pair[1]), 0.25 * np.array(pair[0]))
    assert np.abs(np.array(pair[0])).min() > 0
    np.testing.assert_array_equal(np.array(pair[1]), np.array(alone[0]))


def test_rates_decay_from_the_classifier_down(mobilenet):
    spec = get_spec("mobilenet_v2_035")
    phase = phases(mobilenet, name="layerwise", decay=0.5)[-1]
    freeze(mobilenet, phase)
    variables = mobilenet.trainable_variables
    rates = learning_rates(mobilenet, variables, spec, phase)
    of = {v.path.split("/")[0]: rate for v, rate in zip(variables, rates, strict=True)}
    assert (of["logits"], of["top_conv"], of["stage7_block1_dw_conv"]) == (1, 0.5, 0.25)
    assert of["stage6_block3_dw_conv"] == of["stage6_block1_dw_bn"] == 0.125
    assert of["stem_conv"] == 0.5**9


def test_a_layerwise_run_learns(stripes):
    recipe = {**LENET, "strategy": "layerwise", "epochs": 2, "optimizer": {"weight_decay": 0.01}}
    fitted = fit(recipe, stripes, np.arange(36))
    assert [row["phase"] for row in fitted.history] == ["linear_probe", "layerwise", "layerwise"]
    assert fitted.history[-1]["accuracy"] > 0.6


# === Early features ===


def test_a_net_that_ends_early_is_the_beginning_of_the_whole(stripes):
    shape = {"num_classes": 3, "input_shape": (32, 32, 3)}
    keras.utils.set_random_seed(1)
    whole = create_model("mobilenet_v2_035", **shape)
    keras.utils.set_random_seed(1)
    short = create_model("mobilenet_v2_035", **shape, until="stage3_out")
    x = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    maps = keras.Model(whole.input, whole.get_layer("stage3_out").output)(x)
    kernel, bias = short.get_layer("logits").get_weights()
    np.testing.assert_allclose(
        np.array(short(x)), np.array(maps).mean(axis=(1, 2)) @ kernel + bias, atol=1e-5
    )
    assert short.count_params() < 0.2 * whole.count_params()


def test_a_net_can_end_at_the_stages_of_its_pyramid_only():
    with pytest.raises(UsageError, match=r"until: expected one of stage1_out, stage2_out.*mean"):
        create_model("lenet5", until="stage2_ou")


def test_early_features_leave_an_artifact_of_the_shorter_net(stripes, tmp_path):
    recipe = {**LENET, "strategy": {"name": "early_features", "until": "stage1_out"}}
    made = train(recipe, tmp_path / "early", data=stripes, progress=False)
    again = artifact.load(made.path)
    assert again.manifest.model["options"]["until"] == "stage1_out"
    assert (again.spec.cam_layer, again.spec.pyramid) == ("stage1_out", ("stage1_out",))
    assert not any(layer.name.startswith("stage2") for layer in again.model.layers)
    images, scores = again.goldens()
    np.testing.assert_allclose(again.predict(images), scores, atol=1e-6)
    # and it is a beginning for the next: the classifier too, since the classes are the same
    onwards = {**LENET, "strategy": "full", "model": {"name": "lenet5", "weights": str(made.path)}}
    fitted = fit(onwards, stripes, np.arange(36), epochs=0)
    for a, b in zip(fitted.model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_early_features_measure_where_to_end(stripes):
    fitted = fit({**LENET, "strategy": "early_features"}, stripes, np.arange(36))
    strategy = fitted.recipe.strategy
    assert strategy.until == fitted.recipe.model.options["until"] == "stage1_out"
    assert "stage1_out" in strategy.reason


# === Auto ===


def rightly(*shares, n=100):
    """Measured on a net of stages whose probes name these shares of 100 pictures rightly."""
    names = [*(f"stage{i}_out" for i in range(1, len(shares))), "features"]
    order = np.arange(n)
    return {name: order < share * n for name, share in zip(names, shares, strict=True)}


def test_the_rule_has_four_cases():
    assert set(RULE.values()) == {"linear_probe", "early_features", "lp_ft", "full"}


@pytest.mark.parametrize(
    ("per_class", "shares", "strategy", "words"),
    [
        (29, (0.5, 0.7, 0.85), "linear_probe", "few pictures (29 a class"),
        (29, (0.5, 0.9, 0.7), "early_features", "unlike those"),
        (1000, (0.5, 0.7, 0.85), "lp_ft", "many pictures"),
        (1000, (0.9, 0.7, 0.7), "full", "on stage1_out 90.0%"),
        (29, (0.70, 0.70), "linear_probe", "like those"),
    ],
)
def test_auto_chooses_by_number_and_distance_and_says_why(per_class, shares, strategy, words):
    name, reason = chosen(Measured(per_class, rightly(*shares)))
    assert name == strategy
    assert reason.startswith(f"auto: {strategy}, since")
    assert words in reason


def test_a_gain_within_the_noise_does_not_count_as_distance():
    right = rightly(0.70, 0.71)
    right["stage1_out"] = np.roll(right["features"], 30)  # others, but no more of them
    right["stage1_out"][-1] = True
    assert not Measured(29, right).different


def test_auto_is_decided_before_training_and_kept_with_the_result(stripes, tmp_path, capsys):
    base = train({**LENET, "strategy": "full"}, tmp_path / "base", data=stripes, progress=False)
    asked = {"name": "auto", "unfreeze_from": "fc1"}  # which a linear probe has no use for
    recipe = {"model": {"name": "lenet5", "weights": str(base.path)}, "strategy": asked}
    made = train(recipe, tmp_path / "mine", data=stripes)
    kept = made.manifest.recipe["strategy"]
    assert kept["name"] in ("linear_probe", "early_features")
    assert kept["reason"].startswith(f"auto: {kept['name']}, since there are few pictures")
    assert kept["reason"] in capsys.readouterr().err


def test_auto_trains_fresh_weights_in_full(stripes):
    fitted = fit({**LENET, "strategy": "auto"}, stripes, np.arange(36))
    assert fitted.recipe.strategy.name == "full"
    assert "fresh weights" in fitted.recipe.strategy.reason


# === Folds ===


@pytest.mark.long
@pytest.mark.parametrize("strategy", ["linear_probe", "early_features"])
def test_cross_validation_looks_at_each_picture_once_and_finds_the_same(
    stripes, strategy, monkeypatch
):
    from striate.train import frozen

    seen = []
    predict = frozen.predict

    def counted(graph, images, size):
        seen.append(len(images))
        return predict(graph, images, size)

    monkeypatch.setattr(frozen, "predict", counted)
    recipe = {**LENET, "strategy": strategy, "probe": {"mirror": True}}
    together = cross_validate(recipe, stripes, folds=3)
    passes = 2 + (strategy == "early_features")  # plain, mirrored, and to measure
    assert sum(seen) == passes * len(stripes)
    alone = [fit(recipe, stripes, *fold) for fold in stripes.folds(3)]
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a.val_logits, b.val_logits, rtol=1e-4, atol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("normalise", [None, "data"])
def test_folds_that_measure_their_own_numbers_share_nothing(tmp_path, normalise):
    """Rows of numbers are standardised by the training rows of each fold, asked for or not."""
    x = np.random.default_rng(0).normal(size=(30, 3)) + np.linspace(0, 9, 30)[:, None]
    np.savez(tmp_path / "rows.npz", x=x.astype(np.float32), y=np.arange(30) % 2)
    rows = load(tmp_path / "rows.npz")
    recipe = {"model": "mlp_two_layer", "strategy": "linear_probe"}
    recipe["preprocess"] = {"normalise": normalise}
    together = cross_validate(recipe, rows, folds=3)
    for fitted, fold in zip(together, rows.folds(3), strict=True):
        alone = fit(recipe, rows, *fold)
        assert fitted.preprocess == alone.preprocess
        np.testing.assert_allclose(fitted.val_logits, alone.val_logits, rtol=1e-4, atol=1e-4)


def test_a_fold_learns_from_the_same_copies_whether_or_not_others_came_before_it(stripes):
    """So that folds that were killed go on with what they would have had."""
    changed = {"strategy": "linear_probe", "probe": {"copies": 1}, "augment": {"rotate": 20}}
    together = cross_validate({**LENET, **changed}, stripes, folds=3)
    alone = fit({**LENET, **changed}, stripes, *stripes.folds(3)[2])
    np.testing.assert_array_equal(alone.val_logits, together[2].val_logits)


def test_what_is_known_of_one_ending_is_not_taken_for_another(stripes):
    known = {}
    for until in ("stage1_out", "stage2_out"):
        recipe = {**LENET, "strategy": {"name": "early_features", "until": until}}
        together = cross_validate(recipe, stripes, folds=2, known=known)
        alone = fit(recipe, stripes, *stripes.folds(2)[0])
        np.testing.assert_allclose(together[0].val_logits, alone.val_logits, atol=1e-4)


@pytest.mark.long
def test_folds_end_in_one_net_on_all_the_pictures(stripes, tmp_path):
    made = train(LENET, tmp_path / "m", data=stripes, folds=3, progress=False, strategy="full")
    found = made.manifest.metrics
    assert made.manifest.data["splits"] == {"train": 36}
    assert list(made.manifest.data["split_digests"]) == ["train"]
    assert made.manifest.recipe["data"]["validation"] == 0
    assert [fold["n"] for fold in found["folds"]["each"]] == [12, 12, 12]
    assert {fold["strategy"] for fold in found["folds"]["each"]} == {"full"}
    mean = np.mean([fold["accuracy"] for fold in found["folds"]["each"]])
    assert found["folds"]["n"] == 36
    assert found["folds"]["accuracy"] == pytest.approx(mean)
    assert "val" not in found


@pytest.mark.long
@pytest.mark.parametrize("fold", [2, 4])  # the fourth is the last net, on all the pictures
def test_folds_that_were_interrupted_go_on_and_come_to_the_same(
    stripes, tmp_path, monkeypatch, fold
):
    recipe = {**LENET, "strategy": "full", "epochs": 2, "checkpoint_seconds": 0}
    whole = train(recipe, tmp_path / "whole", data=stripes, folds=3, progress=False)
    ended, end_epoch = [], Run._end_epoch

    def interrupting(self, *arguments):
        ended.append(1)
        if len(ended) == 2 * fold:  # in the second of two epochs
            raise KeyboardInterrupt
        end_epoch(self, *arguments)

    monkeypatch.setattr(Run, "_end_epoch", interrupting)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "m", data=stripes, folds=3, progress=False)
    made = train(recipe, tmp_path / "m", data=stripes, folds=3, progress=False)
    assert len(ended) == 2 * 4 + 1  # that epoch alone was begun again
    assert made.manifest.metrics["folds"] == whole.manifest.metrics["folds"]
    for a, b in zip(made.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == [".logs", "1"]


def test_folds_of_which_one_explodes_leave_nothing(stripes, tmp_path, monkeypatch):
    through, runs = Run.through, []

    def exploding(self, phases):
        runs.append(1)
        if len(runs) == 3:
            raise Diverged("it exploded")
        return through(self, phases)

    monkeypatch.setattr(Run, "through", exploding)
    recipe = {**LENET, "strategy": "full", "epochs": 1}
    with pytest.raises(Diverged):
        train(recipe, tmp_path / "m", data=stripes, folds=3, progress=False)
    assert not (tmp_path / "m").exists()


def test_folds_refuse_a_recipe_that_looks_at_validation_pictures(stripes, tmp_path):
    recipe = {**LENET, "early_stopping": {"patience": 2}}
    with pytest.raises(UsageError, match="folds: expected a recipe that trains on all pictures"):
        train(recipe, tmp_path / "m", data=stripes, folds=3, progress=False)


# === Heads, channels and sizes ===


@pytest.mark.long
def test_a_pretrained_net_learns_two_classes_of_small_grey_pictures(tmp_path):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 90, (16, 24, 40), dtype=np.uint8)
    images[::2, :12] += 100
    np.savez(tmp_path / "grey.npz", images=images, labels=np.arange(16) % 2)
    made = finetune(
        "squeezenet1_1",
        data=tmp_path / "grey.npz",
        output=tmp_path / "m",
        progress=False,
        **{"model.size": [48, 64], "model.channels": 1},
    )
    assert made.model.input_shape == (None, 48, 64, 1)
    assert made.model.output_shape == (None, 2)
    assert made.manifest.metrics["val"]["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("sets", "line"),
    [
        ({"model.size": 8}, "squeezenet1_1: expected an input of at least 17 x 17 pixels"),
        ({"model.size": [8, 8, 8]}, "model.size: expected at most 2 sides"),
        ({"model.channels": 2}, "model.channels should be 1 or 3"),
        ({"strategy": "early"}, "strategy.name should be .*Did you mean 'early_features'"),
        ({"strategy": {"name": "early_features", "until": "stage7_out"}}, "until: expected one of"),
        ({"strategy": {"name": "gradual", "unfreeze_from": "stage9"}}, "unfreeze_from: expected"),
        (
            {"strategy": {"name": "gradual", "unfreeze_from": "layer4"}},
            "info NET --layers` lists them",
        ),
        ({"strategy.decay": 2}, "strategy.decay should be less than or equal to 1"),
    ],
)
def test_what_does_not_fit_is_one_line(sets, line, stripes):
    with pytest.raises(UsageError, match=line) as error:
        fit(finetune_recipe("squeezenet1_1", sets=sets), stripes, np.arange(36))
    assert "\n" not in str(error.value)
