"""fingerprint tells things apart by what they hold, and knows them again."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import Tensor, nn


def fingerprint(*values: Any) -> str:
    """Hash arrays, tensors, modules (their weights), estimators (their parameters), and what these are nested in.

    Parameters
    ----------
    *values : objects
        What to tell apart; whatever else there is goes by its repr.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    _feed(digest, values)
    return digest.hexdigest()


def _feed(digest: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        value = value.detach().cpu().contiguous()
        _feed(digest, (str(value.dtype), tuple(value.shape)))
        digest.update(value.reshape(-1).view(torch.uint8).numpy())
    elif isinstance(value, np.ndarray) and value.dtype != object:
        _feed(digest, (str(value.dtype), value.shape))
        digest.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, nn.Module):
        _feed(digest, (repr(value), value.state_dict()))
    elif isinstance(value, BaseEstimator):
        _feed(digest, (type(value).__name__, value.get_params(deep=False)))
    elif isinstance(value, Mapping):
        _feed(digest, list(value.items()))
    elif isinstance(value, list | tuple):
        digest.update(f"<{len(value)}".encode())
        for item in value:
            _feed(digest, item)
        digest.update(b">")
    else:
        digest.update(f"{type(value).__name__}:{value!r};".encode())
