"""The guard: collapses made by hand and real ones, what is restored and told, and that it disturbs nothing else."""

import pickle
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning
from skorch.callbacks import Callback
from torch import nn
from torch.utils.data import Dataset

from sklearn_acs import FGSM, NFGSM, PGD, Attack, BulletTrain, CollapseGuard, FastAT, RobustClassifier, robust_accuracy

digits = load_digits()
X_all, y_all = (digits.images / 16).astype(np.float32), digits.target
X, y = X_all[y_all < 3][:96], y_all[y_all < 3][:96]


class Overfit(nn.Module):
    """A perceptron that, once it is ruined, turns its predictions around unless the input is where one step leads.

    Pixels are multiples of 1/16, and a step of 0.1 leads to 0.6 or 0.4 of a sixteenth beyond them, or to the border.
    """

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            layers = nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 3)
        self.layers = nn.Sequential(nn.Flatten(), *layers)
        self.register_buffer("ruined", torch.zeros(()))

    def forward(self, x):
        beyond = (16 * x.flatten(1)) % 1
        elsewhere = torch.stack([(beyond - place).abs() for place in (0, 0.4, 0.6, 1)]).amin(0) > 1e-3
        turned = self.ruined * (elsewhere.double().mean(1) > 0.1)
        return self.layers(x) * (1 - 2 * turned)[:, None]


class Ruin(Callback):
    """Has the model overfit to one step at the end of an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == self.epoch:
            with torch.no_grad():
                net.module_.ruined.fill_(1)
                for value in list(net.module_.parameters())[-2:]:
                    value.mul_(1.01)
                net.module_.layers[2].running_mean.add_(0.01)


class Dip(Callback):
    """Turns all of the model's predictions around at the end of an epoch."""

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 4:
            with torch.no_grad():
                for value in list(net.module_.parameters())[-2:]:
                    value.mul_(-1)


def make(callbacks=None, **params):
    settings = {"objective": "adversarial", "attack": FGSM(eps=0.1), "selector": None, "max_epochs": 5}
    settings |= {"lr_schedule": "constant", "batch_size": 32, "random_state": 0, "module": Overfit()}
    settings |= {"averaging": None, "attack_ramp": 0.0}
    return RobustClassifier(**{**settings, **params}, callbacks=callbacks)


def state_of(clf):
    return {name: value.tolist() for name, value in clf.net_.module_.state_dict().items()}


def guard_of(clf):
    return dict(clf.net_.callbacks_).get("collapse_guard")


# A collapse


def test_the_weights_and_buffers_of_the_last_good_epoch_are_restored_and_training_ends():
    guard = CollapseGuard()
    with pytest.warns(ConvergenceWarning, match="collapsed in epoch 4"):
        clf = make([Ruin(4), guard]).fit(X, y)
    assert state_of(clf) == state_of(make(max_epochs=3).fit(X, y))
    assert guard.collapsed_epoch_ == len(clf.history_) == 4
    assert not clf.net_.optimizer_.state
    assert clf.score(X, y) > 0.9


def test_the_warning_names_both_accuracies_and_the_history_has_them():
    with pytest.warns(ConvergenceWarning) as caught:
        clf = make([Ruin(4), CollapseGuard()]).fit(X, y)
    *_, before, after = clf.history_[:, "guard_accuracy"]
    assert before - after > 0.2
    assert f"from {before:.2f} to {after:.2f} on 96 training samples" in str(caught[0].message)


def test_a_model_that_is_worse_under_one_step_too_goes_on():
    guard = CollapseGuard()
    clf = make([Dip(), guard]).fit(X, y)
    pgd, one_step = (clf.history_[:, name] for name in ("guard_accuracy", "guard_one_step"))
    assert pgd[2] - pgd[3] > 0.2
    assert one_step[2] - one_step[3] > 0.2
    assert guard.collapsed_epoch_ is None
    assert len(clf.history_) == 5


def test_the_first_epoch_of_a_fit_is_compared_with_none():
    """An untrained model may predict one class only, which no attack can change."""
    guard = CollapseGuard(max_fall=0.01)
    constant = Overfit()
    with torch.no_grad():
        constant.layers[-1].weight.zero_()
        constant.layers[-1].bias.copy_(torch.tensor([1.0, 0, 0]))
    make([Ruin(1), guard], module=constant, max_epochs=1).fit(X, y)
    assert guard.collapsed_epoch_ is None


def test_a_partial_fit_is_compared_with_the_model_as_it_was():
    guard = CollapseGuard()
    clf = make([guard]).fit(X, y)
    before = state_of(clf)
    with pytest.warns(ConvergenceWarning, match="epoch 6"):
        clf.set_params(callbacks=[Ruin(6), guard]).partial_fit(X, y)
    assert guard.collapsed_epoch_ == 6
    assert state_of(clf) == before
    clf.set_params(callbacks=[guard]).partial_fit(X, y)
    assert guard.collapsed_epoch_ is None
    assert state_of(clf) != before


