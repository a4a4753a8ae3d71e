"""A place is where the checkpoints of one fit are, in a folder that many fits may share."""

import errno
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from shutil import disk_usage, rmtree
from time import sleep
from typing import Any
from uuid import uuid4

from sklearn_acs.saving.files import write_file
from sklearn_acs.saving.identity import Identity
from sklearn_acs.saving.json_text import from_text, to_text

MARKER = "sklearn_acs_checkpoints.json"
"""The file by which a folder of checkpoints is known."""

FORMAT = 1
"""Version of what is written; a folder of a later one is refused."""

TELLING = {
    "library": "another version of sklearn_acs",
    "device": "another device",
    "sources": "another source of {}",
    "network": "other initial weights: a module that is made without a seed has others in every process",
}
"""What may differ in a near match, which is a fit that has all else in common."""


@dataclass
class Fit:
    """Says which fit it is: digests of all that its result depends on.

    Attributes
    ----------
    parts : dict of str to str
        Digests, by what they are of.
    sources : dict of str to str
        Digests of the sources of functions and classes that are not the library's.
    max_epochs : int or None
        The parameter.
    seeds : list of int
        Those that it draws with.
    doubts : list of str
        Why it may be another fit though all digests are the same: then it only goes on where it was killed.
    finished : bool
        Whether its last checkpoint is its end.
    """

    parts: dict[str, str]
    sources: dict[str, str]
    max_epochs: int | None
    seeds: list[int]
    doubts: list[str] = field(default_factory=list)
    finished: bool = False

    @property
    def key(self) -> str:
        """Name the fit by a fingerprint."""
        return Identity().of(self.parts, self.sources, self.max_epochs)

    def differs(self, other: "Fit") -> set[str]:
        """Name what differs from another fit."""
        parts = {name for name in self.parts if self.parts[name] != other.parts.get(name)}
        parts |= {"sources"} if self.sources != other.sources else set()
        return parts | ({"max_epochs"} if self.max_epochs != other.max_epochs else set())

    def told(self, other: "Fit") -> str:
        """Tell what differs from another fit that is nearly the same."""
        names = sorted(name for name, _ in self.sources.items() ^ other.sources.items())
        short = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in names))
        found = self.differs(other)
        return " and ".join(text.format(short) for part, text in TELLING.items() if part in found)


