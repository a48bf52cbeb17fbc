"""The packed form: one bit a binary weight, the same answers with and without compiled kernels."""

import random
import subprocess
import sys

import numpy as np
import onnx
import pytest

from making import tiny_artifact
from striate.artifact import load, write_version
from striate.errors import EngineError, UsageError
from striate.export import export, verify
from striate.layers import BinaryConv2D, BinaryDense
from striate.preprocess import preset
from striate.registry import create_model
from striate.runtime import FLOAT_TOLERANCE, fastest_engine, open_engine, usable
from striate.runtime.binary import chosen_kernel, kernels
from striate.runtime.packed import FILE

NETS = {
    "xnor_vgg_mnist": (28, 28, 1),
    "xnor_vgg_cifar": (32, 32, 3),
    "bwn_vgg_cifar": (32, 32, 3),
    "xnor_resnet18": (33, 33, 3),
    "bwn_resnet18": (33, 33, 3),
    "xnor_mobilenet_v1": (33, 33, 3),
}

pytestmark = pytest.mark.long  # nets are trained, exported and run


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """Keras, ONNX and packed forms of a small net."""
    artifact = tiny_artifact(
        tmp_path_factory.mktemp("models") / "mine", name="xnor_resnet18", shape=(33, 33, 3)
    )
    return export(artifact, ["packed"])


@pytest.mark.sweep
@pytest.mark.parametrize("name", NETS)
def test_every_binary_net_agrees_with_keras_with_and_without_kernels(tmp_path, name, monkeypatch):
    artifact = tiny_artifact(tmp_path / name, name=name, shape=NETS[name])
    artifact, rows = export(artifact, ["packed"])
    assert [row.engine for row in rows] == ["packed", "runner"]
    for row in rows:
        assert row.kernel.startswith(chosen_kernel()) or len(kernels()) == 1
        assert row.top1_agreement == 1.0
        assert row.max_abs_diff <= FLOAT_TOLERANCE
    images, scores = artifact.goldens()
    monkeypatch.setenv("STRIATE_KERNEL", "numpy")
    for name in ("packed", "runner"):
        engine = open_engine(artifact, name, threads=1)
        assert engine.kernel.endswith("no binary kernels")
        assert np.abs(engine.predict(images) - scores).max() <= FLOAT_TOLERANCE


def test_colours_in_the_other_order_are_turned(tmp_path):
    model = create_model("xnor_vgg_mnist", num_classes=3, input_shape=(8, 8, 3))
    artifact = write_version(
        tmp_path / "bgr",
        model=model,
        labels=["a", "b", "c"],
        preprocess=preset("caffe", 8, 8, 3),
        model_name=model.name,
        goldens=np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8),
    )
    _, rows = export(artifact, ["packed"])
    assert max(row.max_abs_diff for row in rows) <= FLOAT_TOLERANCE


