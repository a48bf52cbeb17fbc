"""What layers refuse: shapes and numbers for which they would answer wrongly, or not at all."""

import keras
import numpy as np
import pytest

from by_hand import answer, noise
from striate import layers
from striate.errors import UsageError

MAP = noise(2, 8, 8, 6)


@pytest.mark.parametrize(
    "layer",
    [
        layers.SumPooling2D(9),
        layers.L2Pooling2D(9),
        layers.DistanceWeightedPooling2D(9),
        layers.SAFPooling2D(9),
        layers.CeilMaxPooling2D(9, 1),
        layers.TrainableSubsampling(9),
        layers.LocallyConnected2D(4, 9),
        layers.TableConv2D(((0, 1),), 9),
        layers.DeformableConv2D(4, 9, padding="valid"),
        layers.SpatiallySeparableConv2D(4, 9, padding="valid"),
        layers.BinaryConv2D(4, 9),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_a_window_larger_than_the_map_is_refused(layer):
    with pytest.raises(UsageError, match=r"a map of at least \d x \d, got 8 x 8"):
        layer(MAP)


def test_a_window_as_large_as_the_map_fits():
    np.testing.assert_allclose(
        answer(layers.SumPooling2D(8), MAP)[:, 0, 0], MAP.sum(axis=(1, 2)), rtol=1e-4, atol=1e-4
    )
    assert answer(layers.BinaryConv2D(4, 9, pad=1), MAP).shape == (2, 2, 2, 4)
    assert answer(layers.SumPooling2D(9, padding="same"), MAP).shape == (2, 1, 1, 6)


def test_a_padding_that_there_is_not_is_refused():
    with pytest.raises(UsageError, match="expected padding valid or same, got 'full'"):
        layers.SumPooling2D(2, padding="full")(MAP)


@pytest.mark.parametrize(
    "layer",
    [layers.WeightedSum(), layers.ShakeShake(), layers.HighwayGate()],
    ids=lambda layer: type(layer).__name__,
)
def test_maps_of_two_shapes_are_not_mixed(layer):
    with pytest.raises(UsageError, match="expected inputs of one shape"):
        layer([MAP, MAP[..., :1]])


def test_a_sum_of_one_map_without_its_list_is_refused():
    with pytest.raises(UsageError, match="expected a list of maps"):
        layers.WeightedSum()(MAP)


def test_maps_of_unknown_sides_are_alike():
    known, unknown = keras.Input((8, 8, 6)), keras.Input((None, None, 6))
    assert layers.WeightedSum()([known, unknown]).shape == (None, 8, 8, 6)


def test_columns_of_two_shapes_are_not_joined():
    with pytest.raises(UsageError, match="expected inputs of one shape"):
        layers.FractalJoin()([MAP, MAP[..., :1], np.zeros(2, "int32")])


def test_each_of_several_logits_wants_its_temperature():
    with pytest.raises(UsageError, match="each of 3 temperatures, got 2"):
        layers.MeanProbability((1, 1, 1))([MAP, MAP])


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.MeanProbability((1, 0)),
        lambda: layers.FractalJoin(1.5),
        lambda: layers.DrawColumn(3, share=-0.1),
        lambda: layers.SAFPooling2D(2, rate=1.0),
    ],
)
def test_a_chance_or_temperature_that_cannot_be_is_refused(make):
    with pytest.raises(UsageError, match="expected"):
        make()


@pytest.mark.parametrize("number", [0, -1, 1.5, "3", True])
@pytest.mark.parametrize(
    "make",
    [
        layers.BinaryDense,
        lambda n: layers.BinaryConv2D(4, n),
        lambda n: layers.BinaryConv2D(4, 3, strides=n),
        layers.CeilMaxPooling2D,
        lambda n: layers.CeilMaxPooling2D(3, n),
        layers.ChannelShuffle,
        layers.CircularConv2D,
        layers.CircularChain2D,
        lambda n: layers.DeformableConv2D(4, 3, n),
        layers.DrawColumn,
        layers.HighwayGate,
        lambda n: layers.LearnedGroupConv(4, 2, n),
        lambda n: layers.LocalResponseNormalization(size=n),
        lambda n: layers.LocallyConnected2D(4, n),
        layers.MapDense,
        layers.SAFPooling2D,
        layers.SelectChannels,
        lambda n: layers.SpatiallySeparableConv2D(4, 3, between=n),
        lambda n: layers.SpatialPyramidPooling2D((1, n)),
        lambda n: layers.SumPooling2D(2, n),
        lambda n: layers.TableConv2D(((0, 1),), n),
        layers.TrainableSubsampling,
    ],
)
def test_a_number_of_units_or_pixels_that_cannot_be_is_refused(make, number):
    with pytest.raises(UsageError, match="as a whole number of at least 1, got"):
        make(number)


def test_more_channels_than_a_tensor_has_are_refused_outside_a_net_too():
    with pytest.raises(UsageError, match="at least 9 channels, got 6"):
        layers.SliceChannels(3, 9)(MAP)


def test_a_table_cannot_count_from_the_end():
    with pytest.raises(UsageError, match="input map -1, there are 6"):
        layers.TableConv2D(((-1, 2),), 3)(MAP)


def test_pixels_are_normalised_by_as_many_numbers_as_they_have_channels():
    three = {"mean": [0.0] * 3, "scale": [1.0] * 3}
    with pytest.raises(UsageError, match="expected 3 channels, got 6"):
        layers.Normalise(order="rgb", **three)(MAP)
    with pytest.raises(UsageError, match="a mean and a scale for each channel, got 3 and 2"):
        layers.Normalise(order="rgb", mean=[0.0] * 3, scale=[1.0] * 2)
    with pytest.raises(UsageError, match="expected order rgb or bgr, got 'RGB'"):
        layers.Normalise(order="RGB", **three)


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (layers.L2Pooling2D(2, dtype="float16"), 300 * MAP),
        (layers.SecondOrderPooling2D(dtype="float16"), np.full((1, 32, 32, 2), 100, "float32")),
        (layers.HardwiredChannels(dtype="float16"), 255 * np.abs(noise(1, 3, 8, 8, 1))),
    ],
    ids=lambda x: type(x).__name__,
)
def test_half_precision_does_not_overflow_where_the_answer_fits(layer, x):
    exact = type(layer).from_config({**layer.get_config(), "dtype": "float32"})
    x = x.astype("float16").astype("float32")
    found, expected = answer(layer, x), answer(exact, x)
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)
