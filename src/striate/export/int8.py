"""int8: `model.int8.tflite` and `model.int8.onnx`, a quarter of the size, quicker on a CPU.

Weights become whole numbers of 8 bits with a scale for each output channel, activations with one
for each tensor, found by showing the net pictures (post-training quantisation; Jacob et al. 2018,
https://arxiv.org/abs/1712.05877; `ranges`), and biases make up for what rounding the weights does
to the mean (`bias`). `image` stays uint8 and `scores` float32. Normalisation and softmax are
computed in floats, as 1/256 is too coarse a step for scores, and so is a small classifier: the
weights of a linear probe are far apart, as the spreads of its features are.
"""

import io
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np

from striate.artifact import Artifact
from striate.export import onnx
from striate.export.bias import corrected
from striate.export.litert import converter
from striate.export.metadata import with_labels
from striate.export.ranges import PERCENTILE, narrowed
from striate.train.quantise import small_classifier

NORMALISE = "normalise"  # the layer before the net
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
    classifier = small_classifier(artifact.model)
    floats = [NORMALISE, *(layer.name for layer in classifier)]
    with corrected(artifact.model, pictures, classifier):
        write_litert(artifact, directory, images, floats)
        write_onnx(artifact, directory, images, floats)


def _scoped(names: Iterable[str], layers: list[str]) -> list[str]:
    """Those names in a converted graph that came from Keras layers: `.../logits_1/MatMul`."""
    scopes = [re.compile(rf"/{re.escape(layer)}(_\d+)?/") for layer in layers]
    return [name for name in names if any(scope.search(name) for scope in scopes)]


def write_litert(
    artifact: Artifact, directory: Path, images: np.ndarray, floats: list[str]
) -> None:
    """floats: names of layers that are not to be rounded."""
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    def shown() -> Iterator[dict[str, np.ndarray]]:
        for image in images:
            yield {"image": image[np.newaxis]}

    options = tf.lite.experimental.QuantizationDebugOptions(denylisted_ops=["SOFTMAX"])
    with converter(artifact) as found:
        found.optimizations = [tf.lite.Optimize.DEFAULT]
        found.representative_dataset = shown
        quantiser = tf.lite.experimental.QuantizationDebugger(
            converter=found, debug_dataset=shown, debug_options=options
        )
        calibrated = quantiser.calibrated_model
        tensors = Interpreter(model_content=calibrated).get_tensor_details()
        options.denylisted_nodes = _scoped([tensor["name"] for tensor in tensors], floats)
        quantiser.calibrated_model = narrowed(calibrated, images)
        file = quantiser.get_nondebug_quantized_model()
    (directory / "model.int8.tflite").write_bytes(with_labels(file, artifact))


def write_onnx(artifact: Artifact, directory: Path, images: np.ndarray, floats: list[str]) -> None:
    """Quantise the net's ONNX form, with a scale before and after each node but those of `floats`.

    That format (QDQ) is standard ONNX: a runtime without int8 kernels computes it in floats.
    """
    from onnx import load_model
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
        nodes = load_model(ready).graph.node
        quantize_static(
            ready,
            directory / "model.int8.onnx",
            Shown(),
            op_types_to_quantize=ONNX_INTEGERS,
            nodes_to_exclude=_scoped([node.name for node in nodes], floats),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.Percentile,
            extra_options={"CalibPercentile": PERCENTILE},
        )
