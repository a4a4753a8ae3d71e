"""Trainings that end in time, with their plan complete."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from skorch.callbacks import Callback
from torch import nn

from sklearn_acs import PGD, RobustClassifier
from sklearn_acs.callbacks import best_state
from sklearn_acs.training import cost, course, training
from sklearn_acs.training.schedule import CoresetSchedule, TimedSchedule

X, Y = load_digits(return_X_y=True)
X, Y = (X.reshape(-1, 8, 8) / 16).astype("f4"), Y


class Clock:
    """Goes on only when somebody moves it; examples/benchmarks/budgets.py looks at real ones."""

    now = 0.0

    def __call__(self):
        return Clock.now


class Ticking(nn.Sequential):
    """Takes 20 microseconds a sample, by that clock."""

    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

    def forward(self, x):
        Clock.now += 2e-5 * len(x)
        return super().forward(x)


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    for module in (best_state, cost, course, training):
        monkeypatch.setattr(module, "perf_counter", Clock())


def fit(max_seconds=2.0, n=1_000, **options):
    options = {"attack": PGD(0.1, steps=2), "random_state": 0, "lr": 0.05, **options}
    begun = Clock.now
    clf = RobustClassifier(Ticking, max_seconds=max_seconds, **options).fit(X[:n], Y[:n])
    return clf, Clock.now - begun


@pytest.mark.parametrize(
    "options",
    [
        {"selector": None},
        {"selector": "gradmatch", "select_every": 3},
        {"selector": "random", "n": 1_797, "batch_size": 16},
        {"selector": "infobatch", "warmup_frac": 0.0},
        {"selector": "gradmatch", "early_stopping": True, "n_iter_no_change": None},
        {"selector": None, "n": 60, "attack_ramp": 0.3},
    ],
)
def test_a_fit_ends_in_time_at_a_low_rate(options):
    clf, seconds = fit(**options)
    assert 0.9 * 2 <= seconds <= 1.05 * 2
    rates = clf.history_[:, "lr"]
    assert rates[-1] < 0.2 * max(rates)
    assert "2 seconds of max_seconds" in clf.stop_reason_


def test_phases_take_their_shares_of_the_time():
    clf, _ = fit(selector="gradmatch", coreset_frac=0.25, warmup_frac=0.5, final_full=0.0, select_every=5)
    phases = np.array(clf.history_[:, "phase"])
    assert (phases[: (phases == "full").sum()] == "full").all()
    assert clf.cost_["full"].seconds / clf.cost_.total.seconds == pytest.approx(0.5, abs=0.1)
    n_due = -(-(phases == "coreset").sum() // 5)
    assert 2 <= len(clf.coresets_) <= n_due  # the last may have come too late to be worth it


@pytest.mark.filterwarnings("ignore:the trained model predicts")  # of what little it has seen
def test_a_long_epoch_is_cut():
    clf, seconds = fit(max_seconds=0.1, n=1_797, attack=PGD(0.1, steps=20))
    assert len(clf.history_) == 1
    assert clf.history_[0, "train_batch_count"] < 10
    assert seconds < 0.1 + 21 * 128 * 2e-5  # a batch more


def test_max_epochs_is_only_the_most():
    clf, seconds = fit(max_seconds=60.0, max_epochs=3)
    assert len(clf.history_) == 3
    assert seconds < 1
    assert clf.stop_reason_ is None
    assert clf.history_[-1, "lr"] < 0.5 * max(clf.history_[:, "lr"])


def test_without_a_budget_there_are_30_epochs():
    clf = RobustClassifier("mlp", attack="fgsm", selector=None).fit(X[:60], Y[:60])
    assert len(clf.history_) == 30
    assert clf.max_epochs is None


def test_a_process_that_is_slowed_down_ends_in_time_all_the_same():
    class Slower(Callback):
        def on_batch_end(self, net, **kwargs):
            Clock.now += 0.03 if net.training_.course.progress > 0.4 else 0.0

    clf, seconds = fit(callbacks=[Slower()])
    assert seconds <= 2.1
    assert clf.history_[-1, "lr"] < 0.2 * max(clf.history_[:, "lr"])


def test_a_timed_schedule_has_the_phases_of_the_planned_one():
    planned = CoresetSchedule(40, 0.5, select_every=5, warmup_frac=0.5, final_full=0.125)
    timed = TimedSchedule(planned, 10.0, endless=True)
    assert timed.n_epochs == float("inf")
    # 10 epochs on all data, 15 on coresets of a half, 5 on all data: 22.5 in all.
    found = [timed.phase(0, progress) for progress in (0.0, 9.9 / 22.5, 10.1 / 22.5, 17.4 / 22.5, 17.6 / 22.5, 1.0)]
    assert found == ["full", "full", "coreset", "coreset", "full", "full"]


@pytest.mark.parametrize("seconds", [0, -1.0, "soon", float("nan")])
def test_impossible_budgets_are_refused(seconds):
    with pytest.raises(ValueError, match="max_seconds"):
        fit(max_seconds=seconds)
