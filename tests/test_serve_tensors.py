"""TensorProto <-> numpy, held against TensorFlow's own conversion."""

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.serve import tensors
from striate.serve.protos import tensor_pb2, types_pb2

LIMIT = 1 << 20
NUMERIC = [
    "float32", "float64", "float16", "int8", "int16", "int32", "int64",
    "uint8", "uint16", "uint32", "uint64", "bool",
]  # fmt: skip
any_array = st.sampled_from(NUMERIC).flatmap(
    lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=4, max_side=4))
)


@settings(deadline=None, max_examples=60)
@given(any_array)
def test_an_array_comes_back_as_tensorflow_reads_it(array):
    import tensorflow as tf

    np.testing.assert_array_equal(tf.make_ndarray(tensors.to_proto(array)), array)
    np.testing.assert_array_equal(tf.make_ndarray(tensors.to_content(array)), array)


@settings(deadline=None, max_examples=60)
@given(any_array)
def test_an_array_that_tensorflow_wrote_is_read_bit_for_bit(array):
    import tensorflow as tf

    found = tensors.from_proto(tf.make_tensor_proto(array), LIMIT)
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


def test_strings_survive_both_ways():
    import tensorflow as tf

    array = np.array([[b"", b"\x00\xff"], [b"a" * 300, "ü".encode()]], object)
    np.testing.assert_array_equal(tf.make_ndarray(tensors.to_proto(array)), array)
    np.testing.assert_array_equal(
        tensors.from_proto(tf.make_tensor_proto(array, tf.string), LIMIT), array
    )


def test_strings_in_tensor_content_are_lengths_then_bytes():
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING)
    proto.tensor_shape.dim.add(size=2)
    proto.tensor_content = b"\x01\xac\x02" + b"x" + b"y" * 300  # 300 = 0xac 0x02 as a varint
    assert tensors.from_proto(proto, LIMIT).tolist() == [b"x", b"y" * 300]
    proto.tensor_content = b"\x01\xac\x02" + b"x"
    with pytest.raises(ValueError, match="do not fill"):
        tensors.from_proto(proto, LIMIT)
    proto.tensor_content = b"\x80"
    with pytest.raises(ValueError, match="cut off"):
        tensors.from_proto(proto, LIMIT)


def shaped(dtype, *sizes, **values):
    proto = tensor_pb2.TensorProto(dtype=dtype, **values)
    for size in sizes:
        proto.tensor_shape.dim.add(size=size)
    return proto


def test_the_last_typed_value_fills_the_shape():
    found = tensors.from_proto(shaped(types_pb2.DT_UINT8, 2, 3, int_val=[1, 7]), LIMIT)
    assert found.tolist() == [[1, 7, 7], [7, 7, 7]]
    assert found.dtype == np.uint8
    found = tensors.from_proto(shaped(types_pb2.DT_STRING, 3, string_val=[b"x"]), LIMIT)
    assert found.tolist() == [b"x"] * 3
    found = tensors.from_proto(shaped(types_pb2.DT_FLOAT, 2), LIMIT)
    assert found.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("proto", "reason"),
    [
        (shaped(0, 1), "dtype 0 is not supported"),
        (shaped(types_pb2.DT_UINT8, 2, tensor_content=b"123"), "expected 2 bytes, got 3"),
        (shaped(types_pb2.DT_UINT8, -1, int_val=[1]), "not fully known"),
        (shaped(types_pb2.DT_FLOAT, 1 << 40, float_val=[1]), "over the limit"),
    ],
)
def test_a_malformed_tensor_says_what_is_wrong(proto, reason):
    with pytest.raises(ValueError, match=reason):
        tensors.from_proto(proto, LIMIT)
