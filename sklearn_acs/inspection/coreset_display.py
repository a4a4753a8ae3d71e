"""CoresetDisplay draws what the selections of a fit chose: which samples how often, of which classes, how well."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from sklearn_acs.checks import COUNT, checked
from sklearn_acs.classifier import RobustClassifier
from sklearn_acs.data.labels import encode_labels, read_labels
from sklearn_acs.inspection._axes import cut, fitted, legend_above, numbers, plain, several_axes

PANELS = ("times", "weights", "classes", "error")

CLASSES_SHOWN = 20
"""Classes up to which each has its name under its bar."""

LONGEST_NAME = 12
"""Letters of a class's name that are shown."""


class CoresetDisplay:
    """Draws the coresets of a fit: how often samples were chosen, with which weights and error, of which classes.

    Make it with `from_estimator`; its parameters are kept as attributes.

    Parameters
    ----------
    epochs : array-like of shape (n_rounds,)
        When the selections took place.
    times : array-like of int, of shape (n_samples,)
        How often each sample was chosen.
    sizes : array-like of int, of shape (n_rounds,)
        Samples in each coreset.
    weights : array-like of shape (k,)
        Weights of the last coreset.
    errors : array-like of shape (n_rounds,)
        Relative approximation errors; NaN where they are not known.
    n_candidates : int or None, default=None
        Samples that could be chosen; None is all of them.
    class_names : sequence or None, default=None
        Labels of the classes.
    class_counts, class_totals : array-like of int, of shape (n_classes,), or None, default=None
        Samples of each class in the last coreset and in the whole set.

    Attributes
    ----------
    panels_ : list of str
        What is drawn: of "times", "weights", "classes" and "error" those that are known.
    axes_ : dict of matplotlib Axes
        By panel.
    figure_ : matplotlib Figure
        Their figure.
    times_bars_, class_bars_ : matplotlib BarContainer
        The bars of "times" and "classes".
    expected_, class_marks_, error_line_ : matplotlib Line2D
        What "times" would be for as many random samples, the classes' shares of the whole set, and the errors.
    weight_bars_ : matplotlib BarContainer
        The histogram of the weights.

    See Also
    --------
    RobustClassifier.selection_report : The same in numbers.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_acs import CoresetDisplay, RobustClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = RobustClassifier(coreset_frac=0.5, max_epochs=8, select_every=1, random_state=0).fit(X, y)
    >>> display = CoresetDisplay.from_estimator(clf, y)
    >>> display.panels_, int(display.times.max()) <= 4
    (['times', 'weights', 'classes', 'error'], True)
    """

    @checked(n_candidates=[*COUNT, None], class_names=["array-like", None])
    def __init__(
        self,
        *,
        epochs: ArrayLike,
        times: ArrayLike,
        sizes: ArrayLike,
        weights: ArrayLike,
        errors: ArrayLike,
        n_candidates: int | None = None,
        class_names: Sequence[Any] | None = None,
        class_counts: ArrayLike | None = None,
        class_totals: ArrayLike | None = None,
    ) -> None:
        self.epochs, self.sizes = numbers("epochs", epochs, int), numbers("sizes", sizes, int)
        self.times = numbers("times", times, int)
        self.weights, self.errors = numbers("weights", weights), numbers("errors", errors)
        self.n_candidates = len(self.times) if n_candidates is None else n_candidates
        self.class_names = None if class_names is None else [str(name) for name in class_names]
        self.class_counts = None if class_counts is None else numbers("class_counts", class_counts, int)
        self.class_totals = None if class_totals is None else numbers("class_totals", class_totals, int)
        if not self.epochs.shape == self.sizes.shape == self.errors.shape or self.epochs.ndim != 1:
            raise ValueError(
                "epochs, sizes and errors must have one number for each selection; got shapes "
                f"{self.epochs.shape}, {self.sizes.shape} and {self.errors.shape}"
            )
        known = {"classes": class_counts is not None, "error": np.isfinite(self.errors).any()}
        self.panels_ = [name for name in PANELS if known.get(name, True)]

    @checked(panels=[list, tuple, None])
    def plot(self, ax: Any = None, *, panels: Sequence[str] | None = None) -> Self:
        """Draw the panels.

        Parameters
        ----------
        ax : array-like of matplotlib Axes, or None, default=None
            One for each panel; None makes a figure.
        panels : sequence of {"times", "weights", "classes", "error"} or None, default=None
            What to draw; None is all that is known, `panels_`.

        Returns
        -------
        self
        """
        panels = self.panels_ if panels is None else panels
        if isinstance(panels, str) or not panels or any(panel not in self.panels_ for panel in panels):
            raise ValueError(f"panels={panels!r} must be some of those that are known, {self.panels_}")
        axes = several_axes(ax, len(panels), "CoresetDisplay.plot")
        self.axes_ = dict(zip(panels, axes, strict=True))
        for name, panel in self.axes_.items():
            getattr(self, f"_draw_{name}")(panel)
            panel.grid(axis="y", alpha=0.25)
        self.figure_ = axes[0].figure
        return self

    def _draw_times(self, ax: Any) -> None:
        counts = np.bincount(self.times, minlength=len(self.sizes) + 1)
        counts[0] = self.n_candidates - counts[1:].sum()
        numbers = np.arange(len(counts))
        self.times_bars_ = ax.bar(numbers, counts, width=0.8, color="C0", label="samples")
        # Random draws of the same sizes, one after the other: the number of times is a sum of coin tosses.
        chances = np.ones(1)
        for size in self.sizes:
            share = size / self.n_candidates
            chances = np.convolve(chances, [1 - share, share])
        expected = self.n_candidates * chances
        (self.expected_,) = ax.plot(numbers, expected, "o", color="black", markersize=3.5, label="if drawn at random")
        ax.set(xlabel=f"times chosen, of {len(self.sizes)}", ylabel="samples")
        ax.xaxis.get_major_locator().set_params(integer=True)
        legend_above(ax, [self.expected_])

    def _draw_weights(self, ax: Any) -> None:
        # Equal weights differ by rounding alone: bins as narrow as that would have no ticks.
        low, high = self.weights.min(), self.weights.max()
        spread = None if high - low > 1e-3 * max(abs(low), abs(high)) else (0.0, 2 * float(self.weights.mean()))
        _, _, self.weight_bars_ = ax.hist(self.weights, bins=25, range=spread, color="C0")
        ax.set(xlabel="weight in the last coreset", ylabel="samples")

    def _draw_classes(self, ax: Any) -> None:
        counts = self.class_counts
        assert counts is not None
        where = np.arange(len(counts))
        self.class_bars_ = ax.bar(where, counts / max(1, counts.sum()), width=0.8, color="C0", label="last coreset")
        if self.class_totals is not None:
            shares = self.class_totals / self.class_totals.sum()
            (self.class_marks_,) = ax.plot(where, shares, "_", color="black", markersize=9, label="whole set")
            legend_above(ax, [self.class_marks_])
        names = self.class_names
        if names is not None and len(names) <= CLASSES_SHOWN:
            is_long = sum(len(name) + 1 for name in names) > 30
            ax.set_xticks(where, [plain(cut(name, LONGEST_NAME)) for name in names], rotation=90 if is_long else 0)
        ax.set(xlabel="class", ylabel="share of samples")
        ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g}%")

    def _draw_error(self, ax: Any) -> None:
        (self.error_line_,) = ax.plot(self.epochs, self.errors, marker="o", markersize=3.5, color="C0")
        ax.set(xlabel="epoch of the selection", ylabel="relative error")
        ax.set_ylim(0, 1.1 * self.errors[np.isfinite(self.errors)].max() or 1)
        ax.xaxis.get_major_locator().set_params(integer=True)

    @classmethod
    def from_estimator(
        cls, estimator: Any, y: ArrayLike | None = None, *, ax: Any = None, panels: Sequence[str] | None = None
    ) -> Self:
        """Draw the coresets of a fitted classifier.

        Parameters
        ----------
        estimator : RobustClassifier
            Fitted with a selector.
        y : array-like of shape (n_samples,) or None, default=None
            The labels it was fitted on; None leaves "classes" out unless classes were chosen from one by one.
        ax : array-like of matplotlib Axes, or None, default=None
            Where to draw.
        panels : sequence of str or None, default=None
            What to draw; see `plot`.

        Returns
        -------
        CoresetDisplay
        """
        return cls.of(fitted(estimator), y).plot(ax, panels=panels)

    @classmethod
    def of(cls, clf: RobustClassifier, y: ArrayLike | None = None, *, called: str = "y") -> Self:
        """Make a display of a fitted classifier's coresets, and draw nothing yet.

        Parameters
        ----------
        clf : RobustClassifier
            Fitted with a selector.
        y : array-like of shape (n_samples,) or None, default=None
            The labels it was fitted on.
        called : str, default="y"
            What errors call these.

        Returns
        -------
        CoresetDisplay
        """
        if not clf.coresets_:
            raise ValueError("estimator has no coreset: it was fitted with selector=None, or for too few epochs")
        coresets = list(clf.coresets_.values())
        last, chosen = coresets[-1], np.concatenate([coreset.indices for coreset in coresets])
        n_candidates = sum(selection.n_samples for selection in last.classes)
        n_samples = max(n_candidates, int(chosen.max()) + 1)
        counts, totals = None, None
        if y is not None:
            labels = read_labels(y, name=called)
            if len(labels) < n_samples:
                raise ValueError(
                    f"{called} has shape {labels.shape}; it must be the {n_samples} or more labels of the fit"
                )
            n_samples, codes = len(labels), encode_labels(labels, clf.classes_).numpy()
            counts, totals = (np.bincount(of, minlength=len(clf.classes_)) for of in (codes[last.indices], codes))
        elif all(selection.label is not None for selection in last.classes):
            counts, totals = np.zeros((2, len(clf.classes_)), dtype=np.int64)
            for selection in last.classes:
                counts[selection.label], totals[selection.label] = selection.n_selected, selection.n_samples
        return cls(
            epochs=np.array(list(clf.coresets_)) + 1,
            times=np.bincount(chosen, minlength=n_samples),
            sizes=[len(coreset.indices) for coreset in coresets],
            weights=last.weights,
            errors=[coreset.error for coreset in coresets],
            n_candidates=n_candidates,
            class_names=clf.classes_.tolist(),
            class_counts=counts,
            class_totals=totals,
        )
