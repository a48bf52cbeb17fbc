"""The Keras model that is trained: a net behind its pixels; its loss knows mixing and penalties."""

from typing import Any

from keras import ops

from striate.train.average import AveragingModel


class Trainer(AveragingModel):
    """pixels -> logits [N, classes]; where pictures are mixed, -> (logits, shares [N, 1, ..., 1]).

    l1, l2: of the kernels, see `striate.train.recipe.Penalty`.

    A mixed picture is `share` its own label and for the rest that of the picture before it in the
    batch; its cross-entropy with the mixed label is the mean of those with the two, weighted so.
    The accuracy weighs right answers in the same way: naming one of two halves is half right.
    """

    def __init__(self, inputs: Any, outputs: Any, *, l1: float, l2: float, **kwargs: Any) -> None:
        super().__init__(inputs, outputs, **kwargs)
        self.l1, self.l2 = l1, l2

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        parts = _parts(y, y_pred, sample_weight)
        return super().compute_loss(x, *parts, training=training) + self._penalty()

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        return super().compute_metrics(x, *_parts(y, y_pred, None))

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
    logits, share = answer
    labels, share = ops.reshape(labels, (-1,)), ops.reshape(share, (-1,))
    both = ops.concatenate([share, 1 - share])
    if weights is not None:
        both = both * ops.concatenate([weights, ops.roll(weights, 1, axis=0)])
    # Twice as many, so twice the weight: the mean is then that over the pictures.
    labels = ops.concatenate([labels, ops.roll(labels, 1, axis=0)])
    return labels, ops.concatenate([logits, logits]), 2 * both
