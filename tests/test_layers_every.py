"""Every layer in one net: saved and loaded, in half precision, and on JAX without TensorFlow."""

import os
import subprocess

import keras
import numpy as np
import pytest

from by_hand import gradient, noise, unsettle
from striate import layers

pytestmark = pytest.mark.sweep

CODE = """
import sys

class Hide:  # an import of TensorFlow fails, whether or not it is there
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "tensorflow":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Hide())
import jax, keras, numpy as np
from striate import layers

for name in layers.__all__:
    getattr(layers, name)  # registered for loading once it is imported
net = keras.saving.load_model(sys.argv[1])
data = np.load(sys.argv[2])
x, mix = data["x"], [data[f"mix{i}"] for i in range(len(net.outputs))]
weights = [v.value for v in net.trainable_variables]
others = [v.value for v in net.non_trainable_variables]

def answers(x, training=False):
    return net.stateless_call(weights, others, x, training=training)[0]

def mixed(x):
    found = answers(x)
    return sum((y * m).sum() for y, m in zip(found, mix)), found

slope, found = jax.jit(jax.grad(mixed, has_aux=True))(x)
finite = [np.isfinite(y).all() for y in jax.jit(lambda x: answers(x, training=True))(x)]
np.savez(sys.argv[3], slope=slope, finite=finite, **{f"y{i}": y for i, y in enumerate(found)})
"""


def centred(numbers: int) -> dict:
    """What `Whiten` takes out of pictures [8, 8, 6]."""
    matrix = np.eye(numbers) + noise(numbers, numbers) / numbers
    return {"centre": noise(8, 8, 6), "matrix": matrix}


def branches(x) -> dict:
    """Name of a layer -> what it makes of x, float [N, 8, 8, 6], or of what x is shaped into."""
    reshape = keras.layers.Reshape
    x2 = keras.layers.Conv2D(6, 3, padding="same")(x)
    column = layers.DrawColumn(2)(x)
    alone = [
        layers.AddCoords(radius=True),
        layers.BinaryConv2D(4, 3),
        *(layers.CeilAveragePooling2D(3, 2), layers.CeilMaxPooling2D(3, 2)),
        layers.ChannelShuffle(2),
        *(layers.CircularConv2D(4), layers.CircularChain2D(5, activation="tanh")),
        layers.DeformableConv2D(4, 3),
        layers.DiracConv2D(4, 3, padding="same"),
        layers.DistanceWeightedPooling2D(3, 2),
        layers.FixedRBF(noise(4, 6)),
        layers.L2Pooling2D(2),
        layers.LearnedGroupConv(4, 2),
        layers.LocallyConnected2D(4, 3),
        layers.LocalResponseNormalization(),
        layers.Normalise(order="bgr", mean=range(6), scale=[0.5] * 6),
        layers.PadChannels(1, 2),
        layers.SAFPooling2D(2),
        layers.ScaledTanh(),
        layers.SecondOrderPooling2D(),
        layers.SelectChannels(4),
        layers.SliceChannels(1, 4),
        layers.SpatiallySeparableConv2D(4, 3),
        layers.SpatialPyramidPooling2D((1, 3)),
        layers.StochasticDepth(0.8),
        layers.SumPooling2D(2),
        layers.TableConv2D(((0, 2), (1, 5)), 3),
        layers.TrainableSubsampling(2),
        layers.Whiten(order="rgb", mean=range(6), scale=[0.5] * 6, **centred(8 * 8 * 6)),
    ]
    made = {type(layer).__name__: layer(x) for layer in alone}
    return {
        **made,
        "BinaryDense": layers.BinaryDense(4)(keras.layers.Flatten()(x)),
        "DrawColumn": keras.ops.cast(column, "float32"),
        "FractalJoin": layers.FractalJoin()([x, x2, column]),
        "HardwiredChannels": layers.HardwiredChannels()(reshape((2, 4, 8, 6))(x)),
        "HighwayGate": layers.HighwayGate(3)([x, x2]),
        "MapDense": layers.MapDense(4)(reshape((8, 48))(x)),
        "MeanProbability": layers.MeanProbability((0.5, 2))([x, x2]),
        "ShakeShake": layers.ShakeShake()([x, x2]),
        "WeightedSum": layers.WeightedSum()([x, x2]),
    }


def every_layer() -> tuple[keras.Model, list[str]]:
    """A net whose outputs are what each layer makes of the picture, and the layers' names."""
    image = keras.Input((8, 8, 6))
    made = branches(image)
    every = {name for name in layers.__all__ if issubclass(getattr(layers, name), keras.Layer)}
    assert set(made) == every
    return keras.Model(image, list(made.values())), list(made)


def test_every_layer_is_the_same_after_saving_and_loading(tmp_path):
    net, names = every_layer()
    unsettle(net)
    net.save(tmp_path / "net.keras")
    again = keras.saving.load_model(tmp_path / "net.keras")
    x = noise(2, 8, 8, 6)
    for name, a, b in zip(names, net(x), again(x), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


def test_every_layer_has_its_channels_last_whatever_keras_is_set_to():
    net, names = every_layer()
    x = noise(2, 8, 8, 6)
    expected = net(x, training=False)
    keras.config.set_image_data_format("channels_first")
    try:
        found = net(x, training=False)
    finally:
        keras.config.set_image_data_format("channels_last")
    for name, a, b in zip(names, expected, found, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


def test_every_layer_computes_in_half_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        net, names = every_layer()
    finally:
        keras.config.set_dtype_policy(before)
    exact, _ = every_layer()
    exact.set_weights(net.get_weights())
    x = noise(2, 8, 8, 6)
    for name, a, b in zip(names, net(x), exact(x), strict=True):
        a, b = (np.asarray(keras.ops.cast(y, "float32")) for y in (a, b))
        # Eight bits of mantissa; where a sign or a place hangs on the last of them, more.
        assert np.median(np.abs(a - b)) <= 0.02 * np.abs(b).max() + 1e-6, name


def test_every_layer_answers_on_jax_as_on_tensorflow(jax_python, tmp_path):
    net, names = every_layer()
    unsettle(net)
    net.save(tmp_path / "net.keras")
    x = noise(2, 8, 8, 6)
    expected = [keras.ops.convert_to_numpy(y) for y in net(x, training=False)]
    mix = [noise(*y.shape, seed=i) for i, y in enumerate(expected)]
    np.savez(tmp_path / "x.npz", x=x, **{f"mix{i}": m for i, m in enumerate(mix)})
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    files = [tmp_path / name for name in ("net.keras", "x.npz", "y.npz")]
    subprocess.run([jax_python, "-c", CODE, *files], check=True, env=environment)

    found = np.load(tmp_path / "y.npz")
    for i, (name, y) in enumerate(zip(names, expected, strict=True)):
        np.testing.assert_allclose(found[f"y{i}"], y, rtol=1e-3, atol=1e-4, err_msg=name)
    assert found["finite"].all()  # in training

    def mixed(x):
        answers = net(x, training=False)
        return sum(keras.ops.sum(y * m) for y, m in zip(answers, mix, strict=True))

    slope = gradient(mixed, x)[0]
    np.testing.assert_allclose(found["slope"], slope, atol=1e-3 * np.abs(slope).max())
