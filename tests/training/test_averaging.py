"""Averaged weights: the recursion by hand, who uses which weights, and what happens to both at every kind of end."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from skorch.callbacks import Callback
from torch import nn

from sklearn_acs import EMA, PGD, CollapseGuard, RobustClassifier, evaluate, robust_accuracy
from sklearn_acs.training.averaging import WeightAverage
from sklearn_acs.training.weights import finite_buffers

X = (load_digits(n_class=3).images / 16).astype(np.float32)[:96]
y = load_digits(n_class=3).target[:96]


class Tied(nn.Module):
    """BatchNorm, dropout, a buffer of integers, a frozen weight, and one weight under two names."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(64, 24)
        self.norm = nn.BatchNorm1d(24)
        self.drop = nn.Dropout(0.1)
        self.last = nn.Linear(24, 3)
        self.again = self.last
        self.scale = nn.Parameter(torch.full((1,), 2.0), requires_grad=False)
        self.register_buffer("seen", torch.zeros(2, dtype=torch.long))

    def forward(self, x):
        if self.training:
            self.seen += torch.tensor([1, len(x)])
        return self.last(self.drop(self.norm(self.first(self.scale * x.flatten(1)))).relu())


class Trace(Callback):
    """Copies the weights being trained after every step."""

    def on_train_begin(self, net, **kwargs):
        self.states = [state_of(net.module_)]

    def on_batch_end(self, net, **kwargs):
        self.states.append(state_of(net.module_))


def state_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


def make(averaging="ema", **params):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = Tied()
    settings = {"attack": PGD(eps=0.1, steps=2), "selector": None, "max_epochs": 4, "lr_schedule": "constant"}
    settings |= {"lr": 0.05, "batch_size": 32, "random_state": 0, "module": module, "averaging": averaging}
    settings |= {"attack_ramp": 0.0}
    return RobustClassifier(**{**settings, **params})


def averaged_by_hand(states, decay, first=0, start=None):
    average = {name: value.double() for name, value in (start or states[0]).items()}
    for step, state in enumerate(states[1:], first):
        kept = min(decay, (1 + step) / (10 + step))
        average = {name: kept * average[name] + (1 - kept) * value for name, value in state.items()}
    return average


# The average


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.995])
def test_weights_and_statistics_are_averaged_after_every_step_and_integers_copied(decay):
    trace = Trace()
    clf = make(averaging__decay=decay, callbacks=[trace], selector="gradmatch", max_epochs=6, select_every=2).fit(X, y)
    assert len(trace.states) == 1 + sum(len(row["batches"]) for row in clf.history_)
    expected = averaged_by_hand(trace.states, decay)
    averaged, raw = clf.net_.module_.state_dict(), clf.net_.raw_module_.state_dict()
    for name, value in averaged.items():
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), expected[name], rtol=1e-4, atol=1e-6)
        else:
            assert torch.equal(value, raw[name]), name
    assert raw["norm.num_batches_tracked"] == raw["seen"][0] == len(trace.states) - 1
    assert torch.equal(averaged["scale"], torch.tensor([2.0]))
    assert clf.net_.module_.again is clf.net_.module_.last
    assert same(raw, trace.states[-1])


def test_decay_begins_small_and_ends_at_the_one_asked_for():
    decays = [EMA(0.9).decay_at(step) for step in range(200)]
    assert decays[:2] == [1 / 10, 2 / 11]
    assert decays == sorted(decays)
    assert decays[79] < 0.9 == decays[80] == decays[-1]


def test_training_is_the_same_bits_with_and_without():
    with_it, without = make().fit(X, y), make(None).fit(X, y)
    assert same(with_it.net_.raw_module_.state_dict(), without.net_.module_.state_dict())
    assert with_it.history_[:, "train_loss"] == without.history_[:, "train_loss"]
    assert without.net_.raw_module_ is without.net_.training_.final_module is without.net_.module_
    for phase in ("full", "selection", "coreset"):
        assert with_it.cost_[phase].forwards == without.cost_[phase].forwards


