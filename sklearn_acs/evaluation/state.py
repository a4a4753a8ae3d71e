"""A state keeps how far an evaluation has come, in a file too, so that it goes on where it stopped."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import Tensor, nn

ARRAYS = ("outcomes", "sizes", "own_sizes", "seconds")


class State:
    """Keeps the outcomes found so far, in memory and, with a `path`, on disk.

    Parameters
    ----------
    n_attacks, n_samples : int
        What there is to do.
    path : str, Path or None, default=None
        The file, a NumPy archive without pickled objects; it is written at once, so that a folder that cannot be
        written to is known before any work.
    key : str, default=""
        Fingerprint of what is evaluated; a file with another one is refused.

    Attributes
    ----------
    outcomes : ndarray of int8, of shape (n_attacks, n_samples)
        0 not attacked (yet), 1 withstood, 2 broken.
    sizes : ndarray of float32, of shape (3, n_attacks, n_samples)
        Sizes of the perturbations in linf, l2 and l1.
    own_sizes : ndarray of float32, of shape (n_attacks, n_samples)
        The same in the metric of each attack.
    seconds : ndarray of shape (n_attacks,)
        Time taken by each attack, over all runs.
    warnings : list of str
        What is to be known about single attacks.
    """

    def __init__(self, n_attacks: int, n_samples: int, path: str | os.PathLike | None = None, key: str = "") -> None:
        self.path, self.key = None if path is None else Path(path), key
        self.outcomes = np.zeros((n_attacks, n_samples), dtype=np.int8)
        self.sizes = np.full((3, n_attacks, n_samples), np.nan, dtype=np.float32)
        self.own_sizes = np.full((n_attacks, n_samples), np.nan, dtype=np.float32)
        self.seconds = np.zeros(n_attacks)
        self.warnings: list[str] = []
        if self.path is not None and self.path.exists():
            self._load(self.path)
        self.save()

    def warn(self, *sentences: str) -> None:
        """Note what is to be known, each sentence once."""
        self.warnings += [sentence for sentence in dict.fromkeys(sentences) if sentence not in self.warnings]

    def save(self) -> None:
        """Write the file anew; an interruption leaves the one before."""
        if self.path is None:
            return
        part = self.path.with_name(self.path.name + ".part")
        about = json.dumps({"key": self.key, "warnings": self.warnings})
        with part.open("wb") as file:
            np.savez(file, about=np.array(about), **{name: getattr(self, name) for name in ARRAYS})
        os.replace(part, self.path)

    def _load(self, path: Path) -> None:
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                about = json.loads(str(archive["about"]))
                arrays = {name: archive[name] for name in ARRAYS}
            key, warnings = about["key"], about["warnings"]
        except (ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
            raise ValueError(f"state_path={os.fspath(path)!r} is not the state of an evaluation") from error
        if key != self.key:
            raise ValueError(
                f"state_path={os.fspath(path)!r} is the state of another evaluation: of another model, other data, "
                "other attacks or other parameters. Give another path, or delete the file to start anew"
            )
        self.__dict__.update(arrays, warnings=warnings)


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
