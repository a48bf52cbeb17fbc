"""Pictures whose scores rounding alone decides are not held against an exported form."""

import keras
import numpy as np
import pytest

from making import tiny_artifact
from striate.errors import DisagreementError
from striate.export import undecided
from striate.layers import BinaryDense


@pytest.fixture
def difference_of_two():
    """Logits that hang on the sign of x0 - x1 and on nothing else."""
    inputs = keras.Input((2,))
    x = keras.layers.Dense(1, use_bias=False, name="difference")(inputs)
    x = BinaryDense(3, binary_inputs=True)(x)
    net = keras.Model(inputs, x)
    net.get_layer("difference").set_weights([np.array([[1.0], [-1.0]])])
    return net


def test_a_picture_wavers_where_a_number_before_a_sign_is_within_rounding_of_zero(
    difference_of_two,
):
    net = difference_of_two
    net.layers[-1].set_weights(
        [np.array([[1.0, -1.0, 1.0]]) if w.ndim == 2 else w for w in net.layers[-1].get_weights()]
    )
    inputs = np.array([[5.0, 5.0], [5.0, 4.0], [4.0, 5.0], [0.0, 0.0]], "float32")
    assert undecided.takes_signs(net)
    assert undecided.wavers(net, inputs).tolist() == [True, False, False, False]


def test_nets_without_signs_are_compared_on_every_picture(tmp_path):
    artifact = tiny_artifact(tmp_path)
    images, scores = artifact.goldens()
    kept, theirs = undecided.decided(artifact, images, scores)
    assert kept is images
    assert theirs is scores


def test_a_net_that_only_rounding_decides_is_refused(tmp_path, monkeypatch):
    artifact = tiny_artifact(tmp_path, name="xnor_vgg_mnist", shape=(28, 28, 1))
    images, scores = artifact.goldens()
    monkeypatch.setattr(undecided, "wavers", lambda net, x, t: np.arange(len(x)) > 0)
    kept, _ = undecided.decided(artifact, images, scores)
    assert len(kept) == 1
    monkeypatch.setattr(undecided, "wavers", lambda net, x, t: np.ones(len(x), bool))
    with pytest.raises(DisagreementError, match="rounding alone changes"):
        undecided.decided(artifact, images, scores)
