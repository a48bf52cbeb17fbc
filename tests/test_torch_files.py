"""torch's files are read without torch; what is broken or means harm is one clear line.

The files are made by hand here, byte for byte as torch makes them; where torch is installed, its
own are read too.
"""

import argparse
import collections
import contextlib
import dataclasses
import io
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from safetensors.numpy import save as safetensors

from striate.errors import UsageError
from striate.pretrained import read_arrays
from striate.torch_files import MAGIC, STORAGES, read_state

pytestmark = pytest.mark.oracle

# === Files by hand ===


@dataclasses.dataclass(frozen=True)
class Name:
    """A class or function in a pickle, by its name alone: it need not exist here."""

    full: str

    def __call__(self):
        raise AssertionError("a name is only written")


@dataclasses.dataclass(eq=False)
class Call:
    """What unpickling would make by calling `name` with `arguments`."""

    name: str
    arguments: tuple


@dataclasses.dataclass(eq=False)
class Storage:
    """Numbers in a member of the archive; `count` is what the pickle says of them."""

    numbers: np.ndarray
    key: str = "0"
    count: int | None = None

    @property
    def pid(self) -> tuple:
        kinds = {np.dtype(code): name for name, code in STORAGES.items() if "BFloat" not in name}
        count = self.numbers.size if self.count is None else self.count
        return "storage", Name(kinds[self.numbers.dtype]), self.key, "cpu", count


class Pickler(pickle._Pickler):
    """Writes names, calls and storages as torch's pickles have them, and notes the storages."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def __init__(self, file):
        super().__init__(file, protocol=2)
        self.storages = {}

    def persistent_id(self, value: Any):
        if isinstance(value, Storage):
            self.storages[value.key] = value
            return value.pid
        return None

    def reducer_override(self, value: Any):
        return (Name(value.name), value.arguments) if isinstance(value, Call) else NotImplemented

    def save_name(self, value: Name):
        module, _, name = value.full.rpartition(".")
        self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())

    dispatch[Name] = save_name


def view(storage: Storage, shape: tuple, strides: tuple, offset: int = 0) -> Call:
    arguments = (storage, offset, shape, strides, False, collections.OrderedDict())
    return Call("torch._utils._rebuild_tensor_v2", arguments)


def tensor(array: np.ndarray, key: str = "0") -> Call:
    strides = tuple(stride // array.itemsize for stride in array.strides)
    return view(Storage(array.ravel(), key), array.shape, strides)


def pickled(content: Any) -> tuple[bytes, dict[str, Storage]]:
    file = io.BytesIO()
    pickler = Pickler(file)
    pickler.dump(content)
    return file.getvalue(), pickler.storages


def archive(content: Any, *, compression: int = zipfile.ZIP_STORED) -> bytes:
    """A file of torch 1.6 or later."""
    data, storages = pickled(content)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as target:
        target.writestr("net/data.pkl", data)
        target.writestr("net/byteorder", "little")
        for key, storage in storages.items():
            target.writestr(f"net/data/{key}", storage.numbers.tobytes())
    return file.getvalue()


def legacy(content: Any) -> bytes:
    """A file of older versions."""
    data, storages = pickled(content)
    parts = [pickled(MAGIC)[0], pickled(1001)[0], pickled({"little_endian": True})[0], data]
    parts.append(pickled(list(storages))[0])
    for storage in storages.values():
        parts += [struct.pack("<q", storage.pid[-1]), storage.numbers.tobytes()]
    return b"".join(parts)


FORMATS = {"zip": archive, "legacy": legacy}
KERNEL = np.arange(6, dtype="f4").reshape(2, 3)


@pytest.fixture(params=FORMATS)
def write(request, tmp_path):
    """Writes some content to a file in one of torch's two formats."""

    def to_file(content: Any) -> Path:
        path = tmp_path / "net.pth"
        path.write_bytes(FORMATS[request.param](content))
        return path

    return to_file


# === What is read ===


def test_every_kind_of_number_keeps_its_values_and_shape(write):
    arrays = {
        code: np.array([[0, 1, 2], [3, 4, 5]]).astype(code)
        for name, code in STORAGES.items()
        if "BFloat" not in name
    }
    state = read_state(write({k: tensor(v, key=str(n)) for n, (k, v) in enumerate(arrays.items())}))
    assert list(state) == list(arrays)
    for name, array in arrays.items():
        assert state[name].dtype == array.dtype
        np.testing.assert_array_equal(state[name], array)


def test_a_counter_is_a_number_without_axes(write):
    state = read_state(write({"num_batches_tracked": tensor(np.array(7, "<i8"))}))
    assert state["num_batches_tracked"].shape == ()
    assert state["num_batches_tracked"] == 7


def test_views_share_a_storage_transposed_and_with_an_offset(write):
    storage = Storage(np.arange(12, dtype="f4"))
    content = {
        "transposed": view(storage, (4, 3), (1, 4)),
        "column": view(storage, (3,), (4,), offset=1),
        "empty": view(storage, (0, 5), (5, 1)),
    }
    state = read_state(write(content))
    np.testing.assert_array_equal(state["transposed"], np.arange(12).reshape(3, 4).T)
    np.testing.assert_array_equal(state["column"], [1, 5, 9])
    assert state["empty"].shape == (0, 5)


