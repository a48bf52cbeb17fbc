"""How the channels of a map vary together, as one vector."""

import keras
import numpy as np
from keras import ops

from striate.layers.precision import at_least_float32


@keras.saving.register_keras_serializable("striate")
class SecondOrderPooling2D(keras.layers.Layer):
    """[N, h, w, c] -> [N, c (c + 1) / 2]: the mean of x_i x_j over the map, for i <= j.

    Source: Carreira, Caseiro, Batista, Sminchisescu, "Semantic Segmentation with Second-Order
    Pooling", ECCV 2012, section 2 (average pooling, before its logarithm).
    """

    def call(self, x):
        channels = x.shape[-1]
        pictures, height, width = ops.shape(x)[:3]
        # The sum over a map is soon more than a float16 holds; their mean is not.
        exact = at_least_float32(x)
        places = ops.reshape(exact, (pictures, height * width, channels))
        products = ops.matmul(ops.swapaxes(places, 1, 2), places)
        products = products / ops.cast(height * width, products.dtype)
        rows, columns = np.triu_indices(channels)
        flat = ops.reshape(products, (pictures, channels**2))
        return ops.cast(ops.take(flat, rows * channels + columns, axis=1), x.dtype)

    def compute_output_shape(self, input_shape):
        channels = input_shape[-1]
        return (input_shape[0], channels * (channels + 1) // 2)
