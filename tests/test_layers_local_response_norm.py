"""Local response normalisation against its formula, written out."""

import keras
import numpy as np
import pytest

from striate.errors import UsageError
from striate.layers import LocalResponseNormalization


def by_the_formula(a, size, alpha, beta, k):
    """Section 3.3 of the paper, one channel after the other."""
    channels = a.shape[-1]
    b = np.empty_like(a)
    for i in range(channels):
        first, last = max(0, i - size // 2), min(channels - 1, i + size // 2)
        squares = sum(a[..., j] ** 2 for j in range(first, last + 1))
        b[..., i] = a[..., i] / (k + alpha * squares) ** beta
    return b


# Fewer channels than the window reaches too: every window is cut.
@pytest.mark.parametrize(("size", "channels"), [(5, 11), (3, 4), (5, 2), (1, 3)])
@pytest.mark.parametrize("average", [False, True])
def test_local_response_normalisation_is_its_formula(size, channels, average):
    a = np.random.default_rng(0).normal(scale=3, size=(2, 3, 3, channels))
    layer = LocalResponseNormalization(size, alpha=0.1, beta=0.6, k=1.5, average=average)
    found = keras.ops.convert_to_numpy(layer(a.astype("float32")))
    alpha = 0.1 / size if average else 0.1
    np.testing.assert_allclose(found, by_the_formula(a, size, alpha, 0.6, 1.5), rtol=1e-5)


def test_half_precision_takes_squares_that_it_cannot_hold():
    a = np.random.default_rng(0).normal(scale=500, size=(2, 3, 3, 6)).astype("float32")
    half = LocalResponseNormalization(dtype="float16")(a)
    assert half.dtype == "float16"
    expected = by_the_formula(a.astype(np.float64), 5, 1e-4, 0.75, 2.0)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(half), expected, rtol=2e-3)


def test_the_defaults_are_the_paper_s():
    layer = LocalResponseNormalization()
    assert (layer.size, layer.alpha, layer.beta, layer.k) == (5, 1e-4, 0.75, 2.0)
    assert not layer.average


def test_it_survives_its_config():
    layer = LocalResponseNormalization(3, 0.1, 0.6, 1.5, average=True)
    again = LocalResponseNormalization.from_config(layer.get_config())
    x = np.random.default_rng(0).normal(size=(2, 3, 3, 4)).astype("float32")
    np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(f(x)) for f in (layer, again)))


def test_an_even_window_is_refused():
    with pytest.raises(UsageError, match="odd"):
        LocalResponseNormalization(4)
