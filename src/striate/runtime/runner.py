"""The compact file `model.packed`: the runner in C where it is compiled, numpy where it is not.

The runner needs nothing but C: it is what a Raspberry Pi or a browser runs (`native/runner.h`).
Here it is called through ctypes, so that what an artifact holds is proven by what will run it.
numpy reads the same file by the same rules, at the speed of floats.
"""

import ctypes
import dataclasses
import enum
import os
import struct
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from striate.artifact import Artifact
from striate.errors import EngineError
from striate.runtime.binary import chosen_kernel, empty, library, unpack_bits

FILE = "model.packed"
MAGIC, VERSION = b"striate\0", 1

# magic, version, CRC-32 of what follows; bytes, height, width, channels, classes, operations,
# labels, bytes of labels; fit, interpolation, background, crop
HEADER = struct.Struct("<8s2I8I3I4xd56x")
# kind, two inputs, units; window, strides; top, bottom, left, right; flags; low, high; ARRAYS
RECORD = struct.Struct("<13I2f7I8x")
ARRAYS = ("weights", "before_gain", "before_shift", "gain", "shift", "threshold", "flip")
KINDS = (
    *("", "pixels", "copy", "conv", "depthwise", "sign_conv", "binary_conv", "max_pool", "pad"),
    *("mean", "flatten", "add", "softmax"),
)
FITS = ("crop", "stretch", "pad")
INTERPOLATIONS = ("nearest", "lanczos", "bilinear", "bicubic")
PANEL = 16  # filters whose weights lie side by side


class Flag(enum.IntFlag):
    """What an operation does besides."""

    BGR = 1
    PAD_ONE = 2
    SCALE_INPUTS = 4


# === By numpy ===


