"""Two residuals mixed at random, forwards and backwards by different draws.

Gastaldi, "Shake-Shake regularization", 2017, arXiv:1705.07485.
"""

import keras
from keras import ops

from striate.errors import UsageError
from striate.layers.shapes import check_alike


@keras.saving.register_keras_serializable("striate")
class ShakeShake(keras.layers.Layer):
    """[a, b] -> alpha * a + (1 - alpha) * b with alpha uniform on 0 to 1; inference takes 0.5.

    The gradient flows as if alpha had been beta, another draw: beta to a and 1 - beta to b.

    forward, backward: `shake` draws, `even` takes 0.5; backward `keep` takes the forward's alpha.
    per_picture: a draw for every picture (the paper's Image level) or one for the batch.
    """

    def __init__(
        self,
        forward: str = "shake",
        backward: str = "shake",
        per_picture: bool = True,
        seed=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if forward not in ("shake", "even"):
            raise UsageError(f"expected forward shake or even, got {forward!r}")
        if backward not in ("shake", "even", "keep"):
            raise UsageError(f"expected backward shake, even or keep, got {backward!r}")
        self.forward = forward
        self.backward = backward
        self.per_picture = per_picture
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shapes):
        check_alike(input_shapes)

    def call(self, inputs, training=False):
        a, b = inputs
        if not training:
            return 0.5 * (a + b)
        alpha = self._draw(a, self.forward)
        beta = alpha if self.backward == "keep" else self._draw(a, self.backward)
        # The value is the forward mix; only the backward mix is left to be differentiated.
        back = beta * a + (1 - beta) * b
        ahead = alpha * a + (1 - alpha) * b
        return back + ops.stop_gradient(ahead - back)

    def _draw(self, x, kind: str):
        if kind == "even":
            return ops.cast(0.5, x.dtype)
        draws = ops.shape(x)[0] if self.per_picture else 1
        shape = (draws, *[1] * (len(x.shape) - 1))
        return ops.cast(keras.random.uniform(shape, seed=self.seed_generator), x.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape[0]

    def get_config(self):
        return {
            **super().get_config(),
            "forward": self.forward,
            "backward": self.backward,
            "per_picture": self.per_picture,
            "seed": self.seed,
        }
