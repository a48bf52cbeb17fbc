"""Pictures of nets: what stands in the boxes, and that they can be drawn."""

import keras
import numpy as np
import pytest
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from PIL import Image

from striate.diagram import boxes, draw
from striate.diagram.boxes import TIMES
from striate.diagram.picture import _facts, _laid, _title
from striate.errors import UsageError
from striate.registry import create_model, get_spec, without_values


def boxes_of(name, **options):
    with without_values():
        return {box.name: box for box in boxes(create_model(name, **options))}


def steps_of(box):
    return [(step.label.replace(TIMES, "x"), step.sources) for step in box.steps]


def test_a_chain_is_a_box_a_block():
    found = boxes_of("vgg16")
    assert list(found)[:5] == [
        *("input", "stage1_block1", "stage1_block2", "stage1_pool", "stage2_block1")
    ]
    assert steps_of(found["stage5_block3"]) == [("3x3, 512", (-1,))]
    assert found["stage5_block3"].outputs[0] == (14, 14, 512)
    assert found["stage5_block3"].quiet == ("ReLU",)
    assert found["stage5_pool"].outputs[0] == (7, 7, 512)
    assert found["fc1"].row == found["logits"].row == "head"


def test_paths_inside_a_block_are_told_in_the_order_of_the_paper():
    block = boxes_of("googlenet")["stage1_block1"]
    assert steps_of(block) == [
        ("1x1, 64", (-1,)),
        ("1x1, 96", (-1,)),
        ("3x3, 128", (1,)),
        ("1x1, 16", (-1,)),
        ("5x5, 32", (3,)),
        ("max 3x3", (-1,)),
        ("1x1, 32", (5,)),
        ("concat", (0, 2, 4, 6)),
    ]


def test_a_shortcut_is_a_way_past_the_steps():
    found = boxes_of("resnet50")
    assert steps_of(found["stage2_block2"]) == [
        ("1x1, 128", (-1,)),
        ("3x3, 128", (0,)),
        ("1x1, 512", (1,)),
        ("+", (-1, 2)),
    ]
    assert ("1x1/2, 512", (-1,)) in steps_of(found["stage2_block1"])
    assert len(found) == 1 + 1 + 16 + 2  # input, stem, blocks, head


def test_many_equal_blocks_are_one():
    found = boxes_of("densenet121")
    stage = found["stage3_block1"]
    assert (stage.count, stage.last_name) == (24, "stage3_block24")
    assert stage.outputs == ((14, 14, 288), (14, 14, 1024))
    assert boxes_of("resnet1202_cifar", depths=(20, 20, 20))["stage1_block1"].count == 20


def test_boxes_say_where_else_they_read():
    found = boxes_of("fractalnet21_cifar")
    assert found["stage1_block4"].reads == ("stage1_block3", "stage1_block2", "input")
    assert found["stage1_block4"].back == (1, 2, 4)
    assert found["stage1_block3"].back == (1,)


def test_too_many_paths_to_draw_are_summed_up():
    block = boxes_of("enas_macro_cifar")["stage1_block8"]
    assert {step.sources for step in block.steps} == {()}
    assert sum(step.times for step in block.steps if step.kind == "pool") == 18


@pytest.mark.parametrize(
    "name",
    ["mlp_two_layer", "cnn3d_ji", "se_resnet50", "polynet", "fcn8s_vgg16", "nasnet_a_mobile"],
)
def test_boxes_hold_all_parameters_and_read_what_comes_before(name):
    with without_values():
        found = boxes(create_model(name))
    assert sum(box.parameters for box in found) == get_spec(name).trainable
    names = [box.name for box in found]
    assert len(set(names)) == len(names)
    for box in found:
        assert all(distance > 0 for distance in box.back)
        assert all(-1 <= source < i for i, step in enumerate(box.steps) for source in step.sources)


def test_a_net_of_another_make_can_be_drawn(tmp_path):
    x = inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(8, 3, activation="relu")(x)
    x = keras.layers.Add()([x, keras.layers.Conv2D(8, 1)(x)])
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    draw(model, tmp_path / "net.png", tmp_path / "net.pdf")
    assert (tmp_path / "net.pdf").read_bytes().startswith(b"%PDF")


def test_a_chain_of_layers_can_be_drawn_as_sequential_and_as_functions(tmp_path):
    chain = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Conv2D(8, 3)])
    x = inputs = keras.Input((16, 16, 3))
    left, right = keras.ops.split(keras.ops.relu(keras.layers.Conv2D(8, 3)(x)), 2, axis=-1)
    functions = keras.Model(inputs, keras.ops.concatenate([left * 2, right], axis=-1))
    for model in (chain, functions):
        assert sum(box.parameters for box in boxes(model)) == 3 * 3 * 3 * 8 + 8
        draw(model, tmp_path / "net.png")


def test_long_names_stay_on_the_paper_and_in_their_box(tmp_path):
    x = inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(8, 3, name="a_convolution_with_a_name_of_many_words_in_it")(x)
    model = keras.Model(inputs, x, name="a_net_with_a_name_of_many_words_" * 5)
    draw(model, tmp_path / "net.png")
    pixels = np.asarray(Image.open(tmp_path / "net.png").convert("L"))
    assert (pixels[:, -1] == pixels[0, 0]).all()
    box = _laid(boxes(model)[1])
    bold = FontProperties(size=9.5, weight="bold")
    assert TextPath((0, 0), _title(box.box), prop=bold).get_extents().width < box.width


def test_every_input_is_told():
    inputs = [keras.Input((8, 8, 3)), keras.Input((4, 4, 1))]
    ends = [keras.layers.GlobalAveragePooling2D()(x) for x in inputs]
    model = keras.Model(inputs, keras.layers.Concatenate()(ends))
    assert _facts(model, []).replace(TIMES, "x").startswith("8 x 8 x 3 and 4 x 4 x 1 ")


@pytest.mark.parametrize("name", ["lenet5", "googlenet", "voxnet", "mobilenet_v3_small"])
def test_pictures_are_neither_empty_nor_cut(name, tmp_path):
    with without_values():
        model = create_model(name)
    draw(model, tmp_path / "net.png")
    pixels = np.asarray(Image.open(tmp_path / "net.png").convert("L"))
    assert (pixels < 100).any()
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert (border == pixels[0, 0]).all()
    assert 0.3 < pixels.shape[0] / pixels.shape[1] < 2


@pytest.mark.parametrize("name", ["inception_v3", "dpn68", "nasnet_a_mobile", "se_resnet50"])
def test_steps_stand_inside_their_box_and_apart(name):
    with without_values():
        found = boxes(create_model(name))
    for laid in map(_laid, found):
        for i, (x, y, wide) in enumerate(laid.places):
            assert wide / 2 <= x <= laid.width - wide / 2
            assert 0 < y < laid.height
            for other_x, other_y, other_wide in laid.places[:i]:
                assert y != other_y or abs(x - other_x) > (wide + other_wide) / 2


def test_a_file_that_cannot_be_is_one_clear_line(tmp_path):
    model = create_model("lenet5")
    with pytest.raises(UsageError, match="a name that ends in"):
        draw(model, tmp_path / "net.gif")
    with pytest.raises(UsageError, match="cannot be written"):
        draw(model, tmp_path / "nowhere" / "net.png")
