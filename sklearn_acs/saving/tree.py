"""What a training and a classifier hold becomes JSON and tensors, and again what it was."""

from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping
from math import isfinite
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklearn_acs.saving.record import Known, NotHeld, Record

DTYPES = {str(each): each for each in vars(torch).values() if isinstance(each, torch.dtype)}

ARRAYS = "biufcSUmM"
"""Kinds of NumPy's types that are held: numbers, text, times."""

SEQUENCES: dict[type, str] = {tuple: "tuple", torch.Size: "size", set: "set", frozenset: "frozenset"}

INT64 = range(-(2**63), 2**63)

MIN_COLUMN = 32
"""Numbers in a list from which on it is held as a tensor."""


def flatten(value: Any, known: Known, left_out: dict[str, str] | None = None) -> tuple[Any, dict[str, Tensor]]:
    """Take what is nested in dicts, lists and objects apart into JSON and tensors.

    Parameters
    ----------
    value : object
        Dicts of any keys, lists, tuples, sets, None, bools, ints of any size, floats, strings, bytes; tensors; arrays
        and scalars of NumPy; torch's dtypes and devices; objects of the classes known, and what else is known by name.
    known : mapping of str to Record, class or function
        Those, by the names that they have in files.
    left_out : dict or None, default=None
        Where what cannot be held is noted, what it is by where it stands; a `NotHeld` then stands for it.

    Returns
    -------
    held : dict, list, str, int, float, bool or None
        JSON. Long lists of numbers are tensors, and rows of dicts or objects of one kind, as histories have them, are
        columns.
    tensors : dict of str to Tensor
        By where they stand; those in use, on their devices.

    Raises
    ------
    TypeError
        Something cannot be held, and `left_out` is None.

    Examples
    --------
    >>> import torch
    >>> from sklearn_acs.saving.tree import flatten, unflatten
    >>> held, tensors = flatten({"epoch": (1, None), "weights": {"bias": torch.zeros(2)}}, {})
    >>> tensors
    {'weights/bias': tensor([0., 0.])}
    >>> unflatten(held, tensors, {})
    {'epoch': (1, None), 'weights': {'bias': tensor([0., 0.])}}
    """
    writer = _Writer(known, left_out)
    return writer.held(value, ""), writer.tensors


def unflatten(held: Any, tensors: Mapping[str, Tensor], known: Known) -> Any:
    """Put together what `flatten` has taken apart.

    Parameters
    ----------
    held : dict, list, str, int, float, bool or None
        JSON, which may come from anyone.
    tensors : mapping of str to Tensor
        The tensors.
    known : mapping of str to Record, class or function
        What may be named or made; there is nothing else.

    Returns
    -------
    object

    Raises
    ------
    ValueError
        It names what is not known, or makes no sense.
    """
    try:
        return _Reader(tensors, known).made(held)
    except (TypeError, KeyError, AttributeError, IndexError, OverflowError, RuntimeError) as error:
        raise ValueError(f"the description makes no sense: {type(error).__name__}: {error}") from error


class _Writer:
    def __init__(self, known: Known, left_out: dict[str, str] | None) -> None:
        self.kinds = {each.kind: (name, each) for name, each in known.items() if isinstance(each, Record)}
        self.names = {id(each): name for name, each in known.items() if not isinstance(each, Record)}
        self.left_out = left_out
        self.tensors: dict[str, Tensor] = {}

    def held(self, value: Any, path: str) -> Any:
        kind = type(value)
        if value is None or kind in (bool, str):
            return value
        if kind is int:
            return value if value in INT64 else {"$int": hex(value)}
        if kind is float:
            return value if isfinite(value) else {"$float": repr(value)}
        if kind is list:
            return self._list(value, path)
        if isinstance(value, dict) and kind not in self.kinds:
            return self._dict(value, path)
        if kind in self.kinds:
            name, record = self.kinds[kind]
            return {"$object": name, "fields": self._dict(record.fields(value), path)}
        if id(value) in self.names:
            return {"$name": self.names[id(value)]}
        if isinstance(value, Tensor):
            return {"$tensor": self._tensor(value, path)}
        if isinstance(value, np.ndarray) and not isinstance(value, np.ma.MaskedArray):
            if value.dtype == object:
                items = self._list(value.ravel().tolist(), path)
                return {"$objects": items, "shape": list(value.shape)}
            if value.dtype.kind in ARRAYS:
                name = self._tensor(_tensor_of(value), path)
                return {"$array": name, "dtype": value.dtype.str, "shape": [*value.shape]}
        if isinstance(value, np.generic) and value.dtype.kind in ARRAYS:
            return {"$scalar": b64encode(value.tobytes()).decode(), "dtype": value.dtype.str}
        if kind in SEQUENCES:
            name = SEQUENCES[kind]
            return {f"${name}": self._list([*value], path)}
        if kind is bytes:
            return {"$bytes": b64encode(value).decode()}
        if kind is torch.dtype:
            return {"$dtype": str(value)}
        if kind is torch.device:
            return {"$device": str(value)}
        if kind is NotHeld:
            what = value.what
        elif self.left_out is None:
            where = f"{kind.__module__}.{kind.__qualname__}"
            raise TypeError(f"{path or 'it'} is of {where}, which cannot be held in a file")
        else:
            what = getattr(value, "__qualname__", None) or f"an object of {kind.__qualname__}"
        if self.left_out is not None:
            self.left_out[path] = what
        return {"$not_held": what}

    def _dict(self, value: Mapping[Any, Any], path: str) -> Any:
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: self.held(each, f"{path}/{key}" if path else key) for key, each in value.items()}
        values = [self.held(each, f"{path}/{key}") for key, each in value.items()]
        return {"$dict": self._list([*value], f"{path}/keys"), "values": values}

    def _list(self, value: list[Any], path: str) -> Any:
        kinds = set(map(type, value))
        if len(value) >= MIN_COLUMN and kinds in ({int}, {float}):
            if kinds == {float}:
                return {"$numbers": self._tensor(torch.tensor(value, dtype=torch.float64), path)}
            if all(each in INT64 for each in value):
                return {"$numbers": self._tensor(torch.tensor(value, dtype=torch.int64), path)}
        if len(value) > 1 and kinds == {dict}:
            keys = [*value[0]]
            if keys and all(type(key) is str for key in keys) and all([*each] == keys for each in value):
                columns = [self._list([each[key] for each in value], f"{path}/{key}") for key in keys]
                return {"$rows": keys, "columns": columns}
        if len(value) > 1 and len(kinds) == 1 and kinds <= self.kinds.keys():
            name, record = self.kinds[kinds.pop()]
            return {"$each": name, "rows": self._list([dict(record.fields(each)) for each in value], path)}
        return [self.held(each, f"{path}/{i}" if path else str(i)) for i, each in enumerate(value)]

    def _tensor(self, value: Tensor, path: str) -> str:
        name = path or "value"
        while name in self.tensors:
            name += "'"
        self.tensors[name] = value
        return name


