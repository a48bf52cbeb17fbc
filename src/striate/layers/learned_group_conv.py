"""A 1x1 convolution that learns which inputs each group of its filters needs."""

import keras
import numpy as np
from keras import ops

from striate.errors import UsageError
from striate.layers.shapes import check_counts


@keras.saving.register_keras_serializable("striate")
class LearnedGroupConv(keras.layers.Layer):
    """y = x (W * mask): filter f belongs to group f % groups, a group's filters share a mask.

    Input [N, h, w, c] -> [N, h, w, filters]. While it trains, `advance` takes from every group its
    weakest inputs in stages, until each keeps c / condense_factor of them.
    Source: Huang, Liu, van der Maaten, Weinberger, arXiv:1711.09224, section 3.2.
    """

    def __init__(self, filters: int, groups: int, condense_factor: int | None = None, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.groups = groups
        self.condense_factor = groups if condense_factor is None else condense_factor
        check_counts(filters=filters, groups=groups, condense_factor=self.condense_factor)

    def build(self, input_shape):
        channels = input_shape[-1]
        if self.filters % self.groups or channels % self.condense_factor:
            raise UsageError(
                f"expected filters that divide into {self.groups} groups and inputs that divide by "
                f"{self.condense_factor}, got {self.filters} and {channels}"
            )
        self.kernel = self.add_weight(
            shape=(channels, self.filters), initializer="he_normal", name="kernel"
        )
        self.mask = self.add_weight(
            shape=(channels, self.groups),
            dtype="bool",
            initializer="ones",
            trainable=False,
            name="mask",
        )

    def call(self, x):
        mask = ops.cast(ops.tile(self.mask, (1, self.filters // self.groups)), x.dtype)
        kernel = ops.cast(self.kernel, x.dtype) * mask
        return ops.conv(x, kernel[None, None], padding="valid", data_format="channels_last")

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.filters)

    def advance(self, progress: float) -> None:
        """Condense as is due at this share (0 to 1) of the training: all in its first half."""
        last = self.condense_factor - 1
        self.condense(min(last, int(2 * progress * last)))

    @property
    def condensed(self) -> bool:
        """Whether each group has come down to its share of the inputs."""
        mask = ops.convert_to_numpy(self.mask)
        return bool((mask.sum(0) <= len(mask) // self.condense_factor).all())

    def condense(self, stage: int) -> None:
        """Mask the inputs whose weights have the least sum of magnitudes in each group.

        Afterwards each group has c * (1 - stage / condense_factor) inputs, or fewer where it had.
        """
        mask = np.array(ops.convert_to_numpy(self.mask))
        kernel = ops.convert_to_numpy(self.kernel)
        strength = np.abs(kernel).reshape(len(mask), -1, self.groups).sum(1)
        strength[~mask] = -1
        drop = len(mask) // self.condense_factor * stage
        for group in range(self.groups):
            mask[np.argsort(strength[:, group], kind="stable")[:drop], group] = False
        self.mask.assign(mask)

    def group_lasso(self):
        """Sum over inputs and groups of the norm of their weights, the paper's regulariser."""
        shape = (self.kernel.shape[0], -1, self.groups)
        energy = ops.sum(ops.square(ops.reshape(self.kernel, shape)), axis=1)
        energy = energy * ops.cast(self.mask, energy.dtype)
        return ops.sum(ops.sqrt(ops.maximum(energy, 1e-6)))

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "groups": self.groups,
            "condense_factor": self.condense_factor,
        }
