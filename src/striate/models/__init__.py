"""The nets, one file per family. Importing this package registers them all, without Keras."""

from striate.models import (  # noqa: F401
    alexnet,
    bn_inception,
    densenet,
    googlenet,
    inception,
    lenet,
    mlp,
    mnasnet,
    mobilenet,
    mobilenet_v3,
    resnet,
    resnext,
    senet,
    shufflenet,
    squeezenet,
    vgg,
    wide_resnet,
)
