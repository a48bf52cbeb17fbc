"""Training and fine-tuning: a recipe and pictures become an artifact.

>>> from striate.train import finetune, train
>>> artifact = finetune("squeezenet1_1", data="my_pictures/", output="saved_models/mine")
>>> artifact = train("recipe.yaml", "saved_models/mine")

The same call again continues a run that was killed, exactly where it stood.
"""

import sys

from striate.lazy import Verb
from striate.train.recipe import Recipe, make_recipe, shipped_recipes
from striate.train.run import Fitted, cross_validate, finetune, finetune_recipe, fit, train

__all__ = [
    "Fitted",
    "Recipe",
    "cross_validate",
    "finetune",
    "finetune_recipe",
    "fit",
    "make_recipe",
    "shipped_recipes",
    "train",
]

sys.modules[__name__].__class__ = Verb  # striate.train(...) is striate.train.train(...)