def test_binary_weights_take_one_bit_each(packed):
    artifact, _ = packed
    stored = [
        t.raw_data
        for t in onnx.load(artifact.path / FILE).graph.initializer
        if t.data_type == onnx.TensorProto.UINT8
    ]
    layers = [k for k in artifact.model.layers if isinstance(k, (BinaryConv2D, BinaryDense))]
    assert len(stored) == len(layers) == 16
    for data, layer in zip(stored, layers, strict=True):
        assert layer.use_bias is False
        channels = layer.kernel.shape[-2]
        padded = -(-channels // 32) * 32  # whole words a pixel
        assert len(data) * 32 == layer.count_params() * 4 * padded // channels


def test_the_file_is_plain_onnx_for_any_runtime(tmp_path):
    """Here ONNX' own reference implementation, which knows nothing of striate."""
    from onnx.reference import ReferenceEvaluator

    artifact = tiny_artifact(tmp_path / "mine", name="bwn_vgg_mnist", shape=(8, 8, 1))
    binary = tiny_artifact(tmp_path / "other", name="xnor_vgg_mnist", shape=(8, 8, 1))
    for plain in (artifact, binary):
        made, _ = export(plain, ["packed"])
        model = onnx.load(made.path / FILE)
        onnx.checker.check_model(model, full_check=True)
        images, scores = made.goldens()
        (found,) = ReferenceEvaluator(model).run(["scores"], {"image": images[:1]})
        np.testing.assert_allclose(found, scores[:1], atol=1e-4)


def test_it_is_served_like_any_other_form(packed):
    artifact, _ = packed
    assert usable(artifact) == ["packed", "runner", "keras"]
    assert fastest_engine(artifact).name in ("packed", "runner")
    assert [(row.form, row.engine) for row in verify(artifact)] == [
        ("packed", "packed"),
        ("packed", "runner"),
    ]
    sizes = [artifact.manifest.files[name]["bytes"] for name in (FILE, "model.packed")]
    assert [row.bytes for row in verify(artifact)] == sizes


def test_what_cannot_be_packed_is_said_in_one_line(tmp_path):
    plain = tiny_artifact(tmp_path / "plain")
    with pytest.raises(UsageError, match="no binary layers to pack"):
        export(plain, ["packed"])
    assert "packed" not in load(plain.path).manifest.forms


def test_layers_without_a_packed_form_are_named():
    import keras

    from striate.export import compact, packed

    layer = BinaryConv2D(4, 3, pad=1, pad_value=1, binary_inputs=False, name="inner")
    layer(keras.Input((8, 8, 3)))
    with pytest.raises(UsageError, match=r"'inner' pads real inputs by 1.* export it to onnx"):
        packed.LAYERS["BinaryConv2D"](packed.Graph(), layer, packed.Tensor("x", "last"))
    with pytest.raises(UsageError, match=r"'inner' pads real inputs by 1.* export it to onnx"):
        compact.LAYERS["BinaryConv2D"](compact.Net(), layer, compact.Map(0))
    assert compact.LAYERS.keys() == packed.LAYERS.keys()
    with pytest.raises(UsageError, match=r"is a LeakyReLU, which has no packed form"):
        compact.handler_of(packed.LAYERS, keras.layers.LeakyReLU())
    with pytest.raises(UsageError, match=r"has its activation tanh within it .* no packed form"):
        compact.handler_of(packed.LAYERS, keras.layers.Conv2D(4, 3, activation="tanh"))
    with pytest.raises(UsageError, match=r"is dilated, which has no packed form"):
        compact.handler_of(packed.LAYERS, keras.layers.DepthwiseConv2D(3, dilation_rate=2))


def written(path, model):
    """An artifact of a net made by hand, of three classes."""
    shape = model.input_shape[1:]
    return write_version(
        path,
        model=model,
        labels=["a", "b", "c"],
        preprocess=preset("caffe", *shape),
        model_name="made by hand",
        goldens=np.random.default_rng(0).integers(0, 256, (4, *shape), dtype=np.uint8),
    )


def own_net(middle):
    """A small binary net with whatever `middle` makes of its map in between."""
    import keras

    image = keras.Input((6, 6, 3))
    x = middle(keras.layers.Conv2D(4, 3, padding="same")(image))
    x = BinaryConv2D(5, 1, binary_inputs=True)(x) if len(x.shape) == 4 else x
    return keras.Model(image, keras.layers.Dense(3)(keras.layers.Flatten()(x)))


def test_a_sum_of_three_is_packed(tmp_path):
    import keras

    net = own_net(lambda x: keras.layers.Add()([x, keras.layers.ReLU()(x), x]))
    _, rows = export(written(tmp_path / "mine", net), ["packed"])
    assert max(row.max_abs_diff for row in rows) <= FLOAT_TOLERANCE


@pytest.mark.parametrize(
    ("middle", "says"),
    [
        (lambda k, x: x * 2.0, "is a Multiply"),
        (lambda k, x: x + x, "is a Add"),
        (lambda k, x: (lambda layer: layer(layer(x)))(k.ReLU()), "is called several times"),
        (lambda k, x: k.Dense(5)(x), "is a Dense of maps"),
        (lambda k, x: k.BatchNormalization(axis=1)(x), "normalises axis 1"),
        (lambda k, x: k.GlobalAveragePooling2D(keepdims=True)(x), "keeps the axes that"),
    ],
)
def test_what_a_layer_of_a_packed_kind_cannot_do_is_said(middle, says):
    import keras

    from striate.export import compact

    net = own_net(lambda x: middle(keras.layers, x))
    with pytest.raises(UsageError, match=rf"packed: layer '\S+' {says}.* no packed form"):
        compact.handlers_of(compact.LAYERS, net)


def test_normalisations_and_dense_layers_may_lack_some_of_their_vectors(tmp_path):
    import keras

    keras.utils.set_random_seed(0)
    inputs = x = keras.Input((8, 8, 3))
    for lacking in ({"scale": False}, {"center": False}, {"scale": False, "center": False}):
        x = BinaryConv2D(12, 3, pad=1)(keras.layers.BatchNormalization(**lacking)(x))
    x = keras.layers.Dense(3, use_bias=False)(keras.layers.GlobalAveragePooling2D()(x))
    model, numbers = keras.Model(inputs, x), np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([numbers.uniform(0.5, 2, weight.shape) for weight in layer.weights])
    artifact = written(tmp_path / "mine", model)
    _, rows = export(artifact, ["packed"])
    assert max(row.max_abs_diff for row in rows) <= 1e-5


def test_padding_of_1_and_the_scale_of_the_inputs_are_packed_too(tmp_path, monkeypatch):
    """Every kind of border in one net, in both files, with and without kernels."""
    import keras

    keras.utils.set_random_seed(0)
    inputs = x = keras.Input((9, 11, 3))
    for i, options in enumerate(
        ({"pad_value": 1}, {"activation_scale": True}, {"pad_value": 1, "activation_scale": True})
    ):
        x = keras.layers.BatchNormalization()(x) if i else x
        x = BinaryConv2D(8 + 30 * i, 3, pad=1, strides=1 + i % 2, use_bias=True, **options)(x)
    x = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x))
    artifact = written(tmp_path / "mine", keras.Model(inputs, x))
    artifact, rows = export(artifact, ["packed"])
    assert max(row.max_abs_diff for row in rows) <= 1e-5
    monkeypatch.setenv("STRIATE_KERNEL", "numpy")
    assert max(row.max_abs_diff for row in verify(artifact)) <= 1e-5


