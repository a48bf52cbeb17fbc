"""Some of the channels of a tensor."""

import keras

from striate.errors import UsageError


@keras.saving.register_keras_serializable("striate")
class SliceChannels(keras.layers.Layer):
    """[..., c] -> [..., stop - start]: channels `start` to before `stop`, for paths that part."""

    def __init__(self, start: int, stop: int, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= start < stop:
            raise UsageError(f"expected 0 <= start < stop, got {start!r} and {stop!r}")
        self.start = start
        self.stop = stop

    def build(self, input_shape):
        if input_shape[-1] < self.stop:
            raise UsageError(f"expected at least {self.stop} channels, got {input_shape[-1]}")

    def call(self, x):
        return x[..., self.start : self.stop]

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.stop - self.start)

    def get_config(self):
        return {**super().get_config(), "start": self.start, "stop": self.stop}
