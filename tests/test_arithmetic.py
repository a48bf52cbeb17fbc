"""The lectures' worked examples, one line a fact, and what else the calculators promise.

Where a lecture's own number is wrong, the line says what it printed: SOURCE ERROR.
"""

import doctest

import pytest

from striate import arithmetic
from striate.arithmetic import (
    conv_macs,
    conv_output_size,
    conv_parameters,
    dense_macs,
    dense_parameters,
    equal_work_depth,
    equal_work_width,
    inference_memory,
    receptive_field,
    same_padding,
    training_memory,
    transposed_conv_output_size,
)
from striate.errors import UsageError
from striate.registry import get_spec


def test_the_examples_of_the_docstrings_hold():
    assert doctest.testmod(arithmetic).failed == 0


# === Sizes ===


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pad", "side"),
    [
        (7, 3, 1, 0, 5),
        (7, 3, 2, 0, 3),
        (7, 3, 1, 1, 7),
        (32, 5, 1, 0, 28),  # 32 x 32 x 3 by six 5 x 5 filters: 28 x 28 x 6
        (28, 5, 1, 0, 24),  # and by ten more: 24 x 24 x 10
        (32, 5, 1, 2, 32),
        (32, 3, 1, 1, 32),
        (32, 1, 1, 0, 32),
        (32, 2, 2, 0, 16),  # a pool that keeps a quarter
        (227, 11, 4, 0, 55),  # AlexNet, from here on
        (55, 3, 2, 0, 27),
        (27, 5, 1, 2, 27),
        (27, 3, 2, 0, 13),
        (13, 3, 1, 1, 13),
        (13, 3, 2, 0, 6),
    ],
)
def test_side_of_a_map(size, kernel, stride, pad, side):
    assert conv_output_size(size, kernel, stride, pad) == side


def test_a_step_that_does_not_fit_is_refused():
    with pytest.raises(UsageError, match=r"7 - 3 .* / stride 3 .* does not tile the input"):
        conv_output_size(7, kernel=3, stride=3)


def test_one_lecture_refuses_what_the_other_rounds_down():
    with pytest.raises(UsageError, match="does not tile"):
        conv_output_size(32, kernel=5, stride=2)
    assert conv_output_size(32, kernel=5, stride=2, strict=False) == 14


def test_a_dilated_kernel_spans_more():
    assert conv_output_size(32, kernel=3, dilation=2) == conv_output_size(32, kernel=5)


def test_padding_that_keeps_the_size():
    assert [same_padding(kernel) for kernel in (1, 3, 5, 7)] == [0, 1, 2, 3]
    assert conv_output_size(32, 3, pad=same_padding(3, dilation=4), dilation=4) == 32
    with pytest.raises(UsageError, match="odd kernel"):
        same_padding(2)


def test_a_transposed_convolution_undoes_the_size_of_a_convolution():
    for size in range(1, 20):
        for kernel, stride, pad in ((1, 1, 0), (3, 1, 1), (4, 2, 1), (5, 3, 0), (64, 32, 0)):
            made = transposed_conv_output_size(size, kernel, stride, pad)
            assert conv_output_size(made, kernel, stride, pad) == size


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: conv_output_size(0, 3), "expected size as a whole number from 1 on, got 0"),
        (lambda: conv_output_size(7, 3, 1.5), "expected stride .* got 1.5"),
        (lambda: conv_output_size(7, 3, pad=-1), "expected pad .* from 0 on, got -1"),
        (lambda: conv_output_size(5, 7), "spans 7 does not fit into 5"),
        (lambda: transposed_conv_output_size(1, 2, 1, 1), "leaves nothing of 2"),
        (lambda: conv_parameters(3, 10, 8, groups=4), "divide into 4 groups, got 10 and 8"),
        (lambda: conv_macs(3, 3, 8, (7, 0)), "expected side"),
        (lambda: receptive_field([(3, 0, 1)]), "expected stride"),
    ],
)
def test_a_mistake_is_one_clear_line(call, message):
    with pytest.raises(UsageError, match=message):
        call()


