"""Binary convolutions on packed bits, by the fastest kernel that this machine can run.

    conv = BinaryConvolution(kernel, (14, 14, 256), pad=1)     # real weights [k, k, c, filters]
    conv.dots(x)                                               # int32 [N, 14, 14, filters]

The kernels are in `native/`, a C library that `make -C native` (or installing striate where there
is a C compiler) builds. Without it, numpy gives the same integers at the speed of floats.
"""

import ctypes
import functools
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from striate.errors import EngineError, UsageError, did_you_mean

ABI = 4
LIBRARY = "libstriate.so"
FLOAT, WORD = np.dtype(np.float32), np.dtype(np.uint32)  # compared faster than their classes


# === Bits ===


def pack_bits(x: np.ndarray) -> np.ndarray:
    """Signs [..., c] -> words uint32 [..., ceil(c / 32)]: bit c % 32 of word c // 32 is x >= 0."""
    packed = np.packbits(x >= 0, axis=-1, bitorder="little")
    missing = -packed.shape[-1] % 4
    packed = np.pad(packed, [(0, 0)] * (x.ndim - 1) + [(0, missing)])
    return np.ascontiguousarray(packed).view("<u4")


def unpack_bits(words: np.ndarray, channels: int) -> np.ndarray:
    """The inverse of `pack_bits`: float32 [..., channels] of +1 and -1."""
    octets = np.ascontiguousarray(words, "<u4").view(np.uint8)
    bits = np.unpackbits(octets, axis=-1, count=channels, bitorder="little")
    return bits.astype(np.float32) * 2 - 1


def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Like `np.empty`, aligned to 64 bytes, so that no vector is cut by the end of a cache line."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)


_address_of = ctypes.addressof
_start_of: Any = ctypes.c_char.from_buffer  # any writeable buffer, of which arrays are one


def address(array: np.ndarray) -> int:
    """Where a contiguous array is; `array.ctypes.data` takes four times as long to say so."""
    try:
        return _address_of(_start_of(array))
    except (TypeError, ValueError):  # not writeable; empty
        return array.ctypes.data


def thresholds(
    function: Callable[[np.ndarray], np.ndarray], most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Where the sign of a function of dots changes: int32 threshold and flip, [filters] each.

    function: float32 dots [filters] -> [filters], rising or falling in each (a scale and a batch
    normalisation); dots lie within -most..most. Then `(dot ^ flip) >= threshold` is exactly
    `function(dot) >= 0`, since the change is found by trying the function itself, not by a formula
    that rounds in another way.
    """
    low = np.full_like(function(np.zeros(1, np.float32)), -most, dtype=np.int64)
    high = -low
    at_low, at_high = function(low.astype("f4")) >= 0, function(high.astype("f4")) >= 0
    rising = at_high & ~at_low
    # Halve the range until `low` is the last dot before the change and `high` the first after it.
    while (high - low).max() > 1:
        middle = (low + high) // 2
        after = (function(middle.astype("f4")) >= 0) == at_high
        high, low = np.where(after, middle, high), np.where(after, low, middle)
    limits = np.iinfo(np.int32)
    threshold = np.where(rising, high, ~low)
    threshold = np.where(at_low & at_high, limits.min, threshold)
    threshold = np.where(~at_low & ~at_high, limits.max, threshold)
    flip = np.where(at_low & ~at_high, -1, 0)
    return threshold.astype(np.int32), flip.astype(np.int32)


# === The library ===


class _Shape(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_int32)
        for name in (
            *("height", "width", "channels"),
            *("filters", "kernel", "stride", "pad", "pad_one"),
        )
    ]


class _Run(ctypes.Structure):
    _fields_ = [
        ("images", ctypes.c_int32),
        ("threads", ctypes.c_int32),
        ("values", ctypes.c_void_p),
        ("bits", ctypes.c_void_p),
        ("gain", ctypes.c_void_p),
        ("shift", ctypes.c_void_p),
        ("dots", ctypes.c_void_p),
        ("scores", ctypes.c_void_p),
        ("alpha", ctypes.c_void_p),
        ("beta", ctypes.c_void_p),
        ("scale_inputs", ctypes.c_int32),
        ("out_bits", ctypes.c_void_p),
        ("threshold", ctypes.c_void_p),
        ("flip", ctypes.c_void_p),
        ("scratch", ctypes.c_void_p),
    ]

    def place(self, x: np.ndarray, kind: str, out: np.ndarray) -> None:
        """Where the maps are, and where what is wanted of them goes."""
        self.images = len(x)
        at = address(x)
        self.values, self.bits = (0, at) if x.dtype == WORD else (at, 0)
        setattr(self, kind, address(out))


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None where there are none.

    Looked for in the environment variable STRIATE_LIBRARY, in the installed package and in the
    `native/build` of a checkout. Raises `UsageError` where the variable names no such library, and
    `EngineError` where one of the other places holds none.
    """
    package = Path(__file__).parents[1]
    places = [package / "native" / LIBRARY, package.parents[1] / "native" / "build" / LIBRARY]
    named = os.environ.get("STRIATE_LIBRARY")
    path = Path(named) if named else next((p for p in places if p.is_file()), None)
    if path is None:
        return None
    wrong, place = (UsageError, f"STRIATE_LIBRARY={path}") if named else (EngineError, str(path))
    try:
        found = ctypes.CDLL(str(path))
        abi = found.striate_abi()
    except (OSError, AttributeError) as error:
        raise wrong(f"{place}: expected striate's kernels, got {error}") from None
    if abi != ABI:
        raise wrong(f"{place}: expected version {ABI} of the kernels, got {abi}; rebuild them")
    found.striate_kernel_name.restype = ctypes.c_char_p
    found.striate_layer_kernel.restype = ctypes.c_char_p
    found.striate_layer_kernel.argtypes = [ctypes.c_void_p]
    found.striate_layer_new.restype = ctypes.c_void_p
    found.striate_layer_new.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p]
    found.striate_layer_free.argtypes = [ctypes.c_void_p]
    found.striate_scratch_bytes.restype = ctypes.c_size_t
    found.striate_scratch_bytes.argtypes = [ctypes.c_void_p]
    found.striate_layer_run.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    found.striate_stem_kernel.restype = ctypes.c_char_p
    found.striate_stem_takes.argtypes = [ctypes.c_void_p]
    return found


