"""A run that is killed at any moment, and started again by the same call, ends with the same bits.

The processes are real and so is SIGKILL. They come from a server that has TensorFlow loaded, so
that each start costs a second and not ten.
"""

import io
import json
import multiprocessing
import os
import random
import signal
import time
import zipfile

import numpy as np
import pytest

from dangerous_training import LONG, run
from striate.train.checkpoint import read_arrays

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL and fork"),
]


@pytest.fixture(scope="module")
def processes():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tensorflow", "keras", "striate.train", "striate.layers"])
    return context


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Three classes of noisy stripes, hard enough that every epoch changes the weights."""
    generator = np.random.default_rng(0)
    labels = np.arange(90) % 3
    images = generator.integers(0, 120, (90, 32, 32)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[8 * label : 8 * label + 12] += 60
    path = tmp_path_factory.mktemp("data") / "stripes.npz"
    np.savez(path, images=images, labels=labels)
    return path


def start(processes, *arguments):
    process = processes.Process(target=run, args=arguments)
    process.start()
    return process


def result(output):
    """Every array of the only artifact under `output`, and its history."""
    import h5py

    assert sorted(p.name for p in output.iterdir() if not p.name.startswith(".tmp-")) == [
        ".logs",
        "1",
    ]
    manifest = json.loads((output / "1" / "striate.json").read_text())
    history = manifest["metrics"]["training"]["history"]
    rows = (output / ".logs" / "1" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row) for row in rows] == history
    arrays = {}

    def visit(name, node):
        if isinstance(node, h5py.Dataset):
            arrays[name] = node[()]

    with zipfile.ZipFile(output / "1" / "model.keras") as archive:
        data = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(data) as file:
        file.visititems(visit)
    assert len(arrays) == 10
    return arrays, [{k: v for k, v in row.items() if k != "seconds"} for row in history]


@pytest.fixture(scope="module")
def uninterrupted(processes, pictures, tmp_path_factory):
    """The arrays and history of a run that nobody disturbs, and how often it touched the disk."""
    folder = tmp_path_factory.mktemp("whole")
    process = start(processes, folder / "out", pictures, None, folder / "touches")
    process.join()
    assert process.exitcode == 0
    arrays, history = result(folder / "out")
    assert len(history) == 7
    return arrays, history, int((folder / "touches").read_text())


def same(found, expected):
    (arrays, history), (whole_arrays, whole_history) = found, expected
    assert arrays.keys() == whole_arrays.keys()
    for name, array in arrays.items():
        assert array.tobytes() == whole_arrays[name].tobytes(), name
    assert history == whole_history


def test_killed_at_touches_of_the_disk(processes, pictures, uninterrupted, tmp_path):
    """Before a flush, before a renaming, while the artifact is published, while the run is
    cleared away."""
    *expected, touches = uninterrupted
    chance = random.Random(1)
    kills = 0
    for kill_at in [1, 2, 4, *(chance.randrange(3, touches // 3) for _ in range(4))]:
        process = start(processes, tmp_path / "out", pictures, kill_at)
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        assert process.exitcode in (0, -signal.SIGKILL)
        if process.exitcode == 0:
            break
    assert kills >= 4
    if process.exitcode:
        process = start(processes, tmp_path / "out", pictures)
        process.join()
        assert process.exitcode == 0
    same(result(tmp_path / "out"), expected)


@pytest.mark.parametrize("before_the_end", [0, 1, 2, 3, 4])
def test_killed_at_the_very_end(processes, pictures, uninterrupted, tmp_path, before_the_end):
    """The artifact is published once, whether or not the process lived to clear its run away."""
    *expected, touches = uninterrupted
    process = start(processes, tmp_path / "out", pictures, touches - before_the_end)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    process = start(processes, tmp_path / "out", pictures)
    process.join()
    assert process.exitcode == 0
    same(result(tmp_path / "out"), expected)


def test_killed_at_random_moments(processes, pictures, uninterrupted, tmp_path):
    *expected, _ = uninterrupted
    seed = time.time_ns()
    print(f"seed {seed}")  # for a failure's report: these moments are never the same twice
    chance = random.Random(seed)
    process = None
    for _ in range(4):
        process = start(processes, tmp_path / "out", pictures)
        wait_for_a_run(tmp_path / "out", process)
        process.join(chance.uniform(0, 2.5))
        process.kill()
        process.join()
        if process.exitcode == 0:
            break
    if process.exitcode:
        process = start(processes, tmp_path / "out", pictures)
        process.join()
        assert process.exitcode == 0
    same(result(tmp_path / "out"), expected)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_twenty_times_at_random_moments(processes, pictures, tmp_path):
    """One in four within the first second, the others at some moment after a new checkpoint."""
    whole = start(processes, tmp_path / "whole", pictures, None, None, LONG)
    seed = time.time_ns()
    print(f"seed {seed}")
    chance = random.Random(seed)
    stood_at = []
    for kills in range(20):
        process = start(processes, tmp_path / "out", pictures, None, None, LONG)
        if kills % 4:
            wait_for_progress(tmp_path / "out", process)
        process.join(chance.random())
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, f"over after {kills} kills: too short a run"
        stood_at += [(s["epoch"], s["step"]) for s in checkpoints(tmp_path / "out")]
    print(f"killed after (epoch, step) {stood_at}")
    last = start(processes, tmp_path / "out", pictures, None, None, LONG)
    for process in (whole, last):
        process.join()
        assert process.exitcode == 0
    same(result(tmp_path / "out"), result(tmp_path / "whole"))


def test_two_processes_do_not_share_a_run(processes, pictures, tmp_path):
    first = start(processes, tmp_path / "out", pictures)
    wait_for_a_run(tmp_path / "out", first)
    os.kill(first.pid, signal.SIGSTOP)  # at work, for as long as we like
    second = start(processes, tmp_path / "out", pictures)
    second.join()
    os.kill(first.pid, signal.SIGCONT)
    first.join()
    assert (first.exitcode, second.exitcode) == (0, 1)
    assert "another process is at work on this very run" in (tmp_path / "out.error").read_text()


def checkpoints(output):
    """The state in the run's checkpoint, where there is one."""
    return [read_arrays(path)[0] for path in output.glob(".run-*/checkpoint.npz")]


def wait_for_progress(output, process):
    """Until the process has written a checkpoint of its own."""
    before = checkpoints(output)
    while checkpoints(output) == before:
        assert process.is_alive()
        time.sleep(0.05)


def wait_for_a_run(output, process):
    """Until the process has its run's directory."""
    while not list(output.glob(".run-*/run.json")):
        assert process.is_alive()
        time.sleep(0.05)
