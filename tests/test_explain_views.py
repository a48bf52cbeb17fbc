"""What is drawn of a net: filters, activations, favourites, inversions; and the net as a whole."""

import inspect
import json
import re

import keras
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from making import PHOTOS, colourful_noise, tiny_artifact
from striate.cli import app
from striate.errors import UsageError
from striate.explain import METHODS, VIEWS, draw, subject_of
from striate.explain.activations import activity
from striate.explain.cam import upsampled
from striate.explain.charts import MOST_BARS, bars
from striate.explain.descent import descend, total_variation
from striate.explain.drawing import unique
from striate.explain.embedding import codes, pca, tsne
from striate.explain.filters import filters, grid
from striate.explain.grad_cam import grad_cam
from striate.explain.inversion import feature_loss, invert
from striate.explain.landscape import depthwise_kernels, directions, landscape
from striate.explain.maximise import maximise
from striate.explain.options import check_options
from striate.explain.patches import exciting_patches
from striate.explain.paths import deletions, path_lengths, residual_blocks, without_blocks
from striate.explain.style import gram, transfer_style
from striate.explain.subject import Subject, as_array, value_and_gradient
from striate.preprocess import preset
from striate.registry import create_model, get_spec


def dice() -> np.random.Generator:
    """The same numbers for every test, whichever of them run."""
    return np.random.default_rng(0)


