"""One engine in a process of its own, asked over its standard input and output, one JSON a line.

    python -m striate.bench.worker ARTIFACT ENGINE THREADS BATCH

answers first with what it is and how well it agrees with the goldens; then, to every line `round`,
with the seconds of one picture and of a batch, and to `memory` with its peak.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from striate.errors import EngineError, StriateError

QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "GRPC_VERBOSITY": "ERROR"}
LONG_ENOUGH = 0.02  # seconds: shorter calls are repeated until they fill that


class Worker:
    """The parent's end: `one` and `many` hold the seconds of every round, `close` ends it.

    program: what runs `main`, as arguments of Python.
    """

    def __init__(
        self,
        path: Path,
        engine: str,
        *,
        threads: int,
        batch: int,
        program: Sequence[str] = ("-m", "striate.bench.worker"),
    ):
        self.engine, self.threads, self.batch = engine, threads, batch
        self.one: list[float] = []
        self.many: list[float] = []
        self._process = subprocess.Popen(
            [sys.executable, *program, str(path), engine, str(threads), str(batch)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | QUIET,
        )
        self.facts = self._answer()

    def time_one_round(self) -> None:
        one, many = self._ask("round")
        self.one.append(one)
        self.many.append(many)

    def peak_mb(self) -> float:
        return self._ask("memory")

    def close(self) -> None:
        self._process.communicate()

    def _ask(self, question: str) -> Any:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended, as the missing answer will say
            self._process.stdin.write(question + "\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.close()
            code = self._process.returncode
            raise EngineError(f"the {self.engine} engine ended its process (exit status {code})")
        found = json.loads(line)
        if isinstance(found, dict) and "refused" in found:
            self.close()
            raise EngineError(found["refused"])
        return found


def main(
    path: str, name: str, threads: int, batch: int, opener: Callable[..., Any] | None = None
) -> None:
    """opener: makes the engine in place of `striate.runtime.open_engine`."""
    from striate.artifact import load
    from striate.runtime import needs_tensorflow, open_engine

    answers = os.fdopen(os.dup(1), "w")  # what libraries print is not an answer
    os.dup2(2, 1)

    def answer(found: Any) -> None:
        print(json.dumps(found), file=answers, flush=True)

    artifact = load(path)
    if needs_tensorflow(artifact, name):
        _limit_tensorflow(threads)
    try:
        engine = (opener or open_engine)(artifact, name, threads=threads)
        images, scores = artifact.goldens()
        facts = {"kernel": engine.kernel, **_agreement(engine.predict(images), scores)}
    except StriateError as error:
        answer({"refused": str(error)})
        return
    pictures = np.resize(images, (batch, *images.shape[1:]))
    for warm in (pictures[:1], pictures):
        engine.predict(warm)
    answer(facts)
    for question in sys.stdin:
        if question.strip() == "memory":
            answer(_peak_mb())
        else:
            answer([_seconds(engine, pictures[:1]), _seconds(engine, pictures)])


def _limit_tensorflow(threads: int) -> None:
    """Keras computes on TensorFlow's threads, which it has no word for."""
    try:
        import tensorflow as tf
    except ModuleNotFoundError:
        return
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def _agreement(found: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    return {
        "max_abs_diff": float(np.abs(found - scores).max()),
        "top1_agreement": float((found.argmax(-1) == scores.argmax(-1)).mean()),
    }


def _seconds(engine, images: np.ndarray) -> float:
    """Of one call; the mean of as many as fill `LONG_ENOUGH`, after one that is not counted.

    The first call after others' work finds the caches cold and the threads asleep.
    """
    engine.predict(images)
    calls, start = 0, time.perf_counter()
    while True:
        engine.predict(images)
        calls += 1
        passed = time.perf_counter() - start
        if passed >= LONG_ENOUGH:
            return passed / calls


def _peak_mb() -> float:
    """The most memory that this process ever held. Linux counts it since the program began;
    elsewhere, and in sandboxes that do not count it, what `getrusage` says."""
    status = Path("/proc/self/status")
    found = re.search(r"^VmHWM:\s*(\d+)", status.read_text() if status.is_file() else "", re.M)
    if found:
        return int(found[1]) * 1024 / 1e6
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
