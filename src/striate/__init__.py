"""striate: from a folder of images to a classifier that answers over the network or on a phone."""

from striate import models as models  # registers every net
from striate.registry import create_model as create_model
from striate.registry import list_models as list_models

__version__ = "0.1.0"
