"""The convolutions that Keras lacks, and what a convolution's gradient is, against numpy."""

import keras
import numpy as np
import pytest

from by_hand import answer, convolve, gradient, noise, slope
from striate import layers
from striate.errors import UsageError
from striate.layers.deformable_conv import sample


def with_noise(layer, shape):
    """The layer built for inputs of this shape, from its configuration, no weight at 0."""
    layer = type(layer).from_config(layer.get_config())
    layer.build((None, *shape))
    layer.set_weights([noise(*w.shape, seed=7 + i) for i, w in enumerate(layer.weights)])
    return layer


def with_border(x):
    """A zero on every side, which is `same` padding for a kernel of 3."""
    return np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))


# === Gradients of a plain convolution ===


def test_the_gradient_of_a_kernel_is_the_input_weighed_by_the_output_s():
    """dL/dW_k = sum over i of dL/dnet_i a_(i + k): a correlation of the two."""
    a, kernel, weights = noise(2, 6, 5, 3), noise(3, 3, 3, 4, seed=1), noise(2, 4, 3, 4, seed=2)

    def loss(kernel):
        return keras.ops.conv(a, kernel, padding="valid") * weights

    expected = np.zeros(kernel.shape)
    for k, m in np.ndindex(3, 3):
        expected[k, m] = np.einsum("nijc,nijf->cf", a[:, k : k + 4, m : m + 3], weights)
    np.testing.assert_allclose(gradient(loss, kernel)[0], expected, rtol=1e-4, atol=1e-4)


def test_the_gradient_of_an_input_is_a_convolution_with_the_flipped_kernel():
    """dL/da_i = sum over j of dL/dnet_(i - j) w_j, the full one, of outputs to inputs."""
    a, kernel, weights = noise(2, 6, 5, 3), noise(3, 3, 3, 4, seed=1), noise(2, 4, 3, 4, seed=2)

    def loss(a):
        return keras.ops.conv(a, kernel, padding="valid") * weights

    full = np.pad(weights, ((0, 0), (2, 2), (2, 2), (0, 0)))
    expected = convolve(full, kernel[::-1, ::-1].swapaxes(2, 3))
    np.testing.assert_allclose(gradient(loss, a)[0], expected, rtol=1e-4, atol=1e-4)


def test_groups_are_convolutions_side_by_side():
    x, kernel = noise(2, 5, 5, 6), noise(3, 3, 2, 9, seed=1)
    layer = keras.layers.Conv2D(9, 3, groups=3, use_bias=False)
    layer.build(x.shape)
    layer.set_weights([kernel])
    parts = [convolve(x[..., 2 * g : 2 * g + 2], kernel[..., 3 * g : 3 * g + 3]) for g in range(3)]
    expected = np.concatenate(parts, axis=-1)
    np.testing.assert_allclose(answer(layer, x), expected, rtol=1e-4, atol=1e-4)


# === Locally connected ===


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (2, 2), (3, 2)])
def test_a_locally_connected_layer_has_a_kernel_for_every_place(kernel, stride):
    layer = with_noise(layers.LocallyConnected2D(4, kernel, stride), (6, 5, 3))
    x = noise(2, 6, 5, 3)
    own, bias = layer.get_weights()
    rows, columns = own.shape[:2]
    assert layer.count_params() == rows * columns * 4 * (kernel**2 * 3 + 1)
    expected = np.zeros((2, rows, columns, 4))
    for i, j in np.ndindex(rows, columns):
        top, left = i * stride, j * stride
        window = x[:, top : top + kernel, left : left + kernel].reshape(2, -1)
        expected[:, i, j] = window @ own[i, j] + bias[i, j]
    np.testing.assert_allclose(answer(layer, x), expected, rtol=1e-4, atol=1e-4)


def test_a_locally_connected_layer_of_equal_kernels_is_a_convolution():
    layer = with_noise(layers.LocallyConnected2D(4, 3, use_bias=False), (6, 6, 3))
    x, kernel = noise(2, 6, 6, 3), noise(3, 3, 3, 4, seed=1)
    layer.set_weights([np.broadcast_to(kernel.reshape(-1, 4), layer.kernel.shape)])
    np.testing.assert_allclose(answer(layer, x), convolve(x, kernel), rtol=1e-4, atol=1e-4)


