"""The messages of the Open Inference Protocol, from `oip.proto`.

tritonclient brings the same messages under the same names, and one pool of protobuf descriptors
takes a name only once. So ours live in a pool of their own, and both may share a process.
"""

from importlib.resources import files
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import Default, DescriptorPool
from google.protobuf.message_factory import GetMessageClass

SERVICE = "inference.GRPCInferenceService"

pool = DescriptorPool()
for _file in FileDescriptorSet.FromString(
    files("striate.serve.protocols").joinpath("oip.binpb").read_bytes()
).file:
    pool.AddSerializedFile(_file.SerializeToString())

service = pool.FindServiceByName(SERVICE)


def message(name: str) -> Any:
    """The class of the message `inference.NAME`."""
    return GetMessageClass(pool.FindMessageTypeByName(f"inference.{name}"))


class BothPools:
    """What reflection looks things up in: the pool that all other messages share, then ours."""

    def FindFileByName(self, name: str) -> Any:
        return _found("FindFileByName", name)

    def FindFileContainingSymbol(self, name: str) -> Any:
        return _found("FindFileContainingSymbol", name)

    def FindMessageTypeByName(self, name: str) -> Any:
        return _found("FindMessageTypeByName", name)

    def FindExtensionByNumber(self, descriptor: Any, number: int) -> Any:
        return Default().FindExtensionByNumber(descriptor, number)  # ours has none

    def FindAllExtensions(self, descriptor: Any) -> Any:
        return Default().FindAllExtensions(descriptor)


def _found(how: str, name: str) -> Any:
    """Raises `KeyError` where neither pool has it."""
    try:
        return getattr(Default(), how)(name)
    except KeyError:
        return getattr(pool, how)(name)
