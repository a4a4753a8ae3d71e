"""Parts are given by name or as objects, and parameters reach into them: ``objective__beta=1``."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from inspect import Parameter, signature
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, clone

_ELSEWHERE = {
    "max_epochs": "epochs n_epochs num_epochs max_iter n_iter",
    "batch_size": "minibatch_size",
    "lr": "learning_rate learning_rate_init eta0",
    "lr_schedule": "scheduler lr_scheduler",
    "module": "model net network estimator",
    "module__hidden": "hidden hidden_layer_sizes",
    "objective": "criterion loss loss_fn",
    "objective__beta": "beta",
    "attack__eps": "eps epsilon radius",
    "attack__steps": "steps n_steps num_steps",
    "attack__step_size": "step_size alpha",
    "attack__norm": "norm",
    "coreset_frac": "n_select fraction",
    "selector__ridge": "ridge",
    "optimizer": "solver",
    "optimizer__momentum": "momentum",
    "optimizer__weight_decay": "weight_decay",
    "iterator_train__num_workers": "num_workers n_jobs",
    "n_iter_no_change": "patience",
    "validation_fraction": "train_split",
    "random_state": "seed",
    "precision": "amp dtype",
    "averaging": "ema",
}
SYNONYMS = {other: name for name, others in _ELSEWHERE.items() for other in others.split()}
"""Names that people know from other libraries, with what these are called here."""


class UnknownParameterError(TypeError, ValueError):
    """Tells of a parameter that does not exist: a TypeError, as Python has it, and a ValueError, as scikit-learn's."""


def unknown_parameter(
    owner: str, name: str, known: Iterable[str], *, prefix: str = "", parts: Sequence[str] = ()
) -> UnknownParameterError:
    """Make the error of a name that is none of those known, with the one that was probably meant.

    Parameters
    ----------
    owner : str
        What has no such parameter.
    name : str
        The name that was given.
    known : iterable of str
        Names that are allowed.
    prefix : str, default=""
        What the user writes before each of these names, such as ``attack__``.
    parts : sequence of str, default=()
        Parts whose parameters are allowed too, as ``part__name``.

    Returns
    -------
    UnknownParameterError
        To raise.
    """
    known = sorted(known)
    part, _, rest = name.partition("__")
    usual = SYNONYMS.get(name, "")
    if prefix:
        usual = usual.rpartition("__")[2]
    if usual.partition("__")[0] in known:
        meant = [usual]
    elif rest:
        meant = [f"{close}__{rest}" for close in get_close_matches(part, parts, n=1)]
    else:
        meant = get_close_matches(name, [*known, *(SYNONYMS.values() if parts else ())], n=1)
    hint = f"; did you mean {prefix + meant[0]!r}?" if meant else "."
    of_parts = f", and part__name for those of {', '.join(parts)}" if parts else ""
    names = ", ".join(prefix + each for each in known) or "none"
    return UnknownParameterError(
        f"{owner} has no parameter {prefix + name!r}{hint} Its parameters are {names}{of_parts}."
    )


def check_names(owner: str, parameter: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse names given as ``parameter__name`` that are none of those known; ``name__inner`` stands for `name`."""
    known = list(known)
    for name in given:
        if name.partition("__")[0] not in known:
            raise unknown_parameter(owner, name, known, prefix=f"{parameter}__")


def check_options(parameter: str, function: Callable[..., Any], given: Iterable[str], *others: str) -> None:
    """Refuse options that a function or a class does not take, `others` being arguments that no user gives."""
    takes = signature(function).parameters.values()
    if not any(each.kind is Parameter.VAR_KEYWORD for each in takes):
        by_name = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
        known = {each.name for each in takes if each.kind in by_name}.difference(others)
        check_names(getattr(function, "__name__", repr(function)), parameter, given, known)


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
        _check_reaches(parameter, part, name, option)
        part.set_params(**{name: option})
    if isinstance(part, BaseEstimator):  # those inside it, too
        part.set_params(**numpy_values(part.get_params()))
    if hasattr(part, "validate"):
        try:
            part.validate()
        except (TypeError, ValueError) as error:
            raise type(error)(f"{parameter}: {error}") from error
    return part


def numpy_values(params: Mapping[str, Any]) -> dict[str, Any]:
    """Pick the values that are NumPy's numbers, bools and strings, as Python's: torch does not take them everywhere."""
    plain = {name: value for name, value in params.items() if isinstance(value, np.generic | np.ndarray)}
    return {name: value.item() for name, value in plain.items() if value.ndim == 0}


def _check_reaches(parameter: str, part: BaseEstimator, name: str, option: Any) -> None:
    """Refuse a nested name, ``attack__eps``, that is none of a part's, or of the parts' in it."""
    known = part.get_params(deep=False)
    check_names(type(part).__name__, parameter, [name], known)
    inner, nested, rest = name.partition("__")
    if nested and not hasattr(known[inner], "set_params"):
        raise ValueError(
            f"{parameter}__{name}={option!r} has nothing to be set on: {inner}={known[inner]!r} is no object. Give "
            f"{parameter} as an object with an {inner} of its own"
        )
    if nested:
        _check_reaches(f"{parameter}__{inner}", known[inner], rest, option)


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
    _get_param_names: ClassVar[Any]  # BaseEstimator's

    def _set_options(self, options: Mapping[str, Any]) -> None:
        """Keep what ``__init__`` was given as ``**options``; refuse names that lead nowhere."""
        for key, value in options.items():
            self._check_name(key)
            setattr(self, key, value)

    def _check_name(self, key: str) -> None:
        """Refuse a name that is neither a parameter nor ``part__name``."""
        # scikit-learn's checks hand over whatever __init__ names, "options" too, and want to hear of it in `fit`.
        if key not in self._get_param_names() and not self._is_routed(key) and key != "options":
            raise self._unknown(key)

    def _validate_params(self) -> None:
        if "options" in vars(self):
            raise self._unknown("options")
        super()._validate_params()  # type: ignore[misc]

    def _unknown(self, key: str) -> UnknownParameterError:
        return unknown_parameter(type(self).__name__, key, self._get_param_names(), parts=self._routes)

    def _is_routed(self, key: str) -> bool:
        part, _, name = key.partition("__")
        return part in self._routes and bool(name)

    def _extra_params(self) -> dict[str, Any]:
        """Find what is kept for parts."""
        return {key: value for key, value in vars(self).items() if self._is_routed(key)}

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

        Raises
        ------
        UnknownParameterError
            A name is neither a parameter nor ``part__name``.
        """
        for key in params:
            self._check_name(key)
        for key, value in sorted(params.items(), key=lambda each: "__" in each[0]):  # parts before their parameters
            part, nested, name = key.partition("__")
            target: Any = getattr(self, part, None) if nested else None  # a DataLoader is no attribute
            if hasattr(target, "set_params") and not isinstance(target, type):
                _check_reaches(part, target, name, value)
                target.set_params(**{name: value})
                vars(self).pop(key, None)  # kept from when the part was only a name, it would win over the new value
            else:
                setattr(self, key, value)
        return self
