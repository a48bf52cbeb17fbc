"""Neural architecture search: a recurrent net writes nets, and learns from how well they do.

Zoph and Le 2016, "Neural Architecture Search with Reinforcement Learning", arXiv:1611.01578. A
two-layer LSTM answers question after question about each layer of a convolutional net: how many
filters, how high, how wide, with which strides. At an anchor before each layer it decides which of
the earlier layers this one sees (Section 3.3). The net is trained, and its validation accuracy is
the reward that REINFORCE raises: answers that did better than the nets before are made likelier.
"""

import dataclasses
import os
from typing import Any, NamedTuple

import numpy as np

from striate.data import Dataset
from striate.errors import UsageError, check_whole
from striate.lazy import keras
from striate.models.nas import Layer, read_layers
from striate.search.trials import Trial, best_first, open_judged, opened_book, say, tried
from striate.train.progress import watcher
from striate.train.recipe import make_recipe

NET = "nas_v1_cifar"  # which is built as it is written
KEY = "model.options.layers"
UNITS = 35  # of each of the two LSTM layers, as in the paper
SPREAD = 0.08  # of the first weights, uniform on both sides of 0, as in the paper
DECAY = 0.9  # of the moving average that a reward is compared with


class Written(NamedTuple):
    """What the controller said. answers: int [layers, questions]; links: bool [layers, layers].

    An answer is the place of a choice among those of its question. links[i, j]: layer i sees j.
    """

    answers: np.ndarray
    links: np.ndarray


@dataclasses.dataclass(frozen=True)
class Space:
    """The nets that can be written.

    layers: of each net. filters: choices of how many. sizes: choices of a filter's height, and of
    its width. strides: choices of the step down, and of that across.
    """

    layers: int = 8
    filters: tuple[int, ...] = (24, 36, 48, 64)
    sizes: tuple[int, ...] = (1, 3, 5, 7)
    strides: tuple[int, ...] = (1,)

    def __post_init__(self) -> None:
        if self.layers < 1:
            raise UsageError(f"expected at least 1 layer to write, got {self.layers}")
        for name in ("filters", "sizes", "strides"):
            choices = getattr(self, name)
            if not choices or min(choices) < 1 or len(set(choices)) < len(choices):
                raise UsageError(f"expected {name} of at least 1, each once, got {choices}")

    @property
    def questions(self) -> tuple[tuple[int, ...], ...]:
        """The choices of each question about a layer; the first is the anchor, with one choice."""
        return ((0,), self.filters, self.sizes, self.sizes, self.strides, self.strides)

    def text(self, written: Written) -> str:
        """A written net as the option `layers` of `nas_v1_cifar` names it."""
        return " ".join(str(self._layer(*layer)) for layer in zip(*written, strict=True))

    def _layer(self, answers: np.ndarray, links: np.ndarray) -> Layer:
        chosen = zip(self.questions, answers, strict=True)
        _, filters, height, width, down, across = (choices[n] for choices, n in chosen)
        sources = tuple(int(j) + 1 for j in np.flatnonzero(links)) or (0,)
        return Layer(filters, height, width, sources, (down, across))

    def read(self, text: str) -> Written:
        """What the controller must have said to write this."""
        layers = read_layers(text)
        answers = [self._answers(layer) for layer in layers]
        links = [[j in layer.sources for j in range(1, len(layers) + 1)] for layer in layers]
        return Written(np.array(answers), np.array(links))

    def _answers(self, layer: Layer) -> list[int]:
        said = (0, layer.filters, layer.height, layer.width, *layer.strides)
        return [choices.index(a) for choices, a in zip(self.questions, said, strict=True)]


