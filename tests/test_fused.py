"""Batch normalisation in one operation: Keras' numbers, sooner."""

import keras
import numpy as np
import pytest
from keras import ops

from striate.registry import create_model
from striate.train.fused import FusedBatchNormalization, fused

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="an operation of TensorFlow's"
)


def layer_of(shape, **options):
    """A batch normalisation whose numbers are all different."""
    layer = keras.layers.BatchNormalization(**options)
    layer.build((None, *shape[1:]))
    dice = np.random.default_rng(1)
    layer.set_weights([dice.uniform(0.5, 2, w.shape) for w in layer.weights])
    return layer


def learnt(layer, original, x):
    """The answer, the gradients of input and parameters, and the statistics that are kept."""
    import tensorflow as tf

    x = tf.convert_to_tensor(x)
    weight = tf.cast(tf.random.stateless_normal(x.shape, (2, 3)), x.dtype)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
        loss = ops.sum(ops.cast(y * weight, "float32"))
    gradients = tape.gradient(loss, [x, *(v.value for v in original.trainable_variables)])
    return [np.asarray(ops.cast(t, "float32")) for t in (y, *gradients, *original.weights)]


@pytest.mark.parametrize("shape", [(8, 5, 7, 3), (1, 2, 1, 24), (3, 1, 1, 2)])
@pytest.mark.parametrize(
    "options",
    [{}, {"epsilon": 1e-5, "momentum": 0.9}, {"scale": False}, {"center": False}],
    ids=str,
)
def test_it_answers_learns_and_remembers_as_keras_does(shape, options):
    x = np.random.default_rng(0).normal(3, 2, shape).astype("float32")
    plain, behind = layer_of(shape, **options), layer_of(shape, **options)
    expected = learnt(plain, plain, x)
    found = learnt(FusedBatchNormalization(behind), behind, x)
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_in_bfloat16_the_statistics_are_in_float32():
    shape = (16, 6, 6, 5)
    x = np.random.default_rng(0).normal(3, 2, shape)
    layers = [layer_of(shape, dtype="mixed_bfloat16") for _ in range(2)]
    x = ops.cast(x, "bfloat16")
    expected = learnt(layers[0], layers[0], x)
    found = learnt(FusedBatchNormalization(layers[1]), layers[1], x)
    *_, mean, variance = found
    np.testing.assert_allclose(found[0], expected[0], rtol=2**-7)  # a bit of bfloat16
    np.testing.assert_allclose(mean, expected[-2], rtol=1e-5)
    np.testing.assert_allclose(variance, expected[-1], rtol=1e-5)


def test_a_frozen_layer_keeps_its_statistics_to_the_last_bit_and_answers_with_them():
    plain, behind = layer_of((4, 3, 3, 6)), layer_of((4, 3, 3, 6))
    plain.trainable = behind.trainable = False
    x = np.random.default_rng(0).normal(size=(4, 3, 3, 6)).astype("float32")
    expected = learnt(plain, plain, x)
    found = learnt(FusedBatchNormalization(behind), behind, x)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    assert all(map(np.array_equal, behind.get_weights(), layer_of((4, 3, 3, 6)).get_weights()))


def test_the_graph_has_the_very_weights_of_the_net_in_their_order():
    net = create_model("densenet40_12_cifar", num_classes=3, input_shape=(32, 32, 3))
    graph = fused(net)
    assert [id(v) for v in graph.variables] == [id(v) for v in net.variables]
    assert [id(v) for v in graph.trainable_variables] == [id(v) for v in net.trainable_variables]
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    np.testing.assert_allclose(graph(x), net(x), rtol=1e-4, atol=1e-5)


def test_every_batch_normalisation_of_pictures_is_replaced():
    net = create_model("mobilenet_v2_035", num_classes=3, input_shape=(32, 32, 3))
    kinds = [type(layer).__name__ for layer in fused(net).layers]
    assert kinds.count("FusedBatchNormalization") == 52
    assert "BatchNormalization" not in kinds


def test_a_net_without_batch_normalisation_is_its_own_graph():
    net = create_model("lenet5", num_classes=3)
    assert fused(net) is net


@pytest.mark.parametrize("options", [{"renorm": True}, {"axis": 1}, {"dtype": "mixed_float16"}])
def test_what_the_operation_cannot_do_stays_with_keras(options):
    image = keras.Input((4, 4, 4))
    net = keras.Model(image, keras.layers.BatchNormalization(**options)(image))
    assert "FusedBatchNormalization" not in [type(layer).__name__ for layer in fused(net).layers]
