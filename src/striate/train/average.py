"""A running average of a net's weights: what is judged and kept while the weights train on.

Polyak and Juditsky 1992; exponential as in Szegedy et al. 2015, arXiv:1512.00567. Keras' own
`use_ema` puts the average in place of the weights at the end of every `fit`, which is every stretch
of our loop, and leaves the statistics of batch normalisation as they are. Here all that a step
changes in the net is averaged, so that the statistics fit the averaged kernels before them.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from striate.train.checkpoint import arrays_of, assign


class Average:
    """avg += (1 - d) (w - avg) after each step, for every number of the layers that learn.

    d is `decay`, or (1 + t) / (10 + t) while that is less, t being the steps so far, so that the
    first weights, which are random, are soon forgotten. Where gradients of k batches make one step,
    k times the k-th root of d comes to the same, as the weights stand still between.
    """

    def __init__(self, net: Any, decay: float, batches: int = 1) -> None:
        self.decay, self.batches = decay, batches
        learning = [layer for layer in net.layers if layer.trainable]
        weights = [weight for layer in learning for weight in layer.weights]
        # A mask or an index has no mean.
        self.weights = [w for w in weights if keras.backend.is_float_dtype(w.dtype)]
        self.values = [  # from copies: JAX would else hold weight and average in one buffer
            keras.Variable(copy, dtype=w.dtype, trainable=False, name="average")
            for w, copy in zip(self.weights, arrays_of(self.weights), strict=True)
        ]

    def follow(self, steps: Any) -> None:
        """One batch more; steps: of the optimiser so far, with this one."""
        t = keras.ops.cast(steps, "float32")
        kept = keras.ops.minimum(self.decay, (1 + t) / (10 + t)) ** (1 / self.batches)
        for value, weight in zip(self.values, self.weights, strict=True):
            value.assign_add((1 - kept) * (weight - value))

    def take_place(self) -> None:
        """Put the average in place of the weights, for good."""
        assign(self.weights, arrays_of(self.values))

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Within it, the net has its averaged weights; then its own again, bit for bit."""
        own = arrays_of(self.weights)
        self.take_place()
        try:
            yield
        finally:
            assign(self.weights, own)


class AveragingModel(keras.Model):
    """A graph that trains as every other, and keeps an `Average` on the way where one is wanted."""

    average: Average | None = None

    def keep(self, average: Average) -> None:
        """Let an average follow every step; its values count among the graph's variables."""
        self.average = average
        self.averaged = average.values

    def judged(self) -> contextlib.AbstractContextManager[None]:
        """Within it, the net has the weights that are validated and saved."""
        return self.average.in_place() if self.average else contextlib.nullcontext()

    def train_step(self, *arguments: Any) -> Any:
        """A step of Keras' own, and one of the average."""
        done = super().train_step(*arguments)
        if self.average is None:
            return done
        if keras.backend.backend() != "jax":
            self.average.follow(self.optimizer.iterations)
            return done
        logs, (trainable, others, optimizer, metrics) = done
        values = [
            *zip(self.trainable_variables, trainable, strict=True),
            *zip(self.non_trainable_variables, others, strict=True),
            *zip(self.optimizer.variables, optimizer, strict=True),
        ]
        with keras.StatelessScope(state_mapping=values) as scope:
            self.average.follow(self.optimizer.iterations)
        others = [scope.get_current_value(v) for v in self.non_trainable_variables]
        return logs, (trainable, others, optimizer, metrics)
