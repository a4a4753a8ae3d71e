"""What is trained on: the formats that users hold, the one way from arrays to tensors, batches, and image sets."""

from sklearn_acs.data.image_sets import (
    ImageNetSubset,
    imagenet_subset,
    load_cifar10,
    load_cifar100,
    load_fashion_mnist,
    load_svhn,
)

__all__ = ["ImageNetSubset", "imagenet_subset", "load_cifar10", "load_cifar100", "load_fashion_mnist", "load_svhn"]
