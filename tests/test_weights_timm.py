"""Weights of timm's nets give timm's logits."""

import numpy as np
import pytest

from oracles import assert_same_logits, torch, torchvision
from striate.registry import create_model, list_models, open_weights

pytestmark = pytest.mark.oracle

TINY, ODD, SMALL, INCEPTION = (33, 49, 3), (65, 97, 3), (64, 96, 3), (75, 107, 3)
UNITS = 64  # in each hidden dense layer of VGG, whose own 4096 take a gigabyte in float64
AUTHORS = {"symmetric_padding": False}

# timm's -> ours, the picture to compare on, and what must be said because the file does not tell.
NETS: dict[str, tuple] = {
    "vgg11": ("vgg11", SMALL),
    "vgg13": ("vgg13", TINY),
    "vgg16": ("vgg16", TINY),
    "vgg19": ("vgg19", TINY),
    "vgg11_bn": ("vgg11_bn", TINY),
    "vgg13_bn": ("vgg13_bn", TINY),
    "vgg16_bn": ("vgg16_bn", TINY),
    "vgg19_bn": ("vgg19_bn", TINY),
    "inception_v3": ("inception_v3", INCEPTION),
    "inception_v4": ("inception_v4", INCEPTION),
    "inception_resnet_v2": ("inception_resnet_v2", INCEPTION),
    "resnet18": ("resnet18", ODD),
    "resnet34": ("resnet34", TINY),
    "resnet50": ("resnet50", TINY),
    "resnet101": ("resnet101", TINY),
    "resnet152": ("resnet152", TINY),
    "resnet200": ("resnet200", TINY),
    "wide_resnet50_2": ("wide_resnet50_2", TINY),
    "resnext50_32x4d": ("resnext50_32x4d", TINY),
    "resnext101_32x4d": ("resnext101_32x4d", TINY),
    "resnext101_64x4d": ("resnext101_64x4d", TINY),
    "legacy_seresnet50": ("se_resnet50", ODD),
    "legacy_seresnet101": ("se_resnet101", TINY),
    "legacy_seresnet152": ("se_resnet152", TINY),
    "legacy_seresnext50_32x4d": ("se_resnext50_32x4d", TINY),
    "legacy_seresnext101_32x4d": ("se_resnext101_32x4d", TINY),
    "legacy_senet154": ("senet154", TINY),
    "densenet121": ("densenet121", TINY),
    "densenet161": ("densenet161", TINY),
    "densenet169": ("densenet169", TINY),
    "densenet201": ("densenet201", TINY),
    "dpn68": ("dpn68", TINY),
    "dpn92": ("dpn92", TINY),
    "dpn98": ("dpn98", TINY),
    "dpn131": ("dpn131", TINY),
    "mobilenetv1_100": ("mobilenet_v1_100", TINY),
    "mobilenetv2_035": ("mobilenet_v2_035", SMALL),
    "mobilenetv2_050": ("mobilenet_v2_050", TINY),
    "mobilenetv2_075": ("mobilenet_v2_075", TINY),
    "mobilenetv2_100": ("mobilenet_v2_100", TINY),
    "mobilenetv2_140": ("mobilenet_v2_140", TINY),
    "mobilenetv3_large_100": ("mobilenet_v3_large", SMALL),
    "mobilenetv3_small_100": ("mobilenet_v3_small", ODD),
    "tf_mobilenetv3_large_100": ("mobilenet_v3_large", ODD, AUTHORS),
    "tf_mobilenetv3_small_100": ("mobilenet_v3_small", SMALL, AUTHORS),
    "semnasnet_050": ("mnasnet_a1_050", TINY),
    "semnasnet_075": ("mnasnet_a1_075", TINY),
    "semnasnet_100": ("mnasnet_a1_100", TINY),
    "semnasnet_140": ("mnasnet_a1_140", TINY),
    "mnasnet_050": ("mnasnet_b1_050", SMALL),
    "mnasnet_075": ("mnasnet_b1_075", TINY),
    "mnasnet_100": ("mnasnet_b1_100", TINY),
    "mnasnet_140": ("mnasnet_b1_140", TINY),
    "nasnetalarge": ("nasnet_a_large", ODD),
}
QUICK = {
    *("vgg11", "inception_v4", "inception_resnet_v2", "resnet18", "legacy_seresnet50"),
    *("dpn68", "mobilenetv1_100", "mobilenetv2_035", "mobilenetv3_small_100"),
    *("tf_mobilenetv3_small_100", "semnasnet_050"),
}


