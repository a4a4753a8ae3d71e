"""Batches cuts mini-batches of arrays kept on the device or of a Dataset streamed from disk, or of a coreset."""

from collections.abc import Callable, Iterator, Sequence
from inspect import signature
from math import ceil
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sklearn_acs.data.augment import Augmentation, View
from sklearn_acs.data.datasets import Items
from sklearn_acs.data.labels import UNKNOWN, UNREAD
from sklearn_acs.data.tensors import to_float

Augment = Callable[[Tensor, torch.Generator], Tensor]
"""``augment(x, generator) -> x``: a random change of a whole batch, on its device."""


Reader = Callable[[list[Tensor]], Iterator[tuple[Tensor, Tensor]]]
"""``read(batches) -> (x, y)`` of each batch of indices, on the device."""

NOT_FOR_LOADERS = {"dataset", "batch_size", "shuffle", "sampler", "batch_sampler", "drop_last", "collate_fn"}
NOT_FOR_LOADERS |= {"generator"}
"""Parameters of torch's DataLoader that are settled here, the generator by `random_state`."""


class OwnLabels(NamedTuple):
    """Says how labels that the items of a Dataset bring become codes."""

    encode: Callable[[np.ndarray, np.ndarray], Tensor]  # encode(labels, classes) -> (batch,)
    classes: np.ndarray  # sorted


class Batch(NamedTuple):
    """Holds samples that go through one training step together."""

    x: Tensor  # (batch, ...), float
    y: Tensor  # (batch,), labels 0 to C-1
    weight: Tensor  # (batch,), factor of each sample's loss
    rows: Tensor  # (batch,), positions in the data set
    view: View | None = None  # of the samples, where an `Augmentation` changed them

    def take(self, at: Tensor) -> "Batch":
        """Take some samples of the batch."""
        x, y, weight, rows = (field[at] for field in self[:4])
        return Batch(x, y, weight, rows, None if self.view is None else self.view.take(at))


