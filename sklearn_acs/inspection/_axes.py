"""Displays take fitted classifiers, and draw on axes that are given or new; only then matplotlib is imported."""

from math import ceil
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from sklearn_acs.classifier import RobustClassifier
from sklearn_acs.model import last_step

WIDE = 5.0
"""Width of a figure in inches from which panels go side by side."""

LETTER = 0.56
"""Width of a letter, in heights of its font."""


def fitted(estimator: Any, parameter: str = "estimator") -> RobustClassifier:
    """Return the classifier, or that at the end of a search or a Pipeline, if it is one and has been fitted."""
    estimator, _ = last_step(estimator, None)
    if not isinstance(estimator, RobustClassifier):
        raise TypeError(f"{parameter} must be a fitted RobustClassifier; got {type(estimator).__name__}")
    check_is_fitted(estimator)
    return estimator


def pyplot(what: str) -> Any:
    """Import matplotlib.pyplot, or raise an error that says what needs it and where it comes from."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(f"{what} needs matplotlib: pip install 'sklearn_acs[plot]'") from error
    return plt


def one_axes(ax: Any, what: str) -> Any:
    """Take the axes given, or make a figure with one."""
    if ax is None:
        _, ax = pyplot(what).subplots(layout="constrained")
    return _bare(ax)


def several_axes(ax: Any, n: int, what: str, *, height: float = 2.3) -> list[Any]:
    """Take the `n` axes given, or make a figure of the usual width with them: two in a row if it is wide."""
    if ax is None:
        plt = pyplot(what)
        width = plt.rcParams["figure.figsize"][0]
        columns = min(n, 2) if width >= WIDE else 1
        rows = ceil(n / columns)
        figure = plt.figure(figsize=(width, height * rows), layout="constrained")
        ax = [figure.add_subplot(rows, columns, i + 1) for i in range(n)]
    given = list(np.ravel(ax))
    if len(given) != n:
        raise ValueError(f"ax must be {n} axes, one for each panel; got {len(given)}")
    return [_bare(axes) for axes in given]


def legend_above(ax: Any, handles: list[Any] | None = None) -> Any:
    """Write a legend over the axes, where it hides nothing, with as many columns as fit."""
    if handles is None:
        handles, _ = ax.get_legend_handles_labels()
    size = inches("small")
    longest = max(len(str(handle.get_label())) for handle in handles)
    width = ax.get_position().width * ax.figure.get_figwidth()
    fitting = int(width / (size * (LETTER * longest + 2.7)))  # letters, and what is around them
    return ax.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=max(1, min(len(handles), fitting)),
        frameon=False,
        fontsize="small",
        borderaxespad=0.2,
        handlelength=1.2,
        handletextpad=0.5,
        columnspacing=1.0,
    )


def inches(size: str) -> float:
    """Tell the height of a font size such as "small" in inches."""
    from matplotlib.font_manager import FontProperties

    return FontProperties(size=size).get_size_in_points() / 72


def plain(text: str) -> str:
    """Escape text for matplotlib.

    It takes dollars for a formula, leaves a name with a first underscore out of legends, and refuses lone surrogates.
    """
    return (" " if text.startswith("_") else "") + encoded(text).decode().replace("$", r"\$")


def encoded(text: str) -> bytes:
    """Encode text in UTF-8, lone surrogates, which that does not have, as Python writes them."""
    return text.encode("utf-8", errors="backslashreplace")


def numbers(name: str, values: Any, dtype: Any = float) -> np.ndarray:
    """Turn what a display is given into an array of numbers, or raise an error that names it."""
    try:
        return np.asarray(values, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be numbers; got {values!r}") from error


def cut(text: str, longest: float) -> str:
    """Shorten text to so many letters at most."""
    return text if len(text) <= longest else text[: max(1, int(longest) - 1)] + "\N{HORIZONTAL ELLIPSIS}"


def checked_axes(ax: Any) -> Any:
    """Return axes; what is none is a TypeError."""
    from matplotlib.axes import Axes

    if not isinstance(ax, Axes):
        raise TypeError(f"ax must be matplotlib Axes; got {ax!r}")
    return ax


def _bare(ax: Any) -> Any:
    checked_axes(ax).spines[["top", "right"]].set_visible(False)
    ax.set_axisbelow(True)
    return ax
