"""A classifier as a map of classifiers: the same answers, at every place."""

import keras
import numpy as np
import pytest

import striate
from by_hand import answer, noise, unsettle
from striate.convolutional import convolutionalise
from striate.errors import UsageError
from striate.registry import create_model, get_spec


def net(name, size, **options):
    """The net shrunk by its own options, at size x size pixels, no weight at 0."""
    keras.utils.set_random_seed(0)
    options = {**get_spec(name).reduced, **options}
    model = create_model(name, num_classes=5, input_shape=(size, size, 3), **options)
    unsettle(model)
    return model


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("lenet5_1998", 32, {}),  # distances to codes
        ("alexnet", 67, {}),
        ("vgg11_bn", 32, {}),  # one pixel repeated to 7 x 7 before the dense layers
        ("vgg11", 320, {"dropout": 0.0}),  # 10 x 10 averaged to 7 x 7
        ("vgg11", 64, {"adaptive_pool": False}),
        ("squeezenet1_1", 64, {}),  # a class a map, pooled
        ("squeezenet1_1", 64, {"classifier": "linear"}),
        ("resnet18", 64, {}),
        ("simpnet_5m_cifar", 32, {}),  # maximum of each map
        ("highway10_mnist", 28, {}),
        ("mobilenet_v3_small", 64, {}),  # pooled, convolved, flattened; gates within
        ("shufflenet_v1_g1", 64, {}),
    ],
)
def test_at_its_own_size_it_answers_the_same(name, size, options):
    model = net(name, size, **options)
    twin = convolutionalise(model)
    x = noise(2, size, size, 3)
    expected = answer(model, x)
    assert np.abs(expected).max() > 1e-3
    error = np.abs(answer(twin, x)[:, 0, 0] - expected).max() / np.abs(expected).max()
    assert error <= 1e-4
    assert not any(isinstance(layer, keras.layers.Dense) for layer in twin.layers)
    assert answer(twin, noise(1, size + 64, size + 32, 3)).shape[1:3] != (1, 1)


def each_window(x, size, stride):
    for top in range(0, x.shape[1] - size + 1, stride):
        for left in range(0, x.shape[2] - size + 1, stride):
            yield x[:, top : top + size, left : left + size]


def test_on_a_larger_picture_it_is_the_classifier_moved_along():
    model = net("lenet5", 32)
    x = noise(2, 48, 40, 3)
    windows = [answer(model, window) for window in each_window(x, 32, stride=4)]
    expected = np.stack(windows, axis=1).reshape(2, 5, 3, 5)
    np.testing.assert_allclose(answer(convolutionalise(model), x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pooling", ["GlobalAveragePooling2D", "GlobalMaxPooling2D"])
def test_a_pooling_classifier_moves_along_too(pooling):
    image = keras.Input((15, 15, 3))
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(image)
    x = keras.layers.MaxPooling2D(2)(x)
    x = getattr(keras.layers, pooling)()(x)
    x = keras.layers.BatchNormalization()(keras.layers.Dense(6, activation="tanh")(x))
    model = keras.Model(image, keras.layers.Dense(5, use_bias=False)(x))
    unsettle(model)
    x = noise(2, 23, 19, 3)
    windows = [answer(model, window) for window in each_window(x, 15, stride=4)]
    expected = np.stack(windows, axis=1).reshape(2, 3, 2, 5)
    np.testing.assert_allclose(answer(convolutionalise(model), x), expected, rtol=1e-4, atol=1e-5)


def test_the_model_stays_as_it_is_and_the_twin_saves(tmp_path):
    model = net("lenet5", 32)
    x = noise(1, 40, 40, 3)
    before = [np.array(w) for w in model.get_weights()]
    twin = striate.convolutionalise(model)
    kernel = twin.trainable_variables[0]
    kernel.assign(kernel + 1)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    twin.save(tmp_path / "twin.keras")
    again = keras.saving.load_model(tmp_path / "twin.keras")
    np.testing.assert_array_equal(answer(again, x), answer(twin, x))


def several_heads():
    image = keras.Input((8, 8, 3), name="image")
    parts = [pool()(image) for pool in (keras.layers.Flatten, keras.layers.GlobalMaxPooling2D)]
    return keras.Model(image, keras.layers.Dense(2)(keras.layers.Concatenate(name="both")(parts)))


def normalised_while_flat():
    image = keras.Input((8, 8, 3))
    x = keras.layers.BatchNormalization(name="flat_bn")(keras.layers.Flatten()(image))
    return keras.Model(image, keras.layers.Dense(2)(x))


def a_function_at_the_end():
    image = keras.Input((8, 8, 3))
    x = keras.layers.Dense(2)(keras.layers.Flatten()(image))
    return keras.Model(image, keras.ops.relu(x))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: create_model("mlp_two_layer"), "pictures of one size"),
        (lambda: create_model("voxnet"), "pictures of one size"),
        (lambda: convolutionalise(net("lenet5", 32)), "pictures of one size"),
        (lambda: net("fcn8s_vgg16", 32), "ends in dense layers or global pooling"),
        (lambda: net("googlenet", 96, training_heads=True), "ends in dense layers"),
        (several_heads, "several meet in 'both'"),
        (normalised_while_flat, "'flat_bn' has no convolution"),
        (a_function_at_the_end, "Relu .* has no convolution"),
        (lambda: keras.Sequential([keras.layers.Dense(2)]), "whose input has a shape"),
        (lambda: "saved_models/mine", "expected a functional or Sequential Keras model"),
    ],
)
def test_what_has_no_dense_head_is_refused_in_one_line(model, message):
    with pytest.raises(UsageError, match=message):
        convolutionalise(model())
