"""Every random change of pictures against its equation on known inputs; mixing and its loss."""

import colorsys

import numpy as np
import pytest
from keras import ops
from PIL import Image, ImageEnhance, ImageOps

from striate.errors import UsageError
from striate.preprocess import ClipPreprocess, preset
from striate.train.augment import augmentation, colours, erase, mixing, moves
from striate.train.augment import rand_augment as random_operations
from striate.train.augment.mix import Mix, cut_in, mixed_up, symmetric_beta
from striate.train.recipe import Augment

PICTURE = (8, 12, 3)


def pictures(n=64, shape=PICTURE, seed=0):
    """uint8 pictures in which no two pixels of a row or column are likely the same."""
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def spec_of(x, **changes):
    return preset("torch" if x.shape[-1] == 3 else "unit", *x.shape[-3:], **changes)


def changed(wanted, x, seed=0, preprocess=None, training=True):
    """What a recipe's changes make of pictures, as the training graph calls them."""
    y = ops.convert_to_tensor(x)
    for layer in augmentation(Augment(**wanted), seed, preprocess or spec_of(x)):
        y = layer(y, training=training)
    return np.asarray(ops.convert_to_numpy(y))


def each(numbers, rank=4):
    """Numbers as the changes take them, one a picture: [N, 1, ..., 1]."""
    return np.reshape(numbers, (-1, *(1,) * (rank - 1)))


def array(tensor):
    return np.asarray(ops.convert_to_numpy(tensor))


EVERYTHING = {
    "flip": "both",
    "translate": 0.1,
    "zoom": 0.1,
    "rotate": 10,
    "crop_padding": 2,
    "crop_scale": (0.5, 1),
    "brightness": 0.2,
    "contrast": 0.2,
    "saturation": 0.2,
    "hue": 0.1,
    "cutout": 3,
    "erase": 1,
    "rand_augment": 2,
}


@pytest.mark.parametrize("key", EVERYTHING)
def test_a_change_happens_in_training_alone_and_differs_from_picture_to_picture(key):
    x = np.repeat(pictures(1), 40, axis=0)
    assert np.array_equal(changed({key: EVERYTHING[key]}, x, training=False), x)
    y = changed({key: EVERYTHING[key]}, x)
    assert len({picture.tobytes() for picture in y}) > 2
    assert y.dtype == np.float32
    assert y.min() >= 0
    assert y.max() <= 255.001  # the four weights of a resampling add up to 1 but for rounding
    assert np.array_equal(y, changed({key: EVERYTHING[key]}, x))
    assert not np.array_equal(y, changed({key: EVERYTHING[key]}, x, seed=1))


@pytest.mark.parametrize("key", EVERYTHING)
def test_all_frames_of_a_clip_change_alike(key):
    frame = pictures(6)
    clip = np.repeat(frame[:, None], 4, axis=1)
    y = changed({key: EVERYTHING[key]}, clip, preprocess=ClipPreprocess(4, spec_of(frame)))
    assert y.shape == clip.shape
    if key == "erase":  # the box is the same, its noise is not
        y = (y == clip).all(axis=-1)
    assert all(np.array_equal(y[:, 0], y[:, t]) for t in range(1, 4))
    assert not np.array_equal(y, clip)


# === Moves ===


@pytest.mark.parametrize(
    ("flip", "versions"),
    [
        ("horizontal", [np.s_[:], np.s_[:, ::-1]]),
        ("vertical", [np.s_[:], np.s_[::-1]]),
        ("both", [np.s_[:], np.s_[:, ::-1], np.s_[::-1], np.s_[::-1, ::-1]]),
    ],
)
def test_flips_are_reversals_each_as_frequent_as_the_other(flip, versions):
    x = pictures(400)
    y = changed({"flip": flip}, x)
    counts = [
        sum(np.array_equal(b, a[version]) for a, b in zip(x, y, strict=True))
        for version in versions
    ]
    assert sum(counts) == 400
    # Five standard deviations of a binomial: once in two million seeds, and the seed is fixed.
    p = 1 / len(versions)
    assert all(abs(count - 400 * p) < 5 * np.sqrt(400 * p * (1 - p)) for count in counts)


