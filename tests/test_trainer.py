"""What is trained: the loss of mixed pictures, penalties on kernels, exact states."""

import keras
import numpy as np
import pytest
from keras import ops

from striate.data import load
from striate.preprocess import for_input, preset
from striate.registry import create_model
from striate.train import fit, make_recipe
from striate.train.build import suited
from striate.train.graphs import compile_graph, predict, training_graph
from striate.train.judge import cross_entropy
from striate.train.optimize import cross_entropy as loss_function

CLASSES = 3


def tiny_net(seed=0):
    """Float pixels [N, 4, 4, 1] -> logits [N, 3], linear, with a bias that learns."""
    keras.utils.set_random_seed(seed)
    image = keras.Input((4, 4, 1))
    logits = keras.layers.Dense(CLASSES, bias_initializer="ones", name="logits")
    return keras.Model(image, logits(keras.layers.Flatten()(image)))


def trainer_of(net, **groups):
    """A compiled training graph of a recipe's groups; plain SGD of rate 0.1."""
    sgd = {"name": "sgd", "momentum": 0, "learning_rate": 0.1}
    recipe = make_recipe({"model": "lenet5", "optimizer": sgd, "schedule": "constant", **groups})
    trainer = training_graph(net, recipe, preset("unit", 4, 4, 1))
    compile_graph(trainer, recipe, steps=1, epochs=1)
    return trainer


@pytest.fixture
def batch():
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (6, 4, 4, 1), dtype=np.uint8)
    return x, np.array([0, 1, 2, 0, 2, 1], np.int32)


