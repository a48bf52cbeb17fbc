"""Image -> tensor: a picture arrives as the same pixels everywhere, or as one clear line."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from striate.errors import DataError, UsageError
from striate.preprocess import Preprocess, decode, pixels, preset, source_box


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def gradient(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 255 // height, columns * 255 // width, rows * 0 + 40], -1).astype(
        "uint8"
    )


def test_a_spec_survives_json_and_names_an_unknown_key():
    spec = preset("caffe", 227, 227, crop=0.875)
    assert Preprocess.from_dict(spec.to_dict()) == spec
    with pytest.raises(UsageError, match=r"no key 'crops'. Did you mean 'crop'"):
        Preprocess.from_dict({**spec.to_dict(), "crops": 1})


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"channels": 2}, "channels 1"),
        ({"crop": 0.0}, "0 < crop"),
        ({"fit": "squash"}, "fit crop, stretch or pad"),
        ({"crop": 1.1}, "0 < crop"),
        ({"mean": (0.0,)}, r"3 numbers as mean, one a channel, got mean \(0.0,\)"),
        ({"mean": ("a",) * 3}, "3 numbers as mean"),
        ({"scale": None}, "3 numbers as scale, one a channel, got scale None"),
        ({"scale": (float("nan"),) * 3}, "3 numbers as scale"),
        ({"scale": (1.0,)}, "3 numbers as scale"),
        ({"interpolation": "cubic"}, "interpolation nearest, bilinear"),
        ({"background": -1}, "background from 0 to 255"),
        ({"background": 256}, "background from 0 to 255"),
        ({"order": "rbg"}, "order rgb or bgr"),
        ({"height": 0}, "height as a whole number of at least 1, got height 0"),
        ({"width": "8"}, "width as a whole number of at least 1, got width '8'"),
        ({"width": 1.5}, "width as a whole"),
        ({"crop": "a"}, "0 < crop <= 1, got crop 'a'"),
        ({"interpolation": []}, "interpolation nearest, bilinear"),
        ({"background": 1.5}, "background from 0 to 255, a whole number, got background 1.5"),
        ({"width": 0}, "at least 1"),
        ({"fit": "pad", "crop": 0.5}, "crop 1 where fit is pad"),
    ],
)
def test_an_impossible_spec_is_refused(change, complaint):
    with pytest.raises(UsageError, match=complaint) as caught:
        Preprocess(**{"height": 8, "width": 8, **change})
    assert len(str(caught.value)) < 120


def test_a_grey_net_takes_the_average_of_a_convention():
    grey = preset("caffe", 8, 8, 1)
    assert grey.mean == (pytest.approx((103.939 + 116.779 + 123.68) / 3),)
    scale = (1 / 58.395 + 1 / 57.12 + 1 / 57.375) / 3
    assert preset("torch", 8, 8, 1).scale == (pytest.approx(scale),)
    assert (grey.order, grey.shape) == ("rgb", (8, 8, 1))


def test_levels_are_from_0_to_1_unless_a_net_normalises_in_itself():
    assert Preprocess(8, 8) == preset("unit", 8, 8)
    raw = preset("raw", 8, 8)
    assert (raw.mean, raw.scale, raw.order) == ((0, 0, 0), (1, 1, 1), "rgb")


def test_unknown_preset_offers_the_nearest():
    with pytest.raises(UsageError, match="Did you mean 'torch'"):
        preset("torsh", 8, 8)


def test_palette_grey_alpha_cmyk_and_16_bit_pictures_become_8_bit_rgb():
    rgb = Image.fromarray(gradient(20, 30))
    assert (decode(encoded(rgb)) == gradient(20, 30)).all()
    assert decode(encoded(rgb.quantize(16))).shape == (20, 30, 3)
    assert (decode(encoded(rgb.convert("L")))[..., 0] == np.asarray(rgb.convert("L"))).all()
    cmyk = decode(encoded(rgb.convert("CMYK"), "JPEG", quality=95))
    assert np.abs(cmyk.astype(int) - gradient(20, 30)).mean() < 12
    deep = Image.fromarray((gradient(20, 30)[..., 0].astype(np.uint16) << 8) + 255)
    assert (decode(encoded(deep))[..., 1] == gradient(20, 30)[..., 0]).all()


def test_a_level_of_16_bits_means_the_same_whatever_else_is_in_the_picture():
    dark = np.arange(256, dtype=np.uint16).reshape(16, 16)
    bright = np.where(dark == 255, 65535, dark).astype(np.uint16)
    for kind in ("PNG", "TIFF"):
        seen = [decode(encoded(Image.fromarray(levels), kind))[..., 0] for levels in (dark, bright)]
        assert (seen[0] == 0).all()
        assert (seen[1] == bright >> 8).all()


def test_whole_numbers_without_a_white_are_refused_in_a_line(tmp_path):
    hounsfield = Image.fromarray(np.arange(-8, 8, dtype=np.int32).reshape(4, 4))
    hounsfield.save(tmp_path / "ct.tif")
    for source, name in ((tmp_path / "ct.tif", "ct.tif"), (hounsfield, "the picture")):
        with pytest.raises(DataError, match=f"{name}: expected levels of 8 bits.*with a sign"):
            pixels(source, preset("unit", 4, 4))


@pytest.mark.parametrize("channels", [1, 3])
def test_what_pixels_made_goes_through_it_as_it_is_and_a_file_of_its_size_is_cropped(channels):
    spec = preset("unit", 16, 16, channels, crop=0.5)
    tensor = pixels(gradient(40, 40), spec)
    assert (pixels(tensor, spec) == tensor).all()
    if channels == 1:
        assert (pixels(tensor[..., 0], spec) == tensor).all()
    picture = Image.fromarray(tensor.squeeze())
    cropped = pixels(encoded(picture), spec)
    assert (cropped != tensor).any()
    assert (pixels(picture, spec) == cropped).all()


def test_transparent_pixels_show_the_background():
    clear = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    assert (decode(encoded(clear)) == 255).all()
    assert (decode(encoded(clear), background=7) == 7).all()


def test_a_transparent_colour_shows_the_background_too():
    red = Image.new("RGB", (4, 4), (255, 0, 0))
    assert (decode(encoded(red, transparency=(255, 0, 0))) == 255).all()
    assert (decode(encoded(red, transparency=(0, 0, 0)))[..., 1] == 0).all()


def test_a_float_that_is_no_number_leaves_the_others_their_levels():
    levels = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)
    levels[0, 1] = np.nan
    seen = decode(encoded(Image.fromarray(levels), "TIFF"))[..., 0]
    assert (seen[0, 1], seen[0, 2], seen[3, 3]) == (0, 34, 255)


def test_floats_up_to_255_are_levels():
    levels = np.arange(256, dtype=np.float32).reshape(16, 16)
    assert (decode(encoded(Image.fromarray(levels), "TIFF"))[..., 0] == levels).all()


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its right side
    upright = decode(encoded(Image.fromarray(gradient(20, 30)), "JPEG", exif=exif))
    assert upright.shape == (30, 20, 3)
    data = encoded(Image.fromarray(gradient(20, 30)), "JPEG", exif=exif)
    spec = preset("unit", 30, 20)
    assert (pixels(Image.open(io.BytesIO(data)), spec) == upright).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_as_pillow_turns_it(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(gradient(20, 30)), exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert (decode(data) == np.asarray(expected)).all()


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_a_picture_with_damaged_exif_data_is_read_as_it_stands(kind):
    picture = Image.fromarray(gradient(20, 30))
    damaged = encoded(picture, kind, lossless=True, exif=b"no EXIF data")
    assert (decode(damaged) == gradient(20, 30)).all()


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "an empty file"),
        (b"once upon a time", "something else"),
        (encoded(Image.fromarray(gradient(64, 64)), "JPEG")[:500], "a damaged one"),
    ],
)
def test_what_is_not_a_picture_is_named_in_one_line(tmp_path, data, complaint):
    path = tmp_path / "holiday.png"
    path.write_bytes(data)
    with pytest.raises(DataError, match=f"holiday.png: .*{complaint}") as caught:
        decode(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_decompression_bomb_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"nowhere.png: cannot be read"):
        decode(tmp_path / "nowhere.png")
    bomb = Image.new("1", (20_000, 20_000))
    with pytest.raises(DataError, match="expected at most 100,000,000"):
        decode(encoded(bomb))


def test_a_picture_of_few_pixels_and_an_endless_side_is_refused():
    """Brought to a net's width, a million of its rows would take a gigabyte."""
    thread = encoded(Image.new("L", (1, 1_000_000)))
    with pytest.raises(DataError, match=r"1 x 1000000 pixels.*sides of at most 65,535"):
        pixels(thread, preset("unit", 224, 224))


