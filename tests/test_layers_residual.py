"""Layers that leave out, mix or stand in for residuals, against their formulas in numpy."""

import keras
import numpy as np
import pytest

from by_hand import gradient, noise
from striate.errors import UsageError
from striate.layers import DiracConv2D, DrawColumn, FractalJoin, ShakeShake, StochasticDepth
from striate.layers.dirac_conv import dirac_delta


def numpy(x) -> np.ndarray:
    return keras.ops.convert_to_numpy(x)


# === Stochastic depth ===


@pytest.mark.parametrize("per_picture", [False, True])
def test_stochastic_depth_takes_a_residual_whole_or_not_at_all(per_picture):
    layer = StochasticDepth(0.7, per_picture=per_picture, seed=0)
    x = noise(8, 3, 3, 2)
    taken = []
    for _ in range(200):
        found = numpy(layer(x, training=True))
        whole = [np.array_equal(y, a) for y, a in zip(found, x, strict=True)]
        nothing = [not y.any() for y in found]
        assert all(w != n for w, n in zip(whole, nothing, strict=True))
        assert per_picture or len(set(whole)) == 1
        taken.append(np.mean(whole))
    assert np.mean(taken) == pytest.approx(0.7, abs=0.1)


def test_stochastic_depth_expects_at_inference():
    x = noise(2, 3, 3, 2)
    np.testing.assert_allclose(numpy(StochasticDepth(0.7)(x, training=False)), 0.7 * x, rtol=1e-6)


def test_later_blocks_of_a_net_survive_less_often():
    from striate.registry import create_model

    net = create_model("stochastic_depth110_cifar", depths=(2, 2, 2))
    found = [layer.survival for layer in net.layers if isinstance(layer, StochasticDepth)]
    np.testing.assert_allclose(found, [1 - 0.5 * block / 6 for block in range(1, 7)])


# === Shake-shake ===


def test_shake_shake_mixes_forwards_and_backwards_by_different_draws():
    a, b = noise(6, 2, 2, 3), noise(6, 2, 2, 3, seed=1)
    layer = ShakeShake(seed=0)
    seen = []

    def mixed(a, b):
        seen.append(layer([a, b], training=True))
        return seen[-1]

    to_a, to_b = gradient(mixed, a, b)
    y = numpy(seen[-1]) if keras.backend.backend() == "tensorflow" else None
    beta = to_a[:, :1, :1, :1]
    np.testing.assert_allclose(to_a, np.broadcast_to(beta, a.shape), rtol=1e-5)
    np.testing.assert_allclose(to_b, 1 - to_a, atol=1e-6)
    assert ((beta > 0) & (beta < 1)).all()
    assert len(np.unique(beta)) == 6
    if y is not None:
        alpha = ((y - b) / (a - b)).reshape(6, -1)
        np.testing.assert_allclose(alpha, np.broadcast_to(alpha[:, :1], alpha.shape), atol=1e-3)
        assert (np.abs(alpha[:, 0] - beta.ravel()) > 1e-3).all()


def test_shake_shake_is_the_mean_at_inference():
    a, b = noise(2, 2, 2, 3), noise(2, 2, 2, 3, seed=1)
    np.testing.assert_allclose(numpy(ShakeShake()([a, b])), (a + b) / 2, rtol=1e-5, atol=1e-6)


def test_shake_shake_can_keep_the_forward_draw_or_take_even_shares():
    a, b = noise(3, 2, 2, 3), noise(3, 2, 2, 3, seed=1)
    even = ShakeShake("even", "even")
    np.testing.assert_allclose(
        numpy(even([a, b], training=True)), (a + b) / 2, rtol=1e-5, atol=1e-6
    )
    to_a, to_b = gradient(lambda a, b: even([a, b], training=True), a, b)
    np.testing.assert_allclose(to_a, 0.5)
    np.testing.assert_allclose(to_b, 0.5)
    with pytest.raises(UsageError, match="shake, even or keep"):
        ShakeShake(backward="never")


# === Dirac ===


