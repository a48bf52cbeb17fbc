"""The command line of `striate serve`: the fields of `ServerOptions` as flags.

Flags are written as tensorflow_model_server's: `--port=8500`, `--port 8500`, `--enable_batching`,
`--enable_batching=false`, `--noenable_batching`. Its flags that mean nothing here are taken with a
line that says so; one that nobody knows is an error.
"""

import dataclasses
import textwrap
from collections.abc import Iterator
from typing import Any

from striate.errors import UsageError, did_you_mean
from striate.serve.options import ServerOptions, VersionPolicy

# Flags of tensorflow_model_server that have nothing to set here, and why.
MEANINGLESS = {
    "flush_filesystem_caches": "files are read once, by the engine",
    "num_unload_threads": "letting go of a version takes no thread",
    "per_process_gpu_memory_fraction": "memory of a GPU is taken as it is needed",
    "remove_unused_fields_from_bundle_metagraph": "no graph is kept beside the engine",
    "num_tflite_pools": "there is an interpreter for each worker",
    "num_tflite_interpreters_per_pool": "there is an interpreter for each worker",
    "xla_cpu_compilation_enabled": "TensorFlow decides it in the graph",
    "xla_gpu_compilation_enabled": "TensorFlow decides it in the graph",
    "enable_profiler": "there is no profiler service",
    "skip_initialize_tpu": "there is no TPU",
    "enable_grpc_healthcheck_service": "the health service is always there",
    "thread_pool_factory_config_file": "the engines have their own threads",
    "platform_config_file": "the engines are chosen by --engine",
    "use_tfrt": "SavedModels run in a session",
}
REFUSED = {
    "use_alts_credentials": "there is no ALTS here, use --ssl_config_file",
    "enable_per_model_batching_parameters": "one batching_parameters_file holds for all models",
    "mixed_precision": "precision is a matter of the exported form",
}
# What a --model_config_file says for each model
_OF_ONE = ("model_base_path", "version_policy")
_BOOLS = {"true": True, "1": True, "false": False, "0": False}


def parse(arguments: list[str]) -> tuple[dict[str, Any], list[str]]:
    """(fields of `ServerOptions`, what to say about flags without meaning).

    One argument without dashes is the directory, whose name is the model's. Raises `UsageError`.
    """
    kinds = {name: field.metadata["kind"] for name, field in flags().items()}
    found: dict[str, Any] = {}
    notes: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("--"):
            _put_directory(found, argument)
            continue
        name, given, text = argument[2:].partition("=")
        name = name.replace("-", "_")
        if name in REFUSED:
            raise UsageError(f"--{name} is not served: {REFUSED[name]}")
        if name in MEANINGLESS:
            notes.append(f"--{name} is ignored: {MEANINGLESS[name]}")
        elif name in kinds:
            found[name] = _value(name, kinds[name], text if given else None, rest)
            if name == "model_base_path":
                found.setdefault("model_name", "default")  # as tensorflow_model_server calls it
        elif name.startswith("no") and kinds.get(name[2:]) is bool and not given:
            found[name[2:]] = False
        else:
            near = did_you_mean(name, [*kinds, *MEANINGLESS])
            raise UsageError(f"--{name} is no flag of striate serve.{near}")
    if found.get("model_config_file"):
        said = [name for name in _OF_ONE if name in found]
        notes += [
            f"--{name} is ignored: --model_config_file says it of each model" for name in said
        ]
    elif not found.get("model_base_path"):
        raise UsageError(
            "expected the models: striate serve DIRECTORY, --model_base_path or --model_config_file"
        )
    return found, notes


def _put_directory(found: dict[str, Any], directory: str) -> None:
    if directory.startswith("-") or "model_base_path" in found:
        raise UsageError(f"expected one directory, then --flags; got {directory!r} as well")
    found["model_base_path"] = directory


def _value(name: str, kind: type, text: str | None, rest: Iterator[str]) -> Any:
    if text is None and kind is bool:
        return True
    text = next(rest, None) if text is None else text
    if text is None:
        raise UsageError(f"expected a value after --{name}, got nothing")
    if kind is VersionPolicy:
        return VersionPolicy.parse(text)
    try:
        return _BOOLS[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        words = {bool: "true or false", int: "a whole number", float: "a number"}
        raise UsageError(f"expected {words[kind]} for --{name}, got {text!r}") from None


def flags() -> dict[str, dataclasses.Field]:
    """Name -> field of `ServerOptions`, in the order of their groups."""
    return {field.name: field for field in dataclasses.fields(ServerOptions)}


def help_text(width: int = 80) -> str:
    """The page that `striate serve --help` prints, in lines of at most `width` characters."""
    lines = [
        "Usage: striate serve [DIRECTORY] [--flag=value]...",
        "",
        *textwrap.wrap(
            "Answer over TensorFlow Serving's gRPC and REST, and over KServe v2 (the Open "
            "Inference Protocol), until SIGTERM, which lets requests in flight end. New versions "
            "are found and loaded.",
            width,
        ),
    ]
    group = ""
    for name, field in flags().items():
        if field.metadata["group"] != group:
            group = field.metadata["group"]
            lines += ["", f"{group}:"]
        lines.append(f"  {_written(name, field)}")
        indent = " " * 6
        said = f"{field.metadata['help']}{_default(field)}"
        lines += textwrap.wrap(
            said, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
        )
    return "\n".join(lines)


def _written(name: str, field: dataclasses.Field) -> str:
    kind = field.metadata["kind"]
    if kind is bool:
        return f"--{name}"
    words = {str: "TEXT", int: "N", float: "SECONDS", VersionPolicy: "POLICY"}
    return f"--{name}={field.metadata['unit'] or words[kind]}"


def _default(field: dataclasses.Field) -> str:
    if field.default is True:
        return f" [on; --no{field.name}]"
    silent = field.default in (None, "", False) or field.metadata["kind"] is VersionPolicy
    return "" if silent else f" [{field.default}]"
