"""The compact file and its runner in C: the same answers everywhere, no crash on damaged files."""

import ctypes
import dataclasses
import os
import shutil
import struct
import subprocess
import zlib
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from PIL import Image

from making import PHOTOS, ROOT, tiny_artifact
from striate.artifact import Artifact, add_form
from striate.errors import EngineError
from striate.export import compact
from striate.preprocess import Preprocess, decode
from striate.runtime import binary, open_engine
from striate.runtime.runner import FILE, HEADER, NativeModel, RunnerEngine, steps_of

NATIVE = ROOT / "native"
NETS = {
    "xnor_vgg_mnist": (8, 8, 1),
    "xnor_resnet18": (17, 17, 3),
    "bwn_mobilenet_v1": (17, 17, 3),
}

pytestmark = pytest.mark.long  # nets are trained and exported, the program is compiled


def compiler() -> str:
    found = shutil.which(os.environ.get("CC", "cc"))
    if found is None or shutil.which("make") is None:
        pytest.skip("needs make and a C compiler (cc)")
    return found


def make(build: Path, target: str, *arguments: str) -> Path:
    command = ["make", "-s", "-C", NATIVE, build / target, f"BUILD={build}", *arguments]
    subprocess.run(command, check=True)
    return build / target


@pytest.fixture(scope="module")
def native(tmp_path_factory):
    """The library, compiled from the sources beside these tests."""
    compiler()
    built = make(tmp_path_factory.mktemp("native"), "libstriate.so")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STRIATE_LIBRARY", str(built))
        binary.library.cache_clear()
        yield binary.library()
    binary.library.cache_clear()


@pytest.fixture(scope="module")
def artifacts(native, tmp_path_factory) -> dict:
    """Small binary nets of every kind, with their compact files."""
    base = tmp_path_factory.mktemp("models")
    made = {name: tiny_artifact(base / name, name=name, shape=NETS[name]) for name in NETS}
    return {
        name: add_form(artifact, "packed", partial(compact.write, artifact), lambda staged: {})
        for name, artifact in made.items()
    }


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    """`striate_run`, compiled here."""
    compiler()
    return make(tmp_path_factory.mktemp("program"), "striate_run")


def mended(file: bytes) -> bytes:
    """The file with the checksum and the size that it should have."""
    file = file[:16] + struct.pack("<I", len(file)) + file[20:]
    return file[:12] + struct.pack("<I", zlib.crc32(file[16:])) + file[16:]


# === The same answers ===


def test_every_kernel_and_numpy_answer_as_keras_does(artifacts, monkeypatch):
    for artifact in artifacts.values():
        images, scores = artifact.goldens()
        found = {}
        for kernel in binary.kernels():
            monkeypatch.setenv("STRIATE_KERNEL", kernel)
            engine = open_engine(artifact, "runner", threads=1)
            assert engine.kernel.startswith(kernel)
            found[kernel] = engine.predict(images)
            np.testing.assert_allclose(found[kernel], scores, atol=1e-5)
        found.pop("numpy")
        first, *others = found.values()
        for other in others:  # every product is rounded before it is added: nothing may differ
            np.testing.assert_array_equal(other, first)


def test_threads_change_nothing(artifacts):
    artifact = artifacts["xnor_resnet18"]
    images, _ = artifact.goldens()
    alone, together = (open_engine(artifact, "runner", threads=n) for n in (1, 3))
    np.testing.assert_array_equal(alone.predict(images), together.predict(images))


def test_bits_between_layers_are_those_of_the_float_expression(artifacts, native, monkeypatch):
    """The same file with every map between binary layers in floats answers the very same."""
    artifact = artifacts["xnor_vgg_mnist"]
    images, _ = artifact.goldens()
    bits = compact.operations_of(artifact)
    monkeypatch.setattr(compact, "leave_bits", lambda operations: None)
    floats = compact.operations_of(artifact)
    assert sum("threshold" in operation.arrays for operation in bits) == 2
    assert not any("threshold" in operation.arrays for operation in floats)
    files = [compact.to_bytes(artifact, operations) for operations in (bits, floats)]
    kernel = binary.chosen_kernel()
    models = [NativeModel(file, kernel, native) for file in files]
    first, second = (model.scores(images, 1) for model in models)
    np.testing.assert_array_equal(first, second)


