"""torch's files of weights, read without torch: `.pth`, `.pt`, `.ckpt`, `.bin`, `.safetensors`.

A `.pth` is a pickle, and unpickling runs whatever code the file names. Here it may name nothing but
tensors, their storages and dictionaries, and a few things that training scripts save beside them,
all of which become plain values of ours: no module is imported, no function of the file's choice is
called, and a file that asks for more is refused.
"""

from __future__ import annotations  # so that describing weights does not load numpy

import collections
import dataclasses
import io
import math
import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from striate.errors import UsageError
from striate.lazy import Lazy

if TYPE_CHECKING:
    import numpy as np
else:
    np = Lazy("numpy")

SUFFIXES = (".pth", ".pt", ".pth.tar", ".ckpt", ".bin", ".safetensors")
MAGIC = 0x1950A86A20F9469CFC6C  # opens a file of torch before 1.6, which is no zip archive

# Where training scripts put the weights beside other things; moving averages come first.
NESTED = ("state_dict_ema", "model_ema", "state_dict", "model")
# What goes before every name: of parallel training and averages, of torch.compile, of Lightning.
WRAPPERS = ("module.", "_orig_mod.", "model.")
AVERAGED = "n_averaged"  # how many nets torch's AveragedModel has seen, beside its `module.`

STORAGES = {
    "torch.DoubleStorage": "<f8",
    "torch.FloatStorage": "<f4",
    "torch.HalfStorage": "<f2",
    "torch.BFloat16Storage": "<u2",  # the upper half of a float32
    "torch.LongStorage": "<i8",
    "torch.IntStorage": "<i4",
    "torch.ShortStorage": "<i2",
    "torch.CharStorage": "i1",
    "torch.ByteStorage": "u1",
    "torch.BoolStorage": "?",
}
SAFETENSORS = {
    "F64": "torch.DoubleStorage",
    "F32": "torch.FloatStorage",
    "F16": "torch.HalfStorage",
    "BF16": "torch.BFloat16Storage",
    "I64": "torch.LongStorage",
    "I32": "torch.IntStorage",
    "I16": "torch.ShortStorage",
    "I8": "torch.CharStorage",
    "U8": "torch.ByteStorage",
    "BOOL": "torch.BoolStorage",
}


def read_state(path: Path) -> dict[str, np.ndarray]:
    """A state dict: the name of each parameter and buffer -> its values, as torch arranges them.

    What a training script saved around it, and the `module.` of its wrapper, are taken off. Raises
    `UsageError` for a file that asks for anything but tensors and what stands in `ALLOWED`.
    """
    try:
        state = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    except EOFError:
        raise _no_state(path, "it is cut off") from None
    except (pickle.UnpicklingError, zipfile.BadZipFile, ValueError) as error:
        raise _no_state(path, str(error)) from None
    except Exception as error:  # pickle does not say what a broken file may make it raise
        raise _no_state(path, f"{type(error).__name__}: {error}") from None
    if not state:
        raise _no_state(path, "it has no tensors by name")
    return _unwrapped({name: array for name, array in state.items() if name != AVERAGED})


def is_torch_file(path: Path) -> bool:
    """Whether a file's name says that torch wrote it."""
    return path.name.endswith(SUFFIXES)


