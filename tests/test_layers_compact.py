"""The layers of the small, searched and early nets, against numpy written from their formulas."""

import keras
import numpy as np
import pytest

from by_hand import answer, noise
from striate import layers
from striate.errors import UsageError
from striate.registry import create_model, get_spec


def again(layer):
    """The layer as its configuration describes it."""
    return type(layer).from_config(layer.get_config())


def test_channel_shuffle_deals_the_groups_out():
    x = np.arange(6, dtype="float32").reshape(1, 1, 1, 6)
    shuffled = answer(again(layers.ChannelShuffle(2)), x)
    np.testing.assert_array_equal(shuffled.ravel(), [0, 3, 1, 4, 2, 5])


def test_channel_shuffle_refuses_what_does_not_divide():
    with pytest.raises(UsageError, match="3 groups"):
        layers.ChannelShuffle(3)(noise(1, 2, 2, 4))


def test_subsampling_scales_and_shifts_the_sum_of_each_window():
    layer = again(layers.TrainableSubsampling(2))
    x = noise(2, 4, 5, 3)
    layer.build(x.shape)
    coefficient, bias = noise(3), noise(6)[3:]
    layer.set_weights([coefficient, bias])
    total = x[:, :, :4].reshape(2, 2, 2, 2, 2, 3).sum((2, 4))
    np.testing.assert_allclose(answer(layer, x), coefficient * total + bias, rtol=1e-4, atol=1e-5)


def test_subsampling_of_volumes_has_weights_for_each_slice():
    layer = layers.TrainableSubsampling(2)
    assert answer(layer, noise(1, 3, 4, 4, 2)).shape == (1, 3, 2, 2, 2)
    assert layer.count_params() == 2 * 3 * 2


def test_table_convolution_sees_only_the_maps_in_its_table():
    table = ((0, 2), (1,))
    layer = again(layers.TableConv2D(table, 3))
    x = noise(1, 4, 4, 3)
    layer.build(x.shape)
    assert layer.count_params() == 3 * 9 + 2
    kernel, bias = noise(3, 3, 3), np.array([0.5, -1], "float32")
    layer.set_weights([kernel, bias])
    expected = np.zeros((1, 2, 2, 2), "float32") + bias
    for i in range(2):
        for j in range(2):
            window = x[0, i : i + 3, j : j + 3]
            for n, (source, target) in enumerate(((0, 0), (2, 0), (1, 1))):
                expected[0, i, j, target] += (window[..., source] * kernel[..., n]).sum()
    np.testing.assert_allclose(answer(layer, x), expected, rtol=1e-4, atol=1e-5)


def test_fixed_centres_answer_with_the_negative_squared_distance():
    centres = noise(3, 4)
    layer = again(layers.FixedRBF(centres))
    x = noise(5, 4)
    expected = -((x[:, None] - centres) ** 2).sum(-1)
    np.testing.assert_allclose(answer(layer, x), expected, rtol=1e-4)
    assert layer.trainable_weights == []


def test_scaled_tanh_is_one_at_one():
    y = answer(layers.ScaledTanh(), np.array([[-1, 0, 1]], "float32"))
    np.testing.assert_allclose(y, [[-1, 0, 1]], atol=1e-4)


def test_the_digits_of_lenet5_all_differ():
    from striate.models.lenet import codes

    drawn = np.array(codes(12))
    assert drawn.shape == (12, 84)
    assert (np.abs(drawn[:, None] - drawn).sum(-1) > 0).sum() == 12 * 11


def test_circular_convolution_wraps_around():
    layer = again(layers.CircularConv2D(1))
    x = noise(1, 3, 3, 1)
    layer.build(x.shape)
    kernel = np.zeros((3, 3, 1, 1), "float32")
    kernel[0, 2] = 1
    layer.set_weights([kernel, np.zeros(1, "float32")])
    np.testing.assert_allclose(answer(layer, x), np.roll(x, (1, -1), (1, 2)), atol=1e-6)


def test_delta_orthogonal_convolutions_keep_the_length_of_a_signal():
    from striate.initializers import DeltaOrthogonal

    layer = layers.CircularConv2D(8, kernel_initializer=DeltaOrthogonal(seed=1))
    x = noise(2, 4, 4, 5)
    np.testing.assert_allclose((answer(layer, x) ** 2).sum(-1), (x**2).sum(-1), rtol=1e-4)


def test_critical_variances_are_those_of_the_paper_s_demonstration():
    from striate.models.delta_orthogonal import critical_variances

    of_weights, of_biases = critical_variances(1 / 40)
    assert of_weights == pytest.approx(1.05, abs=2e-3)
    assert of_biases == pytest.approx(2.01e-5, rel=0.1)


def test_bilinear_kernel_interpolates():
    from striate.initializers import Bilinear

    up = keras.layers.Conv2DTranspose(2, 4, strides=2, kernel_initializer=Bilinear())
    x = np.ones((1, 4, 4, 2), "float32") * np.array([1, 3], "float32")
    np.testing.assert_allclose(answer(up, x)[0, 2:-2, 2:-2], np.broadcast_to([1, 3], (6, 6, 2)))


def test_weighted_sum_halves_every_map_at_first():
    a, b = noise(1, 2, 2, 3), noise(2, 2, 2, 3)[1:]
    np.testing.assert_allclose(answer(layers.WeightedSum(), [a, b]), (a + b) / 2, rtol=1e-5)


