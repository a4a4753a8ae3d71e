"""Dynamics: the three groups against predictions and robust accuracy, its cost, and that training does not notice."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset

from sklearn_acs import FGSM, PGD, BulletTrain, Dynamics, FastLPA, InBatchSelection, RobustClassifier

X = (load_digits(n_class=4).images / 16).astype(np.float32)[:96]
y = load_digits(n_class=4).target[:96]


def fit(dynamics, X=X, y=y, **params):
    settings = {"selector": None, "max_epochs": 3, "attack": PGD(eps=0.1, steps=7), "batch_size": 32, "random_state": 0}
    settings |= {"averaging": None, "attack_ramp": 0.0}
    return RobustClassifier(**{**settings, **params}, callbacks=[dynamics] if dynamics else None).fit(X, y)


@pytest.mark.parametrize("objective", ["natural", "adversarial", "trades"])
def test_groups_are_those_of_predictions_and_robust_accuracy(objective):
    attack = PGD(eps=0.1, steps=5, init="zero")
    dynamics = Dynamics(attack)
    clf = fit(dynamics, objective=objective)
    last = dict(zip(dynamics.table_.columns, dynamics.table_.rows[-1], strict=True))
    assert last["epoch"] == 3
    assert last["outlier"] == (clf.predict(X) != y).sum()
    assert last["robust"] == round(clf.robust_score(X, y, attack=attack) * len(X))
    assert last["outlier"] + last["boundary"] + last["robust"] == len(X)
    assert min(last["boundary"], last["robust"]) > 0


def test_the_default_attack_is_the_trainings_with_five_steps():
    dynamics = Dynamics()
    fit(dynamics, attack=BulletTrain(PGD(eps=0.07, norm="l2", steps=9)))
    assert dynamics.attack_.get_params() == PGD(eps=0.07, norm="l2", steps=5).get_params()


def test_an_attack_without_a_radius_takes_that_of_training_and_one_in_standard_deviations_the_datas():
    table = X.reshape(len(X), -1)[:, 20:24]
    for attack, eps in ((PGD(steps=3), 0.1), (PGD(0.5, unit="std"), 0.5 * table.std(0))):
        dynamics = Dynamics(attack)
        fit(dynamics, X=table)
        np.testing.assert_allclose(dynamics.attack_.eps, eps, rtol=1e-5)
        assert len(dynamics.table_) == 3


def test_single_step_training_is_judged_by_five_steps():
    dynamics = Dynamics()
    fit(dynamics, objective="fast", attack=FGSM(eps=0.07, random_start=True))
    assert dynamics.attack_.get_params() == PGD(eps=0.07, steps=5).get_params()


@pytest.mark.parametrize("attack", [PGD(eps=0.1, norm="l2"), PGD(eps=0.1, norm="l1"), FastLPA(), BulletTrain()])
def test_a_batch_without_a_right_sample_is_no_trouble(attack):
    dynamics = Dynamics(attack, n_samples=3)
    fit(dynamics, lr=1e-12, max_epochs=1, batch_size=1, X=X[:3], y=y[:3])
    assert sum(dynamics.table_.rows[0][1:4]) == 3


def test_history_has_the_counts():
    dynamics = Dynamics()
    clf = fit(dynamics)
    for group in ("outlier", "boundary", "robust"):
        assert clf.history_[:, group] == dynamics.table_[group]
    assert dynamics.table_["clean_taken"] == [None] * 3


def test_in_batch_selection_is_told():
    dynamics = Dynamics()
    fit(dynamics, objective="trades", in_batch=InBatchSelection(share=0.25))
    assert dynamics.table_["clean_taken"] == dynamics.table_["adversarial_taken"] == [24] * 3


def test_some_samples_alone_are_looked_at():
    dynamics = Dynamics(n_samples=10)
    fit(dynamics)
    assert dynamics.rows_.tolist() == np.linspace(0, 95, 10).round().astype(int).tolist()
    assert [sum(row[1:4]) for row in dynamics.table_.rows] == [10] * 3


@pytest.mark.parametrize("streamed", [False, True])
def test_training_is_the_same_bits_with_and_without(streamed):
    data = (TensorDataset(torch.from_numpy(X)[:, None], torch.from_numpy(y)), None) if streamed else (X, y)
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 4))
    with_it, without = fit(Dynamics(), *data, module=module), fit(None, *data, module=module)
    for name, value in without.net_.module_.state_dict().items():
        assert torch.equal(value, with_it.net_.module_.state_dict()[name])


def test_cost_is_under_checks_and_what_arithmetic_says():
    dynamics = Dynamics(PGD(eps=0.1, steps=4))
    clf = fit(dynamics)
    right = sum(len(X) - outlier for outlier in dynamics.table_["outlier"])
    assert clf.cost_["checks"].forwards == 3 * len(X) + right * (4 + 1)
    assert clf.cost_["checks"].backwards == right * 4
    assert clf.cost_["checks"].seconds > 0
    assert clf.cost_["full"].forwards == fit(None).cost_["full"].forwards


def test_a_second_fit_begins_anew():
    dynamics = Dynamics()
    fit(dynamics)
    fit(dynamics, max_epochs=2)
    assert dynamics.table_["epoch"] == [1, 2]


@pytest.mark.parametrize(
    ("bad", "name"),
    [(Dynamics(n_samples=0), "n_samples"), (Dynamics(n_samples=0.5), "n_samples"), (Dynamics("pgd"), "attack")],
)
def test_bad_parameter_is_named(bad, name):
    with pytest.raises((ValueError, TypeError), match=name):
        fit(bad)
