"""Items reads a Dataset, whatever its items look like, as samples and their labels; the labels may be read alone."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from skorch.helper import SliceDataset
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset
from tqdm import tqdm

from sklearn_acs.data.labels import read_labels
from sklearn_acs.data.tensors import as_tensor, check_numbers

SAMPLE_KEYS = ("image", "img", "images", "pixel_values", "x", "X", "input", "inputs", "features", "data")
LABEL_KEYS = ("label", "labels", "target", "targets", "y", "fine_label", "class")
"""Names of the sample and of its label in items that are mappings, as Hugging Face's are; the first that is there."""

SAMPLES_FOR_STATISTICS = 512
"""Evenly spaced samples of a Dataset that its shape, mean, scale and range are taken from."""

SAMPLES_READ_TWICE = 16
"""Samples of a Dataset that are read again to see whether they change: all of them are flipped at random by chance
twice alike once in 65,536 times."""

LABELS_AT_ONCE = 256
"""Labels that a worker hands over together."""

_read_before: WeakKeyDictionary[Any, np.ndarray] = WeakKeyDictionary()
"""Labels of Datasets that had to be read for them: used again as `targets` would be, after a look at some items."""


class Items(Dataset):
    """Reads items of a Dataset as (sample, label): pairs, mappings, or samples alone, whose label is None.

    Parameters
    ----------
    dataset : Dataset
        torch's, Hugging Face's or skorch's SliceDataset.
    rows : ndarray of int or None, default=None
        The items to read; None is all.
    """

    def __init__(self, dataset: Any, rows: np.ndarray | None = None) -> None:
        self.dataset, self.rows = dataset, np.arange(len(dataset)) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        sample, label = parts_of(self.dataset[int(self.rows[index])], self.name(index))
        return as_tensor(check_numbers(sample, self.name(index))), label

    def name(self, index: int) -> str:
        """Name an item, in errors."""
        return f"item {self.rows[index]} of X"

    def take(self, rows: np.ndarray) -> "Items":
        """Take a part, which is not read."""
        return Items(self.dataset, self.rows[rows])

    def example(self) -> tuple[Tensor, np.ndarray, list]:
        """Read evenly spaced items: a batch of their samples, where they stand, and their labels."""
        at = np.linspace(0, len(self) - 1, min(len(self), SAMPLES_FOR_STATISTICS)).astype(int)
        samples, labels = zip(*(self[i] for i in at), strict=True)
        for i, sample in zip(at, samples, strict=True):
            if sample.shape != samples[0].shape:
                shapes = f"{tuple(sample.shape)}, and {self.name(0)} has {tuple(samples[0].shape)}"
                raise ValueError(
                    f"{self.name(i)} has the shape {shapes}; all must be alike: resize or crop them in the Dataset"
                )
        return torch.stack(samples), at, list(labels)

    def repeats(self) -> bool:
        """Tell whether an item gives the same sample each time; some, evenly spaced, are read twice."""
        at = np.linspace(0, len(self) - 1, min(len(self), SAMPLES_READ_TWICE)).astype(int)
        return all(torch.equal(self[i][0], self[i][0]) for i in at)

    def labels(self, at: np.ndarray, seen: list, loader_options: Mapping[str, Any], verbose: int = 0) -> np.ndarray:
        """Find the labels of all items: those that the Dataset lists, if the items seen agree, or by one pass over it.

        Parameters
        ----------
        at, seen : ndarray of int, list
            Positions and labels of items that have been read.
        loader_options : mapping
            Options of torch's DataLoader for the pass, such as ``num_workers``; samples are read, too, and dropped.
        verbose : int, default=0
            1 shows the progress of the pass.

        Returns
        -------
        ndarray of shape (n,)
        """
        if self.listed is not None and (set(seen) == {None} or self.listed[self.rows[at]].tolist() == seen):
            return read_labels(self.listed[self.rows], len(self))
        read = self._read_labels(loader_options, verbose)
        if len(self) == len(self.dataset):
            _remember(self.dataset, read)
        return read

    @cached_property
    def listed(self) -> np.ndarray | None:
        """Labels that the Dataset lists, before any choice of rows."""
        return listed_labels(self.dataset)

    def own_labels(self, index: Sequence[int] | np.ndarray, labels: list) -> np.ndarray:
        """Make an array of the labels that items came with; where they came with none, those that are listed count."""
        if None not in labels:
            return read_labels(labels, len(labels))
        if self.listed is None:
            raise ValueError("the items of X have no labels, and they are needed: give y, or items (x, label)")
        return read_labels(self.listed[self.rows[index]], len(labels))

    def _read_labels(self, loader_options: Mapping[str, Any], verbose: int) -> np.ndarray:
        options = {"generator": torch.Generator().manual_seed(0), **loader_options}
        loader = DataLoader(_Labels(self), batch_size=LABELS_AT_ONCE, collate_fn=list, **options)
        found: list = []
        # What a Dataset draws meanwhile must not count, or a second fit, which knows the labels, would be another.
        with torch.random.fork_rng(devices=[]), tqdm(total=len(self), disable=not verbose, unit="label") as bar:
            bar.set_description("reading labels")
            for labels in loader:
                found += labels
                bar.update(len(labels))
        return self.own_labels(np.arange(len(self)), found)


