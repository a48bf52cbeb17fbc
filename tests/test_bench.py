"""`striate bench`: engines side by side, each in a process of its own."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from making import tiny_artifact
from striate.bench import bench
from striate.bench.chart import draw
from striate.bench.worker import Worker, _peak_mb
from striate.cli import app
from striate.errors import ArtifactError, EngineError, UsageError
from striate.export import export


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    made = tiny_artifact(tmp_path_factory.mktemp("models") / "mine")
    return export(made, ["onnx", "litert"])[0]


@pytest.fixture(scope="module")
def rows(artifact):
    return bench(artifact, engines=["litert", "onnx"], batch=5, rounds=3)


def test_a_row_says_what_was_measured_and_by_what(artifact, rows):
    assert {row.engine for row in rows} == {"onnx", "litert"}
    assert [row.latency_ms for row in rows] == sorted(row.latency_ms for row in rows)
    for row in rows:
        assert (row.form, row.threads, row.batch, row.rounds) == (row.engine, 1, 5, 3)
        assert row.precision == "fp32"
        assert "fp32" in row.kernel
        assert row.latency_quartiles[0] <= row.latency_ms <= row.latency_quartiles[1]
        slow, quick = row.throughput_quartiles
        assert 0 < slow <= row.images_per_second <= quick
        assert row.max_abs_diff <= 1e-4
        assert row.top1_agreement == 1
        assert row.peak_mb > 20  # Python and numpy alone are more
    sizes = {row.engine: row.bytes for row in rows}
    assert sizes["onnx"] == artifact.file("model.onnx").stat().st_size


def test_the_table_can_be_drawn(rows, tmp_path):
    path = draw(rows, tmp_path / "bench.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UsageError, match="cannot be written"):
        draw(rows, tmp_path / "nowhere" / "bench.png")


def test_the_command_prints_one_document(artifact, tmp_path):
    chart = tmp_path / "bench.png"
    options = ["--engines", "onnx", "--rounds", "1", "--json", "--chart", str(chart)]
    ran = CliRunner().invoke(app, ["bench", str(artifact.path), *options])
    assert ran.exit_code == 0
    (row,) = json.loads(ran.stdout)
    assert {"form", "engine", "kernel", "bytes", "max_abs_diff", "top1_agreement"} <= row.keys()
    assert row["latency_ms"] > 0
    assert chart.is_file()


def test_an_engine_that_cannot_take_part_is_named(artifact, tmp_path):
    with pytest.raises(UsageError, match="Did you mean 'onnx'"):
        bench(artifact, engines=["onx"])
    with pytest.raises(ArtifactError, match=r"has no model.int8.onnx"):
        bench(artifact, engines=["onnx-int8"])
    with pytest.raises(EngineError, match=r"packed engine|has no model.packed"):
        Worker(artifact.path, "packed", threads=1, batch=1)


def test_an_engine_that_refuses_its_file_is_left_out_and_said(tmp_path):
    made, _ = export(tiny_artifact(tmp_path / "mine"), ["onnx"])
    size = (made.path / "model.onnx").stat().st_size
    (made.path / "model.onnx").write_bytes(b"x" * size)
    reasons = []
    assert bench(made, engines=["onnx"], rounds=1, on_refusal=reasons.append) == []
    assert "the onnx engine refuses it" in reasons[0]
    ran = CliRunner().invoke(app, ["bench", str(made.path), "--engines", "onnx", "--rounds", "1"])
    assert isinstance(ran.exception, EngineError)
    assert "none of its forms can be timed here" in str(ran.exception)


def test_an_engine_whose_process_is_killed_is_an_error_that_says_so(artifact):
    worker = Worker(artifact.path, "onnx", threads=1, batch=1)
    worker._process.kill()
    worker._process.wait()
    with pytest.raises(EngineError, match=r"onnx engine ended its process \(exit status -9\)"):
        worker.time_one_round()


def test_an_engine_that_ends_between_two_rounds_is_left_out_and_the_others_are_timed(artifact):
    reasons = []

    def kill_one(done: int, total: int) -> None:
        if done == 1:
            (victim,) = (worker for worker in workers if worker.engine == "onnx")
            victim._process.kill()
            victim._process.wait()

    workers: list[Worker] = []

    def started(*arguments, **options) -> Worker:
        workers.append(Worker(*arguments, **options))
        return workers[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("striate.bench.Worker", started)
        rows = bench(
            artifact,
            engines=["onnx", "litert"],
            rounds=2,
            on_progress=kill_one,
            on_refusal=reasons.append,
        )
    assert [row.engine for row in rows] == ["litert"]
    assert "onnx engine ended its process" in reasons[0]


def test_memory_is_told_where_the_system_does_not_count_its_peak(monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda path: "Name:\tpython\nVmRSS:\t1 kB\n")
    assert 10 < _peak_mb() < 1e6
