"""int8: `model.int8.tflite` and `model.int8.onnx`, a quarter of the size, quicker on a CPU.

Weights become whole numbers of 8 bits with a scale for each output channel, activations with one
for each tensor, found by showing the net pictures (post-training quantisation; Jacob et al. 2018,
https://arxiv.org/abs/1712.05877), and biases make up for what rounding the weights does to the
mean. `image` stays uint8 and `scores` float32; normalisation and softmax are computed in floats, as
1/256 is too coarse a step for scores.
"""

import io
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np

from striate.artifact import Artifact
from striate.export import onnx
from striate.export.bias import corrected
from striate.export.litert import converter

LITERT_FLOATS = ["SOFTMAX", "SUB"]  # SUB: of the mean, from pixels
ONNX_INTEGERS = [
    "Add",
    "AveragePool",
    "Clip",
    "Concat",
    "Conv",
    "Gemm",
    "GlobalAveragePool",
    "MatMul",
    "MaxPool",
    "Relu",
]


def write(artifact: Artifact, directory: Path, *, images: np.ndarray) -> None:
    """images: uint8 [N, H, W, C], of the kind that the net will see; some dozens are enough."""
    pictures = np.asarray(artifact.preprocess.layer()(images))
    with corrected(artifact.model, pictures):
        write_litert(artifact, directory, images)
        write_onnx(artifact, directory, images)


def write_litert(artifact: Artifact, directory: Path, images: np.ndarray) -> None:
    import tensorflow as tf

    def shown() -> Iterator[dict[str, np.ndarray]]:
        for image in images:
            yield {"image": image[np.newaxis]}

    floats = tf.lite.experimental.QuantizationDebugOptions(denylisted_ops=LITERT_FLOATS)
    with converter(artifact) as found:
        found.optimizations = [tf.lite.Optimize.DEFAULT]
        found.representative_dataset = shown
        quantiser = tf.lite.experimental.QuantizationDebugger(
            converter=found, debug_dataset=shown, debug_options=floats
        )
        file = quantiser.get_nondebug_quantized_model()
    (directory / "model.int8.tflite").write_bytes(file)


def write_onnx(artifact: Artifact, directory: Path, images: np.ndarray) -> None:
    """Quantise the net's ONNX form, with a scale before and after each node.

    That format (QDQ) is standard ONNX: a runtime without int8 kernels computes it in floats.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Shown(CalibrationDataReader):
        def __init__(self) -> None:
            self._images = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self._images, None)
            return None if image is None else {"image": image[np.newaxis]}

    said = io.StringIO()  # the calibrator prints to standard output, where a document may be due
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(said):
        ready = Path(folder) / "ready.onnx"
        onnx.write(artifact, Path(folder))
        quant_pre_process(Path(folder) / "model.onnx", ready, skip_symbolic_shape=True)
        quantize_static(
            ready,
            directory / "model.int8.onnx",
            Shown(),
            op_types_to_quantize=ONNX_INTEGERS,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.Percentile,  # nearer than the whole range
        )
