"""Looking for what a recipe leaves open: a learning rate by a range test, several numbers by random
search, a net by one that writes nets.

>>> from striate.search import architecture_search, random_search, range_test
>>> range_test({"model": "lenet5"}, "digits.npz").suggestion
>>> ranges = ["optimizer.learning_rate=log:1e-5:1e-1", "penalty.l2=log:1e-7:1e-2"]
>>> best, *others = random_search({"model": "lenet5"}, "digits.npz", ranges, trials=20)
>>> best, *others = architecture_search({"model": "nas_v1_cifar"}, "digits.npz", trials=100)
"""

from striate.search.architecture import Space, architecture_search
from striate.search.random import Range, random_search
from striate.search.rates import RangeTest, range_test
from striate.search.trials import Trial

__all__ = [
    "Range",
    "RangeTest",
    "Space",
    "Trial",
    "architecture_search",
    "random_search",
    "range_test",
]
