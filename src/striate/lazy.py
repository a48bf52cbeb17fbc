"""What loads on first use, so that listing nets or reading --help costs nothing."""

import inspect
from importlib import import_module
from types import ModuleType
from typing import Any


class Lazy:
    """Stands for a module and imports it when one of its attributes is first read.

    It never enters `sys.modules`: other libraries must find there a real module or none.
    """

    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(import_module(self._name), attribute)
        setattr(self, attribute, value)
        return value

    def __repr__(self) -> str:
        return f"<lazy module {self._name!r}>"


keras: Any = Lazy("keras")


class Verb(ModuleType):
    """A package that can be called, as its function of the same name.

    `striate.export` is the package, since importing it makes it so, and the verb, since that is
    what one types: `striate.export(artifact)` is `striate.export.export(artifact)`. A package
    becomes one by `sys.modules[__name__].__class__ = Verb`.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function()(*args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        """The function's, which is what editors and notebooks show of a call."""
        return inspect.signature(self._function())

    def _function(self) -> Any:
        return getattr(self, self.__name__.rpartition(".")[2])
