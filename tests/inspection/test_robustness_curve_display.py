"""RobustnessCurveDisplay: its numbers against robust_score, several models, and radii of every kind."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from torch import nn

from sklearn_acs import PGD, RobustnessCurveDisplay, StAdv, evaluate
from sklearn_acs.inspection.robustness_curve_display import _scaled


def linear():
    """Two classes with the boundary at x = 0.5."""
    model = nn.Linear(1, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-1.0], [1.0]]))
        model.bias.copy_(torch.tensor([0.5, -0.5]))
    return model


MARGINS = np.array([-0.1, 0.03, 0.07, 0.12, 0.3])
X, Y = 0.5 + MARGINS[:, None], np.ones(5, dtype=int)


def test_the_curve_is_the_share_of_margins_above_each_radius():
    eps = [0.2, 0, 0.05, 0.1]  # in any order
    display = RobustnessCurveDisplay.from_estimator(linear(), X, Y, attack=PGD(eps=0.1), eps=eps)
    assert display.eps.tolist() == sorted(eps)
    assert display.accuracy.tolist() == [[np.mean(radius < MARGINS) for radius in sorted(eps)]]
    (line,) = display.lines_
    np.testing.assert_array_equal(line.get_xydata(), np.column_stack([display.eps, display.accuracy[0]]))
    assert display.ax_.get_xlabel() == "eps (linf)"


def test_without_radius_zero_there_is_no_clean_accuracy():
    display = RobustnessCurveDisplay.from_estimator(linear(), X, Y, eps=[0.05, 0.1])
    assert display.accuracy.tolist() == [[np.mean(radius < MARGINS) for radius in (0.05, 0.1)]]


def test_default_radii_are_multiples_of_that_trained_against(clf, digits):
    display = RobustnessCurveDisplay.from_estimator(clf, digits[0][300:340], digits[1][300:340])
    np.testing.assert_allclose(display.eps, 0.15 * np.array([0, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4]))
    assert display.accuracy[0, 0] == clf.score(digits[0][300:340], digits[1][300:340])
    own = evaluate(clf, digits[0][300:340], digits[1][300:340], clf.attack_)["accuracy"][1]
    assert abs(display.accuracy[0, 4] - own) <= 0.1  # from other random starts
    assert (np.diff(display.accuracy) <= 0).all()


def test_several_models_share_axes_and_legend(clf, digits):
    data = digits[0][300:320], digits[1][300:320]
    display = RobustnessCurveDisplay.from_estimators({"one $x$": clf, "two": clf}, *data, eps=[0, 0.1])
    assert len(display.lines_) == 2
    assert [text.get_text() for text in display.legend_.get_texts()] == [r"one \$x\$", "two"]
    np.testing.assert_array_equal(*display.accuracy)


def test_a_name_with_an_underscore_is_in_the_legend():
    class _Private(nn.Sequential):
        pass

    display = RobustnessCurveDisplay.from_estimator(_Private(linear()), X, Y, eps=[0.1])
    assert [text.get_text().strip() for text in display.legend_.get_texts()] == ["_Private"]


def test_a_curve_is_laid_over_another(clf, digits):
    data = digits[0][300:320], digits[1][300:320]
    first = RobustnessCurveDisplay.from_estimator(clf, *data, eps=[0.1], name="first", color="black")
    RobustnessCurveDisplay.from_estimator(clf, *data, eps=[0.2], name="second", ax=first.ax_)
    assert len(first.ax_.lines) == 2
    assert first.lines_[0].get_color() == "black"
    assert [text.get_text() for text in first.ax_.get_legend().get_texts()] == ["first", "second"]


def test_a_module_is_attacked_by_pgd_20():
    display = RobustnessCurveDisplay.from_estimator(linear(), X, Y)
    assert display.eps[-1] == pytest.approx(4 * 8 / 255)


def test_radii_of_a_table_are_factors_of_one_for_each_feature(plain_clf):
    display = RobustnessCurveDisplay.from_estimator(plain_clf, *load_iris(return_X_y=True))
    assert display.eps.tolist() == [0, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4]
    assert display.ax_.get_xlabel() == "eps, in those of the attack (linf)"


def test_bounds_are_radii_too(clf, digits):
    data = digits[0][300:310], digits[1][300:310]
    display = RobustnessCurveDisplay.from_estimator(clf, *data, attack=StAdv(steps=2), eps=[0, 0.1])
    assert display.ax_.get_xlabel() == "bound"


def test_steps_grow_with_the_radius():
    scaled = _scaled(PGD(eps=0.1, step_size=0.02, steps=7, norm="l2"), "eps", 3)
    assert scaled.get_params() == PGD(eps=0.1 * 3, step_size=0.02 * 3, steps=7, norm="l2").get_params()
    assert _scaled(PGD(eps=0.1), "eps", 3).step_size is None
    np.testing.assert_allclose(_scaled(PGD(eps=[0.1, 0.2]), "eps", 2).eps, [0.2, 0.4])


def test_measured_numbers_can_be_drawn():
    display = RobustnessCurveDisplay(eps=[0, 1], accuracy=[0.9, 0.4]).plot()
    assert display.accuracy.shape == (1, 2)
    assert display.ax_.get_legend() is None
    assert [text.get_text() for text in display.ax_.get_yticklabels()][-2] == "100%"
    plt.close(display.figure_)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"eps": [0.1, -0.1]}, r"eps=\[0.1, -0.1\] must be finite numbers >= 0"),
        ({"eps": [0]}, r"eps=\[0\] must be .* one of them > 0"),
        ({"attack": "magic"}, "attack='magic' is not known"),
    ],
)
def test_bad_input_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RobustnessCurveDisplay.from_estimator(linear(), X, Y, **options)


def test_shapes_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match=r"accuracy has shape \(1, 3\); it must be \(n_models, 2\)"):
        RobustnessCurveDisplay(eps=[0, 1], accuracy=[1, 2, 3])
    with pytest.raises(ValueError, match=r"names=\['a', 'b'\] must be 1 names"):
        RobustnessCurveDisplay(eps=[0, 1], accuracy=[1, 0], names=["a", "b"])
    with pytest.raises(ValueError, match=r"estimators=\{\} has no model"):
        RobustnessCurveDisplay.from_estimators({}, X, Y)
