"""Small real things for tests to work on: artifacts that are quick to make, and photographs."""

from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
PHOTOS = ROOT / "examples" / "photos"
SHIPPED = ROOT / "saved_models" / "squeezenet1_1"


def tiny_artifact(base: Path, *, name="lenet5", shape=(32, 32, 1), classes=4, seed=0):
    """An artifact of an untrained net under `base`, with seeded weights and four made goldens.

    Its temperature lets scores differ enough between pictures to be worth comparing.
    """
    import keras

    from striate.artifact import write_version
    from striate.preprocess import for_input
    from striate.registry import create_model, get_spec

    keras.utils.set_random_seed(seed)
    net = get_spec(name)
    options = dict(net.reduced)
    model = create_model(name, num_classes=classes, input_shape=shape, **options)
    stir(model, seed)
    spec = for_input(net.kind, shape, "unit")
    goldens = colourful_noise(4, shape, seed).astype(spec.dtype)
    logits = np.asarray(model(spec.layer()(goldens), training=False))
    return write_version(
        base,
        model=model,
        labels=[f"class {i}" for i in range(classes)],
        preprocess=spec,
        temperature=float(logits.std()),
        model_name=name,
        options=options,
        goldens=goldens,
    )


def colourful_noise(n: int, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """uint8 [n, *shape]: noise around another colour in each, so that nets tell them apart."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 128, (n, *shape))
    colours = rng.integers(0, 128, (n, *(1 for _ in shape[:-1]), shape[-1]))
    return (noise + colours).astype(np.uint8)


def stir(model, seed: int) -> None:
    """Give every bias, scale and moving statistic a value of its own, and quiet kernels a voice.

    As nets begin, biases of 0 and scales of 1 would hide that an exporter had lost them; and the
    first AlexNets pass on so little, under biases of 1, that all pictures look alike.
    """
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        name = weight.path.rsplit("/", 1)[1]
        if name == "moving_variance":
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        elif len(weight.shape) == 1:
            middle = np.minimum(weight, 0) if name == "bias" else np.asarray(weight)
            weight.assign(middle + 0.1 * rng.standard_normal(weight.shape))
        elif weight.trainable:
            loud = (2 / np.prod(weight.shape[:-1])) ** 0.5
            weight.assign(weight * max(1, loud / max(float(np.std(weight)), 1e-12)))
