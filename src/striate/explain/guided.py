"""Guided backpropagation: gradients pass a ReLU where both they and its signal are positive.

Springenberg, Dosovitskiy, Brox, Riedmiller, "Striving for Simplicity", 2014, arXiv:1412.6806; with
Grad-CAM, section 3.2 of arXiv:1610.02391. They draw sharp pictures of edges, and largely the same
ones for a net whose weights are random: see `docs/explain.md` before believing them.
"""

import dataclasses

import numpy as np

from striate.explain.grad_cam import grad_cam
from striate.explain.saliency import gradient
from striate.explain.subject import Subject, copy_of
from striate.lazy import keras


def guided_backprop(subject: Subject, pixels: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """max over colours of |guided dS/dx|, float32 [N, H, W]."""
    return np.abs(gradient(guided(subject), pixels, targets)).max(axis=-1)


def guided_grad_cam(
    subject: Subject, pixels: np.ndarray, targets: np.ndarray, *, layer: str | None = None
) -> np.ndarray:
    """Guided backpropagation times Grad-CAM, float32 [N, H, W]."""
    where = grad_cam(subject, pixels, targets, layer=layer)
    return guided_backprop(subject, pixels, targets) * where


def guided(subject: Subject) -> Subject:
    """The same net with the same weights, whose ReLUs guide the gradient."""
    return dataclasses.replace(subject, net=copy_of(subject.net, _guided_layer))


def _guided_layer(layer):
    if isinstance(layer, keras.layers.ReLU) and not layer.negative_slope and not layer.threshold:
        return keras.layers.Activation(_guided_relu(layer.max_value), name=layer.name)
    if not isinstance(layer, keras.layers.Layer) and type(layer).__name__ in ("Relu", "Relu6"):
        ceiling = 6.0 if type(layer).__name__ == "Relu6" else None  # a function of keras.ops
        return keras.layers.Activation(_guided_relu(ceiling), name=layer.name)
    copy = layer.__class__.from_config(layer.get_config())
    activation = getattr(copy, "activation", None)
    if activation in (keras.activations.relu, keras.activations.relu6):
        copy.activation = _guided_relu(6.0 if activation is keras.activations.relu6 else None)
    return copy


def _guided_relu(ceiling: float | None = None):
    """max(x, 0), or up to the ceiling of a ReLU6, with a gradient of its own."""
    ops = keras.ops

    @ops.custom_gradient
    def relu(x):
        y = ops.relu(x) if ceiling is None else ops.clip(x, 0, ceiling)
        open_ = x > 0 if ceiling is None else ops.logical_and(x > 0, x < ceiling)

        def back(slope):
            return ops.where(ops.logical_and(open_, slope > 0), slope, ops.zeros_like(slope))

        return y, back

    return relu
