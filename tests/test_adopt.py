"""Keras nets that were trained elsewhere become artifacts that answer as they did."""

import json
import unicodedata

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from typer.testing import CliRunner

import striate
from striate.cli import app
from striate.errors import ArtifactError, DataError, UsageError
from striate.explain import explain
from striate.runtime import open_engine
from striate.serve.signatures import signatures_of

layers = keras.layers
SIDE = 16


def folder(path, names=("cat", "dog", "hen"), each=4):
    """Noise in a folder for each class."""
    random = np.random.default_rng(0)
    for name in names:
        (path / name).mkdir(parents=True)
        for i in range(each):
            pixels = random.integers(0, 256, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path / name / f"{i}.png")
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return folder(tmp_path_factory.mktemp("data") / "pictures")


def picture(shape=(SIDE, SIDE, 3), **options):
    return keras.Input(shape, name="picture", **options)


def body(inputs, policy=None):
    x = layers.Conv2D(4, 3, activation="relu", dtype=policy)(inputs)
    x = layers.BatchNormalization(dtype=policy)(x)
    return layers.MaxPooling2D(dtype=policy)(x)


def pooled(inputs, **options):
    return layers.GlobalAveragePooling2D()(body(inputs, **options))


def net_of(end, name="mine", shape=(SIDE, SIDE, 3)):
    """A small net whose answer is `end(vector)`."""
    keras.utils.set_random_seed(0)
    inputs = picture(shape)
    return keras.Model(inputs, end(pooled(inputs)), name=name)


def with_a_net_within(name="mine"):
    """As transfer learning in Keras' own guide: changed pictures, a body, a new head."""
    keras.utils.set_random_seed(0)
    inner = picture()
    within = keras.Model(inner, body(inner), name="body")
    inputs = picture()
    x = layers.RandomFlip()(inputs)
    x = within(x / 127.5 - 1.0, training=False)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(x), name=name)


def sequential():
    keras.utils.set_random_seed(0)
    head = [layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(3), layers.Softmax()]
    return keras.Sequential([picture(), layers.Rescaling(1 / 255), *head], name="sequential")


def answers_of(net, pictures, spec):
    """What a net of Keras says itself of pictures as `spec` makes them."""
    pixels = np.stack([striate.preprocess.pixels(path, spec) for path in pictures])
    return net.predict(spec.layer()(pixels), verbose=0)


def pictures_in(data):
    return sorted(data.rglob("*.png"))


