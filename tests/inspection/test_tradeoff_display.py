"""TradeoffDisplay: means over runs, speed-ups over a baseline, and numbers that were measured elsewhere."""

import numpy as np
import pytest

from sklearn_acs import PGD, TradeoffDisplay
from sklearn_acs.training.cost import Cost

NUMBERS = {
    "speedup": [1, 1.2, 2, 2.2],
    "robust_error": [0.3, 0.4, 0.35, 0.35],
    "names": ["full", "full", "half", "half"],
}


def test_runs_are_dots_and_their_mean_a_cross():
    display = TradeoffDisplay.from_predictions(**NUMBERS)
    assert display.methods_ == ["full", "half"]
    np.testing.assert_allclose(display.means_, [[1.1, 0.35], [2.1, 0.35]])
    np.testing.assert_array_equal(display.runs_[0].get_offsets(), [[1, 0.3], [1.2, 0.4]])
    np.testing.assert_allclose(display.crosses_[1].get_offsets(), [[2.1, 0.35]])
    assert [text.get_text() for text in display.legend_.get_texts()] == ["full", "half"]


def test_errors_that_are_close_have_ticks_of_their_own():
    display = TradeoffDisplay.from_predictions([1, 2], [0.3, 0.301], ["a", "b"])
    display.figure_.canvas.draw()
    ticks = [text.get_text() for text in display.ax_.get_yticklabels()]
    assert len(set(ticks)) == len(ticks)


def test_style_reaches_the_crosses():
    display = TradeoffDisplay.from_predictions(**NUMBERS, s=99)
    assert display.crosses_[0].get_sizes().tolist() == [99]


def test_classifiers_are_compared_by_their_seconds_and_robust_scores(clf, digits):
    X, y, attack = digits[0][300:340], digits[1][300:340], PGD(eps=0.15)
    display = TradeoffDisplay.from_estimators({"a": [clf, clf], "b": clf}, X, y, attack=attack)
    np.testing.assert_allclose(display.speedup, 1)
    np.testing.assert_allclose(display.robust_error, 1 - clf.robust_score(X, y, attack=attack))
    assert display.names == ["a", "a", "b"]


def test_the_baseline_may_be_named_and_passes_counted(clf, digits):
    class Slower(type(clf)):
        pass

    other = Slower()
    other.__dict__.update(clf.__dict__)
    other.cost_ = Cost()
    other.cost_["full"].seconds = 2 * clf.cost_.total.seconds
    other.cost_["full"].forwards = 3 * (clf.cost_.total.forwards + clf.cost_.total.backwards)
    X, y = digits[0][300:310], digits[1][300:310]
    methods = {"coreset": clf, "other": other}
    display = TradeoffDisplay.from_estimators(methods, X, y, attack="fgsm", baseline="other")
    np.testing.assert_allclose(display.speedup, [2, 1])
    assert display.ax_.get_xlabel() == "speed-up in seconds"
    display = TradeoffDisplay.from_estimators(methods, X, y, attack="fgsm", by="passes")
    np.testing.assert_allclose(display.speedup, [1, 1 / 3])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"speedup": [1, 2]}, r"must be of one length, 1 or more; got shapes \(2,\), \(4,\) and 4 names"),
        ({"speedup": [1, 0, 1, 1]}, r"speedup must be finite numbers > 0; got .*0\.0"),
        ({"speedup": [1, np.nan, 1, 1]}, "speedup must be finite numbers > 0; got .*nan"),
        ({"robust_error": [30, 0.4, 0.4, 0.4]}, r"robust_error must be shares between 0 and 1; got .*30\.0"),
    ],
)
def test_bad_numbers_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        TradeoffDisplay(**{**NUMBERS, **change})


def test_bad_methods_are_refused(clf):
    with pytest.raises(ValueError, match=r"estimators=\{\} has no classifier"):
        TradeoffDisplay.from_estimators({}, None, attack="pgd")
    with pytest.raises(ValueError, match=r"baseline='b' must be one of \['a'\]"):
        TradeoffDisplay.from_estimators({"a": clf}, None, attack="pgd", baseline="b")
    with pytest.raises(ValueError, match=r"'by' parameter of .* must be a str among .* Got 'hours'"):
        TradeoffDisplay.from_estimators({"a": clf}, None, attack="pgd", by="hours")