# === Parameters and work ===


def conv(kernel, inputs, filters):
    return conv_parameters(kernel, inputs, filters, bias=False)


@pytest.mark.parametrize(
    ("counted", "stated"),
    [
        (conv(5, 3, 6), 450),
        (conv(5, 6, 16), 2_400),
        (conv_parameters(5, 3, 10), 760),  # with ten biases
        (dense_parameters(32 * 32 * 3, 10, bias=False), 30_720),
        (dense_parameters(3072, 50) + dense_parameters(50, 10), 154_160),
        (dense_parameters(1000 * 1000, 1000, bias=False), 10**9),
        (dense_parameters(1024 * 1024 * 3, 1, bias=False), 3_145_728),
        (dense_parameters(32 * 32 * 3, 1, bias=False), 3_072),
        (3 * conv(3, 100, 100), 27 * 100**2),  # three 3 x 3 see what one 7 x 7 does
        (conv(7, 100, 100), 49 * 100**2),
        (2 * conv(3, 64, 64), 73_728),  # the basic block of ResNet
        # SOURCE ERROR: the bottleneck's 73,728 are those of the block that enters the stage, with
        # its projection from 64 to 256 maps; the block that the figure shows has 69,632.
        (conv(1, 64, 64) + conv(3, 64, 64) + 2 * conv(1, 64, 256), 73_728),
        (conv(1, 256, 64) + conv(3, 64, 64) + conv(1, 64, 256), 69_632),
    ],
)
def test_parameters(counted, stated):
    assert counted == stated


def test_more_groups_have_fewer_weights():
    assert conv_parameters(5, 96, 256, groups=2, bias=False) * 2 == conv(5, 96, 256)


def test_an_inception_module_without_and_with_1x1_before():
    naive = sum(conv_macs(k, 256, n, 28) for k, n in ((1, 128), (3, 192), (5, 96)))
    assert naive == 854_196_224
    thin = 3 * conv_macs(1, 256, 64, 28) + conv_macs(1, 256, 128, 28)
    assert thin + conv_macs(3, 64, 192, 28) + conv_macs(5, 64, 96, 28) == 271_351_808


ALEXNET = (  # kernel, inputs, filters, groups, side of the map
    *((11, 3, 96, 1, 55), (5, 96, 256, 2, 27)),
    *((3, 256, 384, 1, 13), (3, 384, 384, 2, 13), (3, 384, 256, 2, 13)),
)


def test_alexnet_by_hand():
    dense = ((6 * 6 * 256, 4096), (4096, 4096), (4096, 1000))
    parameters = sum(conv_parameters(k, i, n, groups=g) for k, i, n, g, _ in ALEXNET)
    parameters += sum(dense_parameters(*layer) for layer in dense)
    assert parameters == get_spec("alexnet").trainable == 60_965_224  # "60 million"
    macs = sum(conv_macs(k, i, n, side, groups=g) for k, i, n, g, side in ALEXNET)
    macs += sum(dense_macs(*layer) for layer in dense)
    assert macs == get_spec("alexnet").costs.macs == 724_406_816
    neurons = sum(side**2 * n for *_, n, _, side in ALEXNET) + sum(n for _, n in dense)
    assert neurons == 659_272  # "650,000"


# Table 1 of MobileNet: filters of the pointwise convolution, stride of the depthwise one before.
# SOURCE ERROR: it gives the last depthwise convolution stride 2; then no 7 x 7 would be left for
# the average pool below it.
MOBILENET = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5)
MOBILENET = (*MOBILENET, (1024, 2), (1024, 1))


