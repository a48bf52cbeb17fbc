"""Grad-CAM and Grad-CAM++ against pytorch-grad-cam, on the same weights."""

import numpy as np
import pytest

from oracles import made_up, pictures, torch, torchvision
from striate.explain import subject_of
from striate.explain.grad_cam import grad_cam, grad_cam_plus_plus
from striate.explain.subject import as_array
from striate.preprocess import preset
from striate.registry import create_model

pytestmark = pytest.mark.oracle

SHAPE = (96, 64, 3)
# ours -> torchvision's net, the module that gives its last maps, options of ours
NETS = {
    "resnet50": ("resnet50", lambda net: net.layer4, {}),
    "vgg16": ("vgg16", lambda net: net.features[29], {}),
}


@pytest.fixture(params=[pytest.param("resnet50"), pytest.param("vgg16", marks=pytest.mark.slow)])
def pair(request, tmp_path):
    name, layer, options = NETS[request.param]
    models = torchvision()  # first: it works around missing compiled operators
    pytest.importorskip("pytorch_grad_cam", reason="needs the oracle: pip install grad-cam")
    theirs = made_up(getattr(models, name)(weights=None), SHAPE)
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    ours = create_model(
        request.param, input_shape=SHAPE, weights=tmp_path / "theirs.pth", **options
    )
    return subject_of(ours, preset("torch", *SHAPE)), theirs, layer(theirs)


@pytest.mark.parametrize("method", [grad_cam, grad_cam_plus_plus])
def test_maps_are_pytorch_grad_cam_s(pair, method):
    import pytorch_grad_cam as oracle
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget as Target

    subject, theirs, layer = pair
    kind = oracle.GradCAM if method is grad_cam else oracle.GradCAMPlusPlus
    pixels = np.clip(127.5 + 60 * pictures(SHAPE, 2), 0, 255).astype("float32")
    targets = np.array([3, 700])
    floats = as_array(subject.normalise(pixels)).transpose(0, 3, 1, 2)

    hook = kind(model=theirs, target_layers=[layer])
    hook(torch.tensor(floats), targets=[Target(int(t)) for t in targets])
    maps = hook.activations_and_grads.activations[0].numpy()
    slopes = hook.activations_and_grads.gradients[0].numpy()
    weights = hook.get_cam_weights(None, None, None, maps, slopes)
    expected = np.maximum((weights[:, :, None, None] * maps).sum(axis=1), 0)

    found = method(subject, pixels, targets)
    enlarged = torch.nn.functional.interpolate(
        torch.tensor(expected)[:, None], SHAPE[:2], mode="bilinear"
    )[:, 0].numpy()
    assert expected.max() > 0
    # the oracle adds 1e-6 to the denominator of Grad-CAM++'s weights
    tolerance = 2e-3 if method is grad_cam else 0.05
    np.testing.assert_allclose(found, enlarged, rtol=0, atol=tolerance * enlarged.max())
