"""First values of weights that Keras does not offer; imported by the nets that begin so."""

import random

import keras
import numpy as np
from keras import ops

from striate.errors import UsageError, check_whole


@keras.saving.register_keras_serializable("striate")
class DeltaOrthogonal(keras.initializers.Initializer):
    """A convolution that begins as an orthogonal mixing of the channels of each pixel.

    All of the kernel [h, w, c_in, c_out] is zero but its centre, gain times a random matrix with
    orthonormal rows: the signal keeps its length through any number of such layers. c_out must be
    at least c_in. Axes before those are further kernels, each drawn by itself.
    Source: Xiao et al., arXiv:1806.05393, algorithm 2.
    """

    def __init__(self, gain: float = 1.0, seed=None):
        self.gain = gain
        self.seed = random.randint(1, 10**9) if seed is None else seed
        check_whole("seed", self.seed)

    def __call__(self, shape, dtype=None):
        if len(shape) < 4:
            raise UsageError(f"expected a kernel [..., h, w, c_in, c_out], got one of {shape}")
        *stack, height, width, inputs, outputs = shape
        if inputs > outputs:
            raise UsageError(f"expected at least as many outputs as inputs, got {shape}")
        dice = np.random.default_rng(self.seed)
        columns, triangle = np.linalg.qr(dice.standard_normal((*stack, outputs, inputs)))
        # With the triangle's signs every direction is as likely as any other.
        signs = np.sign(np.diagonal(triangle, axis1=-2, axis2=-1))
        mixing = np.swapaxes(columns * signs[..., None, :], -1, -2)
        kernel = np.zeros(shape, "float32")
        kernel[..., (height - 1) // 2, (width - 1) // 2, :, :] = self.gain * mixing
        return ops.convert_to_tensor(kernel, dtype or keras.config.floatx())

    def get_config(self):
        return {"gain": self.gain, "seed": self.seed}


@keras.saving.register_keras_serializable("striate")
class Bilinear(keras.initializers.Initializer):
    """A transposed convolution [k, k, c_out, c_in] that begins as bilinear upsampling by k / 2.

    Map i goes to map i only. Source: Long, Shelhamer, Darrell, arXiv:1411.4038, section 3.3.
    """

    def __call__(self, shape, dtype=None):
        if len(shape) != 4 or shape[0] != shape[1]:
            raise UsageError(f"expected a square kernel [k, k, c_out, c_in], got one of {shape}")
        side, _, outputs, inputs = shape
        factor = (side + 1) // 2
        centre = factor - 1 if side % 2 else factor - 0.5
        ramp = 1 - np.abs(np.arange(side) - centre) / factor
        kernel = np.outer(ramp, ramp)[:, :, None, None] * np.eye(outputs, inputs)
        return ops.convert_to_tensor(kernel, dtype or keras.config.floatx())

    def get_config(self):
        return {}


@keras.saving.register_keras_serializable("striate")
class Given(keras.initializers.Initializer):
    """Values that are known beforehand, such as filters learnt from pictures."""

    def __init__(self, values):
        self.values = np.asarray(values, "float32")

    def __call__(self, shape, dtype=None):
        if tuple(shape) != self.values.shape:
            raise UsageError(f"expected a weight of shape {self.values.shape}, got {tuple(shape)}")
        return ops.convert_to_tensor(self.values, dtype or keras.config.floatx())

    def get_config(self):
        return {"values": self.values.tolist()}


def kmeans_filters(
    pictures: np.ndarray,
    filters: int,
    kernel: int,
    *,
    windows: int = 10_000,
    rounds: int = 10,
    whiten: bool = True,
    seed: int = 0,
) -> np.ndarray:
    """Filters learnt from pictures without their labels, by convolutional k-means.

    pictures: [N, h, w, c], at least twice the kernel high and wide. Gives float32 [kernel, kernel,
    c, filters], each of length 1: `Given(kmeans_filters(...))` begins a convolution with them.

    Each round moves every filter over windows of twice its side, and adds to it, of the windows
    where it answers loudest of all filters, the patch under its loudest place, times the answer.
    Since a window can be met by one filter wherever the feature lies in it, the filters do not
    become shifted copies of one another, as those of k-means on patches do. One that no window
    chose starts again.

    windows: so many, drawn at random, each brought to mean 0 and deviation 1. whiten: take out what
    neighbouring pixels have in common (ZCA), without which most filters become blurs.

    Source: Dundar, Jin, Culurciello, arXiv:1511.06241, section 2.
    """
    for name, number in {"filters": filters, "kernel": kernel, "windows": windows}.items():
        check_whole(name, number, 1)
    check_whole("rounds", rounds)
    check_whole("seed", seed)
    dice = np.random.default_rng(seed)
    drawn = _windows(np.asarray(pictures), 2 * kernel, windows, dice)
    if whiten:
        drawn = _whitened(drawn)
    dictionary = _strongest(drawn[dice.integers(0, windows, filters)])
    parts = np.array_split(drawn, -(-windows // 500))
    for _ in range(rounds):
        found = sum(_loudest(part, dictionary) for part in parts)
        dictionary = _of_length_1(dictionary + found)
        idle = np.flatnonzero(~found.any(0))
        dictionary[:, idle] = _strongest(drawn[dice.integers(0, windows, len(idle))])
    return dictionary.reshape(kernel, kernel, -1, filters).astype("float32")


def _windows(pictures: np.ndarray, side: int, count: int, dice) -> np.ndarray:
    """[count, side, side, c] at random places of random pictures, of mean 0 and deviation 1."""
    if pictures.ndim != 4 or not pictures.size or pictures.dtype.kind not in "biuf":
        raise UsageError(
            f"expected pictures [N, h, w, c], got {pictures.dtype} {list(pictures.shape)}"
        )
    n, height, width, _ = pictures.shape
    if min(height, width) < side:
        raise UsageError(
            f"expected pictures of at least {side} x {side} pixels, twice the kernel, "
            f"got {height} x {width}"
        )
    tops = dice.integers(0, height - side + 1, count)
    lefts = dice.integers(0, width - side + 1, count)
    places = zip(dice.integers(0, n, count), tops, lefts, strict=True)
    drawn = np.stack([pictures[i, a : a + side, b : b + side] for i, a, b in places])
    drawn = drawn.astype("float32")
    mean, deviation = drawn.mean((1, 2, 3), keepdims=True), drawn.std((1, 2, 3), keepdims=True)
    return (drawn - mean) / np.maximum(deviation + 0.1 * deviation.mean(), 1e-8)


def _whitened(drawn: np.ndarray) -> np.ndarray:
    """The windows with an even spectrum, turned back to look like windows (ZCA)."""
    flat = drawn.reshape(len(drawn), -1)
    flat = flat - flat.mean(0)
    variances, axes = np.linalg.eigh(flat.T @ flat / len(flat))
    scale = 1 / np.sqrt(np.maximum(variances, 0) + max(0.1 * variances.mean(), 1e-8))
    return (flat @ (axes * scale) @ axes.T).reshape(drawn.shape)


def _patches(drawn: np.ndarray) -> np.ndarray:
    """Every patch of half the side of the windows: [N, places, side * side * c]."""
    side, channels = drawn.shape[1] // 2, drawn.shape[-1]
    patches = np.lib.stride_tricks.sliding_window_view(drawn, (side, side), axis=(1, 2))
    shape = (len(drawn), (side + 1) ** 2, side * side * channels)
    return np.moveaxis(patches, 3, -1).reshape(shape)


def _strongest(drawn: np.ndarray) -> np.ndarray:
    """The patch of each window that holds most, as a filter: [side * side * c, N]."""
    patches = _patches(drawn)
    place = (patches**2).sum(-1).argmax(1)
    return _of_length_1(patches[np.arange(len(drawn)), place].T)


def _loudest(drawn: np.ndarray, dictionary: np.ndarray) -> np.ndarray:
    """The patches of these windows where a filter answers loudest, times the answer, each added up
    for its filter: [side * side * c, filters]."""
    patches = _patches(drawn)
    answers = (patches @ dictionary).reshape(len(drawn), -1)
    best = answers.argmax(1)
    place, winner = np.divmod(best, dictionary.shape[1])
    every = np.arange(len(drawn))
    shares = np.zeros((len(drawn), dictionary.shape[1]), "float32")
    shares[every, winner] = answers[every, best]
    return patches[every, place].T @ shares


def _of_length_1(columns: np.ndarray) -> np.ndarray:
    return columns / np.maximum(np.linalg.norm(columns, axis=0), 1e-8)
