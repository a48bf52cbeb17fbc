"""Every registered net, written in every form and loaded again, gives Keras' answers."""

import pytest

from making import tiny_artifact
from striate.export import FORMS, export
from striate.registry import get_spec, list_models
from striate.runtime import FLOAT_TOLERANCE

pytestmark = pytest.mark.sweep

# Net -> what exporters meet in it that they do not meet in the others. Those that are not here
# repeat one of these in other depths and widths, and wait for `pytest -m slow`; but families of
# which none is here do not.
QUICK = {
    "mlp_two_layer": "a vector",
    "cnn3d_ji": "a clip, channels that are hardwired, maps that share no weights",
    "mnist3d": "voxels",
    "lenet5_1998": "a table of connections, trainable subsampling, radial basis functions",
    "alexnet": "convolutions in two groups, local response normalisation",
    "vgg11_lrn": "adaptive pooling",
    "nin_cifar": "pooling that overhangs at the border, maps of classes",
    "allcnn_c": "strides for pooling",
    "fcn8s_vgg16": "a map of answers, transposed convolutions",
    "highway10_mnist": "gates",
    "inception_v3": "modules of branches, kernels of one row or column",
    "resnet20_cifar": "shortcuts that pad channels",
    "densenet_bc100_12_cifar": "dense blocks",
    "fractalnet21_cifar": "joins that draw columns",
    "resnext29_8x64d_cifar": "convolutions in eight groups",
    "squeezenet1_1": "ceil-mode pooling",
    "wrn52_1": "activations before convolutions",
    "xnor_vgg_mnist": "binary weights and activations",
    "condensenet86_cifar": "learned groups",
    "diracnet28_5_cifar": "normalised kernels plus the identity",
    "dpn68": "two paths, cut out of one map",
    "mobilenet_v1_025": "depthwise convolutions",
    "mobilenet_v3_small": "hard sigmoid and swish",
    "mnasnet_a1_035": "squeeze and excitation in some blocks",
    "se_resnet50": "bottlenecks with squeeze and excitation",
    "simpnet_5m_cifar": "biases before batch normalisation",
    "blueprint_conv1": "layers as the user planned them",
    "shake_shake26_2x32d_cifar": "residuals mixed at random",
    "shufflenet_v1_g3": "shuffled channels",
    "delta_orthogonal16_mnist": "circular padding",
    "nas_v1_cifar": "every layer joined from several before",
    "sparsenet40_24_cifar": "sums over layers 1, 2, 4, 8 ... before",
    "randwire_ws_small": "weighted sums along a random graph",
}
# Made with the first seed, this one answers every picture alike.
SEEDS = {"fractalnet21_cifar": 2}
FAMILIES = {get_spec(name).family for name in QUICK}
NETS = [
    pytest.param(
        spec.name,
        marks=[pytest.mark.slow] if spec.name not in QUICK and spec.family in FAMILIES else [],
    )
    for spec in list_models()
]


@pytest.mark.parametrize("name", NETS)
def test_agrees_in_every_form(tmp_path, name):
    spec = get_spec(name)
    shape = (*spec.min_shape, spec.input_shape[-1])
    artifact = tiny_artifact(tmp_path / name, name=name, shape=shape, seed=SEEDS.get(name, 0))
    _, scores = artifact.goldens()
    assert scores.std(axis=0).max() > 20 * FLOAT_TOLERANCE  # or any form would agree
    artifact, rows = export(artifact)
    assert [row.form for row in rows] == list(FORMS)
    assert max(row.max_abs_diff for row in rows) <= FLOAT_TOLERANCE
    assert {row.top1_agreement for row in rows} == {1.0}
    assert set(artifact.manifest.forms) == {"keras", *FORMS}
    artifact.check()
