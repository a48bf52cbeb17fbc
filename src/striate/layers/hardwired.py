"""What an eye knows before it learns: brightness, its slopes and its motion, of every frame."""

import keras
from keras import ops

from striate.layers.precision import at_least_float32


@keras.saving.register_keras_serializable("striate")
class HardwiredChannels(keras.layers.Layer):
    """Frames [N, t, h, w, c] -> [N, 5 t - 2, h, w, 1], t each of grey, its slope along x and along
    y, and t - 1 each of the optical flow along x and along y.

    Nothing is learnt. Slopes are central differences; the flow (u, v) between neighbouring frames
    solves Ix u + Iy v = -It by least squares over 5 x 5 pixels (Lucas, Kanade, 1981).
    Source: Ji, Xu, Yang, Yu, IEEE PAMI 35(1), 2013, section 2.2.
    """

    def call(self, x):
        # Products of four slopes, and what they differ by, are beyond a float16.
        exact = at_least_float32(x)
        grey = ops.mean(exact, axis=-1, keepdims=True)
        by_x = self._slope(grey, 3)
        by_y = self._slope(grey, 2)
        by_t = grey[:, 1:] - grey[:, :-1]
        along = (by_x[:, :-1] + by_x[:, 1:]) / 2  # in the middle of both frames, as by_t is
        down = (by_y[:, :-1] + by_y[:, 1:]) / 2
        xx, yy, xy = (self._near(a) for a in (along * along, down * down, along * down))
        xt, yt = self._near(along * by_t), self._near(down * by_t)
        area = xx * yy - xy * xy + 1e-6
        flow_x = (xy * yt - yy * xt) / area
        flow_y = (xy * xt - xx * yt) / area
        found = ops.concatenate([grey, by_x, by_y, flow_x, flow_y], axis=1)
        return ops.cast(found, x.dtype)

    @staticmethod
    def _slope(x, axis: int):
        """Half the difference of the two neighbours; the border's own value stands in outside."""
        last = x.shape[axis] - 1
        before = ops.take(x, [max(i - 1, 0) for i in range(last + 1)], axis=axis)
        after = ops.take(x, [min(i + 1, last) for i in range(last + 1)], axis=axis)
        return (after - before) / 2

    @staticmethod
    def _near(x):
        _, frames, height, width, channels = x.shape
        flat = ops.reshape(x, (-1, height, width, channels))  # phones pool over two axes only
        flat = ops.average_pool(
            flat, (5, 5), strides=(1, 1), padding="same", data_format="channels_last"
        )
        return ops.reshape(flat, (-1, frames, height, width, channels))

    def compute_output_shape(self, input_shape):
        n, frames, height, width, _ = input_shape
        return (n, 5 * frames - 2, height, width, 1)
