"""Slips in a radius or step: the wrong unit makes attacks that change nothing, or everything, and is told of."""

import warnings
from math import prod

import numpy as np

from sklearn_acs.attacks.base import Attack
from sklearn_acs.attacks.radius import deviations
from sklearn_acs.attacks.threat import Threat
from sklearn_acs.data.formats import DataFormat

SMALL_IN_BOX = 1e-3
"""Widths of the box: a radius below this, a quarter of a level of 255, changes nothing."""

SMALL, LARGE = 3e-3, 3.0
"""Standard deviations of a column that a radius in input units is not expected to be below or above."""

MANY = 0.3
"""Share of the columns in which a radius must be too large to be told of; of small and large ones it is a half."""

LONG_STEP = 10
"""Radii: no step is meant to be longer."""

_REACH = {"linf": 0.0, "l2": 0.5, "l1": 1.0}  # a move of 1 everywhere has the size n_features ** reach


def check_radius(attack: Attack, format: DataFormat, *, training: bool = False) -> None:
    """Warn where the radius or the step of an attack was surely meant in another unit.

    Large radii are told of in training alone: evaluation goes there on purpose, to see an accuracy fall to 0.

    Parameters
    ----------
    attack : Attack
        Settled; one without a ball is not looked at.
    format : DataFormat
        The data's box, range and scale, as far as they are known.
    training : bool, default=False
        Whether it is trained against.

    Raises
    ------
    ValueError
        In training, where a linf ball covers the box, so that any input can become any other.
    """
    threat = attack.for_evaluation().threat
    if threat is None:
        return
    eps, clip = np.asarray(threat.eps, dtype=float), format.clip
    if clip is not None:
        _check_in_box(eps, threat, format, training)
    elif format.scale is not None:
        _check_in_scale(eps, threat, format, training)
    step_size = getattr(attack, "step_size", None)
    if step_size is not None and step_size > LONG_STEP * eps.max():
        hint = f"was step_size={step_size:g}/255 meant?" if step_size >= 1 else "leave it out, or use rel_step_size"
        _warn(f"step_size={step_size:g} is {step_size / eps.max():.0f} times the radius, {eps.max():.3g}; {hint}")


def check_selection(attack: Attack, selecting: Attack) -> None:
    """Warn where selections attack in another ball than training."""
    own, other = attack.for_evaluation().threat, selecting.for_evaluation().threat
    if own is None or other is None:
        return
    if own.norm != other.norm or not np.allclose(own.eps, other.eps, rtol=1e-6, atol=0):
        _warn(
            f"training attacks within {_told(own)} in {own.norm}, and selection_attack within {_told(other)} in "
            f"{other.norm}: coresets are chosen against other perturbations. A selection_attack without eps and norm "
            "takes those of training"
        )


def _check_in_box(eps: np.ndarray, threat: Threat, format: DataFormat, training: bool) -> None:
    """Compare a radius to the box that samples may fill, and to the part of it that they do."""
    assert format.clip is not None
    low, high = format.clip
    width, (least, most) = high - low, format.limits or format.clip
    reach = prod(format.inputs.model_shape) ** _REACH[threat.norm]
    if training and threat.norm == "linf" and eps.min() >= width:
        raise ValueError(
            f"{_told(threat)} covers the box clip={format.clip}: any input can become any other, and nothing can be "
            f"learned. eps is in units of X{_of_255(eps.min(), width)}"
        )
    if training and eps.min() >= (1 - 1e-6) * reach * (most - least) / 2:
        ball = f"{_told(threat)} in {threat.norm}"
        text = f"X goes from {least:.3g} to {most:.3g}, so that {ball} can make all samples alike"
        if most - least < width / 2:
            _warn(
                f"{text}. Scale X to fill {format.clip}, or give the clip that X has; uint8 images are divided by 255 "
                "whatever their maximum"
            )
        else:
            _warn(f"{text}; eps is in units of X{_of_255(eps.min(), width)}")
    elif eps.max() < SMALL_IN_BOX * width:
        share = eps.max() / width
        _warn(f"{_told(threat)} is {share:.1g} of the box {format.clip}; was eps={width * eps.max():.3g} meant?")


def _check_in_scale(eps: np.ndarray, threat: Threat, format: DataFormat, training: bool) -> None:
    """Compare a radius to the standard deviations of the columns."""
    if format.n_values is not None and (format.n_values == 1).all():
        return
    scale = deviations(format, all_columns=True)
    eps, scale = np.broadcast_arrays(eps, scale)
    moved = (eps > 0) & (scale > 0)
    if format.inputs.is_table and format.n_values is not None:
        several = moved & (format.n_values.numpy() > 2)
        moved = several if several.any() else moved  # a rare 1 among 0s has a small deviation in any units
    if not moved.any():
        return
    ratio = eps[moved] / scale[moved]
    reach = prod(format.inputs.model_shape) ** _REACH[threat.norm]
    small, large = ratio < SMALL, ratio / reach > LARGE
    large = large & training
    if (small | large).mean() > 0.5 or large.mean() > MANY:
        _warn(
            f"{_told(threat)} is {ratio.min():.2g} to {ratio.max():.2g} standard deviations of a column of X; eps is "
            "in units of X. Was unit='std' meant, which counts it in standard deviations of each column?"
        )


def _told(threat: Threat) -> str:
    return "eps of each feature" if np.ndim(threat.eps) else f"eps={threat.eps:.3g}"


def _of_255(eps: float, width: float) -> str:
    return f"; was eps={eps:g}/255 meant?" if width == 1 and eps >= 1 else ""


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=4)