class ArrayData(Dataset):
    """Keeps samples as tensors on the device; uint8 images stay uint8 and become [0, 1] floats batch by batch.

    Parameters
    ----------
    x : Tensor of shape (n_given, ...)
        Samples, which are not copied where they are on the device.
    y : Tensor of shape (n,)
        Labels 0 to C-1.
    device : torch.device
        Where they are kept.
    rows : Tensor of shape (n,) or None, default=None
        Which of `x` the samples are; None is all.
    """

    def __init__(self, x: Tensor, y: Tensor, device: torch.device, rows: Tensor | None = None) -> None:
        self.x, self.y, self.device = x.to(device), y.to(device), device
        self.rows = None if rows is None else rows.to(device)

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self._samples(index), self.y[index]

    def reader(self, **loader_options: Any) -> Reader:
        """Return `fetch`: there is no DataLoader for the options to act on."""
        return self.fetch

    def fetch(self, batches: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Take the samples of each batch of indices."""
        for index in moved(batches, self.device):
            yield self._samples(index), self.y[index]

    def _samples(self, index: Any) -> Tensor:
        return to_float(self.x[index if self.rows is None else self.rows[index]])


class StreamedData(Dataset):
    """Reads a Dataset batch by batch, never holding it in memory, with labels encoded as 0 to C-1.

    Parameters
    ----------
    items : Items
        The Dataset.
    y : Tensor of shape (n,)
        Codes of the labels; `UNREAD` for one that is not known before its item is read.
    device : torch.device
        Where batches go.
    encode : callable
        ``encode(sample, name) -> x``, one sample for the model; the name is for errors.
    check : callable
        Raises ValueError for a batch out of range.
    own : OwnLabels or None, default=None
        The items' own labels decide, and must agree with `y` where that is known. None leaves them unread.
    """

    def __init__(
        self,
        items: Items,
        y: Tensor,
        device: torch.device,
        encode: Callable[[Tensor, str], Tensor],
        check: Callable[[Tensor], None],
        own: OwnLabels | None = None,
    ) -> None:
        self.items, self.y, self.device, self.encode, self.check, self.own = items, y, device, encode, check, own

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        sample, label = self.items[index]
        return self.encode(sample, self.items.name(index)), label

    def reader(self, **loader_options: Any) -> Reader:
        """Return a `fetch` by one DataLoader with these options, whose workers stay; one call at a time."""
        defaults = {
            # The loader seeds its workers from a generator; without one given it would draw from the global one.
            "generator": torch.Generator().manual_seed(0),
            "pin_memory": self.device.type == "cuda",
            "persistent_workers": loader_options.get("num_workers", 0) > 0,
        }
        ahead = NextBatches()
        loader = DataLoader(self, batch_sampler=ahead, collate_fn=_collate, **{**defaults, **loader_options})

        def fetch(batches: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
            ahead.batches = [index.tolist() for index in batches]
            known = moved([self.y[index] for index in batches], self.device)
            for index, (x, labels), y in zip(batches, loader, known, strict=True):
                self.check(x)
                if self.own is not None and not torch.equal(self.y[index], own := self._codes(self.own, index, labels)):
                    self.y[index], y = own, own.to(self.device)
                yield to_float(x.to(self.device, non_blocking=True)), y

        return fetch

    def fetch(self, batches: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Read the samples of each batch of indices in this process."""
        return self.reader()(batches)

    def _codes(self, own: OwnLabels, index: Tensor, labels: list) -> Tensor:
        """Encode the labels of items, which must be as they were known, if they were."""
        known, codes = self.y[index], own.encode(self.items.own_labels(index.numpy(), labels), own.classes)
        for at in ((known != UNREAD) & (known != codes)).nonzero().flatten().tolist()[:1]:
            before = "none of the classes" if known[at] == UNKNOWN else repr(own.classes[known[at]].item())
            raise ValueError(
                f"{self.items.name(int(index[at]))} has the label {labels[at]!r}, where the Dataset's targets or "
                f"labels, or an earlier reading, said {before}. An item needs one label: mend the Dataset, or give y"
            )
        return codes


def _collate(batch: list[tuple[Tensor, Any]]) -> tuple[Tensor, list]:
    """Join samples; labels stay as they are, to be encoded together."""
    return torch.stack([x for x, _ in batch]), [label for _, label in batch]


class NextBatches:
    """Tells a DataLoader, as its sampler, which batches to read next."""

    batches: list[list[int]] = []

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class Batches:
    """Cuts mini-batches of a data set, or of the coreset it was last pointed at.

    Parameters
    ----------
    data : ArrayData or StreamedData
        The samples.
    batch_size : int, default=128
        Samples in a batch. A single left-over sample joins the batch before it: BatchNorm has no statistics of one.
    sample_weight : Tensor of shape (n,) or None, default=None
        Factors of the samples' losses.
    generator : torch.Generator
        Draws the order of each epoch, on the CPU.
    augment : callable or None, default=None
        ``augment(x, generator) -> x`` for each training batch.
    augment_generator : torch.Generator or None, default=None
        Handed to `augment`, on the device of the batches; None is `generator`.
    **loader_options
        Options of torch's DataLoader for streamed data, for example ``num_workers``.
    """

    def __init__(
        self,
        data: ArrayData | StreamedData,
        batch_size: int = 128,
        *,
        generator: torch.Generator,
        sample_weight: Tensor | None = None,
        augment: Augment | None = None,
        augment_generator: torch.Generator | None = None,
        **loader_options: Any,
    ) -> None:
        self.data, self.batch_size, self.generator = data, batch_size, generator
        self.augment, self.augment_generator = augment, augment_generator or generator
        # One generator for all epochs, so that workers that draw do not draw the same in each.
        self._loader_generator = torch.Generator().manual_seed(generator.initial_seed())
        self._read_batches = data.reader(**{"generator": self._loader_generator, **loader_options})
        self._aside = torch.Generator()
        self._read_aside = data.reader(**{**loader_options, "generator": self._aside})
        self.sample_weight = torch.ones(len(data)) if sample_weight is None else sample_weight
        self.use_all()

    def use_all(self) -> None:
        """Train on every sample, each with its own sample weight."""
        self.indices, self.weight = torch.arange(len(self.data)), self.sample_weight

    def use_coreset(self, indices: np.ndarray, weights: np.ndarray) -> None:
        """Train on `indices` alone, each loss times its coreset weight times its sample weight.

        Raw weights add gradients up to those of all n samples, so with the factor k/n, applied here once per
        selection, the mean over the coreset's k losses has the gradient that the mean over all n had. Scaling to mean
        1 would not: it blows up the step when the rows that matter have little weight in sum. (Scaling within each
        mini-batch, as published code does, cancels weights that are equal within a batch.)
        """
        self.indices = torch.as_tensor(indices)
        scale = len(self.indices) / len(self.data)
        self.weight = self.sample_weight.clone()
        self.weight[self.indices] *= scale * torch.as_tensor(weights, dtype=torch.float32)

    def state_dict(self) -> dict[str, Any]:
        """Name the coreset in use and the states of all generators."""
        drawn = {name: generator.get_state() for name, generator in self._generators().items()}
        return {"indices": self.indices, "weight": self.weight, "generators": drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the coreset and the draws of another such object."""
        self.indices, self.weight = state["indices"], state["weight"]
        for name, generator in self._generators().items():
            generator.set_state(state["generators"][name])

    def _generators(self) -> dict[str, torch.Generator]:
        return {"order": self.generator, "augment": self.augment_generator, "loader": self._loader_generator}

    def __len__(self) -> int:
        return len(self.split(self.indices))

    def __iter__(self) -> Iterator[Batch]:
        """Give every sample of the coreset once, in a fresh order, augmented."""
        order = self.indices[torch.randperm(len(self.indices), generator=self.generator)]
        for batch in self._read(order, self.weight):
            if isinstance(self.augment, Augmentation):
                view = self.augment.draw(batch.x, self.augment_generator)
                yield batch._replace(x=view.see(batch.x), view=view)
            elif self.augment is not None:
                yield batch._replace(x=self.augment(batch.x, self.augment_generator))
            else:
                yield batch

    def everything(self) -> Iterator[Batch]:
        """Give every sample of the whole set once, in order, as it is: what a selection looks at."""
        return self._read(torch.arange(len(self.data)), self.sample_weight)

    def aside(self, rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Give samples as they are, in batches as large as those of training, without touching its own generators."""
        self._aside.manual_seed(0)
        yield from self._read_aside(list(rows.split(self.batch_size)))

    def _read(self, order: Tensor, weight: Tensor) -> Iterator[Batch]:
        batches = self.split(order)
        rows, weights = (moved(parts, self.data.device) for parts in (batches, [weight[index] for index in batches]))
        samples = self._read_batches(batches)
        for index, factors, (x, y) in zip(rows, weights, samples, strict=True):
            yield Batch(x, y, factors, index)

    def split(self, order: Tensor) -> list[Tensor]:
        """Cut rows into those of each batch."""
        batches = list(order.split(self.batch_size))
        if len(batches) > 1 and len(batches[-1]) == 1 < self.batch_size:
            batches[-2:] = [torch.cat(batches[-2:])]
        return batches


def check_loader_options(options: dict[str, Any], part: str) -> None:
    """Raise ValueError for options of a part "iterator_..." that no DataLoader has, or that are settled here."""
    known = signature(DataLoader).parameters.keys() - NOT_FOR_LOADERS
    if unknown := options.keys() - known:
        names = ", ".join(f"{part}__{name}" for name in sorted(unknown))
        raise ValueError(f"{names}: {part} takes {sorted(known)}, as torch's DataLoader does")


def batch_count(n_samples: int, batch_size: int) -> int:
    """Calculate how many batches `Batches` makes of so many samples."""
    return ceil(n_samples / batch_size) - (n_samples > batch_size > 1 and n_samples % batch_size == 1)


def moved(batches: list[Tensor], device: torch.device) -> Sequence[Tensor]:
    """Move batches to a device in one copy for all of them: a GPU finishes its work before each copy."""
    return torch.cat(batches).to(device).split([len(batch) for batch in batches]) if batches else []
