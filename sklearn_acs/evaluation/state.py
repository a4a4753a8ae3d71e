"""A state keeps how far an evaluation has come, in a file too, so that it goes on where it stopped."""

import json
import os
import warnings
import zlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from zipfile import BadZipFile

import numpy as np

from sklearn_acs.saving.files import write_file

ARRAYS = ("outcomes", "sizes", "own_sizes", "seconds")

UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, EOFError, RuntimeError, BadZipFile, zlib.error)
"""What reading anything else, or a part of a state, raises."""


class State:
    """Keeps the outcomes found so far, in memory and, with a `path`, on disk.

    Parameters
    ----------
    n_attacks, n_samples : int
        What there is to do.
    path : Path or None, default=None
        The file, a NumPy archive without pickled objects. Of several processes with one file, the last to write it
        wins.
    key : mapping of str to str, default={}
        Fingerprints of what is evaluated, by what they are of; a file with another one is refused.

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

    def __init__(
        self,
        n_attacks: int,
        n_samples: int,
        path: Path | None = None,
        key: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.path, self.key = path, dict(key)
        self._has_failed = False
        self.outcomes = np.zeros((n_attacks, n_samples), dtype=np.int8)
        self.sizes = np.full((3, n_attacks, n_samples), np.nan, dtype=np.float32)
        self.own_sizes = np.full((n_attacks, n_samples), np.nan, dtype=np.float32)
        self.seconds = np.zeros(n_attacks)
        self.warnings: list[str] = []
        if self.path is not None and self.path.is_file():
            self._load(self.path)
        self.save()

    def warn(self, *sentences: str) -> None:
        """Note what is to be known, each sentence once."""
        self.warnings += [sentence for sentence in dict.fromkeys(sentences) if sentence not in self.warnings]

    def save(self) -> None:
        """Write the file anew; where that fails there is a warning, and all goes on in memory."""
        if self.path is None:
            return
        content, about = BytesIO(), json.dumps({"key": self.key, "warnings": self.warnings})
        np.savez(content, about=np.array(about), **{name: getattr(self, name) for name in ARRAYS})
        try:
            write_file(self.path, content.getvalue())
        except OSError as error:
            if not self._has_failed:
                text = f"state_path={os.fspath(self.path)!r} could not be written, the evaluation goes on: {error}"
                warnings.warn(text, stacklevel=2)
            self._has_failed = True

    def _load(self, path: Path) -> None:
        name = f"state_path={os.fspath(path)!r}"
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                about = json.loads(str(archive["about"]))
                arrays = {name: archive[name] for name in ARRAYS}
            key, told = dict(about["key"]), list(map(str, about["warnings"]))
        except UNREADABLE as error:
            raise ValueError(f"{name} is not the state of an evaluation") from error
        others = [of for of in dict.fromkeys([*self.key, *key]) if key.get(of) != self.key.get(of)]
        if others:
            raise ValueError(
                f"{name} is the state of another evaluation: it differs in {', '.join(others)}. Give another path, or "
                "delete the file to start anew"
            )
        for array, found in arrays.items():
            expected = getattr(self, array)
            if found.shape != expected.shape or found.dtype != expected.dtype:
                raise ValueError(
                    f"{name} is not the state of this evaluation: {array} is {found.dtype} of shape {found.shape}, and "
                    f"must be {expected.dtype} of shape {expected.shape}"
                )
        self.__dict__.update(arrays, warnings=told)
