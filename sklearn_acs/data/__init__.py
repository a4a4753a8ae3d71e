"""Data in users' formats becomes tensors, labels become codes, and both become batches; image sets are loaded."""

from sklearn_acs.data.image_sets import (
    ImageNetSubset,
    imagenet_subset,
    load_cifar10,
    load_cifar100,
    load_fashion_mnist,
    load_svhn,
)

__all__ = ["ImageNetSubset", "imagenet_subset", "load_cifar10", "load_cifar100", "load_fashion_mnist", "load_svhn"]
