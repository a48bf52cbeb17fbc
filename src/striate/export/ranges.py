"""Which activations int8 has numbers for: the largest of all are left out, as a few outliers.

A range from the least to the greatest number that occurs would be as wide as its rarest number,
and its 255 steps as coarse for all others. So the range of a tensor ends where 1 in 100,000 of its
numbers is larger in magnitude; those become the end of it. `PERCENTILE` tells ONNX Runtime's
calibrator to do so. LiteRT's knows only the least and greatest, and writes them into the file
that it is to quantise: `narrowed` mends them there.
"""

import math

import numpy as np

from striate.train.quantise import LEVELS

PERCENTILE = 99.999


def narrowed(calibrated: bytes, images: np.ndarray) -> bytes:
    """LiteRT's calibrated file with ranges of `PERCENTILE`; images: those it was shown."""
    from tensorflow.lite.tools.flatbuffer_utils import (
        convert_bytearray_to_object,
        convert_object_to_bytearray,
    )

    model = convert_bytearray_to_object(bytearray(calibrated))
    tensors = model.subgraphs[0].tensors
    found = {i: tensor.quantization for i, tensor in enumerate(tensors) if _has_range(tensor)}
    for i, end in _ends(calibrated, list(found), images).items():
        if end == 0:  # hardly ever anything but 0, and 0 to 0 is no range
            continue
        low, high = max(float(found[i].min[0]), -end), min(float(found[i].max[0]), end)
        found[i].min, found[i].max = ([edge] for edge in with_zero(low, high))
    return bytes(convert_object_to_bytearray(model))


def with_zero(low: float, high: float) -> tuple[float, float]:
    """The range, a little wider where 0 would lie between two of its 256 levels.

    0 has to be a level, for padding. Left to itself the converter moves the range by half a step:
    of pixels from -1 to 1 that cuts off white.
    """
    if not low < 0 < high:
        return low, high
    below = LEVELS * low / (low - high)
    counts = [min(max(n, 1), LEVELS - 1) for n in (math.floor(below), math.ceil(below))]
    step, n = min((max(-low / n, high / (LEVELS - n)), n) for n in counts)
    return -n * step, (LEVELS - n) * step


def _has_range(tensor) -> bool:
    return tensor.quantization is not None and tensor.quantization.max is not None


def _ends(file: bytes, tensors: list[int], images: np.ndarray) -> dict[int, float]:
    """By index, the magnitude that is exceeded by 1 in 100,000 of what is in a tensor."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=file,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    answer = interpreter.get_signature_runner("serving_default")
    largest = {i: np.empty(0, np.float32) for i in tensors}
    for image in images:
        answer(image=image[np.newaxis])
        for i in tensors:
            x = np.abs(interpreter.get_tensor(i)).ravel()
            beyond = round((1 - PERCENTILE / 100) * x.size * len(images))
            largest[i] = greatest(np.concatenate([largest[i], x]), beyond + 1)
    return {i: float(numbers.min()) for i, numbers in largest.items()}


def greatest(x: np.ndarray, n: int) -> np.ndarray:
    """The n greatest of numbers, float [n], in any order; all where there are fewer."""
    return x if x.size <= n else np.partition(x, x.size - n)[x.size - n :]
