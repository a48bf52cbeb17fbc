"""Weights from files: the same answers as the net that wrote them, or one clear line."""

import dataclasses
import hashlib
import http.server
import io
import json
import threading
import zipfile

import h5py
import keras
import numpy as np
import pytest

from striate import fetch as fetching
from striate import registry
from striate.errors import StriateError, UsageError
from striate.fetch import fetch
from striate.pretrained import adapt_channels, read_arrays
from striate.registry import create_model, get_spec, open_weights

RNG = np.random.default_rng(0)


def shake(model: keras.Model) -> keras.Model:
    """Give every weight that starts as a constant a value of its own: biases, BatchNorm's four."""
    for layer in model.layers:
        for weight in layer.weights:
            if len(weight.shape) > 1:
                continue
            low, high = (0.5, 1.5) if "variance" in weight.path else (-0.5, 0.5)
            weight.assign(RNG.uniform(low, high, weight.shape))
            if "gamma" in weight.path:
                weight.assign(RNG.uniform(0.5, 1.5, weight.shape))
    return model


def run(model: keras.Model, x: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(x, training=False))


def pictures(shape: tuple[int, int, int], n: int = 2) -> np.ndarray:
    return RNG.uniform(-1, 1, (n, *shape)).astype("float32")


def assert_same_answers(ours: keras.Model, theirs: keras.Model, shape) -> None:
    """max |d| <= 1e-4 of the largest logit: the order of float32 sums is all that may differ."""
    x = pictures(shape)
    a, b = run(ours, x), run(theirs, x)
    assert np.abs(b).max() > 1e-3
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * max(1.0, np.abs(b).max()))


REFERENCES = {
    "mobilenet_v1_025": (keras.applications.MobileNet, {"alpha": 0.25}, (96, 96, 3), {}),
    "mobilenet_v2_035": (keras.applications.MobileNetV2, {"alpha": 0.35}, (96, 96, 3), {}),
    "resnet50": (keras.applications.ResNet50, {}, (64, 48, 3), {}),
    "vgg16": (keras.applications.VGG16, {}, (32, 32, 3), {"adaptive_pool": False}),
}


@pytest.fixture(scope="module", params=REFERENCES)
def reference(request):
    """A net of keras.applications with made-up weights, and how to build ours beside it."""
    builder, arguments, shape, options = REFERENCES[request.param]
    model = builder(
        weights=None, input_shape=shape, classes=5, classifier_activation=None, **arguments
    )
    return request.param, shake(model), shape, options


@pytest.mark.long
@pytest.mark.parametrize("suffix", [".h5", ".weights.h5"])
def test_answers_as_the_net_of_keras_applications_does(reference, suffix, tmp_path):
    name, theirs, shape, options = reference
    file = tmp_path / f"theirs{suffix}"
    theirs.save_weights(file) if suffix == ".weights.h5" else theirs.save(file)
    ours = create_model(name, input_shape=shape, weights=file, **options)
    assert ours.output_shape == (None, 5)
    assert_same_answers(ours, theirs, shape)


def test_the_file_tells_preprocessing_options_and_classes(reference, tmp_path):
    name, theirs, _, _ = reference
    theirs.save_weights(tmp_path / "theirs.weights.h5")
    opened = open_weights(name, tmp_path / "theirs.weights.h5")
    assert opened.classes == 5
    assert opened.preprocess == ("tf" if "mobilenet" in name else "caffe")
    assert dict(opened.options) == ({"stride_on_1x1": True} if "resnet" in name else {})


def test_a_body_without_its_top_loads_under_a_new_classifier(reference, tmp_path):
    name, _, shape, options = reference
    builder, arguments, _, _ = REFERENCES[name]
    body = builder(weights=None, include_top=False, input_shape=shape, **arguments)
    shake(body).save(tmp_path / "notop.h5")
    ours = create_model(
        name, num_classes=3, input_shape=shape, weights=tmp_path / "notop.h5", **options
    )
    assert ours.output_shape == (None, 3)
    last = {"vgg16": "stage5_pool"}.get(name, get_spec(name).cam_layer)
    inside = keras.Model(ours.input, ours.get_layer(last).output)
    assert_same_answers(inside, body, shape)


