"""Small real things for tests to work on: artifacts that are quick to make, and photographs."""

from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
PHOTOS = ROOT / "examples" / "photos"
SHIPPED = ROOT / "saved_models" / "squeezenet1_1"


def tiny_artifact(
    base: Path,
    *,
    name="lenet5",
    shape=(32, 32, 1),
    classes=4,
    seed=0,
    preprocess="unit",
    **options,
):
    """An artifact of an untrained net under `base`, with seeded weights and four made goldens.

    The net is the reduced one of its spec, with `options` besides. Its temperature lets scores
    differ enough between pictures to be worth comparing.
    """
    import keras

    from striate.artifact import write_version
    from striate.preprocess import for_input
    from striate.registry import create_model, get_spec

    keras.utils.set_random_seed(seed)
    net = get_spec(name)
    options = {**net.reduced, **options}
    model = create_model(name, num_classes=classes, input_shape=shape, **options)
    spec = for_input(net.kind, shape, preprocess)
    goldens = colourful_noise(4, shape, seed).astype(spec.dtype)
    images = spec.layer()(goldens)
    stir(model, images, seed)
    logits = np.asarray(model(images, training=False))
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


def stir(model, images: np.ndarray, seed: int) -> None:
    """Let every weight matter: as nets begin, an exporter that lost some would not be noticed.

    Biases are not 0 and scales not 1, kernels too quiet to be heard through the layers after them
    are louder, and batch normalisation knows the statistics of `images` (normalised), if only by
    seven tenths: whole, 28 such layers in a row would make differences out of rounding.
    """
    import keras

    rng = np.random.default_rng(seed)
    for weight in model.trainable_weights:
        if len(weight.shape) == 1:
            middle = np.minimum(weight, 0) if weight.path.endswith("bias") else np.asarray(weight)
            weight.assign(middle + 0.1 * rng.standard_normal(weight.shape))
        else:
            seen = weight.shape[: -2 if weight.shape[-1] == 1 else -1]  # one map, where depthwise
            loud = (2 / np.prod(seen)) ** 0.5
            weight.assign(weight * max(1, loud / max(float(np.std(weight)), 1e-12)))
    norms = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.3
    model(images, training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
