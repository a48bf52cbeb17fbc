"""`striate doctor`: what this machine and this environment can do."""

import platform
from collections import Counter
from importlib import metadata
from typing import Any

from striate.cli.console import (
    BACKENDS,
    Json,
    backend_problem,
    emit,
    facts,
    keras_backend,
    quiet_libraries,
    table,
    waiting,
)
from striate.errors import first_line
from striate.libraries import is_installed

# What the kernels of engines ask of a processor: of x86, then of ARM
VECTORS = ("avx2", "avx512f", "avx512_vpopcntdq", "amx_bf16", "asimddp", "i8mm", "bf16", "sve")


def doctor(as_json: Json = False) -> None:
    """Say what this machine and environment can do."""
    document: dict[str, Any] = {
        "machine": _machine(),
        "keras_backend": keras_backend(),
        "backends": {name: _version(name) for name in BACKENDS},
        "training": _training(),
        "engines": _engines(),
        "binary": _binary(),
    }
    if as_json:
        emit(document)
        return
    facts({key: str(value) for key, value in document["machine"].items()}, indent=2)
    print()
    training = document["training"]
    used = document["keras_backend"]
    rows = [
        [name, version or "not installed", _counted(training["devices"]) if name == used else ""]
        for name, version in document["backends"].items()
    ]
    table(["backend", "version", "trains on"], rows)
    if training["problem"]:
        print(training["problem"])
    rows = [[e["engine"], e["version"], e["kernel"]] for e in document["engines"]]
    table(["engine", "version", "kernel"], rows)
    binary = document["binary"]
    if binary["problem"]:
        print(f"binary convolutions cannot run: {binary['problem']}")
        return
    print(f"binary convolutions run by {binary['kernel']}, of {', '.join(binary['kernels'])}")
    if binary["stem"]:
        print(f"what a packed net begins with is run by {binary['stem']}")
    if not binary["library"]:
        print(
            "(no kernels are compiled: as slow as floats; with make and a C compiler,\n"
            "reinstall striate, or in a checkout run `make -C native`)"
        )


def _machine() -> dict[str, Any]:
    from striate.serve.processors import processors

    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "cores": processors(),
        "cpu": _cpu(),
    }


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            facts = dict(line.split(":", 1) for line in lines if ":" in line)
    except OSError:
        return platform.processor() or platform.machine()
    found = {key.strip(): value.strip() for key, value in facts.items()}
    x86 = "flags" in found
    flags = (found["flags"] if x86 else found.get("Features", "")).split()
    vector = [name for name in VECTORS if name in flags]
    least = "no AVX2" if x86 else "no dot products"
    return f"{found.get('model name', platform.machine())} ({' '.join(vector) or least})"


def _version(name: str) -> str | None:
    if not is_installed(name):
        return None
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "?"


def _training() -> dict[str, Any]:
    """What Keras trains on here, by name: GPUs, or the processor; problem: why it cannot."""
    problem = backend_problem()
    if problem:
        return {"devices": [], "problem": problem}
    backend = keras_backend()
    with waiting(f"loading {backend}"), quiet_libraries():
        try:
            devices = _jax_devices() if backend == "jax" else _tensorflow_devices()
        except Exception as error:  # whatever is wrong with an installation
            return {"devices": [], "problem": f"{backend} does not load: {first_line(error)}"}
    return {"devices": devices, "problem": None}


def _jax_devices() -> list[str]:
    import jax

    return [device.device_kind for device in jax.devices()]


def _tensorflow_devices() -> list[str]:
    import tensorflow as tf

    found = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(device) for device in found]
    return [about.get("device_name", "GPU") for about in details] or ["cpu"]


def _counted(names: list[str]) -> str:
    """`2 x NVIDIA H200`: each name once, and how many there are of it where there are several."""
    counts = Counter(names)
    return ", ".join(name if n == 1 else f"{n} x {name}" for name, n in counts.items())


def _engines() -> list[dict[str, str | None]]:
    from striate.runtime import ENGINES, installed

    versions = installed()
    return [
        {
            "engine": name,
            "version": versions.get(name, "not installed"),
            "kernel": _kernel(name) if name in versions else None,
        }
        for name in ENGINES
    ]


def _binary() -> dict[str, Any]:
    """Which kernel computes binary convolutions; `library` is None where only numpy can.

    stem: the matrix unit that computes what a net begins with, or None.
    problem: why none can, as a library of another version or an unknown STRIATE_KERNEL.
    """
    from striate.errors import StriateError
    from striate.runtime.binary import chosen_kernel, kernels, library, stem_kernel

    try:
        native = library()
        found: dict[str, Any] = {"kernel": chosen_kernel(), "kernels": kernels()}
        found["stem"] = stem_kernel()
    except StriateError as error:
        nothing = dict.fromkeys(("kernel", "stem", "library"))
        return {**nothing, "kernels": [], "problem": str(error)}
    return {**found, "library": native and native._name, "problem": None}


def _kernel(engine: str) -> str | None:
    """What does the arithmetic, where finding out costs little."""
    if engine == "onnx":
        from striate.runtime.onnx import devices

        with quiet_libraries():
            return ", ".join(devices())
    if engine in ("packed", "runner"):
        return _binary()["kernel"]
    return {"litert": "XNNPACK", "tensorflow": "oneDNN", "keras": "the backend's"}.get(engine)
