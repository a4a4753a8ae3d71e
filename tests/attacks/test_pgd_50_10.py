"""PGD-50-10: the published settings, and PGD itself step by step against NumPy."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from sklearn_acs import PGD, PGD5010, RobustClassifier
from sklearn_acs.attacks import ATTACKS
from sklearn_acs.params import make_part


@pytest.mark.parametrize(("norm", "eps", "step"), [("linf", 8 / 255, 1 / 255), ("l2", 80 / 255, 8 / 255)])
def test_it_is_pgd_with_the_published_settings(norm, eps, step):
    by_name = make_part("attack", "pgd-50-10", ATTACKS, {"eps": eps, "norm": norm})
    for attack in (PGD5010(eps, norm=norm), by_name):
        assert type(attack) is PGD
        assert (attack.eps, attack.norm, attack.steps, attack.restarts) == (eps, norm, 50, 10)
        assert attack.step_size is None and attack.rel_step_size * eps == pytest.approx(step)


def test_a_step_size_given_is_taken():
    by_name = make_part("attack", "pgd-50-10", ATTACKS, {"step_size": 0.01, "max_age": 3})
    assert (by_name.step_size, by_name.rel_step_size, by_name.max_age) == (0.01, None, 3)


def make_model():
    """Two layers in float64, whose gradients NumPy finds by hand."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(20, 16), nn.Tanh(), nn.Linear(16, 4)).double()


def numpy_gradient(model, x, y):
    """Of the cross-entropy with respect to `x`."""
    w1, b1, w2, b2 = (p.detach().numpy() for p in model.parameters())
    hidden = np.tanh(x @ w1.T + b1)
    logits = hidden @ w2.T + b2
    p = np.exp(logits - logits.max(1, keepdims=True))
    p = p / p.sum(1, keepdims=True) - np.eye(4)[y]
    return ((p @ w2) * (1 - hidden**2)) @ w1


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_is_its_definition_step_by_step(norm):
    # Written out in NumPy, with gradients by hand; test_pgd_against_foolbox.py asks foolbox.
    model, rng = make_model(), np.random.default_rng(0)
    x, y = rng.uniform(size=(30, 20)), rng.integers(4, size=30)
    eps, step, steps = 0.3, 0.07, 20
    start = rng.uniform(-0.1, 0.1, size=x.shape)
    found = PGD5010(eps=eps, step_size=step, steps=steps, norm=norm, restarts=1).perturb(
        model, torch.from_numpy(x), torch.from_numpy(y), clip=(0, 1), start=torch.from_numpy(start)
    )

    def into_the_ball(delta):
        if norm == "linf":
            return delta.clip(-eps, eps)
        return delta * np.minimum(1, eps / np.linalg.norm(delta, axis=1, keepdims=True))

    x_adv = (x + into_the_ball(start)).clip(0, 1)
    for _ in range(steps):
        gradient = numpy_gradient(model, x_adv, y)
        if norm == "linf":
            direction = np.sign(gradient)
        else:
            direction = gradient / np.linalg.norm(gradient, axis=1, keepdims=True)
        x_adv = (x + into_the_ball(x_adv + step * direction - x)).clip(0, 1)
    np.testing.assert_allclose(found.numpy(), x_adv, atol=1e-9)


def test_by_name_it_is_at_least_as_strong_as_one_run():
    X, y = (load_digits(n_class=4).images / 16).astype(np.float32)[:120], load_digits(n_class=4).target[:120]
    clf = RobustClassifier(objective="natural", selector=None, module="mlp", max_epochs=8, random_state=0).fit(X, y)
    few = X[:24], y[:24]
    assert clf.robust_score(*few, attack="pgd-50-10") <= clf.robust_score(*few, attack=PGD(steps=50))
    weak, strong = (clf.robust_score(*few, attack=PGD5010(eps=eps, restarts=2)) for eps in (0.02, 0.3))
    assert strong < weak
