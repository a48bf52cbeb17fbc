"""Maps over pictures, each held against a computation that owes nothing to it."""

import dataclasses
import os
import subprocess

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from making import PHOTOS, SHIPPED
from striate.artifact import load
from striate.errors import UsageError
from striate.explain import METHODS, draw, explain, subject_of
from striate.explain.activations import activity
from striate.explain.cam import cam
from striate.explain.grad_cam import grad_cam, grad_cam_plus_plus
from striate.explain.guided import guided, guided_backprop
from striate.explain.integrated_gradients import integrated_gradients
from striate.explain.occlusion import occlusion
from striate.explain.saliency import gradient, saliency
from striate.explain.smoothgrad import smoothgrad
from striate.explain.subject import copy_of
from striate.gradients import value_and_gradient
from striate.registry import create_model, deep_graphs

TARGETS = np.array([3, 1])

ON_JAX = """
import sys

sys.modules["tensorflow"] = None  # whether or not it is there
import numpy as np
from striate.explain import explain
from striate.registry import create_model

net = create_model("lenet5", input_shape=(28, 28, 1), weights=sys.argv[1])
x = np.load(sys.argv[2])
methods = sys.argv[4:]
np.savez(sys.argv[3], **{m: explain(net, x, method=m, target=[3, 1]).maps for m in methods})
"""


def pictures(shape, n: int = 2) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (n, *shape)).astype("float32")


def images(shape, n: int = 3) -> np.ndarray:
    return pictures(shape, n).astype(np.uint8)