class _Labels(Dataset):
    """Gives the labels of items, so that workers hand over nothing else."""

    def __init__(self, items: Items) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index][1]


def is_dataset(X: Any) -> bool:
    """Tell whether X is read item by item: a Dataset of torch or Hugging Face, or skorch's SliceDataset.

    Raises
    ------
    TypeError
        For a DataLoader, and for a Dataset without a length or that is not read by index.
    """
    if isinstance(X, DataLoader):
        raise TypeError(
            "X is a DataLoader; give its Dataset, X=loader.dataset, and what the loader settles as parameters: "
            "batch_size=..., iterator_train__num_workers=..., iterator_valid__num_workers=..."
        )
    known = isinstance(X, Dataset | SliceDataset) or (hasattr(X, "column_names") and hasattr(X, "__getitems__"))
    if known and (isinstance(X, IterableDataset) or not hasattr(X, "__len__")):
        raise TypeError(
            f"a Dataset must have a length and be read by index, X[i], as coresets choose single samples; "
            f"got {type(X).__name__}. Give a map-style Dataset"
        )
    return known


def parts_of(item: Any, name: str = "item") -> tuple[Any, Any]:
    """Split an item of a Dataset into its sample and its label, which is None where there is none.

    Parameters
    ----------
    item : tuple, list, mapping or sample
        ``(x, label, ...)``, ``{"image": x, "label": label}`` under any of `SAMPLE_KEYS` and `LABEL_KEYS`, or x.
    name : str, default="item"
        What to call it in errors.

    Examples
    --------
    >>> from sklearn_acs.data.datasets import parts_of
    >>> parts_of(([0.5, 1.0], 3)), parts_of({"img": [0.5, 1.0], "label": 3})
    (([0.5, 1.0], 3), ([0.5, 1.0], 3))
    """
    if isinstance(item, Mapping):
        sample = next((item[key] for key in SAMPLE_KEYS if key in item), None)
        if sample is None:
            raise ValueError(f"{name} has the keys {list(item)}, and none of them is one of {SAMPLE_KEYS}; rename one")
        label = next((item[key] for key in LABEL_KEYS if key in item), None)
    elif isinstance(item, tuple | list) and len(item) > 0:
        sample, label = item[0], item[1] if len(item) > 1 else None
    else:
        sample, label = item, None
    if isinstance(label, Tensor | np.ndarray | np.generic):
        if np.prod(label.shape) != 1:
            raise ValueError(
                f"{name} has a label of shape {tuple(label.shape)}, and a label is one class; argmax makes it of a "
                "one-hot code"
            )
        label = label.item()
    return sample, label


def listed_labels(dataset: Any) -> np.ndarray | None:
    """Find the labels that a Dataset lists without being read, or that were read before; None where there are none.

    They are in its `targets` or `labels`, as torchvision's have them, or in a column of Hugging Face's.
    """
    if isinstance(dataset, Subset):
        inner = listed_labels(dataset.dataset)
        return None if inner is None else inner[list(dataset.indices)]
    if isinstance(dataset, SliceDataset) or getattr(dataset, "target_transform", None) is not None:
        return None
    column = next((key for key in LABEL_KEYS if key in (getattr(dataset, "column_names", None) or ())), None)
    try:
        found = [_read_before.get(dataset)]
    except TypeError:  # it cannot be hashed
        found = []
    found += [None if column is None else dataset.with_format(None)[column]]
    found += [getattr(dataset, name, None) for name in ("targets", "labels")]
    for labels in found:
        if (
            labels is not None
            and hasattr(labels, "__len__")
            and not isinstance(labels, str | Mapping)
            and len(labels) == len(dataset)
        ):
            array = labels.numpy(force=True) if isinstance(labels, Tensor) else np.asarray(labels)
            if array.ndim == 1:
                return array
    return None


def _remember(dataset: Any, labels: np.ndarray) -> None:
    try:
        _read_before[dataset] = labels
    except TypeError:  # it cannot be hashed or referred to weakly
        pass
