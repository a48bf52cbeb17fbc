"""Reference implementations in torch, as oracles: made-up weights, saved by them, loaded by us.

Both nets answer in float64, where rounding cannot hide or feign a difference: a hundred layers
with weights that nobody trained amplify float32's to more than the 1e-4 that is asked for.
"""

import importlib.util
from pathlib import Path
from unittest import mock

import keras
import numpy as np
import pytest

from comparing import float64, pictures
from striate.registry import create_model

torch = pytest.importorskip("torch", reason='needs the oracle: pip install "striate[oracle]"')
torch.set_num_threads(1)  # more would wait for each other, spinning, beside Keras' own

Shape = tuple[int, int, int]


def torchvision():
    """torchvision's models; its compiled operators, which no classifier needs, may be missing."""
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("needs torchvision as the oracle")
    with mock.patch("torch.library.register_fake", return_value=lambda function: function):
        import torchvision
    return torchvision.models


def made_up(model, shape: Shape):
    """Give the net weights that keep the signal alive at every depth: He's, and batch
    normalisations that have seen pictures. A wrong padding or order then shows in the logits.
    """
    random = np.random.default_rng(0)
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, torch.nn.Linear | torch.nn.modules.conv._ConvNd):
            torch.nn.init.kaiming_normal_(module.weight)
    norms = [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = None  # the average over all batches seen: here, of one
        norm.weight.data = torch.tensor(random.uniform(0.5, 1.5, norm.weight.shape)).float()
        norm.bias.data = torch.tensor(random.uniform(-0.5, 0.5, norm.bias.shape)).float()
    model.eval()
    for norm in norms:
        norm.train()  # and nothing else: no dropout, no second head
    answer(model, pictures(shape, 8))
    return model.eval()


def answer(model, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        model.double()
        logits = model(torch.tensor(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))).numpy()
        model.float()
    return logits


def assert_same_logits(name: str, model, shape: Shape, folder: Path, **options) -> None:
    """Save the oracle's weights, load them with `weights=FILE`, and compare the answers."""
    model = made_up(model, shape)
    torch.save(model.state_dict(), folder / "theirs.pth")
    x = pictures(shape, 2)
    with float64():
        ours = create_model(name, input_shape=shape, weights=folder / "theirs.pth", **options)
        logits = keras.ops.convert_to_numpy(ours(x, training=False))
    theirs = answer(model, x)
    assert np.ptp(theirs, axis=0).max() > 1e-2  # the pictures are told apart
    np.testing.assert_allclose(logits, theirs, rtol=0, atol=2e-5)
