"""A net that writes nets: what it draws, what it learns from a reward, a search that resumes."""

import itertools
import json
import math
import sys

import numpy as np
import pytest

from searched import killed_at
from striate import cli, create_model
from striate.errors import UsageError
from striate.models.nas import LAYERS, read_layers
from striate.search import Space, Trial, architecture_search, trials
from striate.search.architecture import Controller, Written, reward

SMALL = Space(2, filters=(4, 8), sizes=(1, 3))


def generator(*seed):
    return np.random.default_rng(seed)


# === Nets that are written down ===


def test_the_papers_net_is_written_in_its_own_words():
    layers = read_layers(" ".join(LAYERS))
    assert (len(layers), layers[4].height, layers[4].width, layers[4].sources) == (15, 3, 7, (3, 4))
    assert tuple(map(str, layers)) == LAYERS


def test_a_layer_without_an_earlier_one_sees_the_picture_and_loose_ends_are_joined():
    net = create_model("nas_v1_cifar", layers="4@3x5<0 8@5x3/2x1<1 2@1x1<0", num_classes=3)
    assert net.get_layer("stage1_block2_conv").output.shape == (None, 16, 32, 8)
    # Nobody sees layers 2 and 3; 16 rows of the second are filled up to the third's 32.
    assert net.get_layer("stage1_out").output.shape == (None, 32, 32, 8 + 2)
    picture = np.ones((1, 32, 32, 3), "float32")
    maps = np.asarray(net.get_layer("stage1_fill1")(np.ones((1, 16, 32, 8), "float32")))
    assert (maps[:, :16].min(), maps[:, 16:].max()) == (1, 0)
    assert np.isfinite(np.asarray(net(picture))).all()


def test_a_strided_filter_of_one_pixel_picks_its_pixels_before():
    net = create_model("nas_v1_cifar", layers="4@1x1/2x3<0", num_classes=3)
    picture = generator(0).uniform(size=(1, 32, 32, 3)).astype("float32")
    picked = np.asarray(net.get_layer("stage1_block1_pick")(picture))
    np.testing.assert_array_equal(picked, picture[:, ::2, ::3])
    assert net.get_layer("stage1_block1_conv").strides == (1, 1)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("", "expected layers such as 36@3x3<0"),
        ("8@3x3<0 8@3", "expected layer 2 as FILTERS@HEIGHTxWIDTH<SOURCES"),
        ("8@3x3<1", "sources from 0, the picture, to 0, the layer before, got '8@3x3<1'"),
        ("0@3x3<0", "numbers of at least 1"),
    ],
)
def test_layers_that_cannot_be_are_one_line(layers, message):
    with pytest.raises(UsageError, match=message):
        create_model("nas_v1_cifar", layers=layers)


# === The controller ===


def every_net(space):
    """All that can be said of a space of two layers."""
    answers = list(itertools.product(*(range(len(choices)) for choices in space.questions)))
    for first, second in itertools.product(answers, answers):
        for link in (False, True):
            yield Written(np.array([first, second]), np.array([[False, False], [link, False]]))


def test_the_probabilities_of_all_nets_sum_to_one():
    controller = Controller(SMALL, seed=3)
    assert sum(math.exp(controller.log_probability(net)) for net in every_net(SMALL)) == (
        pytest.approx(1, abs=1e-5)
    )


@pytest.mark.long
def test_nets_are_drawn_as_often_as_their_probabilities_say():
    space = Space(1, filters=(4, 8), sizes=(3,))
    controller = Controller(space, seed=1)
    drawn = [controller.write(generator(0, n)).answers[0, 1] for n in range(300)]
    chance = math.exp(controller.log_probability(space.read("8@3x3<0")))
    assert abs(np.mean(drawn) - chance) < 3 * math.sqrt(chance * (1 - chance) / 300)


def test_what_was_written_reads_back():
    space = Space(5, strides=(1, 2))
    written = Controller(space).write(generator(4))
    again = space.read(space.text(written))
    np.testing.assert_array_equal(again.answers, written.answers)
    np.testing.assert_array_equal(again.links, written.links)


@pytest.mark.long
def test_a_net_that_earned_more_than_those_before_gets_likelier_and_one_that_earned_less_rarer():
    controller = Controller(SMALL, learning_rate=1e-3)
    net = SMALL.read("4@3x1<0 8@1x3<1")
    controller.learn(net, 0.5)  # there is nothing to compare the first with
    chances = [controller.log_probability(net)]
    for earned in (0.9, 0.1):
        controller.learn(net, earned)
        chances.append(controller.log_probability(net))
    assert chances[0] < chances[1] > chances[2]


