"""How fast is an artifact here, in every form and by every engine that is installed?

    rows = bench(striate.load("saved_models/mine"), threads=1)
    draw(rows, "bench.png")

Each engine has a process of its own, so that its memory can be told from the others' and its
threads set; they are asked in turn within every round, so that what else the machine does falls on
all of them alike.
"""

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from striate.artifact import Artifact, Source, opened
from striate.bench.worker import Worker
from striate.errors import EngineError, check_known, check_whole
from striate.lazy import Verb
from striate.runtime import ENGINES, readable

sys.modules[__name__].__class__ = Verb  # striate.bench(...) is striate.bench.bench(...)


@dataclasses.dataclass(frozen=True)
class Timing:
    """What one engine did with one form.

    bytes: of the file that it reads (of a SavedModel, all its files). max_abs_diff and
    top1_agreement: against the goldens. latency_ms: median of one picture at a time, with its
    quartiles; images_per_second: median by batches of `batch`, with its quartiles. peak_mb: the
    most memory that its process ever held, Python included.
    """

    form: str
    engine: str
    kernel: str
    precision: str
    threads: int
    bytes: int
    max_abs_diff: float
    top1_agreement: float
    latency_ms: float
    latency_quartiles: tuple[float, float]
    batch: int
    images_per_second: float
    throughput_quartiles: tuple[float, float]
    rounds: int
    peak_mb: float

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def bench(
    artifact: Source,
    *,
    engines: Iterable[str] | None = None,
    threads: int = 1,
    batch: int = 8,
    rounds: int = 15,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    on_refusal: Callable[[str], None] = lambda reason: None,
) -> list[Timing]:
    """Time every engine that is installed and whose form the artifact holds, quickest first.

    artifact: itself, or its path. engines: only these, out of `striate.runtime.ENGINES`, or one.
    threads: for one call. batch: pictures at a time for the throughput. on_refusal: told why an
    engine could not take part.

    Raises `UsageError` for an unknown engine, `ArtifactError` when the artifact lacks its form.
    """
    artifact = opened(artifact)
    for name, value in (("threads", threads), ("batch", batch), ("rounds", rounds)):
        check_whole(name, value, 1)
    names = readable(artifact) if engines is None else check_engines(artifact, engines)
    with contextlib.ExitStack() as open_processes:
        workers = []
        for name in names:
            try:
                worker = Worker(artifact.path, name, threads=threads, batch=batch)
            except EngineError as error:
                on_refusal(str(error))
                continue
            workers.append(open_processes.enter_context(contextlib.closing(worker)))
        for done in range(rounds):
            for worker in list(workers):
                try:
                    worker.time_one_round()
                except EngineError as error:
                    on_refusal(str(error))
                    workers.remove(worker)
            on_progress(done + 1, rounds)
        rows = [_timing(artifact, worker) for worker in workers]
    return sorted(rows, key=lambda row: row.latency_ms)


def check_engines(artifact: Artifact, engines: Iterable[str]) -> list[str]:
    """The engines asked for, once each; an error where one cannot answer for the artifact."""
    names = list(dict.fromkeys([engines] if isinstance(engines, str) else engines))
    check_known("engines", names, ENGINES)
    for name in names:
        artifact.file(ENGINES[name].file)
    return names


def _timing(artifact: Artifact, worker: Worker) -> Timing:
    kind = ENGINES[worker.engine]
    facts = worker.facts
    latencies = 1e3 * np.array(worker.one)
    speeds = worker.batch / np.array(worker.many)
    return Timing(
        form=kind.form,
        engine=worker.engine,
        kernel=facts["kernel"],
        precision=_precision(kind.form),
        threads=worker.threads,
        bytes=_bytes(artifact, kind.file),
        max_abs_diff=facts["max_abs_diff"],
        top1_agreement=facts["top1_agreement"],
        latency_ms=_rounded(np.median(latencies)),
        latency_quartiles=_quartiles(latencies),
        batch=worker.batch,
        images_per_second=_rounded(np.median(speeds)),
        throughput_quartiles=_quartiles(speeds),
        rounds=len(worker.one),
        peak_mb=round(worker.peak_mb(), 1),
    )


def _precision(form: str) -> str:
    return {"int8": "int8", "float16": "fp16 weights", "packed": "1 bit"}.get(form, "fp32")


def _bytes(artifact: Artifact, file: str) -> int:
    """The size of a form's file; a SavedModel is its graph and its variables."""
    files = artifact.manifest.files
    if file == "saved_model.pb":
        return sum(f["bytes"] for n, f in files.items() if n == file or n.startswith("variables/"))
    return files[file]["bytes"]


def _rounded(value: Any) -> float:
    return round(float(value), 3)


def _quartiles(values: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(values, [25, 75])
    return _rounded(low), _rounded(high)
