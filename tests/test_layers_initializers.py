"""Filters learnt from pictures, and other first values, against what they promise."""

import keras
import numpy as np
import pytest

from by_hand import answer, noise
from striate.errors import UsageError
from striate.initializers import Bilinear, DeltaOrthogonal, Given, kmeans_filters


def strokes() -> np.ndarray:
    """A dark and a bright row, a dark and a bright column, and a diagonal: [3, 3, 3, 1]."""
    across = np.array([[-1, -1, -1], [1, 1, 1], [0, 0, 0]])
    return np.stack([across, across.T, 2 * np.eye(3) - 2 / 3])[..., None]


def scenes(n: int = 600) -> np.ndarray:
    """Pictures [n, 6, 6, 1] of faint noise, each with a stroke somewhere."""
    dice = np.random.default_rng(0)
    pictures = 0.05 * dice.standard_normal((n, 6, 6, 1))
    for picture in pictures:
        a, b = dice.integers(0, 4, 2)
        picture[a : a + 3, b : b + 3] += strokes()[dice.integers(3)]
    return pictures.astype("float32")


def likeness(features: np.ndarray, flat: np.ndarray) -> np.ndarray:
    """For each feature the cosine to the filter most like it, at the best place: [features]."""
    around = np.pad(features[..., 0], ((0, 0), (1, 1), (1, 1)))
    places = np.lib.stride_tricks.sliding_window_view(around, (3, 3), axis=(1, 2))
    cosines = places.reshape(len(features), -1, 9) @ flat
    return cosines.max((1, 2)) / np.linalg.norm(features, axis=(1, 2)).ravel()


def test_k_means_finds_the_features_wherever_they_lie():
    # As any k-means it may stop at a worse answer: some seeds leave one stroke unfound.
    kernel = kmeans_filters(scenes(), 6, 3, windows=600, rounds=20, whiten=False, seed=3)
    assert kernel.shape == (3, 3, 1, 6)
    assert kernel.dtype == np.float32
    flat = kernel.reshape(9, 6)
    np.testing.assert_allclose(np.linalg.norm(flat, axis=0), 1, rtol=1e-5)
    assert (likeness(strokes(), flat) > 0.95).all()


def one_round(windows, dictionary):
    """The paper's step: D += patch * response at the loudest place of each window; |D| = 1."""
    side = windows.shape[1] // 2
    total = dictionary.copy()
    for window in windows:
        best = (-np.inf, None, None)
        for a, b in np.ndindex(side + 1, side + 1):
            patch = window[a : a + side, b : b + side].ravel()
            for f, centre in enumerate(dictionary.T):
                if patch @ centre > best[0]:
                    best = (patch @ centre, f, patch)
        response, f, patch = best
        total[:, f] += patch * response
    return total / np.linalg.norm(total, axis=0)


def test_a_round_adds_the_loudest_patch_of_each_window_to_its_filter():
    from striate.initializers import _loudest, _of_length_1

    windows, dictionary = noise(20, 6, 6, 2), _of_length_1(noise(18, 4, seed=1))
    found = _of_length_1(dictionary + _loudest(windows, dictionary))
    np.testing.assert_allclose(found, one_round(windows, dictionary), rtol=1e-4, atol=1e-5)


def test_the_same_seed_learns_the_same_filters():
    pictures = scenes(50)
    learn = [kmeans_filters(pictures, 4, 3, windows=100, rounds=2, seed=s) for s in (0, 0, 1)]
    np.testing.assert_array_equal(learn[0], learn[1])
    assert np.abs(learn[0] - learn[2]).max() > 0.1


def test_whitened_windows_have_an_even_spectrum():
    """Smooth pictures, whose neighbouring pixels say the same."""
    from striate.initializers import _whitened

    windows = np.cumsum(np.cumsum(noise(2000, 4, 4, 1), axis=1), axis=2)
    spread = [
        np.linalg.eigvalsh(np.cov(w.reshape(2000, -1).T)) for w in (windows, _whitened(windows))
    ]
    assert spread[0].max() / np.median(spread[0]) > 20
    assert spread[1].max() / np.median(spread[1]) < 10


def test_pictures_smaller_than_a_window_are_refused():
    with pytest.raises(UsageError, match="at least 10 x 10 pixels"):
        kmeans_filters(noise(4, 9, 12, 1), 4, 5)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: kmeans_filters(noise(4, 12, 12), 4, 3), r"pictures \[N, h, w, c\], got float32"),
        (lambda: kmeans_filters(noise(0, 12, 12, 1), 4, 3), r"pictures \[N, h, w, c\]"),
        (lambda: kmeans_filters(noise(4, 12, 12, 1), 0, 3), "filters as a whole number"),
        (lambda: kmeans_filters(noise(4, 12, 12, 1), 4, 3, windows=0), "windows as a whole"),
        (lambda: kmeans_filters(noise(4, 12, 12, 1), 4, 3, rounds=-1), "rounds as a whole"),
        (lambda: DeltaOrthogonal()((4, 4)), r"kernel \[..., h, w, c_in, c_out\], got one of"),
        (lambda: DeltaOrthogonal(seed="one"), "seed as a whole number"),
        (lambda: Bilinear()((4, 2, 1, 1)), "expected a square kernel"),
    ],
)
def test_what_nothing_can_begin_with_is_refused_in_a_line(make, said):
    with pytest.raises(UsageError, match=said):
        make()


def test_black_pictures_teach_filters_that_are_numbers():
    filters = kmeans_filters(np.zeros((4, 12, 12, 1)), 4, 3, windows=50, rounds=2)
    assert np.isfinite(filters).all()


def test_a_convolution_begins_with_the_filters_that_it_is_given(tmp_path):
    kernel = noise(3, 3, 2, 4)
    net = keras.Sequential(
        [keras.Input((5, 5, 2)), keras.layers.Conv2D(4, 3, kernel_initializer=Given(kernel))]
    )
    np.testing.assert_array_equal(net.layers[0].kernel, kernel)
    net.save(tmp_path / "net.keras")
    again = keras.saving.load_model(tmp_path / "net.keras")
    x = noise(1, 5, 5, 2)
    np.testing.assert_array_equal(answer(again, x), answer(net, x))
    with pytest.raises(UsageError, match=r"\(3, 3, 2, 4\), got \(3, 3, 3, 4\)"):
        keras.layers.Conv2D(4, 3, kernel_initializer=Given(kernel)).build((1, 5, 5, 3))
