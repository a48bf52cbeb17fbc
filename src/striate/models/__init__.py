"""The nets, one file per family. Importing this package registers them all, without Keras."""

from striate.models import alexnet, lenet, mobilenet, resnet, squeezenet, vgg  # noqa: F401
