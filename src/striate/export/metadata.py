"""What an exported file says of itself: the names of its classes, where others look for them.

ONNX has a map of strings, in which `labels` is a list as JSON. LiteRT has a FlatBuffer within the
model's own, `TFLITE_METADATA`, that names files in a ZIP archive behind the model
(https://ai.google.dev/edge/litert/models/metadata): MediaPipe's image classifier and Android's
libraries take the labels from there.
"""

import io
import json
import zipfile
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from striate.artifact import LABELS, Artifact

if TYPE_CHECKING:
    from onnx import ModelProto

LITERT = "TFLITE_METADATA"
NAME = PurePath(LABELS).name  # in the archive
# By number, the fields of LiteRT's metadata_schema.fbs that are written here.
MODEL_NAME, MODEL_GRAPHS, MODEL_READER = 0, 3, 7
GRAPH_INPUTS, GRAPH_OUTPUTS = 2, 3
TENSOR_NAME, TENSOR_CONTENT, TENSOR_FILES = 0, 3, 6
CONTENT_KIND, CONTENT = 0, 1
FILE_NAME, FILE_KIND = 0, 2
IMAGE = 2  # a kind of content, whose field 0 is its colours:
COLOURS = {3: 1, 1: 2}  # RGB, GRAYSCALE, by the number of channels
AXIS_LABELS = 2  # a kind of file: a line for each place of the tensor's last axis
OLDEST_READER = "1.0.0"


def add_to_onnx(model: "ModelProto", artifact: Artifact) -> None:
    """`labels`, a list as JSON, among the model's `metadata_props`."""
    from onnx import helper

    model.producer_name = "striate"
    helper.set_model_props(model, {"labels": json.dumps(artifact.labels, ensure_ascii=False)})


def with_labels(file: bytes, artifact: Artifact) -> bytes:
    """LiteRT's file with its metadata in it, and the archive of `labels.txt` behind it."""
    from tensorflow.lite.python import schema_py_generated as schema
    from tensorflow.lite.tools.flatbuffer_utils import (
        convert_bytearray_to_object,
        convert_object_to_bytearray,
    )

    model = convert_bytearray_to_object(bytearray(file))
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = _flat(_described(artifact))
    entry.name, entry.buffer = LITERT, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    return bytes(convert_object_to_bytearray(model, _archive(artifact)))


def _archive(artifact: Artifact) -> bytes:
    """The ZIP archive, its file stored as it is and without a date, for equal bytes every time."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr(zipfile.ZipInfo(NAME), (artifact.path / LABELS).read_bytes())
    return written.getvalue()


def _described(artifact: Artifact) -> dict[int, Any]:
    """The metadata as tables, each a dict of its fields by their numbers."""
    image: dict[int, Any] = {TENSOR_NAME: "image"}
    if artifact.preprocess.kind == "picture":
        colours = COLOURS.get(artifact.preprocess.shape[-1], 0)
        image[TENSOR_CONTENT] = {CONTENT_KIND: IMAGE, CONTENT: {0: colours}}
    labels = {FILE_NAME: NAME, FILE_KIND: AXIS_LABELS}
    graph = {
        GRAPH_INPUTS: [image],
        GRAPH_OUTPUTS: [{TENSOR_NAME: "scores", TENSOR_FILES: [labels]}],
    }
    return {MODEL_NAME: artifact.name, MODEL_GRAPHS: [graph], MODEL_READER: OLDEST_READER}


def _flat(table: dict[int, Any]) -> bytes:
    import flatbuffers

    builder = flatbuffers.Builder()
    builder.Finish(_written(builder, table), file_identifier=b"M001")
    return bytes(builder.Output())


def _written(builder: Any, value: str | list | dict[int, Any]) -> int:
    """The offset of a string, a vector of tables, or a table, its parts written before it."""
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, list):
        return _vector(builder, [_written(builder, each) for each in value])
    parts = {k: _written(builder, v) for k, v in value.items() if not isinstance(v, int)}
    builder.StartObject(max(value) + 1)
    for field, part in value.items():
        if field in parts:
            builder.PrependUOffsetTRelativeSlot(field, parts[field], 0)
        else:
            builder.PrependInt8Slot(field, part, 0)
    return builder.EndObject()


def _vector(builder: Any, offsets: list[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()