def test_a_locally_connected_layer_begins_at_the_scale_of_one_place():
    layer = layers.LocallyConnected2D(8, 3)
    y = answer(layer, noise(64, 8, 8, 16))
    assert y.std() == pytest.approx(1, abs=0.05)


def test_a_locally_connected_layer_wants_to_know_the_size():
    with pytest.raises(UsageError, match="height and width"):
        layers.LocallyConnected2D(4, 3)(keras.Input((None, None, 3)))


# === Spatially separable ===


def test_sobel_s_filter_is_a_column_times_a_row():
    layer = layers.SpatiallySeparableConv2D(1, 3, padding="valid", use_bias=False)
    x = noise(2, 6, 5, 1)
    layer.build(x.shape)
    column, row = np.array([1, 2, 1], "float32"), np.array([-1, 0, 1], "float32")
    layer.set_weights([column.reshape(3, 1, 1, 1), row.reshape(1, 3, 1, 1)])
    sobel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], "float32").reshape(3, 3, 1, 1)
    np.testing.assert_allclose(answer(layer, x), convolve(x, sobel), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_separable_convolution_is_the_one_with_the_product_of_its_kernels(stride):
    layer = with_noise(layers.SpatiallySeparableConv2D(4, 3, stride, "valid", 2), (7, 6, 3))
    x = noise(2, 7, 6, 3)
    column, row, bias = layer.get_weights()
    assert layer.count_params() == 3 * 3 * 2 + 3 * 2 * 4 + 4
    kernel = np.einsum("kcm,lmf->klcf", column[:, 0], row[0])
    expected = convolve(x, kernel, stride) + bias
    np.testing.assert_allclose(answer(layer, x), expected, rtol=1e-4, atol=1e-4)


# === Deformable ===


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (2, 2), (5, 1)])
def test_a_deformable_convolution_begins_as_a_plain_one(kernel, stride, padding):
    x = noise(2, 7, 6, 3)
    layer = layers.DeformableConv2D(4, kernel, stride, padding)
    layer.build(x.shape)
    assert layer.count_params() == kernel**2 * (3 * 4 + 2 * kernel**2 * 3 + 2) + 4
    plain = keras.layers.Conv2D(4, kernel, strides=stride, padding=padding)
    plain.build(x.shape)
    plain.set_weights([layer.kernel, noise(4)])
    layer.bias.assign(plain.bias)
    np.testing.assert_allclose(answer(layer, x), answer(plain, x), rtol=1e-5, atol=1e-5)


def bilinear(x, row, column):
    """Equation 3 of the paper: the sum of G(q, p) x(q) over all pixels q of the map [h, w, c]."""
    total = np.zeros(x.shape[-1])
    for i, j in np.ndindex(*x.shape[:2]):
        total += max(0, 1 - abs(row - i)) * max(0, 1 - abs(column - j)) * x[i, j]
    return total


def test_a_deformable_convolution_reads_between_the_pixels():
    x = noise(1, 5, 4, 2)
    layer = with_noise(layers.DeformableConv2D(3, 3), (5, 4, 2))
    kernel, bias, offset_kernel, offset_bias = layer.get_weights()
    offsets = convolve(with_border(x), offset_kernel) + offset_bias
    assert np.abs(offsets).max() > 3  # far out of the map too
    expected = np.zeros((1, 5, 4, 3)) + bias
    for i, j in np.ndindex(5, 4):
        for tap, (k, m) in enumerate(np.ndindex(3, 3)):
            down, across = offsets[0, i, j, 2 * tap : 2 * tap + 2]
            seen = bilinear(x[0], i - 1 + k + down, j - 1 + m + across)
            expected[0, i, j] += seen @ kernel[k, m]
    np.testing.assert_allclose(answer(layer, x), expected, rtol=1e-3, atol=1e-3)


