"""Several devices of one machine: each takes its part of every batch, and all have all weights.

Keras' `DataParallel`, which JAX carries out: one program over all devices, so that the gradient and
the statistics of batch normalisation are those of the whole batch, as on one device.
"""

from striate.errors import UsageError
from striate.lazy import keras


def use(n: int, batch_size: int) -> None:
    """Let what is built from now on train on n devices; 1 undoes it.

    Raises `UsageError` where there are fewer, where batches cannot be shared out evenly, and on
    TensorFlow, where Keras knows one.
    """
    if n == 1:
        if in_use() > 1:
            keras.distribution.set_distribution(None)
        return
    if keras.backend.backend() != "jax":
        raise UsageError(
            f"devices={n} needs JAX: set KERAS_BACKEND=jax (this is {keras.backend.backend()})"
        )
    found = keras.distribution.list_devices()
    if len(found) < n:
        raise UsageError(f"expected {n} devices, found {len(found)}: {', '.join(found)}")
    if batch_size % n:
        raise UsageError(f"expected a batch_size that {n} devices can share, got {batch_size}")
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=found[:n]))


def shared(batch_size: int) -> int:
    """The batch size, raised to one that the devices in use can share evenly."""
    n = in_use()
    return -(-batch_size // n) * n


def in_use() -> int:
    """The devices that share a batch."""
    distribution = keras.distribution.distribution()
    return 1 if distribution is None else distribution.device_mesh.devices.size
