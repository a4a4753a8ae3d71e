"""Files are written beside their place and renamed, so that nobody finds half of one."""

import os
from collections.abc import Iterable
from pathlib import Path
from uuid import uuid4

Content = bytes | memoryview


def as_path(parameter: str, path: str | os.PathLike) -> Path:
    """Take a str or Path, and refuse by the parameter's name what is neither."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"{parameter}={path!r} must be a str or Path")
    return Path(path)


def check_path(parameter: str, path: str | os.PathLike) -> Path:
    """Make sure, before any work, that a file can be written.

    Parameters
    ----------
    parameter : str
        What asks for it, for errors.
    path : str or Path
        The file; it is left alone.

    Returns
    -------
    Path

    Raises
    ------
    OSError, ValueError
        It is a folder, in one that does not exist, or cannot be written.
    TypeError
        It is no path.
    """
    place = as_path(parameter, path)
    try:
        if place.is_dir():
            raise IsADirectoryError("it is a folder")
        if not place.parent.is_dir():
            raise FileNotFoundError("it is in a folder that does not exist")
        if not place.exists() or place.is_file():
            part = _beside(place)
            part.touch()
            part.unlink()
    except (OSError, ValueError) as error:
        kind = type(error) if isinstance(error, OSError) else ValueError
        why = getattr(error, "strerror", None) or error
        raise kind(f"{parameter}={os.fspath(path)!r} cannot be written: {why}") from error
    return place


def write_file(path: Path, content: Content | Iterable[Content]) -> None:
    """Write a file at once: whoever reads it meanwhile, or after an interruption, finds the one before.

    Parameters
    ----------
    path : Path
        The file. What is no ordinary file, such as a pipe, is written to; a link stays one.
    content : bytes, memoryview or iterable of these
        What it holds, perhaps piece by piece. It is on the disk, and not only on its way there, when it gets its name.
    """
    pieces = [content] if isinstance(content, Content) else content
    place = path.resolve()
    if place.exists() and not place.is_file():
        with place.open("wb") as file:
            file.writelines(pieces)
        return
    part = _beside(place)
    try:
        with part.open("wb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, place)
    finally:
        part.unlink(missing_ok=True)


def _beside(place: Path) -> Path:
    """Name a file in the same folder, which no other process writes."""
    return place.resolve().with_name(f"{place.stem[:50]}-{uuid4().hex}.part")
