"""The recipes that ship: each says what it is for, and each one trains."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from striate.cli import app
from striate.registry import get_spec
from striate.train import make_recipe, recipe_head, shipped_recipes

FROM_SCRATCH = [name for name in shipped_recipes() if name not in ("finetune", "voxels")]
QUICK = ("alexnet_2012", "modern", "fast")


@pytest.mark.parametrize("name", shipped_recipes())
def test_it_says_its_purpose_its_command_and_what_came_of_it(name):
    path = shipped_recipes()[name]
    head = recipe_head(path)
    assert {"purpose", "command", "result"} <= set(head)
    assert f"striate train {name} " in head["command"] or name == "finetune"
    assert "not run by us" in head["result"] or "Hardware:" in head["result"], "measured on what?"
    assert path.read_text("utf-8").startswith("# Purpose: ")


@pytest.mark.sweep
@pytest.mark.parametrize(
    "name",
    [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in FROM_SCRATCH],
)
def test_it_trains_a_small_net_of_its_kind(name, tmp_path):
    """The recipe as it stands, for one epoch of a reduced net on a handful of made-up pictures."""
    from striate.data import load
    from striate.train import fit

    recipe = make_recipe(name)
    spec = get_spec(recipe.model.name)
    side = max(32, *spec.min_shape[:2])
    dice = np.random.default_rng(0)
    noise = dice.integers(0, 256, (16, side, side, 3), np.uint8)
    np.savez(tmp_path / "pictures.npz", x=noise, y=np.arange(16) % 2)
    dataset = load(tmp_path / "pictures.npz", split=0.25)
    fitted = fit(
        recipe,
        dataset,
        dataset.split("train"),
        dataset.split("val"),
        **{
            "model.options": {**recipe.model.options, **spec.reduced},
            "model.size": side,
            "epochs": 1,
            "batch_size": 4,
            "schedule.warmup": 0,
        },
    )
    assert np.isfinite(fitted.val_logits).all()
    assert np.isfinite(fitted.history[-1]["loss"])


def test_the_command_line_lists_them_and_prints_one_to_change():
    run = CliRunner().invoke
    listed = json.loads(run(app, ["recipes", "--json"]).stdout)
    assert [row["name"] for row in listed] == list(shipped_recipes())
    printed = run(app, ["recipes", "resnet"]).stdout
    assert printed == shipped_recipes()["resnet"].read_text("utf-8")
    assert make_recipe("resnet").schedule.steps == (30, 60)


def test_a_continued_line_of_the_head_belongs_to_what_it_continues(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("# Purpose: one\n#          two.\n# Result:  none\n#\n# More\n")
    assert recipe_head(path) == {"purpose": "one two.", "result": "none"}
