"""The mean of what several classifiers believe, as logits again."""

import math
from collections.abc import Sequence

import keras
from keras import ops

from striate.errors import UsageError
from striate.layers.shapes import check_alike


@keras.saving.register_keras_serializable("striate")
class MeanProbability(keras.layers.Layer):
    """y = log(1/k sum over i of softmax(x_i / T_i)), of logits x_1, ..., x_k [N, classes].

    softmax(y) is the mean of the probabilities. In logarithms throughout, where a score that is too
    small for a float still has its place: log softmax(x) = x - logsumexp(x), and the sum is a
    logsumexp too.

    temperatures: T_i, one for each x_i.
    """

    def __init__(self, temperatures: Sequence[float], **kwargs):
        super().__init__(**kwargs)
        self.temperatures = tuple(map(float, temperatures))
        if not all(temperature > 0 for temperature in self.temperatures):
            raise UsageError(f"expected temperatures above 0, got {self.temperatures}")

    def build(self, input_shapes):
        check_alike(input_shapes)
        if len(input_shapes) != len(self.temperatures):
            raise UsageError(
                f"expected logits for each of {len(self.temperatures)} temperatures, "
                f"got {len(input_shapes)}"
            )

    def call(self, xs):
        logs = [
            ops.log_softmax(x / temperature, axis=-1)
            for x, temperature in zip(xs, self.temperatures, strict=True)
        ]
        return ops.logsumexp(ops.stack(logs), axis=0) - math.log(len(logs))

    def compute_output_shape(self, input_shapes):
        return input_shapes[0]

    def get_config(self):
        return {**super().get_config(), "temperatures": self.temperatures}