@pytest.fixture(scope="module")
def mobilenet_file(tmp_path_factory):
    """Weights of keras.applications' smallest net, with a classifier of five classes."""
    path = tmp_path_factory.mktemp("weights") / "mobilenet.weights.h5"
    shape = (32, 32, 3)
    model = keras.applications.MobileNet(
        weights=None, alpha=0.25, input_shape=shape, classes=5, classifier_activation=None
    )
    shake(model).save_weights(path)
    return path


def build(file, channels: int, **options) -> keras.Model:
    return create_model("mobilenet_v1_025", weights=file, input_shape=(32, 32, channels), **options)


def test_other_classes_get_a_fresh_classifier_on_the_same_body(mobilenet_file):
    same, other = build(mobilenet_file, 3), build(mobilenet_file, 3, num_classes=4)
    assert other.output_shape == (None, 4)
    for a, b in zip(same.weights, other.weights, strict=True):
        assert "logits" in a.path or np.array_equal(a, b)


def test_grey_pictures_get_the_answer_of_the_same_grey_in_colour(mobilenet_file):
    grey = pictures((32, 32, 1))
    np.testing.assert_allclose(
        run(build(mobilenet_file, 1), grey),
        run(build(mobilenet_file, 3), np.repeat(grey, 3, axis=-1)),
        atol=1e-5,
    )


def test_more_channels_repeat_the_colours_and_keep_the_scale(mobilenet_file):
    grey = pictures((32, 32, 1))
    np.testing.assert_allclose(
        run(build(mobilenet_file, 6), np.repeat(grey, 6, axis=-1)),
        run(build(mobilenet_file, 3), np.repeat(grey, 3, axis=-1)),
        atol=1e-5,
    )
    kernel = RNG.standard_normal((3, 3, 3, 2)).astype("float32")
    four = adapt_channels(kernel, 4)
    np.testing.assert_allclose(four, kernel[:, :, [0, 1, 2, 0]] * 3 / 4, rtol=1e-6)
    assert adapt_channels(kernel, 3) is kernel


# === Our own files ===


def test_weights_that_were_opened_for_another_net_are_refused_in_a_line(mobilenet_file):
    opened = open_weights("mobilenet_v1_025", mobilenet_file)
    opened.options = {"alpha": 0.25}
    with pytest.raises(UsageError, match="lenet5 has no option 'alpha'"):
        create_model("lenet5", weights=opened)


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_our_own_files_load_too(suffix, tmp_path):
    theirs = shake(create_model("resnet20_cifar", num_classes=4))
    file = tmp_path / f"ours{suffix}"
    theirs.save_weights(file) if suffix == ".weights.h5" else theirs.save(file)
    assert open_weights("resnet20_cifar", file).preprocess is None
    ours = create_model("resnet20_cifar", weights=file)
    assert_same_answers(ours, theirs, (32, 32, 3))
    assert create_model("resnet20_cifar", num_classes=7, weights=file).output_shape == (None, 7)


def test_a_version_directory_counts_as_the_model_in_it(tmp_path):
    theirs = shake(create_model("lenet5"))
    theirs.save(tmp_path / "model.keras")
    assert_same_answers(create_model("lenet5", weights=tmp_path), theirs, (32, 32, 1))


def test_squeezenet_changes_its_classifier_on_the_same_body(tmp_path):
    theirs = create_model("squeezenet1_1", num_classes=6, input_shape=(48, 48, 3))
    theirs.save(tmp_path / "net.keras")
    ours = create_model(
        "squeezenet1_1",
        num_classes=6,
        input_shape=(48, 48, 3),
        weights=tmp_path / "net.keras",
        classifier="linear",
    )
    body = [keras.Model(m.input, m.get_layer("stage3_out").output) for m in (ours, theirs)]
    assert_same_answers(*body, (48, 48, 3))


