"""PeakBytes measures how much memory tensors take at most while something runs."""

import weakref
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that come to be inside and still live, on every device, those of autograd too.

    What kernels need for themselves, and arrays of NumPy, it does not see.

    Attributes
    ----------
    now, peak : int
        Bytes of tensors that live, and the most that lived at a time.

    Examples
    --------
    >>> import torch
    >>> from sklearn_acs.training.peak import PeakBytes
    >>> with PeakBytes() as bytes:
    ...     x = torch.ones(1000) + 1
    >>> bytes.now, bytes.peak
    (4000, 8000)
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and note the storages of what it makes."""
        given = {id_of(each) for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)}
        made = func(*args, **(kwargs or {}))
        for each in tree_leaves(made):
            if isinstance(each, Tensor) and id_of(each) not in given | self._known:
                self._note(each)
        return made

    def _note(self, tensor: Tensor) -> None:
        storage, key = tensor.untyped_storage(), id_of(tensor)
        self._known.add(key)
        self.now += (size := storage.nbytes())
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key, size).atexit = False

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def id_of(tensor: Tensor) -> int:
    """Tell tensors that share a storage from others."""
    return tensor.untyped_storage()._cdata


def bytes_of(held: Any, device: torch.device) -> int:
    """Add up the bytes on a device of all tensors in nested lists, tuples, dicts and objects of plain fields."""
    storages = {
        id_of(each): each.untyped_storage().nbytes() for each in tensors_in(held) if each.device.type == device.type
    }
    return sum(storages.values())


def tensors_in(held: Any) -> list[Tensor]:
    """List the tensors in nested lists, tuples, dicts and objects of plain fields."""
    if isinstance(held, Tensor):
        return [held]
    if isinstance(held, dict):
        return [found for value in held.values() for found in tensors_in(value)]
    if isinstance(held, list | tuple):
        return [found for value in held for found in tensors_in(value)]
    return tensors_in(vars(held)) if hasattr(held, "__dataclass_fields__") else []


def shares_memory(samples: Any, X: Any) -> bool:
    """Tell whether what has been read of an array or a tensor is that itself, and no copy."""
    if not isinstance(samples, Tensor) or not isinstance(X, Tensor | np.ndarray):
        return False
    there = X.untyped_storage().data_ptr() if isinstance(X, Tensor) else np.shares_memory(X, samples.cpu().numpy())
    return bool(there is True or there == samples.untyped_storage().data_ptr())
