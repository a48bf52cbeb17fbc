"""The contract that every registered net keeps, held against the built graph."""

import re

import keras
import numpy as np
import pytest

from striate import costs
from striate.errors import UsageError
from striate.registry import create_model, get_spec, list_models, without_values

pytestmark = pytest.mark.sweep

# Only depth or width tells these from a sister, which shows quickly what they would show slowly.
SISTERS = {
    "alexnet_ungrouped",
    *("vgg13", "vgg16", "vgg16_c", "vgg19", "vgg13_bn", "vgg16_bn", "vgg19_bn"),
    *("resnet34", "resnet101", "resnet152"),
    *("shake_shake26_2x96d_cifar", "simpnet_8m_cifar", "diracnet34", "diracnet28_5_cifar"),
    *("preresnet110_cifar", "preresnet200", "stochastic_depth1202_cifar"),
    *("resnet200", "resnet1202_cifar", "preresnet1001_cifar"),
    *("resnext101_32x4d", "resnext101_64x4d", "resnext101_2x64d", "resnext29_16x64d_cifar"),
    "wide_resnet50_2",
    *("wrn16_8", "wrn28_10", "wrn40_4", "wrn52_1"),
    *("se_resnet101", "se_resnet152", "se_resnext50_32x4d", "se_resnext101_32x4d"),
    *("resnet32_cifar", "resnet44_cifar", "resnet56_cifar", "resnet110_cifar"),
    *("mobilenet_v1_050", "mobilenet_v1_075", "mobilenet_v1_100"),
    *("mobilenet_v2_050", "mobilenet_v2_075", "mobilenet_v2_100"),
    *("mobilenet_v2_130", "mobilenet_v2_140"),
    *("googlenet_bn", "inception_v4", "inception_resnet_v2"),
    *("allcnn_base_a", "allcnn_base_b", "strided_cnn_a", "strided_cnn_c"),
    *("convpool_cnn_b", "convpool_cnn_c", "allcnn_a", "allcnn_b"),
    *("densenet161", "densenet169", "densenet201"),
    *("densenet100_12_cifar", "densenet100_24_cifar"),
    *("densenet_bc100_12_cifar", "densenet_bc250_24_cifar", "densenet_bc190_40_cifar"),
    *(f"mnasnet_{v}_{m}" for v in ("a1", "b1") for m in ("050", "075", "100", "130", "140")),
    *("mobilenet_v3_large", "shufflenet_v1_g2", "shufflenet_v1_g4", "shufflenet_v1_g8"),
    *("sparsenet100_36_cifar", "condensenet74_g8", "condensenet182_cifar", "randwire_ws_regular"),
    *("fcn16s_vgg16", "fcn32s_vgg16", "nasnet_a_large"),
    *("dpn92", "dpn98", "dpn131"),
    *("bwn_mobilenet_v1", "bwn_vgg_mnist", "xnor_vgg_mnist"),
}
# So many layers that building the graph alone takes seconds.
DEEP = {
    *("densenet161", "densenet169", "densenet201"),
    *("densenet100_12_cifar", "densenet100_24_cifar", "densenet_bc100_12_cifar", "dpn92"),
    *("densenet_bc250_24_cifar", "densenet_bc190_40_cifar"),
    *("dpn98", "dpn131", "inception_resnet_v2", "polynet"),
    *("resnet200", "preresnet200", "resnet1202_cifar", "preresnet1001_cifar"),
    "stochastic_depth1202_cifar",
    *("se_resnet152", "se_resnext101_32x4d", "senet154", "nasnet_a_large"),
    *("condensenet182_cifar", "randwire_ws_regular"),
}

ALL = [
    pytest.param(spec, id=spec.name, marks=[pytest.mark.slow] if spec.name in DEEP else [])
    for spec in list_models()
]
SPECS = [
    pytest.param(spec, id=spec.name, marks=[pytest.mark.slow] if spec.name in SISTERS else [])
    for spec in list_models()
]

# How layers may be called; other code finds its way by these names.
LAYER_NAME = re.compile(
    r"input|features|logits(_\w+)?|flatten|adaptive_pool|fc\d+(_\w+)?"
    r"|(stem|top)_\w+|stage\d+_(out|pool(_pad)?|block\d+_\w+)"
)