class Controller:
    """The LSTM that writes nets of a space, one answer after the other.

    learning_rate: of Adam; the paper's 0.0006 was for 12,800 nets.
    """

    def __init__(self, space: Space, *, learning_rate: float = 6e-4, seed: int = 0) -> None:
        self.space = space
        self.baseline: float | None = None
        sizes = [len(choices) for choices in space.questions]
        self._first = np.cumsum([0, *sizes[:-1]])  # a question's first word among all
        self._words = sum(sizes)
        self._net = _network(space.layers, sizes, seed)
        self._net.compile(
            keras.optimizers.Adam(learning_rate),
            loss=[
                keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum"),
                keras.losses.BinaryCrossentropy(from_logits=True, reduction="sum"),
            ],
        )

    def write(self, generator: np.random.Generator) -> Written:
        """A net, drawn answer by answer, each depending on those before."""
        shape = (self.space.layers, len(self.space.questions))
        words = np.zeros(np.prod(shape), "int32")
        for step in range(len(words)):
            chance = _softmax(self._say(words)[0][step])
            words[step] = generator.choice(self._words, p=chance)
        chance = 1 / (1 + np.exp(-self._say(words)[1]))
        links = np.tril(generator.uniform(size=chance.shape) < chance, -1)
        return Written(words.reshape(shape) - self._first, links)

    def log_probability(self, written: Written) -> float:
        """Of writing this net, natural logarithm."""
        words = self._as_words(written)
        answers, links = self._say(words)
        signs = np.where(written.links, links, -links)
        of_links = np.tril(-np.logaddexp(0, -signs), -1).sum()
        of_words = sum(
            np.log(_softmax(said)[word]) for said, word in zip(answers, words, strict=True)
        )
        return float(of_words + of_links)

    def learn(self, written: Written, reward: float) -> None:
        """REINFORCE: make a net likelier that earned more than the nets before, others rarer.

        The step goes along (reward - baseline) times the gradient of the net's log probability.
        """
        if self.baseline is None:
            self.baseline = reward
        advantage = reward - self.baseline
        self.baseline = DECAY * self.baseline + (1 - DECAY) * reward
        words = self._as_words(written)
        earlier = np.tril(np.ones_like(written.links, "float32"), -1)
        self._net.train_on_batch(
            _shifted(words)[None],
            [words[None], written.links[None, ..., None]],
            sample_weight=[np.full((1, len(words)), advantage), advantage * earlier[None]],
        )

    def _as_words(self, written: Written) -> np.ndarray:
        return (written.answers + self._first).ravel().astype("int32")

    def _say(self, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits after the words before each: of all words, [T, words], and links, [L, L]."""
        answers, links = self._net.predict_on_batch(_shifted(words)[None])
        return np.asarray(answers)[0].astype(float), np.asarray(links)[0, ..., 0].astype(float)


def _shifted(words: np.ndarray) -> np.ndarray:
    """The word before each, counted from 1; 0 before the first."""
    return np.concatenate([[0], words[:-1] + 1]).astype("int32")


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def _network(layers: int, sizes: list[int], seed: int) -> Any:
    """Words before [N, T] -> logits of the next words [N, T, words], of links [N, L, L, 1]."""
    from keras import layers as kl
    from keras import ops

    words, steps = sum(sizes), layers * len(sizes)
    start = iter(range(seed, seed + 100))

    def spread() -> Any:
        return keras.initializers.RandomUniform(-SPREAD, SPREAD, seed=next(start))

    def lstm(x):
        first = {"kernel_initializer": spread(), "recurrent_initializer": spread()}
        return kl.LSTM(UNITS, return_sequences=True, dtype="float32", **first)(x)

    def dense(x, units: int, use_bias: bool = False):
        return kl.Dense(units, use_bias=use_bias, kernel_initializer=spread(), dtype="float32")(x)

    before = keras.Input((steps,), dtype="int32")
    embedded = kl.Embedding(words + 1, UNITS, embeddings_initializer=spread(), dtype="float32")
    x = lstm(lstm(embedded(before)))
    answers = dense(x, words, use_bias=True) + ops.convert_to_tensor(_unasked(layers, sizes))
    anchors = x[:, :: len(sizes)]
    seeing, seen = dense(anchors, UNITS)[:, :, None], dense(anchors, UNITS)[:, None]
    return keras.Model(before, [answers, dense(ops.tanh(seeing + seen), 1)])


def _unasked(layers: int, sizes: list[int]) -> np.ndarray:
    """[T, words]: 0 for the choices of the question of each step, far below 0 for other words."""
    question = np.repeat(np.arange(len(sizes)), sizes)  # of each word
    asked = question == np.arange(len(sizes))[:, None]
    return np.tile(np.where(asked, 0, -1e9), (layers, 1)).astype("float32")


def architecture_search(
    recipe: Any,
    data: str | os.PathLike | Dataset | None,
    space: Space | None = None,
    *,
    trials: int = 100,
    output: str | os.PathLike | None = None,
    seed: int = 0,
    learning_rate: float = 6e-4,
    progress: bool = False,
    **sets: Any,
) -> list[Trial]:
    """Fit a recipe with net after net that a controller writes; the trials, the best first.

    recipe, data, sets: as in `striate.train`; its net is `nas_v1_cifar`, whose `layers` are
    written. The reward is the cube of the validation accuracy at the end (the paper's: of the best
    of the last five epochs), 0 for a net that diverges or does not fit into memory. learning_rate:
    the controller's. output: a directory for the trials; the same call again goes on where it was
    killed, and with more trials adds to them.

    Raises `UsageError` before anything is trained: for another net, pictures without a validation
    split, and a directory that holds another search; `StriateError` while another process is at
    work on this one.
    """
    check_whole("trials", trials)
    check_whole("seed", seed)
    recipe, space = make_recipe(recipe, sets), space or Space()
    if recipe.model.name != NET:
        raise UsageError(
            f"expected a recipe of {NET}, whose layers are written, got {recipe.model.name}"
        )
    watch = watcher(progress)
    dataset = open_judged(recipe, data, watch)
    facts = {"space": dataclasses.asdict(space), "seed": seed, "learning_rate": learning_rate}
    controller = Controller(space, learning_rate=learning_rate, seed=seed)
    with opened_book(output, recipe, dataset, **facts) as book:
        done = {trial.number: trial for trial in book.read()}
        for number in range(trials):
            if number in done:
                written = space.read(done[number].values[KEY])
            else:
                written = controller.write(np.random.default_rng([seed, number]))
                values = {KEY: space.text(written)}
                done[number] = tried(number, values, make_recipe(recipe, values), dataset)
                book.add(done[number])
                say(done[number], trials, watch)
            controller.learn(written, reward(done[number]))
    return best_first(done[number] for number in range(trials))


def reward(trial: Trial) -> float:
    """The cube of the validation accuracy, which sets the good apart from the best; else 0."""
    return (trial.val_accuracy or 0.0) ** 3
