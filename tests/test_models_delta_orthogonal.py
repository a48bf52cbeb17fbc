"""A net of a thousand plain layers learns; one of ten thousand keeps its signal."""

import keras
import numpy as np
import pytest

from by_hand import answer, gradient, noise
from striate import layers
from striate.initializers import DeltaOrthogonal
from striate.registry import create_model


def test_a_chain_is_its_layers_one_after_the_other():
    x = noise(2, 4, 5, 3)
    chain = layers.CircularChain2D(6, activation="tanh")
    chain.build(x.shape)
    kernels, biases = 0.3 * noise(6, 3, 3, 3, 3), noise(6, 3, seed=1)
    chain.set_weights([kernels, biases])
    expected = x
    for weights in zip(kernels, biases, strict=True):
        layer = layers.CircularConv2D(3, activation="tanh")
        layer.build(x.shape)
        layer.set_weights(weights)
        expected = answer(layer, expected)
    np.testing.assert_allclose(answer(chain, x), expected, rtol=1e-4, atol=1e-5)


def test_delta_orthogonal_kernels_are_drawn_each_by_itself():
    kernels = np.array(DeltaOrthogonal(2.0, seed=0)((3, 3, 3, 4, 5)))
    assert np.count_nonzero(kernels.reshape(3, 9, 20).any((0, 2))) == 1
    mixing = kernels[:, 1, 1]
    products = mixing @ mixing.swapaxes(1, 2)
    np.testing.assert_allclose(products, np.broadcast_to(4 * np.eye(4), (3, 4, 4)), atol=1e-5)
    assert np.abs(mixing[0] - mixing[1]).max() > 0.1


def test_stacked_or_not_it_is_the_same_net():
    apart = create_model("delta_orthogonal16_mnist", depth=4, channels=3)
    stacked = create_model("delta_orthogonal16_mnist", depth=4, channels=3, stacked=True)
    assert stacked.count_params() == apart.count_params()
    chain = [layer.get_weights() for layer in apart.layers if "block" in layer.name]
    for layer in stacked.layers:
        weights = [np.stack(w) for w in zip(*chain, strict=True)] if "block" in layer.name else None
        layer.set_weights(weights or apart.get_layer(layer.name).get_weights())
    x = noise(2, 28, 28, 1)
    np.testing.assert_allclose(answer(stacked, x), answer(apart, x), rtol=1e-4, atol=1e-5)


def deep_net(depth: int, **options):
    keras.utils.set_random_seed(0)
    options = {"depth": depth, "channels": 4, "stacked": True, **options}
    shape = (8, 8, 1)
    return create_model("delta_orthogonal16_mnist", num_classes=2, input_shape=shape, **options)


def test_through_ten_thousand_layers_a_signal_neither_fades_nor_grows():
    net = deep_net(10_000)
    assert net.count_params() == 10_000 * (9 * 16 + 4) + 40 + 2 * 148 + 10
    before = net.get_layer("stage1_block1_conv").input
    inside = keras.Model(net.input, [before, net.get_layer("stage1_out").output])
    first, last = inside.predict(noise(4, 8, 8, 1), verbose=0)
    # The fixed point of the variance is 1 / depth; the layers bring every signal there.
    assert 0.3 < np.sqrt((last**2).mean() * 10_000) < 3
    assert np.isfinite(first).all()


def slopes(n: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Pictures [n, 8, 8, 1] that brighten upwards or downwards, and which."""
    labels = np.arange(n) % 2
    ramp = np.linspace(-1, 1, 8)[:, None, None] * np.where(labels, 1, -1)[:, None, None, None]
    return (ramp + 0.3 * noise(n, 8, 8, 1)).astype("float32"), labels


@pytest.mark.slow
def test_a_thousand_layers_learn():
    net = deep_net(1000)
    x, labels = slopes()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    variables = [v.value for v in net.trainable_variables]
    place = [v.path for v in net.trainable_variables].index("stage1_block1_conv/kernel")

    def of_kernels(kernels):
        weights = [*variables[:place], kernels, *variables[place + 1 :]]
        return loss(labels, net.stateless_call(weights, [], x)[0])

    start = keras.ops.convert_to_numpy(variables[place])
    norms = np.sqrt((gradient(of_kernels, start)[0] ** 2).sum((1, 2, 3, 4)))
    assert norms.min() > 0
    assert norms.max() / norms.min() < 3

    net.compile(keras.optimizers.Adam(1e-5), loss)
    losses = net.fit(x, labels, batch_size=16, epochs=12, shuffle=False, verbose=0).history["loss"]
    assert (np.diff(losses) < 0).all()
    assert losses[-1] < losses[0] - 0.02
