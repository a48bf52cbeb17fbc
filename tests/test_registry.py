"""The registry: what it lists, how it answers, what it refuses."""

import copy
import csv
import dataclasses
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import striate
from striate.errors import UsageError
from striate.registry import create_model, get_spec, list_models

NAMES = [spec.name for spec in list_models()]
ZOO = {
    "lenet5": 61_706,
    "alexnet_single": 61_100_840,
    "vgg16": 138_357_544,
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "resnet20_cifar": 269_722,
    "squeezenet1_0": 1_248_424,
    "squeezenet1_1": 1_235_496,
    "mobilenet_v1_100": 4_231_976,
    "mobilenet_v2_100": 3_504_872,
}


@pytest.mark.parametrize(
    ("name", "explains"),
    [("resnet18", True), ("fcn8s_vgg16", False), ("voxnet", False), ("mlp_two_layer", False)],
)
def test_only_classifiers_of_pictures_with_maps_explain_by_maps(name, explains):
    assert get_spec(name).explains == explains


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"pattern": 3}, "a pattern of names, such as '*resnet*', got 3"),
        ({"max_params": "5M"}, "max_params as a number, got '5M'"),
        ({"year": "2015"}, "year as a number, got '2015'"),
        ({"since": "then"}, "since as a number, got 'then'"),
    ],
)
def test_what_no_net_can_be_listed_by_is_refused(wanted, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        list_models(**wanted)


def test_lists_the_first_families_with_their_published_counts():
    listed = {spec.name: spec.trainable for spec in list_models()}
    assert {name: listed.get(name) for name in ZOO} == ZOO


def test_every_spec_agrees_with_the_table_of_verified_counts(shared):
    with open(shared.parent / "reference" / "zoo.csv", newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    known = [spec for spec in list_models() if spec.name in rows]
    assert len(known) > 150
    for spec in known:
        row = rows[spec.name]
        sizes = {"x".join(map(str, shape)) for shape in (spec.input_shape, spec.input_shape[:-1])}
        assert (spec.family, spec.classes) == (row["family"], int(row["classes"]))
        assert row["input_shape"] in {"any", *sizes}
        if row["status"] in ("verified", "arith", "emulated") and row["trainable"]:
            assert spec.trainable == int(row["trainable"]), spec.name
        if row["total"]:
            assert spec.total == int(row["total"]), spec.name


def test_lists_by_pattern_family_size_and_weights():
    assert [s.name for s in list_models("resnet1?")] == ["resnet18"]
    assert {s.family for s in list_models(family="vgg")} == {"vgg"}
    assert all(s.trainable <= 10**6 for s in list_models(max_params=10**6))
    assert "lenet5" in [s.name for s in list_models(max_params=10**6)]
    with_weights = {s.name for s in list_models(pretrained=True)}
    assert {"squeezenet1_1", "vgg16", "resnet50", "mobilenet_v2_100"} <= with_weights
    assert with_weights.isdisjoint(s.name for s in list_models(pretrained=False))
    assert list_models("no_such_*") == []
    with pytest.raises(UsageError, match=r"family of nets, got 'resnets'.*Did you mean 'resnet'"):
        list_models(family="resnets")


def test_lists_by_year_and_work():
    assert {s.name for s in list_models("googlenet", year=2014)} == {"googlenet"}
    assert list_models("googlenet", year=2015) == []
    assert {s.year for s in list_models(since=2014, until=2015)} == {2014, 2015}
    assert list_models(until=1990) == list_models(until=1990, since=1900)
    light = {s.name for s in list_models(max_macs=300 * 10**6)}
    assert {"mobilenet_v2_075", "mnasnet_a1_075"} <= light
    assert light.isdisjoint({"mobilenet_v2_100", "resnet18"})


def test_listing_needs_neither_keras_nor_a_second():
    code = (
        "import sys, striate; rows = [s.to_dict() for s in striate.list_models()]; "
        "heavy = {'keras.src', 'tensorflow', 'jax', 'torch', 'h5py'} & set(sys.modules); "
        "print(len(rows), sorted(heavy))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True
    )
    assert done.stdout.split(maxsplit=1) == [str(len(NAMES)), "[]\n"]


def test_row_for_machines():
    row = get_spec("squeezenet1_1").to_dict()
    assert row == {
        "name": "squeezenet1_1",
        "family": "squeezenet",
        "year": 2016,
        "input_shape": [224, 224, 3],
        "classes": 1000,
        "trainable": 1_235_496,
        "total": 1_235_496,
        "macs": 349_151_936,
        "pretrained": ["imagenet"],
    }


def test_a_spec_is_frozen():
    spec = get_spec("lenet5")
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.trainable = 1
    with pytest.raises(TypeError):
        spec.exceptions["anything"] = "goes"


def test_a_spec_can_be_sent_to_another_process_and_copied():
    for spec in list_models():
        for again in (pickle.loads(pickle.dumps(spec)), copy.deepcopy(spec)):
            assert again.options == spec.options
            assert again.to_dict() == spec.to_dict()
    with pytest.raises(TypeError):
        again.exceptions["anything"] = "goes"


def test_every_spec_says_where_it_comes_from():
    for spec in list_models():
        assert spec.paper
        assert spec.title
        assert 1986 <= spec.year <= 2019
        assert spec.accuracy is None or spec.accuracy.source
        for weights in spec.weights:
            assert weights.licence
            assert weights.url.startswith(("https://", "shipped:"))
            assert weights.hash is None or weights.hash.partition(":")[0] in ("md5", "sha256")


def test_unknown_name_offers_the_nearest():
    with pytest.raises(UsageError, match=r"'resnet5'.*Did you mean.*'resnet50'"):
        get_spec("resnet5")
    with pytest.raises(UsageError, match="name of a net, got None"):
        get_spec(None)
    with pytest.raises(UsageError, match="name of a net, got \\['lenet5'\\]"):
        get_spec(["lenet5"])


@pytest.mark.parametrize(
    ("until", "message"),
    [
        (3, "a layer or several, got 3"),
        ([None, "stage1_out"], "a layer or several"),
        (["stage1_out", "stage1_out"], "each layer once"),
        (["logits", "stage1_out"], "before its classifier, got 'logits'"),
        (["features", "stage1_out"], "before its classifier, got 'features'"),
    ],
)
def test_an_end_that_cannot_be_is_one_clear_line(until, message):
    with pytest.raises(UsageError, match=message):
        create_model("resnet20_cifar", depths=(1, 1, 1), until=until)


def test_unknown_option_offers_the_nearest():
    with pytest.raises(UsageError, match=r"'drop_out'.*Did you mean 'dropout'"):
        striate.create_model("squeezenet1_1", drop_out=0.1)


def test_what_tells_the_variants_apart_is_no_option():
    with pytest.raises(UsageError, match="no option 'alpha'"):
        create_model("mobilenet_v2_100", alpha=0.5)


def test_options_show_the_variant_s_own_default():
    assert get_spec("resnet20_cifar").options["shortcut"] == "A"
    assert get_spec("resnet18").options["shortcut"] == "B"


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((20, 224, 3), "at least 32 x 32 pixels, got 20 x 224"),
        ((224, 224), "3 positive integers"),
        ((224, 224, 0), "3 positive integers"),
        ((None, None, 3), "3 positive integers"),
        (224, "3 positive integers"),
    ],
)
def test_an_input_shape_that_does_not_fit_is_one_clear_line(shape, message):
    with pytest.raises(UsageError, match=message):
        create_model("vgg11", input_shape=shape)


