"""One binary convolution against the same convolution in floats, both on one core, one thread.

    make -C native && python benchmarks/binary_conv.py [--kernels avx512] [--rounds 40] [--json]
    python benchmarks/binary_conv.py --threads 2       # several threads against one, by the clock

Ours takes float32 maps and gives float32 maps, packing included; the peer is the fastest fp32
convolution of the same shape out of ONNX Runtime, OpenVINO and LiteRT, as far as they are installed
(LiteRT needs TensorFlow to write its file). Every side is bound to its arrays beforehand. In every
round each side runs for about three milliseconds, after one that does not count, in an order drawn
anew; a ratio is of the medians, its spread the quartiles of the rounds' own ratios, and beside it
the ratio of the fastest rounds. Times are of the process's processor, so that other programs on the
machine count for no side. NCHW for ONNX Runtime and OpenVINO, NHWC for the others, as each likes
it; the sums are checked to be equal.
"""

import argparse
import json
import os
import platform
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from striate.runtime.binary import BinaryConvolution, empty, kernels

# Side of the map, channels, filters, side of the kernel.
LAYERS = [
    (56, 64, 64, 3),
    (28, 128, 128, 3),
    (14, 256, 256, 3),
    (7, 512, 512, 3),
    (14, 256, 256, 1),
    (28, 256, 256, 3),
]