PAD = {"nearest": "edge", "reflect": "symmetric", "wrap": "wrap", "constant": "constant"}


@pytest.mark.parametrize("fill", PAD)
@pytest.mark.parametrize("move", ["shifted", "warped"])
def test_a_move_by_whole_pixels_is_a_window_of_the_padded_picture(fill, move):
    x = pictures(3).astype(np.float32)
    down, right = np.array([2, -3, 0]), np.array([-4, 1, 5])
    options = {"constant_values": 7} if fill == "constant" else {}
    padded = np.pad(x, ((0, 0), (5, 5), (5, 5), (0, 0)), PAD[fill], **options)
    if move == "shifted":
        y = moves.shifted(x, each(down, 3), each(right, 3), fill=fill, level=7.0)
    else:
        numbers = (each(np.float32(a), 3) for a in (1, 0, 0, 1, down, right))
        y = moves.warped(x, *numbers, fill=fill, level=7.0)
    for picture, big, i, j in zip(array(y), padded, down + 5, right + 5, strict=True):
        assert np.array_equal(picture, big[i : i + 8, j : j + 12])


def test_a_move_by_half_a_pixel_is_the_mean_of_two():
    x = pictures(1).astype(np.float32)
    numbers = [each(np.float32(a), 3) for a in (1, 0, 0, 1, 0, 0.5)]
    y = array(moves.warped(x, *numbers, fill="nearest", level=0.0))
    np.testing.assert_allclose(y[0, :, :-1], (x[0, :, :-1] + x[0, :, 1:]) / 2, rtol=1e-6)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_turns_by_quarters_are_exact(quarters):
    x = pictures(2, (9, 9, 3)).astype(np.float32)
    angle = np.float32(quarters * np.pi / 2)
    a, b = np.cos(angle), np.sin(angle)
    numbers = [each(np.float32(n), 3) for n in (a, -b, b, a, 0, 0)]
    y = array(moves.warped(x, *numbers, fill="nearest", level=0.0))
    # The sine and cosine of float32 are off by 4e-8, of 4 pixels, of 255 levels: 1e-4 at most.
    np.testing.assert_allclose(y, np.rot90(x, -quarters, axes=(1, 2)), atol=1e-3)


@pytest.mark.parametrize(
    ("wanted", "least", "most"),
    [({"zoom": 0.25}, 0.75, 1.25), ({"translate": 0.25}, -3, 3), ({"rotate": 30}, -30, 30)],
)
def test_zoom_shift_and_turn_stay_in_their_ranges_and_fill_them(wanted, least, most):
    """Measured on a picture whose levels are its coordinates, near the middle."""
    rows, columns = np.mgrid[:25, :25].astype(np.uint8) * 10
    x = np.repeat(np.stack([rows, columns, rows], axis=-1)[None], 200, axis=0)
    y = changed({**wanted, "fill": "constant"}, x)
    if "translate" in wanted:
        found = y[:, 12, 12, 1] / 10 - 12  # by up to a quarter of 25 pixels
        assert 5.5 < found.max() <= 6.25
        assert -6.25 <= found.min() < -5.5
        return
    down = (y[:, 13, 12, 0] - y[:, 11, 12, 0]) / 20, (y[:, 13, 12, 1] - y[:, 11, 12, 1]) / 20
    found = np.hypot(*down) if "zoom" in wanted else np.degrees(np.arctan2(down[1], down[0]))
    margin = 0.05 * (most - least)
    assert least - 1e-3 <= found.min() < least + margin
    assert most - margin < found.max() <= most + 1e-3


def test_the_crop_of_cifar_is_a_window_of_the_padded_picture_and_all_windows_come():
    x = pictures(600)
    y = changed({"crop_padding": 1, "fill": "constant"}, x)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
    found = {
        (i, j)
        for big, small in zip(padded, y, strict=True)
        for i in range(3)
        for j in range(3)
        if np.array_equal(big[i : i + 8, j : j + 12], small)
    }
    assert len(found) == 9


