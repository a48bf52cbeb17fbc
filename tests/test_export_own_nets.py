"""Nets of a user's own layers: each form of them agrees, or a line says which layer it lacks."""

import numpy as np
import pytest

from making import colourful_noise
from striate.artifact import load, write_version
from striate.errors import EngineError, UsageError
from striate.export import export
from striate.preprocess import preset

SHAPE = (9, 11, 3)


def own_artifact(base, middle, dtype="float32"):
    """An artifact of a convolution, whatever `middle` makes of its map, and a classifier."""
    import keras

    keras.utils.set_random_seed(0)
    image = keras.Input(SHAPE)
    x = middle(keras.layers.Conv2D(4, 3, padding="same", dtype=dtype)(image))
    logits = keras.layers.Dense(3, dtype="float32")(keras.layers.Flatten()(x))
    return write_version(
        base,
        model=keras.Model(image, logits),
        labels=["a", "b", "c"],
        preprocess=preset("torch", *SHAPE),
        model_name="mine",
        goldens=colourful_noise(3, SHAPE, 0),
    )


def normalisation(x):
    import keras

    return keras.layers.Normalization(mean=[0.1, 0.2, 0.3, 0.4], variance=[1, 2, 3, 4])(x)


def large_constant(x):
    import keras

    numbers = np.random.default_rng(0).normal(size=(9, 11, 4)).astype("float32")
    return keras.layers.Normalization(mean=numbers, variance=1 + numbers**2, axis=(1, 2, 3))(x)


def function(name):
    def apply(x):
        import keras

        return getattr(keras.ops, name)(x)

    return apply


@pytest.mark.parametrize(
    "middle",
    [function("gelu"), function("celu"), function("expm1"), normalisation, large_constant],
    ids=["gelu", "celu", "expm1", "constants", "large constants"],
)
def test_onnx_has_what_its_converter_lacks(tmp_path, middle):
    _, rows = export(own_artifact(tmp_path, middle), ["onnx"])
    assert rows[0].max_abs_diff < 1e-5


def test_log1p_is_exact_enough_in_onnx(tmp_path):
    _, rows = export(own_artifact(tmp_path, lambda x: function("log1p")(x * x)), ["onnx"])
    assert rows[0].max_abs_diff < 1e-5


def bicubic(x):
    import keras

    return keras.layers.Resizing(5, 6, interpolation="bicubic", antialias=True)(x)


@pytest.mark.parametrize(
    ("form", "says"), [("onnx", "which ONNX does not have"), ("litert", "which LiteRT does not")]
)
def test_a_layer_that_a_form_lacks_is_named_in_one_line(tmp_path, form, says):
    made = own_artifact(tmp_path / "mine", bicubic)
    with pytest.raises(UsageError, match=rf"{form}: \S*resizing\S* is a ScaleAndTranslate, {says}"):
        export(made, [form])
    assert list(load(made.path).manifest.forms) == ["keras"]
    assert [path.name for path in made.path.parent.iterdir()] == ["1"]


def test_a_file_that_loads_and_cannot_be_computed_is_one_clear_line(tmp_path):
    import keras

    def middle(x):
        slices = keras.layers.Reshape((9, 11, 2, 2))(x)
        return keras.layers.Conv3D(2, 3, padding="same", groups=2)(slices)

    with pytest.raises(EngineError, match=r"litert cannot be computed by litert \(.*not kept"):
        export(own_artifact(tmp_path, middle), ["litert"])


def test_a_converter_that_fails_is_one_clear_line(tmp_path, monkeypatch):
    from striate.export import onnx

    def fails(artifact, directory):
        raise RuntimeError("this graph\nis beyond me")

    monkeypatch.setattr(onnx, "write", fails)
    with pytest.raises(EngineError, match=r"onnx cannot be written \(this graph\); it was not"):
        export(own_artifact(tmp_path, lambda x: x), ["onnx"])


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_a_net_in_half_precision_is_no_artifact(tmp_path, dtype):
    with pytest.raises(
        UsageError, match=r"computes in float32, got layer 'conv2d\S*' in b?float16"
    ):
        own_artifact(tmp_path / "mine", lambda x: x, dtype)
    assert not (tmp_path / "mine").exists()
