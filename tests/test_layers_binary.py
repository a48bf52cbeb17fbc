"""Binary layers against numpy written from the formulas of the XNOR-Net paper."""

import keras
import numpy as np
import pytest

from by_hand import gradient, noise
from striate.errors import UsageError
from striate.layers import BinaryConv2D, BinaryDense, CentredKernel
from striate.layers.binary import sign
from striate.registry import create_model


def numpy(x) -> np.ndarray:
    return keras.ops.convert_to_numpy(x)


def signs(x: np.ndarray) -> np.ndarray:
    return np.where(x >= 0, 1, -1).astype("float32")


def slide(x: np.ndarray, kernel: np.ndarray, stride: int = 1) -> np.ndarray:
    """The plain sums of a convolution without padding."""
    side = kernel.shape[0]
    windows = np.lib.stride_tricks.sliding_window_view(x, (side, side), (1, 2))
    return np.einsum("nyxcij,ijco->nyxo", windows[:, ::stride, ::stride], kernel)


def around(x: np.ndarray, pad: int, value: float = 0) -> np.ndarray:
    return np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)), constant_values=value)


# === Sign ===


def test_sign_is_plus_or_minus_one_exactly_and_zero_counts_as_positive():
    x = np.array([-np.inf, -2, -1, -0.3, -0.0, 0.0, 0.1, 1, 7, np.inf], "float32")
    np.testing.assert_array_equal(numpy(sign(x)), 4 * [-1] + 6 * [1])
    many = noise(100_000)
    np.testing.assert_array_equal(numpy(sign(many)), signs(many))


def test_the_gradient_of_sign_passes_straight_through_between_minus_one_and_one():
    x = np.array([-3, -1.01, -0.99, -0.2, 0.0, 0.5, 0.99, 1.01, 8], "float32")
    (found,) = gradient(sign, x)
    np.testing.assert_array_equal(found, [0, 0, 1, 1, 1, 1, 1, 0, 0])


# === Convolution ===


@pytest.mark.parametrize("side", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("pad", "pad_value"), [(0, 0), (1, 0), (2, 1)])
def test_convolution_of_signs_gives_the_same_integers_as_numpy(side, stride, pad, pad_value):
    x = noise(2, 9, 7, 5)
    layer = BinaryConv2D(6, side, strides=stride, pad=pad, pad_value=pad_value, scale=False)
    found = numpy(layer(x))
    expected = slide(around(signs(x), pad, pad_value), signs(numpy(layer.kernel)), stride)
    np.testing.assert_array_equal(found, expected)
    assert layer.compute_output_shape((None, 9, 7, 5)) == (None, *found.shape[1:])


def test_each_filter_is_scaled_by_the_mean_of_its_weights_without_sign():
    x = noise(2, 6, 6, 4)
    layer = BinaryConv2D(3, 3, pad=1, use_bias=True, bias_initializer="ones")
    found = numpy(layer(x))
    kernel = numpy(layer.kernel)
    alpha = np.abs(kernel).mean((0, 1, 2))
    expected = alpha * slide(around(signs(x), 1), signs(kernel)) + 1
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_binary_weights_alone_leave_the_inputs_real():
    x = noise(2, 6, 6, 4)
    layer = BinaryConv2D(3, 3, strides=2, pad=1, binary_inputs=False)
    found = numpy(layer(x))
    kernel = numpy(layer.kernel)
    expected = np.abs(kernel).mean((0, 1, 2)) * slide(around(x, 1), signs(kernel), 2)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_scale_of_the_inputs_is_their_mean_without_sign_under_the_kernel():
    x = noise(2, 7, 6, 4)
    layer = BinaryConv2D(3, 3, strides=2, pad=1, scale=False, activation_scale=True)
    found = numpy(layer(x))
    mean = around(np.abs(x).mean(-1, keepdims=True), 1)
    scale = slide(mean, np.full((3, 3, 1, 1), 1 / 9, "float32"), 2)
    expected = scale * slide(around(signs(x), 1), signs(numpy(layer.kernel)), 2)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_real_input_has_no_scale_and_padding_is_zero_or_one():
    with pytest.raises(UsageError, match="stay real"):
        BinaryConv2D(3, 3, binary_inputs=False, activation_scale=True)
    with pytest.raises(UsageError, match="0 or 1"):
        BinaryConv2D(3, 3, pad_value=-1)
    with pytest.raises(UsageError, match="units as a whole number of at least 1, got 0"):
        BinaryDense(0)


# === Dense ===


