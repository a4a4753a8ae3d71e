"""CostDisplay draws where a fit spent its time."""

from collections.abc import Mapping
from typing import Any, Self

from sklearn_acs.checks import checked
from sklearn_acs.inspection._axes import fitted, legend_above, several_axes
from sklearn_acs.training.cost import PhaseCost


class CostDisplay:
    """Draws seconds, and samples sent forwards and backwards, by phase of a fit.

    Make it with `from_estimator`; its parameters are kept as attributes.

    Parameters
    ----------
    cost : mapping of str to PhaseCost
        A classifier's `cost_`; phases that took nothing are left out.

    Attributes
    ----------
    phases_ : list of str
        The phases shown, from the top down.
    axes_ : list of matplotlib Axes
        For the seconds and for the passes.
    figure_ : matplotlib Figure
        Their figure.
    seconds_, forwards_, backwards_ : matplotlib BarContainer
        The bars.

    See Also
    --------
    TradeoffDisplay : The time of several methods, and what it gave.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_acs import CostDisplay, RobustClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = RobustClassifier(coreset_frac=0.5, max_epochs=4, random_state=0).fit(X, y)
    >>> CostDisplay.from_estimator(clf).phases_
    ['setup', 'full', 'selection', 'solver', 'coreset']
    """

    @checked(cost=[Mapping])
    def __init__(self, *, cost: Mapping[str, PhaseCost]) -> None:
        self.cost = {name: phase for name, phase in cost.items() if phase.forwards or phase.seconds}
        if not self.cost:
            raise ValueError("cost has no phase that took any time")
        self.phases_ = list(self.cost)

    def plot(self, ax: Any = None, **bar_kw: Any) -> Self:
        """Draw the bars.

        Parameters
        ----------
        ax : array-like of 2 matplotlib Axes, or None, default=None
            For the seconds and for the passes; None makes a figure.
        **bar_kw
            For ``ax.barh``.

        Returns
        -------
        self
        """
        height = 0.75 + 0.26 * len(self.phases_)
        seconds_ax, passes_ax = self.axes_ = several_axes(ax, 2, "CostDisplay.plot", height=height)
        counts = [(phase.seconds, phase.forwards, phase.backwards) for phase in self.cost.values()]
        seconds, forwards, backwards = zip(*counts, strict=True)
        style, total = {"height": 0.7, **bar_kw}, sum(seconds)
        self.seconds_ = seconds_ax.barh(self.phases_, seconds, color="C0", **style)
        shares = [f"{part / total:.0%}" if total else "" for part in seconds]
        seconds_ax.bar_label(self.seconds_, shares, padding=3, fontsize="small")
        seconds_ax.set(xlabel=f"seconds, {total:,.0f} in all" if total >= 100 else f"seconds, {total:.3g} in all")
        self.forwards_ = passes_ax.barh(self.phases_, forwards, color="C0", label="forward", **style)
        self.backwards_ = passes_ax.barh(
            self.phases_, backwards, left=forwards, color="C0", alpha=0.45, label="backward", **style
        )
        sums = [_short(a + b) for a, b in zip(forwards, backwards, strict=True)]
        passes_ax.bar_label(self.backwards_, sums, padding=3, fontsize="small")
        passes_ax.set(xlabel=f"passes of a sample, {_short(sum(forwards) + sum(backwards))} in all")
        seconds_ax.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        passes_ax.xaxis.set_major_formatter(lambda value, _: _short(value))
        self.legend_ = legend_above(passes_ax, [self.forwards_, self.backwards_])
        for axes in self.axes_:
            axes.invert_yaxis()
            axes.margins(x=0.2)
            axes.set_xlim(left=0)
            axes.xaxis.get_major_locator().set_params(nbins=5)
            axes.grid(axis="x", alpha=0.25)
            axes.tick_params(axis="y", length=0)
        self.figure_ = seconds_ax.figure
        return self

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None, **bar_kw: Any) -> Self:
        """Draw the `cost_` of a fitted classifier.

        Parameters
        ----------
        estimator : RobustClassifier
            The classifier.
        ax : array-like of 2 matplotlib Axes, or None, default=None
            Where to draw.
        **bar_kw
            For ``ax.barh``.

        Returns
        -------
        CostDisplay
        """
        return cls(cost=fitted(estimator).cost_).plot(ax, **bar_kw)


def _short(number: float) -> str:
    """Write a count in three digits: 1234567 -> 1.23M."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * unit:
            return f"{number / unit:.3g}{letter}"
    return f"{number:g}"
