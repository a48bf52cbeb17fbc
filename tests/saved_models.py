"""SavedModels that striate did not write, as TensorFlow Serving's own tests use them.

    python tests/saved_models.py DIRECTORY

writes models with one version each, 00000123:

    half_plus_two     y = x / 2 + 2, with every kind of signature, by TensorFlow 1's builder
    half_plus_three   y = x / 2 + 3, by TensorFlow 2
    odd               signatures whose outputs are not what Classify and Regress want, and a default
    conv              a picture net that ends TensorFlow's process for a picture without its batch
"""

import sys
from pathlib import Path

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

v1 = tf.compat.v1
VERSION = "00000123"
PREDICT = "tensorflow/serving/predict"
CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"


def signature(inputs, outputs, method):
    info = v1.saved_model.utils.build_tensor_info
    return v1.saved_model.build_signature_def(
        {name: info(tensor) for name, tensor in inputs.items()},
        {name: info(tensor) for name, tensor in outputs.items()},
        method,
    )


def save(directory: Path, session, signatures) -> None:
    builder = v1.saved_model.Builder(str(directory))
    builder.add_meta_graph_and_variables(session, ["serve"], signature_def_map=signatures)
    builder.save()


def half_plus_two(directory: Path) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        a = v1.get_variable("a", initializer=0.5)
        b = v1.get_variable("b", initializer=2.0)
        c = v1.get_variable("c", initializer=3.0)
        examples = v1.placeholder(tf.string, [None], name="tf_example")
        features = {
            "x": tf.io.FixedLenFeature([1], tf.float32),
            "x2": tf.io.FixedLenFeature([1], tf.float32, default_value=[0.0]),
        }
        parsed = tf.io.parse_example(examples, features)
        x = tf.identity(parsed["x"], name="x")
        y = tf.add(a * x, b, name="y")
        y2 = tf.add(a * x, c, name="y2")
        y3 = tf.add(a * parsed["x2"], c, name="y3")
        session.run(v1.global_variables_initializer())
        regress, classify = {"inputs": examples}, {"inputs": examples}
        save(
            directory,
            session,
            {
                "serving_default": signature({"x": x}, {"y": y}, PREDICT),
                "regress_x_to_y": signature(regress, {"outputs": y}, REGRESS),
                "regress_x_to_y2": signature(regress, {"outputs": y2}, REGRESS),
                "regress_x2_to_y3": signature(regress, {"outputs": y3}, REGRESS),
                "classify_x_to_y": signature(classify, {"scores": y}, CLASSIFY),
                "classify_x2_to_y3": signature({"inputs": x}, {"scores": y3}, CLASSIFY),
            },
        )


def half_plus_three(directory: Path) -> None:
    class HalfPlusThree(tf.Module):
        def __init__(self):
            super().__init__()
            self.three = tf.Variable(3.0)

        @tf.function(input_signature=[tf.TensorSpec(None, tf.float32, name="x")])
        def call(self, x):
            return {"y": x * 0.5 + self.three}

    module = HalfPlusThree()
    tf.saved_model.save(module, str(directory), signatures={"serving_default": module.call})


def odd(directory: Path) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        examples = v1.placeholder(tf.string, [None], name="examples")
        x = v1.placeholder(tf.float32, None, name="x")
        z = v1.placeholder(tf.float32, None, name="z")
        n = tf.shape(examples)[0]
        floats = tf.ones([n, 2])
        words = tf.fill([n, 2], "word")
        ask = {"inputs": examples}
        save(
            directory,
            session,
            {
                "both": signature(ask, {"classes": words, "scores": floats}, CLASSIFY),
                "only_classes": signature(ask, {"classes": words}, PREDICT),
                "number_classes": signature(ask, {"classes": floats}, CLASSIFY),
                "whole_scores": signature(ask, {"scores": tf.cast(floats, tf.int32)}, CLASSIFY),
                "flat_scores": signature(ask, {"scores": floats[:, 0]}, CLASSIFY),
                "more_scores": signature(ask, {"scores": tf.ones([7, 2])}, CLASSIFY),
                "uneven": signature(ask, {"classes": words[:, :1], "scores": floats}, CLASSIFY),
                "wide_values": signature(ask, {"outputs": floats}, REGRESS),
                "more_values": signature(ask, {"outputs": tf.ones([7])}, REGRESS),
                "whole_values": signature(ask, {"outputs": tf.ones([n], tf.int32)}, REGRESS),
                "scalar": signature({"x": x}, {"y": tf.reduce_sum(x)}, PREDICT),
                "uneven_rows": signature({"x": x}, {"a": tf.identity(x), "b": x[:1]}, PREDICT),
                "words": signature(ask, {"text": words, "text_bytes": words}, PREDICT),
                "add": signature({"x": x, "z": z}, {"sum": x + z}, PREDICT),
                "add_default": signature({"x": x, "z": z}, {"sum": x + z}, PREDICT),
                "matrix": signature({"x": x}, {"y": tf.matmul(x, tf.ones([3, 4]))}, PREDICT),
            },
        )
    path = directory / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    definition = saved.meta_graphs[0].signature_def["add_default"]
    definition.defaults["z"].CopyFrom(tf.make_tensor_proto(10.0))
    path.write_bytes(saved.SerializeToString())


def conv(directory: Path) -> None:
    kernel = tf.Variable(tf.ones([3, 3, 3, 2]))
    module = tf.Module()
    module.kernel = kernel

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32, name="image")])
    def call(image):
        return {"map": tf.nn.conv2d(image, kernel, 1, "SAME")}

    @tf.function(input_signature=[tf.TensorSpec(None, tf.float32, name="image")])
    def unsaid(image):
        return {"map": tf.nn.conv2d(image, kernel, 1, "SAME")}

    signatures = {"serving_default": call, "unsaid": unsaid}
    tf.saved_model.save(module, str(directory), signatures=signatures)


if __name__ == "__main__":
    for make in (half_plus_two, half_plus_three, odd, conv):
        make(Path(sys.argv[1]) / make.__name__ / VERSION)
