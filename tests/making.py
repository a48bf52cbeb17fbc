"""Small real things for tests to work on: artifacts that are quick to make, and photographs."""

from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
PHOTOS = ROOT / "examples" / "photos"
SHIPPED = ROOT / "saved_models" / "squeezenet1_1"


def tiny_artifact(base: Path, *, name="lenet5", shape=(32, 32, 1), classes=4, seed=0, **preset):
    """An artifact of an untrained net under `base`, with seeded weights and four made goldens.

    Its logits are scaled up, so that scores differ enough between pictures to be worth comparing.
    """
    import keras

    from striate import preprocess
    from striate.artifact import write_version
    from striate.registry import create_model, get_spec

    keras.utils.set_random_seed(seed)
    options = dict(get_spec(name).reduced)
    model = create_model(name, num_classes=classes, input_shape=shape, **options)
    goldens = np.random.default_rng(seed).integers(0, 256, (4, *shape), dtype=np.uint8)
    spec = preprocess.preset("unit", *shape, **preset)
    spread(model, spec, goldens)
    labels = [f"class {i}" for i in range(classes)]
    return write_version(
        base,
        model=model,
        labels=labels,
        preprocess=spec,
        model_name=name,
        options=options,
        goldens=goldens,
    )


def spread(model, spec, images: np.ndarray) -> None:
    """Scale the classifier's kernel until the logits of `images` spread over about one unit."""
    logits = np.asarray(model(spec.layer()(images), training=False))
    kernel = max((w for w in model.trainable_weights if "logits" in w.path), key=lambda w: w.ndim)
    kernel.assign(kernel / max(float(logits.std()), 1e-30))