def test_a_border_of_the_mean_is_what_the_net_sees_as_zero():
    x = np.full((200, 8, 8, 3), 10, np.uint8)
    for name in ("torch", "caffe"):  # the one in RGB, the other in BGR
        preprocess = preset(name, 8, 8)
        seen = array(
            preprocess.layer()(changed({"crop_padding": 8, "fill": "mean"}, x, 0, preprocess))
        )
        inside = array(preprocess.layer()(x[:1]))[0, 0, 0]
        is_border = ~np.isclose(seen, inside).all(axis=-1)
        assert is_border.any()
        np.testing.assert_allclose(seen[is_border], 0, atol=1e-6)


def test_an_enlarged_box_is_the_resized_window():
    x = pictures(2, (12, 16, 3)).astype(np.float32)
    numbers = [each(np.float32(n), 3) for n in ([3, 0], [2, 4], [6, 12], [8, 4])]
    y = array(moves.enlarged(x, *numbers))
    for picture, small, top, left, height, width in zip(x, y, *map(np.ravel, numbers), strict=True):
        window = picture[int(top) : int(top + height), int(left) : int(left + width)]
        resized = ops.image.resize(window[None], (12, 16), interpolation="bilinear")
        np.testing.assert_allclose(small, array(resized)[0], atol=1e-3)


def test_a_random_resized_crop_of_everything_is_the_picture():
    x = pictures(4, (8, 8, 3))
    y = changed({"crop_scale": (1, 1), "crop_ratio": (1, 1)}, x)
    np.testing.assert_allclose(y, x, atol=1e-4)


def test_random_resized_crops_have_the_areas_and_ratios_that_are_asked_for():
    """On a picture whose levels are its coordinates, the slopes tell the box's sides."""
    rows, columns = np.mgrid[:100, :100].astype(np.uint8) * 2
    x = np.repeat(np.stack([rows, columns, rows], axis=-1)[None], 300, axis=0)
    y = changed({"crop_scale": (0.1, 0.5), "crop_ratio": (0.5, 2)}, x)
    height = (y[:, 60, 50, 0] - y[:, 40, 50, 0]) / 40
    width = (y[:, 50, 60, 1] - y[:, 50, 40, 1]) / 40
    area, ratio = height * width, width / height
    # Sides are whole pixels of 22 and more, so that areas and ratios are off by 5 % at most.
    assert 0.095 <= area.min() < 0.13
    assert 0.47 < area.max() <= 0.53
    assert 0.475 <= ratio.min() < 0.6
    assert 1.7 < ratio.max() <= 2.1


# === Colours ===


def test_brightness_adds_a_share_of_the_range():
    x = pictures(3).astype(np.float32)
    share = np.float32([-0.3, 0.0, 0.2])
    expected = np.clip(x + 255 * each(share), 0, 255)
    np.testing.assert_allclose(array(colours.brightened(x, each(share))), expected, atol=1e-4)


def test_contrast_scales_about_the_mean_of_each_channel():
    x = pictures(3).astype(np.float32)
    factor = np.float32([0.0, 0.5, 1.7])
    mean = x.mean(axis=(1, 2), keepdims=True)
    expected = np.clip(mean + each(factor) * (x - mean), 0, 255)
    np.testing.assert_allclose(array(colours.contrasted(x, each(factor))), expected, atol=1e-3)


def by_colorsys(x, change):
    """A change of hue, saturation and value, each 0 to 1, done pixel by pixel."""
    return np.array(
        [
            [
                255 * np.array(colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*pixel / 255))))
                for pixel in row
            ]
            for row in np.float64(x)
        ]
    )


CORNERS = np.array([[[0, 0, 0], [255, 255, 255], [90, 90, 90], [255, 0, 0], [0, 255, 255]]])


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.9])
def test_saturation_is_that_of_colorsys(factor):
    for x in (pictures(1)[0], CORNERS):
        expected = by_colorsys(x, lambda h, s, v: (h, min(1, factor * s), v))
        y = array(colours.saturated(np.float32(x)[None], each(np.float32([factor]))))[0]
        np.testing.assert_allclose(y, expected, atol=1e-3)


@pytest.mark.parametrize("turn", [-0.5, -0.13, 0.0, 0.25, 0.5])
def test_hue_is_that_of_colorsys(turn):
    for x in (pictures(1)[0], CORNERS):
        expected = by_colorsys(x, lambda h, s, v: ((h + turn) % 1, s, v))
        y = array(colours.rehued(np.float32(x)[None], each(np.float32([turn]))))[0]
        np.testing.assert_allclose(y, expected, atol=1e-3)