def kernels() -> list[str]:
    """The kernels that this machine can run, fastest first; `numpy` is always the last."""
    names: list[str] = []
    native = library()
    while native is not None and (name := native.striate_kernel_name(len(names))):
        names.append(name.decode())
    return [*names, "numpy"]


def chosen_kernel(name: str | None = None) -> str:
    """The kernel that answers: `name`, or that in the variable STRIATE_KERNEL, or the fastest.

    Raises `UsageError` for one that this machine cannot run.
    """
    available = kernels()
    asked = os.environ.get("STRIATE_KERNEL")
    wanted = name or asked or available[0]
    if wanted not in available:
        variable = "STRIATE_KERNEL: " if asked and not name else ""
        raise UsageError(
            f"{variable}expected a binary kernel out of {', '.join(available)} on this machine, "
            f"got {wanted!r}.{did_you_mean(wanted, available)}"
        )
    return wanted


def stem_kernel() -> str | None:
    """The matrix unit that computes a net's first layers (`striate.runtime.stem`), as `amx`.

    None where this machine has none, and where STRIATE_KERNEL names binary kernels of an older one.
    """
    native = library()
    if native is None or chosen_kernel() == "numpy":
        return None
    name = native.striate_stem_kernel()
    return name.decode() if name else None


# === Convolution ===


