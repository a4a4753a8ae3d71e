"""Loaders give image sets of torchvision as arrays (X, y), and classes of ImageNet as a Dataset read from disk."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

__all__ = ["ImageNetSubset", "imagenet_subset", "load_cifar10", "load_cifar100", "load_fashion_mnist", "load_svhn"]

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]


def load_cifar10(root: str | Path, *, train: bool = True, download: bool = False) -> Arrays:
    """Load CIFAR-10: 50,000 training and 10,000 test images in 10 classes.

    Parameters
    ----------
    root : str or Path
        Folder that holds torchvision's ``cifar-10-batches-py``.
    train : bool, default=True
        Training or test images.
    download : bool, default=False
        Whether to download missing files.

    Returns
    -------
    X : uint8 array of shape (n_samples, 32, 32, 3)
        Images.
    y : int64 array of shape (n_samples,)
        Classes.

    Raises
    ------
    RuntimeError
        If the files are not there or are damaged.

    Examples
    --------
    >>> from sklearn_acs.data import load_cifar10
    >>> X, y = load_cifar10("data", download=True)  # doctest: +SKIP
    """
    return _load("CIFAR10", root, train=train, download=download)


def load_cifar100(root: str | Path, *, train: bool = True, download: bool = False) -> Arrays:
    """Load CIFAR-100: 50,000 training and 10,000 test images in 100 classes.

    Parameters
    ----------
    root : str or Path
        Folder that holds torchvision's ``cifar-100-python``.
    train : bool, default=True
        Training or test images.
    download : bool, default=False
        Whether to download missing files.

    Returns
    -------
    X : uint8 array of shape (n_samples, 32, 32, 3)
        Images.
    y : int64 array of shape (n_samples,)
        Classes.

    Raises
    ------
    RuntimeError
        If the files are not there or are damaged.
    """
    return _load("CIFAR100", root, train=train, download=download)


def load_svhn(root: str | Path, *, train: bool = True, download: bool = False) -> Arrays:
    """Load SVHN, cropped house-number digits: 73,257 training and 26,032 test images in 10 classes.

    Parameters
    ----------
    root : str or Path
        Folder that holds ``train_32x32.mat`` and ``test_32x32.mat``.
    train : bool, default=True
        Training or test images.
    download : bool, default=False
        Whether to download missing files.

    Returns
    -------
    X : uint8 array of shape (n_samples, 32, 32, 3)
        Images.
    y : int64 array of shape (n_samples,)
        Classes; the digit 0 is class 0.

    Raises
    ------
    RuntimeError
        If the file is not there or is damaged.
    """
    X, y = _load("SVHN", root, split="train" if train else "test", download=download)
    return np.ascontiguousarray(X.transpose(0, 2, 3, 1)), y  # torchvision has its channels first


def load_fashion_mnist(root: str | Path, *, train: bool = True, download: bool = False) -> Arrays:
    """Load Fashion-MNIST: 60,000 training and 10,000 test images in 10 classes.

    Parameters
    ----------
    root : str or Path
        Folder that holds torchvision's ``FashionMNIST/raw``.
    train : bool, default=True
        Training or test images.
    download : bool, default=False
        Whether to download missing files.

    Returns
    -------
    X : uint8 array of shape (n_samples, 28, 28)
        Grey images.
    y : int64 array of shape (n_samples,)
        Classes.

    Raises
    ------
    RuntimeError
        If the files are not there.
    """
    return _load("FashionMNIST", root, train=train, download=download)


def _load(name: str, root: str | Path, **options: Any) -> Arrays:
    """Load the images and labels of torchvision's data set of that name."""
    from torchvision import datasets

    found = getattr(datasets, name)(str(root), **options)
    labels = found.labels if hasattr(found, "labels") else found.targets
    return np.ascontiguousarray(found.data, dtype=np.uint8), np.asarray(labels, dtype=np.int64)


class ImageNetSubset(Dataset[tuple[Tensor, int]]):
    """Reads images of some classes of an ImageNet folder from disk, each when it is asked for.

    Parameters
    ----------
    folder : Path
        Contains one folder of images per class.
    wnids : sequence of str
        The classes, by the names of their folders.
    transform : callable
        From a PIL image to what the model takes.

    Attributes
    ----------
    classes : list of str
        The classes; a label is a position in this list.
    samples : list of (str, int)
        Path and label of each image.
    targets : list of int
        Labels alone.
    """

    def __init__(self, folder: Path, wnids: Sequence[str], transform: Callable[[Any], Tensor]) -> None:
        from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

        self.classes = list(wnids)
        self.transform = transform
        labels = {wnid: label for label, wnid in enumerate(self.classes)}
        self.samples = make_dataset(folder, labels, extensions=IMG_EXTENSIONS)
        self.targets = [label for _, label in self.samples]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from torchvision.datasets.folder import default_loader

        path, label = self.samples[index]
        return self.transform(default_loader(path)), label


def imagenet_subset(
    root: str | Path, wnids: Sequence[str], *, split: str = "train", transform: Callable[[Any], Tensor] | None = None
) -> ImageNetSubset:
    """Find the images of some classes of ImageNet, ``root/split/wnid/*.JPEG``, which are read when asked for.

    Parameters
    ----------
    root : str or Path
        The ImageNet folder.
    wnids : sequence of str
        WordNet ids, such as "n02084071"; their order is that of the labels 0, 1, ...
    split : str, default="train"
        Folder within `root`, usually "train" or "val".
    transform : callable, default=None
        From a PIL image to what the model takes. None resizes the shorter side to 256, crops the central
        224 x 224 and gives a float tensor in [0, 1], for training images too: a coreset selects fixed samples, so
        random augmentation belongs in the estimator's `augment`.

    Returns
    -------
    ImageNetSubset
        A torch Dataset of (x, label) with `classes` and `targets`.

    Raises
    ------
    ValueError
        If there are no folders for some ids, if some are paths, or if there are no ids or repeated ones.

    Examples
    --------
    >>> from sklearn_acs.data import imagenet_subset
    >>> dogs_and_cats = imagenet_subset("imagenet", ["n02084071", "n02121808"])  # doctest: +SKIP
    """
    if isinstance(wnids, str) or not all(isinstance(wnid, str) for wnid in wnids):
        raise ValueError(f"wnids must be a list of names of folders; got {wnids!r}")
    folder = Path(root) / split
    if nested := [wnid for wnid in wnids if wnid in ("", ".", "..") or Path(wnid).name != wnid]:
        raise ValueError(f"wnids must be names of folders directly in {folder}, not paths; got {nested}")
    missing = [wnid for wnid in wnids if not (folder / wnid).is_dir()]
    if missing:
        raise ValueError(f"wnids must be names of folders in {folder}; there are none for {missing}")
    if not wnids or len(set(wnids)) < len(wnids):
        raise ValueError(f"wnids must be one or more different ids; got {list(wnids)}")
    return ImageNetSubset(folder, wnids, _resize_and_crop() if transform is None else transform)


def _resize_and_crop() -> Callable[[Any], Tensor]:
    from torchvision.transforms import v2

    return v2.Compose([v2.Resize(256), v2.CenterCrop(224), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
