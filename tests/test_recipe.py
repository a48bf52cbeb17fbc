"""Recipes: a file, a dictionary and --set are the same, and a mistake is one line at once."""

import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from making import ROOT
from striate.errors import UsageError
from striate.train.recipe import Recipe, make_recipe
from striate.train.strategies import STRATEGIES


def test_a_file_a_dictionary_and_sets_are_the_same(tmp_path):
    (tmp_path / "r.yaml").write_text(
        "model: lenet5\nepochs: 3\noptimizer: {name: sgd, learning_rate: 1e-3}\n"
    )
    values = {"model": "lenet5", "epochs": 3, "optimizer": {"name": "sgd", "learning_rate": 1e-3}}
    sets = ["epochs=3", "optimizer=sgd", "optimizer.learning_rate=1e-3"]
    recipe = make_recipe(tmp_path / "r.yaml")
    assert recipe == make_recipe(values) == make_recipe({"model": "lenet5"}, sets)
    assert recipe == make_recipe(recipe.to_dict())
    assert recipe == make_recipe({"model": "lenet5"}, {"epochs": 3, "optimizer": recipe.optimizer})
    assert recipe.optimizer.learning_rate == 1e-3


@pytest.mark.parametrize("number", ["1e-1", "1E-1", "1.0e-1", ".1", "10e-2", "+1e-1"])
def test_a_number_is_one_however_it_is_written(tmp_path, number):
    """YAML 1.1, and so its library, takes 1e-1 for a word, which no net takes for an option."""
    text = f"model: {{name: alexnet, options: {{dropout: {number}}}}}\n"
    (tmp_path / "r.yaml").write_text(text)
    from_file = make_recipe(tmp_path / "r.yaml")
    typed = make_recipe({"model": "alexnet"}, [f"model.options.dropout={number}"])
    assert from_file.model.options == typed.model.options == {"dropout": 0.1}


def test_later_changes_win_and_leave_the_rest_of_a_group():
    recipe = make_recipe({"model": "lenet5"}, ["optimizer.momentum=0.5", "optimizer=sgd"])
    assert (recipe.optimizer.name, recipe.optimizer.momentum) == ("sgd", 0.5)
    changed = recipe.changed(epochs=7, optimizer={"nesterov": False})
    assert (changed.epochs, changed.optimizer.momentum) == (7, 0.5)


def test_paths_and_names_are_taken_as_they_are_typed():
    sets = ["data.source=2024: [my] pictures", "model.weights=null", "strategy.unfreeze_from=7"]
    recipe = make_recipe({"model": "lenet5"}, sets)
    assert recipe.data.source == "2024: [my] pictures"
    assert (recipe.model.weights, recipe.strategy.unfreeze_from) == (None, "7")


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["optimzer=sgd"], "recipe has no key 'optimzer'. Did you mean 'optimizer'?"),
        (
            ["optimizer.learning_rat=1"],
            "recipe has no key 'optimizer.learning_rat'. Did you mean 'optimizer.learning_rate'?",
        ),
        (
            ["learning_rate=1"],
            "recipe has no key 'learning_rate'. Did you mean 'optimizer.learning_rate'?",
        ),
        (["optimizer=sdg"], "'adagrad' or 'lion', got 'sdg'. Did you mean 'sgd'?"),
        (["epochs=many"], "recipe: epochs should be a valid integer"),
        (["epochs=-1"], "recipe: epochs should be greater than or equal to 0, got -1"),
        (["optimizer.learning_rate=0"], "optimizer.learning_rate should be greater than 0, got 0"),
        (["augment.flip=yes"], "augment.flip should be 'none', 'horizontal'"),
        (["model.size=0"], "recipe: model.size should be greater than or equal to 1"),
        (["strategy=gradul"], "strategy.name should be"),
        (["augment=3"], "augment should be a group of keys with values, or be left out, got 3"),
        (
            ["strategy=linear_probe", "strategy.unfreeze_from=fc1"],
            "should stand with strategy=lp_ft",
        ),
        (["schedule.steps=3"], "schedule.steps should be a list, such as [1, 2], got 3"),
        (["augment.crop_scale=[0.5]"], "augment.crop_scale.1 should be there"),
        (["augment.crop_scale=[0.5, 0.6, 1]"], "augment.crop_scale should have fewer values"),
        (["optimizer.learning_rate=.inf"], "learning_rate should be a finite number, got inf"),
        (["epochs"], "expected key=value"),
        (["epochs=[1"], "expected a value after epochs="),
        (["model.name.x=1"], "model"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_was_meant(sets, message):
    with pytest.raises(UsageError) as caught:
        make_recipe({"model": "lenet5"}, sets)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected a recipe file or one that striate ships"),
        ("model: [", "line 1: expected YAML"),
        ("- a\n- b", "expected a recipe (keys and values), got list"),
        ("", "expected a recipe (keys and values), got NoneType"),
        ("epochs: 1", "recipe needs 'model'"),
        ("modle: lenet5", "recipe has no key 'modle'. Did you mean 'model'?"),
    ],
)
def test_a_file_that_is_no_recipe_is_one_line(tmp_path, content, message):
    path = tmp_path / "r.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError) as caught:
        make_recipe(path)
    assert message in str(caught.value)


def test_the_page_on_recipes_names_every_key():
    page = (ROOT / "docs" / "finetune.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `?([a-z_ ]+)`? \| (.*) \|$", page, re.MULTILINE))
    groups = {
        name: field.annotation
        for name, field in Recipe.model_fields.items()
        if hasattr(field.annotation, "model_fields")
    }
    for name, group in groups.items():
        written_by_striate = {"reason"}
        keys = set(group.model_fields) - written_by_striate
        assert keys <= set(re.findall(r"`([a-z0-9_]+)`", rows[name])), name
    own = set(Recipe.model_fields) - set(groups)
    assert own <= set(re.findall(r"`([a-z0-9_]+)`", rows["of its own"]))


def test_every_strategy_has_its_name_in_the_recipe():
    for name in STRATEGIES:
        assert make_recipe({"model": "lenet5"}, [f"strategy={name}"]).strategy.name == name


def test_a_recipe_is_checked_without_keras():
    code = (
        "import sys; from striate.train import finetune_recipe; finetune_recipe('squeezenet1_1');"
        "print([n for n in ('keras', 'tensorflow', 'jax')"
        " if type(sys.modules.get(n)).__name__ == 'module'])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@settings(max_examples=50, deadline=None)
@given(
    st.floats(1e-6, 10),
    st.integers(1, 512),
    st.sampled_from(["none", "horizontal", "vertical", "both"]),
    st.lists(st.floats(0.5, 100), max_size=3),
)
def test_recipes_survive_json(rate, batch_size, flip, steps):
    recipe = make_recipe(
        {"model": "lenet5", "batch_size": batch_size},
        {"optimizer.learning_rate": rate, "augment.flip": flip, "schedule.steps": steps},
    )
    assert make_recipe(recipe.to_dict()) == recipe
