"""The arithmetic of convolutional nets: sizes, parameters, work, memory, what a unit sees.

Plain numbers in and out, without Keras; `striate.costs` applies it to whole nets.

Work is counted in multiply-adds (MACs) of convolutions and dense layers, one for each weight and
place where it is used. Biases, normalisation, activations, pooling and additions are left out.
Many papers say "FLOPs" for this number; others mean twice as many.
"""

from collections.abc import Iterable
from math import prod

from striate.errors import UsageError

FLOAT = 4  # bytes of a float32

Sides = int | tuple[int, ...]  # of a square kernel or map, or one for each of its sides


# === Sizes ===


def conv_output_size(
    size: int, kernel: int, stride: int = 1, pad: int = 0, dilation: int = 1, strict: bool = True
) -> int:
    """Side of the map that a convolution or pooling makes: (size - kernel + 2 pad) / stride + 1.

    pad: on both sides. dilation: distance between the taps of the kernel. strict: a last step that
    does not fit is a `UsageError`; otherwise it is dropped, as the frameworks do.

    >>> conv_output_size(32, kernel=5), conv_output_size(32, kernel=5, pad=2)
    (28, 32)
    >>> conv_output_size(32, kernel=5, stride=2, strict=False)
    14
    """
    _check(size=size, kernel=kernel, stride=stride, dilation=dilation)
    _check(0, pad=pad)
    span = (kernel - 1) * dilation + 1
    room = size + 2 * pad - span
    if room < 0:
        raise UsageError(
            f"a kernel that spans {span} does not fit into {size} + 2 x {pad}: "
            "expected a smaller kernel or more padding"
        )
    if strict and room % stride:
        raise UsageError(
            f"(size {size} - {span} + 2 x pad {pad}) / stride {stride} + 1 is no whole number: "
            "the kernel does not tile the input. Change the stride or the padding, or pass "
            "strict=False to drop the last step."
        )
    return room // stride + 1


def transposed_conv_output_size(size: int, kernel: int, stride: int = 1, pad: int = 0) -> int:
    """Side of the map that a transposed convolution makes: (size - 1) stride + kernel - 2 pad.

    It undoes `conv_output_size` of the same kernel, stride and padding.
    """
    _check(size=size, kernel=kernel, stride=stride)
    _check(0, pad=pad)
    made = (size - 1) * stride + kernel - 2 * pad
    if made < 1:
        raise UsageError(f"a padding of {pad} leaves nothing of {made + 2 * pad}: expected less")
    return made


def same_padding(kernel: int, dilation: int = 1) -> int:
    """The padding on both sides that keeps the size at stride 1: (kernel - 1) dilation / 2."""
    _check(kernel=kernel, dilation=dilation)
    if (kernel - 1) * dilation % 2:
        raise UsageError(f"expected an odd kernel, since {kernel} has no middle to pad around")
    return (kernel - 1) * dilation // 2


# === Parameters and work ===


def conv_parameters(
    kernel: Sides, inputs: int, filters: int, *, groups: int = 1, bias: bool = True
) -> int:
    """Weights of a convolution, kernel x kernel x inputs / groups x filters, and its biases.

    kernel: one side of a square, or all sides. A depthwise convolution has as many groups as
    inputs. Pooling has no parameters.

    >>> conv_parameters(5, inputs=3, filters=6), conv_parameters(5, inputs=3, filters=6, bias=False)
    (456, 450)
    """
    _check(inputs=inputs, filters=filters, groups=groups)
    if inputs % groups or filters % groups:
        raise UsageError(
            f"expected inputs and filters that divide into {groups} groups, "
            f"got {inputs} and {filters}"
        )
    return _area(kernel) * (inputs // groups) * filters + filters * bias


def dense_parameters(inputs: int, units: int, *, bias: bool = True) -> int:
    """Weights of a dense layer, inputs x units, and its biases."""
    _check(inputs=inputs, units=units)
    return inputs * units + units * bias


def conv_macs(kernel: Sides, inputs: int, filters: int, output: Sides, *, groups: int = 1) -> int:
    """Multiply-adds of a convolution: its weights, once for every place of the output map.

    output: one side of a square map, or all its sides.
    """
    weights = conv_parameters(kernel, inputs, filters, groups=groups, bias=False)
    return weights * _area(output)


def dense_macs(inputs: int, units: int) -> int:
    """Multiply-adds of a dense layer: one for each weight."""
    return dense_parameters(inputs, units, bias=False)


# === What a unit sees ===


def widen(size: int, jump: int, kernel: int, stride: int = 1, dilation: int = 1) -> tuple[int, int]:
    """The receptive field (size, jump) after one more window; both in pixels of the input.

    jump: how far apart in the input two neighbours of the map look.
    """
    return size + (kernel - 1) * dilation * jump, jump * stride


def receptive_field(windows: Iterable[tuple[int, int, int]]) -> int:
    """Side of the square of input pixels that one output of a stack of windows can see.

    windows: (kernel, stride, dilation) of each convolution or pooling, the first one first.

    >>> receptive_field([(3, 1, 1), (3, 1, 2), (3, 1, 4)])
    15
    """
    size = jump = 1
    for kernel, stride, dilation in windows:
        _check(kernel=kernel, stride=stride, dilation=dilation)
        size, jump = widen(size, jump, kernel, stride, dilation)
    return size


# === Memory ===


def inference_memory(parameters: int, live: int, batch: int = 1) -> int:
    """Bytes to answer a batch: the parameters, and the numbers that must be held at one time.

    parameters: with the statistics of batch normalisation. live: the most numbers of one picture
    that are still needed at any moment; in a chain those of a layer and of the one before it.
    """
    return FLOAT * (parameters + batch * live)


def training_memory(
    parameters: int, activations: int, batch: int = 1, *, trainable: int | None = None
) -> int:
    """Bytes for one step of SGD with momentum on a batch.

    parameters: their values, and for the `trainable` ones (by default all) the gradients and the
    momentum. activations: the numbers of one picture that the layers keep for the backward pass.
    """
    trainable = parameters if trainable is None else trainable
    return FLOAT * (parameters + 2 * trainable + batch * activations)


# === Trades at equal work ===


def equal_work_width(
    depth: int, kernel: int, width: int, *, new_depth: int | None = None, new_kernel=None
) -> float:
    """Width at which a stack of convolutions costs the same after its depth or kernel changed.

    A stack of `depth` layers with `width` maps each does depth x kernel^2 x width^2 multiply-adds
    a place. Source: He, Sun, "Convolutional Neural Networks at Constrained Time Cost", 2015,
    arXiv:1412.1710, which finds that depth is worth more than width or kernel size.
    """
    before = depth * kernel**2
    after = (new_depth or depth) * (new_kernel or kernel) ** 2
    return width * (before / after) ** 0.5


def equal_work_depth(
    depth: int, kernel: int, width: int, *, new_kernel: int | None = None, new_width=None
) -> float:
    """Depth at which the stack of `equal_work_width` costs the same with other kernels or width."""
    before = (kernel * width) ** 2
    after = ((new_kernel or kernel) * (new_width or width)) ** 2
    return depth * before / after


def _area(sides: Sides) -> int:
    sides = (sides, sides) if isinstance(sides, int) else sides
    for side in sides:
        _check(side=side)
    return prod(sides)


def _check(least: int = 1, **numbers: int) -> None:
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise UsageError(f"expected {name} as a whole number from {least} on, got {number!r}")
