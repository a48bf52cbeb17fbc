"""Training and fine-tuning: a recipe and pictures become an artifact.

>>> from striate.train import finetune, train
>>> artifact = finetune("squeezenet1_1", data="my_pictures/", output="saved_models/mine")
>>> artifact = train("recipe.yaml", "saved_models/mine")

The same call again continues a run that was killed, exactly where it stood.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from striate.lazy import Verb
from striate.train.recipe import (
    Recipe,
    finetune_recipe,
    make_recipe,
    recipe_head,
    shipped_recipes,
)

if TYPE_CHECKING:
    from striate.train.run import Fitted, cross_validate, finetune, fit, train

__all__ = [
    "Fitted",
    "Recipe",
    "cross_validate",
    "finetune",
    "finetune_recipe",
    "fit",
    "make_recipe",
    "recipe_head",
    "shipped_recipes",
    "train",
]


def __getattr__(name: str) -> Any:
    """What runs a recipe loads numpy and more; a mistake in one must be answered before that."""
    if name in __all__:
        return getattr(import_module("striate.train.run"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


sys.modules[__name__].__class__ = Verb  # striate.train(...) is striate.train.train(...)
