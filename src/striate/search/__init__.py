"""Looking for hyper-parameters: a learning rate by a range test, several by random search.

>>> from striate.search import random_search, range_test
>>> range_test({"model": "lenet5"}, "digits.npz").suggestion
>>> ranges = ["optimizer.learning_rate=log:1e-5:1e-1", "penalty.l2=log:1e-7:1e-2"]
>>> best, *others = random_search({"model": "lenet5"}, "digits.npz", ranges, trials=20)
"""

from striate.search.random import Range, Trial, random_search
from striate.search.rates import RangeTest, range_test

__all__ = ["Range", "RangeTest", "Trial", "random_search", "range_test"]
