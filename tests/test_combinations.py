"""Every objective with every selector, by sample, class and batch: a fit each, and all that must hold in it."""

from copy import deepcopy
from math import ceil

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from sklearn_acs import PGD, BulletTrain, RobustClassifier
from sklearn_acs.attacks import Attack
from sklearn_acs.objectives import ADVERSARIAL, CLEAN, OBJECTIVES
from sklearn_acs.selectors import SELECTORS
from sklearn_acs.training import coreset as selection
from sklearn_acs.training.coreset import SELECT_BY

X = (load_digits(n_class=3).images / 16).astype(np.float32)[:128]
y = load_digits(n_class=3).target[:128]
STEPS, EPOCHS, FRAC = 2, 6, 0.5


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
    factors_of, calls = selection.batch_factors, []

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

    monkeypatch.setattr(selection, "batch_factors", watched)
    return calls


def without_guard(objective):
    """The objective of that name; a guard would count passes of its own, and may end a training this small."""
    made = OBJECTIVES[objective]()
    return made.set_params(guard=None) if "guard" in made.get_params() else made


@pytest.mark.parametrize("select_by", SELECT_BY)
@pytest.mark.parametrize("selector", SELECTORS)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_combination(objective, selector, select_by, attacks_leave_no_trace, gradients_are_autograds):
    clf = RobustClassifier(
        objective=without_guard(objective),
        selector=selector,
        select_by=select_by,
        attack=PGD(eps=0.05, steps=STEPS),
        module="convnet",
        module__width=4,
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

    cost, part, schedule = clf.cost_, clf.net_.criterion_, clf.schedule_
    attacked = ADVERSARIAL in part.branches
    both = attacked and CLEAN in part.branches
    forwards = STEPS * attacked + len(part.branches) + (both and part.attack_uses_clean)
    backwards = STEPS * attacked + len(part.branches)
    n = len(X) - (ceil(0.1 * len(X)) if selector == "glister" else 0)
    assert cost["full"].forwards == schedule.full_epochs * n * forwards
    assert cost["full"].backwards == schedule.full_epochs * n * backwards
    trained = schedule.coreset_epochs * len(clf.coreset_.indices)
    assert cost["coreset"].forwards == trained * forwards
    assert cost["coreset"].backwards == trained * backwards
    looks = schedule.n_selections * (selector != "random")
    of_held_out = forwards - len(part.branches) + 1  # cross-entropy is all that validation samples are asked for
    assert cost["selection"].forwards == looks * (n * forwards + (len(X) - n) * of_held_out)
    assert cost["selection"].backwards == looks * len(X) * STEPS * attacked
    assert cost["solver"].forwards == 0

    assert bool(attacks_leave_no_trace) == attacked
    assert bool(gradients_are_autograds) == (selector != "random")


@pytest.mark.parametrize("selector", ["gradmatch", "glister"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("objective", sorted(set(OBJECTIVES) - {"natural"}))
def test_bullet_train_goes_with_every_objective(objective, norm, selector, attacks_leave_no_trace):
    eps = {"linf": 0.05, "l2": 0.3}[norm]
    clf = RobustClassifier(
        objective=without_guard(objective),
        selector=selector,
        attack=BulletTrain(PGD(eps=eps, norm=norm, steps=4)),
        max_epochs=8,
        batch_size=16,
        lr=0.05,
        random_state=0,
    ).fit(X, y)
    assert clf.robust_score(X, y) > 0.7
    assert clf.attack_.robust_share_ > 0
    whole = clf.schedule_.n_epochs * len(X) * 4
    assert clf.cost_["full"].backwards + clf.cost_["coreset"].backwards < whole
