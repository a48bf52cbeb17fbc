"""API keys: who may ask which models.

A file in YAML, looked at again when it changes:

    keys:
      - name: shop                          # what the access log calls it
        sha256: 5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8
        models: [flowers, animals]
      - name: admin
        sha256: ...
        models: "*"                         # and metrics, the page, and other configurations

A key is sent as `Authorization: Bearer KEY`, over gRPC as metadata `authorization`. The file holds
hashes, so that who reads it can ask nothing; keys are long and random, so a plain hash will do.
"""

import hashlib
import hmac
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from striate.errors import UsageError
from striate.serve.status import Code, ServingError
from striate.serve.watched import Watched

# What asks whether the server is alive and ready, and needs no key. So do /healthz and gRPC's own.
PROBES = (
    *(f"{method} /v2/health/{what}" for method in ("GET", "HEAD") for what in ("live", "ready")),
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady",
)

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True)
class ApiKey:
    """Who shows it, its hash, and the models that it opens; None for all, and what is about all."""

    name: str
    digest: bytes
    models: frozenset[str] | None


class Keys:
    """The keys in a file. Raises `UsageError` for a file that is not one."""

    def __init__(self, path: str):
        self._file = Watched(path, read, "keys")

    def identify(self, authorization: str | None) -> ApiKey:
        """The key that a request shows; UNAUTHENTICATED for none, or one that nobody has."""
        scheme, _, token = (authorization or "").strip().partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise _unknown("Expected an API key, sent as Authorization: Bearer KEY")
        digest = hashlib.sha256(token.strip().encode()).digest()
        # All of them are compared, each in constant time: how long it takes tells nothing
        found = [key for key in self._file.said if hmac.compare_digest(key.digest, digest)]
        if not found:
            raise _unknown("The API key is not known here")
        return found[0]

    def refresh(self) -> None:
        """Read the file again if it changed; one that is broken changes nothing."""
        self._file.refresh()


def _unknown(message: str) -> ServingError:
    return ServingError(Code.UNAUTHENTICATED, message)


def read(path: Path) -> list[ApiKey]:
    """The keys in a file; `UsageError` says what is wrong with it."""
    try:
        document = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: expected YAML ({str(error).splitlines()[0]})") from None
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list) or not entries:
        raise UsageError(f"{path}: expected a list `keys` of name, sha256 and models")
    found = [_key(path, number, entry) for number, entry in enumerate(entries)]
    if len({key.digest for key in found}) < len(found):
        raise UsageError(f"{path}: expected every key once, got the same hash twice")
    return found


def _key(path: Path, number: int, entry: Any) -> ApiKey:
    where = f"{path}: keys[{number}]"
    if not isinstance(entry, dict) or entry.keys() != {"name", "sha256", "models"}:
        raise UsageError(f"{where}: expected name, sha256 and models")  # not shown: it is secret
    digest, models = entry["sha256"], entry["models"]
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        raise UsageError(f"{where}: expected sha256 of 64 hexadecimal digits, in quotes")
    if models == "*":
        return ApiKey(str(entry["name"]), bytes.fromhex(digest), None)
    if not isinstance(models, list) or not all(isinstance(name, str) for name in models):
        raise UsageError(f'{where}: expected models, a list of names or "*"')
    return ApiKey(str(entry["name"]), bytes.fromhex(digest), frozenset(models))