# === The quirks of published files ===


def write_keras1(path, layers: dict[str, dict[str, np.ndarray]]) -> None:
    """An .h5 as Keras 1 and 2 wrote it: weights named by attributes, whatever they are called."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in layers]
        for name, weights in layers.items():
            group = file.create_group(name)
            group.attrs["weight_names"] = [key.encode() for key in weights]
            for key, value in weights.items():
                group[key] = value


def test_names_of_keras_1_and_layers_without_weights_are_read(tmp_path):
    kernel, bias = np.ones((3, 3, 3, 2), "float32"), np.zeros(2, "float32")
    write_keras1(
        tmp_path / "old.h5",
        {
            "input_1": {},
            "block1_conv1": {"block1_conv1_W_1:0": kernel, "block1_conv1_b_1:0": bias},
            "fire2/squeeze1x1": {"fire2/squeeze1x1_W:0": kernel, "fire2/squeeze1x1_b:0": bias},
        },
    )
    arrays = read_arrays(tmp_path / "old.h5")
    assert list(arrays) == ["block1_conv1", "fire2/squeeze1x1"]
    np.testing.assert_array_equal(arrays["block1_conv1"][0], kernel)


def test_lists_too_long_for_one_attribute_are_joined(tmp_path):
    """HDF5 holds 64 kB an attribute; Keras then writes layer_names0, layer_names1, ..."""
    layers = {f"layer_{i}": {"kernel:0": np.full((1, 1), i, "float32")} for i in range(4)}
    write_keras1(tmp_path / "long.h5", layers)
    with h5py.File(tmp_path / "long.h5", "r+") as file:
        names = file.attrs.pop("layer_names")
        file.attrs["layer_names0"], file.attrs["layer_names1"] = names[:3], names[3:]
    assert {k: v[0].item() for k, v in read_arrays(tmp_path / "long.h5").items()} == {
        f"layer_{i}": i for i in range(4)
    }


@pytest.mark.parametrize("suffix", [".h5", ".keras", ".weights.h5"])
def test_a_net_inside_a_net_is_read_through(suffix, tmp_path):
    """What a fine-tuning tutorial saves: the published body as one layer under a new classifier."""
    body = keras.applications.MobileNet(
        weights=None, alpha=0.25, input_shape=(32, 32, 3), include_top=False, pooling="avg"
    )
    theirs = keras.Sequential([keras.Input((32, 32, 3)), shake(body), keras.layers.Dense(4)])
    body.layers[1].trainable = False  # frozen layers are stored in another order
    file = tmp_path / f"nested{suffix}"
    theirs.save_weights(file) if suffix == ".weights.h5" else theirs.save(file)
    ours = build(file, 3)
    assert ours.output_shape == (None, 4)
    assert_same_answers(ours, theirs, (32, 32, 3))


def without_layer_names(source, target) -> None:
    """Copy a .keras file as the first versions of Keras 3 wrote it: its weights name no layers."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        content = io.BytesIO(old.read("model.weights.h5"))
        with h5py.File(content, "r+") as file:
            file.visititems(lambda _, item: item.attrs.pop("name", None))
        new.writestr("model.weights.h5", content.getvalue())
        new.writestr("config.json", old.read("config.json"))


def test_an_older_keras_file_is_read_by_the_order_of_its_layers(tmp_path):
    body = keras.applications.MobileNet(
        weights=None, alpha=0.25, input_shape=(32, 32, 3), include_top=False, pooling="avg"
    )
    theirs = keras.Sequential([keras.Input((32, 32, 3)), shake(body), keras.layers.Dense(4)])
    theirs.save(tmp_path / "new.keras")
    without_layer_names(tmp_path / "new.keras", tmp_path / "old.keras")
    assert_same_answers(build(tmp_path / "old.keras", 3), theirs, (32, 32, 3))


