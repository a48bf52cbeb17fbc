"""Normalised pixels without their mean picture, and decorrelated where a matrix says how."""

import keras
import numpy as np
from keras import ops

from striate.layers.normalise import Normalise


@keras.saving.register_keras_serializable("striate")
class Whiten(Normalise):
    """(y - centre) matrix, of y = (x - mean) * scale with all the numbers of a picture in a row.

    Input uint8 [N, ..., H, W, C], output float32 of the same shape. centre: [H, W, C]; matrix:
    [D, D] of the D = H W C numbers, or None for the centring alone. See
    `striate.preprocess.whitening`. Like `Normalise` it has no weights; the two arrays are constants
    of the graph.
    """

    def __init__(self, *, centre, matrix=None, **kwargs):
        super().__init__(**kwargs)
        self.centre = np.asarray(centre, np.float32)
        self.matrix = None if matrix is None else np.asarray(matrix, np.float32)

    def call(self, x):
        x = super().call(x) - self.centre
        if self.matrix is None:
            return x
        rows = ops.reshape(x, (-1, len(self.matrix)))
        return ops.reshape(ops.matmul(rows, self.matrix), (-1, *x.shape[1:]))

    def get_config(self):
        matrix = None if self.matrix is None else self.matrix.tolist()
        return {**super().get_config(), "centre": self.centre.tolist(), "matrix": matrix}
