"""uint8 pixels -> the floats that a net was trained on: the one normalisation of the project."""

import keras
import numpy as np
from keras import ops

from striate.errors import UsageError


@keras.saving.register_keras_serializable("striate")
class Normalise(keras.layers.Layer):
    """x -> (x - mean) * scale per channel, then the channels reversed where the net wants BGR.

    Input uint8 (or float on 0 to 255) [N, ..., C] in RGB order, output float32 of the same shape;
    mean and scale are in the net's order. It has no weights, so that a saved net and the graph
    around it share them one to one.
    """

    def __init__(self, *, order: str, mean, scale, **kwargs):
        # The pixels are bytes: under mixed precision they must not be rounded to half first.
        super().__init__(dtype="float32", autocast=False, **kwargs)
        if order not in ("rgb", "bgr"):
            raise UsageError(f"expected order rgb or bgr, got {order!r}")
        self.order = order
        self.mean = tuple(mean)
        self.scale = tuple(scale)
        if len(self.mean) != len(self.scale):
            raise UsageError(
                f"expected a mean and a scale for each channel, got {len(self.mean)} and "
                f"{len(self.scale)}"
            )

    def build(self, input_shape):
        if input_shape[-1] != len(self.mean):
            raise UsageError(f"expected {len(self.mean)} channels, got {input_shape[-1]}")

    def call(self, x):
        """Row by row: no runtime is quick with three numbers along the last axis, which took a
        sixth of SqueezeNet's time in ONNX Runtime, in LiteRT and in TensorFlow."""
        x = ops.cast(x, "float32")
        pixels = (x.shape[-2] or 1) if len(x.shape) > 2 else 1
        step = -1 if self.order == "bgr" else 1
        mean, scale = (
            np.tile(np.asarray(values[::step], "float32"), pixels)
            for values in (self.mean, self.scale)
        )
        rows = (ops.reshape(x, (-1, len(mean))) - mean) * scale
        x = ops.reshape(rows, (-1, *ops.shape(x)[1:]))
        return self.reverse(x) if self.order == "bgr" else x

    def reverse(self, x):
        return ops.flip(x, axis=-1)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, dtype="float32")

    def get_config(self):
        config = super().get_config()
        config.pop("dtype", None)
        return {**config, "order": self.order, "mean": self.mean, "scale": self.scale}
