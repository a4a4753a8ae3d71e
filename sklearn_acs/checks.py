"""Arguments of public functions are checked before any work: what parameters are to estimators, these are to them."""

import os
from collections.abc import Callable
from functools import wraps
from inspect import signature
from math import isfinite
from numbers import Integral, Real
from typing import Any, ParamSpec, TypeVar

import numpy as np

from sklearn_acs._compat import Interval, validate_parameter_constraints

COUNT = [Interval(Integral, 1, None, closed="left")]
SEED = [Interval(Integral, 0, 2**63 - 1, closed="both")]
PATH = [str, os.PathLike]

P = ParamSpec("P")
R = TypeVar("R")


def checked(**constraints: list) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function check its arguments when it is called.

    Parameters
    ----------
    **constraints : list
        For an argument the constraints that may hold, as in ``_parameter_constraints`` of estimators.

    Returns
    -------
    callable
        A decorator. What it decorates raises ValueError (one that is a TypeError, too) with the argument's name, its
        value, and what is allowed.

    Examples
    --------
    >>> from sklearn_acs.checks import COUNT, checked
    >>> @checked(times=COUNT)
    ... def repeat(word, times=2):
    ...     return word * times
    >>> repeat("so")
    'soso'
    >>> repeat("so", times=0)
    Traceback (most recent call last):
    sklearn.utils._param_validation.InvalidParameterError: The 'times' parameter of repeat must be an int in the range \
[1, inf). Got 0 instead.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        called, name = signature(function), function.__qualname__.removesuffix(".__init__")

        @wraps(function)
        def check_and_call(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                given = called.bind(*args, **kwargs)
            except TypeError:
                return function(*args, **kwargs)  # Python's own error says whose the argument is not
            given.apply_defaults()
            of_interest = {key: given.arguments[key] for key in constraints}
            validate_parameter_constraints(constraints, of_interest, name)
            return function(*args, **kwargs)

        return check_and_call

    return decorate


def check_clip(clip: Any) -> tuple[float, float] | None:
    """Return a box as (low, high), or None; whatever else is given is a ValueError."""
    if clip is None:
        return None
    pair = tuple(clip) if isinstance(clip, list | tuple) or np.ndim(clip) == 1 else ()
    if len(pair) != 2 or not all(isinstance(end, Real) and isfinite(end) for end in pair) or not pair[0] < pair[1]:
        raise ValueError(f"clip={clip!r} must be None or (low, high), two finite numbers with low < high")
    return pair