@pytest.mark.parametrize(("max_fall", "collapses"), [(0.5, True), (1.0, False)])
def test_max_fall_is_the_largest_fall_that_is_accepted(max_fall, collapses):
    guard = CollapseGuard(max_fall)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make([Ruin(4), guard]).fit(X, y)
    assert len(caught) == collapses
    assert (guard.collapsed_epoch_ is not None) == collapses


# What it measures


@pytest.mark.parametrize("attack", [FGSM(eps=0.1), PGD(eps=0.5, norm="l2"), NFGSM(eps=0.1), BulletTrain(PGD(eps=0.1))])
def test_accuracy_is_that_under_five_steps_of_a_quarter_of_eps(attack):
    clf = make([CollapseGuard()], attack=attack, max_epochs=4).fit(X, y)
    within = attack.for_evaluation()
    pgd = PGD(eps=within.eps, steps=5, step_size=within.eps / 4, norm=within.norm)
    expected = robust_accuracy(clf.net_.module_, X, y, pgd)
    assert clf.history_[-1, "guard_accuracy"] == pytest.approx(expected, abs=0.03)  # other random starts
    assert 0.3 < expected < 1
    one_step = robust_accuracy(clf.net_.module_, X, y, FGSM(within.eps, norm=within.norm))
    assert clf.history_[-1, "guard_one_step"] == pytest.approx(one_step)


def test_radii_of_single_features_are_taken():
    X, y = load_iris(return_X_y=True)
    guard = CollapseGuard()
    clf = RobustClassifier(attack="n-fgsm", max_epochs=3, callbacks=[guard], random_state=0).fit(X, y)
    np.testing.assert_allclose(guard.attack_.eps, clf.attack_.eps)
    assert 0.5 < clf.history_[-1, "guard_accuracy"] <= 1


def test_many_samples_are_128_of_them_drawn_without_order():
    seen = []

    class Look(Callback):
        def on_epoch_end(self, net, **kwargs):
            seen.append(torch.cat([labels for _, labels in guard.samples_]))

    guard = CollapseGuard()
    order = np.argsort(y_all)
    clf = make([guard, Look()], module="mlp", max_epochs=2).fit(X_all[order], y_all[order])
    assert all(torch.equal(labels, seen[0]) for labels in seen)
    assert len(seen[0]) == 128
    assert len(seen[0].unique()) == 10
    assert guard.samples_ == []  # let go
    assert clf.history_[-1, "guard_accuracy"] * 128 == pytest.approx(round(clf.history_[-1, "guard_accuracy"] * 128))


# What it leaves alone


class Restless(Dataset):
    """A streamed data set whose images draw from the global generator."""

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return torch.from_numpy(X[i]) * (0.9 + 0.1 * torch.rand(())), int(y[i])


@pytest.mark.parametrize("params", [{}, {"selector": "gradmatch", "select_every": 1}, {"augment": "crop"}], ids=repr)
@pytest.mark.parametrize("data", [(X, y), (Restless(),)], ids=["arrays", "dataset"])
def test_training_is_the_same_bits_with_and_without_it(params, data):
    guarded = make([CollapseGuard(1.0)], **params).fit(*data)  # which never finds anything
    alone = make(**params).fit(*data)
    assert state_of(guarded) == state_of(alone)
    assert guarded.history_[:, "train_loss"] == alone.history_[:, "train_loss"]


def test_its_passes_are_checks_and_no_more_than_it_says():
    guarded, alone = make([CollapseGuard()]).fit(X, y).cost_, make().fit(X, y).cost_
    for phase in ("full", "selection", "coreset"):
        assert (guarded[phase].forwards, guarded[phase].backwards) == (alone[phase].forwards, alone[phase].backwards)
    assert alone["checks"].forwards == alone["checks"].backwards == 0
    assert 0 < guarded["checks"].backwards <= 5 * 6 * len(X)
    assert 5 * len(X) < guarded["checks"].forwards <= 5 * 10 * len(X)
    assert guarded["checks"].seconds > 0


def test_it_survives_pickling_and_a_clone_begins_anew():
    with pytest.warns(ConvergenceWarning):
        clf = make([Ruin(4), CollapseGuard(0.3)]).fit(X, y)
    assert pickle.loads(pickle.dumps(clf)).callbacks[1].collapsed_epoch_ == 4
    assert clone(clf).callbacks[1].max_fall == 0.3


# Who brings one


def test_fast_at_brings_its_own_and_others_do_not():
    assert guard_of(make(objective="fast", max_epochs=1).fit(X, y)).max_fall == 0.2
    assert guard_of(make(objective=FastAT(guard=0.4), max_epochs=1).fit(X, y)).max_fall == 0.4
    assert guard_of(make(objective=FastAT(guard=None), max_epochs=1).fit(X, y)) is None
    assert guard_of(make(max_epochs=1).fit(X, y)) is None