def operation(kind: str, *inputs: int, **fields) -> compact.Operation:
    return compact.Operation(kind, inputs, **fields)


@pytest.mark.parametrize(
    ("low", "reader", "expected"),
    [
        (-np.inf, operation("conv", 3, window=(3, 3)), ["pixels", "conv", "conv"]),
        (0.0, operation("max_pool", 3, window=(3, 3)), ["pixels", "conv", "max_pool"]),
        (-np.inf, operation("max_pool", 3, window=(3, 3)), ["pixels", "conv", "pad", "max_pool"]),
        (0.0, operation("max_pool", 3, window=(1, 3)), ["pixels", "conv", "pad", "max_pool"]),
        (0.0, operation("mean", 3), ["pixels", "conv", "pad", "mean"]),
    ],
)
def test_padding_is_folded_where_it_means_the_same(low, reader, expected):
    reader = dataclasses.replace(reader)  # which is changed
    before = [operation("pixels", 0), operation("conv", 1, low=low)]
    pad = operation("pad", 2, pads=(1, 0, 2, 1))
    kept = compact.fold_paddings([*before, pad, reader, operation("softmax", 4)])
    assert [step.kind for step in kept] == [*expected, "softmax"]
    assert [step.inputs for step in kept] == [(n,) for n in range(len(kept))]
    assert sum(np.array(step.pads) for step in kept).tolist() == [1, 0, 2, 1]


def test_padding_that_two_read_stays():
    steps = [operation("conv", 0), operation("pad", 1, pads=(1, 1, 1, 1))]
    steps += [operation("conv", 2, window=(3, 3)), operation("conv", 2, window=(3, 3))]
    assert len(compact.fold_paddings(steps)) == 4


