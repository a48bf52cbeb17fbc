"""Layers in plain numpy, loop by loop from their formulas, and gradients to hold against them."""

import keras
import numpy as np


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def answer(layer, *inputs, **options) -> np.ndarray:
    return keras.ops.convert_to_numpy(layer(*inputs, **options))


def gradient(function, *inputs: np.ndarray) -> list[np.ndarray]:
    """Of the sum of a function's output, for each of its inputs, by the backend."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        variables = [tf.Variable(x) for x in inputs]
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(function(*variables))
        return [tf.convert_to_tensor(g).numpy() for g in tape.gradient(total, variables)]
    import jax

    found = jax.grad(lambda *x: function(*x).sum(), argnums=range(len(inputs)))(*inputs)
    return [np.asarray(g) for g in found]


def slope(function, x: np.ndarray, step: float = 1e-3) -> np.ndarray:
    """The gradient of the sum of a function's output, by central differences."""
    found = np.empty_like(x)
    for place in np.ndindex(*x.shape):
        moved = [x.copy(), x.copy()]
        moved[0][place] += step
        moved[1][place] -= step
        above, below = (np.asarray(function(m), "float64").sum() for m in moved)
        found[place] = (above - below) / (2 * step)
    return found


def each_window(height: int, width: int, size: int, stride: int):
    """(i, j, rows, columns) of every window that fits, slices into the map."""
    for i in range((height - size) // stride + 1):
        for j in range((width - size) // stride + 1):
            top, left = i * stride, j * stride
            yield i, j, slice(top, top + size), slice(left, left + size)


def convolve(x: np.ndarray, kernel: np.ndarray, stride: int = 1) -> np.ndarray:
    """y(i, j, f) = sum over k, l, c of kernel(k, l, c, f) x(i s + k, j s + l, c); no padding."""
    n, height, width, _ = x.shape
    size, _, _, filters = kernel.shape
    sides = [(side - size) // stride + 1 for side in (height, width)]
    y = np.zeros((n, *sides, filters))
    for i, j, rows, columns in each_window(height, width, size, stride):
        y[:, i, j] = np.einsum("nklc,klcf->nf", x[:, rows, columns], kernel)
    return y


def pool(x: np.ndarray, size: int, stride: int, of_window) -> np.ndarray:
    """of_window([N, size, size, c]) -> [N, c] at every window that fits."""
    n, height, width, channels = x.shape
    y = np.zeros((n, (height - size) // stride + 1, (width - size) // stride + 1, channels))
    for i, j, rows, columns in each_window(height, width, size, stride):
        y[:, i, j] = of_window(x[:, rows, columns])
    return y


def unsettle(model, seed: int = 0) -> None:
    """Move what begins at 0 or 1, biases, scales and moving statistics: there, losing it is no
    loss."""
    dice = np.random.default_rng(seed)
    for weight in model.weights:
        if len(weight.shape) == 1 and weight.dtype == "float32":
            weight.assign(weight + dice.uniform(0.05, 0.2, weight.shape))
