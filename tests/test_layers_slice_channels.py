"""SliceChannels: what it keeps, and what it refuses."""

import keras
import numpy as np
import pytest

from striate.errors import UsageError
from striate.layers import SliceChannels


def test_parts_put_together_again_are_the_whole():
    x = np.random.default_rng(0).standard_normal((2, 3, 3, 7)).astype("float32")
    first, second = SliceChannels(0, 3), SliceChannels(3, 7)
    parts = [keras.ops.convert_to_numpy(layer(x)) for layer in (first, second)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=-1), x)
    assert second.compute_output_shape((None, 3, 3, 7)) == (None, 3, 3, 4)


def test_its_configuration_makes_it_again():
    again = SliceChannels.from_config(SliceChannels(2, 5).get_config())
    assert (again.start, again.stop) == (2, 5)


@pytest.mark.parametrize("bounds", [(3, 3), (-1, 2)])
def test_a_slice_of_nothing_is_refused(bounds):
    with pytest.raises(UsageError, match="start < stop"):
        SliceChannels(*bounds)


def test_more_channels_than_there_are_is_refused():
    with pytest.raises(UsageError, match="at least 8 channels, got 7"):
        SliceChannels(0, 8)(keras.Input((3, 3, 7)))
