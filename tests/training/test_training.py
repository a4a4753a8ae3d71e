"""A training: it can be stopped, interrupted, and gone on with from its state to the same bits."""

import signal
import threading
import warnings
from copy import deepcopy

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from skorch.callbacks import Callback, EarlyStopping
from torch import nn

from sklearn_acs import (
    PGD,
    BulletTrain,
    CollapseGuard,
    Dynamics,
    InBatchSelection,
    RandomSelector,
    RobustClassifier,
    StabilityTracker,
)
from sklearn_acs.data.training_data import TrainingData
from sklearn_acs.plan import Plan
from sklearn_acs.training.cost import CostMeter
from sklearn_acs.training.seeds import LocalRandomness
from sklearn_acs.training.selection import Selection
from sklearn_acs.training.weights import weights_of

DIGITS = load_digits(n_class=3)
X, y = (DIGITS.images / 16).astype(np.float32)[:128], DIGITS.target[:128]
EPOCHS = 8


def make(**params) -> RobustClassifier:
    defaults = {"max_epochs": EPOCHS, "batch_size": 32, "attack": PGD(eps=0.15, steps=2), "random_state": 0}
    return RobustClassifier(**{**defaults, "coreset_frac": 0.5, "select_every": 2, **params})


def training_of(clf: RobustClassifier):
    plan = Plan.of(clf.get_params(deep=False))
    randomness = LocalRandomness(plan.seeds.model, plan.device)
    data = TrainingData.read(X, y, None, clip=clf.clip)
    return plan.settled(data).training(data, None, None, randomness, CostMeter())


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class At(Callback):
    """Calls a function when an epoch ends, or begins."""

    def __init__(self, epoch, call, event="on_epoch_end"):
        self.epoch, self.call = epoch, call
        setattr(self, event, lambda net, **kwargs: len(net.history) == epoch and call(net))


def raise_interrupt(net):
    raise KeyboardInterrupt


def press_ctrl_c(net):
    signal.raise_signal(signal.SIGINT)


# Going on from a state

DROPOUT = nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(), nn.Linear(24, 3))
REMEMBERING = PGD(eps=0.15, steps=1, init="previous")

CONFIGURATIONS = {
    "gradmatch": {},
    "craig by class": {"selector": "craig", "select_by": "class"},
    "glister": {"selector": "glister"},
    "random, drawing from a state of its own": {"selector": RandomSelector(random_state=3)},
    "dropout": {"module": DROPOUT},
    "adam, cosine": {"optimizer": "adam", "lr_schedule": "cosine"},
    "trades, averaged": {"objective": "trades", "averaging": "ema"},
    "remembered steps, augmented": {"attack": REMEMBERING, "augment": "crop-flip"},
    "gradients of training": {"selection_gradients": "last"},
    "bullet": {"attack": BulletTrain(PGD(eps=0.15, steps=2))},
    "adaptive in-batch selection": {"in_batch": InBatchSelection("adaptive")},
    "early stopping": {"early_stopping": True},
    "early stopping that stops": {"early_stopping": True, "n_iter_no_change": 1, "max_epochs": 30, "lr": 0.5},
    "float16": {"precision": "fp16"},
    "fast, guarded": {"objective": "fast", "attack": None},
    "callbacks": {"callbacks": [StabilityTracker(), Dynamics(n_samples=20), CollapseGuard()]},
}

AT_OTHER_EPOCHS = [
    ("gradmatch", 0),
    ("early stopping that stops", -1),
    ("adaptive in-batch selection", -1),
    ("fast, guarded", 1),
    ("remembered steps, augmented", -2),
]


WITHIN_EPOCHS = [
    ("selection", "gradmatch", 0),
    ("selection", "random, drawing from a state of its own", 1),
    *(("batch", name, 8) for name in CONFIGURATIONS if "stops" not in name),
    ("batch", "callbacks", 3),  # the last one of an epoch
    ("batch", "fast, guarded", 0),
]


