"""uint8 pixels -> the floats that a net was trained on: the one normalisation of the project."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("striate")
class Normalise(keras.layers.Layer):
    """x -> (x - mean) * scale per channel, after reversing the channels where the net wants BGR.

    Input uint8 (or float on 0 to 255) [N, ..., C] in RGB order, output float32 of the same shape.
    It has no weights, so that a saved net and the graph around it share them one to one.
    """

    def __init__(self, *, order: str, mean, scale, **kwargs):
        # The pixels are bytes: under mixed precision they must not be rounded to half first.
        super().__init__(dtype="float32", autocast=False, **kwargs)
        self.order = order
        self.mean = tuple(mean)
        self.scale = tuple(scale)

    def call(self, x):
        x = ops.cast(x, "float32")
        if self.order == "bgr":
            x = x[..., ::-1]
        mean = ops.convert_to_tensor(self.mean, "float32")
        scale = ops.convert_to_tensor(self.scale, "float32")
        return (x - mean) * scale

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, dtype="float32")

    def get_config(self):
        config = super().get_config()
        config.pop("dtype", None)
        return {**config, "order": self.order, "mean": self.mean, "scale": self.scale}
