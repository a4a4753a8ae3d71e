"""JournaledRows keeps rows of bytes on disk, so that those of the last checkpoint stay whatever is written after it."""

import errno
import os
from math import prod
from pathlib import Path
from shutil import disk_usage
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

ZEROS = 2**20
"""Bytes written at a time where a file cannot be reserved at once."""

ROWS_AT_ONCE = 1024
"""Rows put to their places at a time."""


class JournaledRows:
    """Keeps rows of int8 in two files: a place for each row, and a log, half as large, of what was written lately.

    A row is written into the log, and over itself only where no checkpoint has it. So a checkpoint, which notes where
    the rows are, costs what was changed since the last one. When the log is full (`is_full`), the next rows stay in
    memory and the next checkpoint has them; after it, `merge` puts all rows to their places, and with the checkpoint
    after that the log is empty again.

    Parameters
    ----------
    shape : tuple of int
        Number of rows, and the shape of one; they are zeros at first.

    Attributes
    ----------
    is_full : bool
        Whether a checkpoint is due.
    """

    dtype, device = torch.int8, torch.device("cpu")

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape, self.capacity = shape, (shape[0] + 1) // 2
        self._where = torch.full((shape[0],), -1)  # in the log, or after its end in memory; -1: in its place
        self._used = self._kept = 0  # places of the log, and those of the last checkpoint
        self._more = torch.zeros((0, *shape[1:]), dtype=self.dtype)
        self._is_new, self._merged = True, False

    def open(self, folder: Path) -> None:
        """Make the files, or find those of the checkpoint whose state has been loaded."""
        lengths = {"rows": self.shape[0], "log": self.capacity}
        for name, length in lengths.items():
            path, shape = folder / f"memory_{name}.bin", (length, *self.shape[1:])
            if self._is_new:
                try:
                    with path.open("w+b") as file:
                        reserve(file, prod(shape), folder, "Give checkpoint= a larger place")
                except OSError:
                    self.close(folder)
                    raise
            elif not path.exists() or path.stat().st_size != prod(shape):
                raise ValueError(f"{str(path)!r} is not there, or cut short: delete its folder to train anew")
            setattr(self, f"_{name}", np.memmap(path, np.int8, "r+", shape=shape))

    def __getitem__(self, rows: Tensor) -> Tensor:
        found = torch.from_numpy(self._rows[rows.numpy()])
        where = self._where[rows]
        logged, more = (where >= 0) & (where < self.capacity), where >= self.capacity
        found[logged] = torch.from_numpy(self._log[where[logged].numpy()])
        found[more] = self._more[where[more] - self.capacity]
        return found

    def __setitem__(self, rows: Tensor, values: Tensor) -> None:
        where = self._where[rows]
        kept = where < self._kept  # by the last checkpoint, be it in the log or in its place
        n_new = int(kept.sum())
        where[kept] = torch.arange(self._used, self._used + n_new)
        self._where[rows], self._used = where, self._used + n_new
        logged = where < self.capacity
        self._log[where[logged].numpy()] = values[logged].numpy()
        beyond = self._used - self.capacity - len(self._more)
        if beyond > 0:
            self._more = torch.cat([self._more, torch.zeros((beyond, *self.shape[1:]), dtype=self.dtype)])
        self._more[where[~logged] - self.capacity] = values[~logged]

    @property
    def is_full(self) -> bool:
        """Whether a checkpoint is due."""
        return self._used >= self.capacity

    def state_dict(self) -> dict[str, Any]:
        """Name where the rows are, and those that the log has no room for."""
        if self._merged:
            return {"where": torch.full_like(self._where, -1), "used": 0, "more": self._more[:0]}
        return {"where": self._where, "used": self._used, "more": self._more}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the rows of a checkpoint, whose files `open` then finds."""
        self._where, self._more = state["where"].clone(), state["more"].clone()
        self._used = self._kept = state["used"]
        self._is_new = False

    def flush(self) -> None:
        """Bring what was written to the disk, before a checkpoint tells of it."""
        flush(self._log)

    def merge(self) -> None:
        """Put all rows to their places; the state is then that of an empty log."""
        moved = (self._where >= 0).nonzero().flatten()
        for rows in moved.split(ROWS_AT_ONCE):
            self._rows[rows.numpy()] = self[rows].numpy()
        flush(self._rows)
        self._merged = True

    def kept(self, done: bool) -> None:
        """Note whether a checkpoint has the state: then the rows that it tells of are not written over."""
        if done and self._merged:
            self._where.fill_(-1)
            self._used, self._more = 0, self._more[:0]
        if done:
            self._kept = self._used
        self._merged = False

    def close(self, folder: Path) -> None:
        """Delete the files, which nobody needs once the training is over."""
        self._rows = self._log = np.zeros(0, np.int8)
        for name in ("rows", "log"):
            (folder / f"memory_{name}.bin").unlink(missing_ok=True)


def flush(array: np.ndarray) -> None:
    """Bring a map to the disk; what has no bytes is no map."""
    if isinstance(array, np.memmap):
        array.flush()


def reserve(file: IO[bytes], size: int, folder: str | os.PathLike, advice: str) -> None:
    """Give a file its bytes on disk now: where a map of a sparse one meets a full disk, the process dies.

    Parameters
    ----------
    file : file
        Open for writing, and empty.
    size : int
        In bytes.
    folder : str or Path
        Where it is.
    advice : str
        What to do where the disk is too small, for the OSError.
    """
    free = disk_usage(folder).free
    try:
        if size > free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except (AttributeError, OSError) as error:
            if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            for begin in range(0, size, ZEROS):  # a system, or a file system, that cannot reserve
                file.write(bytes(min(ZEROS, size - begin)))
            file.flush()
    except OSError as error:
        raise OSError(
            f"remembered perturbations need {size:,} bytes in {os.fspath(folder)}, which has {free:,} left and says: "
            f"{error.strerror}. {advice}"
        ) from error
