"""The artifact: whole or not there, and what is damaged is named in one line."""

import dataclasses
import json
import logging
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from making import tiny_artifact
from striate.artifact import (
    MANIFEST,
    add_drift_baseline,
    add_form,
    check_several,
    drift_baseline,
    load,
    scores_of,
    versions,
    write_version,
)
from striate.errors import ArtifactError, DataError, UsageError


@pytest.fixture
def artifact(tmp_path):
    return tiny_artifact(tmp_path / "mine")


def test_a_written_version_loads_with_everything_it_was_given(artifact):
    loaded = load(artifact.path)
    assert (loaded.name, loaded.version) == ("mine", 1)
    assert loaded.labels == ["class 0", "class 1", "class 2", "class 3"]
    assert loaded.spec.name == "lenet5"
    assert (loaded.path / "assets" / "labels.txt").read_text().splitlines() == loaded.labels
    loaded.check()


def test_the_goldens_are_what_the_loaded_model_answers(artifact):
    images, scores = artifact.goldens()
    answered = load(artifact.path).predict(images)
    assert np.abs(answered - scores).max() < 1e-6
    assert np.allclose(answered.sum(axis=1), 1, atol=1e-5)


def test_an_artifact_shows_itself_in_a_line(artifact):
    said = f"{artifact.manifest.model['name']}, {len(artifact.labels)} classes"
    assert repr(artifact) == f"<Artifact {artifact.path}: {said}>"


def test_versions_count_up_and_the_newest_answers_for_the_name(tmp_path):
    first, second = tiny_artifact(tmp_path / "mine"), tiny_artifact(tmp_path / "mine")
    assert (first.version, second.version) == (1, 2)
    assert load(tmp_path / "mine").version == 2
    assert versions(tmp_path / "mine") == [1, 2]


def test_pictures_are_read_as_they_are_answered(artifact, monkeypatch):
    """All of a folder at once, as the net takes them, may be more than the memory."""
    asked = []

    def noted(contract, images, **options):
        asked.append(len(images))
        return scores_of(contract, images, **options)

    images = list(np.random.default_rng(0).integers(0, 256, (10, 32, 32), dtype=np.uint8))
    whole = artifact.predict(images, batch_size=10)
    monkeypatch.setattr("striate.artifact.scores_of", noted)
    np.testing.assert_allclose(artifact.predict(images, batch_size=4), whole, atol=1e-6)
    assert asked == [4, 4, 2]


def test_tensorflow_does_not_take_several_nets_for_one_that_is_traced_again(caplog):
    class Net:
        def predict_on_batch(self, batch):
            log = logging.getLogger("tensorflow")
            log.warning("5 out of the last 9 calls to %s triggered tf.function retracing.", self)
            log.warning("something else")
            return batch

    caplog.set_level(logging.WARNING, "tensorflow")  # a command before may have silenced it
    scores_of(Net(), np.zeros((3, 2)))
    assert caplog.messages == ["something else"]
    logging.getLogger("tensorflow").warning("a net of the user triggered tf.function retracing.")
    assert len(caplog.messages) == 2


def test_a_model_has_the_name_of_its_folder_however_that_is_written(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    assert [tiny_artifact(Path(base)).name for base in (".", "../mine")] == ["mine", "mine"]


def test_a_version_s_number_may_have_zeros_before_it(tmp_path):
    made = tiny_artifact(tmp_path / "mine")
    made.path.rename(made.path.with_name("0007"))
    assert load(tmp_path / "mine").path.name == "0007"
    assert versions(tmp_path / "mine") == [7]


def test_a_file_that_is_called_like_a_version_takes_its_number(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "1").write_text("")
    (tmp_path / "mine" / "2").symlink_to(tmp_path / "nowhere")
    assert tiny_artifact(tmp_path / "mine").version == 3


def test_temperature_softens_the_scores(tmp_path, artifact):
    images, scores = artifact.goldens()
    warm = write_version(
        tmp_path / "warm",
        model=artifact.model,
        labels=artifact.labels,
        goldens=images,
        preprocess=artifact.preprocess,
        model_name="lenet5",
        temperature=4.0,
    )
    softened = warm.goldens()[1]
    assert (softened.max(axis=1) < scores.max(axis=1)).all()
    assert (softened.argmax(axis=1) == scores.argmax(axis=1)).all()


def test_a_temperature_may_be_a_whole_number(artifact):
    change(temperature=2)(artifact.path)
    assert load(artifact.path).manifest.temperature == 2


def test_a_copy_under_a_name_of_its_own_has_no_version(tmp_path, artifact):
    copied = load(shutil.copytree(artifact.path, tmp_path / "copied"))
    assert copied.version is None
    copied.check()


def test_no_pictures_are_a_mistake(artifact):
    with pytest.raises(UsageError, match="expected at least one picture, got none"):
        artifact.predict([])


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, "u1")


