"""PerturbationDisplay: images of every layout, the perturbation between them, and what is written over them."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from sklearn_acs import PGD, PerturbationDisplay

GRAY = np.random.default_rng(0).random((2, 6, 5)).astype(np.float32)
COLOR = np.random.default_rng(1).random((2, 3, 6, 5)).astype(np.float32)


def show(X, X_adv=None, **options):
    return PerturbationDisplay.from_predictions(X, X if X_adv is None else X_adv, [0, 1], [0, 1], [0, 0], **options)


def test_images_perturbations_and_examples_are_of_the_classifier(clf, digits):
    X, y = digits[0][300:310], digits[1][300:310]
    attack = PGD(eps=0.2)
    display = PerturbationDisplay.from_estimator(clf, X, y, attack=attack, n_images=3)
    X_adv = clf.perturb(X[:3], y[:3], attack=attack)
    np.testing.assert_allclose(display.images_[..., 0], X[:3])
    np.testing.assert_allclose(display.images_adv_[..., 0], X_adv)
    assert display.y_pred.tolist() == clf.predict(X[:3]).tolist()
    assert display.y_pred_adv.tolist() == clf.predict(X_adv).tolist()
    np.testing.assert_allclose(display.confidence_adv, clf.predict_proba(X_adv).max(1))
    assert display.factor_ == 2  # half the range over 0.2
    drawn = display.axes_[1, 0].images[0].get_array()
    np.testing.assert_allclose(drawn, 0.5 + 2 * (X_adv[0] - X[0]), atol=1e-6)


@pytest.mark.parametrize(
    "X, shown",
    [
        (GRAY, GRAY[..., None]),
        (GRAY[:, None], GRAY[..., None]),
        (GRAY[..., None], GRAY[..., None]),
        (COLOR, COLOR.transpose(0, 2, 3, 1)),
        (COLOR.transpose(0, 2, 3, 1), COLOR.transpose(0, 2, 3, 1)),
        (np.concatenate([COLOR, COLOR[:, :1]], 1), COLOR.transpose(0, 2, 3, 1)),
        (COLOR[:, :2], COLOR[:, :2].mean(1)[..., None]),
        (torch.from_numpy(COLOR), COLOR.transpose(0, 2, 3, 1)),
    ],
    ids=["n h w", "n 1 h w", "n h w 1", "n 3 h w", "n h w 3", "alpha", "two channels", "tensor"],
)
def test_every_layout_is_shown_as_height_width_colour(X, shown):
    np.testing.assert_allclose(show(X).images_, shown, rtol=1e-6)


def test_bytes_are_fractions_of_255():
    X = np.full((2, 4, 4), 51, dtype=np.uint8)
    np.testing.assert_allclose(show(X, X / 255).images_, 0.2)


def test_other_ranges_are_scaled():
    display = show(2 * GRAY - 1)
    low, high = display.clip
    assert (low, high) == (float((2 * GRAY - 1).min()), 1.0)
    assert show(GRAY, clip=(-1.0, 1.0)).images_.min() >= 0.5


def test_no_perturbation_is_no_problem():
    assert show(GRAY).factor_ == 1
    np.testing.assert_array_equal(show(GRAY).axes_[1, 0].images[0].get_array(), 0.5)


def test_wrong_predictions_are_red():
    display = show(GRAY, confidence=[0.9, 0.8], confidence_adv=[0.5, 0.4])
    assert [axes.get_title().replace("\n", ", ") for axes in display.axes_[2]] == ["0, 50%", "0, 40%"]
    assert [axes.title.get_color() for axes in display.axes_[2]] == [plt.rcParams["text.color"], "C3"]
    assert [axes.get_xlabel() for axes in display.axes_[0]] == ["label 0", "label 1"]
    assert [axes[0].get_ylabel().replace("\n", " ") for axes in display.axes_] == [
        "clean",
        "perturbation \N{MULTIPLICATION SIGN} 1",
        "adversarial",
    ]


def test_long_names_go_on_two_lines_and_are_cut_and_plain():
    names = ["a name longer than any image is wide: $x$", "b"]
    with plt.rc_context({"figure.figsize": (3.3, 2.0)}):
        display = PerturbationDisplay.from_predictions(GRAY, GRAY, names, names, names, confidence=[0.5, 0.5])
    first, second = (axes.get_title() for axes in display.axes_[0])
    assert first.startswith("a name") and first.endswith("…\n50%") and second == "b\n50%"
    assert (
        r"\$x"
        in PerturbationDisplay.from_predictions(GRAY, GRAY, ["$x", "y"], ["$x", "y"], ["$x", "y"])
        .axes_[0, 0]
        .get_title()
    )


def test_axes_may_be_given():
    figure, axes = plt.subplots(3, 2)
    assert show(GRAY, ax=axes).figure_ is figure
    with pytest.raises(ValueError, match=r"ax must be axes of shape \(3, 2\); got \(2,\)"):
        show(GRAY, ax=axes[0])


@pytest.mark.parametrize("X", [torch.from_numpy, np.asarray, np.ndarray.tolist], ids=["tensor", "array", "list"])
def test_a_classifier_takes_images_as_they_come(clf, digits, X):
    display = PerturbationDisplay.from_estimator(clf, X(digits[0][:2]), digits[1][:2], n_images=5)
    assert display.images_.shape == (2, 8, 8, 1)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"X": GRAY[0]}, r"X must be images .* got shape \(6, 5\)"),
        ({"X_adv": GRAY[:, :3]}, r"X_adv has shape \(2, 3, 5\); it must be that of X, \(2, 6, 5\)"),
        ({"y_true": [1]}, r"y_true has shape \(1,\); it must have one value for each of 2 images"),
        ({"confidence": [[1], [2]]}, r"confidence has shape \(2, 1\)"),
    ],
)
def test_bad_input_is_refused(change, message):
    given = {"X": GRAY, "X_adv": GRAY, "y_true": [0, 1], "y_pred": [0, 1], "y_pred_adv": [0, 1]}
    with pytest.raises(ValueError, match=message):
        PerturbationDisplay(**{**given, **change})


def test_tables_and_streams_are_refused(clf, plain_clf, digits):
    with pytest.raises(ValueError, match="fitted on a table"):
        PerturbationDisplay.from_estimator(plain_clf, np.zeros((2, 4)), [0, 1])
    with pytest.raises(TypeError, match="got the Dataset TensorDataset"):
        PerturbationDisplay.from_estimator(clf, TensorDataset(torch.zeros(2, 8, 8)), digits[1][:2])
    with pytest.raises(ValueError, match=r"'n_images' parameter of .* must be"):
        PerturbationDisplay.from_estimator(clf, *digits, n_images=0)
