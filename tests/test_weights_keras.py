"""Weights of keras.applications' nets give its logits.

Those of ResNet, VGG and the first two MobileNets are compared in test_pretrained.py.
"""

import inspect
import sys

import keras
import numpy as np
import pytest

from comparing import float64, pictures
from striate.models import densenet, mobilenet_v3
from striate.registry import create_model, get_spec, open_weights

SMALL, ODD = (64, 96, 3), (75, 107, 3)

# ours -> Keras', and the picture to compare on: no smaller than the net can see.
NETS = {
    "inception_v3": (keras.applications.InceptionV3, ODD),
    "inception_resnet_v2": (keras.applications.InceptionResNetV2, ODD),
    "densenet121": (keras.applications.DenseNet121, ODD),
    "densenet169": (keras.applications.DenseNet169, SMALL),
    "densenet201": (keras.applications.DenseNet201, SMALL),
    "nasnet_a_mobile": (keras.applications.NASNetMobile, ODD),
    "nasnet_a_large": (keras.applications.NASNetLarge, SMALL),
    "mobilenet_v3_large": (keras.applications.MobileNetV3Large, SMALL),
    "mobilenet_v3_small": (keras.applications.MobileNetV3Small, ODD),
}
SLOW = {"inception_resnet_v2", "densenet169", "densenet201", "nasnet_a_large"}
TOLD = {  # preprocessing, options
    "inception": ("tf", {"bn_scale": False}),
    "densenet": ("torch", {}),
    "nasnet": ("tf", {}),
    "mobilenet": ("tf", {}),
}


def oracle(name: str, **options) -> keras.Model:
    """Keras' net without softmax and without the preprocessing that its MobileNetV3 begins with."""
    builder, shape = NETS[name]
    if "mobilenet_v3" in name:
        options = {"include_preprocessing": False, **options}
    return builder(
        weights=None, input_shape=shape, classes=7, classifier_activation=None, **options
    )


def made_up(model: keras.Model) -> keras.Model:
    """Biases and scales of their own, and batch normalisations that have seen pictures."""
    random = np.random.default_rng(0)
    for weight in model.trainable_weights:
        if len(weight.shape) == 1:
            middle = 1.0 if "gamma" in weight.path else 0.0
            weight.assign(middle + random.uniform(-0.5, 0.5, weight.shape))
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(pictures(model.input_shape[1:], 8), training=True)
    return model


@pytest.mark.oracle
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in NETS],
)
def test_keras_weights_give_keras_logits(name, tmp_path):
    file = tmp_path / ("theirs.h5" if "v3" in name else "theirs.weights.h5")
    with float64():
        theirs = made_up(oracle(name))
        theirs.save(file) if file.name == "theirs.h5" else theirs.save_weights(file)
        opened = open_weights(name, file)
        ours = create_model(name, input_shape=theirs.input_shape[1:], weights=opened)
        x = pictures(theirs.input_shape[1:], 2)
        expected = keras.ops.convert_to_numpy(theirs(x, training=False))
        logits = keras.ops.convert_to_numpy(ours(x, training=False))
    assert np.ptp(expected, axis=0).max() > 1e-2  # the pictures are told apart
    np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-5)
    told = (opened.preprocess, dict(opened.options))
    assert (*told, opened.classes) == (*TOLD[get_spec(name).family], 7)


@pytest.mark.parametrize("options", [{}, {"include_top": False}])
def test_other_classes_get_a_fresh_classifier(options, tmp_path):
    file = tmp_path / "theirs.weights.h5"
    theirs = oracle("mobilenet_v3_small", **options)
    theirs.save_weights(file)
    ours = create_model("mobilenet_v3_small", num_classes=3, input_shape=(75, 107, 3), weights=file)
    assert ours.output_shape == (None, 3)
    np.testing.assert_array_equal(
        ours.get_layer("top_conv").kernel, theirs.get_layer("conv_1").kernel
    )


@pytest.mark.long
def test_names_that_keras_made_up_count_on_through_a_session(tmp_path):
    """A session's second net begins with conv2d_94; the published file's first with conv2d_1."""
    for n in (1, 2):
        oracle("inception_v3").save_weights(tmp_path / f"{n}.weights.h5")
    first, second = (open_weights("inception_v3", tmp_path / f"{n}.weights.h5") for n in (1, 2))
    assert first.names == second.names
    shapes = [
        {name: [a.shape for a in arrays] for name, arrays in opened.arrays.items()}
        for opened in (first, second)
    ]
    assert shapes[0] == shapes[1]
    assert "conv2d" in first.arrays


def test_published_files_name_some_layers_as_keras_2_did():
    names = densenet.old_keras_names(depths=(6, 12, 24, 16))
    assert (names["stem_conv"], names["stem_bn"]) == ("conv1/conv", "conv1/bn")
    assert names["stage2_block1_1_conv"] == "conv3_block1_1_conv"
    names = mobilenet_v3.old_keras_names(stages=mobilenet_v3.SMALL)
    expected = {
        "stem_conv": "Conv",
        "stem_bn": "Conv/BatchNorm",
        "stage1_block1_dw_conv": "expanded_conv/depthwise",
        "stage1_block1_se_squeeze": "expanded_conv/squeeze_excite/Conv",
        "stage1_block1_se_excite": "expanded_conv/squeeze_excite/Conv_1",
        "stage2_block2_expand_conv": "expanded_conv_2/expand",
        "stage2_block2_project_bn": "expanded_conv_2/project/BatchNorm",
        "top_bn": "Conv_1/BatchNorm",
        "fc1": "Conv_2",
        "logits": "Logits",
    }
    assert {ours: names[ours] for ours in expected} == expected


@pytest.mark.parametrize("name", NETS)
def test_published_files_and_hashes_are_those_of_keras(name):
    (entry,) = get_spec(name).weights
    source = inspect.getsource(sys.modules[NETS[name][0].__module__])
    algorithm, _, digest = entry.hash.partition(":")
    assert algorithm == "md5"
    assert f'"{digest}"' in source
    if "mobilenet_v3" not in name:  # which puts the name together
        assert entry.url.rpartition("/")[2] in source
