"""The scorer made for model selection hands on its attack, sample weights and data."""

import pickle

import numpy as np
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import GridSearchCV

from sklearn_acs import PGD, robust_accuracy, robust_scorer
from sklearn_acs.attacks import FGSM


def samples():
    """Six points on either side of 0.5."""
    distances = np.array([-0.3, -0.05, 0.02, 0.1, 0.25, 0.45])
    x = np.concatenate([0.5 - distances, 0.5 + distances])[:, None]
    return x, np.repeat([0, 1], len(distances))


class Threshold(BaseEstimator):
    """An estimator whose robust score says what it was asked."""

    def __init__(self, worth=0.0):
        self.worth = worth

    def fit(self, X, y):
        return self

    def robust_score(self, X, y=None, attack=None, sample_weight=None):
        eps = 0.0 if attack is None else attack.eps
        return self.worth + eps + (0 if sample_weight is None else float(np.sum(sample_weight)))


def test_estimator_is_asked_for_its_own_robust_score():
    assert robust_accuracy(Threshold(worth=10), *samples(), PGD(eps=0.25)) == 10.25


def test_scorer_hands_on_its_attack():
    assert robust_scorer(PGD(eps=0.25))(Threshold(), *samples()) == 0.25


def test_scorer_without_an_attack_leaves_the_choice_to_the_estimator():
    assert robust_scorer()(Threshold(worth=3), *samples()) == 3


def test_scorer_hands_on_sample_weights():
    x, y = samples()
    assert robust_scorer()(Threshold(), x, y, sample_weight=np.ones(len(y))) == len(y)


def test_scorer_keeps_a_copy_of_the_attack():
    attack = PGD(eps=0.25)
    scorer = robust_scorer(attack)
    attack.eps = 0.5
    assert scorer(Threshold(), *samples()) == 0.25


def test_scorer_is_pickled():
    scorer = pickle.loads(pickle.dumps(robust_scorer(FGSM(eps=0.25))))
    assert scorer(Threshold(), *samples()) == 0.25


def test_scorer_is_cloned_with_a_search():
    search = clone(GridSearchCV(Threshold(), {}, scoring={"robust": robust_scorer(PGD(eps=0.25))}, refit=False))
    assert search.scoring["robust"](Threshold(), *samples()) == 0.25


def test_search_picks_the_most_robust():
    x, y = samples()
    search = GridSearchCV(Threshold(), {"worth": [1.0, 3.0, 2.0]}, scoring=robust_scorer(PGD(eps=8 / 255)), cv=2)
    assert search.fit(x, y).best_params_ == {"worth": 3.0}


@pytest.mark.parametrize(("attack", "text"), [(None, "robust_scorer(None)"), (PGD(), "robust_scorer(PGD())")])
def test_scorer_prints_what_made_it(attack, text):
    assert repr(robust_scorer(attack)) == text


@pytest.mark.parametrize("attack", ["magic", PGD(eps=-1)])
def test_bad_attack_is_refused_when_the_scorer_is_made(attack):
    with pytest.raises(ValueError, match=r"known names|eps"):
        robust_scorer(attack)