@pytest.mark.parametrize(
    "one",
    [
        "cat.jpg",
        Path("cat.jpg"),
        b"\xff\xd8" * 1000,
        Image.new("RGB", (9, 9)),
        zeros(40, 50, 3),
        zeros(32, 32, 1),
        zeros(40, 50),
    ],
)
def test_a_picture_that_is_in_no_list_is_a_mistake(artifact, one):
    """An array above all: each of its rows would pass for a picture, with an answer of its own."""
    with pytest.raises(UsageError, match=r"expected a list of pictures, got .*: put it in brack"):
        artifact.predict(one)


@pytest.mark.parametrize(
    ("one", "several"),
    [
        (zeros(16, 16, 16, 1), zeros(2, 12, 12, 12)),
        (zeros(12, 12, 12), zeros(2, 12, 12, 12, 1)),
        (zeros(8), zeros(2, 8)),
    ],
)
def test_one_grid_or_row_of_numbers_is_not_taken_for_several(one, several):
    shape = (8,) if one.shape == (8,) else (16, 16, 16, 1)
    check_several(several, shape)
    with pytest.raises(UsageError, match="put it in brackets"):
        check_several(one, shape)


def test_several_pictures_are_a_list_or_an_array_of_any_size(artifact):
    small = [zeros(40, 50, 3), zeros(9, 9), Image.new("RGB", (9, 9))]
    assert artifact.predict(small).shape == (3, 4)
    assert artifact.predict(zeros(2, 28, 28)).shape == (2, 4)  # grey ones, without their channel
    with pytest.raises(
        DataError, match="the picture: expected a path, bytes or a numpy array, got int"
    ):
        artifact.predict([7])


def change(**fields):
    """Damage that gives fields of the manifest other values."""

    def damage(path):
        values = json.loads((path / MANIFEST).read_text())
        (path / MANIFEST).write_text(json.dumps({**values, **fields}))

    return damage


def read_all(path):
    damaged = load(path)
    return damaged.model, damaged.preprocess, damaged.goldens()


def overwrite(name):
    """Damage that leaves a file its size and nothing else."""
    return lambda path: (path / name).write_bytes(b"\1" * (path / name).stat().st_size)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda p: (p / "model.keras").write_bytes(b"half"), "got 4 bytes; the version is incompl"),
        (lambda p: (p / "model.keras").unlink(), "got no file; the version is incomplete"),
        (lambda p: (p / MANIFEST).unlink(), "expected striate.json"),
        (lambda p: (p / MANIFEST).write_text("{"), "expected a striate manifest"),
        (lambda p: (p / MANIFEST).write_text('{"schema": 99}'), "expected schema 1, got 99"),
        (lambda p: (p / MANIFEST).write_text('{"schema": 1}'), "expected a complete manifest"),
        (lambda p: (p / MANIFEST).write_bytes(b"\xff\xfe{"), "striate.json: cannot be read"),
        (change(labels=5), "expected labels as list, got something else"),
        (change(files=["model.keras"]), "expected files as dict, got something else"),
        (change(recipe=1), "expected recipe as dict or NoneType, got something else"),
        (change(model={}), "expected a complete manifest, but its model has no name"),
        (change(labels=["a"]), "expected 4 labels, got 1"),
        (change(preprocess={"x": 1}), "striate.json: preprocess has no key 'x'"),
        (overwrite("model.keras"), "model.keras: its contents changed"),
        (overwrite("assets.extra/goldens.npz"), "goldens.npz: its contents changed"),
    ],
)
def test_a_truncated_artifact_is_one_clear_line(artifact, damage, complaint):
    damage(artifact.path)
    with pytest.raises(ArtifactError, match=complaint) as caught:
        read_all(artifact.path)
    assert "\n" not in str(caught.value)


def test_check_finds_a_changed_byte(artifact):
    labels = artifact.path / "assets" / "labels.txt"
    labels.write_text(labels.read_text().replace("class 0", "class X"))
    with pytest.raises(ArtifactError, match=r"labels.txt: its contents changed"):
        load(artifact.path).check()


def test_what_is_no_artifact_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="got nothing there"):
        load(tmp_path / "nowhere")
    with pytest.raises(ArtifactError, match="version directories"):
        load(tmp_path)


def test_labels_and_preprocess_must_fit_the_net(tmp_path, artifact):
    images, _ = artifact.goldens()
    given = {"model": artifact.model, "goldens": images, "model_name": "lenet5"}
    with pytest.raises(UsageError, match="expected 4 labels, got 1"):
        write_version(tmp_path / "x", labels=["a"], preprocess=artifact.preprocess, **given)
    for other in ("two\nlines", "carriage\r", "nul\0", "caf\udce9"):
        labels = ["a", other, "c", "d"]
        with pytest.raises(UsageError, match="expected labels of one line in UTF-8"):
            write_version(tmp_path / "x", labels=labels, preprocess=artifact.preprocess, **given)
    wide = dataclasses.replace(artifact.preprocess, width=64)
    with pytest.raises(UsageError, match="expected a preprocess of shape"):
        write_version(tmp_path / "x", labels=artifact.labels, preprocess=wide, **given)
    assert versions(tmp_path / "x") == []


