"""The gradient of a function of tensors with regard to its input, on every backend that has one."""

from collections.abc import Callable
from typing import Any

from striate.errors import UsageError
from striate.lazy import keras

Tensor = Any


def value_and_gradient(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """(the values of a function at x, the gradient of their sum, shaped as x).

    Within another gradient, wrap what is made of it in `keras.ops.stop_gradient`.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            values = function(x)
        return values, tape.gradient(values, x, unconnected_gradients="zero")
    if keras.backend.backend() == "jax":
        import jax

        values, pull_back = jax.vjp(function, x)
        (gradient,) = pull_back(keras.ops.ones_like(values))
        return values, gradient
    raise UsageError(
        f"expected TensorFlow or JAX for gradients of inputs, got {keras.backend.backend()}"
    )
