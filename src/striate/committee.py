"""Several nets as one flat graph, whose probabilities are the mean of theirs."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from striate.lazy import keras
from striate.registry import deep_graphs

NAME = "ensemble"  # what a manifest calls such a graph: no net of the registry


@dataclasses.dataclass(frozen=True, eq=False)
class Member:
    """One net of a committee.

    net: float [N, ...] -> logits [N, classes]; temperature: what its logits are divided by;
    normalise: the Keras layer before it, None where the committee's input is normalised already.
    """

    net: Any
    temperature: float = 1.0
    normalise: Any = None


def committee(members: Sequence[Member]) -> Any:
    """The Keras net float [N, ...] -> float32 logits [N, classes] of several.

    softmax(logits) is the mean of the members' softmax(logits / temperature). The members, all of
    one input shape and as many classes, are copied with their weights; the layer `x` of the second
    is `member2_x`.
    """
    from striate.layers import MeanProbability

    image = keras.Input(members[0].net.input_shape[1:], name="input")
    with deep_graphs():
        logits = [_laid(member, f"member{i}_", image) for i, member in enumerate(members, 1)]
        temperatures = [member.temperature for member in members]
        mean = MeanProbability(temperatures, dtype="float32", name="logits")(logits)
        return keras.Model(image, mean, name=NAME)


def _laid(member: Member, prefix: str, image: Any) -> Any:
    """The logits of a copy of a member, its layers named anew, on an input."""
    net, x = member.net, image
    if member.normalise is not None:
        x = _renamed(member.normalise, prefix)(image)
    copies: dict[str, Any] = {}  # a layer that is used twice is copied once

    def copy_of(layer: Any) -> Any:
        if layer.name not in copies:
            copies[layer.name] = _renamed(layer, prefix)
        return copies[layer.name]

    copy = keras.models.clone_model(net, clone_function=copy_of)
    copy.set_weights(net.get_weights())
    return copy.call(x)


def _renamed(layer: Any, prefix: str) -> Any:
    return type(layer).from_config({**layer.get_config(), "name": f"{prefix}{layer.name}"})