def _tensor_of(array: np.ndarray) -> Tensor:
    """Copy an array into a tensor: of its type where torch has that, and of its bytes otherwise."""
    try:
        return torch.from_numpy(np.array(array, order="K"))
    except (TypeError, ValueError):
        return torch.from_numpy(np.frombuffer(array.tobytes(), np.uint8).copy())


class _Reader:
    def __init__(self, tensors: Mapping[str, Tensor], known: Known) -> None:
        self.tensors, self.known = tensors, known

    def made(self, held: Any) -> Any:
        if isinstance(held, list):
            return [self.made(each) for each in held]
        if not isinstance(held, dict):
            return held
        first = next(iter(held), "")
        if not first.startswith("$"):
            return {key: self.made(each) for key, each in held.items()}
        form = FORMS.get(first)
        if form is None:
            raise ValueError(f"the description has something of a kind that is not known here: {first[:50]!r}")
        return form(self, held[first], **{key: each for key, each in held.items() if key != first})

    def object(self, name: str, fields: Any) -> Any:
        return self._known(name, True).make(**self.made(fields))

    def each(self, name: str, rows: Any) -> list[Any]:
        return [self._known(name, True).make(**row) for row in self.made(rows)]

    def named(self, name: str) -> Any:
        return self._known(name, False)

    def _known(self, name: str, is_record: bool) -> Any:
        if not isinstance(name, str) or isinstance(self.known.get(name), Record) != is_record or name not in self.known:
            raise ValueError(f"{str(name)[:100]!r} is nothing that a file may name")
        return self.known[name]

    def array(self, name: str, dtype: str, shape: list[int]) -> np.ndarray:
        kind, array = _dtype(dtype), self.tensors[name].cpu().numpy()
        if array.dtype != kind:
            array = np.frombuffer(array.tobytes(), kind).copy()
        if array.size != np.prod(shape, dtype=object):
            raise ValueError(f"an array has {array.size} values, and the shape {shape}")
        return array.reshape(shape) if array.shape != tuple(shape) else array

    def objects(self, items: Any, shape: list[int]) -> np.ndarray:
        values = self.made(items)
        array = np.empty(len(values), dtype=object)
        array[:] = values
        return array.reshape(shape)

    def scalar(self, content: str, dtype: str) -> Any:
        kind = _dtype(dtype)
        return np.frombuffer(b64decode(content), kind)[0] if kind.itemsize else kind.type()

    def rows(self, keys: list[str], columns: list[Any]) -> list[dict[str, Any]]:
        by_key = {key: self.made(column) for key, column in zip(keys, columns, strict=True)}
        return [dict(zip(by_key, row, strict=True)) for row in zip(*by_key.values(), strict=True)]


def _dtype(name: str) -> np.dtype:
    """Make one of NumPy's types, of one value each."""
    dtype = np.dtype(name) if isinstance(name, str) and len(name) < 20 and name[:1] in "<>|=" else None
    if dtype is None or dtype.kind not in ARRAYS or dtype.shape:
        raise ValueError(f"{name!r} is no type of an array")
    return dtype


def _made_of(make: Callable[[Iterable[Any]], Any]) -> Callable[..., Any]:
    return lambda reader, items: make(reader.made(items))


def _of_text(make: Callable[[str], Any]) -> Callable[..., Any]:
    return lambda reader, text: make(text)


FORMS: dict[str, Callable[..., Any]] = {
    "$object": _Reader.object,
    "$each": _Reader.each,
    "$name": _Reader.named,
    "$tensor": lambda reader, name: reader.tensors[name],
    "$numbers": lambda reader, name: reader.tensors[name].view(-1).tolist(),
    "$array": _Reader.array,
    "$objects": _Reader.objects,
    "$scalar": _Reader.scalar,
    "$rows": _Reader.rows,
    "$dict": lambda reader, keys, values: dict(zip(reader.made(keys), reader.made(values), strict=True)),
    "$tuple": _made_of(tuple),
    "$size": _made_of(torch.Size),
    "$set": _made_of(set),
    "$frozenset": _made_of(frozenset),
    "$int": _of_text(lambda text: int(text, 16)),
    "$float": _of_text(float),
    "$bytes": _of_text(b64decode),
    "$dtype": _of_text(DTYPES.__getitem__),
    "$device": _of_text(torch.device),
    "$not_held": _of_text(NotHeld),
}
"""How each kind of thing that JSON does not have is made again, by its mark."""