def test_a_form_whose_check_fails_leaves_no_trace(artifact):
    before = sorted(p.name for p in artifact.path.rglob("*"))

    def refuse(staged):
        assert (staged / "model.bin").exists()
        raise ArtifactError("no")

    with pytest.raises(ArtifactError, match="no"):
        add_form(artifact, "binary", lambda d: (d / "model.bin").write_bytes(b"1"), refuse)
    assert sorted(p.name for p in artifact.path.rglob("*")) == before
    assert [p.name for p in artifact.path.parent.iterdir()] == ["1"]


def test_a_form_is_replaced_whole(artifact):
    def write(*names):
        return lambda d: [(d / name).write_bytes(name.encode()) for name in names]

    artifact = add_form(artifact, "binary", write("a.bin", "b.bin"), lambda d: {"n": 1})
    artifact = add_form(artifact, "binary", write("a.bin"), lambda d: {"n": 2})
    assert artifact.manifest.forms["binary"] == {"n": 2, "files": ["a.bin"]}
    assert not (artifact.path / "b.bin").exists()
    artifact.check()


def test_a_form_joins_those_that_others_added_meanwhile(artifact):
    """`artifact` still says what the version held before: two exports at once, as it were."""
    for name in ("first", "second"):
        add_form(artifact, name, lambda d, n=name: (d / n).write_bytes(b"1"), lambda d: {})
    add_drift_baseline(artifact, *artifact.goldens())
    both = load(artifact.path)
    assert {"first", "second"} < both.manifest.forms.keys()
    assert both.manifest.drift_baseline["n"] == 4
    both.check()


def test_a_form_waits_for_another_process_that_changes_the_version(artifact):
    code = (
        "import sys; from pathlib import Path; from striate.artifact import _alone\n"
        "with _alone(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(artifact.path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as other:
        assert other.stdout.readline() == "held\n"
        write = (artifact, "x", lambda d: (d / "x").write_bytes(b"1"), lambda d: {})
        adding = threading.Thread(target=add_form, args=write)
        adding.start()
        adding.join(0.3)
        assert adding.is_alive()
        assert "x" not in load(artifact.path).manifest.forms
        other.stdin.close()
        adding.join(60)
    assert "x" in load(artifact.path).manifest.forms


def test_what_another_machine_stages_on_a_shared_disk_is_left_alone(tmp_path):
    other, gone = (
        tmp_path / f".tmp-{name}-{2**22 + 1}-abc"  # a process that cannot exist
        for name in (f"{platform.node()}-b", platform.node())
    )
    nobodys = tmp_path / f".tmp-{platform.node()}-old-abc"
    for directory in (other, gone, nobodys):
        directory.mkdir()
    tiny_artifact(tmp_path)
    assert other.exists()
    assert nobodys.exists()
    assert not gone.exists()


@pytest.mark.long
def test_a_kill_while_writing_leaves_no_half_version(tmp_path):
    base = tmp_path / "mine"
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path; from making import tiny_artifact\n"
        "print('ready', flush=True)\n"
        "while True: tiny_artifact(Path(sys.argv[2]))\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, os.path.dirname(__file__), str(base)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert child.stdout.readline() == "ready\n"
    deadline = time.monotonic() + 120
    while len(versions(base)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert len(versions(base)) >= 2
    for version in versions(base):
        load(base / str(version)).check()
    tiny_artifact(base)  # the next writer clears away what the killed one left
    assert [path.name for path in base.iterdir() if path.name.startswith(".tmp-")] == []


def test_the_drift_baseline_describes_pictures_and_answers():
    images = np.zeros((4, 2, 2, 1), np.uint8)
    images[2:] = 100
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]], np.float32)
    baseline = drift_baseline(images, scores)
    assert baseline["brightness"]["mean"] == 50
    assert baseline["contrast"]["mean"] == 0
    assert baseline["class_prior"] == [0.5, 0.5]
    assert baseline["confidence"]["mean"] == pytest.approx(0.75)
    json.dumps(baseline)


def test_the_drift_baseline_of_many_pictures_takes_little_memory():
    """A thousand clips as floats would be more than most machines have, after hours of training."""
    images = np.zeros((100, 4, 64, 64, 3), np.uint8)
    tracemalloc.start()
    drift_baseline(images, np.full((100, 2), 0.5, np.float32))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < images.nbytes / 4
