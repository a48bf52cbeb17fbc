"""The quick start, whole: the README's first command after its install, from another directory."""

import json
import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """The JSON document of one real run, and the directory it left."""
    directory = tmp_path_factory.mktemp("anywhere")
    command = [sys.executable, "-m", "striate", "quickstart", "mine", "--json"]
    ran = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=500)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout), directory / "mine"


@pytest.mark.long
def test_it_goes_from_pictures_to_an_answer_over_the_network_within_four_minutes(quickstart):
    document, directory = quickstart
    assert [step["step"].split()[0] for step in document["steps"]] == [
        "Pictures:",
        "Fine-tune",
        "Evaluate",
        "Export,",
        "Serve,",
    ]
    assert document["steps"][-1]["gRPC"].startswith("chair.png -> ")
    assert document["steps"][-1]["gRPC"] == document["steps"][-1]["HTTP"]
    assert document["seconds"] < 240
    assert document["evaluation"]["accuracy"] > 0.7
    assert (directory / "report.html").stat().st_size > 10_000


@pytest.mark.long
def test_what_it_leaves_behind_is_a_whole_artifact(quickstart):
    from striate.artifact import load

    _, directory = quickstart
    artifact = load(directory / "saved_models" / "furniture")
    artifact.check()
    assert set(artifact.manifest.forms) == {"keras", "saved_model", "onnx", "litert"}
    assert (directory / "pictures" / "meta.csv").exists()  # the attribution comes along


@pytest.mark.long
def test_it_does_not_write_over_what_is_there(quickstart):
    _, directory = quickstart
    command = [sys.executable, "-m", "striate", "quickstart", str(directory)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 2
    assert "expected a new or empty directory" in ran.stderr
