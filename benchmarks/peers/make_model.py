"""An untrained net as an artifact of all forms: python make_model.py NET DIRECTORY."""

import sys
from pathlib import Path

import numpy as np

from striate.artifact import write_version
from striate.export import export
from striate.preprocess import preset
from striate.registry import create_model, get_spec


def main(net: str, base: Path) -> None:
    spec = get_spec(net)
    model = create_model(net)
    shape = spec.input_shape
    images = np.random.default_rng(0).integers(0, 256, (4, *shape), dtype=np.uint8)
    artifact = write_version(
        base / net,
        model=model,
        labels=[str(i) for i in range(model.output_shape[-1])],
        preprocess=preset(spec.preprocess, *shape[:2]),
        model_name=net,
        goldens=images,
    )
    export(artifact, ["onnx", "litert", "saved_model"], images=images)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
