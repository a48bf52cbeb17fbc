"""Weights of torchvision's nets give torchvision's logits, whatever they were saved from."""

import pytest

from oracles import assert_same_logits, torchvision

SMALL, ODD = (64, 96, 3), (65, 97, 3)

# ours -> torchvision's, and the picture to compare on: no smaller than the net can see.
NETS = {
    "alexnet_single": ("alexnet", (224, 224, 3)),
    "vgg11": ("vgg11", SMALL),
    "vgg13": ("vgg13", SMALL),
    "vgg16": ("vgg16", SMALL),
    "vgg19": ("vgg19", SMALL),
    "vgg11_bn": ("vgg11_bn", SMALL),
    "vgg13_bn": ("vgg13_bn", SMALL),
    "vgg16_bn": ("vgg16_bn", SMALL),
    "vgg19_bn": ("vgg19_bn", SMALL),
    "googlenet_bn": ("googlenet", ODD),
    "inception_v3": ("inception_v3", (107, 139, 3)),
    "resnet18": ("resnet18", SMALL),
    "resnet34": ("resnet34", ODD),
    "resnet50": ("resnet50", SMALL),
    "resnet101": ("resnet101", SMALL),
    "resnet152": ("resnet152", SMALL),
    "wide_resnet50_2": ("wide_resnet50_2", ODD),
    "resnext50_32x4d": ("resnext50_32x4d", ODD),
    "resnext101_64x4d": ("resnext101_64x4d", SMALL),
    "densenet121": ("densenet121", ODD),
    "densenet161": ("densenet161", ODD),
    "densenet169": ("densenet169", ODD),
    "densenet201": ("densenet201", ODD),
    "squeezenet1_0": ("squeezenet1_0", SMALL),
    "squeezenet1_1": ("squeezenet1_1", SMALL),
    "mobilenet_v2_100": ("mobilenet_v2", SMALL),
    "mobilenet_v3_large": ("mobilenet_v3_large", SMALL),
    "mobilenet_v3_small": ("mobilenet_v3_small", ODD),
    "mnasnet_b1_050": ("mnasnet0_5", SMALL),
    "mnasnet_b1_075": ("mnasnet0_75", ODD),
    "mnasnet_b1_100": ("mnasnet1_0", SMALL),
    "mnasnet_b1_130": ("mnasnet1_3", SMALL),
}
SLOW = {
    *("vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"),
    *("resnet34", "resnet101", "resnet152", "wide_resnet50_2", "resnext101_64x4d"),
    *("densenet161", "densenet169", "densenet201"),
    *("mnasnet_b1_075", "mnasnet_b1_100", "mnasnet_b1_130"),
}


def oracle(name: str, **options):
    """torchvision's net of that name; without its slow initial weights."""
    if name in ("googlenet", "inception_v3"):
        options = {"init_weights": False, **options}
    return getattr(torchvision(), name)(weights=None, **options)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in NETS],
)
def test_torchvision_s_weights_give_torchvision_s_logits(name, tmp_path):
    theirs, shape = NETS[name]
    assert_same_logits(name, oracle(theirs), shape, tmp_path)
