"""DynamicsDisplay draws how many samples are outliers, at the boundary and robust, while a model is trained."""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from sklearn_acs.callbacks.dynamics import Dynamics
from sklearn_acs.inspection._axes import fitted, legend_above, numbers, one_axes
from sklearn_acs.table import Table

COLORS = {"robust": "C0", "boundary": "C1", "outlier": "C3"}


class DynamicsDisplay:
    """Draws shares of robust, boundary and outlier samples over the epochs, one on the other.

    Make it with `from_estimator`, of a classifier that had a `Dynamics` among its callbacks, or with `from_dynamics`;
    its parameters are kept as attributes.

    Parameters
    ----------
    outlier, boundary, robust : array-like of shape (n_epochs,)
        How many samples are misclassified as they are, under attack only, and not even then.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes drawn on.
    figure_ : matplotlib Figure
        Their figure.
    areas_ : dict of matplotlib StepPatch
        One for each group.

    See Also
    --------
    Dynamics : Counts them.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_acs import Dynamics, DynamicsDisplay, RobustClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = RobustClassifier(max_epochs=4, callbacks=[Dynamics()], random_state=0).fit(X, y)
    >>> DynamicsDisplay.from_estimator(clf).robust.shape
    (4,)
    """

    def __init__(self, *, outlier: ArrayLike, boundary: ArrayLike, robust: ArrayLike) -> None:
        self.outlier, self.boundary = numbers("outlier", outlier), numbers("boundary", boundary)
        self.robust = numbers("robust", robust)
        shapes = {group.shape for group in (self.outlier, self.boundary, self.robust)}
        if len(shapes) > 1 or self.outlier.ndim != 1 or not len(self.outlier):
            raise ValueError(
                f"outlier, boundary and robust must be of one length, 1 or more; got shapes {sorted(shapes)}"
            )

    def plot(self, ax: Any = None, **area_kw: Any) -> Self:
        """Draw the shares.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Where; None makes a figure.
        **area_kw
            For ``ax.stairs``.

        Returns
        -------
        self
        """
        ax = one_axes(ax, "DynamicsDisplay.plot")
        total = self.outlier + self.boundary + self.robust
        edges, below = np.arange(len(total) + 1) + 0.5, np.zeros(len(total))
        self.areas_ = {}
        for group, color in COLORS.items():
            above = below + getattr(self, group) / total
            style = {"color": color, "alpha": 0.75, "linewidth": 0, "label": group, **area_kw}
            self.areas_[group] = ax.stairs(above, edges, baseline=below, fill=True, **style)
            below = above
        ax.set(xlabel="epoch", ylabel="share of samples", xlim=edges[[0, -1]], ylim=(0, 1))
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        self.legend_ = legend_above(ax, list(self.areas_.values()))
        self.ax_, self.figure_ = ax, ax.figure
        return self

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None, **area_kw: Any) -> Self:
        """Draw what a `Dynamics` among its callbacks wrote into a classifier's history.

        Parameters
        ----------
        estimator : RobustClassifier
            Fitted with a `Dynamics` among its `callbacks`.
        ax : matplotlib Axes or None, default=None
            Where to draw.
        **area_kw
            For ``ax.stairs``.

        Returns
        -------
        DynamicsDisplay
        """
        rows = [row for row in fitted(estimator).history_ if "robust" in row]
        if not rows:
            raise ValueError("estimator was not watched while it was trained: fit it with callbacks=[Dynamics()]")
        return cls(**{group: [row[group] for row in rows] for group in COLORS}).plot(ax, **area_kw)

    @classmethod
    def from_dynamics(cls, dynamics: Dynamics | Table, *, ax: Any = None, **area_kw: Any) -> Self:
        """Draw what a `Dynamics` has counted.

        Parameters
        ----------
        dynamics : Dynamics or Table
            The callback after a fit, or its `table_`.
        ax : matplotlib Axes or None, default=None
            Where to draw.
        **area_kw
            For ``ax.stairs``.

        Returns
        -------
        DynamicsDisplay
        """
        table = getattr(dynamics, "table_", dynamics)
        if not isinstance(table, Table) or len(table) == 0:
            raise ValueError(f"dynamics must be a Dynamics that has followed a fit, or its table_; got {dynamics!r}")
        return cls(**{group: table[group] for group in COLORS}).plot(ax, **area_kw)
