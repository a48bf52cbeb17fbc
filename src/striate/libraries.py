"""The libraries that a part of striate needs, where an installation goes without some of them.

What is asked for is checked before work begins, so that no training is lost to a page that cannot
be written after it.
"""

from importlib import util

from striate.errors import StriateError

# Modules whose package is not called as they are
PACKAGES = {
    "PIL": "pillow",
    "google": "protobuf",
    "grpc": "grpcio",
    "grpc_health": "grpcio-health-checking",
    "grpc_reflection": "grpcio-reflection",
    "opentelemetry": "opentelemetry-sdk",
    "sklearn": "scikit-learn",
    "tensorflow_serving": "tensorflow-serving-api",
    "yaml": "pyyaml",
}


def is_installed(module: str) -> bool:
    """Whether a module can be imported; loads nothing."""
    return util.find_spec(module) is not None


def need(what: str, *modules: str) -> None:
    """`StriateError` where a library that `what` needs is not installed; loads nothing."""
    if missing := [name for name in modules if not is_installed(name)]:
        raise StriateError(_message(what, missing))


def missing_library(error: ModuleNotFoundError) -> str | None:
    """What to say of an import that failed for want of a library; None where it is another's fault,
    such as a module that the library no longer has."""
    name = (error.name or "").partition(".")[0]
    if not name or is_installed(name):
        return None
    return _message("this", [name])


def _message(what: str, missing: list[str]) -> str:
    packages = " ".join(PACKAGES.get(name, name.replace("_", "-")) for name in missing)
    return f"{what} needs what is not installed here: pip install {packages}"