def test_places_and_pixels_learn_by_the_slope_of_what_was_read():
    """The gradients of reading between pixels, by differences; no place lies on a pixel's row."""
    x, mix = noise(1, 4, 5, 2), noise(1, 30, 2, seed=1)
    dice = np.random.default_rng(2)
    rows, columns = (
        (dice.integers(-2, side + 1, (1, 30)) + dice.uniform(0.1, 0.9, (1, 30))).astype("float32")
        for side in (4, 5)
    )

    def read(x, rows, columns):
        return sample(*map(keras.ops.convert_to_tensor, (x, rows, columns))) * mix

    to_x, to_rows, to_columns = gradient(read, x, rows, columns)
    np.testing.assert_allclose(to_x, slope(lambda x: read(x, rows, columns), x), atol=1e-2)
    np.testing.assert_allclose(to_rows, slope(lambda r: read(x, r, columns), rows), atol=1e-2)
    np.testing.assert_allclose(to_columns, slope(lambda c: read(x, rows, c), columns), atol=1e-2)


def test_a_place_on_a_pixel_has_the_slope_to_the_next():
    """All offsets begin there: without a slope they would never move."""
    x = noise(1, 4, 5, 1)
    places = [p.reshape(1, 9).astype("float32") for p in np.mgrid[:3, :3]]
    to_rows, to_columns = gradient(
        lambda r, c: sample(keras.ops.convert_to_tensor(x), r, c), *places
    )
    here, below, right = x[0, :3, :3, 0], x[0, 1:4, :3, 0], x[0, :3, 1:4, 0]
    np.testing.assert_allclose(to_rows.reshape(3, 3), below - here, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(to_columns.reshape(3, 3), right - here, rtol=1e-4, atol=1e-6)


# === Coordinates ===


def test_coordinates_run_from_minus_one_to_one():
    x = noise(2, 3, 5, 4)
    y = answer(layers.AddCoords(radius=True), x)
    rows, columns = np.meshgrid(np.linspace(-1, 1, 3), np.linspace(-1, 1, 5), indexing="ij")
    np.testing.assert_array_equal(y[..., :4], x)
    expected = np.stack([rows, columns, np.hypot(rows, columns)], axis=-1)
    for picture in y[..., 4:]:
        np.testing.assert_allclose(picture, expected, atol=1e-6)
    assert answer(layers.AddCoords(), x).shape == (2, 3, 5, 6)


def test_a_single_row_lies_in_the_middle():
    y = answer(layers.AddCoords(), noise(1, 1, 3, 1))
    np.testing.assert_allclose(y[0, 0, :, 1:], [[0, -1], [0, 0], [0, 1]])


# === Highway ===


@pytest.mark.parametrize(("kernel", "shape"), [(1, (5,)), (1, (3, 4, 5)), (3, (3, 4, 5))])
def test_a_gate_mixes_what_a_layer_made_with_what_it_got(kernel, shape):
    x, h = noise(2, *shape), noise(2, *shape, seed=1)
    layer = layers.HighwayGate(kernel)
    layer.build([x.shape, h.shape])
    weight, bias = noise(*layer.kernel.shape, seed=2), noise(5, seed=3)
    layer.set_weights([weight, bias])
    net = (
        x @ weight if kernel == 1 else convolve(np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), weight)
    )
    gate = 1 / (1 + np.exp(-(net + bias)))
    np.testing.assert_allclose(answer(layer, [x, h]), gate * h + (1 - gate) * x, atol=1e-5)


@pytest.mark.parametrize(("gate_bias", "passed"), [(-50.0, 0), (50.0, 1)])
def test_a_closed_gate_lets_everything_past_and_an_open_one_nothing(gate_bias, passed):
    inputs = [noise(2, 5), noise(2, 5, seed=1)]
    y = answer(layers.HighwayGate(gate_bias=gate_bias), inputs)
    np.testing.assert_allclose(y, inputs[passed], rtol=1e-5, atol=1e-6)


def test_a_gate_wants_two_inputs_of_one_shape():
    with pytest.raises(UsageError, match="one shape"):
        layers.HighwayGate()([noise(2, 5), noise(2, 4)])
