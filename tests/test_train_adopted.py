"""Nets of another make, and artifacts of any, as what training goes on from."""

import json

import keras
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import striate
from making import tiny_artifact
from striate.cli import app
from striate.errors import UsageError
from striate.explain import explain
from striate.export import export
from striate.train import fit, make_recipe
from striate.train.recipe import net_of

layers = keras.layers
QUICK = {"epochs": 2, "batch_size": 8, "progress": False}

pytestmark = pytest.mark.long  # nets are trained


def coloured(path, classes, each=12):
    """Pictures that a channel of their own tells apart."""
    random = np.random.default_rng(0)
    for channel, name in enumerate(classes):
        (path / name).mkdir(parents=True)
        for i in range(each):
            pixels = random.integers(0, 80, (20, 20, 3), dtype=np.uint8)
            pixels[..., channel] += 150
            Image.fromarray(pixels).save(path / name / f"{i}.png")
    return path


def net_of_keras(outputs=2, pool=layers.GlobalAveragePooling2D, name="mine"):
    """As Keras' own guide makes one: pixels changed in the net, a body within it, a new head."""
    keras.utils.set_random_seed(0)
    body = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.Conv2D(6, 3, use_bias=False, name="block1_conv"),
            layers.BatchNormalization(name="block1_bn"),
            layers.ReLU(name="block1_relu"),
            layers.MaxPooling2D(name="block1_pool"),
            layers.Conv2D(8, 3, activation="relu", name="block2_conv"),
        ]
    )
    inputs = keras.Input((16, 16, 3))
    x = layers.Dense(5, activation="relu")(pool()(body(inputs / 127.5 - 1.0)))
    end = "sigmoid" if outputs == 1 else "softmax"
    answer = layers.Dense(outputs, activation=end)(layers.Dropout(0.2)(x))
    return keras.Model(inputs, answer, name=name)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """An adopted net of two classes, and pictures of them and of three others."""
    base = tmp_path_factory.mktemp("adopted")
    old = coloured(base / "old", ["cat", "dog"])
    coloured(base / "new", ["blue", "green", "red"])
    striate.adopt(net_of_keras(), base / "mine", data=old, preprocess="raw")
    return base


@pytest.mark.parametrize(
    "strategy",
    ["full", "linear_probe", "lp_ft", "gradual", "layerwise", "early_features", "auto"],
)
def test_an_adopted_net_learns_other_classes(places, tmp_path, strategy):
    made = striate.finetune(
        places / "mine", data=places / "new", output=tmp_path / "made", strategy=strategy, **QUICK
    )
    assert made.labels == ["blue", "green", "red"]
    assert made.manifest.model["name"] == "keras:mine"
    before = striate.load(places / "mine")
    assert made.preprocess.scale == before.preprocess.scale
    kernel, begun = (a.model.get_layer("block1_conv").get_weights()[0] for a in (made, before))
    if strategy in ("linear_probe", "early_features"):
        np.testing.assert_array_equal(kernel, begun)
        assert made.manifest.metrics["val"]["accuracy"] == 1.0
    assert np.abs(kernel - begun).max() < 0.1  # and not a fresh one


def test_what_came_of_it_is_explained_exported_and_taught_once_more(places, tmp_path):
    made = striate.finetune(
        places / "mine", data=places / "new", output=tmp_path / "made", strategy="lp_ft", **QUICK
    )
    picture = next((places / "new" / "red").iterdir())
    assert explain(made, [picture], method="grad_cam").maps.shape == (1, 16, 16)
    made, rows = export(made, ["onnx"])
    assert rows[0].top1_agreement == 1.0
    again = striate.finetune(
        made.path, data=places / "old", output=tmp_path / "again", strategy="full", **QUICK
    )
    assert again.labels == ["cat", "dog"]


