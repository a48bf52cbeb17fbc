"""The signature `explain`: the scores, and where in the picture the best of them comes from.

Grad-CAM (see `striate.explain.grad_cam`) written as a graph, so that any TensorFlow Serving answers
it: the gradient reaches back only to the last maps, and costs a fraction of the answer itself.
"""

from striate.artifact import Artifact
from striate.explain.subject import subject_of
from striate.export.graph import image_spec


def explain_function(artifact: Artifact):
    """image -> scores float [N, K], heat_map float [N, H, W] of the best class."""
    import tensorflow as tf

    subject = subject_of(artifact)
    layer, size = subject.cam_layer(), artifact.preprocess.shape[:2]
    temperature = artifact.manifest.temperature

    @tf.function(input_signature=[image_spec(artifact)])
    def explain(image):
        maps, beside = subject.at(layer, image), subject.beside(layer, image)
        with tf.GradientTape() as tape:
            tape.watch(maps)
            logits = subject.beyond(layer, maps, beside)
            best = tf.reduce_max(logits, axis=-1)
        alpha = tf.reduce_mean(tape.gradient(best, maps), axis=(1, 2), keepdims=True)
        heat = tf.nn.relu(tf.reduce_sum(alpha * maps, axis=-1))
        return {
            "scores": tf.nn.softmax(logits / temperature),
            "heat_map": tf.image.resize(heat[..., tf.newaxis], size)[..., 0],
        }

    return explain
