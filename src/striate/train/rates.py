"""Learning rates of their own for the variables of a net, in one optimiser.

Scaled gradients would not do: Adam divides by their size again. Here the step itself is scaled,
and decoupled weight decay with it, whichever optimiser takes the step; the norm that gradients
are clipped to stays that of the whole net.
"""

from collections.abc import Sequence
from typing import Any


class Rates:
    """What `with_rates` puts before an optimiser: variable i learns at rates[i] of the rate."""

    rates: tuple[float, ...]

    def update_step(self, gradient, variable, learning_rate):
        rate = self.rates[self._get_variable_index(variable)]
        super().update_step(gradient, variable, learning_rate * rate)

    def _apply_weight_decay(self, variables):
        decay = self.weight_decay
        if decay is None:
            return
        for variable in variables:
            self.weight_decay = decay * self.rates[self._get_variable_index(variable)]
            super()._apply_weight_decay([variable])
        self.weight_decay = decay


def with_rates(optimizer: type[Any], rates: Sequence[float]) -> type[Any]:
    """A class of Keras optimisers whose variables have rates of their own.

    rates: of each variable that the optimiser will be built on, as a share of the learning rate.
    """
    return type(optimizer.__name__, (Rates, optimizer), {"rates": tuple(rates)})
