"""scikit-learn's own checks, and what else its users rely on: clone, pickle, Pipeline, DataFrames, search."""

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_acs import CRAIG, PGD, TRADES, Adversarial, GradMatch, Natural, RobustClassifier, robust_scorer

QUICK = {"max_epochs": 8, "attack": PGD(steps=2, eps=0.1)}

CLASSIFIERS = [
    RobustClassifier(),
    *(RobustClassifier(selector=name, **QUICK) for name in ("gradmatch", "craig", "glister", "random", None)),
    *(RobustClassifier(objective=name, **QUICK) for name in ("natural", "trades")),
    RobustClassifier(averaging="ema", **QUICK),
    *(RobustClassifier(select_by=by, **QUICK) for by in ("sample", "batch")),
    RobustClassifier(objective=TRADES(1.0, divergence="ce", attack=PGD(norm="l2", eps=0.5, steps=2)), max_epochs=8),
    RobustClassifier(objective=Adversarial(attack="fgsm"), selector=CRAIG(metric="sqeuclidean"), max_epochs=8),
]


def expected_failures(estimator: RobustClassifier) -> dict[str, str]:
    # scikit-learn excuses its own SGD estimators from this one for the same reason.
    return {
        "check_sample_weight_equivalence_on_dense_data": "stochastic mini-batches: repeating a sample moves the others "
        "to other batches"
    }