def test_a_pillow_image_of_a_file_that_is_cut_off_is_refused_in_one_line():
    data = encoded(Image.fromarray(gradient(64, 64)), "JPEG")
    with pytest.raises(DataError, match="expected a whole one, got a damaged one"):
        pixels(Image.open(io.BytesIO(data[:-100])), preset("unit", 8, 8))


def test_pixels_of_the_net_s_own_size_are_untouched():
    spec = preset("unit", 20, 30)
    assert (pixels(encoded(Image.fromarray(gradient(20, 30))), spec) == gradient(20, 30)).all()
    assert pixels(gradient(20, 30), spec) is not None


def test_bytes_path_and_array_give_the_same_pixels(tmp_path):
    spec = preset("torch", 24, 24, crop=0.875)
    data = encoded(Image.fromarray(gradient(50, 70)), "JPEG")
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    assert (pixels(data, spec) == pixels(path, spec)).all()
    assert (pixels(data, spec) == pixels(decode(data), spec)).all()
    assert (pixels(data, spec) == pixels(Image.open(path), spec)).all()


def test_crop_keeps_the_centre_stretch_the_whole_pad_the_shape():
    picture = np.zeros((10, 30, 3), np.uint8)
    picture[:, 10:20] = 200
    assert (pixels(picture, preset("unit", 10, 10)) == 200).all()
    tall = np.ascontiguousarray(picture.swapaxes(0, 1))
    assert (pixels(tall, preset("unit", 10, 10)) == 200).all()
    stretched = pixels(picture, preset("unit", 10, 10, fit="stretch"))
    assert stretched[:, 0].max() == 0
    padded = pixels(picture, preset("unit", 30, 30, fit="pad", background=9))
    assert (padded[0] == 9).all()
    assert (padded[15, 15] == 200).all()


