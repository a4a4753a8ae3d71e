"""Every objective with every selector, by sample, class and batch: a fit each, and all that must hold in it."""

from copy import deepcopy
from math import ceil

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from torch import nn

from sklearn_acs import (
    FGSM,
    MART,
    PAT,
    PGD,
    TRADES,
    Adversarial,
    BulletTrain,
    FastAT,
    FastLPA,
    Natural,
    RobustClassifier,
)
from sklearn_acs.attacks import Attack
from sklearn_acs.objectives import ADVERSARIAL, OBJECTIVES
from sklearn_acs.selectors import SELECTORS
from sklearn_acs.training import passes
from sklearn_acs.training.selection import SELECT_BY

X = (load_digits(n_class=3).images / 16).astype(np.float32)[:128]
y = load_digits(n_class=3).target[:128]
EPOCHS, FRAC = 6, 0.5

MODULE = nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 3))

PGD_2, FAST_LPA = PGD(eps=0.05, steps=2), FastLPA(bound=0.1, steps=2, only_correct=False)

ROWS = {
    # objective, attack, passes forwards and backwards of an attack, and of a training step, per sample
    "natural": (Natural(), PGD_2, (0, 0), (1, 1)),
    "adversarial": (Adversarial(), PGD_2, (2, 2), (1, 1)),
    "trades": (TRADES(), PGD_2, (1 + 2, 2), (2, 2)),  # the clean prediction that it moves away from
    "mart": (MART(), PGD_2, (2, 2), (2, 2)),
    # To judge by the sample itself takes a pass, each step one for its gradient and one for its length.
    "pat": (PAT(), FAST_LPA, (1 + 2 * 2, 2), (1, 1)),
    # GradAlign: two gradients, and one of them differentiated. A guard would count passes of its own.
    "fast": (FastAT(gradalign=0.2, guard=None), FGSM(eps=0.05, random_start=True), (1, 1), (1 + 2, 1 + 3)),
}


@pytest.fixture
def attacks_leave_no_trace(monkeypatch):
    """Every attack leaves modes, BatchNorm's statistics, `requires_grad` and parameter gradients as they were."""
    perturb, calls = Attack.perturb, []

    def state(model):
        buffers = {name: value.clone() for name, value in model.state_dict().items()}
        modes = [module.training for module in model.modules()]
        return buffers, modes, [p.requires_grad for p in model.parameters()], [p.grad for p in model.parameters()]

    def watched(self, model, *args, **kwargs):
        before = state(model)
        result = perturb(self, model, *args, **kwargs)
        after = state(model)
        calls.append(self)
        assert all(torch.equal(after[0][name], value) for name, value in before[0].items())
        assert before[1:3] == after[1:3]
        assert all(a is b for a, b in zip(before[3], after[3], strict=True))
        return result

    monkeypatch.setattr(Attack, "perturb", watched)
    return calls


@pytest.fixture
def gradients_are_autograds(monkeypatch):
    """The factors of every selection multiply to the gradients that autograd finds for the whole last layer."""
    factors_of, calls = passes.batch_factors, []

    def watched(model, layer, loss, inputs, labels):
        factors = factors_of(model, layer, loss, inputs, labels)
        twin = deepcopy(model).requires_grad_()  # whose passes nobody counts
        its_layer = next(b for a, b in zip(model.modules(), twin.modules(), strict=True) if a is layer)
        for i in range(0, len(labels), 17):
            with torch.enable_grad():
                logits = {branch: twin(x[i : i + 1]) for branch, x in inputs.items()}
                found = torch.autograd.grad(loss(logits, labels[i : i + 1]).sum(), [its_layer.weight, its_layer.bias])
            expected = torch.cat([found[0], found[1][:, None]], dim=1)
            product = sum(g[i][:, None] * h1[i] for g, h1 in factors)
            torch.testing.assert_close(product, expected, rtol=1e-4, atol=1e-5)
        calls.append(inputs)
        return factors

    monkeypatch.setattr(passes, "batch_factors", watched)
    return calls


def test_every_objective_has_its_row():
    assert set(ROWS) == set(OBJECTIVES)
    assert all(type(ROWS[name][0]) is OBJECTIVES[name] for name in ROWS)


@pytest.mark.parametrize("select_by", SELECT_BY)
@pytest.mark.parametrize("selector", [name for name in SELECTORS if name != "infobatch"])  # whose size is not planned
@pytest.mark.parametrize("name", ROWS)
def test_combination(name, selector, select_by, attacks_leave_no_trace, gradients_are_autograds):
    objective, attack, of_attack, of_step = ROWS[name]
    clf = RobustClassifier(
        MODULE,
        objective=objective,
        attack=attack,
        selector=selector,
        select_by=select_by,
        max_epochs=EPOCHS,
        coreset_frac=FRAC,
        batch_size=16,
        lr=0.02,
        lr_schedule="constant",
        random_state=0,
    ).fit(X, y)

    losses = clf.history_[:, "train_loss"]
    assert losses[-1] < losses[0]
    assert len(clf.coreset_.indices) == pytest.approx(FRAC * len(X) * (0.9 if selector == "glister" else 1), abs=3)

    cost, schedule = clf.cost_, clf.schedule_
    forwards, backwards = (a + b for a, b in zip(of_attack, of_step, strict=True))
    n = len(X) - (ceil(0.1 * len(X)) if selector == "glister" else 0)
    assert cost["full"].forwards == schedule.full_epochs * n * forwards
    assert cost["full"].backwards == schedule.full_epochs * n * backwards
    trained = schedule.coreset_epochs * len(clf.coreset_.indices)
    assert cost["coreset"].forwards == trained * forwards
    assert cost["coreset"].backwards == trained * backwards
    looks = schedule.n_selections * (selector != "random")
    branches = len(objective.branches)  # held-out samples are asked for their cross-entropy alone
    assert cost["selection"].forwards == looks * (n * (of_attack[0] + branches) + (len(X) - n) * (of_attack[0] + 1))
    assert cost["selection"].backwards == looks * len(X) * of_attack[1]
    assert cost["solver"].forwards == 0

    assert bool(attacks_leave_no_trace) == (ADVERSARIAL in objective.branches)
    assert bool(gradients_are_autograds) == (selector != "random")
    steps = schedule.full_epochs * ceil(n / 16) + schedule.coreset_epochs * ceil(len(clf.coreset_.indices) / 16)
    assert clf.net_.module_[2].num_batches_tracked == steps * branches  # by training alone


@pytest.mark.parametrize("selector", ["gradmatch", "glister"])
@pytest.mark.parametrize("attack", [PGD(eps=0.05, steps=4), PGD(eps=0.3, norm="l2", steps=4), FastLPA(0.1, steps=4)])
@pytest.mark.parametrize("name", ["adversarial", "trades", "mart", "pat"])
def test_bullet_train_saves_steps_with_every_objective(name, attack, selector, attacks_leave_no_trace):
    clf = RobustClassifier(
        MODULE, objective=ROWS[name][0], attack=attack, selector=selector, max_epochs=12, batch_size=16, lr=0.03
    ).set_params(random_state=0)
    plain = clone(clf).fit(X, y)
    bullet = clone(clf).set_params(attack=BulletTrain(attack)).fit(X, y)
    assert bullet.cost_.total.backwards < 0.85 * plain.cost_.total.backwards
    assert bullet.robust_score(X, y) > 0.5  # of three classes
    assert bullet.attack_.robust_share_ > 0.2
