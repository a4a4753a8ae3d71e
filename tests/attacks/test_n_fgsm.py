"""N-FGSM: its formula by hand, that it leaves the ball and not the box, and what measures robustness against it."""

import copy

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from torch import nn
from torch.nn import functional as F

from sklearn_acs import NFGSM, PGD, RobustClassifier
from sklearn_acs.models import frozen

SHAPE = (2, 4, 4)
ARRAY_EPS = np.linspace(0, 0.2, 32).reshape(SHAPE)
ORDER = {"linf": np.inf, "l2": 2, "l1": 1}


def make_model():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(96, 3)
        )
        model(torch.rand(50, *SHAPE))
    return model


def make_batch(n=16):
    rng = torch.Generator().manual_seed(1)
    return torch.rand(n, *SHAPE, generator=rng), torch.randint(3, (n,), generator=rng)


def input_gradient(model, x, y):
    x = x.clone().requires_grad_()
    with frozen(model):
        F.cross_entropy(model(x), y).backward()
    return x.grad


def length(delta, norm):
    return torch.linalg.vector_norm(delta.flatten(1), ord=ORDER[norm], dim=1)


def inputs_of(model, attack, x, y, **options):
    """What the attack sends through the model, and its result."""
    seen = []
    handle = model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach().clone()))
    x_adv = attack.perturb(model, x, y, **options)
    handle.remove()
    return seen, x_adv


def test_it_is_noise_of_twice_eps_and_a_step_of_eps_cut_to_the_box_alone():
    model, (x, y) = make_model(), make_batch()
    (noisy,), x_adv = inputs_of(model, NFGSM(eps=0.1), x, y, clip=(0, 1))
    torch.testing.assert_close(x_adv, (noisy + 0.1 * input_gradient(model, noisy, y).sign()).clamp(0, 1))
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) * 0.4 - 0.2
    torch.testing.assert_close(noisy, (x + noise).clamp(0, 1))


@pytest.mark.parametrize("noise", [1.0, 2.0])
def test_the_noise_is_uniform(noise):
    x, y = make_batch(200)
    (noisy,), _ = inputs_of(make_model(), NFGSM(eps=0.1, noise=noise), x, y)
    quartiles = torch.quantile((noisy - x).flatten(), torch.tensor([0.25, 0.5, 0.75]))
    assert quartiles.numpy() == pytest.approx(noise * np.array([-0.05, 0, 0.05]), abs=0.005)


@pytest.mark.parametrize("norm", ORDER)
def test_examples_leave_the_ball_and_are_at_most_noise_plus_a_step_away(norm):
    x, y = make_batch()
    (noisy,), x_adv = inputs_of(make_model(), NFGSM(eps=0.1, norm=norm), x, y)
    assert length(noisy - x, norm).max() <= 0.2 + 1e-5
    np.testing.assert_allclose(length(x_adv - noisy, norm), 0.1, rtol=1e-4)
    assert length(x_adv - x, norm).min() > 0.1
    assert length(x_adv - x, norm).max() <= 0.3 + 1e-5


@pytest.mark.parametrize("clip", [(0.0, 1.0), (-0.4242, 2.8215)])
@pytest.mark.parametrize("norm", ORDER)
def test_examples_stay_in_the_box(norm, clip):
    x, y = make_batch(200)
    x = (clip[0] + (clip[1] - clip[0]) * x).clamp(*clip)
    x_adv = NFGSM(eps=3.0, norm=norm).perturb(make_model(), x, y, clip=clip)
    assert x_adv.min() >= torch.tensor(clip[0])
    assert x_adv.max() <= torch.tensor(clip[1])


def test_each_feature_may_have_its_own_radius():
    model, (x, y) = make_model(), make_batch(200)
    (noisy,), x_adv = inputs_of(model, NFGSM(eps=ARRAY_EPS), x, y)
    eps = torch.tensor(ARRAY_EPS, dtype=torch.float32)
    torch.testing.assert_close(x_adv, noisy + eps * input_gradient(model, noisy, y).sign())
    np.testing.assert_allclose((noisy - x).abs().amax(0), 2 * eps, rtol=0.05, atol=1e-6)


def test_a_step_size_given_is_taken_and_so_is_a_start():
    model, (x, y) = make_model(), make_batch()
    start = 0.3 * torch.rand(x.shape) - 0.15
    x_adv = NFGSM(eps=0.1, step_size=0.03).perturb(model, x, y, start=start)
    torch.testing.assert_close(x_adv, x + start + 0.03 * input_gradient(model, x + start, y).sign())


def test_it_costs_one_forward_and_one_backward_pass_and_leaves_the_model_as_it_was():
    model, (x, y) = make_model().train(), make_batch()
    before = copy.deepcopy(model.state_dict())
    backwards = []
    handle = model.register_forward_hook(
        lambda module, inputs, logits: logits.register_hook(lambda gradient: backwards.append(len(gradient))) and None
    )
    seen, x_adv = inputs_of(model, NFGSM(eps=0.1), x, y)
    handle.remove()
    assert [len(inputs) for inputs in seen] == backwards == [16]
    assert model.training
    assert not x_adv.requires_grad
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_robustness_is_measured_with_pgd_in_the_ball():
    X, y = load_iris(return_X_y=True)
    clf = RobustClassifier(attack=NFGSM(eps=0.3), selector=None, max_epochs=20, random_state=0).fit(X, y)
    moved = np.abs(clf.perturb(X, y) - X).max()
    assert 0.25 < moved < 0.3 + 1e-5
    assert clf.robust_score(X, y) == clf.robust_score(X, y, attack=PGD(eps=0.3))
    assert NFGSM(eps=0.3, norm="l2").for_evaluation().get_params() == PGD(eps=0.3, norm="l2").get_params()


@pytest.mark.parametrize("objective", ["adversarial", "trades"])
def test_by_name_its_radius_is_fitted_to_a_table(objective):
    X, y = load_iris(return_X_y=True)
    clf = RobustClassifier(objective=objective, attack="n-fgsm", max_epochs=2, random_state=0).fit(X, y)
    np.testing.assert_allclose(clf.attack_.eps, 0.1 * X.std(0), rtol=1e-5)


@pytest.mark.parametrize(
    ("attack", "name", "value"),
    [
        (NFGSM(eps=0), "eps", "0"),
        (NFGSM(eps=[0.1, 0.2], norm="l2"), "eps", "l2"),
        (NFGSM(noise=0), "noise", "0"),
        (NFGSM(noise="much"), "noise", "much"),
        (NFGSM(step_size=-1), "step_size", "-1"),
        (NFGSM(norm="l3"), "norm", "l3"),
    ],
    ids=repr,
)
def test_bad_parameter_is_named_with_its_value(attack, name, value):
    with pytest.raises(ValueError, match=name) as error:
        attack.validate()
    assert value in str(error.value)
