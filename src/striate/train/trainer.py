"""The Keras model that is trained: a net behind its pixels, and all that its loss knows."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from striate.layers import LearnedGroupConv
from striate.registry import TrainingHeads
from striate.train.adversarial import Attack
from striate.train.average import AveragingModel
from striate.train.recipe import Penalty


class Trainer(AveragingModel):
    """pixels -> {"logits": [N, classes]}, and beside them, where there are such,

    "heads": the logits of each training head; "share": [N, 1, ..., 1], how much a mixed picture is
    itself; "pixels": those that the net has seen, of which `attack` makes worse ones to learn too.

    heads: how training heads are learnt, by `loss_of_heads`. grouping: the net's learned group
    convolutions. back: the graph from pixels to the logits.

    A mixed picture is `share` its own label and for the rest that of the picture before it in the
    batch; its cross-entropy with the mixed label is the mean of those with the two, weighted so.
    The accuracy weighs right answers in the same way: naming one of two halves is half right.
    """

    def __init__(
        self,
        inputs: Any,
        outputs: Mapping[str, Any],
        *,
        penalty: Penalty,
        heads: TrainingHeads | None = None,
        grouping: Sequence[LearnedGroupConv] = (),
        attack: Attack | None = None,
        back: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(inputs, dict(outputs), **kwargs)
        self.penalty, self.heads, self.grouping = penalty, heads, list(grouping)
        self.attack, self.back = attack, back
        self.loss_of_heads: Any = None
        self.heads_count = heads and keras.Variable(heads.weight, trainable=False, name="heads")

    def advance(self, progress: float) -> None:
        """Change what changes while training goes on; progress: the share that is done, 0 to 1."""
        for layer in self.grouping:
            layer.advance(progress)
        if self.heads and self.heads.fades:
            self.heads_count.assign(self.heads.weight * (1 - progress))

    @property
    def whole(self) -> bool:
        """Whether the net is the one that it will be at the end, but for its weights."""
        return all(layer.condensed for layer in self.grouping)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = self._cross_entropy(y, y_pred, sample_weight)
        if self.attack is not None:
            loss = self._with_worse(loss, y, y_pred, sample_weight)
        if self.heads is not None:
            loss = loss + self.heads_count * self._of_heads(y, y_pred, sample_weight)
        return loss + self._penalty()

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        return super().compute_metrics(x, *_parts(y, y_pred["logits"], y_pred))

    def _cross_entropy(self, labels, answer, weights):
        return super().compute_loss(None, *_parts(labels, answer["logits"], answer, weights))

    def _with_worse(self, clean, labels, answer, weights):
        """The loss of the pictures and that of what the attack makes of them, as it weighs them."""

        def loss_of(pixels, training):
            logits = self.back(pixels, training=training)
            return self._cross_entropy(labels, {**answer, "logits": logits}, weights)

        # Aimed at the net as it answers, with the statistics that batch normalisation has kept.
        aim = functools.partial(loss_of, training=False)
        worse = self.attack(answer["pixels"], loss=aim)
        weight = self.attack.weight
        return (1 - weight) * clean + weight * loss_of(worse, training=True)

    def _of_heads(self, labels, answer, weights):
        total = 0.0
        for logits in answer["heads"]:
            *parts, counts = _parts(labels, logits, answer, weights)
            each = self.loss_of_heads(*parts)
            total += ops.mean(each if counts is None else each * counts)
        return total

    def _penalty(self):
        kernels = [v for v in self.trainable_variables if len(v.shape) > 1]
        penalty = 0.0
        for kernel in kernels if self.penalty.l1 else ():
            penalty += self.penalty.l1 * ops.sum(ops.abs(kernel))
        for kernel in kernels if self.penalty.l2 else ():
            penalty += self.penalty.l2 * ops.sum(ops.square(kernel))
        for layer in self.grouping if self.penalty.group_lasso else ():
            penalty += self.penalty.group_lasso * layer.group_lasso()
        return penalty


def _parts(labels, logits, answer, weights=None) -> tuple:
    """(labels, logits, weights), of mixed pictures twice: as what they are, and as the other."""
    if "share" not in answer:
        return labels, logits, weights
    labels, share = ops.reshape(labels, (-1,)), ops.reshape(answer["share"], (-1,))
    both = ops.concatenate([share, 1 - share])
    if weights is not None:
        both = both * ops.concatenate([weights, ops.roll(weights, 1, axis=0)])
    # Twice as many, so twice the weight: the mean is then that over the pictures.
    labels = ops.concatenate([labels, ops.roll(labels, 1, axis=0)])
    return labels, ops.concatenate([logits, logits]), 2 * both