def test_jitter_goes_either_way_as_far_as_it_is_told():
    x = np.full((400, 2, 2, 3), 100, np.uint8)
    x[:, 0] = 120, 100, 80
    bright = changed({"brightness": 0.2}, x)[:, 1, 1, 0] - 100
    assert -51.01 <= bright.min() < -48
    assert 48 < bright.max() <= 51.01
    contrast = changed({"contrast": 0.5}, x)
    factor = (contrast[:, 0, 0, 0] - contrast[:, 1, 0, 0]) / 20
    assert 0.499 <= factor.min() < 0.55
    assert 1.45 < factor.max() <= 1.501


def test_colours_of_grey_pictures_are_one_clear_line():
    with pytest.raises(UsageError, match=r"augment\.saturation and augment\.hue: expected.*colour"):
        changed({"hue": 0.1}, pictures(1, (8, 8, 1)))


# === What is hidden ===


def test_a_box_is_where_it_is_said_to_be():
    x = pictures(2)
    top, left, height, width = (each(np.array(n)) for n in ([1, -2], [9, 0], [3, 4], [5, 2]))
    inside = array(erase.in_box(x, top, left, height, width))[..., 0]
    expected = np.zeros((2, 8, 12), bool)
    expected[0, 1:4, 9:12] = expected[1, 0:2, 0:2] = True
    assert np.array_equal(inside, expected)


def test_cutout_is_a_square_about_any_pixel_cut_at_the_border():
    x = np.full((800, 6, 6, 3), 10, np.uint8)
    preprocess = preset("torch", 6, 6)
    hidden = changed({"cutout": 3}, x, 0, preprocess) != 10
    assert np.array_equal(hidden.any(axis=-1), hidden.all(axis=-1))
    centres = {
        (i, j)
        for mask in hidden[..., 0]
        for i in range(6)
        for j in range(6)
        if np.array_equal(np.argwhere(mask), square(i, j))
    }
    assert len(centres) == 36
    seen = array(preprocess.layer()(changed({"cutout": 3}, x, 0, preprocess)))
    np.testing.assert_allclose(seen[hidden], 0, atol=1e-6)


def square(i, j):
    """The pixels of a 6 x 6 picture at most one away from (i, j)."""
    rows, columns = np.mgrid[:6, :6]
    return np.argwhere((abs(rows - i) <= 1) & (abs(columns - j) <= 1))


def test_random_erasing_hides_boxes_of_the_papers_areas_and_ratios_with_the_chance_given():
    x = np.full((1000, 50, 50, 1), 300, np.float32)  # a level that no noise has
    hidden = changed({"erase": 0.3}, x)[..., 0] != 300
    is_hidden = hidden.any(axis=(1, 2))
    assert abs(is_hidden.mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / 1000)
    hidden = hidden[is_hidden]
    height, width = hidden.any(axis=2).sum(axis=1), hidden.any(axis=1).sum(axis=1)
    area, ratio = hidden.mean(axis=(1, 2)), height / width
    assert np.array_equal(hidden.sum(axis=(1, 2)), height * width)
    # Sides are rounded to pixels: of 4 and more (2 % of 2500 pixels, at a ratio of 0.3).
    assert 0.015 < area.min() < 0.05 < 0.3 < area.max() < 0.42
    assert 0.25 < ratio.min() < 0.45 < 2.5 < ratio.max() < 4
    assert max(height.max(), width.max()) < 50


def test_the_noise_of_random_erasing_is_even():
    x = np.full((60, 50, 50, 1), 300, np.float32)
    y = changed({"erase": 1}, x)
    noise = y[y != 300]
    np.testing.assert_allclose(np.quantile(noise, [0.25, 0.5, 0.75]), [64, 127.5, 191], atol=6)


# === RandAugment ===


def by_operation(name, x, strength=1.0):
    chosen = np.full((len(x), 1, 1, 1), random_operations.OPERATIONS.index(name))
    strength = np.full((len(x), 1, 1, 1), strength, np.float32)
    y = random_operations.applied(
        ops.convert_to_tensor(np.float32(x)), chosen, strength, fill="constant", level=0.0
    )
    return array(y)