def test_the_same_classes_keep_their_classifier(places):
    dataset = striate.data.load(places / "old")
    recipe = make_recipe("finetune", {"epochs": 0, "strategy": "full"})
    fitted = fit(recipe.changed(model=net_of(places / "mine")), dataset, *dataset.folds(2)[0])
    begun = striate.load(places / "mine").model.layers[-1].get_weights()
    for now, before in zip(fitted.model.get_layer("logits").get_weights(), begun, strict=True):
        np.testing.assert_array_equal(now, before)


def test_another_size_and_fewer_bits(places, tmp_path):
    sets = {"model.size": 24, "precision": "mixed_bfloat16", "strategy": "full"}
    made = striate.finetune(
        places / "mine", data=places / "new", output=tmp_path / "made", **QUICK, **sets
    )
    assert made.model.input_shape == (None, 24, 24, 3)
    assert {layer.compute_dtype for layer in made.model.layers} == {"float32"}


def test_a_net_of_one_sigmoid_learns_three_classes(places, tmp_path):
    base = tmp_path / "one"
    striate.adopt(net_of_keras(outputs=1), base, data=places / "old", preprocess="raw")
    made = striate.finetune(
        base, data=places / "new", output=tmp_path / "made", strategy="linear_probe", **QUICK
    )
    assert made.model.output_shape == (None, 3)


def test_a_size_that_the_net_cannot_have_is_said_in_one_line(places, tmp_path):
    base = tmp_path / "flat"
    striate.adopt(net_of_keras(pool=layers.Flatten), base, data=places / "old", preprocess="raw")
    with pytest.raises(UsageError, match=r"'dense\w*' has \(200, 5\).*expected \(648, 5\)"):
        striate.finetune(
            base, data=places / "new", output=tmp_path / "x", **QUICK, **{"model.size": 24}
        )
    assert not (tmp_path / "x" / "1").exists()


def by_averages(maps):
    return layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3)(maps))


def by_squeezed_maps(maps):
    """The last dense layer is none of a classifier."""
    squeezed = layers.Dense(4, activation="sigmoid")(layers.GlobalAveragePooling2D()(maps))
    return by_averages(maps * layers.Reshape((1, 1, 4))(squeezed))


def by_pixels(maps):
    return layers.GlobalAveragePooling2D()(layers.Dense(2)(maps))


def by_an_operation(maps):
    return layers.Dense(2)(keras.ops.mean(maps, axis=(1, 2)))


@pytest.mark.parametrize("end", [by_averages, by_squeezed_maps, by_pixels, by_an_operation])
def test_a_net_that_ends_otherwise_is_refused(places, tmp_path, end):
    inputs = keras.Input((16, 16, 3))
    maps = layers.Conv2D(4, 3)(layers.Rescaling(1 / 255)(inputs))
    striate.adopt(
        keras.Model(inputs, end(maps)), tmp_path / "net", data=places / "old", preprocess="raw"
    )
    with pytest.raises(UsageError, match="expected a net that ends in a dense layer on the vector"):
        striate.finetune(tmp_path / "net", data=places / "new", output=tmp_path / "x", **QUICK)


def test_any_artifact_can_be_gone_on_from(places, tmp_path):
    tiny_artifact(tmp_path / "lenet", name="lenet5", shape=(32, 32, 1))
    ran = CliRunner().invoke(
        app,
        [
            *("finetune", str(tmp_path / "lenet"), "--data", str(places / "new"), "--epochs", "1"),
            *("-o", str(tmp_path / "made"), "--set", "strategy=linear_probe", "--json"),
        ],
    )
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout)["model"]["name"] == "lenet5"
    ran = CliRunner().invoke(
        app,
        [
            *("train", str(places / "mine"), "--data", str(places / "new"), "--epochs", "1"),
            *("-o", str(tmp_path / "other"), "--json"),
        ],
    )
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout)["model"]["name"] == "keras:mine"


def test_an_adopted_net_is_found_by_its_artifact_alone(places):
    recipe = {"model": {"name": "keras:mine"}, "data": {"source": str(places / "new")}}
    with pytest.raises(UsageError, match=r"model.weights: expected the artifact in which keras:m"):
        striate.train(recipe, places / "made", progress=False)
    assert net_of("lenet5") == {"name": "lenet5"}
