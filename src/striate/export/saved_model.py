"""SavedModel: what TensorFlow Serving serves, with the signatures of the contract.

    serving_default   image uint8 [N, H, W, C]      -> scores
    bytes             image_bytes string [N]        -> scores, classes
    classify          inputs: tf.Example string [N] -> classes, scores      (Classify RPC)
    features          image uint8 [N, H, W, C]      -> features             (where the net has them)
    explain           image uint8 [N, H, W, C]      -> scores, heat_map     (where the net has maps)

A plain TensorFlow Serving decodes `bytes` and `classify` in the graph (`striate.export.decode`);
striate's own server decodes on the host, with the same result. A net of voxels, clips or vectors
has neither: nothing encodes those but the tensor.
"""

import shutil
import tempfile
from pathlib import Path

from striate.artifact import Artifact
from striate.export.decode import pixels_function
from striate.export.graph import image_spec, save, scores_function
from striate.export.heat import explain_function
from striate.preprocess import Preprocess

EXAMPLE_FEATURE = "image/encoded"
WARMUP = "assets.extra/tf_serving_warmup_requests"


def write(artifact: Artifact, directory: Path) -> None:
    """Write the SavedModel and its warm-up requests into `directory`."""
    with tempfile.TemporaryDirectory() as whole:
        save(artifact, _signatures(artifact), whole)
        for name in ("saved_model.pb", "fingerprint.pb", "variables"):
            shutil.move(Path(whole) / name, directory / name)
    _write_warmup(artifact, directory / WARMUP)


def _signatures(artifact: Artifact) -> dict:
    scores = scores_function(artifact)
    features = _features_function(artifact)
    found = {"serving_default": scores} | ({"features": features} if features else {})
    if artifact.places is not None and artifact.places.explains:
        found["explain"] = explain_function(artifact)
    return {**found, **_signatures_of_bytes(artifact, scores)}


def _signatures_of_bytes(artifact: Artifact, scores) -> dict:
    """The signatures that take encoded pictures; none where the net takes something else."""
    import tensorflow as tf

    spec = artifact.preprocess
    if not isinstance(spec, Preprocess):
        return {}
    to_pixels = pixels_function(spec)
    labels = tf.constant(artifact.labels)

    def answer(encoded):
        found = scores(to_pixels(encoded))["scores"]
        classes = tf.tile(labels[tf.newaxis], [tf.shape(found)[0], 1])
        return {"scores": found, "classes": classes}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def from_bytes(image_bytes):
        return answer(image_bytes)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def classify(inputs):
        feature = {EXAMPLE_FEATURE: tf.io.FixedLenFeature([], tf.string)}
        return answer(tf.io.parse_example(inputs, feature)[EXAMPLE_FEATURE])

    return {"bytes": from_bytes, "classify": classify}


def _features_function(artifact: Artifact):
    """image -> the pooled vector before the head; None for a net without that layer."""
    import keras
    import tensorflow as tf

    net = artifact.model
    if "features" not in {layer.name for layer in net.layers}:
        return None
    body = keras.Model(net.input, net.get_layer("features").output)
    normalise = artifact.preprocess.layer()

    @tf.function(input_signature=[image_spec(artifact)])
    def features(image):
        return {"features": body(normalise(image), training=False)}

    return features


def _write_warmup(artifact: Artifact, path: Path) -> None:
    """One Predict request on a golden picture, so that the first user does not pay for tracing."""
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    images, _ = artifact.goldens()
    log = prediction_log_pb2.PredictionLog()
    request = log.predict_log.request
    request.model_spec.name = artifact.name
    request.model_spec.signature_name = "serving_default"
    request.inputs["image"].CopyFrom(tf.make_tensor_proto(images[:1]))
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(log.SerializeToString())