def at_least_size(spec, *, channels: int = 3, num_classes: int = 10, **options) -> keras.Model:
    """The net at its least size, shrunk by its own `reduced` options."""
    keras.utils.set_random_seed(0)
    shape = (*spec.min_shape, channels)
    options = {**spec.reduced, **options}
    return create_model(spec.name, num_classes=num_classes, input_shape=shape, **options)


@pytest.fixture(scope="module")
def small(request) -> keras.Model:
    """One net at its least size, shared by the tests that only look at it."""
    return at_least_size(request.param)


def each_small_net(test):
    nets = [pytest.param(p.values[0], id=p.id, marks=p.marks) for p in SPECS]
    return pytest.mark.parametrize("small", nets, indirect=True)(test)


def pictures(model: keras.Model, n: int = 4) -> np.ndarray:
    shape = (n, *model.input_shape[1:])
    return np.random.default_rng(0).standard_normal(shape).astype("float32")


def run(model: keras.Model, x: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(x, training=False))


def gradients(model: keras.Model, x: np.ndarray) -> list[np.ndarray]:
    """Of a random combination of the logits, for every trainable variable."""
    weights = np.random.default_rng(1).standard_normal(model.output_shape[1:]).astype("float32")
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = keras.ops.sum(model(x, training=False) * weights)
        found = tape.gradient(loss, [v.value for v in model.trainable_variables])
    else:
        import jax

        def loss_of(trainable):
            others = [v.value for v in model.non_trainable_variables]
            logits, _ = model.stateless_call(trainable, others, x, training=False)
            return keras.ops.sum(logits * weights)

        found = jax.grad(loss_of)([v.value for v in model.trainable_variables])
    assert all(g is not None for g in found)
    return [keras.ops.convert_to_numpy(g) for g in found]


@pytest.mark.parametrize("spec", ALL)
def test_the_graph_is_what_the_spec_says(spec):
    with without_values():
        model = create_model(spec.name)
    assert model.input_shape == (None, *spec.input_shape)
    sides = spec.input_shape[:-1] if "output" in spec.exceptions else ()  # a map of answers
    assert model.output_shape == (None, *sides, spec.classes)
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == spec.trainable
    assert model.count_params() == spec.total
    found = costs.count(model).totals(spec.cam_layer)
    assert found == spec.costs, f"run `python tools/count_costs.py {spec.name}`"

    names = {layer.name for layer in model.layers}
    assert all(LAYER_NAME.fullmatch(name) for name in names), names
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)

    if spec.first_conv:
        first = model.get_layer(spec.first_conv)
        assert first.kernel.shape[-2] == spec.input_shape[-1]
    assert model.output is model.get_layer(spec.head).output
    if spec.cam_layer:
        assert len(model.get_layer(spec.cam_layer).output.shape) == len(spec.input_shape) + 1
    else:
        assert len(spec.input_shape) == 1 or not spec.first_conv
    sides = [model.get_layer(name).output.shape[1] for name in spec.pyramid]
    assert sides == sorted(set(sides), reverse=True)
    assert all(re.fullmatch(r"stage\d+_out", name) for name in spec.pyramid)
    if "features" in spec.exceptions:
        assert spec.features not in names
    else:
        assert len(model.get_layer(spec.features).output.shape) == 2


@each_small_net
def test_answers_at_its_least_size(small):
    logits = run(small, pictures(small))
    assert logits.shape == (4, *small.output_shape[1:-1], 10)
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()


@each_small_net
def test_every_trainable_variable_learns(small):
    found = gradients(small, pictures(small))
    assert all(np.isfinite(g).all() for g in found)
    variables = small.trainable_variables
    still = {v.path for v, g in zip(variables, found, strict=True) if not g.any()}
    if "gradient" not in get_spec(small.name).exceptions:
        assert still == set()


@each_small_net
def test_saved_and_loaded_it_answers_the_same(small, tmp_path):
    x = pictures(small)
    small.save(tmp_path / "net.keras")
    again = keras.saving.load_model(tmp_path / "net.keras")
    np.testing.assert_array_equal(run(small, x), run(again, x))


@pytest.mark.parametrize("spec", SPECS)
def test_takes_grey_pictures_and_two_classes(spec):
    model = at_least_size(spec, channels=1, num_classes=2)
    logits = run(model, pictures(model))
    assert logits.shape == (4, *model.output_shape[1:-1], 2)
    assert np.isfinite(logits).all()


