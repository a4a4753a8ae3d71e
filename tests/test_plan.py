"""A plan is made of the parameters, checked, fitted to the data's format, and writes nothing on the classifier."""

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch
from skorch.callbacks import LRScheduler
from torch.optim.lr_scheduler import StepLR

from sklearn_acs import FGSM, PGD, TRADES, RobustClassifier
from sklearn_acs.data.training_data import TrainingData
from sklearn_acs.plan import Plan

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3)) * [1, 10, 100]
y = (X[:, 0] > 0).astype(int)
DATA = TrainingData.read(X, y, None)


def plan_of(**params) -> Plan:
    return Plan.of(RobustClassifier(random_state=0, **params).get_params(deep=False))


def test_a_plan_is_frozen_and_settling_makes_another():
    plan = plan_of()
    with pytest.raises(FrozenInstanceError):
        plan.schedule = None
    settled = plan.settled(DATA)
    assert plan.attack.eps is None
    np.testing.assert_allclose(settled.attack.eps, 0.1 * X.std(0), rtol=1e-5)
    assert replace(settled, attack=plan.attack) == plan


def test_planning_writes_nothing_on_the_classifier():
    attack, objective = PGD(eps=0.3), TRADES()
    clf = RobustClassifier(objective=objective, attack=attack, attack__steps=3, selector="craig", random_state=0)
    before = {**vars(clf)}
    plan = Plan.of(clf.get_params(deep=False)).settled(DATA)
    assert vars(clf) == before
    assert plan.attack is not attack and plan.objective is not objective
    assert attack.init == "auto" != plan.attack.init


def test_the_same_parameters_make_the_same_plan():
    one, other = plan_of(max_epochs=7), plan_of(max_epochs=7)
    assert (one.schedule, one.seeds, one.device) == (other.schedule, other.seeds, other.device)


def test_one_pass_is_an_epoch_on_all_data_at_a_constant_rate():
    plan = Plan.of(RobustClassifier(random_state=0).get_params(deep=False), one_pass=True)
    assert (plan.schedule.n_epochs, plan.schedule.n_selections, plan.lr_schedule, plan.selector) == (1, 0, None, None)


def test_a_selection_attack_by_name_takes_the_ball_trained_against():
    plan = plan_of(attack=PGD(eps=2.0, norm="l2"), selection_attack="fgsm").settled(DATA)
    assert (plan.selection_attack.eps, plan.selection_attack.norm) == (2.0, "l2")
    with pytest.warns(UserWarning, match="training attacks within eps=2 in l2, and selection_attack within eps=0.5"):
        own = plan_of(attack=PGD(eps=2.0, norm="l2"), selection_attack=FGSM(eps=0.5)).settled(DATA)
    assert (own.selection_attack.eps, own.selection_attack.norm) == (0.5, "linf")


def test_two_schedulers_of_the_rate_are_one_too_many():
    steps = LRScheduler(StepLR, step_size=1, gamma=0.5)
    for callbacks in ([steps], [("steps", steps)]):
        with pytest.raises(ValueError, match=r"LRScheduler.*lr_schedule='one-cycle'.*use lr_schedule='constant'"):
            plan_of(callbacks=callbacks)


def test_skorchs_scheduler_works_with_a_constant_schedule():
    clf = RobustClassifier(
        attack=PGD(eps=0.1, steps=1),
        lr=0.4,
        lr_schedule="constant",
        selector=None,
        max_epochs=3,
        callbacks=[LRScheduler(StepLR, step_size=1, gamma=0.5)],
    ).fit(X, y)
    assert clf.history_[:, "lr"] == pytest.approx([0.4, 0.2, 0.1])


def test_what_cannot_be_made_is_told_before_the_data_is_read():
    class Unreadable(torch.utils.data.Dataset):
        def __len__(self):
            raise AssertionError("was read")

    for params, words in (
        ({"device": "cuda:99"}, "device='cuda:99' is not there"),
        ({"averaging": None, "averaging__decay": 0.9}, "averaging=None has no parameters"),
        ({"iterator_train__batch_size": 3}, "iterator_train__batch_size"),
        ({"attack__step_size": -1.0}, "step_size"),
    ):
        with pytest.raises(ValueError, match=words):
            RobustClassifier(**params).fit(Unreadable())