def test_map_dense_adds_a_bias_for_each_connection():
    layer = again(layers.MapDense(2))
    x = noise(3, 4, 5)
    layer.build(x.shape)
    assert layer.count_params() == 4 * 2 * 6
    kernel, bias = noise(4, 5, 2), noise(4, 2)
    layer.set_weights([kernel, bias])
    expected = np.einsum("nmp,mpu->nu", x, kernel) + bias.sum(0)
    np.testing.assert_allclose(answer(layer, x), expected, rtol=1e-4, atol=1e-5)


def test_hardwired_channels_find_slope_and_motion():
    """A ramp along x that moves one pixel a frame has slope 1 and flow (1, 0)."""
    t, h, w = np.mgrid[:3, :9, :12].astype("float32")
    wave = (np.sin((w - t) / 3) + np.cos(h / 4))[None, ..., None]
    y = answer(layers.HardwiredChannels(), wave)[0, ..., 0]
    assert y.shape == (13, 9, 12)
    np.testing.assert_array_equal(y[:3], wave[0, ..., 0])
    slope = (wave[0, :, :, 2:, 0] - wave[0, :, :, :-2, 0]) / 2
    np.testing.assert_allclose(y[3:6, :, 1:-1], slope, atol=1e-6)
    np.testing.assert_allclose(y[9:11, 3:-3, 4:-4], 1, atol=0.15)
    np.testing.assert_allclose(y[11:13, 3:-3, 4:-4], 0, atol=0.15)


# === CondenseNet ===


def test_condensing_keeps_the_strongest_inputs_of_each_group():
    layer = again(layers.LearnedGroupConv(4, groups=2, condense_factor=4))
    x = noise(2, 3, 3, 8)
    layer.build(x.shape)
    kernel = noise(8, 4)
    layer.set_weights([kernel, np.ones((8, 2), bool)])
    for stage in range(4):
        layer.condense(stage)
        mask = np.array(layer.mask)
        np.testing.assert_array_equal(mask.sum(0), [8 - 2 * stage] * 2)
    for group in range(2):
        strength = np.abs(kernel[:, group::2]).sum(1)
        assert set(np.flatnonzero(mask[:, group])) == set(np.argsort(strength)[-2:])
    expected = x @ (kernel * np.tile(mask, (1, 2)))
    np.testing.assert_allclose(answer(layer, x), expected, rtol=1e-4, atol=1e-5)


def test_the_group_lasso_adds_the_norms_of_each_input_in_each_group():
    layer = again(layers.LearnedGroupConv(4, groups=2, condense_factor=4))
    layer.build((2, 3, 3, 8))
    kernel, mask = noise(8, 4), np.ones((8, 2), bool)
    mask[3, 1] = 0  # an input that is gone adds nothing, but for what keeps the root's slope finite
    layer.set_weights([kernel, mask])
    by_hand = sum(
        np.linalg.norm(kernel[i, group::2]) for i in range(8) for group in (0, 1) if mask[i, group]
    )
    assert float(layer.group_lasso()) == pytest.approx(by_hand, abs=2e-3)


def test_a_condensed_net_converts_into_grouped_convolutions():
    from striate.models.condensenet import convert

    keras.utils.set_random_seed(0)
    spec = get_spec("condensenet86_cifar")
    model = create_model(spec.name, input_shape=(8, 8, 3), layers=2)
    for layer in model.layers:
        if isinstance(layer, layers.LearnedGroupConv):
            layer.condense(layer.condense_factor - 1)
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([noise(4, w.shape[0])[i] ** 2 for i, w in enumerate(layer.weights)])
    x = noise(2, 8, 8, 3)
    after = convert(model, layers=2)
    assert after.count_params() < model.count_params()
    np.testing.assert_allclose(answer(after, x), answer(model, x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("condensenet86_cifar", 520_202), ("condensenet74_g8", 2_935_416)],
)
def test_converted_nets_count_as_published(name, parameters):
    with keras.StatelessScope(initialize_variables=False):
        model = create_model(name, converted=True)
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == parameters


# === ENAS ===


def test_the_training_head_of_enas_counts_as_in_its_code():
    with keras.StatelessScope(initialize_variables=False):
        model = create_model("enas_micro_cifar", training_heads=True)
    assert model.output_shape == [(None, 10), (None, 10)]
    trainable = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    assert trainable - get_spec(model.name).trainable == 494_848


# === RandWire ===


@pytest.mark.parametrize("graph", ["WS", "ER", "BA"])
def test_random_graphs_are_seeded_and_connected(graph):
    import random

    from striate.models.randwire import connected, draw

    edges = draw(graph, 16, random.Random(3))
    assert edges == draw(graph, 16, random.Random(3))
    assert edges != draw(graph, 16, random.Random(4))
    assert connected(16, edges)
    assert all(0 <= a < b < 16 for a, b in edges)
    expected = {"WS": 32, "BA": 5 * 11}
    assert len(edges) == expected.get(graph, len(edges))


def test_training_refuses_a_net_that_gives_a_map():
    from striate.train.build import start_of
    from striate.train.recipe import make_recipe

    with pytest.raises(UsageError, match="each pixel"):
        start_of(make_recipe({"model": {"name": "fcn8s_vgg16"}}))
