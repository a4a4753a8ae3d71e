"""Early stopping: what is measured, which state is kept at every kind of end, and that training is not touched."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from skorch.callbacks import Callback
from torch import nn
from torch.utils.data import Dataset

from sklearn_acs import FGSM, NFGSM, PGD, BulletTrain, CollapseGuard, FastLPA, RobustClassifier, ScoreSelector
from sklearn_acs.model import robust_correct

digits = load_digits()
X_all, y_all = (digits.images / 16).astype(np.float32), digits.target
X, y = X_all[y_all < 3][:120], y_all[y_all < 3][:120]


def module():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 3)
    return nn.Sequential(nn.Flatten(), *layers)


def make(callbacks=None, **params):
    settings = {"attack": PGD(eps=0.15, steps=2), "selector": None, "max_epochs": 6, "lr_schedule": "constant"}
    settings |= {"batch_size": 32, "random_state": 0, "module": module(), "early_stopping": True, "lr": 0.05}
    return RobustClassifier(**{**settings, "validation_fraction": 0.3, **params}, callbacks=callbacks)


def state_of(module):
    return {name: value.tolist() for name, value in module.state_dict().items()}


def states_of(clf):
    return [state_of(clf.net_.module_), state_of(clf.net_.raw_module_)]


class Trace(Callback):
    """Copies both states after every epoch, and the held-out samples."""

    def on_train_begin(self, net, **kwargs):
        self.states = []
        self.held_out = list(net.training_.held_out.everything()) if net.training_.held_out else []
        self.trained = set()

    def on_epoch_end(self, net, **kwargs):
        self.states.append([state_of(net.training_.final_module), state_of(net.raw_module_)])

    def on_batch_end(self, net, batch, **kwargs):
        self.trained |= {x.numpy().tobytes() for x in batch[0]}


class Ruin(Callback):
    """Turns predictions around as an epoch begins (both of the trained weights and of their average)."""

    def __init__(self, epoch, factor=-1.0):
        self.epoch, self.factor = epoch, factor

    def on_epoch_begin(self, net, **kwargs):
        if len(net.history) == self.epoch:
            with torch.no_grad():
                for each in {net.raw_module_, net.training_.final_module}:
                    each[-1].weight.mul_(self.factor)
                    each[-1].bias.mul_(self.factor)


# What is kept


@pytest.mark.parametrize("averaging", [None, "ema"])
@pytest.mark.parametrize("selector", [None, "gradmatch", "glister"])
def test_the_state_with_the_best_score_is_kept(averaging, selector):
    trace = Trace()
    clf = make([trace], averaging=averaging, selector=selector, select_every=2, max_epochs=10).fit(X, y)
    scores = clf.history_[:, "valid_robust"]
    assert len(scores) == len(clf.history_) == clf.schedule_.n_epochs
    assert clf.best_validation_score_ == max(scores)
    assert clf.best_epoch_ == max(i for i, score in enumerate(scores, 1) if score == max(scores))
    assert states_of(clf) == trace.states[clf.best_epoch_ - 1]


def three_epochs(progress):
    """The rate of a training of twelve epochs that learns in three of them."""
    return float(progress < 0.25)


def test_a_state_that_gets_worse_is_not_kept_and_training_ends_when_nothing_improves():
    trace = Trace()
    clf = make([trace, Ruin(4)], averaging="ema", n_iter_no_change=2, max_epochs=12, lr_schedule=three_epochs).fit(X, y)
    assert clf.best_epoch_ <= 3
    scores = clf.history_[:, "valid_robust"]
    assert states_of(clf) == trace.states[clf.best_epoch_ - 1]
    first = scores.index(max(scores)) + 1
    assert len(clf.history_) == len(scores) == first + 2  # and every callback has seen all of them
    assert len(trace.states) == len(clf.history_)
    assert clf.score(X, y) > 0.8


def test_without_patience_training_runs_to_its_end():
    clf = make([Ruin(4)], n_iter_no_change=None, max_epochs=12, lr_schedule=three_epochs).fit(X, y)
    assert len(clf.history_) == 12
    assert clf.best_epoch_ <= 3
    assert clf.score(X, y) > 0.8


def test_the_score_is_robust_accuracy_of_what_predicts_under_five_steps_of_pgd():
    trace = Trace()
    clf = make([trace], averaging="ema").fit(X, y)
    batches = [(batch.x, batch.y) for batch in trace.held_out]
    assert sum(len(labels) for _, labels in batches) == 36
    attack = PGD(eps=0.15, steps=5, step_size=0.15 / 4)
    right = robust_correct(clf.net_.module_, batches, attack, (0, 1), torch.Generator().manual_seed(0))
    assert clf.best_validation_score_ == pytest.approx(right.double().mean().item())
    assert 0.5 < clf.best_validation_score_ < 1


def test_held_out_samples_are_not_trained_on_and_weighted_as_given():
    weight, trace = np.where(y == 0, 3.0, 1.0), Trace()
    clf = make([trace], max_epochs=3).fit(X, y, sample_weight=weight)
    assert not {x.numpy().tobytes() for batch in trace.held_out for x in batch.x} & trace.trained
    assert len(trace.trained) == 120 - 36
    batches = [(batch.x, batch.y) for batch in trace.held_out]
    attack = PGD(eps=0.15, steps=5, step_size=0.15 / 4)
    right = robust_correct(clf.net_.module_, batches, attack, (0, 1), torch.Generator().manual_seed(0))
    labels = torch.cat([labels for _, labels in batches]).numpy()
    expected = np.average(right, weights=np.where(labels == 0, 3.0, 1.0))
    assert clf.best_validation_score_ == pytest.approx(expected)


@pytest.mark.parametrize(
    ("attack", "expected"),
    [
        (FGSM(eps=0.1), ("linf", 5)),
        (NFGSM(eps=0.1), ("linf", 5)),
        (BulletTrain(PGD(eps=0.4, norm="l2")), ("l2", 5)),
        (PGD(eps=0.1, steps=1, init="previous"), ("linf", 5)),
        (FastLPA(0.1, steps=3), (None, 3)),
    ],
)
def test_single_steps_are_judged_by_several(attack, expected):
    clf = make(attack=attack, max_epochs=2, averaging="ema", selector="craig", selection_gradients="last").fit(X, y)
    measured = dict(clf.net_.callbacks_)["best_state"].attack_
    assert (getattr(measured, "norm", None), measured.steps) == expected


def test_clean_accuracy_counts_for_an_objective_that_attacks_nothing():
    trace = Trace()
    clf = make([trace], objective="natural", attack=None).fit(X, y)
    x, labels = (torch.cat([getattr(batch, name) for batch in trace.held_out]) for name in "xy")
    with torch.no_grad():
        expected = (clf.net_.module_.eval()(x).argmax(1) == labels).double().mean()
    assert clf.best_validation_score_ == pytest.approx(expected.item())
    assert clf.history_[:, "valid_accuracy"][clf.best_epoch_ - 1] == clf.best_validation_score_
    assert clf.cost_["checks"].backwards == 0 < clf.cost_["checks"].forwards == 6 * 36


# Every kind of end


def test_an_interrupt_leaves_the_best_state():
    class Stop(Callback):
        def on_batch_end(self, net, **kwargs):
            if len(net.history) == 5:
                raise KeyboardInterrupt

    trace = Trace()
    clf = make([trace, Ruin(4), Stop()], averaging="ema", lr=0.01).fit(X, y)
    assert clf.best_epoch_ <= 3
    assert states_of(clf) == trace.states[clf.best_epoch_ - 1]


def test_an_interrupt_of_the_first_epoch_leaves_a_classifier_without_a_best_state():
    class Stop(Callback):
        def on_batch_end(self, net, **kwargs):
            raise KeyboardInterrupt

    clf = make([Stop()], averaging="ema").fit(X, y)
    assert clf.best_epoch_ is clf.best_validation_score_ is None
    assert clf.predict(X).shape == y.shape


def test_weights_that_are_not_finite_leave_the_best_state():
    trace = Trace()
    clf = make([trace, Ruin(5, np.inf)], averaging="ema")
    with pytest.raises(FloatingPointError, match="epoch 5"):
        clf.fit(X, y)
    assert clf.best_epoch_ <= 4
    assert states_of(clf) == trace.states[clf.best_epoch_ - 1]


def test_a_collapse_that_the_guard_finds_leaves_the_best_state(monkeypatch):
    monkeypatch.setattr(CollapseGuard, "_accuracies", lambda self, training: (0.9 * (training.epochs_done < 5), 0.9))
    trace = Trace()
    clf = make([trace, Ruin(5)], objective="fast", attack=FGSM(eps=0.1), averaging="ema", lr=0.01)
    with pytest.warns(ConvergenceWarning, match="collapsed in epoch 5"):
        clf.fit(X, y)
    assert len(clf.history_) == len(clf.history_[:, "valid_robust"]) == 5
    assert clf.best_epoch_ <= 4
    assert states_of(clf) == trace.states[clf.best_epoch_ - 1]


# What it leaves alone


class Restless(Dataset):
    """A streamed data set whose images draw from the global generator."""

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return torch.from_numpy(X[i]) * (0.9 + 0.1 * torch.rand(())), int(y[i])


class Blind(Callback):
    """Takes the measurements away."""

    def on_train_begin(self, net, **kwargs):
        dict(net.callbacks_)["best_state"]._score = lambda net: 0.0


@pytest.mark.parametrize("params", [{}, {"selector": "glister", "select_every": 1}, {"augment": "crop"}], ids=repr)
@pytest.mark.parametrize("data", [(X, y), (Restless(),)], ids=["arrays", "dataset"])
def test_training_is_the_same_bits_with_and_without_measurements(params, data):
    one, other = Trace(), Trace()
    measured = make([one], averaging="ema", **params).fit(*data)
    blind = make([other, Blind()], averaging="ema", **params).fit(*data)
    assert one.states == other.states
    assert measured.history_[:, "train_loss"] == blind.history_[:, "train_loss"]
    for phase in ("full", "selection", "coreset"):
        assert measured.cost_[phase].forwards == blind.cost_[phase].forwards
    assert 0 < measured.cost_["checks"].backwards <= 5 * 36 * len(measured.history_)
    assert blind.cost_["checks"].forwards == 0


def test_the_same_random_state_gives_the_same_bits_and_the_global_generators_stay(global_randomness):
    before = global_randomness()
    first, second = (make(averaging="ema").fit(X, y) for _ in range(2))
    assert states_of(first) == states_of(second)
    assert first.history_[:, "valid_robust"] == second.history_[:, "valid_robust"]
    assert global_randomness() == before


def test_a_warm_start_goes_on_from_the_best_state_and_holds_out_the_same_samples():
    trace, begun = Trace(), []

    class Begin(Callback):
        def on_train_begin(self, net, **kwargs):
            begun.append([state_of(net.training_.final_module), state_of(net.raw_module_)])

    clf = make([trace, Begin()], averaging="ema", warm_start=True, random_state=np.random.RandomState(0)).fit(X, y)
    best, held = states_of(clf), trace.held_out
    clf.fit(X, y)
    assert begun[1] == best
    assert all(torch.equal(one.x, other.x) for one, other in zip(held, trace.held_out, strict=True))
    clf.set_params(early_stopping=False).fit(X, y)
    assert clf.best_epoch_ is clf.best_validation_score_ is None


def test_pickles_and_clones():
    clf = make(averaging="ema").fit(X, y)
    copy = pickle.loads(pickle.dumps(clf))
    assert states_of(copy) == states_of(clf)
    assert copy.best_epoch_ == clf.best_epoch_
    assert clf.net_.training_.best.weights == []  # let go
    assert not hasattr(clone(clf), "best_epoch_")
    assert states_of(clone(clf).fit(X, y)) == states_of(clf)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"early_stopping": "yes"}, "'early_stopping' parameter .*'yes'"),
        ({"n_iter_no_change": 0}, "'n_iter_no_change' parameter .*0"),
        ({"validation_fraction": 0.995}, "validation_fraction=0.995 holds out 120 of 120"),
    ],
)
def test_bad_parameters_are_named_before_any_work(params, words, monkeypatch):
    monkeypatch.setattr(PGD, "_attack", None)
    with pytest.raises(ValueError, match=words):
        make(**params).fit(X, y)


def test_partial_fit_refuses_it():
    with pytest.raises(ValueError, match=r"early_stopping=True is for fit; partial_fit"):
        make().partial_fit(X, y)


def test_scores_given_for_all_samples_stay_with_their_samples():
    """Although some samples are held out: the lowest scores of those that are trained on are chosen."""
    scores = np.random.default_rng(0).permutation(len(X)).astype(float)
    selector = ScoreSelector(scores=scores, order="lowest")
    trace = Trace()
    clf = make([trace], selector=selector, select_by="sample", coreset_frac=0.5).fit(X, y)
    held = {x.numpy().tobytes() for batch in trace.held_out for x in batch.x}
    kept = np.array([i for i in range(len(X)) if X[i][None].tobytes() not in held])
    lowest = kept[np.argsort(scores[kept])[: len(clf.coreset_.indices)]]
    np.testing.assert_array_equal(np.sort(clf.coreset_.indices), np.sort(lowest))
