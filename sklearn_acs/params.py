"""Parts are given by name or as objects, and parameters reach into them: ``objective__beta=1``."""

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, clone


def make_part(
    parameter: str,
    value: Any,
    known: Mapping[str, Callable[..., Any]],
    options: Mapping[str, Any] | None = None,
    *,
    base: type = BaseEstimator,
) -> Any:
    """Build a part from a name, which means its class with its defaults, or copy the object given; with `options` set.

    Parameters
    ----------
    parameter : str
        Which parameter of the estimator the part is, for error messages.
    value : str or estimator
        A name in `known`, or an object.
    known : mapping of str to class, or to a function that makes the part
        The names.
    options : mapping, default=None
        Parameters to set on the part.
    base : type, default=BaseEstimator
        What an object has to be an instance of.

    Returns
    -------
    estimator
        A part of one's own; its `validate` has passed where it has one.
    """
    if isinstance(value, str):
        if value not in known:
            raise ValueError(f"{parameter}={value!r} is not known; the known names are {sorted(known)}")
        # A function may make more of an option than a parameter of that name.
        taken = signature(known[value]).parameters.keys() & (options or {}).keys()
        part = known[value](**{name: (options or {})[name] for name in taken})
        options = {name: option for name, option in (options or {}).items() if name not in taken}
    elif isinstance(value, base):
        part = clone(value)
    else:
        raise TypeError(f"{parameter} must be one of {sorted(known)} or of type {base.__name__}; got {value!r}")
    for name, option in (options or {}).items():
        inner, nested, _ = name.partition("__")
        if nested and not hasattr(getattr(part, inner, None), "set_params"):
            raise ValueError(
                f"{parameter}__{name}={option!r} has nothing to be set on: {inner}={getattr(part, inner, None)!r} is "
                f"no object. Give {parameter} as an object with an {inner} of its own"
            )
        part.set_params(**{name: option})
    if isinstance(part, BaseEstimator):  # those inside it, too
        part.set_params(**numpy_values(part.get_params()))
    if hasattr(part, "validate"):
        part.validate()
    return part


def numpy_values(params: Mapping[str, Any]) -> dict[str, Any]:
    """Pick the values that are NumPy's numbers, bools and strings, as Python's: torch does not take them everywhere."""
    return {name: value.item() for name, value in params.items() if isinstance(value, np.generic)}


def options_of(params: Mapping[str, Any], part: str) -> dict[str, Any]:
    """Pick the parameters that are kept for a part, without the prefix."""
    return {key.removeprefix(f"{part}__"): value for key, value in params.items() if key.startswith(f"{part}__")}


class RoutedParamsMixin:
    """Lets an estimator take, list and set ``part__name`` parameters even while `part` is only a name or None.

    Where the part is an estimator, scikit-learn's own rule holds and the parameter is set on it. Where it is a
    string, a class or None, the parameter is kept and applied when the part is built. So a grid over
    ``optimizer__momentum`` works like one over ``objective__beta``. Comes before BaseEstimator among the bases.
    """

    _routes: ClassVar[tuple[str, ...]] = ()

    def _check_routed(self) -> None:
        """Refuse extra keyword arguments that lead nowhere: at `fit`, where scikit-learn estimators validate."""
        for key in self._extra_params():
            if "__" not in key or key.partition("__")[0] not in self._routes:
                raise TypeError(
                    f"{type(self).__name__} has no parameter {key!r}; parameters of its parts are written part__name, "
                    f"with part one of {', '.join(self._routes)}"
                )

    def _extra_params(self) -> dict[str, Any]:
        """Find what ``__init__`` was given beyond its named parameters."""
        named = self._get_param_names()  # type: ignore[attr-defined]
        return {k: v for k, v in vars(self).items() if k not in named and not (k.startswith("_") or k.endswith("_"))}

    def _routed(self, part: str) -> dict[str, Any]:
        """Pick the parameters kept for `part`, without the prefix."""
        return options_of(vars(self), part)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Get the parameters of this estimator, those kept for its parts included.

        Parameters
        ----------
        deep : bool, default=True
            Whether to include the parameters of parts that are estimators.

        Returns
        -------
        dict
            Names and values.
        """
        return {**super().get_params(deep), **self._extra_params()}  # type: ignore[misc]

    def set_params(self, **params: Any) -> Self:
        """Set parameters of this estimator and of its parts.

        Parameters
        ----------
        **params
            Names and values; ``part__name`` reaches into a part.

        Returns
        -------
        self
        """
        super().set_params(**{key: value for key, value in params.items() if "__" not in key})  # type: ignore[misc]
        for key, value in params.items():
            part, nested, name = key.partition("__")
            if not nested:
                continue
            if part not in self._routes:
                raise ValueError(
                    f"Invalid parameter {key!r} for estimator {type(self).__name__}. Parts that take parameters are: "
                    f"{list(self._routes)!r}."
                )
            target: Any = getattr(self, part, None)  # a DataLoader is no attribute
            if hasattr(target, "set_params") and not isinstance(target, type):
                target.set_params(**{name: value})
                vars(self).pop(key, None)  # kept from when the part was only a name, it would win over the new value
            else:
                setattr(self, key, value)
        return self
