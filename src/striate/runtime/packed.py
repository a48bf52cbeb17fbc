"""The packed form: ONNX Runtime for the real layers, striate's kernels for the binary ones, and for
the very first where the machine has a matrix unit."""

import os
from pathlib import Path

import numpy as np

from striate.artifact import Artifact
from striate.runtime.binary import chosen_kernel, library, stem_kernel

DOMAIN = "striate"
FILE = "model.packed.onnx"


def natively(model, threads: int):
    """The ONNX model whose binary layers call the compiled kernels; changed in place.

    The file's own definition of a layer in standard operators goes; the node's attributes become
    the custom operator's. The last input, the number of channels, only the definition needs.
    """
    from onnx import helper

    for node in model.graph.node:
        if node.domain == DOMAIN and node.op_type == "BinaryConv":
            found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            del node.attribute[:], node.input[-1:]
            numbers = {"stride": found["strides"][0], "pad": found["pads"][0], "threads": threads}
            node.attribute.extend(helper.make_attribute(k, v) for k, v in numbers.items())
    kept = [function for function in model.functions if function.name != "BinaryConv"]
    del model.functions[:]
    model.functions.extend(kept)
    return model


class PackedEngine:
    """A session over `model.packed.onnx`; many threads may call `predict`.

    The kernel is the fastest of `striate.runtime.binary`, or the one that STRIATE_KERNEL names;
    `numpy` there stands for no compiled kernel: ONNX Runtime then computes all of it in floats.
    """

    name = "packed"

    def __init__(self, path: Path, threads: int | None):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
        source: bytes | Path = path
        kernel = chosen_kernel()
        native = library()
        if kernel == "numpy" or native is None:
            self.kernel = f"onnxruntime {onnxruntime.__version__} cpu fp32, no binary kernels"
        else:
            import onnx

            from striate.runtime import stem

            options.register_custom_ops_library(native._name)
            threads = threads or os.cpu_count() or 1
            model = natively(onnx.load(path), threads)
            unit = stem_kernel()
            fused = unit is not None and stem.fuse(model, threads)
            source = model.SerializeToString()
            ours = f"{kernel} bits, {unit} stem" if fused else f"{kernel} bits"
            self.kernel = f"{ours}, onnxruntime {onnxruntime.__version__} cpu fp32"
        self._session = onnxruntime.InferenceSession(
            source, options, providers=["CPUExecutionProvider"]
        )

    def predict(self, images: np.ndarray) -> np.ndarray:
        return self._session.run(["scores"], {"image": images})[0]


def open_form(artifact: Artifact, path: Path, threads: int | None) -> PackedEngine:
    return PackedEngine(path, threads)
