"""A net of another make as what training begins from.

`striate.adopt` makes an artifact of it; here the net in that artifact becomes a body, under a new
classifier in the place of its last dense layer. The registry does not know such nets, so that a
recipe names one by its artifact: `model.weights`.
"""

from typing import Any

from striate.adopt import PREFIX, classifier_in
from striate.artifact import Artifact
from striate.errors import UsageError, first_line
from striate.lazy import keras
from striate.pretrained import Pretrained, open_weights
from striate.registry import ModelSpec, deep_graphs

HEAD = "logits"


def is_adopted(name: str) -> bool:
    """Whether a net of this name is of another make."""
    return name.startswith(PREFIX)


def spec_of(made: Artifact) -> ModelSpec:
    """What training asks of the net in an adopted artifact; Keras is not loaded for it.

    Raises `UsageError` for one whose classifier is not a dense layer on a vector.
    """
    name, places = made.manifest.model["name"], made.places
    if places is None or not places.features:
        raise UsageError(
            f"{made.path}: expected a net that ends in a dense layer on the vector of another one, "
            f"whose place a new classifier can take; {name} ends otherwise"
        )

    def builder(inputs: Any, *, num_classes: int) -> Any:
        features = _body(made, places.features, inputs)
        return keras.layers.Dense(num_classes, dtype="float32", name=HEAD)(features)

    return ModelSpec(
        name=name,
        family="adopted",
        year=int(made.manifest.created[:4]),
        paper="",
        title="",
        input_shape=made.preprocess.shape,
        classes=len(made.labels),
        trainable=0,  # not counted, as nothing is published
        total=0,
        min_size=1,
        first_conv=places.first_conv,
        cam_layer=places.cam_layer,
        pyramid=tuple(places.pyramid),
        preprocess="raw",
        builder=builder,
        config={},
        head=HEAD,
        features=places.features,
    )


def weights_of(made: Artifact) -> Pretrained:
    """Its weights, of which the last dense layer is the classifier."""
    opened = open_weights(made.file("model.keras"), head=HEAD, layouts=(), config={}, options={})
    opened.names = {HEAD: classifier_in(made.model).name}
    return opened


def _body(made: Artifact, features: str, inputs: Any) -> Any:
    """The net on new inputs up to a layer, in the precision that Keras computes in now."""
    whole = made.model
    body = keras.Model(whole.inputs[0], whole.get_layer(features).output)
    try:
        with deep_graphs():
            return keras.models.clone_model(body, inputs, _as_now).outputs[0]
    except (ValueError, TypeError, UsageError) as error:  # layers that are for one size
        raise UsageError(
            f"{made.path}: expected pictures of {list(made.preprocess.shape)}, which the net was "
            f"made for, got {list(inputs.shape[1:])} ({first_line(error)})"
        ) from error


def _as_now(layer: Any) -> Any:
    config = layer.get_config()
    if isinstance(layer, keras.layers.Layer):  # and no operation of keras.ops
        config["dtype"] = keras.config.dtype_policy()
    return type(layer).from_config(config)