BLACK = np.zeros((32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def subject():
    keras.utils.set_random_seed(0)
    return subject_of(create_model("resnet20_cifar", num_classes=4, depths=(1, 1, 1)))


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return dice().integers(0, 256, (6, 32, 32, 3)).astype("float32")


def test_a_net_that_reads_several_stages_is_explained_by_the_slopes_of_the_last(pictures):
    """The classifier is linear in the averages, so that its own weights are the slopes."""
    ends = ["stage1_out", "stage3_out"]
    net = create_model("resnet20_cifar", num_classes=4, depths=(1, 1, 1), until=ends)
    spec = get_spec("resnet20_cifar").until(ends)
    subject = Subject(net, preset("unit", 32, 32, 3), spec, ("a", "b", "c", "d"))
    targets = np.array([0, 1, 2, 3, 0, 1])
    maps, beside = subject.at("stage3_out", pictures), subject.beside("stage3_out", pictures)
    whole = as_array(subject.logits(pictures))
    np.testing.assert_allclose(subject.beyond("stage3_out", maps, beside), whole, atol=1e-5)
    kernel = np.asarray(net.get_layer("logits").kernel)[-maps.shape[-1] :, targets]
    heat = np.maximum(np.einsum("nhwk,kn->nhw", maps, kernel) / (8 * 8), 0)
    found = grad_cam(subject, pictures, targets)
    np.testing.assert_allclose(found, upsampled(heat, pictures), atol=1e-6)


def test_codes_of_a_net_without_features_are_its_last_maps_averaged():
    net = create_model("squeezenet1_1", input_shape=(64, 64, 3), num_classes=2)
    subject = subject_of(net)
    images = dice().integers(0, 256, (2, 64, 64, 3)).astype("float32")
    maps = as_array(subject.at(subject.cam_layer(), images))
    np.testing.assert_allclose(codes(subject, images), maps.mean(axis=(1, 2)), rtol=1e-5)


def test_a_filter_that_never_fires_is_reported_dead(pictures):
    net = create_model("resnet20_cifar", num_classes=4, depths=(1, 1, 1))
    norm = net.get_layer("stem_bn")
    norm.beta.assign(np.where(np.arange(16) == 3, -1e6, np.asarray(norm.beta)))
    found = {row.layer: row for row in activity(subject_of(net), pictures, batch_size=4)}
    assert found["stem_relu"].dead == (3,)
    assert found["stem_relu"].filters == 16
    maps = as_array(subject_of(net).at("stem_relu", pictures))
    assert found["stem_relu"].active == pytest.approx((maps > 0).mean())


def test_dead_filters_are_counted_layer_by_layer(pictures):
    net = create_model("resnet20_cifar", num_classes=4, depths=(1, 1, 1))
    norm = net.get_layer("stem_bn")
    norm.beta.assign(np.where(np.arange(16) < 4, -1e6, np.asarray(norm.beta)))
    ((_, drawing),) = draw(subject_of(net), pictures.astype(np.uint8), "dead")
    assert drawing.facts["dead"]["stem_relu"] == (0, 1, 2, 3)
    assert drawing.facts["filters"] == sum(
        row.filters for row in activity(subject_of(net), pictures)
    )
    assert "filters are silent on all of 6 pictures" in drawing.caption


def test_a_chart_keeps_its_longest_bars_in_order():
    values = {f"layer{i}": float(i % 97) for i in range(300)}
    assert bars(values, 3, "x").shape[0] < 110 * (1.5 + 0.24 * MOST_BARS)


def test_filters_are_shown_in_the_colours_that_they_look_for():
    """caffe nets see BGR: a kernel on its third channel looks for red."""
    net = create_model("squeezenet1_1", input_shape=(64, 64, 3), num_classes=2)
    subject = subject_of(net, preset("caffe", 64, 64, 3))
    assert subject.preprocess.order == "bgr"
    kernel = np.zeros(net.get_layer("stem_conv").kernel.shape, "float32")
    kernel[..., 2, :] = 1
    net.get_layer("stem_conv").kernel.assign(kernel)
    np.testing.assert_allclose(filters(subject)[0, 0, 0], [1, 0.5, 0.5])


def test_every_filter_of_a_depthwise_convolution_is_shown():
    subject = subject_of(create_model("mobilenet_v1_025", input_shape=(32, 32, 3), num_classes=2))
    layer = next(x for x in subject.net.layers if isinstance(x, keras.layers.DepthwiseConv2D))
    kernel = as_array(layer.kernel)
    shown = filters(subject, layer=layer.name)
    assert shown.shape == (kernel.shape[2], 3, 3, 1)
    third = kernel[:, :, 2, 0]
    np.testing.assert_allclose(shown[2, ..., 0], 0.5 + third / np.abs(third).max() / 2, rtol=1e-5)


def test_a_grid_keeps_every_picture_apart():
    sheet = grid(np.zeros((5, 2, 2, 1)), gap=1)
    assert sheet.shape == (5, 8, 1)
    assert (sheet == 0).sum() == 5 * 4


def test_the_most_exciting_patch_holds_what_the_unit_saw(subject, pictures):
    best, *others = exciting_patches(subject, pictures, 2, layer="stage1_out", most=3)
    maps = as_array(subject.at("stage1_out", pictures))[..., 2]
    assert best.value == pytest.approx(maps.max(), rel=1e-5)
    assert best.index == maps.max(axis=(1, 2)).argmax()
    assert [best.value, *(p.value for p in others)] == sorted(
        [best.value, *(p.value for p in others)], reverse=True
    )
    top, left, bottom, right = best.box
    row, column = np.unravel_index(maps[best.index].argmax(), maps.shape[1:])
    # Three 3x3 convolutions see 7 x 7, of which some is padding at the borders.
    assert (top, left) == (max(0, row - 3), max(0, column - 3))
    assert (bottom, right) == (min(32, row + 4), min(32, column + 4))
    np.testing.assert_array_equal(best.pixels, pictures[best.index, top:bottom, left:right])


def test_a_patch_at_the_border_is_smaller_and_white_is_beside_it(subject, pictures):
    dark = np.minimum(pictures[:2], 200).astype(np.uint8)
    dark[1] = dark[0, :, ::-1]
    how = {"unit": 2, "layer": "stage2_out"}
    ((_, drawing),) = draw(subject, dark, "patches", **how)
    sizes = [
        (bottom - top, right - left)
        for top, left, bottom, right in (patch["box"] for patch in drawing.facts["patches"])
    ]
    assert len(set(sizes)) == 2
    beside = sum(np.prod(np.max(sizes, axis=0)) - np.prod(size) for size in sizes)
    assert beside > 0
    assert (drawing.pixels == 255).all(axis=-1).sum() >= beside


def test_a_patch_is_all_that_the_unit_answers_to_and_no_more():
    """LeNet's maps shrink without padding, and its units never saturate altogether."""
    keras.utils.set_random_seed(0)
    subject = subject_of(create_model("lenet5", num_classes=2))
    images = dice().uniform(0, 255, (5, 32, 32, 1)).astype("float32")
    for patch in exciting_patches(subject, images, 3, layer="stage2_out"):
        maps = as_array(subject.at("stage2_out", images))[patch.index, ..., 3]
        row, column = np.unravel_index(maps.argmax(), maps.shape)

        def value(x, row=row, column=column):
            return subject.at("stage2_out", x)[:, row, column, 3]

        _, slope = value_and_gradient(value, images[patch.index : patch.index + 1])
        rows, columns = np.nonzero(slope[0].any(axis=-1))
        assert patch.box == (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)


def test_principal_components_are_scikit_learn_s():
    decomposition = pytest.importorskip("sklearn.decomposition")
    points = dice().standard_normal((30, 12)) * np.arange(1, 13)
    theirs = decomposition.PCA(2).fit_transform(points)
    np.testing.assert_allclose(np.abs(pca(points)), np.abs(theirs), rtol=1e-6, atol=1e-9)


def test_one_picture_lies_in_the_middle_of_its_plane(subject, pictures):
    np.testing.assert_array_equal(pca(np.ones((1, 5))), [[0, 0]])
    one = pictures[:1].astype(np.uint8)
    ((_, drawing),) = draw(subject, one, "codes", plane="pca")
    assert drawing.facts["points"] == [[0, 0]]


@pytest.mark.long
def test_tsne_keeps_groups_together(subject, pictures):
    pytest.importorskip("sklearn")
    assert codes(subject, pictures, batch_size=4).shape == (6, 64)
    groups = np.repeat([0, 50], 15)[:, None] + dice().standard_normal((30, 8))
    plane = tsne(groups)
    middle = plane[:15].mean(axis=0), plane[15:].mean(axis=0)
    spread = max(plane[:15].std(), plane[15:].std())
    assert np.linalg.norm(middle[0] - middle[1]) > 2 * spread
    with pytest.raises(UsageError, match="at least 4 pictures, got 3"):
        tsne(groups[:3])


def test_descent_finds_the_least_of_a_bowl():
    wanted = dice().uniform(50, 200, (2, 4, 4, 3)).astype("float32")
    start = np.full_like(wanted, 127.5)
    found = descend(
        lambda x: keras.ops.sum((x - wanted) ** 2, axis=(1, 2, 3)), start, steps=200, rate=5
    )
    assert np.abs(found - wanted).max() < 1


def test_total_variation_is_its_formula():
    x = dice().random((1, 3, 3, 1)).astype("float32")
    flat = x[0, :, :, 0]
    expected = sum(
        ((flat[i, j + 1] - flat[i, j]) ** 2 + (flat[i + 1, j] - flat[i, j]) ** 2) ** 0.75
        for i in range(2)
        for j in range(2)
    )
    np.testing.assert_allclose(as_array(total_variation(x, beta=1.5)), [expected], rtol=1e-4)


def test_a_gram_matrix_is_its_formula(pictures):
    maps = pictures[:1, :4, :5]
    flat = maps.reshape(20, 3)
    np.testing.assert_allclose(as_array(gram(maps))[0], flat.T @ flat / 60, rtol=1e-5)


def test_a_favourite_excites_its_class_more_than_any_photograph(subject, pictures):
    made = maximise(subject, np.array([1, 3]), steps=30, jitter=1)
    assert made.shape == (2, 32, 32, 3)
    found = as_array(subject.logits(made))
    usual = as_array(subject.logits(pictures))
    for row, target in enumerate([1, 3]):
        assert found[row, target] > usual[:, target].max()


def test_an_inversion_has_the_features_of_the_picture(subject, pictures):
    one = pictures[:1]
    made = invert(subject, one, layers="stage1_out", steps=60)
    wanted = as_array(subject.at("stage1_out", one))
    start = np.full_like(one, 127.5)
    before, after = (
        float(feature_loss(subject.at("stage1_out", x), wanted)[0]) for x in (start, made)
    )
    assert after < 0.2 * before


@pytest.mark.long
def test_style_moves_the_gram_matrices_and_keeps_the_content(subject, pictures):
    content, style = pictures[:1], pictures[1:2] * 0.3
    made = transfer_style(subject, content, style, steps=40)
    for name, target in (("stage1_out", style), ("stage2_out", style)):
        wanted = as_array(gram(subject.at(name, target)))
        before, after = (
            float(feature_loss(gram(subject.at(name, x)), wanted)[0]) for x in (content, made)
        )
        assert after < before


def test_directions_are_as_long_as_the_filters():
    weights = [dice().standard_normal((3, 3, 2, 5)).astype("float32"), np.ones(5, "float32")]
    kernel, bias = directions(weights, seed=1)
    axes = (0, 1, 2)
    np.testing.assert_allclose(
        np.linalg.norm(kernel.reshape(-1, 5), axis=0),
        np.sqrt((weights[0] ** 2).sum(axis=axes)),
        rtol=1e-5,
    )
    assert not bias.any()


def test_a_depthwise_kernel_has_a_filter_for_each_channel():
    kernel = dice().standard_normal((3, 3, 4, 2)).astype("float32") * np.arange(1, 9).reshape(4, 2)
    (direction,) = directions([kernel], seed=0, depthwise={0})
    np.testing.assert_allclose(
        np.linalg.norm(direction.reshape(9, 8), axis=0),
        np.linalg.norm(kernel.reshape(9, 8), axis=0),
        rtol=1e-5,
    )


@pytest.mark.parametrize("name", ["mobilenet_v1_025", "enas_micro_cifar"])
def test_depthwise_kernels_are_found_in_separable_convolutions_too(name):
    spec = get_spec(name)
    subject = subject_of(create_model(name, num_classes=2, **spec.reduced))
    found = depthwise_kernels(subject)
    names = [v.path for v in subject.net.trainable_variables]
    kinds = (keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)
    layers = [x for x in subject.net.layers if isinstance(x, kinds)]
    assert len(found) == len(layers) > 0
    assert {names[i].split("/")[-2] for i in found} == {x.name for x in layers}


def test_a_landscape_has_the_net_s_own_loss_in_its_middle(subject, pictures):
    labels = np.array([0, 1, 2, 3, 0, 1])
    before = [as_array(v) for v in subject.net.weights]
    surface = landscape(subject, pictures, labels, points=3, reach=0.5)
    logits = as_array(subject.logits(pictures))
    own = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    assert surface[1, 1] == pytest.approx(float(np.mean(own)), rel=1e-4)
    assert surface.std() > 0
    for old, new in zip(before, subject.net.weights, strict=True):
        np.testing.assert_array_equal(old, as_array(new))


def test_without_a_block_only_its_shortcut_is_left(pictures):
    """The same as a block whose last normalisation gives zero."""
    net = create_model("resnet20_cifar", num_classes=4)
    whole = subject_of(net)
    assert residual_blocks(whole) == tuple(
        f"stage{i}_block{j}" for i in (1, 2, 3) for j in (1, 2, 3)
    )
    cut = without_blocks(whole, "stage2_block2")
    silent = net.get_layer("stage2_block2_2_bn")
    silent.gamma.assign(np.zeros(32))
    silent.beta.assign(np.zeros(32))
    np.testing.assert_allclose(cut.logits(pictures), whole.logits(pictures), rtol=1e-4, atol=1e-5)
    with pytest.raises(UsageError, match="one of its 9 residual blocks, got 'stage9'"):
        without_blocks(whole, "stage9")


def test_paths_double_with_every_block():
    assert path_lengths(3) == [1, 3, 3, 1]
    assert sum(path_lengths(54)) == 2**54


def test_without_each_block_in_turn_the_loss_is_that_of_the_cut_net(subject, pictures):
    labels = np.array([0, 1, 2, 3, 0, 1])
    found = deletions(subject, pictures, labels, batch_size=4)
    assert tuple(found) == residual_blocks(subject)
    logits = as_array(without_blocks(subject, "stage2_block1").logits(pictures))
    own = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    assert found["stage2_block1"] == pytest.approx(float(np.mean(own)), rel=1e-4)


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_draws(subject, pictures, view):
    fast = {"maximise": {"steps": 2}, "invert": {"steps": 2}, "pgd": {"steps": 2}}
    fast |= {"minimal": {"tries": 1, "iterations": 2}, "landscape": {"points": 3}}
    fast |= {"codes": {"plane": "pca"}, "style": {"like": PHOTOS / "cat.jpg", "steps": 2}}
    needs = VIEWS[view].of
    images = pictures[:2].astype(np.uint8) if needs in ("pictures", "set") else []
    drawn = list(draw(subject, images, view, [0, 1], **fast.get(view, {})))
    assert len(drawn) == (1 if needs in ("set", "net") else 2)
    for _, drawing in drawn:
        assert drawing.pixels.dtype == np.uint8
        assert drawing.caption


@pytest.mark.parametrize(
    ("view", "options", "said"),
    [
        ("style", {}, "--set like=painting.jpg"),
        ("codes", {"plane": "umap"}, "plane=tsne or plane=pca, got 'umap'"),
        ("patches", {"unit": 64}, "a unit of stage3_out from 0 to 63, got 64"),
        ("landscape", {"points": 1}, "at least 2 points along a side, got 1"),
        ("landscape", {"reach": 0}, "a reach above 0"),
        ("landscape", {"reach": np.inf}, "expected reach from 0 on, got inf"),
        ("invert", {"layers": 2}, "layers as a name or a list or None, got 2"),
        ("pgd", {"towards": 1}, "towards as true or false, got 1"),
        (
            "style",
            {"like": BLACK, "style_layers": ["logits"]},
            "a layer with maps [h, w, channels]",
        ),
        ("style", {"like": "x", "stepz": 3}, "style has no option 'stepz'. Did you mean 'steps'"),
    ],
)
def test_a_view_says_what_it_expects(subject, pictures, view, options, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        list(draw(subject, pictures.astype(np.uint8), view, **options))


def test_what_leads_to_a_class_needs_it_named(subject, pictures):
    with pytest.raises(UsageError, match="minimal needs the class to be taken for"):
        list(draw(subject, pictures.astype(np.uint8), "minimal"))


def test_a_favourite_may_be_that_of_a_unit_that_no_class_has_the_number_of(subject):
    how = {"layer": "stage3_out", "steps": 2}
    ((name, drawing),) = draw(subject, [], "maximise", "63", **how)
    assert name == "stage3_out_63"
    assert drawing.caption == "what unit 63 of stage3_out likes best"
    assert drawing.facts.keys() == {"layer", "unit", "value"}
    with pytest.raises(UsageError, match="a unit of stage3_out from 0 to 63, got 64"):
        list(draw(subject, [], "maximise", 64, **how))


@pytest.mark.parametrize("name", [*METHODS, *VIEWS])
def test_every_option_may_be_what_it_is_by_default(name):
    functions = [METHODS[name].function] if name in METHODS else [VIEWS[name].function]
    functions += filter(None, [VIEWS[name].options] if name in VIEWS else [])
    for function in functions:
        for option in inspect.signature(function).parameters.values():
            if option.kind is option.KEYWORD_ONLY and option.name != "on_progress":
                check_options(name, {option.name: option.default}, *functions)


def test_a_data_set_is_drawn_by_its_right_classes(tmp_path):
    made = tiny_artifact(tmp_path / "mine", name="resnet20_cifar", shape=(32, 32, 3))
    labels = np.arange(8) % 4
    images = colourful_noise(8, (32, 32, 3), 1)
    names = [f"class {i}" for i in range(4)]
    np.savez(tmp_path / "data.npz", images=images, labels=labels, classes=names)
    asked = ["explain", str(made.path), "--data", str(tmp_path / "data.npz"), "--most", "6"]
    drawn = ["-m", "codes", "--set", "plane=pca", "-o", str(tmp_path / "out"), "--json"]
    ran = CliRunner().invoke(app, [*asked, *drawn])
    assert ran.exit_code == 0, ran.output
    (row,) = json.loads(ran.stdout)
    assert np.shape(row["points"]) == (6, 2)
    assert set(row["targets"]) <= set(range(4))
    with Image.open(row["file"]) as sheet:
        assert min(sheet.size) > 300


@pytest.mark.parametrize("method", ["saliency", "fgsm"])
def test_what_is_drawn_of_a_data_set_is_called_like_its_pictures(tmp_path, method):
    made = tiny_artifact(tmp_path / "mine", name="resnet20_cifar", shape=(32, 32, 3))
    for i, pixels in enumerate(colourful_noise(8, (32, 32, 3), 1)):
        (tmp_path / "data" / f"class {i % 4}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "data" / f"class {i % 4}" / f"photo.{i}.png")
    asked = ["explain", str(made.path), "--data", str(tmp_path / "data"), "-m", method]
    ran = CliRunner().invoke(app, [*asked, "-o", str(tmp_path / "out")])
    assert ran.exit_code == 0, ran.output
    drawn = {path.name for path in (tmp_path / "out").iterdir()}
    assert drawn == {f"class_{i % 4}_photo.{i}.{method}.png" for i in range(8)}


def test_the_command_line_draws_and_tells(tmp_path):
    made = tiny_artifact(tmp_path / "mine", name="resnet20_cifar", shape=(32, 32, 3))
    arguments = ["explain", str(made.path), str(PHOTOS / "cat.jpg"), str(PHOTOS / "coffee.jpg")]
    ran = CliRunner().invoke(
        app,
        [
            *arguments,
            "-m",
            "occlusion",
            "--set",
            "window=0.5",
            "-o",
            str(tmp_path / "out"),
            "--json",
        ],
    )
    assert ran.exit_code == 0, ran.output
    rows = json.loads(ran.stdout)
    assert [row["file"].rpartition("/")[2] for row in rows] == [
        "cat.occlusion.png",
        "coffee.occlusion.png",
    ]
    assert all((tmp_path / "out" / row["file"]).exists() for row in rows)


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        (["--set", "window"], "expected --set NAME=VALUE"),
        (["--set", "window=[1"], "expected a value after window=, got '[1'"),
        (["--data", "pictures/"], "expected pictures or --data, got both"),
    ],
)
def test_a_wrong_wish_on_the_command_line_leaves_no_folder(tmp_path, wish, said):
    out = tmp_path / "out"
    asked = ["explain", str(tmp_path), str(PHOTOS / "cat.jpg"), *wish, "-o", str(out)]
    ran = CliRunner().invoke(app, asked)
    assert isinstance(ran.exception, UsageError)
    assert said in str(ran.exception)
    assert not out.exists()


@pytest.mark.parametrize(
    ("net", "wish", "said"),
    [
        ("lenet5", ["-m", "cam"], "does not classify the averages"),
        ("lenet5", ["--class", "nope"], "expected a class of lenet5"),
        ("voxnet", [], "expected a net that classifies pictures, got one of voxel grids"),
    ],
)
def test_a_net_that_cannot_be_explained_so_leaves_no_folder(tmp_path, net, wish, said):
    made = tiny_artifact(tmp_path / "mine", name=net, shape=get_spec(net).input_shape)
    out = tmp_path / "deep" / "out"
    asked = ["explain", str(made.path), str(PHOTOS / "cat.jpg"), *wish, "-o", str(out)]
    ran = CliRunner().invoke(app, asked)
    assert isinstance(ran.exception, UsageError)
    assert said in str(ran.exception)
    assert not out.parent.exists()


def test_a_power_of_ten_on_the_command_line_is_a_number(tmp_path):
    made = tiny_artifact(tmp_path / "mine")
    asked = ["explain", str(made.path), str(PHOTOS / "cat.jpg"), "-m", "fgsm"]
    out = ["--set", "epsilon=4e-2", "-o", str(tmp_path / "out"), "--json"]
    ran = CliRunner().invoke(app, [*asked, *out])
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout)[0]["furthest"] == pytest.approx(0.04 * 255, rel=1e-4)


def test_no_picture_is_written_over_another():
    assert unique(["x", "x", "x_2", "X", "a b", "a_b"]) == [
        "x",
        "x_2",
        "x_2_2",
        "X_3",
        "a_b",
        "a_b_2",
    ]


def test_one_class_on_the_command_line_is_explained_in_every_picture(tmp_path):
    made = tiny_artifact(tmp_path / "mine", name="resnet20_cifar", shape=(32, 32, 3))
    arguments = ["explain", str(made.path), str(PHOTOS / "cat.jpg"), str(PHOTOS / "coffee.jpg")]
    ran = CliRunner().invoke(
        app, [*arguments, "--class", "class 2", "-o", str(tmp_path / "out"), "--json"]
    )
    assert ran.exit_code == 0, ran.output
    assert [row["class"] for row in json.loads(ran.stdout)] == ["class 2", "class 2"]


def test_the_list_names_every_method():
    ran = CliRunner().invoke(app, ["explain", "--list", "--json"])
    assert {row["method"] for row in json.loads(ran.stdout)} == METHODS.keys() | VIEWS.keys()


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("maximise", {"steps": 3}),
        ("invert", {"steps": 3}),
        ("minimal", {"tries": 2, "iterations": 1}),
        ("style", {"steps": 3, "like": PHOTOS / "cat.jpg"}),
        ("landscape", {"points": 2}),
        ("paths", {}),
        ("occlusion", {"window": 0.5, "stride": 0.5}),
        ("smoothgrad", {"samples": 2}),
        ("integrated_gradients", {"steps": 2}),
    ],
)
def test_what_takes_long_says_how_far_it_is(subject, pictures, method, options):
    shares = []
    images = pictures[:2].astype("uint8")
    list(
        draw(
            subject,
            images,
            method,
            [0, 1],
            on_progress=lambda done, total: shares.append(done / total),
            **options,
        )
    )
    assert len(shares) >= 2
    assert shares == sorted(shares)
    assert 0.5 < shares[-1] <= 1


def test_progress_is_no_option_of_a_method(subject, pictures):
    with pytest.raises(UsageError, match="maximise has no option 'progress'"):
        list(draw(subject, [], "maximise", 0, progress=True))
    with pytest.raises(UsageError) as error:
        list(draw(subject, [], "maximise", 0, stepz=1))
    assert "on_progress" not in str(error.value)
