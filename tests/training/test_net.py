"""The training step and the loop around it."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from skorch.callbacks import Callback, Checkpoint, EpochScoring, GradientNormClipping
from torch import nn
from torch.utils.data import Dataset

from sklearn_acs import PGD, RobustClassifier

X = (load_digits(n_class=3).images / 16).astype(np.float32)[:96]
y = load_digits(n_class=3).target[:96]


class Record(Callback):
    """Remembers what skorch tells a callback."""

    def __init__(self):
        self.batches, self.lrs, self.modes = [], [], []

    def on_batch_end(self, net, batch=None, loss=None, **kwargs):
        self.batches.append((batch, loss))
        self.lrs.append(net.optimizer_.param_groups[0]["lr"])
        self.modes.append(net.module_.training)


def fit(**params):
    record = Record()
    settings = {"selector": None, "max_epochs": 2, "attack": PGD(steps=2), "batch_size": 32, "random_state": 0}
    settings |= {"averaging": None, "attack_ramp": 0.0}
    return RobustClassifier(**{**settings, **params}, callbacks=[record]).fit(X, y), record


def test_one_epoch_is_the_weighted_mean_loss_and_the_optimisers_step():
    """Against a loop by hand over the same batches, on natural training of a given module."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 3))
    weight_of_class = np.array([0.2, 1.0, 3.0])
    record = Record()
    clf = RobustClassifier(
        module, objective="natural", selector=None, max_epochs=1, lr=0.05, lr_schedule="constant", callbacks=[record]
    )
    clf.set_params(averaging=None, batch_size=32, random_state=0).fit(X, y, sample_weight=weight_of_class[y])

    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    factors = torch.tensor(weight_of_class / weight_of_class[y].mean(), dtype=torch.float32)
    assert len(record.batches) == 3
    for (x, labels), loss in record.batches:
        by_hand = (factors[labels] * nn.functional.cross_entropy(module(x), labels, reduction="none")).mean()
        torch.testing.assert_close(by_hand.detach(), loss)
        optimizer.zero_grad()
        by_hand.backward()
        optimizer.step()
    for mine, theirs in zip(module.parameters(), clf.net_.module_.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_training_runs_in_train_mode_although_attacks_run_in_eval_mode():
    _, record = fit()
    assert all(record.modes)


def test_batchnorm_learns_from_training_alone():
    """One running-statistics update per step and branch; attacks and selections leave none."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
    for objective, branches in (("adversarial", 1), ("trades", 2)):
        clf, record = fit(module=module, objective=objective, selector="craig", max_epochs=4)
        assert clf.net_.module_[2].num_batches_tracked == branches * len(record.batches)


def test_the_learning_rate_follows_the_schedule_over_the_steps_really_taken():
    _, record = fit(selector="gradmatch", max_epochs=8, lr_schedule="cosine", lr=0.04)
    steps = len(record.lrs)
    assert steps == 2 * 3 + 4 * 2  # full epochs of 3 batches, coreset epochs of 2
    expected = [0.02 * (1 + np.cos(np.pi * (step + 0.5) / steps)) for step in range(1, steps)]
    np.testing.assert_allclose(record.lrs[:-1], expected, rtol=1e-6)


@pytest.mark.parametrize("select_by", ["sample", "class", "batch"])
@pytest.mark.parametrize(("n", "batch_size", "frac"), [(96, 20, 0.3), (90, 32, 0.37), (66, 32, 0.5), (95, 7, 0.6)])
def test_a_schedule_ends_with_the_last_step_whatever_the_coreset(select_by, n, batch_size, frac):
    """33 samples are one batch of 32 and one left over, which joins it; coresets of batches differ in size."""
    record = Record()
    params = {"select_by": select_by, "coreset_frac": frac, "select_every": 2, "batch_size": batch_size}
    clf = RobustClassifier(max_epochs=8, objective="natural", lr=1.0, callbacks=[record], **params)
    clf.set_params(lr_schedule=lambda progress: 1 - progress, lr=0.01, random_state=0).fit(X[:n], y[:n])
    steps = len(record.lrs)
    last = record.lrs[-2] / 0.01  # the last step's factor, set after the last but one
    assert last == pytest.approx(0.5 / steps, rel=0.35)
    falls = -np.diff(record.lrs[:-1]) / 0.01
    assert falls.min() > -0.02  # a larger coreset than planned sets the schedule back a little
    if select_by == "sample":
        np.testing.assert_allclose(falls, 1 / steps, rtol=1e-4)


def test_a_schedule_of_ones_own_gets_the_share_of_training_done():
    _, record = fit(lr_schedule=lambda progress: 1 - progress, lr=0.1)
    assert record.lrs[:-1] == pytest.approx([0.1 * (1 - (step + 0.5) / 6) for step in range(1, 6)])


def test_skorch_callbacks_see_history_and_losses_as_numbers():
    scoring = EpochScoring("accuracy", name="accuracy", on_train=True, lower_is_better=False)
    clf = RobustClassifier(max_epochs=4, attack__steps=1, callbacks=[("accuracy", scoring)], random_state=0).fit(X, y)
    assert 0.2 < clf.history_[-1, "accuracy"] <= 1
    assert all(isinstance(loss, float) for loss in clf.history_[-1, "batches", :, "train_loss"])


@pytest.mark.parametrize("norm", [1e-3, 0.05])
def test_skorchs_callback_clips_the_gradient_norm(norm):
    class Norms(Callback):
        def on_train_begin(self, net, **kwargs):
            self.steps = []

        def on_batch_begin(self, net, **kwargs):
            self.before = [value.detach().clone() for value in net.module_.parameters()]

        def on_batch_end(self, net, **kwargs):
            moved = zip(net.module_.parameters(), self.before, strict=True)
            self.steps.append(torch.cat([(now.detach() - was).flatten() for now, was in moved]).norm().item())

    norms = Norms()
    clf = RobustClassifier(callbacks=[("clip", GradientNormClipping(norm)), norms], lr=1.0, lr_schedule="constant")
    clf.set_params(optimizer=torch.optim.SGD, selector=None, max_epochs=2, attack=PGD(steps=2), random_state=0)
    steps = clf.fit(X, y) and norms.steps
    assert max(steps) == pytest.approx(norm, rel=1e-3)
    clf.set_params(callbacks__clip__gradient_clip_value=None).fit(X, y)
    assert max(norms.steps) > 2 * norm


def test_keyboard_interrupt_leaves_a_usable_classifier():
    class Stop(Callback):
        def on_epoch_end(self, net, **kwargs):
            raise KeyboardInterrupt

    clf = RobustClassifier(max_epochs=10, attack__steps=1, callbacks=[Stop()], random_state=0).fit(X, y)
    assert len(clf.history_) == 1
    assert clf.predict(X).shape == y.shape


def test_an_epoch_cut_short_leaves_no_half_row_and_training_can_go_on():
    class Stop(Callback):
        def on_batch_end(self, net, **kwargs):
            if len(net.history) == 2:
                raise KeyboardInterrupt

    clf = RobustClassifier(max_epochs=10, attack__steps=1, callbacks=[Stop()], random_state=0).fit(X, y)
    assert len(clf.history_[:, "train_loss"]) == 1
    clf.set_params(callbacks=None).partial_fit(X, y)
    assert len(clf.history_[:, "train_loss"]) == 2


class Broken(Dataset):
    """Samples of which one cannot be read."""

    def __init__(self, labels, error=KeyboardInterrupt, at=40):
        self.labels, self.error, self.at = labels, error, at

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        if i == self.at:
            raise self.error("no more")
        return torch.from_numpy(X[i]), self.labels[i]


def state_of(clf):
    return {name: value.tolist() for name, value in clf.net_.module_.state_dict().items()}


def test_an_interrupt_before_training_leaves_everything_as_it_was():
    clf, _ = fit()
    before = clf.decision_function(X)
    with pytest.raises(KeyboardInterrupt):
        clf.fit(Broken(["a", "b"] * (len(X) // 2)))
    np.testing.assert_array_equal(clf.classes_, [0, 1, 2])
    np.testing.assert_array_equal(clf.decision_function(X), before)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_partial_fit_that_fails_leaves_everything_as_it_was(optimizer):
    def after(*data):
        clf = RobustClassifier(selector=None, optimizer=optimizer, batch_size=32, random_state=0).partial_fit(X, y)
        for each in data:
            try:
                clf.partial_fit(each, None if isinstance(each, Dataset) else y)
            except OSError:
                assert len(clf.history_) == len(clf.net_.history) == 1
        return clf

    failed, never = after(Broken(y, OSError), X), after(X)
    assert state_of(failed) == state_of(never)
    assert len(failed.history_) == 2


def test_another_optimiser_begins_anew():
    clf = RobustClassifier(selector=None, optimizer="sgd", batch_size=32, random_state=0).partial_fit(X, y)
    for optimizer in ("adam", "sgd", torch.optim.LBFGS, torch.optim.LBFGS):
        clf.set_params(optimizer=optimizer, lr=0.01).partial_fit(X, y)
        assert np.isfinite(clf.decision_function(X)).all()
    clf.set_params(optimizer="adam", optimizer__amsgrad=False).partial_fit(X, y)
    clf.set_params(optimizer__amsgrad=True).partial_fit(X, y)
    assert len(clf.history_) == 7


def test_lbfgs_does_not_go_with_scaled_losses():
    with pytest.raises(ValueError, match="LBFGS"):
        fit(optimizer=torch.optim.LBFGS, lr=0.1, precision="fp16")


@pytest.mark.parametrize("early_stopping", [False, True])
def test_skorchs_checkpoint_loads_the_best_state(early_stopping, tmp_path):
    class Rows(Callback):
        """What the history has when training ends."""

        def on_train_end(self, net, **kwargs):
            self.rows = [dict(row) for row in net.history]

    rows = Rows()
    clf = RobustClassifier(
        selector=None, max_epochs=9, early_stopping=early_stopping, n_iter_no_change=2, batch_size=32, random_state=0
    )
    checkpoint = Checkpoint(monitor=lambda net: len(net.history) == 2, dirname=tmp_path, load_best=True)
    clf.set_params(callbacks=[checkpoint, rows]).fit(X, y)
    assert all("train_loss" in row for row in rows.rows)
    assert clf.history_ is clf.net_.history
    assert len(clf.history_) == 2


def test_an_interrupt_within_a_diverging_epoch_leaves_weights_that_are_numbers():
    class Interrupt(Callback):
        def on_batch_end(self, net, **kwargs):
            if len(net.history[-1]["batches"]) == 3:
                raise KeyboardInterrupt

    clf = RobustClassifier(selector=None, lr=1e12, lr_schedule="constant", batch_size=16, random_state=0)
    clf.set_params(callbacks=[Interrupt()]).fit(X, y)
    assert np.isfinite(clf.decision_function(X)).all()
