"""Where half precision is too little for what a layer computes on its way."""

import keras
from keras import ops


def at_least_float32(x):
    """x as float32, or as it is where that is wider."""
    return ops.cast(x, keras.backend.result_type(x.dtype, "float32"))