def test_attacks_and_selections_look_at_the_weights_being_trained():
    """Else coresets would differ from those of a training without an average."""
    with_it, without = (make(how, selector="gradmatch", select_every=1).fit(X, y) for how in ("ema", None))
    for one, other in zip(with_it.coresets_.values(), without.coresets_.values(), strict=True):
        np.testing.assert_array_equal(one.indices, other.indices)


def test_a_high_rate_is_smoothed():
    digits = load_digits()
    images, labels = (digits.images / 16).astype(np.float32), digits.target
    clf = make(module="mlp", lr=0.1, max_epochs=8, batch_size=16).fit(images[:600], labels[:600])
    averaged = clf.robust_score(images[600:], labels[600:])
    clf.net_.module_ = clf.net_.raw_module_
    assert averaged > clf.robust_score(images[600:], labels[600:]) + 0.02


# Who uses it


def test_everything_after_training_uses_the_average():
    clf = make(max_epochs=2).fit(X, y)
    module, pgd = clf.net_.training_.final_module, PGD(eps=0.1, steps=3)
    assert clf.net_.module_ is module is not clf.net_.raw_module_
    x = torch.from_numpy(X)[:, None]
    with torch.no_grad():
        logits = module.eval()(x).numpy()
        assert not np.allclose(logits, clf.net_.raw_module_.eval()(x).numpy(), atol=1e-3)
    np.testing.assert_allclose(clf.decision_function(X), logits, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(clf.predict(X), logits.argmax(1))
    assert clf.robust_score(X, y, pgd) == pytest.approx(robust_accuracy(module, X, y, pgd), abs=0.03)
    result = evaluate(clf, X, y, {"PGD": pgd}, random_state=0)
    np.testing.assert_array_equal(result.correct_, evaluate(module, X, y, {"PGD": pgd}, random_state=0).correct_)
    generator = torch.Generator().manual_seed(clf.model_.seed)
    expected = pgd.perturb(module, x, torch.from_numpy(y), clip=(0, 1), generator=generator)
    np.testing.assert_allclose(clf.perturb(X, y, pgd), expected[:, 0], atol=1e-6)


def test_training_that_goes_on_starts_from_the_raw_weights_and_continues_the_average():
    first, second = Trace(), Trace()
    clf = make(callbacks=[first]).fit(X, y)
    before = state_of(clf.net_.module_)
    clf.set_params(callbacks=[second], warm_start=True).fit(X, y)
    assert same(second.states[0], first.states[-1])
    expected = averaged_by_hand(second.states, 0.995, first=len(first.states) - 1, start=before)
    torch.testing.assert_close(clf.net_.module_.first.weight.detach().double(), expected["first.weight"])


def test_partial_fits_are_one_training_and_one_average():
    trace = Trace()
    clf, states = make(callbacks=[trace]), []
    for _ in range(3):
        clf.partial_fit(X, y)
        states += trace.states[bool(states) :]
    torch.testing.assert_close(
        clf.net_.module_.first.weight.detach().double(), averaged_by_hand(states, 0.995)["first.weight"]
    )
    assert len(clf.history_) == 3


def test_an_average_that_is_switched_on_or_off_goes_on_from_the_raw_weights():
    plain = make(None).fit(X, y)
    trace = Trace()
    plain.set_params(averaging="ema", callbacks=[trace]).partial_fit(X, y)
    torch.testing.assert_close(
        plain.net_.module_.first.weight.detach().double(), averaged_by_hand(trace.states, 0.995)["first.weight"]
    )
    raw = state_of(plain.net_.raw_module_)
    trace = Trace()
    plain.set_params(averaging=None, callbacks=[trace]).partial_fit(X, y)
    assert same(trace.states[0], raw)


def test_pickles_keep_both_and_go_on_alike():
    clf = make().fit(X, y)
    copy = pickle.loads(pickle.dumps(clf))
    np.testing.assert_array_equal(copy.decision_function(X), clf.decision_function(X))
    for module in (clf, copy):
        module.partial_fit(X, y)
    np.testing.assert_array_equal(copy.decision_function(X), clf.decision_function(X))
    assert same(copy.net_.raw_module_.state_dict(), clf.net_.raw_module_.state_dict())
    assert copy.net_.training_.average.n_steps == 5 * 3
    optimized = {id(value) for group in copy.net_.optimizer_.param_groups for value in group["params"]}
    assert optimized >= {id(value) for value in copy.net_.raw_module_.parameters() if value.requires_grad}


# Every kind of end


class Ruin(Callback):
    """Spoils the weights being trained, and with them their average, at the end of an epoch or in the midst of it."""

    def __init__(self, epoch, factor=-1.0, batch=None):
        self.epoch, self.factor, self.batch = epoch, factor, batch

    def on_batch_begin(self, net, **kwargs):
        if len(net.history) == self.epoch and len(net.history[-1]["batches"]) == self.batch:
            with torch.no_grad():
                net.module_.last.weight.mul_(self.factor)

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == self.epoch and self.batch is None:
            with torch.no_grad():
                for module in (net.raw_module_, net.training_.final_module):
                    module.last.weight.mul_(self.factor)
                    module.last.bias.mul_(self.factor)


def test_the_guard_takes_the_average_back_too(monkeypatch):
    monkeypatch.setattr(CollapseGuard, "_accuracies", lambda self, training: (0.9 * (training.epochs_done < 4), 0.9))
    until = make(max_epochs=3).fit(X, y)
    with pytest.warns(ConvergenceWarning, match="collapsed in epoch 4"):
        clf = make(callbacks=[Ruin(4), CollapseGuard()], max_epochs=6).fit(X, y)
    assert same(clf.net_.module_.state_dict(), until.net_.module_.state_dict())
    assert same(clf.net_.raw_module_.state_dict(), until.net_.raw_module_.state_dict())


def test_weights_that_are_not_finite_take_the_average_back_too():
    until = make(max_epochs=2).fit(X, y)
    clf = make(callbacks=[Ruin(3, np.inf, batch=1)])
    with pytest.raises(FloatingPointError, match="epoch 3"):
        clf.fit(X, y)
    assert same(clf.net_.module_.state_dict(), until.net_.module_.state_dict())
    assert same(clf.net_.raw_module_.state_dict(), until.net_.raw_module_.state_dict())
    np.testing.assert_array_equal(clf.predict(X), until.predict(X))


def test_a_fit_that_is_interrupted_leaves_the_average_so_far():
    class Stop(Callback):
        def on_batch_end(self, net, **kwargs):
            if len(net.history) == 3:
                raise KeyboardInterrupt

    trace = Trace()
    clf = make(callbacks=[trace, Stop()]).fit(X, y)
    assert len(trace.states) == 8
    expected = averaged_by_hand(trace.states, 0.995)
    torch.testing.assert_close(clf.net_.module_.last.weight.detach().double(), expected["last.weight"])
    assert clf.net_.module_.norm.num_batches_tracked == 7
    clf.set_params(callbacks=None).partial_fit(X, y)
    assert clf.net_.training_.average.n_steps == 10


# Parameters and cost


def test_parameters_by_name_and_by_object():
    assert make(averaging__decay=0.5, max_epochs=1).fit(X, y).net_.training_.average.averaging.decay == 0.5
    clf = make(EMA(0.5), max_epochs=1)
    assert clone(clf).set_params(averaging__decay=0.25).fit(X, y).net_.training_.average.averaging.decay == 0.25
    assert clf.averaging.decay == 0.5


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"averaging": "swa"}, "'averaging' parameter .*'swa'"),
        ({"averaging__decay": 1.0}, "'decay' parameter of EMA .*1.0"),
        ({"averaging": EMA(-0.1)}, "'decay' parameter of EMA .*-0.1"),
        ({"averaging": None, "averaging__decay": 0.9}, "averaging=None has no parameters .*decay"),
    ],
)
def test_bad_parameters_are_named_before_any_work(params, words, monkeypatch):
    monkeypatch.setattr(PGD, "_attack", None)
    with pytest.raises(ValueError, match=words):
        make(**params).fit(X, y)


def test_a_step_is_a_few_calls_whatever_the_number_of_tensors():
    modules = [nn.Sequential(*(nn.BatchNorm1d(4) for _ in range(n))) for n in (2, 20)]
    counts = []
    for module in modules:
        average, finite = WeightAverage(module, EMA()), finite_buffers(module)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            average.follow(finite)
        counts.append(sum(event.count for event in profile.key_averages() if "_foreach" in event.key))
    assert counts == [2, 2]