def test_a_parameter_is_the_tensor_in_it(write):
    arguments = (tensor(KERNEL), True, collections.OrderedDict())
    state = read_state(write({"weight": Call("torch._utils._rebuild_parameter", arguments)}))
    np.testing.assert_array_equal(state["weight"], KERNEL)


WEIGHT = {"fc.weight": tensor(KERNEL)}
OTHER = {"fc.weight": tensor(KERNEL + 1, key="1")}


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": WEIGHT, "epoch": 3},
        {"model": WEIGHT, "optimizer": {"state": {}, "lr": 0.1}},
        {"state_dict": OTHER, "state_dict_ema": WEIGHT},
        {"model": OTHER, "model_ema": WEIGHT},
        {"module.fc.weight": tensor(KERNEL)},
        {"state_dict": {"module.fc.weight": tensor(KERNEL)}},
        {"state_dict": {"module._orig_mod.fc.weight": tensor(KERNEL)}},
        {"state_dict": {"model.fc.weight": tensor(KERNEL)}, "pytorch-lightning_version": "2"},
        {"model_ema": {"n_averaged": tensor(np.array(5)), "module.fc.weight": tensor(KERNEL, "1")}},
        {"fc.weight": tensor(KERNEL), "note": "not a tensor", "version": 2},
        {"model": WEIGHT, "args": argparse.Namespace(lr=0.1, output="out"), "epoch": 3},
        {"state_dict": WEIGHT, "best": np.float64(0.9), "device": Call("torch.device", ("cpu",))},
    ],
)
def test_what_a_training_script_saved_around_the_weights_is_taken_off(write, content):
    state = read_state(write(content))
    assert list(state) == ["fc.weight"]
    np.testing.assert_array_equal(state["fc.weight"], KERNEL)


def test_a_module_of_that_name_keeps_it(write):
    content = {"module.weight": tensor(KERNEL), "head.weight": tensor(KERNEL, key="1")}
    assert list(read_state(write(content))) == ["module.weight", "head.weight"]


@pytest.mark.parametrize("name", ["model_best.pth.tar", "last.ckpt", "net.v2.pt", "model.bin"])
def test_what_training_scripts_call_their_files_is_known(name, tmp_path):
    (tmp_path / name).write_bytes(archive(WEIGHT))
    assert read_arrays(tmp_path / name)["fc"][0].shape == KERNEL.T.shape


def test_safetensors_hold_bfloat16_too(tmp_path):
    """numpy has no bfloat16: it is the upper half of a float32."""
    halves = np.array([1.5, -2.0, 0.25], "f4")
    header = b'{"b":{"dtype":"BF16","shape":[3],"data_offsets":[0,6]}}'
    data = (halves.view("<u4") >> 16).astype("<u2").tobytes()
    path = tmp_path / "net.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    np.testing.assert_array_equal(read_state(path)["b"], halves)
    path.write_bytes(safetensors({"a": KERNEL, "n": np.array(3)}))
    state = read_state(path)
    np.testing.assert_array_equal(state["a"], KERNEL)
    assert state["n"] == 3


@pytest.mark.parametrize("zipped", [True, False])
def test_files_that_torch_itself_wrote(zipped, tmp_path):
    torch = pytest.importorskip("torch", reason="needs torch to write them")
    base = torch.arange(24.0).reshape(4, 6)
    state = {
        "float": torch.linspace(-1, 1, 5),
        "half": torch.linspace(-1, 1, 5).half(),
        "bfloat16": torch.linspace(-1, 1, 5).bfloat16(),
        "double": torch.linspace(-1, 1, 5).double(),
        "long": torch.tensor(2**40),
        "bool": torch.tensor([True, False]),
        "base": base,
        "transposed": base.T,
        "part": base[1:3, ::2],
        "parameter": torch.nn.Parameter(base * 2),
    }
    torch.save(state, tmp_path / "net.pth", _use_new_zipfile_serialization=zipped)
    read = read_state(tmp_path / "net.pth")
    assert list(read) == list(state)
    for name, expected in state.items():
        expected = expected.detach()
        expected = expected.float() if name == "bfloat16" else expected
        np.testing.assert_array_equal(read[name], expected.numpy())


# === What is refused ===


