"""What comparisons with other implementations share, whatever those are written in."""

import contextlib

import keras
import numpy as np


def pictures(shape: tuple[int, ...], n: int) -> np.ndarray:
    return np.random.default_rng(n).standard_normal((n, *shape))


@contextlib.contextmanager
def float64():
    """Inside, Keras computes in float64, where rounding cannot hide or feign a difference."""
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        yield
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_dtype_policy(before[1])