ENDS = {
    "logits": layers.Dense(3),
    "a softmax within the last layer": layers.Dense(3, activation="softmax"),
    "a layer of softmax": keras.Sequential([layers.Dense(3), layers.Softmax()]),
    "an activation": keras.Sequential([layers.Dense(3), layers.Activation("softmax")]),
    "an operation": lambda x: keras.ops.softmax(layers.Dense(3)(x)),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_the_artifact_says_what_the_net_says_however_it_ends(tmp_path, data, end):
    net = net_of(end)
    made = striate.adopt(net, tmp_path / "mine", data=data, preprocess="unit")
    said = answers_of(net, pictures_in(data), made.preprocess)
    expected = keras.ops.softmax(said) if end is ENDS["logits"] else said
    np.testing.assert_allclose(made.predict(pictures_in(data)), expected, atol=1e-6)


@pytest.mark.parametrize("activation", ["sigmoid", None])
def test_a_single_output_is_the_probability_of_the_second_class(tmp_path, activation):
    data = folder(tmp_path / "pictures", ("cat", "dog"))
    net = net_of(layers.Dense(1, activation=activation))
    made = striate.adopt(net, tmp_path / "mine", data=data, preprocess="unit")
    said = answers_of(net, pictures_in(data), made.preprocess)
    second = said if activation else keras.ops.convert_to_numpy(keras.ops.sigmoid(said))
    both = np.concatenate([1 - second, second], axis=-1)
    np.testing.assert_allclose(made.predict(pictures_in(data)), both, atol=1e-6)


def test_a_net_within_the_net_is_laid_open(tmp_path, data):
    net = with_a_net_within()
    made = striate.adopt(net, tmp_path / "mine", data=data, preprocess="raw")
    said = answers_of(net, pictures_in(data), made.preprocess)
    np.testing.assert_allclose(made.predict(pictures_in(data)), said, atol=1e-6)
    assert not any(isinstance(layer, keras.Model) for layer in made.model.layers)
    assert len(made.model.output.shape) == 2
    assert made.places.cam_layer.startswith("max_pooling2d")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_file_of_keras_is_read(tmp_path, data, suffix):
    net = sequential()
    net.save(tmp_path / f"net{suffix}")
    made = striate.adopt(tmp_path / f"net{suffix}", tmp_path / "mine", data=data, preprocess="raw")
    said = answers_of(net, pictures_in(data), made.preprocess)
    np.testing.assert_allclose(made.predict(pictures_in(data)), said, atol=1e-6)


def test_the_net_itself_stays_as_it_was(tmp_path, data):
    net = net_of(layers.Dense(3, activation="softmax"))
    before = answers_of(net, pictures_in(data), striate.preprocess.preset("unit", SIDE, SIDE))
    striate.adopt(net, tmp_path / "mine", data=data, preprocess="unit")
    after = answers_of(net, pictures_in(data), striate.preprocess.preset("unit", SIDE, SIDE))
    np.testing.assert_array_equal(before, after)
    assert net.layers[-1].activation is keras.activations.softmax


def test_a_layer_that_is_used_twice_is_one(tmp_path, data):
    inputs = picture()
    twice = layers.Conv2D(3, 3, padding="same")
    x = layers.GlobalMaxPooling2D()(twice(twice(inputs)))
    net = keras.Model(inputs, layers.Dense(3)(x))
    made = striate.adopt(net, tmp_path / "mine", data=data, preprocess="unit")
    assert made.model.count_params() == net.count_params()
    said = keras.ops.softmax(answers_of(net, pictures_in(data), made.preprocess))
    np.testing.assert_allclose(made.predict(pictures_in(data)), said, atol=1e-6)


def test_two_nets_within_whose_layers_are_called_alike_are_told_apart(tmp_path, data):
    inputs = picture()
    halves = []
    for name in ("left", "right"):
        inner = picture()
        x = layers.Conv2D(2, 3, name="conv")(inner)
        halves.append(keras.Model(inner, layers.GlobalMaxPooling2D()(x), name=name)(inputs))
    net = keras.Model(inputs, layers.Dense(3)(layers.Concatenate()(halves)))
    made = striate.adopt(net, tmp_path / "mine", data=data, preprocess="unit")
    said = keras.ops.softmax(answers_of(net, pictures_in(data), made.preprocess))
    np.testing.assert_allclose(made.predict(pictures_in(data)), said, atol=1e-6)


def test_what_learnt_in_fewer_bits_answers_in_floats(tmp_path, data):
    inputs = picture()
    x = pooled(inputs, policy="mixed_float16")
    end = layers.Dense(3, activation="softmax", dtype="mixed_float16")(x)
    net = keras.Model(inputs, end)
    made = striate.adopt(net, tmp_path / "mine", data=data, preprocess="unit")
    assert {layer.compute_dtype for layer in made.model.layers} == {"float32"}
    said = answers_of(net, pictures_in(data), made.preprocess)
    np.testing.assert_allclose(made.predict(pictures_in(data)), said, atol=5e-3)


def test_a_net_for_pictures_of_any_size_is_told_which(tmp_path, data):
    net = net_of(layers.Dense(3), shape=(None, None, 3))
    with pytest.raises(UsageError, match="pictures of any size: say which, as size=224"):
        striate.adopt(net, tmp_path / "mine", data=data, preprocess="unit")
    made = striate.adopt(net, tmp_path / "mine", data=data, preprocess="unit", size=(16, 20))
    assert made.preprocess.shape == (16, 20, 3)
    said = keras.ops.softmax(answers_of(net, pictures_in(data), made.preprocess))
    np.testing.assert_allclose(made.predict(pictures_in(data)), said, atol=1e-6)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"size": 0}, "size as a whole number of at least 1, got 0"),
        ({"size": "24"}, "size as a whole number of at least 1, got '24'"),
        ({"size": (1, 2, 3)}, r"size as one side or as \(height, width\), got \(1, 2, 3\)"),
        ({"size": 1}, r"a size that its layers can take, got \(1, 1\)"),
        ({"size": 16, "preprocess": None}, "preprocess as a preset's name, got None"),
    ],
)
def test_a_size_or_preprocessing_that_cannot_be_is_said_in_a_line(tmp_path, data, asked, words):
    net = net_of(layers.Dense(3), shape=(None, None, 3))
    with pytest.raises(UsageError, match=words) as refused:
        striate.adopt(net, tmp_path / "mine", data=data, **{"preprocess": "unit", **asked})
    assert "\n" not in str(refused.value)


def test_a_size_may_be_a_number_of_numpy(tmp_path, data):
    net = net_of(layers.Dense(3), shape=(None, None, 3))
    how = {"data": data, "preprocess": "unit", "size": np.int64(16)}
    assert striate.adopt(net, tmp_path / "mine", **how).preprocess.shape == (16, 16, 3)