def softmax(logits):
    scores = np.exp(logits - logits.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


# === Mixing ===


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_the_cross_entropy_with_the_mixed_one_hot_labels(batch, smoothing):
    x, labels = batch
    generator = np.random.default_rng(1)
    logits = generator.normal(size=(6, CLASSES)).astype(np.float32)
    share = generator.random((6, 1, 1, 1), np.float32)

    trainer = trainer_of(tiny_net(), augment={"mixup": 1.0}, label_smoothing=smoothing)
    loss = float(trainer.compute_loss(x, labels, {"logits": logits, "share": share}))

    truth = np.eye(CLASSES)[labels] * (1 - smoothing) + smoothing / CLASSES
    mixed = share[:, 0, 0] * truth + (1 - share[:, 0, 0]) * np.roll(truth, 1, axis=0)
    expected = -(mixed * np.log(softmax(logits))).sum(axis=1).mean()
    assert loss == pytest.approx(expected, rel=1e-5)


def test_weights_of_pictures_weigh_both_of_their_parts(batch):
    x, labels = batch
    generator = np.random.default_rng(1)
    logits = generator.normal(size=(6, CLASSES)).astype(np.float32)
    share, weights = generator.random((2, 6), np.float32)
    trainer = trainer_of(tiny_net(), augment={"mixup": 1.0})
    loss = float(trainer.compute_loss(x, labels, {"logits": logits, "share": share}, weights))
    own = np.array(loss_function()(labels, logits))
    other = np.array(loss_function()(np.roll(labels, 1), logits))
    expected = share * weights * own + (1 - share) * np.roll(weights, 1) * other
    assert loss == pytest.approx(expected.mean(), rel=1e-5)


def test_the_accuracy_weighs_the_two_names_of_a_mixed_picture(batch):
    x, labels = batch
    trainer = trainer_of(tiny_net(), augment={"mixup": 1.0})
    share = np.float32([0.9, 0.6, 0.5, 0.2, 1.0, 0.0])
    logits = 9 * np.eye(CLASSES, dtype=np.float32)[labels]  # every picture's own label is named
    trainer.train_on_batch(x, labels)  # so that the metrics are there
    trainer.reset_metrics()
    found = trainer.compute_metrics(x, labels, {"logits": logits, "share": share})
    accuracy = float(found["accuracy"])
    assert accuracy == pytest.approx(share.mean())  # no neighbour has the same label


def test_a_step_is_that_of_the_mixed_batch(batch):
    """The gradient of a linear net by hand, for the pictures and shares that the layer drew."""
    x, labels = batch
    net = tiny_net()
    trainer = trainer_of(net, augment={"mixup": 0.4, "cutmix": 1.0})
    kernel, bias = net.get_weights()
    mix = trainer.get_layer("mix")
    state = mix.generator.state.numpy().copy()
    mixed, share = (ops.convert_to_numpy(a) for a in mix(x, training=True))
    mix.generator.state.assign(state)

    trainer.train_on_batch(x, labels)
    flat, share = mixed.reshape(6, -1) / 255, share.reshape(6, 1)
    truth = np.eye(CLASSES)[labels]
    truth = share * truth + (1 - share) * np.roll(truth, 1, axis=0)
    error = (softmax(flat @ kernel + bias) - truth) / 6
    new_kernel, new_bias = net.get_weights()
    np.testing.assert_allclose(new_kernel, kernel - 0.1 * flat.T @ error, atol=1e-6)
    np.testing.assert_allclose(new_bias, bias - 0.1 * error.sum(axis=0), atol=1e-6)


def test_a_graph_that_mixes_predicts_for_the_pictures_as_they_are(batch):
    x, _ = batch
    net = tiny_net()
    logits = predict(trainer_of(net, augment={"mixup": 1.0, "cutmix": 1.0}), x, 8)
    np.testing.assert_allclose(logits, np.array(net(x / np.float32(255))), rtol=1e-5)


def test_the_random_state_of_mixing_is_part_of_a_checkpoint(batch):
    x, labels = batch
    net = tiny_net()
    plain, mixing = trainer_of(net), trainer_of(net, augment={"mixup": 1.0})
    assert len(mixing.variables) - len(plain.variables) == 1
    before = mixing.get_layer("mix").generator.state.numpy().copy()
    mixing.train_on_batch(x, labels)
    assert not np.array_equal(mixing.get_layer("mix").generator.state.numpy(), before)


def test_a_step_compiles_as_a_whole(batch):
    """XLA takes the whole graph: all augmentation, mixing and the loss."""
    x = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    wanted = {"crop_padding": 2, "flip": "both", "translate": 0.1, "zoom": 0.1, "rotate": 9}
    wanted |= {"crop_scale": (0.5, 1), "brightness": 0.1, "contrast": 0.1, "saturation": 0.1}
    wanted |= {"hue": 0.1, "cutout": 4, "erase": 0.5, "rand_augment": 2, "mixup": 1, "cutmix": 1}
    recipe = make_recipe({"model": "lenet5", "augment": wanted})
    image = keras.Input((16, 16, 3))
    logits = keras.layers.Dense(CLASSES)(keras.layers.GlobalAveragePooling2D()(image))
    trainer = training_graph(keras.Model(image, logits), recipe, preset("torch", 16, 16))
    compile_graph(trainer, recipe, steps=1, epochs=1)
    assert all(layer.supports_jit for layer in trainer.layers)
    trainer.jit_compile = True
    assert np.isfinite(trainer.train_on_batch(x, np.arange(4) % CLASSES)[0])


@pytest.mark.parametrize("precision", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_mixed_pictures_are_learnt_from(tmp_path, precision):
    generator = np.random.default_rng(0)
    labels = np.arange(90) % CLASSES
    images = generator.integers(0, 60, (90, 32, 32), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[10 * label : 10 * label + 10] += 80
    np.savez(tmp_path / "stripes.npz", images=images, labels=labels)
    dataset = load(tmp_path / "stripes.npz")
    recipe = {
        "model": "lenet5",
        "epochs": 6,
        "optimizer": {"learning_rate": 5e-3},
        "augment": {"mixup": 0.2, "cutmix": 1.0, "mix_chance": 0.5},
        "precision": precision,
    }
    fitted = fit(recipe, dataset, *dataset.folds(3)[0])
    assert fitted.val_accuracy > 0.9
    assert fitted.history[-1]["accuracy"] < 1


def test_a_gradient_below_the_least_float16_number_still_moves_its_weights(batch):
    """Half precision scales the loss: this gradient, of about 1e-8, would else be 0."""
    x, labels = batch

    def moved(precision):
        image = keras.Input((4, 4, 1))
        hidden = keras.layers.Dense(2, kernel_initializer="zeros", dtype=precision)
        head = keras.layers.Dense(CLASSES, dtype="float32")
        net = keras.Model(image, head(hidden(keras.layers.Flatten()(image))))
        head.kernel.assign(1e-7 * np.arange(2 * CLASSES).reshape(2, CLASSES))
        trainer_of(net, precision=precision).train_on_batch(x, labels)
        return hidden.get_weights()[0]

    exact = moved("float32")
    assert 0 < np.abs(exact).max() < 1e-7
    np.testing.assert_allclose(moved("mixed_float16"), exact, rtol=0.02, atol=1e-11)


def test_things_that_are_no_pictures_are_mixed_whole_and_never_by_boxes():
    recipe = make_recipe({"model": "mlp_two_layer", "augment": {"mixup": 0.2, "cutmix": 1.0}})
    left, said = suited(recipe)
    assert (left.augment.mixup, left.augment.cutmix, said) == (0.2, 0.0, ["augment.cutmix"])
    net = create_model("mlp_two_layer", num_classes=2, input_shape=(5,))
    trainer = training_graph(net, left, for_input("vector", (5,), "unit"))
    compile_graph(trainer, left, steps=1, epochs=1)
    x = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    assert np.isfinite(trainer.train_on_batch(x, np.array([0, 1, 0, 1]))[0])


# === Penalties ===


@pytest.mark.parametrize(("l1", "l2"), [(0.0, 0.01), (0.02, 0.0), (0.02, 0.01)])
def test_a_step_with_a_penalty_is_the_formula_on_kernels_alone(batch, l1, l2):
    x, labels = batch
    plain, penalised = tiny_net(), tiny_net()
    kernel, _ = plain.get_weights()
    loss = trainer_of(plain).train_on_batch(x, labels)[0]
    with_penalty = trainer_of(penalised, penalty={"l1": l1, "l2": l2}).train_on_batch(x, labels)[0]
    expected = l1 * np.abs(kernel).sum() + l2 * np.square(kernel).sum()
    assert with_penalty - loss == pytest.approx(expected, rel=1e-4)

    step = 0.1 * (l1 * np.sign(kernel) + 2 * l2 * kernel)
    (kernel, bias), (smaller, same) = plain.get_weights(), penalised.get_weights()
    np.testing.assert_allclose(smaller, kernel - step, atol=1e-6)
    np.testing.assert_allclose(same, bias, atol=1e-6)


def test_under_plain_sgd_a_penalty_is_decoupled_decay_of_twice_its_size(batch):
    x, labels = batch
    penalised, decayed = tiny_net(), tiny_net()
    trainer_of(penalised, penalty={"l2": 0.05}).train_on_batch(x, labels)
    sgd = {"name": "sgd", "momentum": 0, "learning_rate": 0.1, "weight_decay": 0.1}
    trainer_of(decayed, optimizer=sgd).train_on_batch(x, labels)
    for a, b in zip(penalised.get_weights(), decayed.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_frozen_kernels_cost_nothing(batch):
    net = tiny_net()
    trainer = trainer_of(net, penalty={"l2": 1.0})
    net.get_layer("logits").trainable = False
    x, labels = batch
    logits = np.array(net(x / np.float32(255)))
    loss = float(trainer.compute_loss(x, labels, {"logits": logits}))
    assert loss == pytest.approx(cross_entropy(logits, labels), rel=1e-5)