def test_the_file_holds_one_bit_a_binary_weight_and_little_else(artifacts):
    artifact = artifacts["xnor_resnet18"]
    file = artifact.file(FILE).read_bytes()
    steps = steps_of(file)
    kinds = [step.kind for step in steps]
    assert kinds.count("binary_conv") == 16
    assert "copy" not in kinds[:-3]  # batch normalisation and ReLU are part of what is before them
    assert "pad" not in kinds  # what slides over a map pads for itself
    weights = sum(
        int(np.prod(layer.kernel.shape[:2])) * -(-layer.kernel.shape[2] // 32) * 4 * layer.units
        for layer in artifact.model.layers
        if type(layer).__name__ == "BinaryConv2D"
    )
    real = sum(
        np.asarray(w).nbytes
        for layer in artifact.model.layers
        if not type(layer).__name__.startswith("Binary")
        for w in layer.get_weights()
    )
    assert len(file) < weights + 1.5 * real + 64 * 8 * len(steps)


# === Pictures ===


@pytest.mark.parametrize("fit", ["crop", "stretch", "pad"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_pictures_of_any_size_become_the_same_pixels_as_in_python(native, fit, interpolation):
    """The whole host side of preprocessing, bit for bit, from sizes both larger and smaller."""
    rng = np.random.default_rng(0)
    for channels in (1, 3):
        spec = Preprocess(
            20,
            24,
            channels,
            fit=fit,
            crop=1.0 if fit == "pad" else 0.875,
            interpolation=interpolation,
            background=7,
            mean=(0.0,) * channels,
            scale=(1.0,) * channels,
        )
        model = native_model(native, spec)
        for height, width in ((31, 57), (9, 100), (20, 24), (7, 5), (200, 3)):
            picture = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            fitted = np.empty(spec.shape, np.uint8)
            failed = native.striate_picture(
                *(model._model, np.ascontiguousarray(picture).ctypes.data),
                *(height, width, 3, fitted.ctypes.data),
            )
            assert not failed
            expected = spec.fitted(Image.fromarray(picture))
            np.testing.assert_array_equal(fitted, expected, str((height, width)))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("background", [0, 77, 255])
def test_what_is_transparent_shows_the_background_as_in_python(native, channels, background):
    spec = Preprocess(
        *(16, 64, channels),
        fit="pad",
        background=background,
        mean=(0.0,) * channels,
        scale=(1.0,) * channels,
    )
    model = native_model(native, spec)
    picture = np.random.default_rng(0).integers(0, 256, (64, 256, 4), dtype=np.uint8)
    picture[:8, :, 3] = 0
    fitted = np.empty(spec.shape, np.uint8)
    source, found = picture.ctypes.data, fitted.ctypes.data
    assert not native.striate_picture(model._model, source, 64, 256, 4, found)
    np.testing.assert_array_equal(fitted, spec.fitted(Image.fromarray(picture)))


def native_model(native, spec: Preprocess) -> NativeModel:
    """The smallest net that takes these pictures: the mean of each channel, as scores."""
    native.striate_picture.argtypes = [
        *(ctypes.c_void_p, ctypes.c_void_p),
        *[ctypes.c_int32] * 3,
        ctypes.c_void_p,
    ]
    channels = np.ones(spec.channels)
    pixels = picture_of(spec.channels, {"before_gain": channels, "before_shift": channels})
    file = packed([pixels, MEAN], spec, ["a", "b", "c"][: spec.channels])
    return NativeModel(file, binary.chosen_kernel(), native)


MEAN = compact.Operation("mean", (1,))


def picture_of(channels: int, arrays: dict) -> compact.Operation:
    """The operation that takes the pixels in."""
    numbers = {name: np.asarray(values, np.float32) for name, values in arrays.items()}
    assert all(len(values) == channels for values in numbers.values())
    return compact.Operation("pixels", (0,), arrays=numbers)


def packed(operations: list[compact.Operation], spec: Preprocess, labels: list[str]) -> bytes:
    """A compact file of these operations."""
    artifact = SimpleNamespace(preprocess=spec, labels=labels)
    return compact.to_bytes(cast(Artifact, artifact), operations)


# === The program ===


def run(program: Path, *arguments, emulator: tuple = (), **options) -> subprocess.CompletedProcess:
    command = [*emulator, program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


def photo(tmp_path: Path) -> Path:
    """A photograph as a PPM."""
    picture = decode(PHOTOS / "cat.jpg")[::3, ::3]
    path = tmp_path / "cat.ppm"
    height, width, _ = picture.shape
    path.write_bytes(b"P6\n# a cat\n%d %d\n255\n" % (width, height) + picture.tobytes())
    return path


def expected_scores(artifact, path: Path) -> np.ndarray:
    header, picture = path.read_bytes().split(b"\n255\n", 1)
    width, height = (int(n) for n in header.split(b"\n")[-1].split())
    array = np.frombuffer(picture, np.uint8).reshape(height, width, 3)
    return artifact.predict([array])[0]


def test_the_program_answers_as_keras_does(artifacts, program, tmp_path):
    path = photo(tmp_path)
    for artifact in artifacts.values():
        expected = expected_scores(artifact, path)
        said = run(program, "-s", artifact.file(FILE), path)
        assert said.returncode == 0, said.stderr
        np.testing.assert_allclose([float(s) for s in said.stdout.split()], expected, atol=1e-5)
        said = run(program, "-k", "1", "-n", "2", artifact.file(FILE), path)
        assert said.stdout.split("\n")[1].endswith(f"  class {expected.argmax()}")
        raw = tmp_path / "raw"
        raw.write_bytes(artifact.goldens()[0][0].tobytes())
        said = run(program, "-s", artifact.file(FILE), raw)
        scores = [float(s) for s in said.stdout.split()]
        np.testing.assert_allclose(scores, artifact.goldens()[1][0], atol=1e-5)
    described = run(program, artifacts["xnor_resnet18"].file(FILE)).stdout
    assert "pictures 17 x 17 x 3, 4 classes" in described


def test_the_program_says_in_one_line_what_is_wrong(artifacts, program, tmp_path):
    model = artifacts["xnor_vgg_mnist"].file(FILE)
    cut, other = tmp_path / "cut", tmp_path / "other.ppm"
    cut.write_bytes(model.read_bytes()[:-1])
    other.write_bytes(b"P6 9999999 9999999 255\n" + bytes(200))
    mistakes = [
        (("nowhere",), 1, "nowhere: cannot be read"),
        ((cut,), 1, "the file is cut off"),
        ((other,), 1, "this is no packed model"),
        ((model, "nowhere.ppm"), 1, "nowhere.ppm: cannot be read"),
        ((model, cut), 1, "expected a binary PPM or PGM"),
        ((model, other), 1, "at most 100 million pixels"),
        ((), 2, "usage: striate_run"),
        (("-x", model), 2, "usage: striate_run"),
        (("-sx", model), 2, "usage: striate_run"),
        (("-n", "two", model), 2, "usage: striate_run"),
        (("-k", "0", model), 2, "usage: striate_run"),
        ((model, "-n"), 1, "-n: cannot be read"),
        (("-n",), 2, "usage: striate_run"),
    ]
    for arguments, code, complaint in mistakes:
        said = run(program, *arguments)
        assert (said.returncode, said.stdout) == (code, "")
        assert complaint in said.stderr
        assert said.stderr.count("\n") == 1


def test_the_program_answers_the_other_pictures_where_one_cannot_be_read(
    artifacts, program, tmp_path
):
    model, path = artifacts["xnor_vgg_mnist"].file(FILE), photo(tmp_path)
    said = run(program, "-k", "1", model, "nowhere", path)
    assert (said.returncode, said.stderr) == (1, "striate_run: nowhere: cannot be read\n")
    assert said.stdout.startswith(str(path))


def test_the_program_explains_itself(program):
    for option in ("-h", "--help"):
        said = run(program, option)
        assert (said.returncode, said.stderr) == (0, "")
        assert all(word in said.stdout for word in ("usage", "PPM", "-n THREADS", "-k", "-s"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux' full device")
def test_the_program_says_that_its_answer_was_lost(artifacts, program, tmp_path):
    with open("/dev/full", "w") as full:
        command = [program, artifacts["xnor_vgg_mnist"].file(FILE), photo(tmp_path)]
        said = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert said.returncode == 1
    assert said.stderr == "striate_run: standard output: cannot be written\n"


def test_an_answer_that_is_no_number_is_an_error(program, tmp_path):
    net = [picture_of(1, {"before_gain": [np.nan], "before_shift": [0]}), MEAN]
    model, pixel = tmp_path / FILE, tmp_path / "pixel"
    model.write_bytes(packed(net, Preprocess(1, 1, 1, mean=(0.0,), scale=(1.0,)), ["a"]))
    pixel.write_bytes(b"\1")
    said = run(program, model, pixel)
    assert (said.returncode, said.stdout) == (1, "")
    assert "no number (NaN)" in said.stderr


@pytest.mark.parametrize(
    ("prefix", "emulator", "flags"),
    [
        ("aarch64-linux-gnu", "qemu-aarch64", "-O2"),
        ("arm-linux-gnueabihf", "qemu-arm", "-O2 -march=armv7-a -mfpu=neon"),
    ],
)
def test_arm_processors_answer_the_same(artifacts, tmp_path, prefix, emulator, flags):
    if not shutil.which(f"{prefix}-gcc") or not shutil.which(emulator):
        pytest.skip(f"needs {prefix}-gcc and {emulator}")
    arguments = [f"CC={prefix}-gcc", f"CFLAGS={flags}", "LDFLAGS=-static"]
    built = make(tmp_path, "striate_run", *arguments)
    path = photo(tmp_path)
    for artifact in artifacts.values():
        said = run(built, "-s", artifact.file(FILE), path, emulator=(shutil.which(emulator),))
        assert said.returncode == 0, said.stderr
        scores = [float(s) for s in said.stdout.split()]
        np.testing.assert_allclose(scores, expected_scores(artifact, path), atol=1e-5)


# === Damaged files ===


def refused(file: bytes, native, kernel: str = "portable") -> str:
    with pytest.raises(EngineError) as caught:
        NativeModel(file, kernel, native)
    return str(caught.value)


def test_what_is_wrong_with_a_file_is_said(artifacts, native):
    file = artifacts["xnor_vgg_mnist"].file(FILE).read_bytes()
    assert "cut off" in refused(file[:50], native)
    assert "cut off" in refused(file[:-64], native)
    assert "no packed model" in refused(b"x" + file[1:], native)
    assert "another version" in refused(file[:8] + b"\2\0\0\0" + file[12:], native)
    assert "checksum" in refused(file[:-1] + bytes([file[-1] ^ 1]), native)
    assert "does not have that kernel" in refused(file, native, "quantum")
    first = HEADER.size
    unknown = mended(file[:first] + struct.pack("<I", 99) + file[first + 4 :])
    assert "operation 0: an operation of no known kind" in refused(unknown, native)
    early = mended(file[: first + 4] + struct.pack("<I", 5) + file[first + 8 :])
    assert "operation 0: an input that is not there yet" in refused(early, native)
    for wrong in (file[:100], b"x" + file[1:], file[:-1], file[:-1] + b"x"):
        with pytest.raises(EngineError, match="packed model"):
            steps_of(wrong)


def enormous() -> bytes:
    """A small file whose working memory is more than 4 GB: just 0.5 GB to whoever counts the bytes
    in 32 bits."""
    filters, side, pad = 32767, 15, 8
    numbers = np.zeros(filters, np.int32)
    bits, one = np.zeros((filters, 1), np.uint32), np.ones(1, np.float32)
    taps = np.zeros((side, side, -(-filters // 32)), np.uint32)
    operations = [
        picture_of(1, {"before_gain": one, "before_shift": one}),
        compact.Operation(
            "binary_conv",
            (1,),
            units=filters,
            window=(1, 1),
            strides=(1, 1),
            arrays={"weights": bits, "threshold": numbers, "flip": numbers},
        ),
        compact.Operation(
            "binary_conv",
            (2,),
            units=1,
            window=(side, side),
            strides=(1, 1),
            pads=(pad,) * 4,
            arrays={"weights": taps, "gain": one, "shift": one},
        ),
        compact.Operation("mean", (3,)),
    ]
    return packed(operations, Preprocess(1, 65520, 1, mean=(0.0,), scale=(1.0,)), ["a"])


def test_a_small_file_that_asks_for_enormous_memory_is_refused(native):
    assert "too much memory" in refused(enormous(), native)


def test_32_bits_do_not_wrap_around_at_a_file_that_asks_for_enormous_memory(tmp_path):
    flags = ["-m32", "-msse2", "-mfpmath=sse"]
    probe = [compiler(), *flags, "-pthread", "-x", "c", "-", "-o", tmp_path / "probe", "-lm"]
    source = "#include <stdio.h>\nint main(void) { return 0; }"
    if subprocess.run(probe, input=source, text=True, capture_output=True).returncode:
        pytest.skip("this compiler makes no programs of 32 bits (gcc-multilib)")
    built = make(tmp_path, "striate_run", f"CFLAGS=-O1 {' '.join(flags)}")
    (tmp_path / FILE).write_bytes(enormous())
    said = run(built, tmp_path / FILE)
    assert said.returncode == 1, said.stdout
    assert "operation 2, a binary convolution that no kernel computes" in said.stderr


def test_files_damaged_at_random_are_refused_or_answered_and_nothing_else(artifacts, tmp_path):
    """Under the address and undefined-behaviour sanitisers; the checksum is mended each time."""
    flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    probe = [compiler(), *flags, "-x", "c", "-", "-o", tmp_path / "probe"]
    program = "int main(void) { return 0; }"
    if subprocess.run(probe, input=program, text=True, capture_output=True).returncode:
        pytest.skip("this compiler has no sanitisers")
    fuzz = make(tmp_path, "fuzz", f"CFLAGS=-O1 {' '.join(flags)}")
    for artifact in artifacts.values():
        said = run(fuzz, artifact.file(FILE), "250")
        assert said.returncode == 0, said.stdout + said.stderr[-2000:]


def test_damaging_files_begins_with_a_net_that_is_quick_to_ask(native, tmp_path):
    (tmp_path / FILE).write_bytes(enormous())
    said = run(make(tmp_path, "fuzz", "CFLAGS=-O0"), tmp_path / FILE, "10")
    assert said.returncode == 2
    assert "expected a sound model of at most 16777216 products" in said.stderr


def test_an_engine_that_refuses_its_file_says_why(artifacts, tmp_path):
    file = artifacts["xnor_vgg_mnist"].file(FILE).read_bytes()
    (tmp_path / FILE).write_bytes(file[:-1])
    with pytest.raises(EngineError, match="the runner engine refuses it"):
        open_engine(artifacts["xnor_vgg_mnist"], "runner", root=tmp_path)
    engine = RunnerEngine(artifacts["xnor_vgg_mnist"].file(FILE), 1)
    with pytest.raises(EngineError, match=r"uint8 pictures \(8, 8, 1\), got float32"):
        engine.predict(np.zeros((1, 8, 8, 1), np.float32))
