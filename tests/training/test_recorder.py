"""Gradients that training steps leave behind for the next selection."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from skorch.callbacks import Callback
from torch import nn

from sklearn_acs import PGD, InBatchSelection, RobustClassifier
from sklearn_acs.gradients import batch_factors

X = (load_digits(n_class=4).images / 16).astype(np.float32)[:240]
y = load_digits(n_class=4).target[:240]


def fit(**params):
    settings = {"attack": PGD(0.15, steps=3), "selection_gradients": "last", "max_epochs": 8, "random_state": 0}
    settings |= {"coreset_frac": 0.5, "averaging": None, "attack_ramp": 0.0}
    return RobustClassifier(**{**settings, **params}).fit(X, y)


class Watch(Callback):
    """Recomputes the factors of each batch, before the optimiser's step has changed the weights."""

    def __init__(self):
        self.expected, self.found = {}, None

    def on_epoch_begin(self, net, **kwargs):
        training = net.training_
        self.recorder, self.begins = net.step_.recorder, training.schedule.selects(training.epochs_done)

    def on_grad_computed(self, net, **kwargs):
        self.at_step = {name: value.clone() for name, value in net.module_.state_dict().items()}

    def on_batch_end(self, net, trained=None, inputs=None, **kwargs):
        if self.recorder is None:
            return
        now = {name: value.clone() for name, value in net.module_.state_dict().items()}
        net.module_.load_state_dict(self.at_step)
        layer = self.recorder.layer
        for b, (g, h1) in enumerate(batch_factors(net.module_, layer, net.criterion_.loss, inputs, trained.y)):
            for row, *factors in zip(trained.rows.tolist(), g, h1, strict=True):
                self.expected[b, row] = factors
        net.module_.load_state_dict(now)

    def on_epoch_end(self, net, **kwargs):
        if self.recorder is not None and self.recorder.complete and self.found is None:
            self.found = self.recorder.gradients(torch.full((len(X),), 2.0))


@pytest.mark.parametrize("objective", ["natural", "adversarial", "trades", "mart"])
def test_they_are_those_of_the_training_step(objective):
    watch = Watch()
    fit(objective=objective, callbacks=[watch], max_epochs=4, warmup_frac=0.5)
    for b, (g, h1) in enumerate(watch.found.branches):
        expected = [watch.expected[b, row] for row in range(len(X))]
        torch.testing.assert_close(g, 2 * torch.stack([g for g, _ in expected]), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(h1, torch.stack([h for _, h in expected]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("selector", ["gradmatch", "craig"])
def test_a_selection_then_costs_no_pass(selector):
    clf = fit(selector=selector, max_epochs=16, select_every=4)
    assert len(clf.coresets_) == 2
    assert clf.cost_["selection"].forwards == clf.cost_["selection"].backwards == 0
    assert clf.robust_score(X, y) > 0.5
    assert all(0 < coreset.error < 0.5 for coreset in clf.coresets_.values())


def test_training_itself_is_the_same_bits():
    """Until the first selection, and after it with a selector that does not look at gradients."""
    last, fresh = (fit(selector="random", selection_gradients=how) for how in ("last", "fresh"))
    np.testing.assert_array_equal(last.decision_function(X), fresh.decision_function(X))
    first = fit(selection_gradients="fresh").history_[: fit().schedule_.full_epochs, "train_loss"]
    assert fit().history_[: len(first), "train_loss"] == first


def test_a_selection_before_all_samples_were_seen_is_fresh():
    clf = fit(warmup_frac=0.0, select_every=4)
    assert clf.cost_["selection"].backwards == 3 * len(X) * len(clf.coresets_)


def test_a_layer_without_bias_and_shared_batch_statistics():
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4, bias=False))
    assert fit(module=module, objective="trades").cost_["selection"].forwards == 0


def test_in_batch_selection_leaves_samples_without_gradients():
    with pytest.raises(ValueError, match="selection_gradients='last' takes gradients from training steps"):
        fit(in_batch=InBatchSelection(0.5))