@pytest.mark.parametrize(
    ("after", "name", "at"),
    [
        *(("epoch", name, 4) for name in CONFIGURATIONS if "stops" not in name),
        *(("epoch", *each) for each in AT_OTHER_EPOCHS),
        *WITHIN_EPOCHS,
    ],
)
def test_a_training_that_goes_on_from_its_state_ends_with_the_same_bits(after, name, at):
    clf = make(**CONFIGURATIONS[name])
    states, callbacks = [], CONFIGURATIONS[name].get("callbacks", [])
    whole = training_of(clone(clf).set_params(callbacks=deepcopy(callbacks)))
    whole.run(lambda training, done: done == after and states.append(deepcopy(training.state_dict())))
    assert whole.epochs_done >= 3
    assert after != "epoch" or whole.epochs_done == len(states)

    rest = training_of(clone(clf).set_params(callbacks=deepcopy(callbacks)))
    rest.load_state_dict(states[at])
    rest.run()
    for one, other in zip(whole.weights(), rest.weights(), strict=True):
        assert same(one, other)
    assert rest.stop_reason == whole.stop_reason
    for one, other in zip(whole.net.history, rest.net.history, strict=True):
        np.testing.assert_equal({**other, "seconds": 0}, {**one, "seconds": 0})  # NaN is equal to NaN
    assert rest.coresets.keys() == whole.coresets.keys()
    for epoch, coreset in whole.coresets.items():
        np.testing.assert_array_equal(rest.coresets[epoch].indices, coreset.indices)
        np.testing.assert_array_equal(rest.coresets[epoch].weights, coreset.weights)
    for phase in ("full", "selection", "coreset"):
        assert rest.meter.cost[phase].forwards == whole.meter.cost[phase].forwards
    assert (rest.best is None) == (whole.best is None)
    assert rest.best is None or (rest.best.epoch, rest.best.score) == (whole.best.epoch, whole.best.score)
    for (_, one), (_, other) in zip(whole.net.callbacks_, rest.net.callbacks_, strict=True):
        if isinstance(one, StabilityTracker):
            np.testing.assert_array_equal(other.times_wrong_, one.times_wrong_)
        if isinstance(one, Dynamics):
            assert other.table_.rows == one.table_.rows


def test_the_state_is_made_of_those_of_its_members():
    training = training_of(make(averaging="ema", attack=REMEMBERING, selection_gradients="last"))
    members = {"attack", "average", "batches", "cost", "course", "memory", "randomness", "scaler", "selection"}
    assert members <= training.state_dict().keys()
    assert same(training.state_dict()["weights"], weights_of(training.module))


@pytest.mark.parametrize(("then", "now"), [("bf16", "fp32"), ("fp32", "bf16")])
def test_a_training_goes_on_in_the_precision_that_it_began_in(then, now):
    params, states = {"module": "convnet", "averaging": "ema", "max_epochs": 4}, []
    whole = training_of(make(precision=then, **params))
    whole.run(lambda training, done: states.append(deepcopy(training.state_dict())) if len(states) < 9 else None)
    rest = training_of(make(precision=now, **params))
    rest.load_state_dict(states[-1])
    assert rest.precision == then
    rest.run()
    assert all(same(one, other) for one, other in zip(whole.weights(), rest.weights(), strict=True))


def test_a_state_can_be_had_before_training_and_leads_to_the_same_bits():
    params = {"early_stopping": True, "in_batch": InBatchSelection("adaptive"), "callbacks": [CollapseGuard()]}
    whole, rest = training_of(make(**params)), training_of(make(**params))
    rest.load_state_dict(deepcopy(whole.state_dict()))
    whole.run()
    rest.run()
    assert all(same(one, other) for one, other in zip(whole.weights(), rest.weights(), strict=True))


def test_a_training_runs_once():
    training = training_of(make(max_epochs=2))
    training.run()
    for again in (training.run, training.state_dict):
        with pytest.raises(RuntimeError, match="this training is over"):
            again()


