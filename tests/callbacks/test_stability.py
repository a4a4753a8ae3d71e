"""Learning stability: counts against a loop by hand, ranks over runs, and rows of the X that was given."""

import pickle

import numpy as np
import pytest
import torch
from scipy.stats import rankdata
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from skorch.callbacks import Callback
from torch.utils.data import TensorDataset

from sklearn_acs import PGD, RobustClassifier, ScoreSelector, StabilityTracker
from sklearn_acs.callbacks.stability import smallest_adversarial

X = (load_digits(n_class=4).images / 16).astype(np.float32)[:80]
y = load_digits(n_class=4).target[:80]


def fit(callbacks, X=X, y=y, sample_weight=None, **params):
    settings = {"selector": None, "max_epochs": 3, "attack": PGD(eps=0.2, steps=2), "batch_size": 32, "random_state": 0}
    return RobustClassifier(**{**settings, **params}, callbacks=callbacks).fit(X, y, sample_weight)


class ByHand(Callback):
    """Counts sample by sample."""

    def __init__(self):
        self.seen, self.wrong = np.zeros(len(X), dtype=int), np.zeros(len(X), dtype=int)

    def on_batch_end(self, net, trained=None, y_pred=None, **kwargs):
        for row, label, logits in zip(trained.rows.tolist(), trained.y.tolist(), y_pred.tolist(), strict=True):
            self.seen[row] += 1
            self.wrong[row] += label != max(range(4), key=logits.__getitem__)


@pytest.mark.parametrize("objective", ["natural", "adversarial", "trades"])
@pytest.mark.parametrize("selector", [None, "gradmatch"])
def test_counts_are_those_of_a_loop_by_hand(objective, selector):
    tracker, by_hand = StabilityTracker(), ByHand()
    fit([tracker, by_hand], objective=objective, selector=selector, select_every=1, warmup_frac=0.4)
    np.testing.assert_array_equal(tracker.times_seen_, [by_hand.seen])
    np.testing.assert_array_equal(tracker.times_wrong_, [by_hand.wrong])
    assert 0 < by_hand.wrong.sum() < by_hand.seen.sum()
    assert (by_hand.seen.min() < by_hand.seen.max()) == (selector is not None)


def test_what_counts_is_the_adversarial_example_of_the_training_step():
    """With a learning rate near 0 the model stands still, so that its clean predictions are known."""
    trained = fit(None, objective="natural", max_epochs=20)
    still = {"lr": 1e-12, "module": trained.net_.module_, "max_epochs": 1}
    natural, adversarial = StabilityTracker(), StabilityTracker()
    fit([natural], objective="natural", **still)
    fit([adversarial], objective="adversarial", attack=PGD(eps=0.3, steps=5), **still)
    np.testing.assert_array_equal(natural.times_wrong_[0], trained.predict(X) != y)
    assert adversarial.times_wrong_.sum() > natural.times_wrong_.sum() + 20


def test_scores_are_ranks_averaged_over_runs():
    tracker = StabilityTracker()
    for seed in (0, 1, 2):
        fit([tracker], random_state=seed)
    assert tracker.n_runs_ == 3
    assert tracker.times_wrong_.shape == (3, 80)
    np.testing.assert_allclose(tracker.scores_, np.mean([rankdata(wrong) for wrong in tracker.times_wrong_], axis=0))
    np.testing.assert_allclose(tracker.scores_.mean(), 81 / 2)


def test_ranks_go_by_the_share_of_wrong_epochs_and_ties_share_theirs():
    tracker = StabilityTracker()
    tracker.runs_ = [np.array([[4, 2, 3, 4, 0, 1], [2, 1, 0, 4, 0, 0]])]  # shares 1/2, 1/2, 0, 1, -, 0
    np.testing.assert_array_equal(tracker.scores_, [3.5, 3.5, 1.5, 5.0, 3.0, 1.5])


@pytest.mark.parametrize("given", ["array", "dataset"])
def test_everything_is_aligned_with_x_where_samples_of_weight_zero_are_left_out(given):
    weight = (np.arange(80) % 3 > 0).astype(float)
    data = (X, y) if given == "array" else (TensorDataset(torch.from_numpy(X), torch.from_numpy(y)), None)
    tracker, alone = StabilityTracker(), StabilityTracker()
    fit([tracker], *data, sample_weight=weight)
    fit([alone], X[weight > 0], y[weight > 0])
    np.testing.assert_array_equal(tracker.times_seen_[0], np.where(weight > 0, 3, 0))
    np.testing.assert_array_equal(tracker.times_wrong_[0, weight > 0], alone.times_wrong_[0])
    np.testing.assert_array_equal(tracker.scores_[weight > 0], alone.scores_)
    np.testing.assert_array_equal(tracker.scores_[weight == 0], (weight.sum() + 1) / 2)

    clf = fit(None, *data, sample_weight=weight, selector=ScoreSelector(scores=tracker.scores_, order="lowest"))
    assert weight[clf.coreset_.indices].all()