@dataclasses.dataclass(frozen=True)
class Step:
    """One operation as the file has it, with where its arrays are."""

    kind: str
    inputs: tuple[int, int]
    units: int
    window: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    flags: int
    low: float
    high: float
    places: dict[str, int]
    file: bytes

    def array(self, name: str, count: int, dtype: str = "<f4") -> np.ndarray:
        return np.frombuffer(self.file, dtype, count, self.places[name])

    def padded(self, x: np.ndarray, value: float = 0.0) -> np.ndarray:
        top, bottom, left, right = self.pads
        around = ((0, 0), (top, bottom), (left, right), (0, 0))
        return np.pad(x, around, constant_values=value)

    def windows(self, x: np.ndarray, value: float = 0.0) -> np.ndarray:
        """Every window of the padded map: [N, h', w', rows, columns, c]."""
        found = np.lib.stride_tricks.sliding_window_view(
            self.padded(x, value), self.window, axis=(1, 2)
        )
        return np.moveaxis(found[:, :: self.strides[0], :: self.strides[1]], 3, -1)

    def convolved(self, x: np.ndarray, weights: np.ndarray, value: float = 0.0) -> np.ndarray:
        """x convolved with weights [rows, columns, c, units]."""
        windows = self.windows(x, value)
        flat = windows.reshape(*windows.shape[:3], -1)
        return flat @ weights.reshape(-1, weights.shape[-1])

    def signs(self, channels: int) -> np.ndarray:
        """Binary weights as +1 and -1, [rows, columns, c, units]."""
        words = -(-channels // 32)
        shape = (self.units, *self.window, words)
        bits = self.array("weights", int(np.prod(shape)), "<u4").reshape(shape)
        return unpack_bits(bits, channels).transpose(1, 2, 3, 0)

    def finished(self, x: np.ndarray) -> np.ndarray:
        """gain and shift, if there are any, then the limits."""
        if self.places["gain"]:
            channels = x.shape[-1]
            x = x * self.array("gain", channels) + self.array("shift", channels)
        return np.clip(x, self.low, self.high)


def _pixels(step: Step, x: np.ndarray) -> np.ndarray:
    x = x[..., ::-1] if step.flags & Flag.BGR else x
    channels = x.shape[-1]
    mean, scale = step.array("before_shift", channels), step.array("before_gain", channels)
    return step.finished((x.astype(np.float32) - mean) * scale)


def _conv(step: Step, x: np.ndarray) -> np.ndarray:
    panels = -(-step.units // PANEL)
    shape = (panels, *step.window, x.shape[-1], PANEL)
    weights = step.array("weights", int(np.prod(shape))).reshape(shape)
    kernel = np.moveaxis(weights, 0, 3).reshape(*shape[1:4], -1)[..., : step.units]
    return step.finished(step.convolved(x, kernel))


def _depthwise(step: Step, x: np.ndarray) -> np.ndarray:
    shape = (*step.window, x.shape[-1])
    weights = step.array("weights", int(np.prod(shape))).reshape(shape)
    return step.finished((step.windows(x) * weights).sum((3, 4)))


def _sign_conv(step: Step, x: np.ndarray) -> np.ndarray:
    return step.finished(step.convolved(x, step.signs(x.shape[-1])))


def _binary_conv(step: Step, x: np.ndarray) -> np.ndarray:
    channels = x.shape[-1]
    if step.places["before_gain"]:
        x = x * step.array("before_gain", channels) + step.array("before_shift", channels)
    signs = np.where(x >= 0, np.float32(1), np.float32(-1))
    dots = step.convolved(signs, step.signs(channels), float(bool(step.flags & Flag.PAD_ONE)))
    if step.places["threshold"]:
        threshold, flip = (step.array(n, step.units, "<i4") for n in ("threshold", "flip"))
        return np.where((dots.astype(np.int32) ^ flip) >= threshold, np.float32(1), np.float32(-1))
    if step.flags & Flag.SCALE_INPUTS:
        means = np.abs(x).mean(-1, keepdims=True)
        dots = step.windows(means).mean((3, 4)) * dots
    return step.finished(dots)


def _max_pool(step: Step, x: np.ndarray) -> np.ndarray:
    return step.finished(step.windows(x, -np.inf).max((3, 4)))


def _mean(step: Step, x: np.ndarray) -> np.ndarray:
    return step.finished(x.mean((1, 2), keepdims=True))


def _flatten(step: Step, x: np.ndarray) -> np.ndarray:
    return step.finished(x.reshape(len(x), 1, 1, -1))


def _softmax(step: Step, x: np.ndarray) -> np.ndarray:
    x = x * step.array("gain", 1)
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


OPERATIONS: dict[str, Callable[..., np.ndarray]] = {
    "pixels": _pixels,
    "copy": Step.finished,
    "conv": _conv,
    "depthwise": _depthwise,
    "sign_conv": _sign_conv,
    "binary_conv": _binary_conv,
    "max_pool": _max_pool,
    "pad": lambda step, x: step.finished(step.padded(x)),
    "mean": _mean,
    "flatten": _flatten,
    "add": lambda step, x, other: step.finished(x + other),
    "softmax": _softmax,
}


def steps_of(file: bytes) -> list[Step]:
    """The operations of a compact file; `EngineError` for anything else or a damaged one."""
    if len(file) < HEADER.size or file[:8] != MAGIC:
        raise EngineError("expected a packed model, got something else")
    _, version, checksum, size, *_ = HEADER.unpack_from(file)
    if version != VERSION:
        raise EngineError(f"expected a packed model of version {VERSION}, got {version}")
    if size != len(file) or checksum != zlib.crc32(file[16:]):
        raise EngineError("the packed model is cut off or damaged: export it again")
    operations = HEADER.unpack_from(file)[8]
    end = HEADER.size + RECORD.size * operations
    return [_step(record, file) for record in RECORD.iter_unpack(file[HEADER.size : end])]


def _step(record: tuple, file: bytes) -> Step:
    kind, first, second, units, *rest = record
    return Step(
        KINDS[kind],
        (first, second),
        units,
        window=tuple(rest[0:2]),
        strides=tuple(rest[2:4]),
        pads=tuple(rest[4:8]),
        flags=rest[8],
        low=rest[9],
        high=rest[10],
        places=dict(zip(ARRAYS, rest[11:], strict=True)),
        file=file,
    )


def numpy_scores(steps: list[Step], images: np.ndarray) -> np.ndarray:
    """What the operations answer to uint8 [N, H, W, C]: float32 [N, classes]."""
    values = [images]
    for step in steps:
        inputs = step.inputs if step.kind == "add" else step.inputs[:1]
        values.append(OPERATIONS[step.kind](step, *(values[i] for i in inputs)))
    return values[-1][:, 0, 0].astype(np.float32)


# === In C ===


class _Refusal(ctypes.Structure):
    _fields_ = [("operation", ctypes.c_int32), ("reason", ctypes.c_char_p)]


class _Facts(ctypes.Structure):
    _fields_ = [
        *((n, ctypes.c_int32) for n in ("height", "width", "channels", "classes", "operations")),
        ("products", ctypes.c_int64),
        ("arena_bytes", ctypes.c_size_t),
        ("kernel", ctypes.c_char_p),
    ]


class NativeModel:
    """A compact file, checked and planned by the runner in C; many threads may run it."""

    def __init__(self, file: bytes, kernel: str, native: Any):
        self._native = native
        self._model = None
        pointer = ctypes.c_void_p
        native.striate_model_new.restype = pointer
        native.striate_model_new.argtypes = [pointer, ctypes.c_size_t, ctypes.c_char_p, pointer]
        native.striate_model_free.argtypes = [pointer]
        native.striate_model_facts.argtypes = [pointer, pointer]
        native.striate_model_run.argtypes = [pointer, ctypes.c_int32, pointer, pointer, pointer]
        self._file = empty((len(file),), np.uint8)
        self._file[:] = np.frombuffer(file, np.uint8)
        refusal = _Refusal()
        self._model = native.striate_model_new(
            self._file.ctypes.data, len(file), kernel.encode(), ctypes.byref(refusal)
        )
        if not self._model:
            where = f"operation {refusal.operation}: " if refusal.operation >= 0 else ""
            raise EngineError(f"{where}{refusal.reason.decode()}")
        self.facts = _Facts()
        native.striate_model_facts(self._model, ctypes.byref(self.facts))
        self._memory = threading.local()

    def __del__(self):
        if self._model:
            self._native.striate_model_free(self._model)

    def scores(self, images: np.ndarray, threads: int) -> np.ndarray:
        """uint8 [N, H, W, C] -> float32 [N, classes]."""
        facts = self.facts
        expected = (facts.height, facts.width, facts.channels)
        if images.shape[1:] != expected or images.dtype != np.uint8:
            raise EngineError(
                f"expected uint8 pictures {expected}, got {images.dtype} {images.shape[1:]}"
            )
        if not hasattr(self._memory, "arena"):
            self._memory.arena = empty((facts.arena_bytes,), np.uint8)
        images = np.ascontiguousarray(images)
        scores = np.empty((len(images), facts.classes), np.float32)
        for image, row in zip(images, scores, strict=True):
            self._native.striate_model_run(
                *(self._model, threads, image.ctypes.data, row.ctypes.data),
                self._memory.arena.ctypes.data,
            )
        return scores


class RunnerEngine:
    """The compact file by the kernel of `striate.runtime.binary`, which may be numpy."""

    name = "runner"

    def __init__(self, path: Path, threads: int | None):
        file = path.read_bytes()
        kernel, native = chosen_kernel(), library()
        self._threads = threads or os.cpu_count() or 1
        self._native = None
        if kernel == "numpy" or native is None:
            self._steps = steps_of(file)
            self.kernel = "numpy, no binary kernels"
        else:
            self._native = NativeModel(file, kernel, native)
            self.kernel = f"{kernel} bits and floats, C runner"

    def predict(self, images: np.ndarray) -> np.ndarray:
        if self._native is None:
            return numpy_scores(self._steps, images)
        return self._native.scores(images, self._threads)


def open_form(artifact: Artifact, path: Path, threads: int | None) -> RunnerEngine:
    return RunnerEngine(path, threads)