@pytest.mark.parametrize("classes", [0, -1, 2.5, True])
def test_at_least_one_class(classes):
    with pytest.raises(UsageError, match="num_classes"):
        create_model("lenet5", num_classes=classes)


# === The page made from it ===

DOCS = Path(__file__).parents[1] / "docs"


def test_the_page_of_nets_is_up_to_date():
    done = subprocess.run([sys.executable, DOCS / "make_model_table.py", "--check"], timeout=60)
    assert done.returncode == 0, "run `python docs/make_model_table.py`"


def test_the_page_explains_every_option():
    text = (DOCS / "models.md").read_text("utf-8")
    for spec in list_models():
        (line,) = [line for line in text.splitlines() if line.startswith(f"| {spec.family} | ")]
        assert [option for option in spec.options if f"`{option}" not in line] == []


def test_the_example_of_a_new_family_works(monkeypatch):
    """The code of docs/add_a_family.md, run as it stands there."""
    from striate import registry

    monkeypatch.setattr(registry, "_specs", dict(registry._specs))
    text = (DOCS / "add_a_family.md").read_text("utf-8")
    exec(text.split("```python\n")[1].split("```")[0], {})
    spec = get_spec("tinynet2")
    model = create_model("tinynet2")
    assert model.count_params() == spec.total
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == spec.trainable