@pytest.mark.parametrize("spec", ALL)
def test_one_pixel_less_is_refused(spec):
    if not spec.min_shape:
        pytest.skip("a vector has no sides")
    least = " x ".join(map(str, spec.min_shape))
    with pytest.raises(UsageError, match=f"at least {least} (pixels|voxels)"):
        create_model(spec.name, input_shape=(*(side - 1 for side in spec.min_shape), 3))


@pytest.mark.parametrize("spec", SPECS)
def test_options_for_fine_tuning_give_a_linear_classifier_on_features(spec):
    if "output" in spec.exceptions:
        pytest.skip(spec.exceptions["output"])
    with without_values():
        model = at_least_size(spec, num_classes=7, **spec.finetune_options)
    head = model.get_layer(spec.head)
    assert isinstance(head, keras.layers.Dense)
    width = model.get_layer(spec.features).output.shape[-1]
    assert head.kernel.shape == (width, 7)


@pytest.mark.parametrize("name", ["lenet5", "squeezenet1_1", "resnet20_cifar", "mobilenet_v2_035"])
def test_logits_are_float32_under_mixed_precision(name):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = at_least_size(get_spec(name))
    finally:
        keras.config.set_dtype_policy(before)
    assert model.layers[1].compute_dtype == "bfloat16"
    assert model.output.dtype == "float32"


# === What single families promise ===


