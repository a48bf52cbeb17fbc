"""The C kernels, and numpy in their place, against sums of integers; equality throughout."""

import gc
import os
import platform
import shutil
import subprocess
import threading

import numpy as np
import pytest

from making import ROOT
from striate.errors import UsageError
from striate.runtime import binary
from striate.runtime.binary import BinaryConvolution, pack_bits, thresholds, unpack_bits

OF_MACHINE = {"x86_64": ["avx512", "avx2", "popcnt"], "aarch64": ["neon"]}
KERNELS = [*OF_MACHINE.get(platform.machine(), []), "portable", "numpy"]
NATIVE = ROOT / "native"


def compiler() -> str:
    found = shutil.which(os.environ.get("CC", "cc"))
    if found is None or shutil.which("make") is None:
        pytest.skip("needs make and a C compiler (cc)")
    return found


@pytest.fixture(scope="module")
def native(tmp_path_factory):
    """The library, compiled from the sources beside these tests."""
    compiler()
    build = tmp_path_factory.mktemp("native")
    subprocess.run(["make", "-s", "-C", NATIVE, f"BUILD={build}"], check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STRIATE_LIBRARY", str(build / "libstriate.so"))
        binary.library.cache_clear()
        yield
    binary.library.cache_clear()


@pytest.fixture(params=KERNELS)
def kernel(request) -> str:
    """Each kernel that this machine can run."""
    if request.param != "numpy":
        request.getfixturevalue("native")
    if request.param not in binary.kernels():
        pytest.skip(f"this machine has no {request.param}")
    return request.param


def signs(x: np.ndarray) -> np.ndarray:
    return np.where(x >= 0, 1, -1).astype(np.int32)


def integer_dots(x, weights, stride: int, pad: int, pad_value: int) -> np.ndarray:
    """Window by window, in integers."""
    side, _, _, filters = weights.shape
    around = ((0, 0), (pad, pad), (pad, pad), (0, 0))
    x = np.pad(signs(x), around, constant_values=pad_value)
    n, h, w, _ = x.shape
    matrix = signs(weights).reshape(-1, filters)
    rows = range(0, h - side + 1, stride)
    columns = range(0, w - side + 1, stride)
    out = np.empty((n, len(rows), len(columns), filters), np.int32)
    for i, top in enumerate(rows):
        for j, left in enumerate(columns):
            window = x[:, top : top + side, left : left + side]
            out[:, i, j] = window.reshape(n, -1) @ matrix
    return out


def random_layer(rng, *, side: int | None = None) -> tuple[np.ndarray, np.ndarray, dict]:
    """Pictures and weights of a random shape, and the options of their convolution."""
    side = side or int(rng.choice([1, 3, 5]))
    pad = int(rng.integers(0, side))
    least = max(1, side - 2 * pad)
    height, width = (int(n) for n in rng.integers(least, least + 15, 2))
    channels = int(rng.choice([rng.integers(1, 70), rng.integers(1, 600)]))
    filters = int(rng.integers(1, 80))
    x = rng.standard_normal((int(rng.integers(1, 4)), height, width, channels)).astype("f4")
    x[x > 2] = -0.0
    weights = rng.standard_normal((side, side, channels, filters)).astype("f4")
    options = {"stride": int(rng.integers(1, 4)), "pad": pad, "pad_value": int(rng.integers(0, 2))}
    return x, weights, options


# === Bits ===


def test_bits_are_the_signs_lowest_channel_first():
    words = pack_bits(np.array([[1, -1, 0, -0.0, -3] + 30 * [-1] + [2]], "float32"))
    np.testing.assert_array_equal(words, [[0b01101, 1 << 3]])
    assert words.dtype == np.uint32


@pytest.mark.parametrize("channels", [1, 31, 32, 33, 100])
def test_packing_loses_nothing_but_magnitudes(channels):
    x = np.random.default_rng(channels).standard_normal((3, 2, channels)).astype("f4")
    np.testing.assert_array_equal(unpack_bits(pack_bits(x), channels), signs(x))


# === Convolution ===


@pytest.mark.parametrize("seed", range(12))
def test_sums_are_integers_equal_to_the_reference(kernel, seed):
    rng = np.random.default_rng(seed)
    x, weights, options = random_layer(rng)
    conv = BinaryConvolution(weights, x.shape[1:], name=kernel, **options)
    assert conv.kernel == kernel
    expected = integer_dots(x, weights, **options)
    np.testing.assert_array_equal(conv.dots(x), expected)
    np.testing.assert_array_equal(conv.dots(pack_bits(x)), expected)


@pytest.mark.parametrize("side", [1, 3, 5])
@pytest.mark.parametrize("pad_value", [0, 1])
def test_every_border_is_exact_down_to_a_map_of_one_pixel(kernel, side, pad_value):
    rng = np.random.default_rng(7)
    for height in (1, 2, 3, 7):
        for width in (1, 4):
            for stride in (1, 2):
                x = rng.standard_normal((1, height, width, 40)).astype("f4")
                weights = rng.standard_normal((side, side, 40, 9)).astype("f4")
                options = {"stride": stride, "pad": side // 2, "pad_value": pad_value}
                conv = BinaryConvolution(weights, x.shape[1:], name=kernel, **options)
                np.testing.assert_array_equal(conv.dots(x), integer_dots(x, weights, **options))


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_the_scaled_sums(kernel, seed):
    rng = np.random.default_rng(seed)
    x, weights, options = random_layer(rng)
    alpha, beta = rng.standard_normal((2, weights.shape[-1])).astype("f4")
    conv = BinaryConvolution(weights, x.shape[1:], alpha=alpha, beta=beta, name=kernel, **options)
    expected = alpha * integer_dots(x, weights, **options).astype("f4") + beta
    np.testing.assert_array_equal(conv.scores(x), expected)
    out = np.empty_like(expected)
    assert conv.scores(pack_bits(x), out=out) is out
    np.testing.assert_array_equal(out, expected)


def test_a_bound_call_answers_for_what_its_arrays_hold_by_then(kernel):
    rng = np.random.default_rng(1)
    first, second = rng.standard_normal((2, 1, 9, 9, 40)).astype("f4")
    conv = BinaryConvolution(rng.standard_normal((3, 3, 40, 24)), (9, 9, 40), pad=1, name=kernel)
    expected = conv.scores(second)
    x, out = first.copy(), np.empty_like(expected)
    call = conv.bind(x, out)
    x[:] = second
    del conv, x
    gc.collect()  # the call keeps alive what it works on
    assert call() is out
    np.testing.assert_array_equal(out, expected)


def test_a_bound_call_takes_no_map_that_it_would_have_to_copy(kernel):
    conv = BinaryConvolution(np.ones((1, 1, 40, 2)), (4, 4, 40), name=kernel)
    with pytest.raises(UsageError, match="bind: expected contiguous"):
        conv.bind(np.ones((1, 4, 4, 80), "f4")[..., ::2], np.empty((1, 4, 4, 2), "f4"))


def test_scores_with_the_scale_of_the_inputs_are_those_of_the_keras_layer(kernel):
    keras = pytest.importorskip("keras")
    from striate.layers import BinaryConv2D

    rng = np.random.default_rng(3)
    for side, stride, channels in ((3, 1, 45), (5, 2, 64), (1, 1, 20)):
        layer = BinaryConv2D(
            20, side, strides=stride, pad=side // 2, use_bias=True, activation_scale=True
        )
        x = rng.standard_normal((2, 9, 8, channels)).astype("f4")
        expected = keras.ops.convert_to_numpy(layer(x))
        weights, bias = (np.asarray(w) for w in layer.get_weights())
        alpha = np.abs(weights).mean((0, 1, 2))
        conv = BinaryConvolution(
            weights,
            x.shape[1:],
            stride=stride,
            pad=side // 2,
            alpha=alpha,
            beta=bias,
            scale_inputs=True,
            name=kernel,
        )
        # sums of |x| in another order
        np.testing.assert_allclose(conv.scores(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_output_bits_say_which_sums_pass_their_threshold(kernel, seed):
    rng = np.random.default_rng(seed)
    x, weights, options = random_layer(rng)
    filters = weights.shape[-1]
    threshold = rng.integers(-30, 30, filters).astype("i4")
    flip = -rng.integers(0, 2, filters).astype("i4")
    conv = BinaryConvolution(
        weights, x.shape[1:], threshold=threshold, flip=flip, name=kernel, **options
    )
    passed = (integer_dots(x, weights, **options) ^ flip) >= threshold
    expected = pack_bits(np.where(passed, 1, -1))
    np.testing.assert_array_equal(conv.bits(x), expected)


def test_a_dense_layer_is_a_convolution_of_one_pixel(kernel):
    rng = np.random.default_rng(0)
    for images in (1, 3, 700):
        x = rng.standard_normal((images, 500)).astype("f4")
        weights = rng.standard_normal((500, 33)).astype("f4")
        conv = BinaryConvolution(weights[None, None], (1, 1, 500), name=kernel)
        expected = signs(x) @ signs(weights)
        np.testing.assert_array_equal(conv.dots(x[:, None, None])[:, 0, 0], expected)


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_change_nothing(kernel, threads):
    rng = np.random.default_rng(11)
    layers = (((14, 13, 80), 300, 3), ((60, 21, 133), 32, 3), ((60, 50, 190), 64, 1))
    for shape, filters, side in layers:
        x = rng.standard_normal((2, *shape)).astype("f4")
        weights = rng.standard_normal((side, side, shape[-1], filters)).astype("f4")
        alone = BinaryConvolution(weights, shape, pad=side // 2, name=kernel)
        together = BinaryConvolution(weights, shape, pad=side // 2, name=kernel, threads=threads)
        np.testing.assert_array_equal(alone.dots(x), together.dots(x))


def test_many_callers_may_share_one_layer(kernel):
    rng = np.random.default_rng(5)
    weights = rng.standard_normal((3, 3, 64, 40)).astype("f4")
    conv = BinaryConvolution(weights, (10, 10, 64), pad=1, name=kernel, threads=2)
    inputs = [rng.standard_normal((1, 10, 10, 64)).astype("f4") for _ in range(4)]
    expected = [conv.dots(x) for x in inputs]
    wrong = []

    def call(i: int) -> None:
        for _ in range(20):
            if not np.array_equal(conv.dots(inputs[i]), expected[i]):
                wrong.append(i)

    callers = [threading.Thread(target=call, args=(i,)) for i in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert wrong == []


# === Thresholds ===


def test_thresholds_are_those_of_the_float_expression_bit_for_bit():
    """Every possible sum of 300 filters whose normalisation rises, falls, or never changes sign."""
    rng = np.random.default_rng(1)
    alpha = np.abs(rng.standard_normal(300)).astype("f4")
    mean, gain, beta = rng.standard_normal((3, 300)).astype("f4") * np.float32([[9], [2], [3]])
    gain[:5] = 0
    beta[2] = 0

    def normalised(dots):
        return ((dots * alpha - mean) * gain + beta).astype("f4")

    threshold, flip = thresholds(normalised, 128)
    dots = np.arange(-128, 129, dtype="i4")[:, None]
    expected = normalised(dots.astype("f4")) >= 0
    np.testing.assert_array_equal((dots ^ flip) >= threshold, expected)
    assert 0 < expected[:, 5:].mean() < 1
    assert set(flip) == {0, -1}


# === What cannot be ===


def test_a_kernel_that_this_machine_lacks_is_named_in_one_line(monkeypatch):
    with pytest.raises(UsageError, match=r"out of .*numpy on this machine, got 'nmpy'.*'numpy'"):
        BinaryConvolution(np.ones((1, 1, 3, 2)), (2, 2, 3), name="nmpy")
    monkeypatch.setenv("STRIATE_KERNEL", "numpy")
    assert BinaryConvolution(np.ones((1, 1, 3, 2)), (2, 2, 3)).kernel == "numpy"


def test_wrong_shapes_are_refused_before_any_memory_is_touched(kernel):
    with pytest.raises(UsageError, match="for 4 channels"):
        BinaryConvolution(np.ones((3, 3, 3, 2)), (8, 8, 4), name=kernel)
    conv = BinaryConvolution(np.ones((3, 3, 40, 2)), (8, 8, 40), name=kernel)
    for wrong in ((1, 8, 8, 41), (1, 7, 8, 40), (8, 8, 40)):
        with pytest.raises(UsageError, match=r"maps of \(8, 8, 40\)"):
            conv.dots(np.ones(wrong, "f4"))
    with pytest.raises(UsageError, match=r"maps of \(8, 8, 2\)"):
        conv.dots(np.ones((1, 8, 8, 40), np.uint32))
    for wrong in (np.ones((1, 6, 6, 2)), np.ones((1, 6, 6, 4), "f4")[..., ::2]):
        with pytest.raises(UsageError, match="contiguous float32"):
            conv.scores(np.ones((1, 8, 8, 40), "f4"), out=wrong)
    with pytest.raises(UsageError, match="each of 2"):
        BinaryConvolution(np.ones((3, 3, 40, 2)), (8, 8, 40), name=kernel, alpha=np.ones(3))
    scaled = BinaryConvolution(np.ones((3, 3, 40, 2)), (8, 8, 40), name=kernel, scale_inputs=True)
    with pytest.raises(UsageError, match="packed bits"):
        scaled.scores(np.ones((1, 8, 8, 2), np.uint32))
    for options in ({"stride": 0}, {"pad": 3}, {"pad": -1}, {"pad_value": 2}):
        with pytest.raises(UsageError, match="expected"):
            BinaryConvolution(np.ones((3, 3, 40, 2)), (8, 8, 40), name=kernel, **options)
    with pytest.raises(UsageError, match="expected"):
        BinaryConvolution(np.ones((3, 3, 40, 2)), (2, 2, 40), name=kernel)


def test_a_library_that_is_none_is_refused(tmp_path, monkeypatch):
    (tmp_path / "libstriate.so").write_bytes(b"no library")
    monkeypatch.setenv("STRIATE_LIBRARY", str(tmp_path / "libstriate.so"))
    binary.library.cache_clear()
    try:
        with pytest.raises(UsageError, match=r"STRIATE_LIBRARY=.*: expected striate's kernels"):
            binary.kernels()
    finally:
        monkeypatch.undo()
        binary.library.cache_clear()


# === Other compilers' words ===


@pytest.mark.parametrize("language", ["c", "c++"])
def test_an_application_compiles_it_without_a_warning(language):
    """The sources in C, as `native/README.md` names them; in C++ the headers."""
    sources = sorted(NATIVE.glob("kernel_*.c"))
    sources += [NATIVE / f"{name}.c" for name in ("runner", "picture", "layer", "parallel")]
    flags = ["-std=gnu11"] if language == "c" else ["-std=c++11"]
    flags += ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", f"-I{NATIVE}"]
    command = [shutil.which("c++") if language == "c++" else compiler(), *flags]
    if command[0] is None:
        pytest.skip("needs a compiler of C++")
    if language == "c":
        ran = subprocess.run([*command, *sources], capture_output=True, text=True)
    else:
        program = '#include "runner.h"\nint main() { return striate_abi() != STRIATE_ABI; }'
        command += ["-x", "c++", "-"]
        ran = subprocess.run(command, input=program, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")


def check(build, *arguments: str, emulator: tuple = ()) -> str:
    """What `native/check.c` says of 25 layers and stems, compiled with these arguments of make."""
    make = ["make", "-s", "-C", NATIVE, build / "check", f"BUILD={build}", *arguments]
    subprocess.run(make, check=True)
    ran = subprocess.run([*emulator, build / "check", "25"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "portable: 25 of 25 stems agree" in ran.stdout
    return ran.stdout


@pytest.mark.sweep
def test_address_and_undefined_behaviour_sanitisers_find_nothing(tmp_path):
    compiler()
    program = "int main(void) { return 0; }"
    flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    probe = [compiler(), *flags, "-x", "c", "-", "-o", tmp_path / "probe"]
    if subprocess.run(probe, input=program, text=True, capture_output=True).returncode:
        pytest.skip("this compiler has no sanitisers")
    said = check(tmp_path, f"CFLAGS=-O1 {' '.join(flags)}")
    assert "portable: 25 of 25 layers agree" in said


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("prefix", "emulator", "flags"),
    [
        ("aarch64-linux-gnu", "qemu-aarch64", "-O2"),
        ("arm-linux-gnueabihf", "qemu-arm", "-O2 -march=armv7-a -mfpu=neon"),
    ],
)
def test_arm_processors_compute_the_same(tmp_path, prefix, emulator, flags):
    if not shutil.which(f"{prefix}-gcc") or not shutil.which(emulator):
        pytest.skip(f"needs {prefix}-gcc and {emulator}")
    arguments = [f"CC={prefix}-gcc", f"CFLAGS={flags}", "LDFLAGS=-static"]
    said = check(tmp_path, *arguments, emulator=(shutil.which(emulator),))
    assert "neon: 25 of 25 layers agree" in said


@pytest.mark.sweep
def test_webassembly_computes_the_same(tmp_path):
    if not shutil.which("clang") or not shutil.which("node"):
        pytest.skip("needs clang and Node")
    made = subprocess.run(
        ["make", "-s", "-C", NATIVE, tmp_path / "check.wasm", f"BUILD={tmp_path}"],
        capture_output=True,
    )
    if made.returncode:
        pytest.skip("this clang has no WebAssembly libraries (wasi-libc)")
    ran = subprocess.run(
        ["node", "--no-warnings", NATIVE / "run_wasi.mjs", tmp_path / "check.wasm", "25"],
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "wasm: 25 of 25 layers agree" in ran.stdout
    assert "portable: 25 of 25 stems agree" in ran.stdout
