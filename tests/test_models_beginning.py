"""Where fresh nets begin: close enough to knowing nothing to learn from photographs.

Nets with batch normalisation begin well whatever their initializers; without it, too large a start
grows from layer to layer, and the first steps at the paper's rate end in numbers that are none.
"""

import keras
import numpy as np
import pytest

import striate
from making import ROOT
from striate.preprocess import for_input, pixels
from striate.registry import create_model, get_spec
from striate.train import fit, make_recipe
from striate.train.judge import cross_entropy

pytestmark = pytest.mark.sweep

PHOTOS = sorted((ROOT / "examples/photos").glob("*.jpg"))


@pytest.mark.parametrize(
    ("name", "side"),
    [
        *(("alexnet", 227), ("alexnet_single", 96), ("zfnet", 225), ("vgg11", 96), ("vgg16", 96)),
        *(("googlenet", 96), ("squeezenet1_0", 96), ("squeezenet1_1", 96)),
        *(("nin_cifar", 32), ("dsn_cifar", 32), ("allcnn_c", 32)),
    ],
)
def test_a_fresh_net_is_not_certain_of_what_it_does_not_know(name, side):
    keras.utils.set_random_seed(0)
    preprocess = for_input("picture", (side, side, 3), get_spec(name).preprocess)
    net = create_model(name, input_shape=(side, side, 3))
    x = preprocess.layer()(np.stack([pixels(path, preprocess) for path in PHOTOS]))
    logits = keras.ops.convert_to_numpy(net(x, training=False))
    classes = logits.shape[-1]
    each = [cross_entropy(logits, np.full(len(x), label)) for label in range(0, classes, 7)]
    assert np.mean(each) < 2 * np.log(classes)


@pytest.mark.parametrize("name", ["googlenet", "vgg"])
def test_a_recipe_that_ships_begins_to_learn_at_its_own_rate(name):
    """On photographs: made-up noise is darker in every average than what nets are made for."""
    dataset = striate.data.load(ROOT / "src/striate/samples/furniture")
    recipe = make_recipe(name, {"model.size": 80, "batch_size": 32, "epochs": 1})
    recipe = recipe.changed(schedule={"name": "constant"}, penalty={"l2": 0.0})
    fitted = fit(recipe, dataset, np.arange(0, len(dataset), 2))
    heads = 1.6 if name == "googlenet" else 1.0  # two more, which count 0.3 each
    assert fitted.history[-1]["loss"] < 1.5 * heads * np.log(12)