def test_motion_is_found_in_half_precision_as_in_full():
    """A moving wave: the flow divides by small differences of products."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        half = create_model("cnn3d_ji")
    finally:
        keras.config.set_dtype_policy(before)
    frames, height, width, _ = half.input_shape[1:]
    t, y, x = np.ogrid[:frames, :height, :width]
    wave = (np.sin((x - t) / 4) * np.sin((y + t) / 5) / 4)[..., None]
    exact = create_model("cnn3d_ji")
    clip = wave[None].astype("float32")
    found = [net.get_layer("stem_hardwired")(clip) for net in (half, exact)]
    answers, expected = (np.asarray(x, "float32") for x in found)
    np.testing.assert_allclose(answers, expected, atol=0.02 * np.abs(expected).max())


def count(name: str, **options) -> int:
    with without_values():
        model = create_model(name, **options)
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [
        ("resnet18", {"shortcut": "A"}, 11_515_688),
        ("resnet34", {"shortcut": "A"}, 21_623_848),
        ("resnet34", {"shortcut": "C"}, 22_716_840),
        ("resnet18", {"plain": True}, 11_515_688),
        ("resnet20_cifar", {"shortcut": "B"}, 272_474),
        ("resnet110_cifar", {"shortcut": "B"}, 1_730_714),
        ("resnet20_cifar", {"plain": True}, 269_722),
        ("resnet50", {"stride_on_1x1": True}, 25_557_032),
        ("diracnet18", {"folded": True}, 11_511_784),
        ("diracnet34", {"folded": True}, 21_616_232),
        ("densenet40_12_cifar", {"stem_channels": 24}, 1_059_298),
        ("densenet_bc100_12_cifar", {"num_classes": 100}, 800_032),
        ("googlenet", {"training_heads": True}, 13_378_280),
        ("googlenet_bn", {"training_heads": True}, 13_004_888),
        ("bn_inception", {"conv_bias": False}, 11_285_224),
        ("inception_v3", {"training_heads": True}, 27_161_264),
        ("inception_v3", {"bn_scale": False}, 23_817_352),
        ("nin_cifar", {"num_classes": 100}, 984_356),
        ("dsn_cifar", {"training_heads": True}, 3_547_496),
        ("allcnn_c", {"num_classes": 100}, 1_387_108),
        ("lenet5", {"input_shape": (28, 28, 1), "pad": 2}, 61_706),
        ("lenet5", {"input_shape": (32, 32, 3)}, 62_006),
    ],
)
def test_options_count_as_published(name, options, parameters):
    assert count(name, **options) == parameters


def test_shortcut_a_adds_no_weights_and_keeps_the_signal():
    model = create_model("resnet20_cifar")
    inside = keras.Model(
        model.input,
        [model.get_layer("stage1_out").output, model.get_layer("stage2_block1_zeros").output],
    )
    before, after = (keras.ops.convert_to_numpy(t) for t in inside(pictures(model), training=False))
    np.testing.assert_array_equal(after[..., 8:24], before[:, ::2, ::2])
    assert not after[..., :8].any()
    assert not after[..., 24:].any()


@pytest.mark.parametrize(
    ("name", "ceil_mode", "sides"),
    [
        ("squeezenet1_0", True, [54, 27, 13]),
        ("squeezenet1_1", True, [55, 27, 13]),
        ("squeezenet1_1", False, [55, 27, 13]),
    ],
)
def test_squeezenet_maps_have_the_reference_s_sizes(name, ceil_mode, sides):
    spec = get_spec(name)
    with without_values():
        model = create_model(name, ceil_mode=ceil_mode)
    assert [model.get_layer(stage).output.shape[1] for stage in spec.pyramid] == sides


def test_ceil_mode_counts_the_window_that_overhangs():
    from striate.models.blocks import max_pool

    image = keras.Input((6, 6, 1))
    pool = keras.Model(image, max_pool(image, 3, stride=2, ceil_mode=True, name="pool"))
    x = np.arange(36, dtype="float32").reshape(1, 6, 6, 1)
    expected = [[14, 16, 17], [26, 28, 29], [32, 34, 35]]
    np.testing.assert_array_equal(run(pool, x)[0, :, :, 0], expected)


def test_dense_layers_keep_their_size_at_any_resolution():
    with without_values():
        model = create_model("vgg16", input_shape=(96, 160, 3))
    assert model.count_params() == get_spec("vgg16").total


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("squeezenet1_1", {"classifier": "dense"}, "conv or linear"),
        ("resnet18", {"shortcut": "D"}, "A, B or C"),
        ("resnet18", {"stride_on_1x1": True}, "bottleneck"),
        ("resnext50_32x4d", {"width": 8}, "at least 16"),
        ("senet154", {"width": 16}, "multiple of 32"),
        ("allcnn_c", {"classifier": "dense"}, "conv or linear"),
        ("dpn68", {"last_activation": "selu"}, "relu or elu"),
        ("dpn68", {"depths": (3, 4)}, "4 values, each an integer of at least 1"),
        ("densenet121", {"depths": (6, 12, 0, 16)}, "4 values, each an integer of at least 1"),
        ("resnet18", {"depths": 2}, "4 values, each an integer of at least 1"),
        ("resnet18", {"plain": "yes"}, "True or False"),
        ("resnet18", {"survival": 0}, "above 0"),
        ("resnet18", {"dropout": -0.1}, "a number from 0 to 1"),
        ("resnet18", {"dropout": True}, "a number from 0 to 1"),
        ("vgg16", {"fc_units": 2.5}, "an integer of at least 1"),
        ("lenet5", {"pad": -1}, "an integer of at least 0"),
        ("sparsenet40_24_cifar", {"layers": 0}, "at least 1 or None"),
        ("highway10_mnist", {"gate_bias": float("inf")}, "as a number"),
        ("se_resnet50", {"reduction": 300}, "a reduction of at most 256"),
        ("squeezenet1_1", {"classifier": 3}, "a word"),
        ("condensenet74_g4", {"groups": 3}, "groups that divide"),
        ("wrn16_4", {"depth": 17}, "a depth of 10, 16, 22"),
        ("shake_shake26_2x32d_cifar", {"width": 33}, "an even width"),
        ("shake_shake26_2x32d_cifar", {"forward": "keep"}, "forward shake or even"),
        ("nin_cifar", {"pools": ("max", "median")}, "max or average"),
        ("googlenet", {"training_heads": True, "input_shape": (78, 78, 3)}, "at least 79 x 79"),
        ("lenet5", {"pool": "median"}, "average or max"),
        ("lenet5", {"activation": "tan"}, "tanh or relu"),
        ("xnor_mobilenet_v1", {"alpha": 0.0}, "alpha of at least 1/32, got 0.0"),
        ("bwn_resnet18", {"activation_scale": True}, "BWN"),
        ("xnor_vgg_mnist", {"activation_scale": True, "real": True}, "not real"),
    ],
)
def test_an_option_s_wrong_value_is_one_clear_line(name, options, message):
    with pytest.raises(UsageError, match=message):
        create_model(name, **options)
