"""Perceptual adversarial training: its losses, and whole fits on tables and images of several sizes."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from torch import nn

from sklearn_acs import LPA, PAT, PGD, FastLPA, RobustClassifier
from sklearn_acs.attacks.problem import margin_loss
from sklearn_acs.models import resnet18
from sklearn_acs.objectives import ADVERSARIAL

STEPS = 3


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(n_class=3, return_X_y=True)
    return (X.reshape(-1, 8, 8) / 16).astype(np.float32)[:256], y[:256]


def test_loss_is_cross_entropy_of_adversarial_logits():
    logits, y = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3
    expected = nn.functional.cross_entropy(logits, y, reduction="none")
    assert torch.equal(PAT().loss({ADVERSARIAL: logits}, y), expected)


def test_inner_loss_is_the_margin():
    logits, y = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3
    assert torch.equal(PAT().inner_loss(logits, y, None), margin_loss(logits, y))


def test_it_trains_against_fast_lpa_that_looks_at_the_model(digits):
    clf = RobustClassifier(objective="pat", max_epochs=1, selector=None).fit(digits[0][:32], digits[1][:32])
    assert clf.attack_.get_params() == FastLPA().get_params()


def test_parameters_reach_into_the_attack():
    clf = RobustClassifier(objective=PAT(attack=FastLPA(steps=2)), objective__attack__bound=0.25)
    assert clone(clf).get_params()["objective__attack__bound"] == 0.25


@pytest.mark.parametrize("selector", [None, "gradmatch"])
def test_training_on_digits_makes_them_robust(digits, selector):
    params = {"max_epochs": 12, "batch_size": 32, "random_state": 0, "selector": selector}
    clf = RobustClassifier(objective="pat", attack=FastLPA(0.3, steps=5), **params).fit(*digits)
    natural = RobustClassifier(objective="natural", **params).fit(*digits)
    losses = clf.history_[:, "train_loss"]
    assert losses[-1] < 0.6 * losses[0]
    assert clf.score(*digits) > 0.9
    attack = PGD(eps=1.0, norm="l2", steps=10)  # a kind that training has not seen
    assert clf.robust_score(*digits, attack=attack) > natural.robust_score(*digits, attack=attack) + 0.1
    assert (clf.coreset_ is None) == (selector is None)


def test_score_under_its_own_attack_is_within_the_bound(digits):
    X, y = digits[0][:64], digits[1][:64]
    clf = RobustClassifier(objective="pat", max_epochs=2, random_state=0).fit(*digits)
    X_adv = clf.perturb(X, y)
    x, x_adv = (torch.from_numpy(images)[:, None] for images in (X, X_adv))
    assert (FastLPA().measure(clf.net_.module_, x, x_adv) <= 0.5).all()
    assert clf.robust_score(X, y) == pytest.approx((clf.predict(X_adv) == y).mean())


def test_a_training_step_costs_what_its_arithmetic_says(digits):
    # The first batch of the first epoch, whose model predicts what it was initialised to: how many are right is known.
    X, y = digits[0][:32], digits[1][:32]
    seen = []

    class Watched(FastLPA):
        def _ascend(self, task, x_adv):
            seen.append(len(x_adv))
            return super()._ascend(task, x_adv)

    clf = RobustClassifier(
        objective="pat", attack=Watched(steps=STEPS), selector=None, max_epochs=4, batch_size=16, random_state=0
    ).fit(X, y)
    cost, attacked, trained = clf.cost_["full"], sum(seen), 4 * 32
    assert 0 < attacked < trained
    # Each sample: one look at it as it is, two passes a step if it is right, and the training step itself.
    assert cost.forwards == trained + 2 * STEPS * attacked + trained
    assert cost.backwards == STEPS * attacked + trained


def test_tables_train_whatever_the_units_of_their_features():
    X, y = load_iris(return_X_y=True)
    params = {"objective": "pat", "attack": FastLPA(0.1), "max_epochs": 20, "batch_size": 32, "random_state": 0}
    plain = RobustClassifier(**params).fit(X, y)
    units = np.array([1e-3, 1, 1, 1e4])
    other = RobustClassifier(**params).fit(X * units, y)
    np.testing.assert_allclose(other.attack_.scale, units * X.std(0), rtol=1e-3)
    np.testing.assert_allclose(other.history_[:, "train_loss"], plain.history_[:, "train_loss"], rtol=1e-3)
    assert plain.score(X, y) == other.score(X * units, y) > 0.85


def test_perturbed_tables_stay_near_their_samples():
    X, y = load_iris(return_X_y=True)
    clf = RobustClassifier(objective="pat", max_epochs=10, random_state=0).fit(X, y)
    assert np.isfinite(clf.history_[:, "train_loss"]).all()
    assert np.square((clf.perturb(X, y) - X) / X.std(0)).mean(1).max() <= 1 + 1e-4


@pytest.mark.parametrize("shape", [(28, 28), (3, 32, 32), (32, 32, 3)])
def test_images_of_other_sizes_train(shape):
    rng = np.random.RandomState(0)
    y = np.arange(24) % 3
    X = np.clip(0.25 * y.reshape(-1, *[1] * len(shape)) + 0.3 * rng.rand(24, *shape), 0, 1).astype(np.float32)
    clf = RobustClassifier(
        objective="pat", attack=FastLPA(steps=2), max_epochs=4, batch_size=8, lr=0.02, random_state=0
    ).fit(X, y)
    assert np.isfinite(clf.history_[:, "train_loss"]).all()
    assert 0 <= clf.robust_score(X, y) <= clf.score(X, y)


def test_large_images_are_attacked():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = resnet18((3, 224, 224), 4).eval()
    x = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = model(x).argmax(1)
    attack = FastLPA(0.25, steps=1, projection="newton")
    x_adv = attack.perturb(model, x, y, clip=(0, 1))
    assert (attack.measure(model, x, x_adv) <= 0.25).all()
    assert not torch.equal(x_adv, x)


def test_a_model_without_hidden_layers_is_refused(digits):
    clf = RobustClassifier("mlp", objective="pat", module__hidden=(), max_epochs=1)
    with pytest.raises(ValueError, match="no layer of Sequential to compare"):
        clf.fit(*digits)


def test_unknown_layer_is_named(digits):
    clf = RobustClassifier(objective="pat", attack=FastLPA(layers=["layer1"]), max_epochs=1)
    with pytest.raises(ValueError, match="no layer 'layer1'"):
        clf.fit(*digits)


def test_missing_weights_are_named_before_any_work(digits):
    clf = RobustClassifier(objective="pat", attack=LPA(weights="nowhere.npz"), max_epochs=1)
    with pytest.raises(ValueError, match=r"weights='nowhere\.npz'"):
        clf.fit(*digits)
