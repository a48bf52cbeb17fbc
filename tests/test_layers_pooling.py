"""The poolings that Keras lacks, and where pooling sends its gradient, against numpy."""

import keras
import numpy as np
import pytest

from by_hand import answer, each_window, gradient, noise, pool
from striate import layers
from striate.errors import UsageError


def again(layer):
    return type(layer).from_config(layer.get_config())


def weights_by_distance(size):
    """1 / (1 + d), d the distance from the middle of the window."""
    middle = (size - 1) / 2
    return np.array(
        [[1 / (1 + np.hypot(k - middle, m - middle)) for m in range(size)] for k in range(size)]
    )


def weighted_mean(window):
    weights = weights_by_distance(window.shape[1])
    return np.einsum("nklc,kl->nc", window, weights) / weights.sum()


FORMULAS = {
    "SumPooling2D": lambda window: window.sum((1, 2)),
    "L2Pooling2D": lambda window: np.sqrt((window**2).sum((1, 2))),
    "DistanceWeightedPooling2D": weighted_mean,
    "SAFPooling2D": lambda window: window.max((1, 2)),
}


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize(("size", "stride"), [(2, 2), (3, 2), (3, 1)])
def test_pooling_is_its_formula_on_every_window(name, size, stride):
    x = noise(2, 7, 6, 3)
    layer = again(getattr(layers, name)(size, stride=stride))
    expected = pool(x, size, stride, FORMULAS[name])
    y = answer(layer, x)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    assert layer.compute_output_shape((None, 7, 6, 3)) == (None, *y.shape[1:])
    assert layer.compute_output_shape((None, None, 6, 3))[1] is None


def test_one_pixel_away_from_the_centre_counts_half():
    x = np.zeros((1, 5, 5, 1), "float32")
    x[0, 2, 2] = 1
    corner = 1 / (1 + 2**0.5)
    expected = np.array([[corner, 0.5, corner], [0.5, 1, 0.5], [corner, 0.5, corner]])
    y = answer(layers.DistanceWeightedPooling2D(3, stride=1), x)[0, :, :, 0]
    np.testing.assert_allclose(y, expected / expected.sum(), rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "constant"), [("DistanceWeightedPooling2D", 3), ("SumPooling2D", None)]
)
def test_padding_does_not_count(name, constant):
    """A mean of threes is three at the border too; a sum has fewer of them there."""
    x = np.full((1, 5, 5, 1), 3, "float32")
    y = answer(getattr(layers, name)(3, stride=1, padding="same"), x)[0, :, :, 0]
    np.testing.assert_allclose(y, constant or 3 * np.outer([2, 3, 3, 3, 2], [2, 3, 3, 3, 2]))


def test_l2_pooling_of_nothing_has_no_gradient_and_no_nan():
    x = np.zeros((1, 2, 4, 1), "float32")
    x[0, 0, 2] = 3
    layer = layers.L2Pooling2D(2)
    np.testing.assert_allclose(answer(layer, x).ravel(), [0, 3])
    found = gradient(layer, x)[0]
    np.testing.assert_allclose(found[0, 0, :, 0], [0, 0, 1, 0])


# === Where the gradient goes ===


def test_max_pooling_sends_its_gradient_where_the_maximum_was():
    x, weights = noise(2, 6, 6, 3), noise(2, 3, 3, 3, seed=1)
    found = gradient(lambda x: keras.ops.max_pool(x, 2, strides=2) * weights, x)[0]
    expected = np.zeros_like(x)
    for i, j, rows, columns in each_window(6, 6, 2, 2):
        window = x[:, rows, columns]
        switches = window == window.max((1, 2), keepdims=True)
        expected[:, rows, columns] += switches * weights[:, i : i + 1, j : j + 1]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_average_pooling_shares_its_gradient_evenly():
    weights = noise(2, 3, 3, 3)
    found = gradient(
        lambda x: keras.ops.average_pool(x, 2, strides=2) * weights, noise(2, 6, 6, 3)
    )[0]
    np.testing.assert_allclose(found, weights.repeat(2, 1).repeat(2, 2) / 4, rtol=1e-6)