@pytest.mark.parametrize(
    ("size", "options", "box"),
    [
        ((10, 10), {}, (25, 0, 75, 50)),
        ((10, 10), {"crop": 0.5}, (37.5, 12.5, 62.5, 37.5)),
        ((10, 40), {}, (0, 12.5, 100, 37.5)),
        ((40, 10), {}, (43.75, 0, 56.25, 50)),
        ((10, 40), {"fit": "stretch"}, (0, 0, 100, 50)),
        ((10, 40), {"fit": "stretch", "crop": 0.5}, (25, 12.5, 75, 37.5)),
    ],
)
def test_the_box_that_is_kept_has_the_net_s_shape_and_the_picture_s_centre(size, options, box):
    assert source_box(100, 50, preset("unit", *size, **options)) == box


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("turn", [lambda x: x, lambda x: x.swapaxes(0, 1)])
def test_padding_is_the_same_on_both_sides_and_of_the_background(channels, turn):
    grey = np.random.default_rng(0).integers(10, 256, (10, 30, 1), dtype=np.uint8)
    spec = preset("unit", 30, 30, channels, fit="pad", background=9)
    padded = turn(pixels(np.ascontiguousarray(turn(grey)), spec))
    assert (padded[:10] == 9).all()
    assert (padded[10:20] == grey).all()
    assert (padded[20:] == 9).all()


@pytest.mark.parametrize("name", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [(37, 53), (80, 30)])
def test_the_interpolation_is_pillow_s_of_that_name_across_and_then_down(name, size):
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    spec = preset("unit", 12, 16, crop=0.875, interpolation=name)
    height, width = size
    left, top, right, bottom = source_box(width, height, spec)
    kind = Image.Resampling[name.upper()]
    across = Image.fromarray(picture).resize((16, height), kind, (left, 0, right, height))
    expected = across.resize((16, 12), kind, (0, top, 16, bottom))
    assert (pixels(picture, spec) == np.asarray(expected)).all()


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 400),
    height=st.integers(1, 400),
    size=st.tuples(st.integers(1, 64), st.integers(1, 64)),
    fit=st.sampled_from(["crop", "stretch", "pad"]),
    channels=st.sampled_from([1, 3]),
)
def test_any_picture_fits_any_net(width, height, size, fit, channels):
    spec = preset("unit", *size, channels, fit=fit)
    left, top, right, bottom = source_box(width, height, spec)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    picture = np.full((height, width, 3), 77, np.uint8)
    out = pixels(picture, spec)
    assert out.shape == (*size, channels)
    assert out.dtype == np.uint8


