"""A radius is fitted to the data: to their box, to each column's scale, to the user's layout and names of columns."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from sklearn_acs.data.formats import DataFormat, InputFormat

IMAGE_EPS = 8 / 255
"""Linf radius of an attack that is given none, in widths of the box; 1 where there is no box."""

TABLE_EPS = 0.1
"""The same for tables of a classifier, in standard deviations of each column that moves."""


def fitted_radius(eps: Any, unit: str, format: DataFormat) -> Any:
    """Fit a radius to the data.

    Parameters
    ----------
    eps : float, array-like, mapping of str to float, or None
        Radius as users give it; None is `IMAGE_EPS`, or for tables `TABLE_EPS`.
    unit : {"input", "std"}
        What it is counted in.
    format : DataFormat
        How samples look, and their scale.

    Returns
    -------
    float or ndarray of the model's shape of one sample
        Radius in input units. Where one number stands for all columns in standard deviations, constant columns do not
        move, and neither do those of two values, unless all have no more.

    Raises
    ------
    ValueError
        It does not go with samples of this shape, names or scale.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from sklearn_acs.attacks.radius import fitted_radius
    >>> from sklearn_acs.data.formats import DataFormat, InputFormat
    >>> scale, n_values = torch.tensor([4.0, 1.0, 0.5]), torch.tensor([3, 1, 2])
    >>> format = DataFormat(InputFormat((3,)), None, np.arange(2), torch.zeros(3), scale, n_values)
    >>> fitted_radius(None, "input", format).tolist(), fitted_radius([0.5, 0.5, 0.5], "std", format).tolist()
    ([0.4000000059604645, 0.0, 0.0], [2.0, 0.0, 0.25])
    """
    form, clip = format.inputs, format.clip
    if eps is None:
        if unit == "input" and not (form.is_table and format.scale is not None):
            return IMAGE_EPS if clip is None else IMAGE_EPS * (clip[1] - clip[0])
        eps, unit = TABLE_EPS, "std"
    if isinstance(eps, Mapping) or (hasattr(eps, "items") and form.feature_names is not None):  # a Series, too
        eps = _by_column(dict(eps.items()), form)
    if np.ndim(eps):
        eps = _as_the_model_sees_it(np.asarray(eps), form)
    if unit != "std":
        return eps
    radius = eps * deviations(format, all_columns=np.ndim(eps) > 0)
    if not radius.any():
        raise ValueError("eps with unit='std' moves only columns that are constant in X, and those have no deviation")
    return radius


def deviations(format: DataFormat, *, all_columns: bool = False) -> np.ndarray:
    """Tell the standard deviation of each column or channel, 0 for what does not move.

    Parameters
    ----------
    format : DataFormat
        Of a classifier's training data.
    all_columns : bool, default=False
        Whether columns of two values move; constant ones never do.

    Returns
    -------
    ndarray of shape (features,) or (C, 1, 1)
    """
    if format.scale is None:
        raise ValueError(
            "unit='std' counts eps in standard deviations of the training samples, which a RobustClassifier knows and "
            "a bare module does not; give eps in units of X"
        )
    scale = format.scale.numpy()
    n_values = np.full(len(scale), 3) if format.n_values is None else format.n_values.numpy()
    moves = n_values > (2 if not all_columns and (n_values > 2).any() else 1)
    if not moves.any():
        raise ValueError(
            "all columns of X are constant, so that an attack in their scale has nothing to move; give samples that "
            "differ, or eps in units of X"
        )
    found = np.where(moves, scale, np.float32(0))
    return found if format.inputs.is_table else found[:, None, None]


def _by_column(eps: Mapping[str, float], form: InputFormat) -> np.ndarray:
    """Put radii by name in the order of the columns; those that have no name there do not move."""
    if form.feature_names is None:
        raise ValueError(f"eps={eps!r} names columns, and X has no names; give a DataFrame, or eps as an array")
    names = form.feature_names.tolist()
    if unknown := sorted(set(eps) - set(names), key=str):
        raise ValueError(f"eps names columns that X does not have: {unknown}; it has {names}")
    return np.array([eps.get(name, 0.0) for name in names], dtype=float)


def _as_the_model_sees_it(eps: np.ndarray, form: InputFormat) -> np.ndarray:
    """Spread an array over one sample, and turn it from the user's layout to the model's."""
    given, own = form.given_shape, form.model_shape
    if eps.shape != own and spreads(eps.shape, given):
        return form.to_model(torch.tensor(np.broadcast_to(eps, given))[None])[0].numpy()
    if spreads(eps.shape, own):
        return np.broadcast_to(eps, own).copy()
    per_channel = "" if form.is_table else f" (for channels {(own[0], 1, 1)})"
    raise ValueError(f"eps must be a number or of the shape of one sample, {own}{per_channel}; got shape {eps.shape}")


def spreads(shape: tuple[int, ...], over: tuple[int, ...]) -> bool:
    """Tell whether each side of a shape is that of another, or 1."""
    return len(shape) == len(over) and all(side in (1, full) for side, full in zip(shape, over, strict=True))
