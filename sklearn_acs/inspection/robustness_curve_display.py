"""RobustnessCurveDisplay draws accuracy under attack over the attack's radius."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone
from torch import nn

from sklearn_acs.attacks import PGD, Attack
from sklearn_acs.checks import COUNT, SEED, checked
from sklearn_acs.data.formats import Clip
from sklearn_acs.evaluation import evaluate
from sklearn_acs.inspection._axes import fitted, legend_above, numbers, one_axes, plain
from sklearn_acs.model import FittedModel, last_step

FACTORS = (0, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4)
"""Radii looked at unless others are given, in those of the attack."""


class RobustnessCurveDisplay:
    """Draws accuracy under attack over the attack's radius, for one model or several.

    Make it with `from_estimator` or `from_estimators`; its parameters are kept as attributes.

    Parameters
    ----------
    eps : array-like of shape (n_eps,)
        Radii.
    accuracy : array-like of shape (n_eps,) or (n_models, n_eps)
        Accuracy at each radius.
    names : sequence of str or None, default=None
        Names of the models, for the legend.
    eps_name : str, default="eps"
        Label of the radii.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes drawn on.
    figure_ : matplotlib Figure
        Their figure.
    lines_ : list of matplotlib Line2D
        A curve for each model.

    See Also
    --------
    evaluate : Many attacks instead of many radii.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_acs import RobustClassifier, RobustnessCurveDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = RobustClassifier(max_epochs=4, random_state=0).fit(X, y)
    >>> display = RobustnessCurveDisplay.from_estimator(clf, X, y)
    >>> bool((display.accuracy[0, 1:] <= display.accuracy[0, :-1]).all())
    True
    """

    @checked(names=["array-like", None], eps_name=[str])
    def __init__(
        self, *, eps: ArrayLike, accuracy: ArrayLike, names: Sequence[str] | None = None, eps_name: str = "eps"
    ) -> None:
        self.eps = numbers("eps", eps)
        self.accuracy = np.atleast_2d(numbers("accuracy", accuracy))
        self.names = None if names is None else [str(name) for name in names]
        self.eps_name = eps_name
        if self.accuracy.shape[1:] != self.eps.shape:
            raise ValueError(
                f"accuracy has shape {self.accuracy.shape}; it must be (n_models, {self.eps.size}), as eps"
            )
        if self.names is not None and len(self.names) != len(self.accuracy):
            raise ValueError(f"names={self.names!r} must be {len(self.accuracy)} names, one for each row of accuracy")

    def plot(self, ax: Any = None, **line_kw: Any) -> Self:
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Where; None makes a figure. Curves of several displays may share axes.
        **line_kw
            For ``ax.plot``.

        Returns
        -------
        self
        """
        ax = one_axes(ax, "RobustnessCurveDisplay.plot")
        names = [None] * len(self.accuracy) if self.names is None else self.names
        self.lines_ = []
        for name, accuracy in zip(names, self.accuracy, strict=True):
            style = {"marker": "o", "markersize": 3.5, "label": None if name is None else plain(name), **line_kw}
            self.lines_ += ax.plot(self.eps, accuracy, **style)
        ax.set(xlabel=self.eps_name, ylabel="accuracy under attack", ylim=(-0.02, 1.02))
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        ax.grid(alpha=0.25)
        if self.names is not None:
            self.legend_ = legend_above(ax)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any = None,
        *,
        attack: Attack | str | None = None,
        eps: ArrayLike | None = None,
        name: str | None = None,
        **options: Any,
    ) -> Self:
        """Attack one model with growing radii and draw the curve.

        Parameters
        ----------
        estimator : RobustClassifier or nn.Module
            The model.
        X, y : array-like
            Samples and labels as `evaluate` takes them.
        attack : Attack, str or None, default=None
            The attack, one with a radius `eps` or `bound`; None is what a classifier was trained against, and PGD with
            20 steps for a module.
        eps : array-like of shape (n_eps,) or None, default=None
            Radii in the units of the attack; where its own is one for each feature, factors of it. None is 0 to 4
            times that of the attack.
        name : str or None, default=None
            For the legend; None is the name of the class.
        **options
            The further parameters of `from_estimators`; `ax` with curves already gets one more.

        Returns
        -------
        RobustnessCurveDisplay
        """
        models = {type(estimator).__name__ if name is None else name: estimator}
        return cls.from_estimators(models, X, y, attack=attack, eps=eps, **options)

    @classmethod
    @checked(estimators=[Mapping], batch_size=COUNT, random_state=SEED)
    def from_estimators(
        cls,
        estimators: Mapping[str, Any],
        X: Any,
        y: Any = None,
        *,
        attack: Attack | str | None = None,
        eps: ArrayLike | None = None,
        clip: Clip = (0.0, 1.0),
        batch_size: int = 256,
        random_state: int = 0,
        ax: Any = None,
        **line_kw: Any,
    ) -> Self:
        """Attack several models with the same radii and draw a curve for each.

        Parameters
        ----------
        estimators : mapping of str to RobustClassifier or nn.Module
            The models by name.
        X, y : array-like
            Samples and labels as `evaluate` takes them.
        attack, eps
            As in `from_estimator`; for the attack, None is that of the first model.
        clip, batch_size, random_state
            As in `evaluate`.
        ax : matplotlib Axes or None, default=None
            Where to draw.
        **line_kw
            For ``ax.plot``.

        Returns
        -------
        RobustnessCurveDisplay

        Notes
        -----
        A ball holds all smaller ones, so that a sample broken within one radius is not attacked with larger ones.
        """
        if not estimators:
            raise ValueError("estimators={} has no model")
        first, X_first = last_step(next(iter(estimators.values())), X)
        if attack is None:
            attack = PGD(steps=20) if isinstance(first, nn.Module) else fitted(first).attack_
        settled = FittedModel.of(first, X_first, clip).settled(attack).for_evaluation()
        parameter = next((name for name in ("eps", "bound") if name in settled.get_params(deep=False)), None)
        if parameter is None:
            raise ValueError(f"attack={settled!r} has no radius: neither eps nor bound")
        own = getattr(settled, parameter)
        by_feature = np.ndim(own) > 0
        unit = 1.0 if by_feature else float(own)
        radii = np.multiply(FACTORS, unit) if eps is None else np.unique(numbers("eps", eps))
        if radii.ndim != 1 or not ((radii >= 0) & (radii < np.finfo(np.float32).max)).all() or not radii.any():
            raise ValueError(f"eps={eps!r} must be finite numbers >= 0, one of them > 0")
        attacks = {repr(float(radius)): _scaled(settled, parameter, radius / unit) for radius in radii if radius > 0}
        options: dict[str, Any] = {"clip": clip, "batch_size": batch_size, "random_state": random_state}
        found = [evaluate(model, X, y, attacks, worst_case_only=True, **options) for model in estimators.values()]
        accuracy = [rows["accuracy"][int(0 not in radii) : -1] for rows in found]  # the first row is radius 0
        label = f"{parameter}, in those of the attack" if by_feature else parameter
        if settled.threat is not None:
            label += f" ({settled.threat.norm})"
        display = cls(eps=radii, accuracy=accuracy, names=list(estimators), eps_name=label)
        return display.plot(ax, **line_kw)


def _scaled(attack: Attack, parameter: str, factor: float) -> Attack:
    """Give an attack another radius; its steps grow with it, so that they reach as far."""
    params = attack.get_params(deep=False)
    scaled = {
        name: np.multiply(params[name], factor) for name in (parameter, "step_size") if params.get(name) is not None
    }
    return clone(attack).set_params(**{name: value if value.ndim else float(value) for name, value in scaled.items()})
