"""TensorProto <-> numpy, without TensorFlow.

Strings are numpy arrays of `bytes` objects (dtype object). A tensor comes as raw bytes
(`tensor_content`) or as typed values (`float_val`, `string_val`, ...), of which the last one fills
up the shape, as in TensorFlow's `Tensor::FromProto`. Answers are written as typed values, because
some clients read nothing else.
"""

import math

import numpy as np

from striate.serve.protos import tensor_pb2, types_pb2

_STRING = types_pb2.DT_STRING

# DataType -> (numpy dtype, the field that carries typed values of it)
_TYPES: dict[int, tuple[np.dtype, str]] = {
    types_pb2.DT_FLOAT: (np.dtype("float32"), "float_val"),
    types_pb2.DT_DOUBLE: (np.dtype("float64"), "double_val"),
    types_pb2.DT_HALF: (np.dtype("float16"), "half_val"),
    types_pb2.DT_INT8: (np.dtype("int8"), "int_val"),
    types_pb2.DT_INT16: (np.dtype("int16"), "int_val"),
    types_pb2.DT_INT32: (np.dtype("int32"), "int_val"),
    types_pb2.DT_INT64: (np.dtype("int64"), "int64_val"),
    types_pb2.DT_UINT8: (np.dtype("uint8"), "int_val"),
    types_pb2.DT_UINT16: (np.dtype("uint16"), "int_val"),
    types_pb2.DT_UINT32: (np.dtype("uint32"), "uint32_val"),
    types_pb2.DT_UINT64: (np.dtype("uint64"), "uint64_val"),
    types_pb2.DT_BOOL: (np.dtype("bool"), "bool_val"),
    _STRING: (np.dtype("object"), "string_val"),
}
# Of these, the packed values lie in a message as they lie in memory: the key before them
_PACKED = {types_pb2.DT_FLOAT: b"\x2a", types_pb2.DT_DOUBLE: b"\x32"}
_DATA_TYPES = {dtype: number for number, (dtype, _) in _TYPES.items()}


def data_type(dtype: np.dtype) -> int:
    """TensorFlow's DataType number of a numpy dtype."""
    return _DATA_TYPES[np.dtype(dtype)]


def type_of(dtype: np.dtype) -> str:
    """TensorFlow's name of a numpy dtype: DT_FLOAT for float32."""
    return types_pb2.DataType.Name(data_type(dtype))


def dtype_of(number: int) -> np.dtype:
    """The numpy dtype of a DataType number; `KeyError` for one that is not supported."""
    return _TYPES[number][0]


class TooLarge(ValueError):
    """A tensor of more bytes than a request may unfold to."""


def from_proto(proto, max_bytes: int) -> np.ndarray:
    """The array in a TensorProto.

    Raises `ValueError` for one that is malformed or of an unknown dtype, `TooLarge` for one that
    would unfold to more than `max_bytes` (a single repeated value can stand for any shape).
    """
    if proto.dtype not in _TYPES:
        raise ValueError(f"dtype {proto.dtype} is not supported")
    dtype, field = _TYPES[proto.dtype]
    shape = tuple([dim.size for dim in proto.tensor_shape.dim])
    if proto.tensor_shape.unknown_rank or min(shape, default=0) < 0:
        raise ValueError("its shape is not fully known")
    count = math.prod(shape)
    if count * dtype.itemsize > max_bytes:
        raise TooLarge(f"its shape {list(shape)} is over the limit of {max_bytes:,} bytes")
    if content := proto.tensor_content:  # asked once: protobuf copies it each time
        return _from_content(content, dtype, count).reshape(shape)
    return _from_values(getattr(proto, field), dtype, count).reshape(shape)


def to_proto(array: np.ndarray):
    """A TensorProto of an array, as typed values."""
    proto = tensor_pb2.TensorProto(dtype=data_type(array.dtype))
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    values = array.ravel()
    if proto.dtype in _PACKED and values.size:  # a tenth of the time that `extend` takes
        raw = values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
        proto.MergeFromString(_PACKED[proto.dtype] + _as_varint(len(raw)) + raw)
        return proto
    if values.dtype == np.float16:
        values = values.view(np.uint16)
    getattr(proto, _TYPES[proto.dtype][1]).extend(values.tolist())
    return proto


def to_content(array: np.ndarray):
    """A TensorProto of a numeric array, as raw bytes: what a client sends pictures in."""
    proto = tensor_pb2.TensorProto(dtype=data_type(array.dtype))
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    proto.tensor_content = np.ascontiguousarray(array).tobytes()
    return proto


def strings(values) -> np.ndarray:
    """A numpy array [N] of `bytes` objects."""
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _from_content(content: bytes, dtype: np.dtype, count: int) -> np.ndarray:
    if dtype.kind == "O":
        return _from_string_content(content, count)
    if len(content) != count * dtype.itemsize:
        raise ValueError(f"expected {count * dtype.itemsize} bytes, got {len(content)}")
    return np.frombuffer(content, dtype.newbyteorder("<")).astype(dtype, copy=False)


def _from_string_content(content: bytes, count: int) -> np.ndarray:
    """TensorFlow's string list: the lengths as varints, then the strings one after the other."""
    lengths, position = [], 0
    for _ in range(count):
        length, position = _varint(content, position)
        lengths.append(length)
    if position + sum(lengths) != len(content):
        raise ValueError("its strings do not fill its content")
    found = []
    for length in lengths:
        found.append(content[position : position + length])
        position += length
    return strings(found)


def _varint(content: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(content) and shift < 64:
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError("a length in its content is cut off")


def _as_varint(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*found, value))


def _from_values(values, dtype: np.dtype, count: int) -> np.ndarray:
    kept = list(values[:count])
    last = kept[-1] if kept else (b"" if dtype.kind == "O" else 0)
    if dtype.kind == "O":
        return strings(kept + [last] * (count - len(kept)))
    wide = np.full(count, last, _wide(dtype))
    wide[: len(kept)] = kept
    return wide.view(np.float16) if dtype == np.float16 else wide.astype(dtype, copy=False)


def _wide(dtype: np.dtype) -> np.dtype:
    """What the values of the field are: halves travel as their 16 bits, small integers as int32."""
    if dtype == np.float16:
        return np.dtype("uint16")
    return np.dtype("int32") if dtype.kind in "iu" and dtype.itemsize < 4 else dtype