@parametrize_with_checks(CLASSIFIERS, expected_failed_checks=expected_failures)
def test_scikit_learn_check(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def iris():
    return load_iris(return_X_y=True)


def quick(**params) -> RobustClassifier:
    return RobustClassifier(**{"max_epochs": 6, "random_state": 0, **params})


def test_clone_keeps_named_and_routed_parameters_and_nothing_fitted(iris):
    clf = quick(objective="trades", objective__beta=2.0, optimizer__momentum=0.5).fit(*iris)
    copy = clone(clf)
    assert copy.get_params() == clf.get_params()
    assert not hasattr(copy, "net_")


def test_routed_parameters_reach_their_parts(iris):
    clf = quick(
        objective="trades",
        objective__beta=2.0,
        attack__steps=3,
        optimizer__momentum=0.5,
        selector__ridge=0.3,
        module__hidden=(7,),
    ).fit(*iris)
    assert clf.net_.criterion_.beta == 2.0
    assert clf.attack_.steps == 3
    assert clf.net_.optimizer_.param_groups[0]["momentum"] == 0.5
    assert [len(layer.bias) for layer in clf.net_.module_.modules() if hasattr(layer, "bias")] == [7, 3]


def test_nested_parameters_of_objects_are_set_on_them():
    clf = quick(objective=TRADES(attack=PGD(eps=0.3))).set_params(objective__beta=3.0, objective__attack__eps=0.2)
    assert clf.objective.beta == 3.0
    assert clf.objective.attack.eps == 0.2


@pytest.mark.parametrize(
    ("params", "error", "match"),
    [
        ({"objectiv__beta": 1}, TypeError, "objectiv__beta"),
        ({"objective__betta": 1}, ValueError, "betta"),
        ({"momentum": 0.9}, TypeError, "'momentum'.*part__name"),
    ],
)
def test_a_parameter_that_leads_nowhere_is_an_error_at_fit(iris, params, error, match):
    with pytest.raises(error, match=match):
        quick(**params).fit(*iris)


def test_set_params_refuses_an_unknown_part():
    with pytest.raises(ValueError, match="nonsense__x"):
        quick().set_params(nonsense__x=1)


def test_pickle_round_trip_predicts_the_same_bits(iris):
    clf = quick().fit(*iris)
    again = pickle.loads(pickle.dumps(clf))
    np.testing.assert_array_equal(again.decision_function(iris[0]), clf.decision_function(iris[0]))
    assert again.robust_score(*iris) == clf.robust_score(*iris)


def test_a_data_frame_is_taken_and_its_column_names_are_checked(iris):
    X = pd.DataFrame(iris[0], columns=["a", "b", "c", "d"])
    clf = quick().fit(X, iris[1])
    assert clf.feature_names_in_.tolist() == ["a", "b", "c", "d"]
    np.testing.assert_array_equal(clf.predict(X), quick().fit(*iris).predict(iris[0]))
    with pytest.raises(ValueError, match="feature names"):
        clf.predict(X.rename(columns={"a": "z"}))


def test_string_labels_come_back(iris):
    names = np.array(["setosa", "versicolor", "virginica"])[iris[1]]
    clf = quick(max_epochs=20).fit(iris[0], names)
    assert clf.classes_.tolist() == ["setosa", "versicolor", "virginica"]
    assert clf.score(iris[0], names) > 0.8
    assert 0 < clf.robust_score(iris[0], names, PGD(eps=0.1)) <= clf.score(iris[0], names)


def test_works_at_the_end_of_a_pipeline(iris):
    model = make_pipeline(MinMaxScaler(), quick(max_epochs=20)).fit(*iris)
    assert model.score(*iris) > 0.8


def test_grid_over_coreset_objective_attack_and_optimiser_parameters_in_two_processes(iris):
    X, y = iris
    search = GridSearchCV(
        quick(objective=TRADES(), attack=PGD(eps=0.1, steps=2), max_epochs=4),
        [
            {"coreset_frac": [0.3, 0.5], "select_every": [1, 20], "selector": ["craig", "gradmatch"]},
            {"objective__beta": [1, 6], "attack__eps": [0.05, 0.1], "optimizer__momentum": [0.0, 0.9]},
        ],
        scoring={"clean": "accuracy", "robust": robust_scorer(PGD(eps=0.1, steps=4))},
        refit="robust",
        cv=2,
        n_jobs=2,
        error_score="raise",
    ).fit(X, y)
    results = search.cv_results_
    assert len(results["params"]) == 16
    assert (results["mean_test_robust"] <= results["mean_test_clean"] + 1e-12).all()
    assert len(np.unique(results["mean_test_robust"])) > 1
    assert search.best_estimator_.robust_score(X, y) <= search.best_estimator_.score(X, y)


def test_cross_validate_with_the_robust_scorer_equals_robust_score_by_hand(iris):
    X, y = iris
    folds = [(np.arange(0, 150, 2), np.arange(1, 150, 2))]
    scores = cross_validate(quick(), X, y, scoring=robust_scorer(), cv=folds, return_estimator=True)
    by_hand = scores["estimator"][0].robust_score(X[1::2], y[1::2])
    assert scores["test_score"][0] == by_hand


def test_the_robust_scorer_attacks_the_last_step_of_a_pipeline_and_the_best_of_a_search(iris):
    X, y = iris
    scorer = robust_scorer(PGD(eps=0.05, steps=3))
    model = make_pipeline(MinMaxScaler(), quick(max_epochs=12)).fit(X, y)
    assert scorer(model, X, y) == model[-1].robust_score(model[0].transform(X), y, PGD(eps=0.05, steps=3))
    scores = cross_validate(model, X, y, scoring=scorer, cv=2, error_score="raise")["test_score"]
    assert ((scores > 0) & (scores < 1)).all()
    search = GridSearchCV(quick(), {"coreset_frac": [0.5]}, scoring=scorer, cv=2).fit(X, y)
    assert scorer(search, X, y) == scorer(search.best_estimator_, X, y)


def test_the_robust_scorer_says_what_it_needs(iris):
    with pytest.raises(TypeError, match=r"needs an estimator with robust_score, .*; got MinMaxScaler"):
        robust_scorer()(MinMaxScaler(), *iris)


def test_html_repr_shows_the_parameters():
    html = quick(objective=TRADES(beta=2.5), selector=GradMatch(ridge=0.7), coreset_frac=0.3)._repr_html_()
    assert "RobustClassifier" in html
    assert "2.5" in html
    assert "coreset_frac" in html  # which scikit-learn 1.6 shows only where it is not the default


def test_repr_shows_what_was_changed():
    text = repr(RobustClassifier(objective=Natural(), coreset_frac=0.3, objective__attack="fgsm"))
    shown = "RobustClassifier(coreset_frac=0.3, objective=Natural(), objective__attack='fgsm')"
    assert "".join(text.split()) == "".join(shown.split())
