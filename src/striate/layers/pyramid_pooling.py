"""A vector of one length from maps of any size."""

import keras
from keras import ops

from striate.errors import UsageError
from striate.layers.shapes import check_counts


@keras.saving.register_keras_serializable("striate")
class SpatialPyramidPooling2D(keras.layers.Layer):
    """[N, h, w, c] -> [N, c * sum of n**2]: for each n of `levels` the map in n x n parts, pooled.

    Part i of n along a side is from floor(i side / n) to before ceil((i + 1) side / n): all of the
    map takes part, whatever its height and width, which may differ from call to call.

    kind: `max` (the paper's) or `average`. levels=(n,) is adaptive pooling to n x n.
    Source: He, Zhang, Ren, Sun, arXiv:1406.4729, section 2.2 and appendix A.
    """

    def __init__(self, levels: tuple[int, ...] = (1, 2, 4), kind: str = "max", **kwargs):
        super().__init__(**kwargs)
        check_counts(**{f"levels[{i}]": level for i, level in enumerate(levels)})
        if kind not in ("max", "average"):
            raise UsageError(f"expected kind max or average, got {kind!r}")
        self.levels = tuple(levels)
        self.kind = kind

    def call(self, x):
        pool = ops.max if self.kind == "max" else ops.mean
        height, width = ops.shape(x)[1:3]
        parts = [
            pool(x[:, top:bottom, left:right], axis=(1, 2))
            for n in self.levels
            for top, bottom in self._bounds(height, n)
            for left, right in self._bounds(width, n)
        ]
        return ops.concatenate(parts, axis=-1)

    @staticmethod
    def _bounds(side, n: int) -> list:
        return [(i * side // n, ((i + 1) * side + n - 1) // n) for i in range(n)]

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[-1] * sum(n**2 for n in self.levels))

    def get_config(self):
        return {**super().get_config(), "levels": self.levels, "kind": self.kind}