def by_pil(x, operation):
    return np.stack([np.asarray(operation(Image.fromarray(picture))) for picture in x])


def photographs(n=4):
    """Smooth pictures that use a part of the range, unlike noise."""
    generator = np.random.default_rng(3)
    coarse = generator.integers(30, 200, (n, 4, 4, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(x).resize((32, 24), 3)) for x in coarse])


# These two know no strength; at magnitude 0 they are left out.
GRADED = sorted({*random_operations.OPERATIONS} - {"auto_contrast", "equalize"})


@pytest.mark.parametrize("name", GRADED)
def test_an_operation_without_strength_changes_nothing(name):
    x = photographs()
    np.testing.assert_allclose(by_operation(name, x, 0.0), x, atol=1e-4)


def test_magnitude_0_changes_nothing():
    x = photographs()
    assert np.array_equal(changed({"rand_augment": 3, "rand_magnitude": 0}, x), x)


@pytest.mark.parametrize(
    ("name", "strength", "operation"),
    [
        ("auto_contrast", 0.5, ImageOps.autocontrast),
        ("equalize", 0.5, ImageOps.equalize),
        ("posterize", 1.0, lambda image: ImageOps.posterize(image, 4)),
        ("solarize", 0.5, lambda image: ImageOps.solarize(image, 128)),
        ("color", 1.0, lambda image: ImageEnhance.Color(image).enhance(1.9)),
        ("contrast", -1.0, lambda image: ImageEnhance.Contrast(image).enhance(0.1)),
        ("brightness", -0.5, lambda image: ImageEnhance.Brightness(image).enhance(0.55)),
        ("sharpness", -1.0, lambda image: ImageEnhance.Sharpness(image).enhance(0.1)),
        ("rotate", 1.0, lambda image: image.rotate(-30, Image.Resampling.BILINEAR)),
    ],
)
def test_an_operation_is_that_of_pil(name, strength, operation):
    x = photographs()
    y, expected = by_operation(name, x, strength), by_pil(x, operation)
    if name == "rotate":  # PIL takes a border pixel whole or not at all
        y, expected = y[:, 6:-6, 8:-8], expected[:, 6:-6, 8:-8]
    # PIL rounds, or cuts off, after each of its steps: a duller picture is off by one, the result
    # by one more.
    assert np.abs(y - expected).max() <= 2


@pytest.mark.parametrize(
    ("name", "strength", "expected"),
    [
        ("translate_x", 0.5, lambda x: np.pad(x, ((0, 0), (0, 0), (0, 9), (0, 0)))[:, :, 9:]),
        ("translate_y", -0.5, lambda x: np.pad(x, ((0, 0), (9, 0), (0, 0), (0, 0)))[:, :-9]),
    ],
)
def test_shifts_are_by_up_to_045_of_the_side(name, strength, expected):
    x = pictures(2, (40, 40, 3))
    np.testing.assert_allclose(by_operation(name, x, strength), expected(x), atol=1e-2)


def test_shears_move_each_row_by_its_distance_from_the_middle():
    rows, columns = np.mgrid[:21, :21]
    x = np.stack([rows, columns, rows], axis=-1)[None] * 5
    sheared_x, sheared_y = by_operation("shear_x", x), by_operation("shear_y", x)
    middle = np.s_[0, 5:16, 5:16]
    shift = 5 * 0.3 * (rows - 10)[5:16, 5:16]
    np.testing.assert_allclose(sheared_x[middle][..., 1] - x[middle][..., 1], shift, atol=1e-2)
    np.testing.assert_allclose(sheared_y[middle][..., 0] - x[middle][..., 0], shift.T, atol=1e-2)


def test_every_operation_comes_about_equally_often():
    x = np.repeat(photographs(1), 1400, axis=0)
    y = changed({"rand_augment": 1, "rand_magnitude": 5}, x)
    kinds, counts = np.unique(y[:, ::6, ::6].reshape(1400, -1), axis=0, return_counts=True)
    # 14 operations, of which 9 go either way: 23 results, of probabilities 1/14 or 1/28.
    assert len(kinds) == 23
    assert counts.min() > 20
    assert counts.max() < 160


