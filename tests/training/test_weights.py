"""Weights are parameters and whatever belongs to them: masks, counters, buffers that forward replaces, extra states."""

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_acs import PGD, RobustClassifier
from sklearn_acs.training.averaging import EMA, WeightAverage
from sklearn_acs.training.weights import copy_of_weights, diverged, finite_buffers, load_weights

RNG = np.random.default_rng(0)
X = RNG.random((64, 6)).astype(np.float32)
y = (X[:, 0] > X[:, 1]).astype(int)


class Masked(nn.Module):
    """Has a mask of -inf, as attention does."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 2)
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))

    def forward(self, x):
        return self.linear(x) + 0 * self.mask.exp()


class Rebinding(nn.Module):
    """Puts another tensor in the place of its buffers in each step of training."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 2)
        self.register_buffer("count", torch.zeros(()), persistent=False)
        self.register_buffer("seen", torch.zeros(0))

    def forward(self, x):
        if self.training:
            self.count = self.count + 1
            self.seen = torch.zeros(int(self.count))
        return self.linear(x)


class Late(nn.Module):
    """Sets a buffer in its first training step, and has an expanded one."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 2)
        self.register_buffer("cache", None)
        self.register_buffer("wide", torch.zeros(1).expand(3), persistent=False)

    def forward(self, x):
        if self.training:
            self.cache = x.detach().mean(0)
        return self.linear(x) + self.wide.sum()


class Extra(nn.Module):
    """Has a state beside its tensors."""

    def __init__(self):
        super().__init__()
        self.linear, self.note = nn.Linear(6, 2), "new"

    def get_extra_state(self):
        return {"note": self.note}

    def set_extra_state(self, state):
        self.note = state["note"]

    def forward(self, x):
        self.note = "used"
        return self.linear(x)


def make(module, **params) -> RobustClassifier:
    defaults = {"attack": PGD(eps=0.05, steps=2), "max_epochs": 6, "batch_size": 16, "lr": 0.5, "random_state": 0}
    defaults |= {"coreset_frac": 0.5, "averaging": None, "attack_ramp": 0.0}
    return RobustClassifier(module, clip=(0, 1), **{**defaults, **params})


@pytest.mark.parametrize("params", [{}, {"averaging": "ema"}, {"early_stopping": True}])
@pytest.mark.parametrize(
    "module", [Masked(), Rebinding(), Late(), Extra()], ids=["mask", "rebinding", "late", "extra state"]
)
def test_such_modules_train_and_predict_numbers(module, params):
    clf = make(module, **params).fit(X, y)
    assert np.isfinite(clf.predict_proba(X)).all()
    assert clf.score(X, y) > 0.7
    again = clf.set_params(warm_start=True).fit(X, y)
    assert np.isfinite(again.predict_proba(X)).all()


def test_divergence_is_that_of_parameters_and_of_buffers_that_were_finite():
    module = Masked()
    before = finite_buffers(module)
    assert before == set()
    assert not diverged(module, before)
    module.linear.weight.data[0, 0] = torch.nan
    assert diverged(module, before)
    norm = nn.BatchNorm1d(2)
    before = finite_buffers(norm)
    norm.running_var[0] = torch.inf
    assert diverged(norm, before)


def test_weights_go_back_and_forth_with_all_buffers():
    module = nn.Sequential(Rebinding(), nn.BatchNorm1d(2), Extra())
    module[2].linear = nn.Linear(2, 2)
    module(torch.rand(4, 6))
    kept = copy_of_weights(module)
    for _ in range(3):
        module(torch.rand(4, 6))
    module[2].note = "other"
    load_weights(module, kept)
    now = copy_of_weights(module)
    assert now["0.count"] == 1
    assert now["0.seen"].shape == (1,)
    assert module[2].note == "used"
    assert torch.equal(now["1.running_mean"], kept["1.running_mean"])


def test_weights_from_before_a_buffer_was_set_take_it_back():
    module = Late()
    kept = copy_of_weights(module)
    module(torch.rand(2, 6))
    later = copy_of_weights(module)
    load_weights(module, kept)
    assert module.cache is None
    load_weights(module, later)
    assert torch.equal(module.cache, later["cache"])


def test_buffers_that_are_not_saved_survive_a_warm_start():
    clf = make(Rebinding(), selector=None, max_epochs=2, warm_start=True).fit(X, y)
    steps = 2 * 4
    assert clf.net_.module_.count == steps
    assert clf.fit(X, y).net_.module_.count == 2 * steps


def test_an_average_copies_masks_and_follows_buffers_that_are_replaced():
    masked = Masked()
    average = WeightAverage(masked, EMA())
    average.follow(finite_buffers(masked))
    assert torch.equal(average.module.mask, masked.mask)
    module = Rebinding()
    average = WeightAverage(module, EMA(decay=0.5))
    for _ in range(3):
        module(torch.rand(2, 6))
        average.follow(finite_buffers(module))
    assert average.module.seen.shape == (3,)
    assert 0 < average.module.count < 3
    fresh = Rebinding()(torch.rand(2, 6))
    assert fresh.isfinite().all()
