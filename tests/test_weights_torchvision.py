"""Weights of torchvision's nets give torchvision's logits, whatever they were saved from."""

import itertools
import re

import keras
import numpy as np
import pytest

from comparing import float64, pictures
from oracles import answer, assert_same_logits, made_up, torch, torchvision
from striate.registry import create_model, get_spec, list_models, open_weights

pytestmark = pytest.mark.oracle

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
    *("vgg11", "vgg13", "vgg16", "vgg19", "vgg13_bn", "vgg16_bn", "vgg19_bn"),
    *("resnet34", "resnet101", "resnet152", "wide_resnet50_2", "resnext101_64x4d"),
    *("densenet161", "densenet169", "densenet201"),
    *("squeezenet1_1", "mobilenet_v3_large"),
    *("mnasnet_b1_075", "mnasnet_b1_100", "mnasnet_b1_130"),
}
# Nets whose other tests wait too.
LARGE = {"alexnet_single", "vgg11_bn", "inception_v3", "densenet121", "resnext50_32x4d"}
UNITS = 64  # of the hidden dense layers of AlexNet and VGG, which hold most of their weights


def rows(names, slow: set[str]) -> list:
    return [pytest.param(n, marks=[pytest.mark.slow] if n in slow else []) for n in names]


def oracle(name: str, **options) -> torch.nn.Module:
    """torchvision's net of that name, without the weights that two nets take long to draw."""
    if name in ("googlenet", "inception_v3"):
        options = {"init_weights": False, **options}
    net = getattr(torchvision(), name)(weights=None, **options)
    return narrowed(net) if has_units(name) else net


def has_units(name: str) -> bool:
    return name.startswith(("alexnet", "vgg"))


def narrowed(net: torch.nn.Module) -> torch.nn.Module:
    """The net with `UNITS` in each hidden dense layer."""
    places = [n for n, m in enumerate(net.classifier) if isinstance(m, torch.nn.Linear)]
    first, last = net.classifier[places[0]], net.classifier[places[-1]]
    sizes = (first.in_features, UNITS, UNITS, last.out_features)
    for place, (inputs, outputs) in zip(places, itertools.pairwise(sizes), strict=True):
        net.classifier[place] = torch.nn.Linear(inputs, outputs)
    return net


@pytest.mark.parametrize("name", rows(NETS, SLOW))
def test_torchvision_s_weights_give_torchvision_s_logits(name, tmp_path):
    theirs, shape = NETS[name]
    options = {"fc_units": UNITS} if has_units(theirs) else {}
    assert_same_logits(name, oracle(theirs), shape, tmp_path, **options)


# === Training heads ===

# A head of theirs -> the module whose output it sees.
HEADS = {
    "googlenet_bn": {"aux1": "inception4a", "aux2": "inception4d"},
    "inception_v3": {"AuxLogits": "Mixed_6e"},
}


class WithHeads(torch.nn.Module):
    """Its logits and behind them those of its training heads, which it leaves out in `eval`."""

    def __init__(self, net: torch.nn.Module, heads: dict[str, str]):
        super().__init__()
        self.net, self.heads, self.seen = net, heads, {}
        for inner in heads.values():
            getattr(net, inner).register_forward_hook(self.keep(inner))

    def keep(self, inner: str):
        return lambda module, inputs, output: self.seen.update({inner: output})

    def forward(self, x):
        logits = self.net(x)
        inner = [getattr(self.net, head)(self.seen[at]) for head, at in self.heads.items()]
        return torch.cat([logits, *inner], dim=1)


@pytest.mark.parametrize("name", rows(HEADS, LARGE))
def test_training_heads_are_loaded_too(name, tmp_path):
    shape = get_spec(name).input_shape  # torchvision's heads of Inception v3 see no smaller one
    theirs = oracle(NETS[name][0], num_classes=5)
    both = made_up(WithHeads(theirs, HEADS[name]), shape)
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    x = pictures(shape, 2)
    with float64():
        ours = create_model(name, weights=tmp_path / "theirs.pth", training_heads=True)
        logits = np.concatenate([keras.ops.convert_to_numpy(y) for y in ours(x)], axis=1)
    np.testing.assert_allclose(logits, answer(both, x), rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", rows(HEADS, LARGE))
def test_files_without_training_heads_load(name, tmp_path):
    theirs = oracle(NETS[name][0], num_classes=5, aux_logits=False)
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    ours = create_model(name, input_shape=NETS[name][1], weights=tmp_path / "theirs.pth")
    assert ours.output_shape == (None, 5)


# === What a file tells ===

SYMMETRIC = {"symmetric_padding": True}
TOLD = {  # preprocessing, options
    "alexnet_single": ("torch", {}),
    "vgg11_bn": ("torch", {}),
    "googlenet_bn": ("tf", {}),
    "inception_v3": ("tf", {"count_padding": True}),
    "resnet18": ("torch", {}),
    "wide_resnet50_2": ("torch", {}),
    "resnext50_32x4d": ("torch", {}),
    "densenet121": ("torch", {}),
    "squeezenet1_1": ("torch", {}),
    "mobilenet_v2_100": ("torch", SYMMETRIC),
    "mobilenet_v3_small": ("torch", SYMMETRIC),
    "mnasnet_b1_050": ("torch", SYMMETRIC),
}


@pytest.mark.parametrize("name", rows(TOLD, SLOW | LARGE))
def test_the_file_tells_preprocessing_options_and_classes(name, tmp_path):
    theirs, shape = NETS[name]
    torch.save(oracle(theirs, num_classes=5).state_dict(), tmp_path / "theirs.pth")
    opened = open_weights(name, tmp_path / "theirs.pth")
    assert (opened.preprocess, dict(opened.options), opened.classes) == (*TOLD[name], 5)
    options = {"fc_units": UNITS} if has_units(theirs) else {}
    model = create_model(name, num_classes=3, input_shape=shape, weights=opened, **options)
    assert model.output_shape == (None, 3)


def test_older_files_of_densenets_number_the_parts_of_a_layer_behind_a_dot(tmp_path):
    state = oracle("densenet121").state_dict()
    part = re.compile(r"(denselayer\d+\.(?:norm|conv))([12])")
    torch.save(state, tmp_path / "new.pth")
    torch.save({part.sub(r"\1.\2", key): v for key, v in state.items()}, tmp_path / "old.pth")
    new, old = (open_weights("densenet121", tmp_path / f) for f in ("new.pth", "old.pth"))
    assert old.names["stage1_block1_1_bn"] == "features.denseblock1.denselayer1.norm.1"
    for ours in new.names.keys() - {"stage1_block0_conv", "stage1_block0_bn"}:
        for a, b in zip(new.arrays[new.names[ours]], old.arrays[old.names[ours]], strict=True):
            np.testing.assert_array_equal(a, b)


PUBLISHED = {
    spec.name: spec
    for spec in list_models(pretrained=True)
    if spec.weights[0].url.startswith("https://download.pytorch.org/models/")
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_weights_are_torchvision_s_first(name):
    published = torchvision().get_model_weights(NETS[name][0]).IMAGENET1K_V1
    (entry,) = PUBLISHED[name].weights
    assert entry.url == published.url
    assert entry.hash.removeprefix("sha256:") in published.url
    assert published.meta["num_params"] == PUBLISHED[name].trainable
