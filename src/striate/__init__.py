"""striate: from a folder of images to a classifier that answers over the network or on a phone.

The verbs of the command line, in Python:

    striate.list_models("resnet*")                      striate.create_model("resnet18")
    striate.finetune("squeezenet1_1", data=..., output="saved_models/mine")
    striate.train("recipe.yaml", "saved_models/mine")
    striate.adopt("my_net.keras", "saved_models/mine", data=..., preprocess="unit")
    artifact = striate.load("saved_models/mine")        artifact.predict(["a.jpg"])
    striate.evaluate(artifact, "my_pictures/")          striate.export(artifact, ["onnx"])
    striate.report(artifact, "my_pictures/", "report.html")
    striate.explain(artifact, ["a.jpg"]).save("out/")
    striate.ensemble(["saved_models/a", "saved_models/b"], "saved_models/committee")
    striate.serve("saved_models/mine", port=8500)

A mistake that its user can mend is a `StriateError` of one line. Beside the verbs: `striate.data`
(labelled pictures), `search` (of hyper-parameters), `runtime` (the engines), `preprocess`,
`metrics`, `layers`, and what the packages of the verbs hold.

`import striate` loads no Keras, no TensorFlow; the first use of what needs them does.
"""

import os
from importlib import import_module as _import_module
from typing import TYPE_CHECKING
from typing import Any as _Any

from striate import models as models  # registers every net
from striate.errors import StriateError as StriateError
from striate.registry import create_model as create_model
from striate.registry import list_models as list_models

if TYPE_CHECKING:  # for editors and type checkers, which do not run `__getattr__`
    from striate.artifact import Artifact as Artifact
    from striate.artifact import load as load
    from striate.convolutional import convolutionalise as convolutionalise
    from striate.evaluate.everything import report as report
    from striate.train import finetune as finetune

__version__ = "0.1.0"

# Before anything imports ONNX Runtime, which since 1.29 tells its makers which models it runs, and
# keeps an identifier of the machine for that, unless it is told not to
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# name -> where it lives. A verb that is also a package (`train`, `explain`, ...) is that
# package, which can be called; see `striate.lazy.Verb`.
_LAZY = {
    "Artifact": "striate.artifact",
    "convolutionalise": "striate.convolutional",
    "load": "striate.artifact",
    "finetune": "striate.train",
    "report": "striate.evaluate.everything",
}
_PACKAGES = (
    "adopt",
    "arithmetic",
    "artifact",
    "bench",
    "costs",
    "data",
    "diagram",
    "ensemble",
    "evaluate",
    "explain",
    "export",
    "layers",
    "metrics",
    "preprocess",
    "runtime",
    "search",
    "serve",
    "train",
)


def __getattr__(name: str) -> _Any:
    if name in _LAZY:
        return getattr(_import_module(_LAZY[name]), name)
    if name in _PACKAGES:
        return _import_module(f"striate.{name}")
    raise AttributeError(f"module 'striate' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, *_PACKAGES} - {"os", "TYPE_CHECKING"})
