"""Identity hashes what a result depends on, the source of one's own code too, and notes what cannot be known again."""

import functools
import hashlib
import inspect
import sys
import sysconfig
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

KNOWN = {"sklearn_acs", "torch", "numpy", "sklearn", "skorch", "scipy", *sys.builtin_module_names}
"""Packages whose versions, and not whose sources, say what they do."""

PLAIN = (type(None), bool, int, float, complex, str, bytes, Path, Enum, torch.device, torch.dtype, torch.Size, slice)

GENERATORS = (np.random.RandomState, np.random.Generator, np.random.BitGenerator, torch.Generator)

INSTALLED = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")]


class Identity:
    """Hashes values, nested as they may be, and collects the sources of functions and classes that they are made of.

    Attributes
    ----------
    sources : dict of str to str
        Digest of each source, by the name of the function or class.
    doubts : list of str
        What makes a value that looks the same perhaps another one: what draws from a generator, or has no source.
    """

    def __init__(self) -> None:
        self.sources: dict[str, str] = {}
        self.doubts: list[str] = []
        self._within: list[int] = []  # ids of what is being hashed, which may refer to itself
        self._read: set[Any] = set()

    def of(self, *values: Any, weights: bool = True) -> str:
        """Hash values: arrays, modules, estimators, functions, and whatever else by what it holds.

        Parameters
        ----------
        *values : objects
            What to tell apart.
        weights : bool, default=True
            Whether the weights of modules count, or their structure alone.

        Returns
        -------
        str
            64 hexadecimal digits.
        """
        digest = hashlib.sha256()
        self._feed(digest, values, weights)
        return digest.hexdigest()

    def _feed(self, digest: Any, value: Any, weights: bool) -> None:
        if isinstance(value, np.generic) and not isinstance(value, np.void):
            value = value.item()
        kind = type(value)
        digest.update(f"<{kind.__module__}.{kind.__qualname__}:".encode())
        if id(value) in self._within:
            digest.update(f"{len(self._within) - self._within.index(id(value))} outwards".encode())
        elif isinstance(value, PLAIN):
            digest.update(repr(value).encode())
        else:
            self._within.append(id(value))
            try:
                self._feed_parts(digest, value, weights)
            finally:
                self._within.pop()
        digest.update(b">")

    def _feed_parts(self, digest: Any, value: Any, weights: bool) -> None:
        """Feed what a value holds."""

        def feed(*parts: Any) -> None:
            for part in parts:
                self._feed(digest, part, weights)

        if isinstance(value, Tensor):
            feed(str(value.dtype), tuple(value.shape))
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        elif isinstance(value, np.ndarray) and value.dtype != object:
            feed(str(value.dtype), value.shape)
            digest.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8))
        elif isinstance(value, np.ndarray):
            feed(value.shape, value.ravel().tolist())
        elif isinstance(value, GENERATORS):
            self.doubts.append(f"{type(value).__name__} goes on drawing where it stands")
        elif isinstance(value, Mapping):
            feed(*value.items())
        elif isinstance(value, list | tuple):
            feed(*value)
        elif isinstance(value, set | frozenset):
            feed(*sorted(self.of(each) for each in value))
        elif isinstance(value, ModuleType | BuiltinFunctionType):
            feed(value.__name__)
        elif isinstance(value, functools.partial):
            feed(value.func, value.args, value.keywords)
        elif isinstance(value, MethodType):
            feed(value.__func__, value.__self__)
        elif isinstance(value, FunctionType):
            feed(value.__qualname__, value.__defaults__, value.__kwdefaults__, inspect.getclosurevars(value).nonlocals)
            if value.__name__ == "<lambda>":  # its name and its line may be those of another, too
                feed(_code_text(value.__code__))
            self._read_source(value)
        elif isinstance(value, type):
            feed(f"{value.__module__}.{value.__qualname__}")
            self._read_source(value)
        elif isinstance(value, nn.Module):
            self._feed_module(feed, value, weights)
        elif (params := _params(value)) is not None:
            feed(type(value), params)
        elif hasattr(value, "__dict__") or hasattr(type(value), "__slots__"):
            slots = [name for each in type(value).__mro__ for name in _names(getattr(each, "__slots__", ()))]
            held = {name: getattr(value, name) for name in slots if hasattr(value, name) and name != "__dict__"}
            feed(type(value), {**held, **getattr(value, "__dict__", {})})
        else:
            feed(type(value), repr(value))
            if " at 0x" in repr(value):
                self.doubts.append(f"an object of {type(value).__qualname__} does not say what it holds")

    def _feed_module(self, feed: Callable[..., None], module: nn.Module, weights: bool) -> None:
        for name, part in module.named_modules():
            inner = ("_parameters", "_buffers", "_modules", "forward")
            own = {key: value for key, value in vars(part).items() if key not in inner and "hooks" not in key}
            feed(name, type(part), own)
            for key, each in part._parameters.items():
                feed(key, None if each is None else (each.shape, each.dtype, each.requires_grad))
        if weights:
            feed({**module.state_dict(), **dict(module.named_buffers(remove_duplicate=False))})

    def _read_source(self, code: Any) -> None:
        """Note the source of a function or a class that is not a known library's, and of what it refers to."""
        name = f"{code.__module__}.{code.__qualname__}"
        root = (code.__module__ or "").partition(".")[0]
        if root in KNOWN or code in self._read:
            return
        self._read.add(code)
        functions = [code] if isinstance(code, FunctionType) else [*map(_function, vars(code).values())]
        functions = [each for each in functions if each is not None]
        source = _source(code)
        if source is None and isinstance(code, type):  # of one that was typed in, its functions may have theirs
            sources = [_source(each) for each in functions]
            source = "\n".join(each or "" for each in sources) if sources and None not in sources else None
        if source is None:
            self.doubts.append(f"{code.__qualname__} has no source that could be read")
            source = "\n".join(_code_text(each.__code__) for each in functions)
        digest = hashlib.sha256(f"{self.sources.get(name, '')}{source}".encode())
        if not _is_installed(code):
            for function in functions:
                for used in _globals_of(function):
                    if isinstance(used, FunctionType | type):
                        self._read_source(used)
                    elif isinstance(used, (*PLAIN, tuple)):
                        self._feed(digest, used, True)
            for base in code.__bases__ if isinstance(code, type) else ():
                self._read_source(base)
        self.sources[name] = digest.hexdigest()


