"""Several classifiers as one: by the mean of what they say, or of what they weigh.

    committee = ensemble(["saved_models/a", "saved_models/b"], "saved_models/committee")
    soup = average_weights(["saved_models/a", "saved_models/b"], "saved_models/soup", data=...)
    found = connect("saved_models/a", "saved_models/b", data=...)

What comes out is an artifact like any other: it is evaluated, exported, verified and served.
"""

import sys

from striate.ensemble.curve import Curve as Curve
from striate.ensemble.curve import connect as connect
from striate.ensemble.scores import ensemble as ensemble
from striate.ensemble.weights import average_weights as average_weights
from striate.lazy import Verb

__all__ = ["Curve", "average_weights", "connect", "ensemble"]

sys.modules[__name__].__class__ = Verb  # striate.ensemble(...) is striate.ensemble.ensemble(...)