class Place:
    """Holds the files of one fit, which one training at a time may write.

    Parameters
    ----------
    folder : Path
        Its own.

    Attributes
    ----------
    state : Path
        The last checkpoint.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.state, self._about = folder, folder / "state.safetensors", folder / "fit.json"
        self._lock: Any = None

    def take(self, *, wait: bool) -> bool:
        """Lock the place for this training, perhaps waiting for another one that has it."""
        told = False
        if wait:
            self.folder.mkdir(exist_ok=True)
        while not self._try_to_lock():
            if not wait:
                return False
            if not told:
                warnings.warn(
                    f"another process, or thread, trains this fit in {str(self.folder)!r}: it is waited for",
                    stacklevel=2,
                )
                told = True
            sleep(0.1)
            self.folder.mkdir(exist_ok=True)  # it may have been deleted meanwhile
        for part in self.folder.glob("*.part"):  # of a process that was killed while it wrote
            part.unlink(missing_ok=True)
        return True

    def _try_to_lock(self) -> bool:
        path = str(self.folder.resolve())
        with GUARD:
            if HELD.get(path) == os.getpid():
                return False
            try:
                file = (self.folder / "lock").open("ab")
            except FileNotFoundError:  # it has been deleted meanwhile
                return False
            if not locked(file):
                file.close()
                return False
            HELD[path] = os.getpid()
        self._lock = file
        return True

    def close(self) -> None:
        """Let others have the place."""
        if self._lock is not None:
            with GUARD:
                self._lock.close()
                HELD.pop(str(self.folder.resolve()), None)
            self._lock = None

    def settle(self) -> None:
        """Bring the names of the files to the disk: one that was replaced would come back after a loss of power."""
        if os.name == "posix":  # elsewhere folders cannot be opened
            descriptor = os.open(self.folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def remove(self) -> None:
        """Delete the place, which this training has."""
        rmtree(self.folder, ignore_errors=True)
        self.close()

    def describe(self, fit: Fit) -> None:
        """Write which fit it is."""
        write_file(self._about, to_text(asdict(fit)).encode())

    def fit(self) -> Fit | None:
        """Read which fit it is; None where that was never written."""
        try:
            text = self._about.read_text()
        except FileNotFoundError:
            return None
        try:
            return Fit(**from_text(text, "it"))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{str(self._about)!r} describes no fit ({error}): delete its folder to train that fit anew"
            ) from error


GUARD = threading.Lock()
HELD: dict[str, int] = {}
"""Which places this process has locked: the operating system asks for processes alone, and not for threads."""

if sys.platform == "win32":  # pragma: no cover
    import msvcrt

    def locked(file: Any) -> bool:
        """Lock a file; tell whether nobody else has."""
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def locked(file: Any) -> bool:
        """Lock a file; tell whether nobody else has. Processes that are forked, as workers are, do not hold it on."""
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            raise
        return True


def checkpoint_folder(checkpoint: str | os.PathLike) -> Path:
    """Make sure, before any work, that a folder can hold checkpoints, and make it where it is not there.

    Parameters
    ----------
    checkpoint : str or Path
        The folder; "~" at its beginning is the user's.

    Returns
    -------
    Path
        An absolute one.

    Raises
    ------
    ValueError
        It is a file, or holds something else.
    OSError
        It cannot be written, or the disk is full.
    """
    name = os.fspath(checkpoint)
    if "\0" in name:
        raise ValueError(f"checkpoint={name!r} names no folder: a path has no null characters")
    folder = Path(os.path.expanduser(name)).absolute()  # the same one when the process changes its folder
    marker = folder / MARKER
    try:
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"checkpoint={name!r} is a file; name a folder, which need not be there")
        folder.mkdir(parents=True, exist_ok=True)
        if not marker.exists():
            if any(each.suffix != ".part" for each in folder.iterdir()) and not marker.exists():
                raise ValueError(
                    f"checkpoint={name!r} holds other things than checkpoints; name an empty folder, or one that is "
                    "not there"
                )
            write_file(marker, to_text({"format": FORMAT}).encode())
        probe = folder / f"{uuid4().hex}.part"
        try:
            probe.write_bytes(bytes(4096))
        finally:
            with suppress(OSError):
                probe.unlink(missing_ok=True)
    except OSError as error:
        raise type(error)(error.errno, f"checkpoint={name!r} cannot be written: {error.strerror}") from error
    about = from_text(marker.read_text(), f"{str(marker)!r}")
    if not isinstance(about, dict) or about.get("format") not in range(1, FORMAT + 1):
        raise ValueError(f"checkpoint={name!r} was written by a later version of sklearn_acs: name another folder")
    return folder


def places(folder: Path) -> Iterator[tuple[Place, Fit]]:
    """Give the places in a folder, with the fits that they are of."""
    for inner in sorted(folder.iterdir()):
        if inner.is_dir() and (fit := Place(inner).fit()) is not None:
            yield Place(inner), fit


def near(folder: Path, fit: Fit) -> Fit | None:
    """Find a fit that has all in common but the version, the device, or sources, and weights if it is not over."""
    for place, other in places(folder):
        differing = fit.differs(other)
        if not differing or differing - TELLING.keys() or (differing == {"network"} and other.finished):
            continue
        if differing == {"network"}:  # one that is being trained is no near match, but one of its own
            if not place.take(wait=False):
                continue
            place.close()
        return other
    return None


def free_bytes(folder: Path) -> int:
    """Tell how much room the disk of a folder has."""
    return disk_usage(folder).free
