"""Records are how a file knows classes: by a name, and by the fields that their objects are made of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any


@dataclass(frozen=True)
class Record:
    """Says how objects of a class are held: by which fields, and how they are made of these again.

    Parameters
    ----------
    kind : type
        The class; objects of subclasses are others.
    fields : callable
        ``fields(object) -> dict`` of what is to be held.
    make : callable
        ``make(**fields) -> object``.
    """

    kind: type
    fields: Callable[[Any], Mapping[str, Any]]
    make: Callable[..., Any]


def records(*kinds: type) -> dict[str, Record]:
    """Make a table of classes that are made of their own fields: estimators, dataclasses and named tuples.

    Parameters
    ----------
    *kinds : type
        The classes. They are known by their names in files, whatever module they are in.

    Returns
    -------
    dict of str to Record

    Examples
    --------
    >>> from sklearn_acs import PGD
    >>> from sklearn_acs.saving.record import records
    >>> from sklearn_acs.saving.tree import flatten, unflatten
    >>> held, tensors = flatten({"attack": PGD(eps=0.1)}, records(PGD))
    >>> unflatten(held, tensors, records(PGD))
    {'attack': PGD(eps=0.1)}
    """
    return {kind.__name__: Record(kind, _fields, kind) for kind in kinds}


def _fields(value: Any) -> Mapping[str, Any]:
    if hasattr(value, "get_params"):
        return value.get_params(deep=False)
    if is_dataclass(value):
        return {each.name: getattr(value, each.name) for each in fields(value) if each.init}
    return value._asdict()


@dataclass(frozen=True)
class NotHeld:
    """Stands for what a file cannot hold, such as a function, where it is not given anew.

    Attributes
    ----------
    what : str
        What was there.
    """

    what: str

    def __repr__(self) -> str:
        return f"<{self.what}, which a file cannot hold: give it anew>"


Known = Mapping[str, Any]
"""What a file may name: by name a `Record` of a class, or a class or function itself."""