@pytest.fixture(scope="module")
def linear():
    """A linear classifier of 8 x 6 colour pictures, which explains itself: weight times scale."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 6, 3))
    x = keras.layers.Flatten(name="flatten")(image)
    net = keras.Model(image, keras.layers.Dense(5, name="logits")(x), name="lenet5")
    subject = subject_of(net)
    scale = np.array(subject.preprocess.scale, "float32")
    weights = net.get_layer("logits").get_weights()[0].reshape(8, 6, 3, 5)
    return subject, np.moveaxis(weights * scale[:, None], -1, 0)[TARGETS]


@pytest.fixture(scope="module")
def averaging():
    """A net that averages its last maps and classifies the averages linearly."""
    keras.utils.set_random_seed(1)
    return subject_of(create_model("resnet20_cifar", input_shape=(32, 32, 3)))


def test_the_saliency_of_a_linear_net_is_its_weights(linear):
    subject, weights = linear
    x = pictures((8, 6, 3))
    np.testing.assert_allclose(gradient(subject, x, TARGETS), weights, rtol=1e-5)
    np.testing.assert_allclose(
        saliency(subject, x, TARGETS), np.abs(weights).max(axis=-1), rtol=1e-5
    )


def test_the_gradient_is_what_a_small_step_along_it_does(averaging):
    """Of all pixels of a colour, since a step of one is lost in rounding or bends at a ReLU."""
    x = pictures((32, 32, 3))
    slopes = gradient(averaging, x, TARGETS)
    for colour in range(3):
        step = 0.05 * np.sign(slopes) * (np.arange(3) == colour)
        up, down = (np.asarray(averaging.scores(x + sign * step, TARGETS)) for sign in (1, -1))
        rise = 2 * (slopes * step).sum(axis=(1, 2, 3))
        np.testing.assert_allclose(rise, up - down, rtol=0.02)


def test_smoothgrad_without_noise_is_saliency_and_with_it_the_mean(linear, averaging):
    x = pictures((32, 32, 3))
    quiet = smoothgrad(averaging, x, TARGETS, samples=1, noise=0.0)
    np.testing.assert_allclose(quiet, saliency(averaging, x, TARGETS), rtol=1e-4, atol=1e-7)
    subject, weights = linear  # whose gradient no noise changes
    found = smoothgrad(subject, pictures((8, 6, 3)), TARGETS, samples=5)
    np.testing.assert_allclose(found, np.abs(weights).max(axis=-1), rtol=1e-4)


@pytest.mark.long
def test_integrated_gradients_add_up_to_the_rise_of_the_score(linear, averaging):
    for subject, shape, steps, tolerance in [
        (linear[0], (8, 6, 3), 1, 1e-4),
        (averaging, (32, 32, 3), 128, 0.02),
    ]:
        x = pictures(shape)
        maps = integrated_gradients(subject, x, TARGETS, steps=steps)
        rise = np.asarray(subject.scores(x, TARGETS) - subject.scores(np.zeros_like(x), TARGETS))
        np.testing.assert_allclose(maps.sum(axis=(1, 2)), rise, rtol=tolerance, atol=tolerance)


def test_integrated_gradients_of_a_linear_net_are_weight_times_pixel(linear):
    subject, weights = linear
    x = pictures((8, 6, 3))
    found = integrated_gradients(subject, x, TARGETS, steps=3, baseline=20.0)
    np.testing.assert_allclose(found, (weights * (x - 20)).sum(axis=-1), rtol=1e-3, atol=1e-4)


def test_occlusion_of_a_linear_net_is_what_the_window_held(linear):
    subject, weights = linear
    x = pictures((8, 6, 3))
    held = (weights * (x - 100)).sum(axis=-1)  # per pixel
    found = occlusion(subject, x, TARGETS, window=0.25, stride=0.25, grey=100, batch_size=5)
    for row in range(0, 8, 2):
        window = held[:, row : row + 2, 0:2].sum(axis=(1, 2))
        np.testing.assert_allclose(found[:, row, 0], window, rtol=1e-3, atol=1e-3)


def test_occlusion_leaves_no_pixel_out(averaging):
    found = occlusion(averaging, pictures((32, 32, 3)), TARGETS, window=0.3, stride=0.25)
    assert np.isfinite(found).all()
    with pytest.raises(UsageError, match="leaves no pixel out"):
        occlusion(averaging, pictures((32, 32, 3)), TARGETS, window=0.1, stride=0.2)


def test_the_mean_of_a_cam_is_the_logit_without_its_bias(averaging):
    x = pictures((32, 32, 3))
    maps = np.asarray(averaging.at("stage3_out", x))
    kernel, bias = averaging.net.get_layer("logits").get_weights()
    at_their_size = np.einsum("nhwk,kn->nhw", maps, kernel[:, TARGETS])
    scores = np.asarray(averaging.scores(x, TARGETS))
    np.testing.assert_allclose(at_their_size.mean(axis=(1, 2)) + bias[TARGETS], scores, rtol=1e-4)
    enlarged = keras.ops.image.resize(at_their_size[..., None], (32, 32))[..., 0]
    np.testing.assert_allclose(cam(averaging, x, TARGETS), enlarged, rtol=1e-4, atol=1e-5)


def test_grad_cam_is_cam_where_the_net_averages(averaging):
    """dS/df_k is w_k / (h w) everywhere, so that only the scale and the ReLU differ."""
    x = pictures((32, 32, 3))
    maps = np.asarray(averaging.at("stage3_out", x))
    kernel = averaging.net.get_layer("logits").get_weights()[0][:, TARGETS]
    expected = np.maximum(np.einsum("nhwk,kn->nhw", maps, kernel) / 64, 0)
    enlarged = keras.ops.image.resize(expected[..., None], (32, 32))[..., 0]
    np.testing.assert_allclose(grad_cam(averaging, x, TARGETS), enlarged, rtol=1e-4, atol=1e-6)


def test_grad_cam_plus_plus_is_its_formula(averaging):
    x = pictures((32, 32, 3))
    maps = np.asarray(averaging.at("stage3_out", x))
    slope = averaging.net.get_layer("logits").get_weights()[0][:, TARGETS].T / 64  # [N, K]
    alpha = np.zeros_like(slope)
    for n, k in np.ndindex(*slope.shape):
        g = slope[n, k]
        weight = g**2 / (2 * g**2 + maps[n, ..., k].sum() * g**3)
        alpha[n, k] = 64 * weight * max(g, 0)
    expected = np.maximum(np.einsum("nhwk,nk->nhw", maps, alpha), 0)
    enlarged = keras.ops.image.resize(expected[..., None], (32, 32))[..., 0]
    found = grad_cam_plus_plus(averaging, x, TARGETS)
    np.testing.assert_allclose(found, enlarged, rtol=1e-3, atol=1e-5)


def test_cam_says_which_nets_it_cannot_explain():
    subject = subject_of(create_model("lenet5"))
    with pytest.raises(UsageError, match="grad_cam explains every net"):
        cam(subject, pictures((32, 32, 1)), TARGETS)


def test_a_guided_gradient_passes_where_signal_and_gradient_are_positive():
    keras.utils.set_random_seed(2)
    image = keras.Input((4, 4, 1))
    x = keras.layers.Flatten()(image)
    x = keras.layers.Dense(30, name="hidden")(x)
    x = keras.layers.ReLU()(x)
    x = keras.layers.Dense(20, activation="relu", name="second")(x)
    net = keras.Model(image, keras.layers.Dense(5, name="logits")(x), name="lenet5")
    subject = subject_of(net)
    x = pictures((4, 4, 1))
    (w1, b1), (w2, b2), (w3, _) = (
        net.get_layer(n).get_weights() for n in ("hidden", "second", "logits")
    )
    floats = np.asarray(subject.normalise(x)).reshape(2, 16)
    first = floats @ w1 + b1
    second = np.maximum(first, 0) @ w2 + b2
    slope = w3[:, TARGETS].T
    slope = np.where((second > 0) & (slope > 0), slope, 0) @ w2.T
    slope = np.where((first > 0) & (slope > 0), slope, 0) @ w1.T
    expected = np.abs(slope.reshape(2, 4, 4)) * subject.preprocess.scale[0]
    np.testing.assert_allclose(guided_backprop(subject, x, TARGETS), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("ceiling", [None, 6])
def test_a_rectifier_guides_however_it_is_written(ceiling):
    """As a layer, an activation, the activation of another layer, or a function of keras.ops."""
    name = "relu" if ceiling is None else "relu6"
    spellings = [
        (None, lambda x: keras.layers.ReLU(ceiling)(x)),
        (None, lambda x: keras.layers.Activation(name)(x)),
        (name, lambda x: x),
        (None, getattr(keras.ops, name)),
    ]
    found, alive = [], []
    for activation, after in spellings:
        keras.utils.set_random_seed(0)
        image = keras.Input((8, 8, 3))
        x = after(keras.layers.Conv2D(6, 3, activation=activation)(image))
        x = after(keras.layers.Conv2D(6, 3, activation=activation)(x))
        logits = keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(x))
        subject = subject_of(keras.Model(image, logits, name="lenet5"))
        found.append(guided_backprop(subject, pictures((8, 8, 3)), TARGETS))
        alive.append([row.active for row in activity(subject, pictures((8, 8, 3)))])
        assert not np.allclose(found[-1], saliency(subject, pictures((8, 8, 3)), TARGETS))
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=1e-5)
    assert alive == alive[:1] * 4


def test_guiding_changes_gradients_and_no_answers(averaging):
    x = pictures((32, 32, 3))
    other = guided(averaging)
    np.testing.assert_allclose(averaging.logits(x), other.logits(x), rtol=1e-4, atol=1e-4)
    assert not np.allclose(gradient(averaging, x, TARGETS), gradient(other, x, TARGETS))


@pytest.mark.sweep
@pytest.mark.parametrize("name", ["lenet5", "resnet20_cifar", "mobilenet_v2_035", "vgg11_bn"])
def test_every_method_gives_a_map_of_every_net(name):
    spec_options = {"vgg11_bn": {"fc_units": 16}}.get(name, {})
    shape = {"lenet5": (32, 32, 1), "resnet20_cifar": (32, 32, 3)}.get(name, (64, 48, 3))
    model = create_model(name, num_classes=6, input_shape=shape, **spec_options)
    given = images(shape)
    for method in METHODS:
        if method == "cam" and name in ("lenet5", "vgg11_bn"):
            continue  # their classifiers are not linear in averages
        few = {"samples": 2} if method == "smoothgrad" else {}
        few = {"steps": 2} if method == "integrated_gradients" else few
        found = explain(model, given, method=method, target=[0, 5, "2"], batch_size=2, **few)
        assert found.maps.shape == (3, *shape[:2])
        assert found.maps.dtype == np.float32
        assert np.isfinite(found.maps).all()
        assert found.targets.tolist() == [0, 5, 2]


def test_a_target_for_each_picture_is_its_own_however_they_are_batched(averaging):
    given = images((32, 32, 3))
    for target in ((4, 0, 2), np.array([4, 0, 2])):
        assert explain(averaging, given, target=target, batch_size=2).targets.tolist() == [4, 0, 2]
    with pytest.raises(UsageError, match="one for each of 3, got 4"):
        explain(averaging, given, target=[4, 0, 2, 1], batch_size=2)


def test_pictures_are_explained_alike_alone_and_together(averaging):
    given = images((32, 32, 3))
    together = explain(averaging, given).maps
    for i in range(3):
        np.testing.assert_allclose(
            explain(averaging, given[i : i + 1]).maps[0], together[i], rtol=1e-3, atol=1e-6
        )


def test_the_shipped_net_looks_at_the_cup_and_not_at_the_table(tmp_path):
    found = explain(load(SHIPPED), [PHOTOS / "coffee.jpg"], method="grad_cam")
    assert found.labels[found.targets[0]] == "espresso"
    cup = np.zeros((227, 227), bool)
    cup[:140, 60:170] = True  # the cup's rim and body in the photograph
    assert found.maps[0][cup].sum() > 0.5 * found.maps[0].sum()  # on 30 % of its area
    assert cup.ravel()[found.maps[0].argmax()]
    (path,) = found.save(tmp_path / "out")
    assert path.name == "coffee.grad_cam.png"
    assert Image.open(path).size == (454, 227)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"method": "gradcam"}, "Did you mean 'grad_cam'"),
        ({"method": "occlusion", "windows": 3}, "no option 'windows'.*'window'"),
        ({"method": "occlusion", "window": "wide"}, "window as a number, got 'wide'"),
        ({"method": "occlusion", "grey": True}, "grey as a number, got True"),
        ({"method": "smoothgrad", "samples": 2.5}, "samples as a whole number, got 2.5"),
        ({"method": "smoothgrad", "samples": 0}, "samples from 1 on, got 0"),
        ({"method": "smoothgrad", "noise": -0.1}, "noise from 0 on, got -0.1"),
        ({"method": "smoothgrad", "noise": np.nan}, "noise from 0 on, got nan"),
        ({"method": "occlusion", "grey": 256}, "grey from 0 to 255, got 256"),
        ({"method": "integrated_gradients", "baseline": 300.0}, "baseline from 0 to 255"),
        ({"layer": 3}, "grad_cam: expected layer as a name or None, got 3"),
        ({"target": "dog"}, "its label or as an index from 0 to 9, got 'dog'"),
        ({"target": 10}, "from 0 to 9, got 10"),
        ({"layer": "stage3"}, "no layer 'stage3'"),
        ({"layer": "features"}, "a layer with maps"),
    ],
)
def test_a_wrong_wish_is_one_clear_line(averaging, asked, message):
    with pytest.raises(UsageError, match=message):
        explain(averaging, np.zeros((1, 32, 32, 3), np.uint8), **asked)


def test_pixels_of_another_size_are_refused_and_say_what_was_expected(averaging):
    with pytest.raises(
        UsageError, match=r"uint8 pixels \[N, 32, 32, 3\], got uint8 \[1, 8, 8, 3\]"
    ):
        explain(averaging, np.zeros((1, 8, 8, 3), np.uint8))
    without_maps = dataclasses.replace(averaging.spec, cam_layer="")
    blind = dataclasses.replace(averaging, spec=without_maps)
    with pytest.raises(UsageError, match="has no maps to look at"):
        explain(blind, np.zeros((1, 32, 32, 3), np.uint8))


@pytest.mark.parametrize("method", ["grad_cam", "cam", "guided_backprop"])
def test_a_net_that_ends_early_is_explained_by_its_last_maps(method):
    options = {"num_classes": 3, "input_shape": (33, 41, 3), "depths": (1, 1, 1, 1)}
    net = create_model("resnet18", until="stage2_out", **options)
    assert subject_of(net).cam_layer() == "stage2_out"
    found = explain(net, images((33, 41, 3)), method=method)
    assert found.maps.shape == (3, 33, 41)
    assert np.isfinite(found.maps).all()


@pytest.mark.parametrize("names", [["a"], ["a", "b", "c", "d"], []])
def test_every_picture_has_a_name_or_none_has(averaging, names):
    with pytest.raises(UsageError, match=f"a name for each of 3 pictures, got {len(names)}"):
        explain(averaging, images((32, 32, 3)), names=names)
    with pytest.raises(UsageError, match=f"a name for each of 3 pictures, got {len(names)}"):
        next(draw(averaging, images((32, 32, 3)), "activations", names=names))


@pytest.mark.parametrize("name", ["mlp_two_layer", "voxnet", "cnn3d_ji"])
def test_a_net_that_takes_no_pictures_is_one_clear_line(name):
    net = create_model(name)
    with pytest.raises(UsageError, match="expected a net that classifies pictures"):
        explain(net, np.zeros((1, *net.input_shape[1:]), np.uint8))


@pytest.mark.parametrize("channels", [2, 4])
def test_a_net_of_other_channels_than_grey_or_colour_is_one_clear_line(channels):
    net = create_model("lenet5", num_classes=2, input_shape=(28, 28, channels))
    pictures = np.zeros((1, 28, 28, channels), np.uint8)
    with pytest.raises(UsageError, match=f"1 or 3 channels, got {channels}$") as caught:
        explain(net, pictures)
    assert len(str(caught.value)) < 100


def test_what_does_not_depend_on_a_tensor_has_no_slope():
    values, slope = value_and_gradient(lambda x: keras.ops.ones(2), keras.ops.ones((2, 3)))
    assert (np.asarray(values) == 1).all()
    assert (np.asarray(slope) == np.zeros((2, 3))).all()


def test_a_view_is_no_method_of_maps(averaging):
    with pytest.raises(UsageError, match=r"got the view 'filters', which striate\.explain\.draw"):
        explain(averaging, images((32, 32, 3)), method="filters")


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("resnet20_cifar", "stage3_block3_1_bn"),
        ("resnet20_cifar", "stage2_block1_2_conv"),
        ("googlenet", "stage2_block1_3x3_relu"),
    ],
)
def test_a_layer_on_one_of_several_paths_is_explained_by_its_own_slopes(name, layer):
    net = create_model(name, num_classes=3, input_shape=(48, 32, 3))
    subject, x = subject_of(net), pictures((48, 32, 3))
    found = grad_cam(subject, x, TARGETS % 3, layer=layer)

    # The slopes once more, by adding nothing to the layer's output inside the whole net
    maps = keras.ops.convert_to_numpy(subject.at(layer, x))
    own = tf.zeros(maps.shape)
    whole = copy_of(net)
    inside = whole.get_layer(layer)
    plain = inside.call
    inside.call = lambda *args, **options: plain(*args, **options) + own
    with tf.GradientTape() as tape:
        tape.watch(own)
        logits = whole(subject.normalise(x), training=False)
        score = tf.reduce_sum(tf.gather(logits, TARGETS % 3, batch_dims=1))
    alpha = tape.gradient(score, own).numpy().mean(axis=(1, 2), keepdims=True)
    heat = np.maximum((alpha * maps).sum(axis=-1, keepdims=True), 0)
    expected = keras.ops.image.resize(heat, (48, 32), interpolation="bilinear")[..., 0]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.max(expected))


@pytest.mark.long
@pytest.mark.parametrize("method", ["grad_cam", "guided_backprop"])
def test_a_net_of_more_layers_than_python_calls_is_explained(method):
    x = image = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3, name="stage2_out")(x)
    for _ in range(1500):
        x = keras.layers.ReLU()(x)
    x = keras.layers.Dense(2, name="logits")(keras.layers.Flatten()(x))
    with deep_graphs():
        net = keras.Model(image, x, name="lenet5")
    found = explain(net, images((8, 8, 1), 1), method=method)
    assert np.isfinite(found.maps).all()


@pytest.mark.long
def test_maps_on_jax_are_those_on_tensorflow(jax_python, tmp_path):
    """Of a net without kinks, where rounding could send a gradient another way."""
    net = create_model("lenet5", input_shape=(28, 28, 1))
    x = images((28, 28, 1), 2)
    np.save(tmp_path / "x.npy", x)
    net.save(tmp_path / "net.keras")
    files = [str(tmp_path / name) for name in ("net.keras", "x.npy", "maps.npz")]
    methods = [method for method in METHODS if method != "cam"]  # its classifier is no linear one
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    subprocess.run([jax_python, "-c", ON_JAX, *files, *methods], check=True, env=environment)

    found = np.load(tmp_path / "maps.npz")
    for method in methods:
        expected = explain(net, x, method=method, target=TARGETS).maps
        atol = 1e-4 * np.abs(expected).max()
        np.testing.assert_allclose(found[method], expected, atol=atol, err_msg=method)
