"""Weights of torchvision's nets give torchvision's logits."""

import pytest

from oracles import assert_same_logits, torchvision

# ours -> torchvision's, and the picture to compare on: no smaller than the net can see.
NETS = {
    "alexnet_single": ("alexnet", (224, 224, 3)),
    "resnet18": ("resnet18", (64, 96, 3)),
    "resnet50": ("resnet50", (64, 96, 3)),
    "resnet152": ("resnet152", (64, 96, 3)),
}
SLOW = {"resnet152"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in NETS],
)
def test_torchvision_s_weights_give_torchvision_s_logits(name, tmp_path):
    theirs, shape = NETS[name]
    assert_same_logits(name, getattr(torchvision(), theirs)(weights=None), shape, tmp_path)
