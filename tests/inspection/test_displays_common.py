"""What all displays have in common: errors, axes of one's own, and figures in which nothing overlaps or is cut."""

import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.text import Text
from sklearn.exceptions import NotFittedError

from sklearn_acs import (
    PGD,
    CoresetDisplay,
    CostDisplay,
    DynamicsDisplay,
    PerturbationDisplay,
    RobustClassifier,
    RobustnessCurveDisplay,
    TradeoffDisplay,
)

MADE = {
    "curve": lambda clf, X, y, **options: RobustnessCurveDisplay.from_estimator(
        clf, X, y, eps=[0, 0.1, 0.2], **options
    ),
    "tradeoff": lambda clf, X, y, **options: TradeoffDisplay.from_estimators(
        {"first": clf, "second": [clf, clf]}, X, y, attack=PGD(eps=0.1), **options
    ),
    "coreset": lambda clf, X, y, **options: CoresetDisplay.from_estimator(clf, **options),
    "dynamics": lambda clf, X, y, **options: DynamicsDisplay.from_estimator(clf, **options),
    "perturbation": lambda clf, X, y, **options: PerturbationDisplay.from_estimator(clf, X, y, n_images=4, **options),
    "cost": lambda clf, X, y, **options: CostDisplay.from_estimator(clf, **options),
}


@pytest.fixture
def data(digits):
    return digits[0][300:340], digits[1][300:340]


def test_matplotlib_is_not_imported_with_the_package():
    code = "import sys, sklearn_acs; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", MADE)
def test_what_needs_matplotlib_says_so(name, clf, data, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"Display\.plot needs matplotlib: pip install 'sklearn_acs\[plot\]'"):
        MADE[name](clf, *data)


@pytest.mark.parametrize("name", MADE)
def test_unfitted_classifiers_are_refused(name, data):
    with pytest.raises(NotFittedError):
        MADE[name](RobustClassifier(), *data)


@pytest.mark.parametrize("name", [name for name in MADE if name != "curve"])
def test_other_things_are_refused(name, data):
    with pytest.raises(TypeError, match="must be a fitted RobustClassifier; got str"):
        MADE[name]("clf", *data)


@pytest.mark.parametrize("name", MADE)
def test_plot_returns_the_display_and_keeps_its_figure(name, clf, data):
    display = MADE[name](clf, *data)
    first = display.figure_
    assert display.plot() is display
    assert display.figure_ is not first
    assert display.figure_.axes


@pytest.mark.parametrize("width, height, size", [(3.3, 2.6, 8), (7.0, 3.6, 10)])
@pytest.mark.parametrize("name", MADE)
def test_nothing_is_cut_and_no_two_texts_overlap(name, clf, data, width, height, size):
    with plt.rc_context({"figure.figsize": (width, height), "font.size": size}):
        _check(MADE[name](clf, *data).figure_)


def test_names_of_rows_are_not_cut_beside_wide_images():
    images, labels = np.zeros((5, 10, 32)), ["a cat"] * 5
    with plt.rc_context({"figure.figsize": (3.3, 2.6), "font.size": 8}):
        _check(PerturbationDisplay.from_predictions(images, images, labels, labels, labels).figure_)


def _check(figure):
    """That no text is cut and no two overlap."""
    figure.draw_without_rendering()
    # One pixel of room: letters lean out of their boxes.
    page = figure.bbox.padded(1)
    boxes = {text: text.get_window_extent() for text in _drawn(figure)}
    for text, box in boxes.items():
        assert page.containsx(box.x0) and page.containsx(box.x1), text.get_text()
        assert page.containsy(box.y0) and page.containsy(box.y1), text.get_text()
    found = [
        (a.get_text(), b.get_text())
        for i, (a, one) in enumerate(boxes.items())
        for b, other in list(boxes.items())[i + 1 :]
        if one.padded(-1).overlaps(other.padded(-1))
    ]
    assert found == []


def _drawn(figure):
    """Texts of a figure, without the labels of ticks beyond the limits of an axis, which are kept and not drawn."""
    axes = [axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)]
    all_labels, drawn = (
        {label for ticks in lists for tick in ticks for label in (tick.label1, tick.label2)}
        for lists in ([[*axis.majorTicks, *axis.minorTicks] for axis in axes], [axis._update_ticks() for axis in axes])
    )
    texts = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
    return [text for text in texts if text not in all_labels - drawn]


@pytest.mark.parametrize("name", ["curve", "tradeoff", "dynamics"])
def test_axes_may_be_given(name, clf, data):
    figure, ax = plt.subplots()
    display = MADE[name](clf, *data, ax=ax)
    assert display.ax_ is ax and display.figure_ is figure
    assert ax.get_xlabel() and ax.get_ylabel()


@pytest.mark.parametrize("name, n", [("coreset", 3), ("cost", 2)])
def test_several_axes_may_be_given(name, n, clf, data):
    figure, axes = plt.subplots(1, n)
    display = MADE[name](clf, *data, ax=axes)
    assert display.figure_ is figure and len(figure.axes) == n
    with pytest.raises(ValueError, match=f"ax must be {n} axes, one for each panel; got 1"):
        MADE[name](clf, *data, ax=axes[0])