def test_grey_pictures_can_be_augmented_at_random_too():
    x = photographs()[..., :1]
    y = changed({"rand_augment": 2}, x)
    assert y.shape == x.shape
    assert not np.array_equal(y, x)


# === Mixing ===


def test_mixup_is_the_weighted_mean_of_two():
    x = pictures(3).astype(np.float32)
    share = each(np.float32([0.2, 1.0, 0.7]))
    y, said = mixed_up(x, share)
    np.testing.assert_allclose(array(y), share * x + (1 - share) * x[[2, 0, 1]], rtol=1e-5)
    assert np.array_equal(array(said), share)


def test_cutmix_pastes_a_box_and_counts_its_very_pixels():
    x = pictures(4).astype(np.float32)
    share = each(np.float32([0.75, 0.0, 1.0, 0.36]))
    row, column = each([4, 0, 2, 7]), each([6, 0, 3, 11])
    y, said = cut_in(x, share, row, column)
    expected = x.copy()
    # sides: 8 and 12 times sqrt(1 - share), halved and cut to whole pixels, then at the border
    expected[0, 2:6, 3:9] = x[3, 2:6, 3:9]
    expected[1, 0:4, 0:6] = x[0, 0:4, 0:6]
    expected[3, 4:8, 7:12] = x[2, 4:8, 7:12]
    assert np.array_equal(array(y), expected)
    np.testing.assert_allclose(array(said).ravel(), [1 - 24 / 96, 1 - 24 / 96, 1, 1 - 20 / 96])


def test_the_label_of_cutmix_is_the_share_of_pixels_that_stayed():
    x = np.stack([np.full((10, 14, 1), level, np.uint8) for level in range(64)])
    mix = Mix(mixup=0, cutmix=1.0, seed=0)
    y, share = (array(a) for a in mix(x, training=True))
    stayed = (y == x).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(share.ravel(), stayed, rtol=1e-6)
    assert len(np.unique(share)) > 20


def test_all_frames_of_a_clip_get_the_same_box():
    clip = np.repeat(pictures(8)[:, None], 4, axis=1)
    y, _ = (array(a) for a in Mix(mixup=0, cutmix=1.0, seed=0)(clip, training=True))
    assert all(np.array_equal(y[:, 0], y[:, t]) for t in range(1, 4))


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.5, 1.0, 4.0])
def test_shares_have_the_beta_distribution(alpha):
    generator = np.random.default_rng(0)
    n = 200_000
    one, other = generator.random((2, n), np.float32)
    found = array(symmetric_beta(alpha, one, other))
    assert np.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= 1
    edges = np.linspace(0, 1, 21)
    expected = np.histogram(generator.beta(alpha, alpha, n), edges)[0]
    # Both are samples; 6 standard deviations of the difference of two counts.
    assert (np.abs(np.histogram(found, edges)[0] - expected) < 6 * np.sqrt(2 * expected + 1)).all()


def test_mixing_with_a_chance_leaves_the_rest_alone():
    x = pictures(400, (6, 6, 1))
    y, share = (array(a) for a in Mix(mixup=1.0, cutmix=1.0, chance=0.25, seed=0)(x, training=True))
    untouched = share.ravel() == 1
    assert np.array_equal(y[untouched], x[untouched])
    assert abs(untouched.mean() - 0.75) < 0.12  # five deviations, and a box of no pixel is rare


def test_nothing_is_mixed_outside_training():
    x = pictures(3)
    y, share = Mix(mixup=1.0, cutmix=1.0, seed=0)(x, training=False)
    assert np.array_equal(array(y), x)
    assert np.array_equal(array(share).ravel(), [1, 1, 1])


@pytest.mark.parametrize("shape", [(5,), (4, 4, 4, 1)])
def test_mixup_works_at_any_rank(shape):
    x = np.random.default_rng(0).normal(size=(6, *shape)).astype(np.float32)
    y, share = (array(a) for a in Mix(mixup=1.0, cutmix=0, seed=0)(x, training=True))
    np.testing.assert_allclose(y, share * x + (1 - share) * np.roll(x, 1, axis=0), atol=1e-5)


def test_a_recipe_without_mixing_has_no_layer_for_it():
    assert mixing(Augment(), 0) is None
