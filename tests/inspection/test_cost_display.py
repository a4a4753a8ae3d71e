"""CostDisplay: the bars are the numbers of cost_."""

import pytest

from sklearn_acs import CostDisplay
from sklearn_acs.inspection.cost_display import _short
from sklearn_acs.training.cost import Cost, PhaseCost


def test_bars_are_the_cost(clf):
    display = CostDisplay.from_estimator(clf)
    spent = {name: cost for name, cost in clf.cost_.items() if cost.seconds}
    assert display.phases_ == list(spent)
    assert [bar.get_width() for bar in display.seconds_] == [cost.seconds for cost in spent.values()]
    assert [bar.get_width() for bar in display.forwards_] == [cost.forwards for cost in spent.values()]
    assert [bar.get_width() for bar in display.backwards_] == [cost.backwards for cost in spent.values()]
    assert [bar.get_x() for bar in display.backwards_] == [cost.forwards for cost in spent.values()]


def test_phases_that_took_nothing_are_left_out():
    display = CostDisplay(cost={"full": PhaseCost(10, 5, 2.0), "solver": PhaseCost()}).plot()
    assert display.phases_ == ["full"]
    assert display.axes_[0].get_xlabel() == "seconds, 2 in all"
    assert display.axes_[1].get_xlabel() == "passes of a sample, 15 in all"


def test_phases_read_from_the_top_down(clf):
    for axes in CostDisplay.from_estimator(clf).axes_:
        assert axes.get_ylim()[0] > axes.get_ylim()[1]


@pytest.mark.parametrize(
    "number, text", [(0, "0"), (999, "999"), (1000, "1k"), (1234567, "1.23M"), (999_999_999, "1G"), (43218, "43.2k")]
)
def test_counts_are_short(number, text):
    assert _short(number) == text


def test_a_fit_that_cost_nothing_is_refused():
    with pytest.raises(ValueError, match="cost has no phase that took any time"):
        CostDisplay(cost=Cost())