def onnx_convolution(weights: np.ndarray, side: int) -> bytes:
    """A model of the convolution of a map [1, c, side, side]."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    kernel, _, channels, filters = weights.shape
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[kernel // 2] * 4)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, channels, side, side])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, filters, side, side])
    w = numpy_helper.from_array(np.ascontiguousarray(weights.transpose(3, 2, 0, 1)), "w")
    graph = helper.make_graph([node], "conv", [x], [y], [w])
    opset = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


# === Peers: what computes a map [1, side, side, c], and its answer as [1, side, side, filters] ===


def onnxruntime_peer(weights: np.ndarray, maps: np.ndarray):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(onnx_convolution(weights, maps.shape[1]), options)
    y = np.empty((1, weights.shape[-1], *maps.shape[1:3]), np.float32)
    binding = session.io_binding()
    binding.bind_cpu_input("x", np.ascontiguousarray(maps.transpose(0, 3, 1, 2)))
    binding.bind_output("y", "cpu", 0, np.float32, y.shape, y.ctypes.data)

    def run() -> np.ndarray:
        session.run_with_iobinding(binding)
        return y

    return run, lambda y: y.transpose(0, 2, 3, 1)


def openvino_peer(weights: np.ndarray, maps: np.ndarray):
    import openvino

    core = openvino.Core()
    model = core.read_model(onnx_convolution(weights, maps.shape[1]))
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    x = np.ascontiguousarray(maps.transpose(0, 3, 1, 2))
    request.set_input_tensor(openvino.Tensor(x))
    result = request.get_output_tensor()

    def run() -> np.ndarray:
        request.infer()
        return result.data

    return run, lambda y: y.transpose(0, 2, 3, 1)


def litert_peer(weights: np.ndarray, maps: np.ndarray):
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    function = tf.function(lambda x: tf.nn.conv2d(x, weights, 1, "SAME"))
    concrete = function.get_concrete_function(tf.TensorSpec(maps.shape, tf.float32))
    content = tf.lite.TFLiteConverter.from_concrete_functions([concrete], function).convert()
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    target = interpreter.get_output_details()[0]["index"]
    interpreter.set_tensor(source, maps)

    def run() -> np.ndarray:
        interpreter.invoke()
        return interpreter.tensor(target)()

    return run, lambda y: np.array(y)


PEERS = {
    "onnxruntime fp32": onnxruntime_peer,
    "openvino fp32": openvino_peer,
    "litert fp32": litert_peer,
}


ONE = "one thread"


def installed_peers(weights: np.ndarray, maps: np.ndarray) -> dict:
    found = {}
    for name, make in PEERS.items():
        try:
            found[name] = make(weights, maps)
        except ModuleNotFoundError as missing:
            print(f"{name} is left out: no {missing.name} here", file=sys.stderr)
    return found


def seconds(call, repeats: int, clock=time.process_time) -> float:
    """Of one call, on average over so many, after a third as many that are not counted.

    Those fetch what the side before has driven out of the caches, and let the processor find the
    frequency that this one's instructions allow.
    """
    for _ in range(repeats // 3 + 1):
        call()
    start = clock()
    for _ in range(repeats):
        call()
    return (clock() - start) / repeats


def turn_of(call) -> int:
    """How many calls take about three milliseconds."""
    return max(1, int(3e-3 / min(seconds(call, 3) for _ in range(5))))


def operands(layer: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray, dict]:
    """Weights of +1 and -1, a map, and what comes after the sums."""
    side, channels, filters, kernel = layer
    rng = np.random.default_rng(0)
    weights = np.where(rng.standard_normal((kernel, kernel, channels, filters)) >= 0, 1, -1)
    x = empty((1, side, side, channels), np.float32)
    x[:] = rng.standard_normal(x.shape)
    alpha, beta = rng.standard_normal((2, filters)).astype(np.float32)
    return weights.astype(np.float32), x, {"pad": kernel // 2, "alpha": alpha, "beta": beta}


def case_of(layer: tuple[int, int, int, int]) -> str:
    side, channels, filters, kernel = layer
    return f"{side}x{side}x{channels}->{filters}, {kernel}x{kernel}"


def measure(layer: tuple[int, int, int, int], names: list[str], rounds: int) -> list[dict]:
    """One row a kernel: microseconds of both sides, and the ratio with its quartiles."""
    weights, x, options = operands(layer)
    convs = {name: BinaryConvolution(weights, x.shape[1:], name=name, **options) for name in names}
    maps = np.where(x >= 0, np.float32(1), np.float32(-1))
    peers = installed_peers(weights, maps)
    for peer, (run, as_ours) in peers.items():
        expected = as_ours(run())
        for name, conv in convs.items():
            assert np.array_equal(conv.dots(x), expected), f"{name} differs from {peer}"
    out = empty((*x.shape[:3], weights.shape[-1]), np.float32)
    calls = {name: conv.bind(x, out) for name, conv in convs.items()}
    calls.update({peer: run for peer, (run, _) in peers.items()})
    times: dict[str, list[float]] = {name: [] for name in calls}
    turns = {name: turn_of(call) for name, call in calls.items()}
    order = np.random.default_rng(0)
    for _ in range(rounds):
        for name in order.permutation(list(calls)):
            times[name].append(seconds(calls[name], turns[name]))
    case = case_of(layer)
    fastest = min(peers, key=lambda peer: np.median(times[peer]), default=None)
    return [row(case, name, fastest, times) for name in names]


def with_threads(
    layer: tuple[int, int, int, int], names: list[str], rounds: int, threads: int
) -> list[dict]:
    """One row a kernel: several threads beside one, by the clock on the wall."""
    weights, x, options = operands(layer)
    out = empty((*x.shape[:3], weights.shape[-1]), np.float32)
    found = []
    for name in names:
        one, many = (
            BinaryConvolution(weights, x.shape[1:], name=name, threads=n, **options)
            for n in (1, threads)
        )
        calls = {name: many.bind(x, out), ONE: one.bind(x, out)}
        turn = turn_of(calls[ONE])
        times: dict[str, list[float]] = {side: [] for side in calls}
        for _ in range(rounds):
            for side, call in calls.items():
                times[side].append(seconds(call, turn, time.perf_counter))
        found.append(row(f"{case_of(layer)}, {threads} threads", name, ONE, times))
    return found


def row(case: str, name: str, peer: str | None, times: dict[str, list[float]]) -> dict:
    ours = float(np.median(times[name]))
    found = {"case": f"{case}, {name}", "unit": "us", "ours": round(1e6 * ours, 1)}
    if peer is None:
        return {**found, "peer_name": None, "peer": None, "ratio": None}
    ratios = np.array(times[peer]) / np.array(times[name])
    medians = {p: round(1e6 * float(np.median(times[p])), 1) for p in (*PEERS, ONE) if p in times}
    return {
        **found,
        "peer_name": peer,
        "peer": medians[peer],
        "ratio": round(float(np.median(times[peer])) / ours, 2),
        "quartiles": [round(float(q), 2) for q in np.percentile(ratios, [25, 75])],
        "ratio_of_fastest": round(min(times[peer]) / min(times[name]), 2),
        "peers": medians,
    }


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kernels", nargs="+", default=[k for k in kernels() if k != "numpy"])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, help="so many beside one, in place of the peers")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    given = options.kernels, options.rounds
    if options.threads:
        rows = [r for layer in LAYERS for r in with_threads(layer, *given, options.threads)]
    else:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        rows = [r for layer in LAYERS for r in measure(layer, *given)]
    if options.json:
        print(json.dumps(rows, indent=2))
        return 0
    cores = f"{options.threads} threads" if options.threads else "one core"
    print(f"{platform.processor() or platform.machine()}, {cores}, {options.rounds} rounds")
    print(
        f"{'layer and kernel':36} {'ours us':>9} {'peer us':>9} {'ratio':>7}  quartiles   fastest"
    )
    for r in rows:
        if r["ratio"] is None:
            print(f"{r['case']:36} {r['ours']:9.1f}  (no peer is installed)")
            continue
        low, high = r["quartiles"]
        print(
            f"{r['case']:36} {r['ours']:9.1f} {r['peer']:9.1f} {r['ratio']:6.1f}x "
            f"{low:5.1f}-{high:<5.1f} {r['ratio_of_fastest']:6.1f}x  {r['peer_name']}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