def oracle(name: str, **options) -> torch.nn.Module:
    """timm's net of that name."""
    torchvision()  # which timm imports
    timm = pytest.importorskip("timm", reason="needs timm as the oracle")
    net = timm.create_model(name, **options)
    if name.startswith("vgg"):
        from timm.models.vgg import ConvMlp

        net.pre_logits = ConvMlp(512, UNITS)
        net.head.fc = torch.nn.Linear(UNITS, net.num_classes)
    return net


def ours_of(name: str) -> tuple[str, tuple[int, int, int], dict]:
    """Our net, the picture's shape and the options to build it with."""
    ours, shape, *said = NETS[name]
    narrow = {"fc_units": UNITS} if name.startswith("vgg") else {}
    return ours, shape, {**narrow, **(said[0] if said else {})}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.slow]) for n in NETS],
)
def test_timm_s_weights_give_timm_s_logits(name, tmp_path):
    ours, shape, options = ours_of(name)
    assert_same_logits(ours, oracle(name), shape, tmp_path, **options)


# === What a file tells ===

SYMMETRIC = {"symmetric_padding": True}
TOLD: dict[str, tuple] = {  # preprocessing, options
    "vgg11_bn": ("torch", {}),
    "inception_v4": ("tf", {}),
    "inception_resnet_v2": ("tf", {}),
    "resnet18": ("torch", {}),
    "legacy_seresnet50": ("torch", {}),
    "dpn68": ("dpn", {}),
    "mobilenetv1_100": ("tf", SYMMETRIC),
    "mobilenetv2_035": ("torch", SYMMETRIC),
    "mobilenetv3_small_100": ("torch", SYMMETRIC),
    "tf_mobilenetv3_small_100": ("tf", AUTHORS),
    "semnasnet_050": ("torch", SYMMETRIC),
    "nasnetalarge": ("tf", {"zeros_in_max": False}),
}
LARGE = {"inception_resnet_v2", "nasnetalarge"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if n in LARGE else []) for n in TOLD],
)
def test_the_file_tells_preprocessing_options_and_classes(name, tmp_path):
    from safetensors.torch import save_file

    ours, shape, options = ours_of(name)
    theirs = oracle(name, num_classes=5)
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    opened = open_weights(ours, tmp_path / "model.safetensors", **options)
    assert (opened.preprocess, dict(opened.options), opened.classes) == (*TOLD[name], 5)
    preset = "dpn" if name == "dpn68" else {(0.5,) * 3: "tf"}.get(mean(theirs), "torch")
    assert opened.preprocess == preset
    model = create_model(ours, num_classes=3, input_shape=shape, weights=opened, **options)
    assert model.output_shape == (None, 3)


def mean(net: torch.nn.Module) -> tuple[float, ...]:
    """The level that timm takes off a picture of 0 to 1 before this net."""
    return tuple(net.default_cfg["mean"])


PUBLISHED = {
    spec.name: spec.weights[0]
    for spec in list_models(pretrained=True)
    if spec.weights[0].url.startswith("https://github.com/rwightman/")
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_weights_are_where_timm_says(name):
    torchvision()
    timm = pytest.importorskip("timm", reason="needs timm as the oracle")
    (theirs,) = (n for n, (ours, *_) in NETS.items() if ours == name)
    (url,) = {timm.get_pretrained_cfg(tag).url for tag in timm.list_pretrained(f"{theirs}.*")}
    assert PUBLISHED[name].url == url
    assert f"-{PUBLISHED[name].hash.removeprefix('sha256:')}.pth" in url


def test_a_convolution_over_the_whole_map_is_a_dense_layer(tmp_path):
    """timm's VGG slides its first dense layer; the rows of ours are the map's in order."""
    theirs = oracle("vgg11")
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    weights = tmp_path / "theirs.pth"
    ours = create_model("vgg11", input_shape=SMALL, weights=weights, fc_units=UNITS)
    kernel = theirs.pre_logits.fc1.weight.detach().numpy()  # [f, c, h, w]
    dense = np.asarray(ours.get_layer("fc1").kernel).reshape(7, 7, 512, UNITS)
    np.testing.assert_array_equal(dense, kernel.transpose(2, 3, 1, 0))