# === What does not fit ===


def assert_refused(match: str, name: str, file, **options) -> None:
    with pytest.raises(UsageError, match=match) as caught:
        create_model(name, weights=file, **options)
    assert "\n" not in str(caught.value)


def test_another_width_names_the_first_layer_that_differs(mobilenet_file):
    assert_refused(
        r"not hold weights of mobilenet_v1_050: layer 'conv1' has .*expected \(3, 3, 3, 16\)",
        "mobilenet_v1_050",
        mobilenet_file,
    )


def test_another_family_says_what_the_file_holds(mobilenet_file):
    assert_refused("no layer 'stem_conv' .*'conv1'", "resnet18", mobilenet_file)


def test_a_deeper_net_s_file_is_not_taken_for_a_shallower_one(tmp_path):
    theirs = keras.applications.VGG19(weights=None, include_top=False, input_shape=(32, 32, 3))
    theirs.save_weights(tmp_path / "vgg19.weights.h5")
    assert_refused(
        "layer 'block._conv4' for which the net has no place",
        "vgg16",
        tmp_path / "vgg19.weights.h5",
        fc_units=8,
    )


def test_a_file_that_does_not_fit_leaves_the_net_untouched(mobilenet_file):
    opened = open_weights("mobilenet_v1_025", mobilenet_file)
    opened.arrays["conv_pw_13"] = [np.zeros((1, 1, 7, 7), "float32")]  # the last of the body
    model = create_model("mobilenet_v1_025", num_classes=5, input_shape=(32, 32, 3))
    before = [keras.ops.convert_to_numpy(w).copy() for w in model.weights]
    with pytest.raises(UsageError, match="conv_pw_13"):
        opened.assign(model, first_conv="stem_conv")
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)


@pytest.mark.parametrize(
    ("file", "content", "match"),
    [
        ("weights.h5", b"not HDF5 at all", "expected weights saved by Keras"),
        ("net.keras", b"PK\x03\x04 cut off", "expected weights saved by Keras"),
        ("net.pth", b"", "torch"),
        ("net.safetensors", b"", "torch"),
        ("empty.h5", None, "found none"),
    ],
)
def test_what_is_no_keras_file_is_one_clear_line(file, content, match, tmp_path):
    path = tmp_path / file
    if content is None:
        h5py.File(path, "w").close()
    else:
        path.write_bytes(content)
    assert_refused(match, "lenet5", path)


