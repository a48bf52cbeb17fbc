"""Pictures made worse for a net while it trains, so that it learns to withstand them.

Goodfellow, Shlens, Szegedy 2014, arXiv:1412.6572; Madry, Makelov, Schmidt, Tsipras, Vladu 2017,
arXiv:1706.06083. The same formulas on artifacts: `striate.explain.fgsm` and `pgd`.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from striate.gradients import value_and_gradient
from striate.train.recipe import Adversarial

RAISED = 1024  # times that a picture's loss is attacked, see `Attack.slope`


class Attack(keras.layers.Layer):
    """Pixels on 0 to 255 -> pixels, each moved by up to epsilon, for which a loss is larger.

    A layer so that its random state is among the variables of the graph that has it.
    """

    def __init__(self, adversarial: Adversarial, seed: int, **kwargs: Any) -> None:
        super().__init__(dtype="float32", **kwargs)
        self.epsilon, self.steps = adversarial.epsilon, adversarial.steps
        self.weight = adversarial.weight
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, pixels: Any, loss: Callable[[Any], Any]) -> Any:
        """One step of epsilon (FGSM), or several of 2.5 epsilon / steps from a random start (PGD).

        loss: pixels -> the loss. Nothing is differentiated through the result.
        """
        low = ops.maximum(pixels - self.epsilon, 0.0)
        high = ops.minimum(pixels + self.epsilon, 255.0)
        x, length = pixels, self.epsilon
        if self.steps > 1:
            share = keras.random.uniform(ops.shape(pixels), seed=self.generator)
            x, length = low + share * (high - low), 2.5 * self.epsilon / self.steps
        for _ in range(self.steps):
            direction = ops.sign(self.slope(x, loss))
            x = ops.stop_gradient(ops.clip(x + length * direction, low, high))
        return x

    def slope(self, pixels: Any, loss: Callable[[Any], Any]) -> Any:
        """The gradient of a mean loss with regard to the pixels, but for a positive factor.

        The factor keeps half floats from rounding it to 0 for pictures that the net is sure of; a
        picture for which it overflows nonetheless stays where it is.
        """
        raised = RAISED * ops.cast(ops.shape(pixels)[0], "float32")
        return ops.nan_to_num(value_and_gradient(lambda x: raised * loss(x), pixels)[1])