def test_a_training_that_has_run_holds_no_data():
    clf = make(attack=REMEMBERING, early_stopping=True).fit(X, y)
    training = clf.net_.training_
    assert not hasattr(training, "batches")
    assert training.held_out is training.memory is training.selection is None
    assert training.net.step_.adversary.memory is None


# Stopping


def test_stop_ends_the_training_when_all_callbacks_have_seen_the_epoch():
    seen = []
    last = At(3, lambda net: seen.append(net.history[-1, "epoch"]))
    clf = make(callbacks=[At(3, lambda net: net.training_.stop("enough")), last]).fit(X, y)
    assert (len(clf.history_), seen, clf.stop_reason_, clf.interrupted_) == (3, [3], "enough", False)


def test_the_first_reason_counts():
    calls = [At(2, lambda net, reason=reason: net.training_.stop(reason)) for reason in ("one", "other")]
    assert make(callbacks=calls).fit(X, y).stop_reason_ == "one"


def test_stop_amid_an_epoch_drops_the_epoch():
    class AtBatch(Callback):
        def on_batch_end(self, net, **kwargs):
            if len(net.history) == 3:
                net.training_.stop("enough")

    clf = make(callbacks=[AtBatch()]).fit(X, y)
    assert clf.history_[:, "epoch"] == [1, 2]
    assert clf.stop_reason_ == "enough"


def test_a_whole_training_has_no_reason_to_stop():
    clf = make(max_epochs=3).fit(X, y)
    assert clf.stop_reason_ is None
    assert not clf.interrupted_


@pytest.mark.parametrize("event", ["on_epoch_end", "on_epoch_begin"])
def test_a_callback_that_raises_keyboard_interrupt_only_stops_the_training(event):
    clf = make(callbacks=[At(4, raise_interrupt, event)]).fit(X, y)
    assert len(clf.history_) == (4 if event == "on_epoch_end" else 3)
    assert not clf.interrupted_
    assert "callback" in clf.stop_reason_


def test_skorchs_early_stopping_ends_a_fit_that_returns():
    stopping = EarlyStopping(
        monitor="train_loss", patience=2, threshold=10.0, threshold_mode="abs", sink=lambda _: None
    )
    clf = make(callbacks=[stopping]).fit(X, y)
    assert len(clf.history_) < clf.schedule_.n_epochs
    assert not clf.interrupted_


# Ctrl-C


def test_ctrl_c_after_an_epoch_leaves_a_usable_classifier_and_is_raised_again():
    clf = make(callbacks=[At(3, press_ctrl_c, "on_epoch_begin")])
    with pytest.warns(UserWarning, match=r"interrupted in epoch 3 of 6"), pytest.raises(KeyboardInterrupt):
        clf.fit(X, y)
    assert clf.interrupted_
    assert clf.history_[:, "epoch"] == [1, 2]
    assert clf.predict(X).shape == y.shape
    assert not clf.net_.module_.training


def test_ctrl_c_before_an_epoch_is_over_leaves_the_classifier_as_it_was():
    clf = make(attack=PGD(eps=0.1, steps=1)).fit(X, y)
    before, accuracy, interrupt = vars(clf).copy(), clf.score(X, y), At(1, press_ctrl_c, "on_epoch_begin")
    clf.set_params(callbacks=[interrupt])
    with warnings.catch_warnings(), pytest.raises(KeyboardInterrupt):
        warnings.simplefilter("error")
        clf.fit(X, y)
    assert vars(clf) == {**before, "callbacks": [interrupt]}
    assert clf.score(X, y) == accuracy


def test_ctrl_c_before_an_epoch_is_over_leaves_nothing_fitted():
    clf = make(callbacks=[At(1, press_ctrl_c, "on_epoch_begin")])
    with pytest.raises(KeyboardInterrupt):
        clf.fit(X, y)
    assert not [name for name in vars(clf) if name.endswith("_") and not name.startswith("__")]


