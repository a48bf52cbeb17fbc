"""The plan of the lecture, spelled out by the nets that it makes."""

import pytest

from striate.errors import UsageError
from striate.registry import create_model

LETTERS = {"InputLayer": "INPUT", "Conv2D": "CONV", "ReLU": "RELU", "MaxPooling2D": "POOL"}


def spelled(model) -> str:
    """The layers that compute something, in the words of the plan."""
    kinds = [type(layer).__name__ for layer in model.layers]
    words = [LETTERS.get(k, "FC") for k in kinds if k not in ("Identity", "Flatten")]
    return " ".join(words)


@pytest.mark.parametrize(
    ("name", "plan"),
    [
        ("blueprint_linear", "INPUT FC"),
        ("blueprint_conv1", "INPUT CONV RELU FC"),
        ("blueprint_conv2", "INPUT CONV RELU POOL CONV RELU POOL FC RELU FC"),
        (
            "blueprint_conv6",
            "INPUT CONV RELU CONV RELU POOL CONV RELU CONV RELU POOL CONV RELU CONV RELU POOL "
            "FC RELU FC RELU FC",
        ),
    ],
)
def test_the_lecture_s_examples(name, plan):
    assert spelled(create_model(name)) == plan


@pytest.mark.parametrize("convs", [0, 3])
@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("stages", [0, 2])
@pytest.mark.parametrize("hidden", [0, 2])
def test_every_corner_of_the_plan(convs, pool, stages, hidden):
    options = {"convs": convs, "pool": pool, "stages": stages, "hidden": hidden}
    model = create_model("blueprint_linear", input_shape=(8, 8, 1), width=2, fc_units=4, **options)
    stage = ["CONV RELU"] * convs + ["POOL"] * pool
    plan = ["INPUT", *stage * stages, *["FC RELU"] * hidden, "FC"]
    assert spelled(model) == " ".join(plan)
    side = 8 // 2**stages if pool else 8
    assert model.get_layer("logits").kernel.shape[0] == (
        4 if hidden else side * side * (2**stages if convs and stages else 1)
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"convs": 4}, "convs from 0 to 3"),
        ({"hidden": 3}, "hidden from 0 to 2"),
        ({"stages": 6, "pool": True}, "at least 64 x 64 pixels for 6 poolings, got 32 x 32"),
        ({"stages": -1}, "stages"),
    ],
)
def test_what_is_outside_of_the_plan_is_one_clear_line(options, message):
    with pytest.raises(UsageError, match=message):
        create_model("blueprint_linear", **options)