def test_mobilenet_by_hand():
    side, width = 112, 32
    weights = conv(3, 3, 32)
    macs = conv_macs(3, 3, 32, side)
    for filters, stride in MOBILENET:
        side //= stride
        weights += conv_parameters(3, width, width, groups=width, bias=False)
        macs += conv_macs(3, width, width, side, groups=width)
        weights += conv(1, width, filters)
        macs += conv_macs(1, width, filters, side)
        width = filters
    assert side == 7
    normalisation = 2 * (32 + 2 * sum(n for n, _ in MOBILENET) + 32 - 1024)
    spec = get_spec("mobilenet_v1_100")
    assert weights + normalisation + dense_parameters(1024, 1000) == spec.trainable == 4_231_976
    assert macs + dense_macs(1024, 1000) == spec.costs.macs == 568_740_352


def test_work_of_volumes_and_oblong_maps():
    assert conv_macs((3, 7, 7), 1, 1, (5, 54, 34)) == 3 * 7 * 7 * 5 * 54 * 34
    assert conv_macs((1, 7), 8, 8, 17) == 7 * 8 * 8 * 17 * 17


# === What a unit sees ===


@pytest.mark.parametrize(
    ("windows", "side"),
    [
        ([], 1),
        ([(3, 1, 1)], 3),
        ([(3, 1, 1)] * 2, 5),
        ([(3, 1, 1)] * 3, 7),
        ([(7, 1, 1)], 7),
        ([(3, 1, 1), (3, 1, 2)], 7),
        ([(3, 1, 1), (3, 1, 2), (3, 1, 4)], 15),
        ([(2, 2, 1), (3, 1, 1)], 6),
        # AlexNet's last pool: 195 of 227 pixels
        ([(11, 4, 1), (3, 2, 1), (5, 1, 1), (3, 2, 1), *[(3, 1, 1)] * 3, (3, 2, 1)], 195),
    ],
)
def test_receptive_field(windows, side):
    assert receptive_field(windows) == side


# === Memory ===


def test_memory_is_what_must_be_held():
    assert inference_memory(1000, live=50, batch=2) == 4 * (1000 + 2 * 50)
    # values, gradients, momentum; and what the layers made
    assert training_memory(1000, activations=400, batch=32) == 4 * (3 * 1000 + 32 * 400)
    assert training_memory(1000, 400, trainable=10) == 4 * (1000 + 2 * 10 + 400)


@pytest.mark.parametrize(
    ("name", "megabytes"),
    [
        # Of the table of dual path networks: what a file of all values takes, in units of 2^20
        ("resnet101", 170),
        ("resnet200", 247),
        ("dpn92", 145),
        ("dpn98", 236),
        ("dpn131", 304),
        ("polynet", 365),
    ],
)
def test_size_of_a_file_of_weights(name, megabytes):
    # Tables round up, and files hold names as well: within 1.
    assert abs(4 * get_spec(name).total / 2**20 - megabytes) < 1


# === Trades at equal work ===


def test_what_equal_work_buys():
    assert equal_work_depth(1, 7, 64, new_kernel=3) == pytest.approx(49 / 9)
    assert equal_work_depth(4, 3, 64, new_width=128) == 1
    assert equal_work_width(1, 7, 64, new_depth=3, new_kernel=3) == pytest.approx(
        64 * (49 / 27) ** 0.5
    )
    assert equal_work_width(4, 3, 64, new_depth=16) == 32


@pytest.mark.parametrize("new_depth", [2, 3, 8])
@pytest.mark.parametrize("new_kernel", [2, 3, 5])
def test_equal_work_is_equal(new_depth, new_kernel):
    def work(depth, kernel, width):
        return depth * kernel**2 * width**2

    width = equal_work_width(5, 3, 128, new_depth=new_depth, new_kernel=new_kernel)
    assert work(new_depth, new_kernel, width) == pytest.approx(work(5, 3, 128))
    depth = equal_work_depth(5, 3, 128, new_kernel=new_kernel, new_width=96)
    assert work(depth, new_kernel, 96) == pytest.approx(work(5, 3, 128))