@pytest.mark.long
def test_reinforce_finds_what_a_toy_reward_asks_for():
    """Low filters, high ones, eight of them, and a link: half of that is had by chance."""

    def earned(written):
        layers = read_layers(space.text(written))
        asked = [(n.height == 1, n.width == 3, n.filters == 8) for n in layers]
        return np.mean([*np.ravel(asked), layers[1].sources == (1,)])

    space = SMALL
    controller, rewards = Controller(space, learning_rate=0.02), []
    for n in range(150):
        written = controller.write(generator(7, n))
        rewards.append(earned(written))
        controller.learn(written, rewards[-1])
    assert np.mean(rewards[:20]) < 0.75
    assert np.mean(rewards[-20:]) > 0.95


# === The search ===


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two classes: a bright upper or lower half."""
    images = generator(0).integers(0, 50, (40, 12, 12), dtype=np.uint8)
    images[:20, :6] += 200
    images[20:, 6:] += 200
    path = tmp_path_factory.mktemp("data") / "halves.npz"
    np.savez(path, images=images, labels=np.repeat([0, 1], 20))
    return path


RECIPE = {
    "model": {"name": "nas_v1_cifar", "size": 12, "channels": 1},
    "batch_size": 8,
    "epochs": 1,
}


@pytest.fixture
def pretended(monkeypatch):
    """Fits that take no time, the better the more filters; the list says which were made."""
    made = []

    class Fitted:
        def __init__(self, layers):
            self.val_accuracy = sum(layer.filters for layer in layers) / 16
            self.val_loss = 1 - self.val_accuracy

    def pretend(recipe, *_, **__):
        layers = recipe.model.options["layers"]
        made.append(layers)
        return Fitted(read_layers(layers))

    monkeypatch.setattr(trials, "fit", pretend)
    return made


def test_the_reward_is_the_cube_of_the_accuracy_and_nothing_where_a_net_failed():
    assert reward(Trial(0, {}, val_accuracy=0.5, val_loss=1.0)) == 0.125
    assert reward(Trial(0, {}, error="training diverged")) == 0


@pytest.mark.long
def test_a_killed_search_writes_the_same_nets_when_it_goes_on(
    pretended, data, tmp_path, monkeypatch
):
    options = {"space": SMALL, "learning_rate": 0.1}
    whole = architecture_search(RECIPE, data, trials=4, **options)
    with killed_at(4 + 2, pretended, monkeypatch):
        architecture_search(RECIPE, data, trials=4, output=tmp_path, **options)
    resumed = architecture_search(RECIPE, data, trials=4, output=tmp_path, **options)
    assert [(t.number, t.values) for t in resumed] == [(t.number, t.values) for t in whole]
    assert pretended[4:] == pretended[:4]


@pytest.mark.long
def test_a_search_that_cannot_work_is_one_line_before_any_net(pretended, data, tmp_path):
    with pytest.raises(UsageError, match=r"a recipe of nas_v1_cifar.*got lenet5"):
        architecture_search({"model": "lenet5"}, data)
    with pytest.raises(UsageError, match="filters of at least 1, each once"):
        Space(filters=(4, 4))
    architecture_search(RECIPE, data, SMALL, trials=1, output=tmp_path)
    with pytest.raises(UsageError, match="another recipe, space or seed or learning_rate"):
        architecture_search(RECIPE, data, SMALL, trials=1, output=tmp_path, seed=1)
    assert len(pretended) == 1


@pytest.mark.long
def test_the_best_net_of_a_search_is_trained_by_the_line_that_it_prints(
    data, tmp_path, monkeypatch, capfd
):
    recipe = tmp_path / "halves.yaml"
    recipe.write_text(json.dumps(RECIPE))
    arguments = ["architecture", str(recipe), "--data", str(data), "-o", str(tmp_path / "s")]
    arguments += ["--trials", "2", "--layers", "2", "--filters", "4:8", "--sizes", "1:3"]
    arguments += ["--strides", "1:2", "--json"]
    monkeypatch.setattr(sys, "argv", ["striate", "search", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    best, other = (Trial(**found) for found in json.loads(capfd.readouterr().out))
    assert best.val_accuracy >= other.val_accuracy
    assert best.sets.startswith("--set 'model.options.layers=")
    text = best.values["model.options.layers"]
    assert len(read_layers(text)) == 2
    create_model("nas_v1_cifar", layers=text, input_shape=(12, 12, 1), num_classes=2)
