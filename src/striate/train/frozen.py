"""What a frozen net says of pictures, computed once for each however often it is asked for."""

from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

import numpy as np

from striate.data.pipeline import Examples
from striate.lazy import keras
from striate.preprocess import Spec
from striate.train.graphs import predict, prediction_graph
from striate.train.progress import Silent, Watcher

SILENT = Silent()

# (body, picture's index in its data set, which of its versions) -> its vector
Known = MutableMapping[tuple[str, int, str], np.ndarray]


Change = Callable[[np.ndarray, np.ndarray], np.ndarray]


def unchanged(images: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Images as they are."""
    return images


class Body:
    """A frozen net that ends in a vector: the averages of some of its layers, side by side.

    layers: by name; of a map, its average over all axes but the last. known: vectors of the same
    body that were computed before, by whoever; new ones are added.
    """

    def __init__(
        self, net: Any, layers: Sequence[str], preprocess: Spec, known: Known | None = None
    ) -> None:
        vectors = [_averaged(net.get_layer(name).output) for name in layers]
        self.widths = [vector.shape[-1] for vector in vectors]
        joined = vectors[0] if len(vectors) == 1 else keras.ops.concatenate(vectors, axis=-1)
        # The specification belongs to it: of some nets each fold measures its own.
        self.name = " ".join([*(_place(net.get_layer(name)) for name in layers), repr(preprocess)])
        self.graph = prediction_graph(keras.Model(net.input, joined), preprocess)
        self.known: Known = {} if known is None else known

    def vectors(
        self,
        examples: Examples,
        batch_size: int,
        *,
        version: str = "",
        change: Change = unchanged,
        watch: Watcher = SILENT,
    ) -> np.ndarray:
        """float32 [N, d] of all examples, or of a version of them.

        change: (uint8 [B, H, W, C], where they stand in their data set) -> that version, which is
        known by its name from then on; of a picture the same, whichever others are with it.
        """
        size = min(batch_size, len(examples))
        keys = [(self.name, int(index), version) for index in examples.indices]
        missing = [i for i, key in enumerate(keys) if key not in self.known]
        order = [np.array(missing[i : i + size]) for i in range(0, len(missing), size)]
        stream = watch.steps(examples.stream(order), len(order), "features")
        for positions, (images, _) in zip(order, stream, strict=True):
            changed = change(images, examples.indices[positions])
            answers = predict(self.graph, changed, size)
            self.known.update(zip([keys[i] for i in positions], answers, strict=True))
        return np.stack([self.known[key] for key in keys])


def mirrored(images: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Images [B, ..., W, C], left and right exchanged."""
    return images[..., ::-1, :]


def _place(layer: Any) -> str:
    """A layer and what it stands on: nets that end elsewhere all have one called `features`."""
    below = [x._keras_history.operation.name for x in keras.tree.flatten(layer.input)]
    return f"{layer.name}({' '.join(below)})"


def _averaged(x: Any) -> Any:
    axes = tuple(range(1, len(x.shape) - 1))
    return keras.ops.mean(keras.ops.cast(x, "float32"), axis=axes) if axes else x