def test_dense_layer_scales_the_products_of_signs():
    x = noise(5, 40)
    layer = BinaryDense(7, use_bias=True)
    found = numpy(layer(x))
    kernel = numpy(layer.kernel)
    expected = np.abs(kernel).mean(0) * (signs(x) @ signs(kernel))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_the_gradient_goes_through_the_signs_and_through_the_scale():
    """y = x (alpha sign W) gives dW = alpha x^T g where |W| <= 1, and what alpha itself learns."""
    x, kernel = noise(5, 8), 2 * noise(8, 3, seed=1)
    layer = BinaryDense(3, binary_inputs=False)
    layer.build(x.shape)

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        layer.kernel.assign(kernel)
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(layer(x))
        found = tape.gradient(total, layer.kernel.value).numpy()
    else:
        import jax

        found = np.asarray(jax.grad(lambda w: layer.stateless_call([w], [], x)[0].sum())(kernel))
    upstream = x.sum(0)[:, None] * np.ones((1, 3), "float32")
    alpha = np.abs(kernel).mean(0)
    through_signs = alpha * upstream * (np.abs(kernel) <= 1)
    through_alpha = (upstream * signs(kernel)).mean(0) * signs(kernel)
    np.testing.assert_allclose(found, through_signs + through_alpha, rtol=1e-4, atol=1e-5)


# === Training and keeping ===


def test_training_keeps_kernels_centred_and_clipped():
    inputs = keras.Input((6, 6, 4))
    x = BinaryConv2D(5, 3, pad=1, kernel_constraint=CentredKernel())(inputs)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    model.compile(keras.optimizers.SGD(100.0), "mse")
    before = model.get_weights()[0]
    model.fit(noise(32, 6, 6, 4), noise(32, 5), batch_size=8, epochs=2, verbose=0)
    kernel = model.get_weights()[0]
    assert np.abs(kernel - before).max() > 0.1
    assert np.abs(kernel).max() == 1.0
    inside = np.abs(kernel).max(2) < 1
    np.testing.assert_allclose(kernel.mean(2)[inside], 0, atol=1e-6)


@pytest.mark.parametrize(
    "layer",
    [
        BinaryConv2D(6, 3, strides=2, pad=1, pad_value=1, activation_scale=True, use_bias=True),
        BinaryConv2D(6, 1, binary_inputs=False, scale=False, kernel_constraint=CentredKernel()),
        BinaryDense(4, use_bias=True),
    ],
)
def test_a_saved_layer_answers_the_same(layer, tmp_path):
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    shape = (5,) if isinstance(layer, BinaryDense) else (8, 8, 5)
    inputs = keras.Input(shape)
    model = keras.Model(inputs, again(inputs))
    model.save(tmp_path / "net.keras")
    x = noise(2, *shape)
    loaded = keras.saving.load_model(tmp_path / "net.keras")
    np.testing.assert_array_equal(numpy(model(x)), numpy(loaded(x)))


# === Nets ===


def test_a_real_twin_s_weights_start_the_binary_net(tmp_path):
    options = {"num_classes": 4, "input_shape": (17, 17, 3), "width": 8}
    twin = create_model("xnor_resnet18", real=True, **options)
    assert not any("Binary" in type(layer).__name__ for layer in twin.layers)
    twin.save(tmp_path / "twin.keras")
    options.pop("num_classes")
    net = create_model("xnor_resnet18", weights=tmp_path / "twin.keras", **options)
    for layer in net.layers:
        for ours, theirs in zip(layer.weights, twin.get_layer(layer.name).weights, strict=True):
            np.testing.assert_array_equal(numpy(ours), numpy(theirs))


@pytest.mark.parametrize("name", ["xnor_alexnet", "xnor_resnet18", "xnor_vgg_cifar"])
def test_xnor_nets_normalise_then_take_signs_then_convolve_then_pool(name):
    from striate.registry import get_spec

    net = create_model(name, num_classes=2, input_shape=(67, 67, 3), **get_spec(name).reduced)
    binary = [layer for layer in net.layers if isinstance(layer, (BinaryConv2D, BinaryDense))]
    assert len(binary) == {"xnor_alexnet": 6, "xnor_resnet18": 16, "xnor_vgg_cifar": 7}[name]
    for layer in binary:
        before = layer.input._keras_history.operation
        while isinstance(before, keras.layers.Flatten):
            before = before.input._keras_history.operation
        assert isinstance(before, keras.layers.BatchNormalization)
        assert layer.binary_inputs
    assert isinstance(net.get_layer("stem_conv"), keras.layers.Conv2D)
    assert isinstance(net.get_layer("logits"), keras.layers.Dense)


def test_the_scale_of_the_inputs_is_an_option_of_xnor_nets():
    net = create_model("xnor_vgg_mnist", activation_scale=True)
    assert net.get_layer("stage1_block1_conv").activation_scale
    with pytest.raises(UsageError, match="BWN"):
        create_model("bwn_vgg_mnist", activation_scale=True)