def test_it_says_how_many_pictures_the_net_names_rightly(tmp_path, data):
    net = net_of(layers.Dense(3))
    made = striate.adopt(net, tmp_path / "mine", data=data, preprocess="unit")
    named = made.predict(pictures_in(data)).argmax(axis=-1)
    right = np.repeat([0, 1, 2], 4)
    found = made.manifest.metrics["adopted"]
    assert found["n"] == 12
    assert found["accuracy"] == np.mean(named == right)
    judged = striate.evaluate(made, data, engine="keras", split="all")
    assert judged.accuracy == found["accuracy"]
    assert judged.intervals["accuracy"] == pytest.approx(found["accuracy_interval"], abs=1e-6)


def test_classes_are_numbered_as_keras_numbers_folders(tmp_path):
    data = folder(tmp_path / "pictures", [str(i) for i in range(11)], each=1)
    net = net_of(layers.Dense(11))
    made = striate.adopt(net, tmp_path / "mine", data=data, preprocess="unit")
    theirs = keras.utils.image_dataset_from_directory(data, verbose=False).class_names
    assert made.labels == theirs
    other = [*"abcdefghi", "0", "10"]
    with pytest.raises(DataError):
        striate.adopt(net, tmp_path / "mine", data=data, preprocess="unit", labels=other)


def test_a_class_that_is_none_of_the_labels_is_named(tmp_path, data):
    loaded = striate.data.load(data)
    with pytest.raises(DataError, match="expected classes that mine knows, got 'cat'"):
        striate.adopt(
            net_of(layers.Dense(3)),
            tmp_path / "mine",
            data=loaded,
            preprocess="unit",
            labels=["dog", "hen", "ape"],
        )


def test_labels_are_those_of_the_data_however_their_accents_are_written(tmp_path):
    data = folder(tmp_path / "pictures", ["é", "ü"])
    labels = [unicodedata.normalize("NFD", name) for name in "éü"]
    net = net_of(layers.Dense(2))
    made = striate.adopt(net, tmp_path / "mine", data=data, preprocess="unit", labels=labels)
    assert made.labels == ["é", "ü"]


def test_labels_may_be_more_than_the_data_has(tmp_path, data):
    labels = ["ape", "hen", "dog", "cat"]
    made = striate.adopt(
        net_of(layers.Dense(4)), tmp_path / "mine", data=data, preprocess="unit", labels=labels
    )
    assert made.labels == labels
    named = made.predict(pictures_in(data)).argmax(axis=-1)
    right = np.repeat([3, 2, 1], 4)
    assert made.manifest.metrics["adopted"]["accuracy"] == np.mean(named == right)


def test_a_net_that_is_called_like_one_of_the_registry_is_not_taken_for_it(tmp_path, data):
    net = net_of(layers.Dense(3), name="resnet18")
    made = striate.adopt(net, tmp_path / "mine", data=data, preprocess="unit")
    assert made.manifest.model["name"] == "keras:resnet18"
    assert made.spec is None


@pytest.mark.long
def test_it_is_exported_and_explained_as_any_other(tmp_path, data):
    made = striate.adopt(with_a_net_within(), tmp_path / "mine", data=data, preprocess="raw")
    made, rows = striate.export(made)
    assert {row.form for row in rows} == {"saved_model", "onnx", "litert"}
    assert all(row.top1_agreement == 1 for row in rows)
    images, scores = made.goldens()
    np.testing.assert_allclose(open_engine(made, "onnx").predict(images), scores, atol=1e-5)
    found = explain(made, pictures_in(data)[:2], method="grad_cam")
    assert np.shape(found.maps)[0] == 2
    assert "explain" in signatures_of(made)
    loaded = tf.saved_model.load(made.path).signatures["explain"]
    wired = loaded(image=tf.constant(images[:2]))
    np.testing.assert_allclose(wired["scores"], scores[:2], atol=1e-5)
    assert wired["heat_map"].shape == (2, SIDE, SIDE)


class Subclassed(keras.Model):
    def call(self, x):
        return x


@keras.saving.register_keras_serializable("tests")
class Own(layers.Layer):
    def call(self, x):
        return x * 2.0


def of_two_outputs():
    inputs = picture()
    return keras.Model(inputs, [layers.Dense(3)(pooled(inputs)) for _ in range(2)])


