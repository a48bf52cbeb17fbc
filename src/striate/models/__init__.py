"""The nets, one file per family. Importing this package registers them all, without Keras."""

from striate.models import (  # noqa: F401
    alexnet,
    densenet,
    lenet,
    mlp,
    mobilenet,
    resnet,
    resnext,
    senet,
    squeezenet,
    vgg,
    wide_resnet,
)