# === SAF pooling ===


def test_saf_pooling_drops_some_of_its_maxima_in_training():
    x = noise(8, 16, 16, 4)
    layer = again(layers.SAFPooling2D(2, 0.3, seed=0))
    expected = answer(layer, x)
    y = answer(layer, x, training=True)
    dropped = y == 0
    assert dropped.mean() == pytest.approx(0.3, abs=0.03)
    np.testing.assert_allclose(y[~dropped], expected[~dropped] / 0.7, rtol=1e-5)


# === Rounding up ===


def ceil_windows(side, size, stride):
    """Where windows begin and end, the last cut by the border."""
    starts = range(0, -(-(side - size) // stride) * stride + 1, stride)
    return [slice(a, min(a + size, side)) for a in starts]


@pytest.mark.parametrize(
    ("name", "of"), [("CeilMaxPooling2D", "max"), ("CeilAveragePooling2D", "mean")]
)
@pytest.mark.parametrize(("size", "stride"), [(2, 2), (3, 2), (3, 3), (3, 1)])
def test_a_window_that_overhangs_counts_for_what_it_holds(name, of, size, stride):
    x = noise(2, 8, 7, 3) - 5  # all but surely negative: zeros in the padding would win
    layer = again(getattr(layers, name)(size, stride))
    rows, columns = (ceil_windows(side, size, stride) for side in (8, 7))
    expected = np.stack(
        [np.stack([getattr(x[:, r, c], of)((1, 2)) for c in columns], 1) for r in rows], 1
    )
    y = answer(layer, x)
    np.testing.assert_allclose(y, expected, rtol=1e-5)
    assert layer.compute_output_shape((None, 8, 7, 3)) == (None, *y.shape[1:])


def test_a_stride_beyond_the_window_has_nothing_to_round_up():
    with pytest.raises(UsageError, match="at most the window's 2"):
        layers.CeilMaxPooling2D(2, 3)


# === Of the whole map ===


def test_second_order_pooling_is_the_mean_of_products_of_channels():
    x = noise(2, 4, 5, 3)
    y = answer(layers.SecondOrderPooling2D(), x)
    places = x.reshape(2, -1, 3)
    for picture, found in zip(places, y, strict=True):
        products = sum(np.outer(p, p) for p in picture) / len(picture)
        expected = [products[i, j] for i in range(3) for j in range(i, 3)]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("kind", "of"), [("max", np.max), ("average", np.mean)])
def test_a_pyramid_gives_a_vector_of_one_length_from_any_size(kind, of):
    layer = again(layers.SpatialPyramidPooling2D((1, 2, 3), kind))
    image = keras.Input((None, None, 2))
    net = keras.Model(image, layer(image))
    assert net.output_shape == (None, 2 * 14)
    for height, width in ((7, 5), (3, 3), (2, 8)):
        x = noise(2, height, width, 2)
        expected = []
        for n in (1, 2, 3):
            for i, j in np.ndindex(n, n):
                rows = slice(i * height // n, -(-(i + 1) * height // n))
                columns = slice(j * width // n, -(-(j + 1) * width // n))
                expected.append(of(x[:, rows, columns], axis=(1, 2)))
        found = net.predict(x, verbose=0)
        np.testing.assert_allclose(found, np.concatenate(expected, -1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_pyramid_of_one_level_is_adaptive_pooling(n):
    x = noise(2, 7, 5, 3)
    layer = layers.SpatialPyramidPooling2D((n,), "average")
    expected = answer(keras.layers.AdaptiveAveragePooling2D(n), x).reshape(2, -1)
    np.testing.assert_allclose(answer(layer, x), expected, rtol=1e-4, atol=1e-6)


def test_a_pyramid_pools_by_maximum_or_average():
    with pytest.raises(UsageError, match="max or average"):
        layers.SpatialPyramidPooling2D(kind="median")