REFUSED = {
    "functional or Sequential": Subclassed,
    "a Keras net or its file": lambda: 7,
    "one input and one output": of_two_outputs,
    r"\[N, classes\], got \[None, 7, 7, 4\]": lambda: keras.Model(p := picture(), body(p)),
    r"an input \[N, H, W, C\]": lambda: keras.Model(v := keras.Input((4,)), layers.Dense(3)(v)),
    "1 or 3 channels, got 4": lambda: net_of(layers.Dense(3), shape=(SIDE, SIDE, 4)),
    "linear or softmax at the end of 3 outputs.*got relu": lambda: net_of(
        layers.Dense(3, activation="relu")
    ),
    "linear or softmax.*got sigmoid": lambda: net_of(layers.Dense(3, activation="sigmoid")),
    "got probabilities out of": lambda: net_of(
        lambda x: (y := keras.ops.exp(layers.Dense(3)(x))) / keras.ops.sum(y, -1, keepdims=True)
    ),
    "4 classes|expected 4": lambda: net_of(layers.Dense(4)),
    "a softmax over the classes, got one along axis 0": lambda: net_of(
        lambda x: layers.Softmax(axis=0)(layers.Dense(3)(x))
    ),
    "expected finite answers, got nan": lambda: net_of(
        layers.Dense(3, bias_initializer=keras.initializers.Constant(float("nan")))
    ),
    "'lambda.*keras.ops": lambda: net_of(lambda x: layers.Dense(3)(layers.Lambda(abs)(x))),
    "which every process can load.*Own": lambda: net_of(lambda x: layers.Dense(3)(Own()(x))),
}


@pytest.mark.parametrize("words", REFUSED)
def test_a_net_that_cannot_be_held_so_is_refused_in_a_line(tmp_path, data, words):
    with pytest.raises(UsageError, match=words) as refused:
        striate.adopt(REFUSED[words](), tmp_path / "mine", data=data, preprocess="unit")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "mine").exists()


def test_a_file_that_is_no_net_is_said_in_a_line(tmp_path, data):
    (tmp_path / "net.keras").write_bytes(b"nothing of the kind")
    with pytest.raises(ArtifactError, match="expected a whole net, Keras reads none"):
        striate.adopt(tmp_path / "net.keras", tmp_path / "mine", data=data, preprocess="unit")
    with pytest.raises(ArtifactError, match="got nothing there"):
        striate.adopt(tmp_path / "other.keras", tmp_path / "mine", data=data, preprocess="unit")


def test_the_command_names_the_version_and_what_the_net_knows(tmp_path, data):
    sequential().save(tmp_path / "net.keras")
    (tmp_path / "labels.txt").write_text("hen\ndog \ncat\n\n", "utf-8-sig")  # as of Windows
    arguments = ["adopt", str(tmp_path / "net.keras"), "--data", str(data), "--preprocess", "raw"]
    arguments += ["-o", str(tmp_path / "mine"), "--labels", str(tmp_path / "labels.txt")]
    plain = CliRunner().invoke(app, arguments)
    assert plain.exit_code == 0
    assert plain.stdout == f"{tmp_path / 'mine' / '1'}\n"
    assert "pictures rightly" in plain.stderr
    document = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert document["path"] == str(tmp_path / "mine" / "2")
    assert document["labels"] == ["hen", "dog", "cat"]
    assert 0 <= document["accuracy"] <= 1
    assert document["n"] == 12


def test_pictures_that_cannot_be_read_are_named_and_left_out(tmp_path):
    broken = folder(tmp_path / "pictures") / "dog" / "broken.png"
    broken.write_bytes(b"no picture")
    sequential().save(tmp_path / "net.keras")
    arguments = ["adopt", str(tmp_path / "net.keras"), "--data", str(tmp_path / "pictures")]
    ran = CliRunner().invoke(app, [*arguments, "--preprocess", "raw", "-o", str(tmp_path / "mine")])
    assert ran.exit_code == 0
    assert ran.stderr.count("broken.png") == 1
    made = striate.load(tmp_path / "mine")
    assert made.manifest.metrics["adopted"]["n"] == 12
    (problem,) = made.manifest.data["left_out"]
    assert "broken.png" in problem


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none.keras", "--data", "{data}", "--preprocess", "raw"], "got nothing there"),
        (["{net}", "--data", "{data}", "--preprocess", "rw"], "Did you mean 'raw'"),
        (["{net}", "--data", "nowhere", "--preprocess", "raw"], "got nothing there"),
        (["{net}", "--data", "{data}", "--preprocess", "raw", "--labels", "no"], "cannot be read"),
    ],
)
def test_what_is_wrong_with_the_command_is_said_before_keras_is_loaded(
    tmp_path, data, monkeypatch, arguments, words
):
    def never():
        raise AssertionError("TensorFlow was loaded")

    monkeypatch.setattr("striate.cli.adopt.load_tensorflow", never)
    (tmp_path / "net.keras").write_bytes(b"")
    given = [a.format(data=data, net=tmp_path / "net.keras") for a in arguments]
    ran = CliRunner().invoke(app, ["adopt", *given, "-o", str(tmp_path / "mine")])
    assert words in str(ran.exception)
