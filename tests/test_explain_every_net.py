"""Every method of explaining runs on every registered net, or the net's spec says why it cannot."""

import numpy as np
import pytest

from making import colourful_noise
from striate.errors import UsageError
from striate.explain import METHODS, draw, explain, subject_of
from striate.explain.activations import activity
from striate.explain.paths import residual_blocks
from striate.registry import create_model, list_models

pytestmark = pytest.mark.sweep

# Short walks: what is asked here is whether a method knows its way through a net.
FEW = {
    "occlusion": {"window": 0.5, "stride": 0.5},
    "smoothgrad": {"samples": 2},
    "integrated_gradients": {"steps": 2},
}
NEED_MAPS = ("grad_cam", "grad_cam_plus_plus", "cam", "guided_grad_cam")
QUICK = ("lenet5_1998", "vgg11_lrn", "squeezenet1_1", "resnet20_cifar", "mobilenet_v3_small")
NETS = [
    pytest.param(spec, id=spec.name, marks=[] if spec.name in QUICK else [pytest.mark.slow])
    for spec in list_models()
    if spec.kind == "picture" and "output" not in spec.exceptions
]


@pytest.fixture(scope="module")
def small():
    """name -> (subject, two pictures) of the reduced net at its least size; one at a time."""
    made = {}

    def make(spec):
        if spec.name not in made:
            made.clear()
            shape = (*spec.min_shape, spec.input_shape[-1])
            net = create_model(spec.name, num_classes=3, input_shape=shape, **spec.reduced)
            made[spec.name] = subject_of(net), colourful_noise(2, shape, 0)
        return made[spec.name]

    return make


def maps_of(subject, pictures, method):
    """The maps; None by CAM for nets that do not classify the averages of their maps linearly."""
    try:
        return explain(subject, pictures, method=method, target=1, **FEW.get(method, {})).maps
    except UsageError as error:
        if method == "cam" and "does not classify the averages" in str(error):
            return None
        raise


@pytest.mark.parametrize("spec", NETS)
def test_every_map_has_the_pictures_size_and_is_a_number_everywhere(small, spec):
    subject, pictures = small(spec)
    for method in METHODS:
        if method in NEED_MAPS and not spec.cam_layer:
            with pytest.raises(UsageError, match="has no maps"):
                explain(subject, pictures, method=method)
            continue
        maps = maps_of(subject, pictures, method)
        if maps is not None:
            assert maps.shape == pictures.shape[:3], method
            assert np.isfinite(maps).all(), method


def lacking(subject, view) -> str:
    """What the net of a spec lacks that a view needs, in the words of its error; "" for nothing."""
    spec = subject.spec
    needs_maps = view in ("activations", "invert", "patches")
    if (needs_maps or (view == "codes" and not spec.features)) and not spec.cam_layer:
        return "has no maps"
    if view == "filters" and not spec.first_conv:
        return "has no convolution"
    if view == "style" and not spec.pyramid:
        return "has no stages"
    if view == "dead" and not activity(
        subject, np.zeros((1, *subject.preprocess.shape), "float32")
    ):
        return "has no rectified layers"
    if view == "paths" and not residual_blocks(subject):
        return "has no residual blocks"
    return ""


@pytest.mark.parametrize("spec", NETS)
def test_every_view_draws_it(small, spec):
    subject, pictures = small(spec)
    one = pictures[:1]
    for method, images, target, options in (
        ("filters", [], None, {}),
        ("activations", one, None, {}),
        ("maximise", [], [0], {"steps": 2}),
        ("invert", one, None, {"steps": 2}),
        ("fgsm", one, None, {}),
        ("pgd", one, None, {"steps": 2}),
        ("minimal", one, [1], {"tries": 1, "iterations": 2}),
        ("style", one, None, {"steps": 2, "like": pictures[1]}),
        ("robustness", pictures, [0, 1], {}),
        ("dead", pictures, [0, 1], {}),
        ("codes", pictures, [0, 1], {"plane": "pca"}),
        ("patches", pictures, [0, 1], {}),
        ("landscape", one, [0], {"points": 2}),
        ("paths", one, [0], {}),
    ):
        lacks = lacking(subject, method)
        if lacks:
            with pytest.raises(UsageError, match=lacks):
                list(draw(subject, images, method, target, **options))
            continue
        ((_, drawing),) = draw(subject, images, method, target, **options)
        assert (drawing.pixels.dtype, drawing.pixels.ndim) == (np.uint8, 3), method