def test_ctrl_c_when_training_ends_lets_it_end_in_order():
    class AtEnd(Callback):
        def on_train_end(self, net, **kwargs):
            press_ctrl_c(net)

    plain = make(averaging="ema", max_epochs=3).fit(X, y)
    clf = make(averaging="ema", max_epochs=3, callbacks=[AtEnd()])
    with pytest.warns(UserWarning, match="interrupted in epoch"), pytest.raises(KeyboardInterrupt):
        clf.fit(X, y)
    assert clf.interrupted_
    assert same(clf.net_.module_.state_dict(), plain.net_.module_.state_dict())
    assert not clf.net_.module_.training


def test_a_coreset_of_an_epoch_that_is_not_over_is_not_told_of():
    interrupt = At(3, press_ctrl_c, "on_epoch_begin")
    clf = make(warmup_frac=0.0, select_every=1, callbacks=[interrupt])
    with pytest.warns(UserWarning, match="interrupted in epoch 3"), pytest.raises(KeyboardInterrupt):
        clf.fit(X, y)
    assert list(clf.coresets_) == [0, 1]


def test_ctrl_c_in_the_first_selection_is_what_is_raised(monkeypatch):
    monkeypatch.setattr(Selection, "select", lambda *given: press_ctrl_c(None))
    for params in ({"in_batch": InBatchSelection(0.5)}, {"early_stopping": True}, {"callbacks": [CollapseGuard()]}):
        with pytest.raises(KeyboardInterrupt):
            make(warmup_frac=0.0, **params).fit(X, y)


@pytest.mark.filterwarnings("ignore:eps=0.15 is")  # the margins of digits hardly vary
def test_a_refit_forgets_what_only_the_data_before_had():
    pandas = pytest.importorskip("pandas")
    table = X.reshape(len(X), -1)[:, :4]
    clf = make(max_epochs=1).fit(pandas.DataFrame(table, columns=["a", "b", "c", "d"]), y)
    assert clf.feature_names_in_.tolist() == ["a", "b", "c", "d"]
    clf.fit(table[:, :3], y)
    assert (clf.n_features_in_, hasattr(clf, "feature_names_in_")) == (3, False)
    assert not hasattr(clf.fit(X, y), "n_features_in_")


def test_the_handler_of_sigint_is_the_one_before():
    before = signal.getsignal(signal.SIGINT)
    make(max_epochs=2).fit(X, y)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_fit_in_another_thread_is_stopped_by_its_callbacks():
    clf = make(callbacks=[At(2, raise_interrupt)])
    thread = threading.Thread(target=clf.fit, args=(X, y))
    thread.start()
    thread.join()
    assert len(clf.history_) == 2


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_fit_that_fails_assigns_only_epochs_that_are_over(epoch):
    def fail(net):
        raise ZeroDivisionError

    clf = make(callbacks=[At(epoch, fail, "on_epoch_begin")])
    with pytest.raises(ZeroDivisionError):
        clf.fit(X, y)
    assert hasattr(clf, "net_") == (epoch > 1)
    assert epoch == 1 or len(clf.history_) == epoch - 1


# Gradients


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_a_fit_in_inference_mode_is_a_fit(mode):
    plain = make(max_epochs=3).fit(X, y)
    with mode():
        clf = make(max_epochs=3).fit(X, y)
        scores = clf.robust_score(X, y), clf.perturb(X[:9], y[:9])
    assert same(clf.net_.module_.state_dict(), plain.net_.module_.state_dict())
    assert scores[0] == plain.robust_score(X, y)
    np.testing.assert_array_equal(scores[1], plain.perturb(X[:9], y[:9]))
    assert not clf.net_.module_[0].weight.is_inference() if hasattr(clf.net_.module_[0], "weight") else True


def test_after_fit_the_module_is_in_eval_mode():
    for params in ({}, {"averaging": "ema"}, {"early_stopping": True}):
        net = make(max_epochs=3, **params).fit(X, y).net_
        assert not any(module.training for whole in (net.module_, net.raw_module_) for module in whole.modules())