def refused(path: Path) -> str:
    """The one line that refuses a file."""
    with pytest.raises(UsageError) as caught:
        read_state(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("place", ["alone", "beside", "inside"])
@pytest.mark.parametrize("name", ["os.system", "posix.system", "builtins.exec", "builtins.eval"])
def test_no_code_of_a_file_s_choice_runs(write, place, name, tmp_path):
    command = f"touch {tmp_path}/harm" if "system" in name else f"open('{tmp_path}/harm', 'w')"
    call = Call(name, (command,))
    content = {"alone": call, "beside": {**WEIGHT, "x": call}, "inside": {"w": {"w": call}}}
    path = write(content[place])
    assert f"it asks for {name}, which is no tensor" in refused(path)
    assert not (tmp_path / "harm").exists()


def test_a_bare_pickle_runs_no_code_either(tmp_path):
    path = tmp_path / "net.pth"
    path.write_bytes(pickled(Call("os.system", (f"touch {tmp_path}/harm",)))[0])
    assert "it asks for os.system" in refused(path)
    assert not (tmp_path / "harm").exists()


def test_a_whole_module_is_asked_to_be_saved_as_a_state_dict(write):
    message = refused(write(Call("torch.nn.modules.linear.Linear", (2, 3))))
    assert "torch.save(model.state_dict(), ...)" in message
    assert "it asks for torch.nn.modules.linear.Linear" in message


@pytest.mark.parametrize(
    "beyond",
    [
        view(Storage(np.zeros(4, "f4")), (5,), (1,)),
        view(Storage(np.zeros(4, "f4")), (4,), (1,), offset=1),
        view(Storage(np.zeros(4, "f4")), (2, 2), (3, 2)),
        view(Storage(np.zeros(4, "f4")), (2**40,), (0,)),
        view(Storage(np.zeros(4, "f4")), (2,), (2**62,)),
    ],
)
def test_no_tensor_reaches_out_of_its_storage(write, beyond):
    assert "a tensor is larger than its storage" in refused(write({"w": beyond}))


@pytest.mark.parametrize(
    "shape", [((-1,), (1,), 0), ((2,), (-1,), 1), ((2,), (1,), -1), ((2, 2), (1,), 0)]
)
def test_no_tensor_has_an_impossible_shape(write, shape):
    content = {"w": view(Storage(np.zeros(4, "f4")), *shape)}
    assert "a tensor has no possible shape" in refused(write(content))


@pytest.mark.parametrize("count", [5, 2**60])
def test_a_storage_is_as_long_as_the_file_says(write, count):
    content = {"w": view(Storage(np.zeros(4, "f4"), count=count), (1,), (1,))}
    assert "storage 0 has" in refused(write(content))


def test_a_compressed_member_is_refused_so_that_no_small_file_grows_large(tmp_path):
    path = tmp_path / "net.pth"
    path.write_bytes(archive({"w": tensor(np.zeros(1000, "f4"))}, compression=zipfile.ZIP_DEFLATED))
    assert "is compressed" in refused(path)


def test_a_few_bytes_cannot_ask_for_all_memory(tmp_path):
    """Numbering a value with 2 ** 24 makes the unpickler in C allocate 256 MB."""
    path = tmp_path / "net.pth"
    path.write_bytes(b"\x80\x02N" + pickle.LONG_BINPUT + struct.pack("<I", 2**24) + b".")
    tracemalloc.start()
    try:
        refused(path)
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "neither a zip archive nor"),
        (b"hello, world\n", "neither a zip archive nor"),
        (b"\x80\x02K\x01.", "neither a zip archive nor"),
        (b"\x80\x02", "it is cut off"),
    ],
)
def test_what_is_no_file_of_torch_s_is_one_clear_line(content, why, tmp_path):
    path = tmp_path / "net.pth"
    path.write_bytes(content)
    assert why in refused(path)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({}, "no tensors by name"),
        ({"epoch": 3}, "no tensors by name"),
        ([tensor(KERNEL)], "no dictionary"),
        ({"w": Call("torch._utils._rebuild_tensor_v2", (0, 0, (1,), (1,)))}, "has no storage"),
    ],
)
def test_what_holds_no_weights_is_one_clear_line(write, content, why):
    assert why in refused(write(content))


def test_an_archive_of_something_else_is_one_clear_line(tmp_path):
    path = tmp_path / "net.pth"
    with zipfile.ZipFile(path, "w") as target:
        target.writestr("word/document.xml", "<xml/>")
    assert "not one of torch's" in refused(path)


SMALL = {
    "zip.pth": archive({"w": tensor(KERNEL), "b": tensor(np.arange(3.0), key="1")}),
    "legacy.pth": legacy({"w": tensor(KERNEL), "b": tensor(np.arange(3.0), key="1")}),
    "net.safetensors": safetensors({"w": KERNEL, "b": np.arange(3.0)}),
}


@pytest.mark.parametrize("file", SMALL)
def test_a_file_that_was_cut_off_anywhere_is_refused(file, tmp_path):
    path = tmp_path / file
    for length in range(len(SMALL[file])):
        path.write_bytes(SMALL[file][:length])
        refused(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("flipped")


@pytest.mark.parametrize("file", SMALL)
@given(flips=st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1))
@hypothesis_settings(max_examples=300, deadline=None)
def test_flipped_bytes_load_or_are_refused(file, folder, flips):
    content = bytearray(SMALL[file])
    for place, byte in flips:
        content[place % len(content)] = byte
    (folder / file).write_bytes(content)
    with contextlib.suppress(UsageError):
        assert all(array.size <= 6 for array in read_state(folder / file).values())
