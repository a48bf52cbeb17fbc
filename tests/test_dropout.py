"""Dropout and batch normalisation: why the one stands behind the other, and that it does."""

import keras
import numpy as np
import pytest

from striate.registry import create_model, get_spec

BEFORE_THE_CLASSIFIER = (
    "resnet20_cifar",
    "preresnet110_cifar",
    "se_resnet50",
    "mobilenet_v2_035",
    "shufflenet_v1_g1",
)


@pytest.mark.parametrize("keep", [0.5, 0.8])
def test_dropout_shifts_the_variance_that_batch_normalisation_has_learnt(keep):
    """In training the variance is 1/p of that in testing; Li et al. 2018, arXiv:1801.05134."""
    x = np.random.default_rng(0).normal(size=(100_000, 1)).astype(np.float32)
    dropout = keras.layers.Dropout(1 - keep, seed=0)
    assert np.var(np.asarray(dropout(x, training=True))) == pytest.approx(1 / keep, rel=0.03)
    assert np.var(np.asarray(dropout(x, training=False))) == pytest.approx(1, rel=0.03)


@pytest.mark.parametrize("name", BEFORE_THE_CLASSIFIER)
def test_dropout_before_the_classifier_is_behind_every_batch_normalisation(name):
    spec = get_spec(name)
    options = {**spec.reduced, "dropout": 0.3}
    net = create_model(name, num_classes=2, input_shape=(64, 64, 3), **options)
    kinds = [type(layer).__name__ for layer in net.layers]
    names = [layer.name for layer in net.layers]
    assert kinds.count("Dropout") == 1
    assert "BatchNormalization" not in kinds[names.index("logits_dropout") :]
    assert net.get_layer("logits_dropout").rate == 0.3


@pytest.mark.parametrize(
    ("name", "options", "layer", "attribute", "value"),
    [
        ("resnet20_cifar", {"survival": 0.8}, "stage3_block3_survival", "survival", 0.8),
        (
            "shake_shake26_2x32d_cifar",
            {"backward": "even"},
            "stage1_block1_shake",
            "backward",
            "even",
        ),
    ],
)
def test_what_nets_do_at_random_is_set_in_a_recipe(name, options, layer, attribute, value):
    net = create_model(name, num_classes=2, input_shape=(32, 32, 3), **options)
    assert getattr(net.get_layer(layer), attribute) == value
