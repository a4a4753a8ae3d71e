"""PGD-50-10: the published settings, and PGD itself step by step against NumPy."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from sklearn_acs import PGD, PGD5010, RobustClassifier


def test_a_name_means_the_published_settings():
    params = {"eps": 8 / 255, "steps": 50, "step_size": None, "norm": "linf", "init": "auto", "restarts": 10}
    assert PGD5010().get_params() == params
    assert PGD5010().default_step(8 / 255) == pytest.approx(1 / 255)
    assert PGD5010(norm="l2").default_step(80 / 255) == pytest.approx(8 / 255)


def test_what_is_remembered_is_for_training_alone():
    with pytest.raises(ValueError, match=r"The 'init' parameter of PGD5010 must be .*'previous' instead"):
        PGD5010(init="previous").validate()
    with pytest.raises(ValueError, match="'init' parameter of PGD5010"):
        RobustClassifier(attack=PGD5010(init="previous")).fit(np.random.rand(10, 2), np.arange(10) % 2)
    for init in ("auto", "uniform", "normal", "zero"):
        PGD5010(init=init).validate()


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