def test_an_array_may_be_grey_or_transparent():
    spec, picture = preset("unit", 8, 8), gradient(20, 30)
    grey = pixels(picture[..., 1], spec)
    assert (pixels(picture[..., 1:2], spec) == grey).all()
    assert (pixels(np.repeat(picture[..., 1:2], 3, -1), spec) == grey).all()
    clear = np.concatenate([picture, np.zeros((20, 30, 1), np.uint8)], -1)
    assert (pixels(clear, spec) == 255).all()
    with pytest.raises(DataError, match=r"got uint8 \[20, 30, 2\]"):
        pixels(picture[..., :2], spec)


def test_an_array_of_the_wrong_kind_is_refused():
    with pytest.raises(DataError, match=r"got float64 \[4, 4, 3\]"):
        pixels(np.zeros((4, 4, 3)), preset("unit", 4, 4))
    with pytest.raises(DataError, match=r"got uint8 \[2, 4, 4, 3\]"):
        pixels(np.zeros((2, 4, 4, 3), np.uint8), preset("unit", 4, 4))
    with pytest.raises(DataError, match=r"got uint8 \[0, 4, 3\]"):
        pixels(np.zeros((0, 4, 3), np.uint8), preset("unit", 4, 4))


@pytest.mark.parametrize("name", ["caffe", "tf", "torch", "unit"])
def test_the_normalising_layer_is_keras_applications_preprocessing(name):
    import keras

    levels = np.random.default_rng(0).integers(0, 256, (2, 5, 5, 3), dtype=np.uint8)
    ours = np.asarray(preset(name, 5, 5).layer()(levels))
    if name == "unit":
        theirs = levels / 255
    else:
        theirs = keras.applications.imagenet_utils.preprocess_input(
            levels.astype("float32"), mode=name
        )
    assert np.abs(ours - theirs).max() < 1e-4


@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize("shape", [(2, 5, 7, 3), (1, 2, 4, 6, 3), (3, 3)])
def test_normalised_pixels_are_the_formulas_to_the_last_bit(order, shape):
    from striate.layers import Normalise

    mean, scale = np.float32([103.939, 116.779, 123.68]), np.float32([1 / 58.4, 1 / 57.1, 0.5])
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    layer = Normalise(order=order, mean=mean, scale=scale)
    turned = images[..., ::-1] if order == "bgr" else images
    np.testing.assert_array_equal(layer(images), (turned.astype("float32") - mean) * scale)


def test_pictures_of_any_size_are_normalised_by_one_graph():
    import keras

    from striate.layers import Normalise

    spec = {"order": "bgr", "mean": (1.0, 2.0, 3.0), "scale": (1.0, 0.5, 0.25)}
    image = keras.Input((None, None, 3), dtype="uint8")
    net = keras.Model(image, Normalise(**spec)(image))
    for size in (4, 9):
        images = np.full((2, size, size + 1, 3), 7, np.uint8)
        found = net.predict(images, verbose=0)
        np.testing.assert_array_equal(found, np.broadcast_to([6.0, 2.5, 1.0], images.shape))


def test_nets_for_cifar_have_a_convention_of_their_own():
    levels = np.random.default_rng(0).integers(0, 256, (2, 5, 5, 3), dtype=np.uint8)
    theirs = (levels / 255 - (0.4914, 0.4822, 0.4465)) / (0.2023, 0.1994, 0.2010)
    assert np.abs(preset("cifar", 5, 5).layer()(levels) - theirs).max() < 1e-5


def test_dual_path_networks_have_a_convention_of_their_own():
    levels = np.random.default_rng(0).integers(0, 256, (2, 5, 5, 3), dtype=np.uint8)
    mean, std = np.divide((124, 117, 104), 255), 1 / (0.0167 * 255)  # as timm gives them
    theirs = (levels / 255 - mean) / std
    assert np.abs(preset("dpn", 5, 5).layer()(levels) - theirs).max() < 1e-5
