"""The nets, one file per family. Importing this package registers them all, without Keras."""

from striate.models import lenet, mobilenet, squeezenet  # noqa: F401