def test_the_one_of_fast_at_comes_after_other_callbacks():
    with pytest.warns(ConvergenceWarning):
        clf = make([Ruin(4)], objective="fast").fit(X, y)
    assert guard_of(clf).collapsed_epoch_ == 4


class Nowhere(Attack):
    """An attack without a ball."""

    _parameter_constraints = {}

    def _attack(self, problem, start):
        return problem.x.clone()


def test_an_attack_without_a_ball_is_refused():
    with pytest.raises(ValueError, match=r"guard=0.2 .* attack=Nowhere\(\) has none; .*guard=None"):
        make(objective="fast", attack=Nowhere()).fit(X, y)
    with pytest.raises(ValueError, match=r"CollapseGuard .* attack=Nowhere\(\) has none"):
        make([CollapseGuard()], attack=Nowhere()).fit(X, y)


@pytest.mark.parametrize("max_fall", [0, -0.1, 1.1, "much", None])
def test_bad_max_fall_is_named_with_its_value(max_fall):
    with pytest.raises(ValueError, match=f"max_fall of CollapseGuard .*{max_fall}"):
        make([CollapseGuard(max_fall)]).fit(X, y)


# Real collapses: sines of the pixels with half a period to eps let a network tell a step of eps from where it led


class Sines(nn.Module):
    """A perceptron on pixels and on their sines."""

    def __init__(self, shape, n_classes, amplitude):
        super().__init__()
        self.amplitude = amplitude
        self.layers = nn.Sequential(nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, n_classes))

    def forward(self, x):
        x = x.flatten(1)
        return self.layers(torch.cat([x, self.amplitude * torch.sin(25 * x)], dim=1))


EPS = 0.15
TRAIN, TEST = (X_all[:1200], y_all[:1200]), (X_all[1200:], y_all[1200:])


def train_on_sines(amplitude, **params):
    settings = {"attack__eps": EPS, "lr": 0.1, "lr_schedule": "constant", "batch_size": 32}
    settings |= {"averaging": None, "attack_ramp": 0.0}
    module = partial(Sines, amplitude=amplitude)
    return RobustClassifier(module, **{**settings, "random_state": 0, **params}).fit(*TRAIN)


def robustness(clf):
    """Accuracy on test samples under the one step and under PGD."""
    return [clf.robust_score(*TEST, attack=attack) for attack in (FGSM(eps=EPS), PGD(eps=EPS, steps=20))]


def test_single_step_training_collapses_and_gradalign_keeps_it_from_that():
    steps, pgd = robustness(train_on_sines(0.1, objective=FastAT("zero", guard=None), max_epochs=10))
    assert steps > 0.7
    assert pgd < 0.15
    _, pgd = robustness(train_on_sines(0.1, objective=FastAT("zero", gradalign=1.0), max_epochs=10))
    assert pgd > 0.45


@pytest.fixture(scope="module")
def robust_on_sines():
    """A robust model that single steps ruin."""
    return train_on_sines(0.3, attack="pgd", max_epochs=6)


def test_a_collapse_in_a_fit_is_caught(robust_on_sines):
    clf = clone(robust_on_sines).set_params(module=robust_on_sines.net_.module_, max_epochs=6, batch_size=128, lr=0.2)
    clf.set_params(attack=None)  # FastAT's own
    alone = clone(clf).set_params(objective=FastAT("zero", guard=None)).fit(*TRAIN)
    with pytest.warns(ConvergenceWarning, match="robust accuracy collapsed"):
        guarded = clone(clf).set_params(objective=FastAT("zero", guard=0.15)).fit(*TRAIN)
    good = guard_of(guarded).collapsed_epoch_ - 1
    until = clone(clf).set_params(objective=FastAT("zero", guard=None), max_epochs=good).fit(*TRAIN)
    assert state_of(guarded) == state_of(until)
    assert robustness(guarded)[1] > robustness(alone)[1] + 0.15


def test_a_collapse_in_a_partial_fit_is_caught(robust_on_sines):
    before = state_of(robust_on_sines), robustness(robust_on_sines)[1]
    again = pickle.loads(pickle.dumps(robust_on_sines)).set_params(objective=FastAT("zero"), attack=None, lr=0.3)
    alone = pickle.loads(pickle.dumps(again)).set_params(objective__guard=None).partial_fit(*TRAIN)
    with pytest.warns(ConvergenceWarning, match="robust accuracy collapsed in epoch 7"):
        again.partial_fit(*TRAIN)
    assert state_of(again) == before[0]
    assert robustness(alone)[1] < 0.2 < 0.4 < before[1]
