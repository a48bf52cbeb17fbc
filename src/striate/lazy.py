"""Heavy modules that load on first use, so that listing nets or reading --help costs nothing."""

import importlib.util
import sys
from types import ModuleType
from typing import Any


def lazy_import(name: str) -> ModuleType:
    """The module `name`, executed when one of its attributes is first read.

    Raises `ModuleNotFoundError` at once when it is not installed.
    """
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


keras = lazy_import("keras")


class Verb(ModuleType):
    """A package that can be called, as its function of the same name.

    `striate.export` is the package, since importing it makes it so, and the verb, since that is
    what one types: `striate.export(artifact)` is `striate.export.export(artifact)`. A package
    becomes one by `sys.modules[__name__].__class__ = Verb`.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return getattr(self, self.__name__.rpartition(".")[2])(*args, **kwargs)
