"""What only training needs: heads beside the answer, groups that are learnt; no artifact has it."""

import keras
import numpy as np
import pytest

import striate
from striate.errors import UsageError
from striate.layers import LearnedGroupConv
from striate.preprocess import preset
from striate.registry import TrainingHeads, create_model, get_spec, list_models
from striate.train import make_recipe, train
from striate.train.checkpoint import Store
from striate.train.graphs import compile_graph, training_graph
from striate.train.judge import cross_entropy, softmax

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])
QUIET = {"progress": False}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """36 noisy pictures of three classes, each with a bright stripe of its own."""
    path = tmp_path_factory.mktemp("data") / "stripes.npz"
    labels = np.arange(36) % 3
    images = RNG.integers(0, 60, (36, 16, 16, 3), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[5 * label : 5 * label + 5] += 120
    np.savez(path, images=images, labels=labels)
    return path


# === Heads ===


def with_heads(name, **options):
    keras.utils.set_random_seed(0)
    return create_model(
        name, num_classes=3, input_shape=(16, 16, 3), training_heads=True, dropout=0.0, **options
    )


def trainer_of(net, heads, **recipe):
    recipe = make_recipe({"model": get_spec(net.name).name, **recipe})
    trainer = training_graph(net, recipe, preset("torch", 16, 16), heads)
    compile_graph(trainer, recipe, steps=1, epochs=1)
    return trainer


def loss_of(trainer, pixels=PIXELS, labels=LABELS):
    return float(trainer.compute_loss(y=labels, y_pred=trainer(pixels, training=False)))


def answers(net, pixels=PIXELS):
    x = preset("torch", 16, 16).layer()(pixels)
    return [keras.ops.convert_to_numpy(y) for y in net(x, training=False)]


def hinge(logits, labels):
    """By its definition, one class after the other."""
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        for i, logit in enumerate(row):
            total += max(0.0, 1 - (logit if i == label else -logit)) ** 2
    return total / len(labels)


def test_the_loss_is_that_of_the_answer_and_a_share_of_that_of_each_head():
    net = with_heads("dsn_cifar")
    logits, *heads = answers(net)
    expected = cross_entropy(logits, LABELS) + 0.3 * sum(cross_entropy(h, LABELS) for h in heads)
    assert len(heads) == 3
    assert loss_of(trainer_of(net, TrainingHeads(0.3))) == pytest.approx(expected, rel=1e-5)


def test_companions_of_a_deeply_supervised_net_learn_by_a_hinge_that_fades():
    net = with_heads("dsn_cifar")
    trainer = trainer_of(net, get_spec("dsn_cifar").training_heads)
    logits, *heads = answers(net)
    own, hinges = cross_entropy(logits, LABELS), sum(hinge(h, LABELS) for h in heads)
    assert loss_of(trainer) == pytest.approx(own + 0.1 * hinges, rel=1e-5)
    trainer.advance(0.75)
    assert loss_of(trainer) == pytest.approx(own + 0.025 * hinges, rel=1e-5)
    trainer.advance(1.0)
    assert loss_of(trainer) == pytest.approx(own, rel=1e-5)


def test_companions_learn_at_their_own_rate():
    """Of 196,608 inputs each: at the net's rate one step would turn all that they say."""
    from striate.train.strategies import heads_of, learning_rates, phases_of

    net, spec = with_heads("dsn_cifar"), get_spec("dsn_cifar")
    (phase,) = phases_of(make_recipe({"model": "dsn_cifar"}), net, spec)
    rates = learning_rates(net, net.trainable_variables, spec, phase)
    heads = {id(w) for layer in heads_of(net) for w in layer.weights}
    assert len(heads) == 6
    for variable, rate in zip(net.trainable_variables, rates, strict=True):
        assert rate == (1e-3 if id(variable) in heads else 1.0), variable.path
    plain = create_model("dsn_cifar")
    assert learning_rates(plain, plain.trainable_variables, spec, phase) is None


def test_a_head_that_does_not_fade_counts_the_same_to_the_end():
    trainer = trainer_of(with_heads("dsn_cifar"), TrainingHeads(0.3))
    before = loss_of(trainer)
    trainer.advance(1.0)
    assert loss_of(trainer) == before


def test_heads_learn_mixed_pictures_by_their_shares():
    net = with_heads("dsn_cifar")
    trainer = trainer_of(net, TrainingHeads(0.3), augment={"mixup": 1.0})
    logits, *heads = answers(net)
    share = np.array([1.0, 0.9, 0.8, 0.7, 0.6, 0.5], "float32")

    def mixed(logits):
        belief = np.log(softmax(logits))
        rows = np.arange(6)
        own, other = -belief[rows, LABELS], -belief[rows, np.roll(LABELS, 1)]
        return (share * own + (1 - share) * other).mean()

    answer = {"logits": logits, "heads": heads, "share": share.reshape(6, 1, 1, 1)}
    found = float(trainer.compute_loss(y=LABELS, y_pred=answer))
    assert found == pytest.approx(mixed(logits) + 0.3 * sum(map(mixed, heads)), rel=1e-5)


def test_smoothing_and_class_weights_hold_for_heads_too():
    net = with_heads("dsn_cifar")
    recipe = make_recipe({"model": "dsn_cifar", "label_smoothing": 0.3})
    trainer = training_graph(net, recipe, preset("torch", 16, 16), TrainingHeads(0.3))
    compile_graph(trainer, recipe, steps=1, epochs=1, weights=np.array([1.0, 2.0, 3.0]))

    def weighted(logits):
        belief, truth = np.log(softmax(logits)), 0.7 * np.eye(3)[LABELS] + 0.1
        return (-(truth * belief).sum(1) * (1 + LABELS)).mean()

    logits, *heads = answers(net)
    expected = weighted(logits) + 0.3 * sum(map(weighted, heads))
    assert loss_of(trainer) == pytest.approx(expected, rel=1e-5)


def test_class_weights_hold_for_companions_that_learn_by_a_hinge():
    net = with_heads("dsn_cifar")
    recipe, heads = make_recipe({"model": "dsn_cifar"}), get_spec("dsn_cifar").training_heads
    trainer = training_graph(net, recipe, preset("torch", 16, 16), heads)
    compile_graph(trainer, recipe, steps=1, epochs=1, weights=np.array([1.0, 2.0, 3.0]))

    def weighted(loss, logits):
        rows = [loss(logits[i : i + 1], LABELS[i : i + 1]) for i in range(len(LABELS))]
        return np.mean(rows * (1 + LABELS))

    logits, *others = answers(net)
    expected = weighted(cross_entropy, logits) + 0.1 * sum(weighted(hinge, x) for x in others)
    assert loss_of(trainer) == pytest.approx(expected, rel=1e-5)


@pytest.mark.long
@pytest.mark.parametrize(
    "changes", [{}, {"optimizer.ema": 0.9}, {"quantise": "int8"}, {"adversarial.epsilon": 4.0}]
)
def test_the_artifact_of_a_net_with_heads_has_none(data, tmp_path, changes):
    recipe = {
        "model": {"name": "dsn_cifar", "options": {"training_heads": True}},
        "epochs": 2,
        "batch_size": 12,
    }
    made = train(recipe, tmp_path / "dsn", data=data, **changes, **QUIET)
    assert "training_heads" not in made.manifest.model["options"]
    assert made.manifest.recipe["model"]["options"]["training_heads"]
    assert made.model.output_shape == (None, 3)
    assert not any("companion" in layer.name for layer in made.model.layers)
    made.check()


@pytest.mark.long
def test_heads_learn_and_reach_what_is_below_them(data, tmp_path, monkeypatch):
    from striate.train import build

    seen, real = [], build.to_run
    monkeypatch.setattr(build, "to_run", lambda net, *rest: seen.append(net) or real(net, *rest))
    weights = {}
    for heads in (False, True):
        model = {"name": "dsn_cifar", "options": {"training_heads": heads, "dropout": 0.0}}
        recipe = {"model": model, "epochs": 1, "batch_size": 12}
        made = train(recipe, tmp_path / str(heads), data=data, **QUIET)
        weights[heads] = made.model.get_layer("stage1_block1_conv").get_weights()[0]
    assert np.abs(weights[True] - weights[False]).max() > 0
    assert np.abs(seen[1].get_layer("logits_companion1").get_weights()[1]).max() > 0  # from zeros


@pytest.mark.long
def test_googlenet_learns_with_its_two_heads(tmp_path):
    images = RNG.integers(0, 256, (8, 80, 80, 3), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=images, labels=np.arange(8) % 2)
    sets = {"model.size": 80, "epochs": 1, "batch_size": 4, "data.validation": 0}
    made = train("googlenet", tmp_path / "g", data=tmp_path / "data.npz", **sets, **QUIET)
    assert made.model.count_params() == create_model("googlenet", num_classes=2).count_params()
    assert "training_heads" not in made.manifest.model["options"]


def test_a_body_that_stays_as_it_is_needs_no_heads(data, tmp_path):
    model = {"name": "dsn_cifar", "options": {"training_heads": True}}
    with pytest.raises(UsageError, match=r"dsn_cifar: strategy=linear_probe .*training_heads out"):
        train({"model": model, "strategy": "linear_probe"}, tmp_path, data=data, **QUIET)


def test_every_net_that_has_heads_says_how_they_are_learnt():
    for spec in list_models():
        assert ("training_heads" in spec.options) == (spec.training_heads is not None), spec.name


# === Learned groups ===

CONDENSENET = {"name": "condensenet86_cifar", "size": 16, "options": {"layers": 1}}


@pytest.mark.long
def test_a_trained_condensenet_is_condensed_and_runs_in_groups(data, tmp_path, monkeypatch):
    from striate.train import build

    seen, real = [], build.to_run
    monkeypatch.setattr(build, "to_run", lambda net, *rest: seen.append(net) or real(net, *rest))
    recipe = {"model": CONDENSENET, "epochs": 6, "batch_size": 12}
    made = train(recipe, tmp_path / "c", data=data, **QUIET)
    assert made.manifest.model["options"] == {"layers": 1, "converted": True}
    (net,) = seen
    grouping = [layer for layer in net.layers if isinstance(layer, LearnedGroupConv)]
    assert len(grouping) == 3
    for layer in grouping:
        mask = keras.ops.convert_to_numpy(layer.mask)
        assert (mask.sum(0) == len(mask) // 4).all()
    assert made.model.count_params() < net.count_params()
    x = made.preprocess.layer()(RNG.integers(0, 256, (4, *net.input_shape[1:]), dtype=np.uint8))
    ours, theirs = made.model(x, training=False), net(x, training=False)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.long
def test_only_epochs_of_a_net_that_has_condensed_compete_to_be_the_best(
    data, tmp_path, monkeypatch
):
    """One from before would be condensed when it is published, and never learn to do without."""
    kept, real = [], Store.save_best

    def save_best(store, epoch, variables):
        kept.append(epoch)
        real(store, epoch, variables)

    monkeypatch.setattr(Store, "save_best", save_best)
    recipe = {"model": CONDENSENET, "epochs": 4, "batch_size": 12}
    recipe["early_stopping"] = {"restore_best": True, "patience": 1}
    train(recipe, tmp_path / "c", data=data, **QUIET)
    assert min(kept) == 3


def test_groups_condense_in_stages_over_the_first_half():
    keras.utils.set_random_seed(0)
    layer = LearnedGroupConv(8, 4)
    layer.build((None, 4, 4, 16))
    left = []
    for progress in (0.0, 0.16, 0.17, 0.33, 0.34, 0.49, 0.5, 1.0):
        layer.advance(progress)
        left.append(int(keras.ops.convert_to_numpy(layer.mask).sum(0).max()))
    assert left == [16, 16, 12, 12, 8, 8, 4, 4]


def test_the_group_lasso_is_a_penalty():
    net = create_model("condensenet86_cifar", num_classes=3, input_shape=(16, 16, 3), layers=1)
    plain = trainer_of(net, None)
    lasso = trainer_of(net, None, penalty={"group_lasso": 0.01})
    layers = [layer for layer in net.layers if isinstance(layer, LearnedGroupConv)]
    added = 0.01 * sum(float(layer.group_lasso()) for layer in layers)
    assert loss_of(lasso) - loss_of(plain) == pytest.approx(added, rel=1e-3)


def test_a_group_lasso_without_groups_is_one_line():
    net = create_model("lenet5", num_classes=3, input_shape=(32, 32, 1))
    recipe = make_recipe({"model": "lenet5", "penalty": {"group_lasso": 0.01}})
    with pytest.raises(UsageError, match=r"learned group convolutions.* got lenet5"):
        training_graph(net, recipe, preset("unit", 32, 32, 1))


@pytest.mark.long
def test_a_condensenet_that_ended_early_exports_and_learns_on(data, tmp_path):
    """Before it had condensed, which it does at the end; an average leaves its masks whole."""
    recipe = {"model": CONDENSENET, "epochs": 1, "batch_size": 12, "optimizer": {"ema": 0.9}}
    made = train(recipe, tmp_path / "c", data=data, **QUIET)
    made, _ = striate.export(made, ["onnx", "litert"])
    assert {"onnx", "litert"} <= set(made.manifest.forms)
    again = {"model": {**CONDENSENET, "weights": str(made.path)}, "epochs": 1, "batch_size": 12}
    assert train(again, tmp_path / "d", data=data, **QUIET).manifest.model["options"]["converted"]