def _unwrapped(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The names without what wrappers, one in the other, put before all of them."""
    for wrapper in WRAPPERS:
        if state and all(name.startswith(wrapper) for name in state):
            return _unwrapped({name.removeprefix(wrapper): a for name, a in state.items()})
    return state


def _no_state(path: Path, why: str) -> UsageError:
    return UsageError(
        f"{path}: expected a state dict of torch's (`torch.save(model.state_dict(), ...)`) or "
        f".safetensors, got something else ({' '.join(why.split())})"
    )


def _safetensors(path: Path) -> Mapping[str, np.ndarray]:
    from safetensors import deserialize

    return {
        name: _numbers(view["data"], SAFETENSORS[view["dtype"]]).reshape(view["shape"])
        for name, view in deserialize(path.read_bytes())
    }


def _pickled(path: Path) -> Mapping[str, np.ndarray]:
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            return _legacy(file)
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():  # torch compresses none, so no small file grows large
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{member.filename} is compressed")
        places = [name for name in archive.namelist() if name.endswith("data.pkl")]
        if len(places) != 1:
            raise ValueError("it is a zip archive, but not one of torch's")
        root = places[0].removesuffix("data.pkl")
        order = f"{root}byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise ValueError("its numbers are big-endian")
        with archive.open(places[0]) as file:
            content = _Unpickler(file).load()
        return _values(content, lambda storage: archive.read(f"{root}data/{storage.key}"))


def _legacy(file: io.BufferedReader) -> Mapping[str, np.ndarray]:
    """Five pickles (magic number, protocol, system, content, keys), then the storages in turn."""
    if file.peek(2).startswith(b"PK"):  # the beginning of a zip archive without its end
        raise EOFError
    if not file.peek(1).startswith(pickle.PROTO) or _Unpickler(file).load() != MAGIC:
        raise ValueError("it is neither a zip archive nor an older file of torch's")
    _Unpickler(file).load()
    _Unpickler(file).load()
    reader = _Unpickler(file)
    content = reader.load()
    data = {}
    length = os.fstat(file.fileno()).st_size
    for key in _Unpickler(file).load():
        storage = reader.storages[key]
        if int.from_bytes(file.read(8), "little") != storage.count:
            raise ValueError("a storage is not as long as its tensors need")
        data[key] = file.read(min(storage.nbytes, length))
    return _values(content, lambda storage: data[storage.key])


# === What a pickle may hold ===


@dataclasses.dataclass(frozen=True)
class _Storage:
    """A run of numbers in the file: `count` of them, of numpy's `dtype`."""

    kind: str
    key: str
    count: int

    @property
    def nbytes(self) -> int:
        return self.count * np.dtype(STORAGES[self.kind]).itemsize

    def read(self, data: bytes) -> np.ndarray:
        if len(data) != self.nbytes:
            raise ValueError(f"storage {self.key} has {len(data)} bytes, expected {self.nbytes}")
        return _numbers(data, self.kind)


def _numbers(data: bytes | bytearray, kind: str) -> np.ndarray:
    """The numbers of a storage; those of bfloat16, which numpy lacks, as float32."""
    numbers = np.frombuffer(data, STORAGES[kind])
    if kind == "torch.BFloat16Storage":
        return (numbers.astype(np.uint32) << 16).view(np.float32)
    return numbers


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """A view of a storage: where it begins, and its shape and strides in numbers."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def read(self, numbers: np.ndarray) -> np.ndarray:
        """Raises `ValueError` where the view reaches out of the storage."""
        extent = (self.offset, *self.shape, *self.strides)
        if len(self.strides) != len(self.shape) or min(extent) < 0:
            raise ValueError("a tensor has no possible shape")
        if math.prod(self.shape) == 0:
            return np.zeros(self.shape, numbers.dtype)
        steps = zip(self.shape, self.strides, strict=True)
        last = self.offset + sum((n - 1) * step for n, step in steps)
        if max(last + 1, math.prod(self.shape)) > len(numbers):
            raise ValueError("a tensor is larger than its storage")
        return np.lib.stride_tricks.as_strided(
            numbers[self.offset :],
            self.shape,
            [step * numbers.itemsize for step in self.strides],
            writeable=False,  # other tensors may share the storage
        )


def _rebuild_tensor(storage, offset, shape, strides, *_) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise ValueError("a tensor has no storage")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(tensor, *_) -> _Tensor:
    return tensor


class _Aside:
    """What a training script saved beside the weights: its arguments, its best score. Not kept."""

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


ALLOWED: Mapping[str, Callable] = {
    "collections.OrderedDict": collections.OrderedDict,
    "torch.Size": tuple,
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    **dict.fromkeys(
        (
            "argparse.Namespace",
            "torch.device",
            "numpy.core.multiarray.scalar",
            "numpy._core.multiarray.scalar",
            "numpy.dtype",
            "_codecs.encode",  # how Python 3 writes bytes for Python 2
        ),
        _Aside,
    ),
}


class _Unpickler(pickle._Unpickler):
    """Knows the names in `ALLOWED` and the kinds of storage, and refuses all others.

    Built on the unpickler in Python: the faster one in C makes room for as many values as a file
    says that it will number, and a few bytes could ask for all memory.
    """

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full in STORAGES:
            return full
        if full in ALLOWED:
            return ALLOWED[full]
        raise pickle.UnpicklingError(f"it asks for {full}, which is no tensor")

    def persistent_load(self, pid: Any) -> _Storage:
        tag, kind, key, _, count, *part = pid
        if tag != "storage" or kind not in STORAGES or count < 0 or any(part):
            raise pickle.UnpicklingError("it asks for a storage of an unknown kind")
        return self.storages.setdefault(key, _Storage(kind, key, count))


def _values(content: Any, data: Callable[[_Storage], bytes]) -> dict[str, np.ndarray]:
    """The tensors by name, wherever a training script put them; each storage is read once."""
    for key in NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping):
        raise ValueError("it is no dictionary")
    tensors = {str(name): t for name, t in content.items() if isinstance(t, _Tensor)}
    numbers = {t.storage: t.storage.read(data(t.storage)) for t in tensors.values()}
    return {name: tensor.read(numbers[tensor.storage]) for name, tensor in tensors.items()}
