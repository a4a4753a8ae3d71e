"""Labels of any kind become codes; those that a model does not have are refused in training and wrong in scores."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, PredefinedSplit, cross_validate
from torch import nn
from torch.utils.data import TensorDataset

from sklearn_acs import PGD, RobustClassifier, evaluate, robust_accuracy, robust_scorer
from sklearn_acs.data.labels import UNKNOWN, encode_labels, read_labels

DIGITS = load_digits(n_class=3)
X, y = (DIGITS.images / 16).astype(np.float32)[:120], DIGITS.target[:120]
ATTACK = PGD(eps=0.1, steps=2)


def make() -> RobustClassifier:
    return RobustClassifier(max_epochs=4, attack=ATTACK, batch_size=32, random_state=0)


@pytest.mark.parametrize(
    "classes", [np.array([-1, 3]), np.array(["a", "b"]), np.array(["a", "b"], dtype=object), np.array([False, True])]
)
def test_codes_are_positions_in_the_classes(classes):
    codes = encode_labels(classes[[1, 0, 1]], classes)
    assert codes.tolist() == [1, 0, 1]
    assert codes.dtype == torch.int64


def test_a_label_that_is_none_of_the_classes_is_refused_in_training():
    with pytest.raises(ValueError, match=r"label 7, which is none of the classes \[1, 2\]"):
        encode_labels(np.array([1, 7]), np.array([1, 2]))
    clf = make().partial_fit(X[y < 2], y[y < 2])
    with pytest.raises(ValueError, match="label 2"):
        clf.partial_fit(X, y)


def test_in_scores_it_gets_a_code_of_its_own_and_a_warning_that_names_it():
    with pytest.warns(UserWarning, match=r"\[7, 9\].*count as wrong"):
        codes = encode_labels(np.array([1, 7, 2, 9]), np.array([1, 2]), scoring=True)
    assert codes.tolist() == [0, UNKNOWN, 1, UNKNOWN]


@pytest.mark.parametrize(("labels", "classes"), [(["1", "2"], [1, 2]), ([1, 2], ["1", "2"])])
def test_strings_are_no_numbers(labels, classes):
    for scoring in (False, True):
        with pytest.raises(ValueError, match="Mix of label input types"):
            encode_labels(np.array(labels), np.array(classes), scoring=scoring)


def test_missing_labels_are_told():
    with pytest.raises(ValueError, match="requires y to be passed, but the target y is None"):
        read_labels(None, len(X))


# Scores of a classifier


def test_a_class_that_only_a_test_fold_has_counts_as_wrong():
    known, only_first = y < 2, make().fit(X[y < 2], y[y < 2])
    with pytest.warns(UserWarning, match=r"\[2\]"):
        score = only_first.robust_score(X, y)
    assert score == pytest.approx(only_first.robust_score(X[known], y[known]) * known.mean(), abs=0.01)
    assert score > 0.4


@pytest.mark.filterwarnings("ignore:y contains")
def test_a_search_over_such_folds_has_a_robust_score():
    folds = PredefinedSplit(np.where(y == 2, 0, np.arange(len(y)) % 2))  # all of class 2 is in the first test fold
    scoring = {"clean": "accuracy", "robust": robust_scorer(ATTACK)}
    found = cross_validate(make(), X, y, cv=folds, scoring=scoring)
    assert np.isfinite(found["test_robust"]).all()
    assert (found["test_robust"] <= found["test_clean"]).all()
    assert found["test_clean"][0] < (y[::2] != 2).sum() / ((y == 2).sum() + (y[::2] != 2).sum()) + 1e-9
    search = GridSearchCV(make(), {"coreset_frac": [0.4, 0.8]}, cv=folds, scoring=scoring, refit="robust").fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_robust"]).all()


@pytest.mark.filterwarnings("ignore:y contains")
def test_evaluate_counts_it_as_wrong_too_and_does_not_attack_it():
    clf = make().fit(X[y < 2], y[y < 2])
    table = evaluate(clf, X, y, ATTACK, check_masking=True)
    assert table["accuracy"][0] == clf.score(X, y)
    assert table["accuracy"][1] == pytest.approx(clf.robust_score(X, y), abs=0.02)
    assert table["attacked"][1] <= (y < 2).sum()
    assert not table.worst_case_[y == 2].any()


@pytest.mark.filterwarnings("ignore:y contains")
def test_of_unknown_labels_alone_nothing_is_right_and_nothing_is_looked_at():
    clf = make().fit(X[y < 2], y[y < 2])
    table = evaluate(clf, X[y == 2], y[y == 2], ATTACK, check_masking=True)
    assert table["accuracy"] == [0, 0, 0]
    assert table.masking is None


def test_what_is_to_be_perturbed_has_a_known_label():
    with pytest.raises(ValueError, match="label 2"):
        make().fit(X[y < 2], y[y < 2]).perturb(X, y)


# A module knows 0 to C-1


MODULE = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))


@pytest.mark.parametrize("judge", [robust_accuracy, evaluate])
@pytest.mark.parametrize(
    "labels",
    [np.where(y == 0, -1, 1), y + 1, np.array(["a", "b", "c"])[y], y + 0.5, np.where(y == 0, 3, y)],
    ids=["+-1", "1..C", "strings", "fractions", "C"],
)
def test_other_labels_are_refused_for_a_module(judge, labels):
    with pytest.raises(ValueError, match=r"0 to C-1|continuous"):
        judge(MODULE, X, labels, ATTACK)


@pytest.mark.parametrize("judge", [robust_accuracy, evaluate])
@pytest.mark.parametrize("module", [nn.Sequential(nn.Flatten(), nn.Linear(64, 1)), nn.Flatten(0)])
def test_a_module_without_logits_of_two_classes_is_refused(judge, module):
    with pytest.raises(ValueError, match=r"logits of shape \(batch, C\)"):
        judge(module, X, np.zeros(len(X), dtype=int), ATTACK)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float64])
def test_whole_numbers_of_any_type_are_labels_of_a_module(dtype):
    expected = robust_accuracy(MODULE, X, y, ATTACK)
    assert robust_accuracy(MODULE, X, y.astype(dtype), ATTACK) == expected
    assert robust_accuracy(MODULE, X, torch.tensor(y.astype(dtype)), ATTACK) == expected


def test_nan_logits_are_wrong_everywhere():
    class Broken(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :3] * torch.nan

    for labels in (np.zeros(len(X), dtype=int), y):
        assert robust_accuracy(Broken(), X, labels, ATTACK) == 0
        assert evaluate(Broken(), X, labels, ATTACK)["accuracy"] == [0, 0, 0]


def test_a_dataset_of_pairs_is_no_labels():
    pairs = TensorDataset(torch.zeros(4, 2), torch.arange(4))
    with pytest.raises(ValueError, match="y is a Dataset of samples with labels; leave y out"):
        RobustClassifier().fit(np.zeros((4, 2)), pairs)


def test_a_strange_label_of_validation_samples_is_told_beside_those_of_y():
    X, y = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2
    with pytest.raises(ValueError, match=r"y_val.*label 6, which is none of the classes \[0, 1\], those of y"):
        RobustClassifier(early_stopping=True).fit(X, y, X_val=X, y_val=y + 6)
