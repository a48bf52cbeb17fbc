"""Batch normalisation in one operation of TensorFlow, where no XLA makes one of Keras' many.

Keras composes it of operations each of which reads or writes all of its input, a dozen with their
gradients. On a CPU, where XLA is slow at convolutions, they take a fifth to two fifths of a
training step, and the one operation a small part of that. The net itself is as before: only the
graphs around it compute otherwise.
"""

from typing import Any

import keras
from keras import ops

PRECISIONS = ("float32", "bfloat16")  # that the operation is fast in


def fused(net: keras.Model) -> keras.Model:
    """A graph with the layers and weights of a net, in which TensorFlow is faster without XLA."""
    instead = {
        layer: FusedBatchNormalization(layer) for layer in net.layers if _can_be_fused(layer)
    }
    if not instead:
        return net

    def call(layer, *args, **kwargs):
        return instead.get(layer, layer)(*args, **kwargs)

    return keras.models.clone_model(net, clone_function=lambda layer: layer, call_function=call)


def _can_be_fused(layer: Any) -> bool:
    return (
        type(layer) is keras.layers.BatchNormalization
        and layer.input_spec.ndim == 4
        and list(layer._reduction_axes) == [0, 1, 2]
        and layer.compute_dtype in PRECISIONS
        and not (layer.renorm or layer.synchronized)
    )


class FusedBatchNormalization(keras.layers.Wrapper):
    """A batch normalisation, [N, H, W, C] -> the same, computed by one operation of TensorFlow.

    The numbers are Keras', but for rounding: statistics in float32, the variance that is kept
    without Bessel's correction.
    """

    def __init__(self, layer):
        super().__init__(layer, name=f"{layer.name}_fused", dtype=layer.dtype_policy)

    def call(self, x, training=False, mask=None):
        from tensorflow import raw_ops

        layer = self.layer
        learns = bool(training and layer.trainable)
        y, mean, variance, *_ = raw_ops.FusedBatchNormV3(
            x=x,
            scale=layer.gamma if layer.scale else ops.ones(x.shape[-1:]),
            offset=layer.beta if layer.center else ops.zeros(x.shape[-1:]),
            mean=[] if learns else layer.moving_mean,
            variance=[] if learns else layer.moving_variance,
            epsilon=layer.epsilon,
            is_training=learns,
        )
        if learns:
            count = ops.cast(ops.size(x), "float32") / x.shape[-1]  # numbers of each channel
            self._keep(layer.moving_mean, mean)
            self._keep(layer.moving_variance, variance * (count - 1) / count)
        return y

    def _keep(self, kept, now):
        momentum = self.layer.momentum
        kept.assign(kept * momentum + now * (1 - momentum))
