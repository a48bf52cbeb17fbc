"""Classify, Regress and MultiInference: examples in, classes or values out.

Any signature with one input `inputs` (serialized tf.Examples) will do, whatever its method name
says: `classes` and/or `scores` out of it make classifications, `outputs` regressions. Checks and
texts are TensorFlow Serving's; both its gRPC and its REST face call these.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import repeat

import numpy as np

from striate.serve import tensors
from striate.serve.core import Answer, Core, Request, Target
from striate.serve.signatures import CLASSIFY, DEFAULT, REGRESS, Tensors
from striate.serve.status import Code, ServingError, UnknownSignature, invalid

Classes = list[tuple[str, float]]


def classify(core: Core, request: Request) -> tuple[Answer, list[Classes]]:
    """The (label, score) pairs of each example, in the model's order."""
    answer = _asked(core, replace(request, method=CLASSIFY))
    return answer, classes_in(answer.outputs, answer.items)


def regress(core: Core, request: Request) -> tuple[Answer, list[float]]:
    """The value of each example."""
    answer = _asked(core, replace(request, method=REGRESS))
    return answer, values_in(answer.outputs, answer.items)


def multi_inference(
    core: Core, tasks: list[tuple[Target, str, str]], ask: Callable[[Target, str], Request]
) -> list[tuple[str, Answer, list]]:
    """Several questions about the same examples: (method, answer, what each example got) of each.

    tasks: model, signature and method name of each; ask(target, signature) makes its request. All
    are answered by one version.
    """
    _check_tasks(core, tasks)
    found: list[tuple[str, Answer, list]] = []
    for target, signature, method in tasks:
        if found:
            target = Target(target.model, found[0][1].version)
        call = classify if method == CLASSIFY else regress
        found.append((method, *call(core, ask(target, signature))))
    return found


def _asked(core: Core, request: Request) -> Answer:
    try:
        return core.predict(request)
    except UnknownSignature as error:
        raise invalid(f"No signature was found with the name: {error.signature}") from None


def _check_tasks(core: Core, tasks: list[tuple[Target, str, str]]) -> None:
    """Refuse as a whole what cannot be answered as a whole, before anything is computed."""
    if not tasks:
        raise invalid("ModelSpec has no name specified.")
    _, signatures = core.signatures(tasks[0][0])
    seen: set[str] = set()
    inputs: set[str] = set()
    for target, name, method in tasks:
        name = name or DEFAULT
        if not target.model:
            raise invalid("Found ModelSpec with an empty model name.")
        if target.model != tasks[0][0].model:
            raise invalid(
                "All ModelSpecs in a MultiInferenceRequest must access the same model name."
            )
        if name in seen:
            raise invalid(f"Duplicate evaluation of signature: {name}")
        if name not in signatures:
            raise invalid(f"Requested signature not found in model graph: {name}")
        if method not in (CLASSIFY, REGRESS):
            raise ServingError(Code.UNIMPLEMENTED, f"Unsupported signature method_name: {method}")
        seen.add(name)
        inputs |= {spec.tensor for spec in signatures[name].inputs.values()}
    if len(inputs) > 1:
        raise invalid("Input tensor must be the same for all Signatures.")


def classes_in(outputs: Tensors, items: int) -> list[Classes]:
    """`classes` and `scores` as pairs: a label is "" where there are none, a score 0."""
    classes, scores = outputs.get("classes"), outputs.get("scores")
    _check_table("classes", classes, np.dtype(object), items)
    _check_table("scores", scores, np.dtype("float32"), items)
    if classes is not None and scores is not None and classes.shape[1] != scores.shape[1]:
        raise invalid(
            "Tensors class and score should match in dim_size(1). "
            f"Got {classes.shape[1]} vs. {scores.shape[1]}"
        )
    labels = [[label.decode("utf-8", "replace") for label in row] for row in _rows(classes)]
    values = _rows(scores)
    return [
        list(zip(names or repeat(""), numbers or repeat(0.0), strict=False))
        for names, numbers in zip(labels or repeat([]), values or repeat([]), strict=False)
    ]


def values_in(outputs: Tensors, items: int) -> list[float]:
    """`outputs` as one number for each example."""
    found = outputs["outputs"]
    if not (found.ndim == 1 or (found.ndim == 2 and found.shape[1] == 1)):
        raise invalid(
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got "
            f"{_shown(found)}"
        )
    if len(found) != items:
        raise invalid(f"Input batch size did not match output batch size: {items} vs. {len(found)}")
    if found.dtype != np.float32:
        raise invalid(f"Expected output Tensor of DT_FLOAT.  Got: {_type(found)}")
    return found.ravel().tolist()


def _check_table(name: str, found: np.ndarray | None, dtype: np.dtype, items: int) -> None:
    if found is None:
        return
    if found.ndim != 2:
        raise invalid(f"Expected Tensor shape: [batch_size num_classes] but got {_shown(found)}")
    if found.dtype != dtype:
        wanted = tensors.type_of(dtype)
        raise invalid(f"Expected {name} Tensor of {wanted}. Got: {_type(found)}")
    if len(found) != items:
        raise invalid(f"Expected {name} output batch size of {items}. Got: {len(found)}")


def _rows(table: np.ndarray | None) -> list:
    return [] if table is None else table.tolist()


def _shown(tensor: np.ndarray) -> str:
    return f"[{','.join(map(str, tensor.shape))}]"


def _type(tensor: np.ndarray) -> str:
    return tensors.type_of(tensor.dtype)
