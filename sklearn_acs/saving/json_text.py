"""JSON is written in one plain form, and read without taking more memory than its size allows."""

import json
from typing import Any

MAX_MARKS = 400_000
"""Brackets, colons and commas in one text at most: what is read of one of them takes up to 85 bytes."""


def to_text(value: Any) -> str:
    """Write what JSON holds as it stands, in ASCII, without spaces; what it does not hold is a TypeError or ValueError.

    NaN and infinity are no JSON.
    """
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def from_text(text: str, what: str) -> Any:
    """Read JSON that may come from anyone.

    Parameters
    ----------
    text : str
        The text.
    what : str
        What it is of, for errors.

    Returns
    -------
    dict, list, str, int, float, bool or None

    Raises
    ------
    ValueError
        It is no JSON, names something twice, is nested too deeply, or is so full of small things that they would take
        much more memory than itself.
    """
    if sum(map(text.count, "[{:,")) > MAX_MARKS:
        raise ValueError(f"{what} holds more than {MAX_MARKS:,} things")
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError(f"{what} is nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"{what} is no JSON as it is written here: {error}") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("something is named twice")
    return made


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")