@pytest.mark.parametrize("engine", ["packed", "runner", "auto"])
def test_a_kernel_that_there_is_not_is_not_blamed_on_the_file(packed, engine, monkeypatch):
    artifact, _ = packed
    monkeypatch.setenv("STRIATE_KERNEL", "quantum")
    with pytest.raises(UsageError, match=r"^STRIATE_KERNEL: expected a binary kernel out of"):
        open_engine(artifact, engine)


# === Damaged files ===

READ = """
import sys
from pathlib import Path
import numpy as np
from striate.runtime.packed import PackedEngine

for path in sys.argv[1:]:
    try:
        scores = PackedEngine(Path(path), 1).predict(np.zeros((1, 33, 33, 3), np.uint8))
        print("answered", scores.shape)
    except Exception as error:
        print("refused", type(error).__name__)
"""


def damaged(model: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """The model with one thing about one of its binary layers made wrong."""
    draw = random.Random(seed)
    model = onnx.ModelProto.FromString(model.SerializeToString())
    node = draw.choice([n for n in model.graph.node if n.op_type == "BinaryConv"])
    if draw.random() < 0.3:
        numbers = draw.choice(node.attribute).ints
        numbers[0] = draw.choice([0, -1, 5, 2**31, 2**40])
        return model
    name = draw.choice(node.input[1:6])
    (tensor,) = [t for t in model.graph.initializer if t.name == name]
    array = onnx.numpy_helper.to_array(tensor)
    axis = draw.randrange(array.ndim)
    keep = draw.choice([0, 1, array.shape[axis] - 1, array.shape[axis] + 3])
    wrong = np.take(array, np.arange(keep), axis, mode="wrap")
    tensor.CopyFrom(onnx.numpy_helper.from_array(wrong, name))
    return model


def test_a_damaged_file_is_refused_and_never_crashes(packed, tmp_path):
    if len(kernels()) == 1:
        pytest.skip("needs compiled kernels")
    artifact, _ = packed
    model = onnx.load(artifact.path / FILE)
    paths = [tmp_path / f"{seed}.onnx" for seed in range(60)]
    for seed, path in enumerate(paths):
        path.write_bytes(damaged(model, seed).SerializeToString())
    for cut in (0, 1, 100, 5000):
        paths.append(tmp_path / f"cut{cut}.onnx")
        paths[-1].write_bytes((artifact.path / FILE).read_bytes()[:cut])
    ran = subprocess.run([sys.executable, "-c", READ, *paths], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
    said = ran.stdout.split("\n")[:-1]
    assert len(said) == len(paths)
    assert all(line.startswith("refused") or line == "answered (1, 4)" for line in said)
    assert sum(line.startswith("refused") for line in said) > 0.8 * len(said)


def test_an_engine_that_refuses_its_file_says_which(packed, tmp_path):
    artifact, _ = packed
    (tmp_path / FILE).write_bytes(b"nothing of the kind")
    with pytest.raises(EngineError, match="the packed engine refuses it"):
        open_engine(artifact, "packed", root=tmp_path)
