"""Pictures as points of a plane: those that the net finds alike lie together.

Van der Maaten, Hinton, "Visualizing Data using t-SNE", JMLR 9, 2008, on the net's `features`
("CNN codes"); or their two principal components, which keep distances and need no library.
"""

import functools

import numpy as np

from striate.errors import UsageError
from striate.explain.subject import Subject, in_batches
from striate.libraries import is_installed


def codes(subject: Subject, pixels: np.ndarray, *, batch_size: int = 32) -> np.ndarray:
    """The `features` of pictures, float32 [N, d]; of a net without such a layer (the paper's
    SqueezeNet averages class maps), its last maps averaged over their places."""
    pooled = subject.spec.features in {layer.name for layer in subject.net.layers}
    name = subject.spec.features if pooled else subject.cam_layer()
    codes = in_batches(functools.partial(subject.at, name), pixels, batch_size=batch_size)
    return codes if pooled else codes.mean(axis=(1, 2))


def pca(points: np.ndarray, components: int = 2) -> np.ndarray:
    """The principal components of points [N, d], float64 [N, components], the widest first; those
    that so few points do not have are 0."""
    centred = points.astype(np.float64) - points.mean(axis=0, dtype=np.float64)
    left, spread, _ = np.linalg.svd(centred, full_matrices=False)
    found = left[:, :components] * spread[:components]
    found *= np.sign(found[np.abs(found).argmax(axis=0), np.arange(found.shape[1])])
    return np.pad(found, ((0, 0), (0, components - found.shape[1])))


def check_tsne() -> None:
    """`UsageError` where scikit-learn is not installed."""
    if not is_installed("sklearn"):
        raise UsageError(
            't-SNE needs scikit-learn: pip install "striate[explain]"; plane=pca needs nothing'
        )


def tsne(points: np.ndarray, *, perplexity: float = 30.0, seed: int = 0) -> np.ndarray:
    """float64 [N, 2] of points [N, d], by scikit-learn, started from the principal components.

    perplexity: about how many neighbours each point has; less than a third of the points.
    """
    check_tsne()
    from sklearn.manifold import TSNE

    if len(points) < 4:
        raise UsageError(f"t-SNE: expected at least 4 pictures, got {len(points)}")
    perplexity = min(perplexity, (len(points) - 1) / 3)
    points = pca(points, min(50, *points.shape))
    return TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(points)