class BinaryConvolution:
    """A convolution of the signs of a map with the signs of a kernel.

    kernel: real weights or signs [k, k, c, filters] (x >= 0 is +1). input_shape: (h, w, c).
    pad: on every side, with pad_value 0, which adds nothing to a sum, or 1. A dense layer is a 1x1
    convolution of a 1x1 map.
    alpha, beta: of `scores`; threshold, flip: of `bits`, as `thresholds` finds them; each [filters]
    or one number. scale_inputs: scores are alpha * (K * dot) + beta with K the mean |x| under the
    kernel. name: of the kernel that computes, see `chosen_kernel`.

    Maps go in as float32 [N, h, w, c], of which the signs are taken, or as packed uint32
    [N, h, w, ceil(c / 32)]. Many threads may use one object.
    """

    def __init__(
        self,
        kernel: np.ndarray,
        input_shape: tuple[int, int, int],
        *,
        stride: int = 1,
        pad: int = 0,
        pad_value: int = 0,
        alpha: np.ndarray | float = 1.0,
        beta: np.ndarray | float = 0.0,
        scale_inputs: bool = False,
        threshold: np.ndarray | int = 0,
        flip: np.ndarray | int = 0,
        name: str | None = None,
        threads: int = 1,
    ):
        self.kernel = chosen_kernel(name)
        self.side, _, self.channels, self.filters = kernel.shape
        self.input_shape = tuple(input_shape)
        self.packed_shape = (*self.input_shape[:2], -(-self.channels // 32))
        self.stride, self.pad, self.pad_value = stride, pad, pad_value
        self.threads = threads
        self.scale_inputs = scale_inputs
        self.output_shape = self._checked_output_shape(kernel)
        self.alpha, self.beta = self._each(alpha, "f4"), self._each(beta, "f4")
        self.threshold, self.flip = self._each(threshold, "i4"), self._each(flip, "i4")
        self._layer: Any = None
        if self.kernel == "numpy":
            signs = np.where(kernel >= 0, np.float32(1), np.float32(-1))
            self._matrix = signs.reshape(-1, self.filters)
        else:
            self._native: Any = library()
            self._layer = self._make_layer(pack_bits(kernel.transpose(3, 0, 1, 2)))
            self._memory = threading.local()

    def _checked_output_shape(self, kernel: np.ndarray) -> tuple[int, int, int]:
        height, width, channels = self.input_shape
        if kernel.shape[:3] != (self.side, self.side, channels):
            raise UsageError(
                f"expected a square kernel for {channels} channels, got {kernel.shape}"
            )
        if self.stride < 1 or not 0 <= self.pad < self.side or self.pad_value not in (0, 1):
            raise UsageError(
                f"expected a stride of at least 1, padding below {self.side} and of 0 or 1, "
                f"got {self.stride}, {self.pad} and {self.pad_value}"
            )
        reach = 2 * self.pad - self.side
        if min(height, width) + reach < 0:
            raise UsageError(f"expected a map of at least {-reach} pixels, got {height} x {width}")
        rows, columns = ((size + reach) // self.stride + 1 for size in (height, width))
        return rows, columns, self.filters

    def _each(self, values: np.ndarray | float, dtype: str) -> np.ndarray:
        """One value a filter, contiguous."""
        values = np.asarray(values, dtype)
        if values.shape not in ((), (self.filters,)):
            raise UsageError(f"expected a value for each of {self.filters}, got {values.shape}")
        each = empty((self.filters,), dtype)
        each[:] = values
        return each

    def dots(self, x: np.ndarray) -> np.ndarray:
        """The sums of products of signs: int32 [N, h', w', filters]."""
        x = self._checked(x)
        if self._layer is None:
            return self._numpy_dots(x)
        return self._run(x, "dots", empty((len(x), *self.output_shape), np.int32))

    def scores(self, x: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
        """alpha * dot + beta: float32 [N, h', w', filters].

        out: where to write them; fresh memory can cost more than a layer.
        """
        x = self._checked(x)
        if self.scale_inputs and x.dtype == WORD:
            raise UsageError("scale_inputs: expected float maps, got packed bits")
        shape = (len(x), *self.output_shape)
        out = empty(shape, np.float32) if out is None else out
        if out.shape != shape or out.dtype != FLOAT or not out.flags.carray:
            raise UsageError(f"out: expected contiguous float32 {shape}, got {out.shape}")
        if self._layer is not None:
            return self._run(x, "scores", out)
        dots = self._numpy_dots(x).astype(np.float32)
        scaled = self._numpy_scale(x) * dots if self.scale_inputs else dots
        return np.add(self.alpha * scaled, self.beta, out=out)

    def bind(self, x: np.ndarray, out: np.ndarray) -> Callable[[], np.ndarray]:
        """`scores(x, out=out)` as a function without arguments, of what `x` holds by then.

        The two arrays are checked once, here. For a loop over the same memory: what a call of
        `scores` checks has left the caches while the layer ran, and fetching it anew can cost a
        tenth of a layer. A bound function has working memory of its own, for one thread at a time.

        Raises `UsageError` where `scores` does, and for maps that it would have to copy.
        """
        if self._checked(x) is not x:
            raise UsageError("bind: expected contiguous maps, which every call reads anew")
        self.scores(x, out=out)
        if self._layer is None:
            return functools.partial(self.scores, x, out=out)
        scratch = self._new_scratch()
        run = self._new_run("scores", scratch)
        run.place(x, "scores", out)
        run.alive = self, x, scratch  # as long as somebody may call
        compute, layer, pointer = self._native.striate_layer_run, self._layer, ctypes.byref(run)

        def call() -> np.ndarray:
            compute(layer, pointer)
            return out

        return call

    def bits(self, x: np.ndarray) -> np.ndarray:
        """(dot ^ flip) >= threshold, packed: uint32 [N, h', w', ceil(filters / 32)]."""
        x = self._checked(x)
        if self._layer is None:
            over = (self._numpy_dots(x) ^ self.flip) >= self.threshold
            return pack_bits(np.where(over, 1, -1))
        words = -(-self.filters // 32)
        return self._run(x, "out_bits", empty((len(x), *self.output_shape[:2], words), np.uint32))

    def _checked(self, x: np.ndarray) -> np.ndarray:
        packed = x.dtype == WORD
        expected = self.packed_shape if packed else self.input_shape
        if x.shape[1:] != expected:
            raise UsageError(f"expected maps of {expected}, got {x.shape[1:]}")
        return np.ascontiguousarray(x, WORD if packed else FLOAT)

    # === Natively ===

    def _make_layer(self, words: np.ndarray) -> ctypes.c_void_p:
        shape = _Shape(
            *(*self.input_shape, self.filters),
            *(self.side, self.stride, self.pad, int(self.pad_value == 1)),
        )
        layer = self._native.striate_layer_new(
            ctypes.byref(shape), words.ctypes.data, self.kernel.encode()
        )
        if not layer:
            raise UsageError(
                f"the {self.kernel} kernel has no convolution of {self.side} x {self.side} on "
                f"{self.input_shape}, stride {self.stride}, padding {self.pad}: take another kernel"
            )
        return ctypes.c_void_p(layer)

    def __del__(self):
        if getattr(self, "_layer", None):
            self._native.striate_layer_free(self._layer)

    def _run(self, x: np.ndarray, kind: str, out: np.ndarray) -> np.ndarray:
        run, pointer = self._prepared(kind)
        run.place(x, kind, out)
        if self._native.striate_layer_run(self._layer, pointer):
            raise EngineError(f"the {self.kernel} kernel refused a call; please report it")
        return out

    def _prepared(self, kind: str) -> tuple[_Run, ctypes.c_void_p]:
        """This thread's call for this output, with all that does not change and its own working
        memory, and where it is."""
        calls = self._memory.__dict__
        if kind not in calls:
            if "scratch" not in calls:
                self._memory.scratch = self._new_scratch()
            run = self._new_run(kind, self._memory.scratch)
            calls[kind] = run, ctypes.c_void_p(ctypes.addressof(run))
        return calls[kind]

    def _new_scratch(self) -> np.ndarray:
        return empty((self._native.striate_scratch_bytes(self._layer),), np.uint8)

    def _new_run(self, kind: str, scratch: np.ndarray) -> _Run:
        return _Run(
            threads=self.threads,
            scratch=scratch.ctypes.data,
            alpha=self.alpha.ctypes.data,
            beta=self.beta.ctypes.data,
            scale_inputs=int(self.scale_inputs and kind == "scores"),
            threshold=self.threshold.ctypes.data,
            flip=self.flip.ctypes.data,
        )

    # === By numpy ===

    def _windows(self, x: np.ndarray, pad_value: float) -> np.ndarray:
        """Every window of a padded map: [N, h', w', c, k, k]."""
        around = (self.pad, self.pad)
        x = np.pad(x, ((0, 0), around, around, (0, 0)), constant_values=pad_value)
        windows = np.lib.stride_tricks.sliding_window_view(x, (self.side, self.side), (1, 2))
        return windows[:, :: self.stride, :: self.stride]

    def _numpy_dots(self, x: np.ndarray) -> np.ndarray:
        if x.dtype == np.uint32:
            x = unpack_bits(x, self.channels)
        signs = np.where(x >= 0, np.float32(1), np.float32(-1))
        windows = self._windows(signs, self.pad_value).transpose(0, 1, 2, 4, 5, 3)
        flat = windows.reshape(-1, len(self._matrix))
        return (flat @ self._matrix).astype(np.int32).reshape(len(x), *self.output_shape)

    def _numpy_scale(self, x: np.ndarray) -> np.ndarray:
        means = np.abs(x).mean(-1, keepdims=True)
        return self._windows(means, 0).mean((-2, -1))
