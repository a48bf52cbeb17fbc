"""Quantisation-aware training: what is rounded, how, and what gradients see of it."""

import keras
import numpy as np
import pytest
from keras import ops

from making import colourful_noise
from striate.data import load
from striate.errors import UsageError
from striate.registry import create_model
from striate.train import fit, make_recipe
from striate.train.quantise import (
    RoundedActivations,
    RoundedKernel,
    round_activations,
    round_kernel,
    rounded,
    small_classifier,
)

WITH_GRADIENTS = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="differentiates with TensorFlow's tape"
)


def gradient(f, x):
    import tensorflow as tf

    x = tf.constant(x, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(f(x))
    return tape.gradient(y, x).numpy()


def interpreter_of(model, pictures):
    """LiteRT's own int8 form of a Keras model of float inputs, ready to be looked into."""
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([x[None]] for x in pictures)
    found = Interpreter(model_content=converter.convert(), experimental_preserve_all_tensors=True)
    found.allocate_tensors()
    return found


def test_activations_become_one_of_256_levels_of_which_one_is_zero():
    x = np.array([-3.0, -1.0, -0.004, 0.0, 0.006, 0.5, 1.55, 9.0], np.float32)
    found = np.asarray(round_activations(x, -1.0, 1.55))  # steps of 0.01
    np.testing.assert_allclose(found, [-1, -1, 0, 0, 0.01, 0.5, 1.55, 1.55], atol=1e-6)
    assert found[3] == 0


def test_a_range_without_zero_is_widened_to_it():
    np.testing.assert_allclose(
        np.asarray(round_activations(np.float32([0.0, 1.0, 5.1]), 2.0, 5.1)), [0, 1, 5.1], atol=1e-6
    )


def test_each_output_channel_has_its_own_step():
    kernel = np.array([[1.27, 0.0127], [0.004, 0.00004]], np.float32)  # steps 0.01 and 0.0001
    np.testing.assert_allclose(
        np.asarray(round_kernel(kernel, (0,))), [[1.27, 0.0127], [0, 0]], atol=1e-7
    )


@WITH_GRADIENTS
def test_the_gradient_passes_straight_through_within_the_range():
    x = [-3.0, -0.504, 0.0, 0.333, 1.6]
    of_activations = gradient(lambda x: round_activations(x, -1.0, 1.55), x)
    np.testing.assert_array_equal(of_activations, [0, 1, 1, 1, 0])
    np.testing.assert_array_equal(gradient(lambda x: round_kernel(x, (0,)), x), np.ones(5))


@WITH_GRADIENTS
def test_litert_rounds_in_the_same_way():
    generator = np.random.default_rng(0)
    pictures = generator.uniform(-1, 2, (8, 6, 6, 3)).astype(np.float32)
    image = keras.Input((6, 6, 3))
    net = keras.Model(image, keras.layers.Conv2D(4, 3, name="conv")(image))
    litert = interpreter_of(net, pictures)
    kernel = next(
        d for d in litert.get_tensor_details() if d["dtype"] is np.int8 and len(d["shape"]) == 4
        and tuple(d["shape"]) == (4, 3, 3, 3)
    )  # fmt: skip
    whole = litert.get_tensor(kernel["index"]).transpose(1, 2, 3, 0)
    ours = np.asarray(round_kernel(net.get_layer("conv").kernel, (0, 1, 2)))
    np.testing.assert_allclose(
        whole * kernel["quantization_parameters"]["scales"], ours, rtol=1e-6, atol=1e-9
    )

    low, high = pictures.min(), pictures.max()
    litert.set_tensor(litert.get_input_details()[0]["index"], pictures[:1])
    litert.invoke()
    image = next(
        d for d in litert.get_tensor_details() if d["dtype"] is np.int8
        and tuple(d["shape"]) == (1, 6, 6, 3)
    )  # fmt: skip
    (scale,), (zero,) = (image["quantization_parameters"][k] for k in ("scales", "zero_points"))
    levels = litert.get_tensor(image["index"]).astype(np.float32)
    np.testing.assert_allclose(
        (levels - zero) * scale, np.asarray(round_activations(pictures[:1], low, high)), atol=1e-5
    )


def test_a_net_rounds_where_its_int8_form_does():
    x = image = keras.Input((8, 8, 4), name="image")
    x = keras.layers.Conv2D(4, 1, name="expand")(x)
    x = keras.layers.BatchNormalization(name="expand_bn")(x)
    x = keras.layers.ReLU(6.0, name="expand_relu")(x)
    x = keras.layers.DepthwiseConv2D(3, padding="same", name="dw")(x)
    x = keras.layers.BatchNormalization(name="dw_bn")(x)
    x = keras.layers.Add(name="add")([image, x])
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = keras.layers.Dropout(0.1, name="dropout")(x)
    net = keras.Model(image, keras.layers.Dense(3, name="logits")(x))
    for _ in range(2):  # a second graph of the same layers is no other user of theirs
        layers = list(rounded(net)._flatten_layers())
        kernels = [layer.layer.name for layer in layers if isinstance(layer, RoundedKernel)]
        assert sorted(kernels) == ["dw", "expand", "logits"]
        after = {layer.name for layer in layers if isinstance(layer, RoundedActivations)}
        expected = {"image", "expand_relu", "dw_bn", "add", "pool", "logits"}
        assert after == {f"{name}_rounded" for name in expected}


def test_a_small_classifier_is_not_rounded():
    image = keras.Input((40,), name="image")
    hidden = keras.layers.Dense(8, activation="relu", name="hidden")(image)
    net = keras.Model(image, keras.layers.Dense(2, name="logits")(hidden))  # 18 of 346 weights
    assert small_classifier(net) == [net.get_layer("logits")]
    layers = list(rounded(net)._flatten_layers())
    assert [x.layer.name for x in layers if isinstance(x, RoundedKernel)] == ["hidden"]
    after = {layer.name for layer in layers if isinstance(layer, RoundedActivations)}
    assert after == {"image_rounded", "hidden_rounded"}


def test_a_classifier_that_is_most_of_the_net_is_rounded():
    image = keras.Input((40,))
    assert small_classifier(keras.Model(image, keras.layers.Dense(2)(image))) == []


def test_the_rounded_net_is_near_and_learns_the_same_weights():
    keras.utils.set_random_seed(0)
    net = create_model("xnor_vgg_mnist", num_classes=3, input_shape=(8, 8, 3), real=True, width=4)
    graph = rounded(net)
    x = colourful_noise(8, (8, 8, 3), 0).astype("float32") / 255
    graph(x, training=True)  # finds the ranges
    answers, expected = (np.asarray(f(x, training=False)) for f in (graph, net))
    far = np.abs(answers - expected).max() / np.abs(expected).max()
    assert 0 < far < 0.1
    assert {id(v) for v in graph.trainable_variables} == {id(v) for v in net.trainable_variables}
    kinds = {type(layer) for layer in graph._flatten_layers()}
    assert {RoundedActivations, RoundedKernel} <= kinds


def test_ranges_follow_what_training_sees_and_inference_leaves_them():
    layer = RoundedActivations()
    layer(np.float32([[-1.0, 2.0]]), training=True)
    np.testing.assert_allclose([float(layer.low), float(layer.high)], [-1, 2])
    layer(np.float32([[-2.0, 3.0]]), training=True)
    np.testing.assert_allclose([float(layer.low), float(layer.high)], [-1.01, 2.01], rtol=1e-6)
    layer(np.float32([[-9.0, 9.0]]), training=False)
    np.testing.assert_allclose([float(layer.low), float(layer.high)], [-1.01, 2.01], rtol=1e-6)
    assert np.asarray(ops.max(layer(np.float32([[9.0]])))) == pytest.approx(2.01, abs=0.01)


@pytest.mark.long
def test_a_recipe_trains_the_net_with_rounding_and_keeps_it_as_it_was(tmp_path):
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    images = np.kron(digits.images * 15.9, np.ones((2, 2))).astype(np.uint8)
    np.savez(tmp_path / "digits.npz", images=images, labels=digits.target)
    dataset = load(tmp_path / "digits.npz")
    recipe = {
        "model": {"name": "lenet5", "size": 16},
        "optimizer": {"learning_rate": 3e-3},
        "quantise": "int8",
        "epochs": 12,
    }
    fitted = fit(recipe, dataset, dataset.split("train"), dataset.split("val"))
    kinds = {type(layer).__name__ for layer in fitted.model.layers}
    assert not {"RoundedActivations", "RoundedKernel"} & kinds
    assert fitted.val_accuracy > 0.8
    row = fitted.history[-1]  # judged with rounding, as the int8 form will be
    assert row["val_accuracy"] == pytest.approx(fitted.val_accuracy, abs=0.03)
    assert row["val_loss"] != pytest.approx(fitted.val_loss, abs=1e-7)


def test_half_precision_is_too_coarse():
    with pytest.raises(UsageError, match="quantise should be none where precision is not float32"):
        make_recipe({"model": "lenet5", "precision": "mixed_bfloat16", "quantise": "int8"})