def _params(value: Any) -> dict[str, Any] | None:
    """Find the parameters that an object is made of, as `sklearn.base.clone` does; None where it has none."""
    if not hasattr(value, "get_params"):
        return None
    try:
        return value.get_params(deep=False)
    except (AttributeError, TypeError):
        return None


def _names(slots: Any) -> list[str]:
    return [slots] if isinstance(slots, str) else list(slots)


def _function(value: Any) -> FunctionType | None:
    """Find the function behind what stands in a class."""
    value = getattr(value, "fget", None) or getattr(value, "__func__", None) or value
    return value if isinstance(value, FunctionType) else None


def _source(code: Any) -> str | None:
    try:
        return inspect.getsource(code)
    except (OSError, TypeError, IndexError, SyntaxError):
        return None


def _code_text(code: CodeType) -> str:
    """Write what a function does, inner ones too, as it was compiled."""
    inner = [_code_text(each) if isinstance(each, CodeType) else repr(each) for each in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {inner}"


def _globals_of(function: FunctionType) -> list[Any]:
    """List what a function names of its module, in the order of the names."""
    names: set[str] = set()
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        names |= set(code.co_names)
        codes += [each for each in code.co_consts if isinstance(each, CodeType)]
    return [function.__globals__[name] for name in sorted(names) if name in function.__globals__]


def _is_installed(code: Any) -> bool:
    """Tell whether code is a library's, which is not read on."""
    file = getattr(sys.modules.get(code.__module__), "__file__", None)
    return file is not None and any(Path(file).is_relative_to(path) for path in INSTALLED)
