"""CoresetDisplay: counts against the coresets themselves, and panels that are known or not."""

import numpy as np
import pytest

from sklearn_acs import CoresetDisplay, RobustClassifier

NUMBERS = {"epochs": [3, 5], "times": [0, 1, 2, 1], "sizes": [2, 2], "weights": [1.0, 3.0], "errors": [0.2, 0.1]}


def test_counts_are_those_of_the_coresets(clf, digits):
    y = digits[1][:300]
    display = CoresetDisplay.from_estimator(clf, y)
    coresets = list(clf.coresets_.values())
    expected = [sum(i in coreset.indices for coreset in coresets) for i in range(300)]
    assert display.times.tolist() == expected
    heights = [bar.get_height() for bar in display.times_bars_]
    assert heights == np.bincount(expected, minlength=len(coresets) + 1).tolist()
    assert display.epochs.tolist() == [epoch + 1 for epoch in clf.coresets_]
    np.testing.assert_array_equal(display.error_line_.get_ydata(), [coreset.error for coreset in coresets])
    assert sum(bar.get_height() for bar in display.weight_bars_) == len(clf.coreset_.indices)


def test_classes_are_those_of_the_labels(clf, digits):
    y = digits[1][:300]
    display = CoresetDisplay.from_estimator(clf, y)
    chosen = y[clf.coreset_.indices]
    assert display.class_names == clf.classes_.tolist()
    assert display.class_counts.tolist() == [(chosen == name).sum() for name in clf.classes_]
    assert display.class_totals.tolist() == [(y == name).sum() for name in clf.classes_]
    shares = [bar.get_height() for bar in display.class_bars_]
    np.testing.assert_allclose(shares, display.class_counts / len(chosen))
    np.testing.assert_allclose(display.class_marks_.get_ydata(), display.class_totals / 300)


def test_random_draws_are_a_binomial():
    display = CoresetDisplay(**{**NUMBERS, "times": np.zeros(100, dtype=int), "sizes": [50, 50]}).plot()
    np.testing.assert_allclose(display.expected_.get_ydata(), [25, 50, 25])


def test_panels_that_nothing_is_known_of_are_left_out(clf):
    assert CoresetDisplay.from_estimator(clf).panels_ == ["times", "weights", "error"]
    display = CoresetDisplay(**{**NUMBERS, "errors": [np.nan, np.nan]}).plot()
    assert list(display.axes_) == ["times", "weights"]


def test_panels_may_be_chosen(clf):
    display = CoresetDisplay.from_estimator(clf, panels=["error"])
    assert list(display.axes_) == ["error"] and len(display.figure_.axes) == 1
    with pytest.raises(ValueError, match=r"panels=\['classes'\] must be some of those that are known"):
        display.plot(panels=["classes"])


def test_classes_chosen_from_one_by_one_need_no_labels(digits):
    X, y = digits[0][:120], digits[1][:120]
    per_class = RobustClassifier(selector="craig", select_by="class", max_epochs=2, warmup_frac=0, random_state=0)
    per_class.fit(X, y)
    without, given = CoresetDisplay.from_estimator(per_class), CoresetDisplay.from_estimator(per_class, y)
    np.testing.assert_array_equal(without.class_counts, given.class_counts)
    np.testing.assert_array_equal(without.class_totals, given.class_totals)


def test_samples_held_out_are_no_candidates(digits):
    X, y = digits[0][:120], digits[1][:120]
    held = RobustClassifier(selector="glister", max_epochs=2, warmup_frac=0, random_state=0).fit(X, y)
    display = CoresetDisplay.from_estimator(held, y)
    assert (len(display.times), display.n_candidates) == (120, 108)
    assert sum(bar.get_height() for bar in display.times_bars_) == 108


def test_equal_weights_are_one_bar():
    display = CoresetDisplay(**{**NUMBERS, "weights": np.full(50, 2.0) + 1e-9 * np.arange(50)}).plot()
    assert sorted(bar.get_height() for bar in display.weight_bars_)[-2:] == [0, 50]


def test_names_are_plain_and_cut():
    names = ["$x$", "a name beyond all measure"]
    display = CoresetDisplay(**NUMBERS, class_names=names, class_counts=[1, 1]).plot(panels=["classes"])
    shown = [text.get_text() for text in display.axes_["classes"].get_xticklabels()]
    assert shown == [r"\$x\$", "a name beyo…"]


def test_bad_input_is_refused(clf, plain_clf, digits):
    with pytest.raises(ValueError, match="estimator has no coreset"):
        CoresetDisplay.from_estimator(plain_clf)
    with pytest.raises(ValueError, match=r"y has shape \(10,\); it must be the 300 or more labels"):
        CoresetDisplay.from_estimator(clf, digits[1][:10])
    with pytest.raises(ValueError, match="y contains the label 'nine'"):
        CoresetDisplay.from_estimator(clf, np.where(np.arange(300) == 7, "nine", digits[1][:300]))
    with pytest.raises(ValueError, match=r"one number for each selection; got shapes \(2,\), \(1,\) and \(2,\)"):
        CoresetDisplay(**{**NUMBERS, "sizes": [2]})
