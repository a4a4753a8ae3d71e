"""TradeoffDisplay draws what training costs against the robustness that it gives."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from sklearn_acs._compat import StrOptions
from sklearn_acs.attacks import Attack
from sklearn_acs.checks import checked
from sklearn_acs.evaluation import robust_accuracy
from sklearn_acs.inspection._axes import fitted, legend_above, numbers, one_axes, plain


class TradeoffDisplay:
    """Draws robust error over speed-up: a method is better the lower and the farther to the right it is.

    Runs of one method are dots, their mean is a cross. Make it with `from_estimators` or `from_predictions`; its
    parameters are kept as attributes.

    Parameters
    ----------
    speedup : array-like of shape (n_runs,)
        How many times faster than the baseline each run was.
    robust_error : array-like of shape (n_runs,)
        Share of samples that are wrong under attack.
    names : sequence of str, of length n_runs
        The method of each run.

    Attributes
    ----------
    methods_ : list of str
        The methods.
    means_ : ndarray of shape (n_methods, 2)
        Mean speed-up and robust error of each.
    ax_ : matplotlib Axes
        The axes drawn on.
    figure_ : matplotlib Figure
        Their figure.
    runs_, crosses_ : list of matplotlib PathCollection
        The dots and the cross of each method.

    See Also
    --------
    CostDisplay : Where one training spent its time.

    Examples
    --------
    >>> from sklearn_acs import TradeoffDisplay
    >>> names = ["full", "full", "coreset", "coreset"]
    >>> TradeoffDisplay.from_predictions([1.0, 1.0, 2.1, 1.9], [0.40, 0.42, 0.43, 0.45], names).methods_
    ['full', 'coreset']
    """

    @checked(names=["array-like"])
    def __init__(self, *, speedup: ArrayLike, robust_error: ArrayLike, names: Sequence[str]) -> None:
        self.speedup, self.robust_error = numbers("speedup", speedup), numbers("robust_error", robust_error)
        self.names = [str(name) for name in names]
        if not self.names or not self.speedup.shape == self.robust_error.shape == (len(self.names),):
            raise ValueError(
                "speedup, robust_error and names must be of one length, 1 or more; got shapes "
                f"{self.speedup.shape}, {self.robust_error.shape} and {len(self.names)} names"
            )
        if not ((self.speedup > 0) & np.isfinite(self.speedup)).all():
            raise ValueError(f"speedup must be finite numbers > 0; got {self.speedup.tolist()}")
        if not ((self.robust_error >= 0) & (self.robust_error <= 1)).all():
            raise ValueError(f"robust_error must be shares between 0 and 1; got {self.robust_error.tolist()}")
        self.methods_ = list(dict.fromkeys(self.names))
        self.means_ = np.array([[self.speedup[rows].mean(), self.robust_error[rows].mean()] for rows in self._rows()])

    def _rows(self) -> list[np.ndarray]:
        return [np.array([name == method for name in self.names]) for method in self.methods_]

    def plot(self, ax: Any = None, **cross_kw: Any) -> Self:
        """Draw runs and means.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Where; None makes a figure.
        **cross_kw
            For ``ax.scatter`` of the means.

        Returns
        -------
        self
        """
        ax = one_axes(ax, "TradeoffDisplay.plot")
        self.runs_, self.crosses_ = [], []
        for i, (method, rows, mean) in enumerate(zip(self.methods_, self._rows(), self.means_, strict=True)):
            runs = self.speedup[rows], self.robust_error[rows]
            self.runs_.append(ax.scatter(*runs, s=14, color=f"C{i}", alpha=0.45 if rows.sum() > 1 else 0, linewidths=0))
            style = {"s": 55, "marker": "P", "color": f"C{i}", "linewidths": 0, **cross_kw}
            self.crosses_.append(ax.scatter(*mean, label=plain(method), **style))
        ax.set(xlabel="speed-up", ylabel="robust error")
        ax.margins(0.1)
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}\N{MULTIPLICATION SIGN}")
        ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g}%")
        ax.grid(alpha=0.25)
        self.legend_ = legend_above(ax, self.crosses_)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    @classmethod
    def from_predictions(
        cls, speedup: ArrayLike, robust_error: ArrayLike, names: Sequence[str], *, ax: Any = None, **cross_kw: Any
    ) -> Self:
        """Draw numbers that were measured.

        Parameters
        ----------
        speedup, robust_error : array-like of shape (n_runs,)
            How many times faster than the baseline each run was, and its share of samples that are wrong under attack.
        names : sequence of str, of length n_runs
            The method of each run; runs of one method have the same.
        ax : matplotlib Axes or None, default=None
            Where to draw.
        **cross_kw
            For ``ax.scatter`` of the means.

        Returns
        -------
        TradeoffDisplay
        """
        return cls(speedup=speedup, robust_error=robust_error, names=names).plot(ax, **cross_kw)

    @classmethod
    @checked(estimators=[Mapping], baseline=[str, None], by=[StrOptions({"seconds", "passes"})])
    def from_estimators(
        cls,
        estimators: Mapping[str, Any],
        X: Any,
        y: Any = None,
        *,
        attack: Attack | str,
        baseline: str | None = None,
        by: str = "seconds",
        ax: Any = None,
        **cross_kw: Any,
    ) -> Self:
        """Judge fitted classifiers under one attack and compare what their fits took.

        Parameters
        ----------
        estimators : mapping of str to RobustClassifier, or to a list of them
            Methods by name; a list has the runs of one method.
        X, y : array-like
            Samples and labels as `RobustClassifier.robust_score` takes them.
        attack : Attack or str
            The attack.
        baseline : str or None, default=None
            The method whose mean is a speed-up of 1; None is the first.
        by : {"seconds", "passes"}, default="seconds"
            What is compared: wall-clock time, or samples sent forwards and backwards through the model, which do not
            depend on the machine and on what else it does.
        ax : matplotlib Axes or None, default=None
            Where to draw.
        **cross_kw
            For ``ax.scatter`` of the means.

        Returns
        -------
        TradeoffDisplay
        """
        runs = {name: list(given) if isinstance(given, list | tuple) else [given] for name, given in estimators.items()}
        if not runs:
            raise ValueError("estimators={} has no classifier")
        baseline = next(iter(runs)) if baseline is None else baseline
        if baseline not in runs:
            raise ValueError(f"baseline={baseline!r} must be one of {list(runs)}")
        pairs = [(name, run) for name, given in runs.items() for run in given]
        totals = [fitted(run, "estimators").cost_.total for _, run in pairs]
        taken = np.array([total.seconds if by == "seconds" else total.forwards + total.backwards for total in totals])
        names = [name for name, _ in pairs]
        base = taken[[name == baseline for name in names]].mean()
        errors = [1 - robust_accuracy(run, X, y, attack) for _, run in pairs]
        display = cls.from_predictions(base / taken, errors, names, ax=ax, **cross_kw)
        display.ax_.set_xlabel(f"speed-up in {by}")
        return display
