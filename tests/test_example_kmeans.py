"""The net of filters learnt without labels: what is learnt, and what is left to train."""

import importlib.util

import numpy as np
import pytest

from by_hand import noise
from making import ROOT
from striate.initializers import kmeans_filters

pytestmark = pytest.mark.long

FILE = ROOT / "examples" / "kmeans_net.py"


def test_only_the_classifier_is_left_to_train():
    spec = importlib.util.spec_from_file_location("kmeans_net", FILE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    pictures = noise(40, 16, 16, 1)
    net = example.learnt_net(pictures, classes=3, random=False)
    assert net.output_shape == (None, 3)
    first, second = (layer for layer in net.layers if layer.name.startswith("conv"))
    assert first.trainable_weights == second.trainable_weights == []
    learnt = kmeans_filters(pictures, 16, 5, windows=4000, rounds=5)
    np.testing.assert_array_equal(first.kernel, learnt)
    lengths = np.linalg.norm(np.array(second.kernel).reshape(-1, 64), axis=0)
    np.testing.assert_allclose(lengths, 1, rtol=1e-5)