@pytest.mark.parametrize(("inputs", "filters"), [(4, 4), (3, 6), (6, 3), (4, 6)])
def test_the_delta_is_the_identity_repeated(inputs, filters):
    x = noise(2, 5, 5, inputs)
    y = numpy(keras.ops.conv(x, dirac_delta(3, inputs, filters), padding="same"))
    expected = np.zeros((2, 5, 5, filters), "float32")
    fewer = min(inputs, filters)
    for i in range(max(inputs, filters) // fewer * fewer):
        expected[..., i % filters] += x[..., i % inputs]
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


def test_dirac_convolution_is_its_formula_and_folds_into_a_plain_one():
    layer = DiracConv2D(6, 3, padding="same", use_bias=False)
    x = noise(2, 5, 5, 3)
    layer.build(x.shape)
    layer.alpha.assign(noise(6, seed=1))
    layer.beta.assign(noise(6, seed=2))
    w = numpy(layer.kernel)
    normalised = np.stack([w[..., i] / np.linalg.norm(w[..., i]) for i in range(6)], axis=-1)
    kernel = numpy(layer.alpha) * dirac_delta(3, 3, 6) + numpy(layer.beta) * normalised
    np.testing.assert_allclose(numpy(layer.folded_kernel()), kernel, rtol=1e-5, atol=1e-6)
    plain = keras.layers.Conv2D(6, 3, padding="same", use_bias=False)
    plain.build(x.shape)
    plain.kernel.assign(kernel)
    np.testing.assert_allclose(numpy(layer(x)), numpy(plain(x)), rtol=1e-4, atol=1e-5)


def test_a_folded_dirac_net_answers_as_it_did():
    from striate.models.diracnet import fold
    from striate.registry import create_model

    net = create_model("diracnet34_2_cifar", input_shape=(8, 8, 3), width=4)
    rng = np.random.default_rng(0)
    for (
        variable
    ) in net.variables:  # statistics, alpha and beta too: their first values prove little
        values = rng.uniform(0.5, 1.5, variable.shape) if variable.ndim == 1 else numpy(variable)
        variable.assign(values)
    plain = fold(net, width=4)
    assert not any(isinstance(layer, DiracConv2D) for layer in plain.layers)
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in plain.layers)
    x = noise(2, 8, 8, 3)
    expected = numpy(net(x))
    error = np.abs(numpy(plain(x)) - expected).max() / np.abs(expected).max()
    assert error < 1e-4


# === Drop-path ===


def test_a_join_drops_columns_but_never_all_and_averages_the_rest():
    a, b = noise(400, 1, 1, 1), noise(400, 1, 1, 1, seed=1)
    none = np.full(400, -1, "int32")
    y = numpy(FractalJoin(0.4, seed=0)([a, b, none], training=True))
    kinds = np.stack([np.isclose(y, x).ravel() for x in (a, b, (a + b) / 2)])
    assert (kinds.sum(0) == 1).all()
    # Both stay with 0.36; one falls otherwise, the two alike.
    np.testing.assert_allclose(kinds.mean(1), [0.32, 0.32, 0.36], atol=0.08)


def test_a_join_keeps_to_the_drawn_column_and_has_zeros_where_it_does_not_reach():
    a, b = noise(3, 1, 1, 1), noise(3, 1, 1, 1, seed=1)
    kept = np.array([0, 1, 2], "int32")
    y = numpy(FractalJoin(0.4)([a, b, kept], training=True))
    np.testing.assert_allclose(y, np.stack([a[0], b[1], 0 * a[2]]), rtol=1e-6)
    mean = numpy(FractalJoin(0.4)([a, b, kept], training=False))
    np.testing.assert_allclose(mean, (a + b) / 2, rtol=1e-5, atol=1e-6)


def test_columns_are_drawn_for_a_share_of_the_pictures():
    x = noise(900, 1)
    drawn = numpy(DrawColumn(3, share=0.5, seed=0)(x, training=True))
    shares = [np.mean(drawn == column) for column in (-1, 0, 1, 2)]
    np.testing.assert_allclose(shares, [1 / 2, 1 / 6, 1 / 6, 1 / 6], atol=0.06)
    assert (numpy(DrawColumn(3)(x, training=False)) == -1).all()


@pytest.mark.parametrize(
    "layer",
    [
        StochasticDepth(0.7, per_picture=True, seed=3, name="a"),
        ShakeShake("even", "keep", per_picture=False, seed=3, name="a"),
        DiracConv2D(6, 3, padding="same", name="a"),
        DrawColumn(3, 0.2, seed=3, name="a"),
        FractalJoin(0.3, seed=3, name="a"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_it_survives_its_config(layer):
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert type(again) is type(layer)
    assert again.get_config() == layer.get_config()


def test_dirac_convolution_ends_in_its_activation():
    plain, rectified = DiracConv2D(4, 3), DiracConv2D(4, 3, activation="relu")
    x = noise(2, 5, 5, 4)
    rectified.build(x.shape)
    plain.build(x.shape)
    rectified.set_weights(plain.get_weights())
    np.testing.assert_array_equal(rectified(x), np.maximum(plain(x), 0))
