"""Which models a server is told to serve: by a directory, or by a configuration file.

The file is TensorFlow Serving's, a ModelServerConfig in protobuf's text format:

    model_config_list {
      config {
        name: "flowers"  base_path: "/models/flowers"  model_platform: "tensorflow"
        model_version_policy { specific { versions: 3  versions: 4 } }
        version_labels { key: "stable" value: 3 }
        logging_config { sampling_config { sampling_rate: 0.1 } }
      }
    }
"""

import logging
import os
from pathlib import Path, PurePath
from typing import Any

from google.protobuf import text_format

from striate.artifact import MANIFEST
from striate.errors import ArtifactError, UsageError
from striate.serve import protos
from striate.serve.options import ModelConfig, Sampling, VersionPolicy, is_name
from striate.serve.repository import FOREIGN, complete_versions
from striate.serve.status import ServingError, invalid

log = logging.getLogger("striate.serve")

PLATFORMS = ("tensorflow", "striate")
COLLECTORS = ("", "tfrecord")  # types of logs that are written


def find_models(base_path: Path, name: str | None, policy: VersionPolicy) -> list[ModelConfig]:
    """The models in a directory: a model's (with versions in it), a version's, or one of models,
    but for those whose names begin with a dot: ..data of a ConfigMap shows each model once more.

    Raises `ArtifactError` when it is none of these, or when one name is given to several models.
    """
    base_path = Path(os.path.abspath(base_path))  # links in it may lead elsewhere tomorrow
    try:
        return _found_in(base_path, name, policy)
    except OSError as error:
        raise ArtifactError(f"{base_path}: cannot be read ({error.strerror})") from None


def _found_in(base_path: Path, name: str | None, policy: VersionPolicy) -> list[ModelConfig]:
    if not base_path.is_dir():
        raise ArtifactError(f"{base_path}: expected a model directory, got nothing there")
    if (version := _version_at(base_path)) is not None:
        only = VersionPolicy("specific", versions=(int(version.name),))
        return [ModelConfig(name or _name_of(version.parent), version.parent, only)]
    if complete_versions(base_path):
        return [ModelConfig(name or _name_of(base_path), base_path, policy)]
    shown = [path for path in base_path.iterdir() if not path.name.startswith(".")]
    inside = sorted(path for path in shown if path.is_dir() and _is_model(path))
    if name is not None and len(inside) != 1:
        inside = []
    if not inside:
        raise ArtifactError(
            f"{base_path}: expected version directories (1, 2, ...) with {MANIFEST}, a SavedModel, "
            "model.tflite or model.onnx in them; name the directory of one model, one of its "
            "versions, or a directory of models"
        )
    return [ModelConfig(name or _name_of(path), path, policy) for path in inside]


def _name_of(directory: Path) -> str:
    """What a model is called by its directory."""
    if not is_name(directory.name):
        raise ArtifactError(
            f"{str(directory)!r}: expected a directory with a name that can be printed, by which "
            "requests call the model; give it another with --model_name"
        )
    return directory.name


def _version_at(path: Path) -> Path | None:
    """The directory of a version, where a path or the link that it is leads to one."""
    for found in (path, path.resolve()):
        if found.name.isdecimal() and any(
            (found / name).is_file() for name in (MANIFEST, *FOREIGN)
        ):
            return found
    return None


def _is_model(path: Path) -> bool:
    """Whether there are versions in a directory; none that anybody sees in one that is shut, as
    lost+found is in every volume of its own."""
    try:
        return bool(complete_versions(path))
    except OSError as error:
        log.warning("%s cannot be read (%s)", path, error.strerror)
        return False


def read_config_file(path: str | Path) -> list[ModelConfig]:
    """The models of a configuration file; `UsageError` for one that cannot be understood."""
    message = protos.model_server_config_pb2.ModelServerConfig()
    try:
        text_format.Parse(Path(path).read_text("utf-8"), message)
        return configs_of(message)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise UsageError(
            f"Error parsing text-format tensorflow.serving.ModelServerConfig: {path}:{error}"
        ) from None
    except ServingError as error:
        raise UsageError(f"{path}: {error}") from None


def configs_from_request(message: Any) -> list[ModelConfig]:
    """The same, of a message that came over the network: no request chooses where files are.

    Raises `ServingError` (INVALID_ARGUMENT) as `configs_of` does.
    """
    configs = configs_of(message)
    for config in configs:
        prefix = PurePath(config.logged.prefix if config.logged else "")
        if prefix.is_absolute() or ".." in prefix.parts:
            raise invalid(
                f"Model {config.name}: expected a filename_prefix below --request_log_dir in a "
                f"request, got {str(prefix)!r}; an absolute one can be in the configuration file"
            )
    return configs


def configs_of(message: Any) -> list[ModelConfig]:
    """The models of a ModelServerConfig.

    Raises `ServingError` (INVALID_ARGUMENT) for one that TensorFlow Serving refuses as well.
    """
    if message.WhichOneof("config") != "model_config_list":
        raise invalid("Expected a ModelServerConfig with a model_config_list, got none")
    configs = [_config_of(config) for config in message.model_config_list.config]
    names = [config.name for config in configs]
    for name in names:
        if names.count(name) > 1:
            raise invalid(f"Illegal to list model {name} multiple times in config list")
    return configs


def _config_of(config: Any) -> ModelConfig:
    if not config.name:
        raise invalid("Expected every model to have a name, got one without")
    if not is_name(config.name):
        raise invalid(
            f"Expected a model name of characters that can be printed, got {config.name!r}"
        )
    platform = config.model_platform or "tensorflow"
    if platform not in PLATFORMS:
        raise invalid(f"Model {config.name} requests unsupported platform {platform}")
    if not Path(config.base_path).is_absolute():
        raise invalid(
            f"Expected model {config.name} to have an absolute path or URI; "
            f"got base_path()={config.base_path}"
        )
    return ModelConfig(
        config.name,
        Path(config.base_path),
        _policy_of(config),
        dict(config.version_labels),
        _sampling_of(config) if config.HasField("logging_config") else None,
    )


def _sampling_of(config: Any) -> Sampling:
    collector = config.logging_config.log_collector_config
    share = config.logging_config.sampling_config.sampling_rate
    if collector.type not in COLLECTORS:
        raise invalid(f"Cannot find LogCollector::Factory for type: {collector.type}")
    if not 0 <= share <= 1:
        raise invalid(f"Model {config.name}: expected a sampling_rate from 0 to 1, got {share:g}")
    return Sampling(share, collector.filename_prefix)


def _policy_of(config: Any) -> VersionPolicy:
    policy = config.model_version_policy
    kind = policy.WhichOneof("policy_choice")
    if kind == "all":
        return VersionPolicy("all")
    if kind == "specific":
        if not policy.specific.versions:
            raise invalid(f"Model {config.name}: expected versions in its policy, got none")
        return VersionPolicy("specific", versions=tuple(policy.specific.versions))
    return VersionPolicy("latest", count=policy.latest.num_versions or 1)