def test_the_most_stable_samples_are_what_is_trained_on():
    tracker = StabilityTracker()
    fit([tracker], max_epochs=6)
    stable = ScoreSelector(scores=tracker.scores_, order="lowest")
    clf = fit(None, selector=stable, select_by="sample", coreset_frac=0.25)
    np.testing.assert_array_equal(clf.coreset_.indices, np.argsort(tracker.scores_, kind="stable")[:20])


def test_an_epoch_cut_short_does_not_count_and_a_run_without_an_epoch_is_none():
    class Stop(Callback):
        def __init__(self, epoch):
            self.epoch = epoch

        def on_batch_end(self, net, **kwargs):
            if len(net.history) == self.epoch:
                raise KeyboardInterrupt

    tracker = StabilityTracker()
    fit([tracker, Stop(1)])
    assert tracker.n_runs_ == 0
    fit([tracker, Stop(3)])
    np.testing.assert_array_equal(tracker.times_seen_, 2)
    fit([tracker])
    np.testing.assert_array_equal(tracker.times_seen_.mean(1), [2, 3])


def test_other_samples_need_another_tracker():
    tracker = StabilityTracker()
    fit([tracker])
    with pytest.raises(ValueError, match="trainings on 80 samples, and X has 40"):
        fit([tracker], X[:40], y[:40])


def test_before_any_run_there_are_no_scores():
    for name in ("scores_", "times_seen_", "times_wrong_"):
        with pytest.raises(NotFittedError, match=r"callbacks=\[tracker\]"):
            getattr(StabilityTracker(), name)
    assert StabilityTracker().n_runs_ == 0


def test_it_survives_pickling_and_a_clone_begins_anew():
    tracker = StabilityTracker()
    clf = fit([tracker])
    again = pickle.loads(pickle.dumps(clf))
    np.testing.assert_array_equal(again.callbacks[0].scores_, tracker.scores_)
    assert clone(clf).callbacks[0].n_runs_ == 0


# The smallest adversarial share


class Threshold(torch.nn.Module):
    """Class 1 from 0.5 on."""

    def forward(self, x):
        return torch.cat([0.5 - x, x - 0.5], dim=1)


def test_smallest_adversarial_share_is_found_to_an_eighth():
    x = torch.tensor([[0.6], [0.1], [0.1], [0.1], [0.4]])
    x_adv = torch.tensor([[0.9], [0.4], [0.9], [0.51], [0.6]])  # crosses at: at once, never, 0.5, 0.976, 0.5
    y = torch.zeros(5, dtype=torch.long)
    x_adv[2] += 1e-4
    x_adv[4] += 1e-4
    assert smallest_adversarial(Threshold(), x, x_adv, y).tolist() == [0, 1, 0.5, 1, 0.5]
    assert smallest_adversarial(Threshold(), x, x_adv, y, halvings=7)[3].item() == 125 / 128


def test_minimum_is_the_mean_over_the_epochs_a_sample_was_seen_in():
    tracker = StabilityTracker(minimum=True)
    clf = fit([tracker], selector="random", select_every=1, warmup_frac=0.4)
    seen = tracker.times_seen_ > 0
    assert np.array_equal(np.isnan(tracker.minimum_), ~seen)
    found = tracker.minimum_[seen]
    assert found.min() >= 0
    assert found.max() <= 1
    assert 0.2 < found.mean() < 0.9
    assert clf.cost_["checks"].forwards == 5 * tracker.times_seen_.sum()
    assert clf.cost_["checks"].backwards == 0


def test_minimum_does_not_change_the_training():
    plain, watched = fit([StabilityTracker()]), fit([StabilityTracker(minimum=True)])
    for mine, theirs in zip(plain.net_.module_.parameters(), watched.net_.module_.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_minimum_has_to_be_asked_for():
    tracker = StabilityTracker()
    fit([tracker])
    with pytest.raises(AttributeError, match="minimum=True"):
        _ = tracker.minimum_