def test_a_keras_archive_without_weights_is_one_clear_line(tmp_path):
    with zipfile.ZipFile(tmp_path / "net.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    assert_refused("expected weights saved by Keras", "lenet5", tmp_path / "net.keras")


def test_a_name_that_is_neither_published_nor_a_file():
    assert_refused(r"'imagnet', which is no file\. Did you mean 'imagenet'", "vgg16", "imagnet")
    assert_refused("expected weights as a file or None", "lenet5", "imagenet")
    assert_refused("as a file or None .*none are published.*, got '3'", "lenet5", 3)


# === Published weights ===


@pytest.fixture
def server(tmp_path):
    """A local HTTP server: (its address, the folder it serves, the paths it was asked for)."""
    folder = tmp_path / "served"
    folder.mkdir()
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=folder)

        def do_GET(self):
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}", folder, asked
        running.shutdown()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STRIATE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_fetches_once_and_keeps_what_the_hash_confirms(server, cache, algorithm):
    address, folder, asked = server
    (folder / "w.h5").write_bytes(b"weights")
    digest = f"{algorithm}:{hashlib.new(algorithm, b'weights').hexdigest()}"
    for _ in range(2):
        path = fetch(f"{address}/w.h5", hash=digest, name="net/w.h5")
    assert path.read_bytes() == b"weights"
    assert asked == ["/w.h5"]
    assert list((cache / "net").iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644  # readable to others who share the cache


def test_a_user_without_a_home_is_told_to_name_a_cache(monkeypatch):
    def unknown(number):
        raise KeyError(number)

    monkeypatch.setattr("pwd.getpwuid", unknown)
    for name in ("HOME", "XDG_CACHE_HOME", "STRIATE_CACHE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(StriateError, match="point STRIATE_CACHE at a folder"):
        fetch("http://localhost/weights", hash=None, name="weights")


def test_the_first_digits_of_a_sha256_will_do_but_not_a_few(server, cache):
    """torch's files have eight in their names."""
    address, folder, _ = server
    (folder / "w.pth").write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    assert fetch(f"{address}/w.pth", hash=f"sha256:{digest[:8]}", name="a.pth").exists()
    for wrong in (digest[:7], "", "0" * 8, digest[1:9]):
        with pytest.raises(StriateError, match="expected sha256"):
            fetch(f"{address}/w.pth", hash=f"sha256:{wrong}", name="b.pth")


def test_a_wrong_hash_leaves_nothing_behind(server, cache):
    address, folder, _ = server
    (folder / "w.h5").write_bytes(b"tampered")
    pinned = "sha256:" + hashlib.sha256(b"weights").hexdigest()
    with pytest.raises(StriateError, match=r"expected sha256 .* the file was deleted"):
        fetch(f"{address}/w.h5", hash=pinned, name="net/w.h5")
    assert list((cache / "net").iterdir()) == []


def test_a_cached_file_that_was_changed_is_deleted(server, cache):
    address, folder, _ = server
    (folder / "w.h5").write_bytes(b"weights")
    pinned = "sha256:" + hashlib.sha256(b"weights").hexdigest()
    path = fetch(f"{address}/w.h5", hash=pinned, name="w.h5")
    path.write_bytes(b"rotten")
    with pytest.raises(StriateError, match="deleted"):
        fetch(f"{address}/w.h5", hash=pinned, name="w.h5")
    assert not path.exists()
    assert fetch(f"{address}/w.h5", hash=pinned, name="w.h5").read_bytes() == b"weights"


def test_without_a_published_hash_the_digest_is_said(server):
    address, folder, _ = server
    (folder / "w.h5").write_bytes(b"weights")
    with pytest.warns(UserWarning, match=hashlib.sha256(b"weights").hexdigest()):
        fetch(f"{address}/w.h5", hash=None, name="w.h5")


def test_a_server_that_is_not_there_says_where_to_put_the_file(server, cache):
    address, _, _ = server
    with pytest.raises(StriateError, match=rf"404.*put it at {cache / 'net' / 'w.h5'}"):
        fetch(f"{address}/w.h5", hash=None, name="net/w.h5")
    with pytest.raises(StriateError, match="cannot be fetched"):
        fetch("http://127.0.0.1:9/w.h5", hash=None, name="net/w.h5")
    assert list((cache / "net").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_one_clear_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STRIATE_CACHE", str(tmp_path / "file"))
    with pytest.raises(StriateError, match="point STRIATE_CACHE"):
        fetch("http://127.0.0.1:9/w.h5", hash=None, name="w.h5")


def test_the_cache_has_a_place_without_being_told(monkeypatch):
    monkeypatch.delenv("STRIATE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert str(fetching.cache_dir()) == "/somewhere/striate"


def test_imagenet_weights_are_fetched_checked_and_loaded(server, monkeypatch):
    """The whole way of `weights="imagenet"`, with a file of our own in the publisher's place."""
    address, folder, asked = server
    spec = get_spec("mobilenet_v1_025")
    theirs = keras.applications.MobileNet(
        weights=None, alpha=0.25, input_shape=(32, 32, 3), classifier_activation=None
    )
    shake(theirs).save(folder / "net.h5")
    digest = hashlib.md5((folder / "net.h5").read_bytes()).hexdigest()
    entry = dataclasses.replace(spec.weights[0], url=f"{address}/net.h5", hash=f"md5:{digest}")
    monkeypatch.setitem(registry._specs, spec.name, dataclasses.replace(spec, weights=(entry,)))
    opened = open_weights(spec.name, "imagenet")
    assert (opened.preprocess, opened.input_shape, opened.classes) == ("tf", (224, 224, 3), 1000)
    ours = create_model(spec.name, input_shape=(32, 32, 3), weights="imagenet")
    assert_same_answers(ours, theirs, (32, 32, 3))
    assert create_model(spec.name, weights=opened).input_shape == (None, 224, 224, 3)
    assert asked == ["/net.h5"]


def test_pinned_hashes_are_those_of_keras_applications():
    from keras.src.applications import resnet

    for name in ("resnet50", "resnet101", "resnet152"):
        assert get_spec(name).weights[0].hash == f"md5:{resnet.WEIGHTS_HASHES[name][0]}"
    unpinned = [s.name for s in registry.list_models(pretrained=True) if not s.weights[0].hash]
    assert all(name.startswith(("mobilenet", "squeezenet")) for name in unpinned)
    assert {"mobilenet_v1_100", "mobilenet_v2_100"}.isdisjoint(unpinned)


# === Real weights ===


def scores(model: keras.Model, photo, preset: str, size: int) -> np.ndarray:
    from striate import preprocess

    spec = preprocess.preset(preset, size, size, fit="stretch")
    x = spec.layer()(preprocess.pixels(photo, spec)[None])
    return run(model, keras.ops.convert_to_numpy(x))[0]


def test_squeezenet_names_what_is_in_the_photographs(shared):
    file = shared / "weights" / "squeezenet1_1_imagenet.h5"
    opened = open_weights("squeezenet1_1", file)
    assert (opened.preprocess, opened.classes) == ("caffe", 1000)
    model = create_model("squeezenet1_1", input_shape=(227, 227, 3), weights=opened)
    labels = json.loads((shared / "weights" / "imagenet1k_labels.json").read_text())
    assert len(labels) == 1000

    def top(photo: str, k: int) -> set[int]:
        return set(np.argsort(scores(model, shared / "photos" / photo, "caffe", 227))[-k:].tolist())

    assert top("coffee.png", 1) == {967}  # espresso
    assert top("chelsea.png", 3) == {281, 282, 285}  # tabby, tiger cat, Egyptian cat
    assert top("motorcycle_left.png", 1) == {665}  # moped


def test_mobilenet_v2_of_another_project_answers_as_it_does_there(shared):
    file = shared / "weights" / "mobilenetv2_100_160_dogs.h5"
    theirs = keras.models.load_model(file, compile=False)
    ours = create_model("mobilenet_v2_100", input_shape=(160, 160, 3), weights=file)
    assert ours.output_shape == (None, 19)
    x = pictures((160, 160, 3))
    a = keras.ops.convert_to_numpy(keras.ops.softmax(run(ours, x)))
    np.testing.assert_allclose(a, run(theirs, x), atol=1e-4)


def test_the_shipped_squeezenet_needs_no_network():
    opened = open_weights("squeezenet1_1", "imagenet")
    assert (opened.preprocess, opened.classes) == ("caffe", 1000)
    model = create_model(
        "squeezenet1_1",
        num_classes=12,
        weights=opened,
        **get_spec("squeezenet1_1").finetune_options,
    )
    assert model.input_shape == (None, 227, 227, 3)
    assert model.output_shape == (None, 12)
    kernel = opened.arrays["stage3_block4_expand3_conv"][0]
    np.testing.assert_array_equal(model.get_layer("stage3_block4_expand3_conv").kernel, kernel)
