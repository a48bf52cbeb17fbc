"""The Keras model that is trained: a net behind its pixels; its loss knows mixing and penalties."""

import functools
from typing import Any

from keras import ops

from striate.train.adversarial import Attack
from striate.train.average import AveragingModel


class Trainer(AveragingModel):
    """pixels -> logits [N, classes]; where pictures are mixed, -> (logits, shares [N, 1, ..., 1]).

    l1, l2: of the kernels, see `striate.train.recipe.Penalty`. attack: makes pictures worse, which
    are learnt too; then the last output is the pixels that the net has seen, and `back` is the
    graph from them to the logits.

    A mixed picture is `share` its own label and for the rest that of the picture before it in the
    batch; its cross-entropy with the mixed label is the mean of those with the two, weighted so.
    The accuracy weighs right answers in the same way: naming one of two halves is half right.
    """

    def __init__(
        self,
        inputs: Any,
        outputs: Any,
        *,
        l1: float,
        l2: float,
        attack: Attack | None = None,
        back: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(inputs, outputs, **kwargs)
        self.l1, self.l2 = l1, l2
        self.attack, self.back = attack, back

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        if self.attack is None:
            return self._cross_entropy(y, y_pred, sample_weight) + self._penalty()
        logits, *share, pixels = y_pred

        def loss_of(pixels, training):
            answer = self.back(pixels, training=training)
            return self._cross_entropy(y, [answer, *share] if share else answer, sample_weight)

        # Aimed at the net as it answers, with the statistics that batch normalisation has kept.
        worse = self.attack(pixels, loss=functools.partial(loss_of, training=False))
        clean = self._cross_entropy(y, [logits, *share] if share else logits, sample_weight)
        weight = self.attack.weight
        loss = (1 - weight) * clean + weight * loss_of(worse, training=True)
        return loss + self._penalty()

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        answer = y_pred if self.attack is None else y_pred[:-1]
        return super().compute_metrics(x, *_parts(y, answer, None))

    def _cross_entropy(self, labels, answer, weights):
        return super().compute_loss(None, *_parts(labels, answer, weights))

    def _penalty(self):
        kernels = [v for v in self.trainable_variables if len(v.shape) > 1]
        penalty = 0.0
        for kernel in kernels if self.l1 else ():
            penalty += self.l1 * ops.sum(ops.abs(kernel))
        for kernel in kernels if self.l2 else ():
            penalty += self.l2 * ops.sum(ops.square(kernel))
        return penalty


def _parts(labels, answer, weights) -> tuple:
    """(labels, logits, weights), of mixed pictures twice: as what they are, and as the other."""
    if not isinstance(answer, list | tuple):
        return labels, answer, weights
    if len(answer) == 1:
        return labels, answer[0], weights
    logits, share = answer
    labels, share = ops.reshape(labels, (-1,)), ops.reshape(share, (-1,))
    both = ops.concatenate([share, 1 - share])
    if weights is not None:
        both = both * ops.concatenate([weights, ops.roll(weights, 1, axis=0)])
    # Twice as many, so twice the weight: the mean is then that over the pictures.
    labels = ops.concatenate([labels, ops.roll(labels, 1, axis=0)])
    return labels, ops.concatenate([logits, logits]), 2 * both
