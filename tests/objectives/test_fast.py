"""Single-step training: which attack, GradAlign against second derivatives made otherwise, and what it leaves alone."""

import copy

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_iris
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from sklearn_acs import FGSM, NFGSM, PGD, Attack, BulletTrain, FastAT, RobustClassifier

X = (load_digits(n_class=4).images / 16).astype(np.float32)[:96]
y = load_digits(n_class=4).target[:96]
CLIP = (0.0, 1.0)


def fit(objective, **params):
    settings = {"selector": None, "max_epochs": 3, "attack__eps": 0.1, "batch_size": 32, "random_state": 0}
    return RobustClassifier(objective=objective, **{**settings, **params}).fit(X, y)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def build(*layers):
    """Modules made from a fixed seed, in float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(*(layer() for layer in layers)).double().train()


def make_smooth():
    return build(lambda: nn.Linear(5, 7), nn.Tanh, lambda: nn.Linear(7, 4))


def make_normalised():
    return build(lambda: nn.Linear(5, 7), lambda: nn.BatchNorm1d(7), nn.Tanh, lambda: nn.Linear(7, 4))


def make_batch(n=9):
    rng = seeded(1)
    return torch.rand(n, 5, generator=rng, dtype=torch.float64), torch.randint(4, (n,), generator=rng)


def penalty(model, x, y, gradalign=1.0, attack=None, clip=CLIP):
    attack = attack or PGD(eps=0.3)
    return FastAT(gradalign=gradalign).penalty(model, x, y, attack=attack, clip=clip, generator=seeded())


def moved(x, eps=0.3):
    """The second point: uniform in the ball and cut to the box."""
    return (x + eps * (2 * torch.rand(x.shape, generator=seeded(), dtype=x.dtype) - 1)).clamp(0, 1)


# Which attack


@pytest.mark.parametrize(
    ("start", "expected"), [("random", FGSM(random_start=True)), ("noise", NFGSM()), ("zero", FGSM())]
)
def test_start_says_which_attack(start, expected):
    assert repr(FastAT(start).default_attack()) == repr(expected)
    expected.set_params(eps=0.1)
    assert repr(fit(FastAT(start), max_epochs=1).attack_) == repr(expected)


def test_an_attack_given_wins():
    clf = RobustClassifier(objective=FastAT("noise", attack=PGD(eps=0.1, steps=2)), max_epochs=1).fit(X, y)
    assert clf.attack_.steps == 2
    clf = RobustClassifier(objective=FastAT("noise"), attack="fgsm", max_epochs=1).fit(X, y)
    assert type(clf.attack_) is FGSM


@pytest.mark.parametrize("start", ["random", "noise", "zero"])
def test_by_name_its_radius_is_fitted_to_a_table(start):
    X, y = load_iris(return_X_y=True)
    clf = RobustClassifier(objective="fast", objective__start=start, max_epochs=2, random_state=0).fit(X, y)
    np.testing.assert_allclose(clf.attack_.eps, 0.1 * X.std(0), rtol=1e-5)


# GradAlign's value and gradient


def test_gradalign_is_one_minus_the_cosine_of_the_two_gradients():
    model, (x, y) = make_smooth(), make_batch()

    def gradient(at):
        return vmap(grad(lambda one, label: F.cross_entropy(model(one[None]), label[None])))(at, y)

    expected = 1 - F.cosine_similarity(gradient(x), gradient(moved(x)))
    got = penalty(model, x, y)
    torch.testing.assert_close(got, expected)
    assert got.min() > 0
    torch.testing.assert_close(penalty(model, x, y, gradalign=2.5), 2.5 * expected)


def test_its_parameter_gradient_is_that_of_the_second_point_alone():
    model, (x, y) = make_smooth(), make_batch()
    weights = torch.linspace(0.5, 2, len(x), dtype=x.dtype)
    (weights * penalty(model, x, y)).sum().backward()
    start = {name: value.detach().clone() for name, value in model.named_parameters()}

    def input_gradient(parameters, at):
        return grad(lambda point: F.cross_entropy(functional_call(model, parameters, (point,)), y, reduction="sum"))(at)

    constant = input_gradient(start, x)

    def by_hand(parameters):
        return (weights * (1 - F.cosine_similarity(constant, input_gradient(parameters, moved(x))))).sum()

    expected = grad(by_hand)(start)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name])
    with torch.no_grad():  # and a difference quotient, in one direction
        rng, h = seeded(3), 1e-6
        step = {name: torch.randn(value.shape, generator=rng, dtype=value.dtype) for name, value in start.items()}
    ahead, behind = ({name: value + sign * h * step[name] for name, value in start.items()} for sign in (1, -1))
    slope = (by_hand(ahead) - by_hand(behind)) / (2 * h)
    assert slope.item() == pytest.approx(sum((expected[name] * step[name]).sum().item() for name in start), rel=1e-5)


def test_the_second_point_is_in_the_ball_and_in_the_box():
    model, (x, y) = make_smooth(), make_batch(50)
    seen = []
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach().clone()))
    for attack, order in ((PGD(eps=0.3), np.inf), (NFGSM(eps=0.3), np.inf), (PGD(eps=0.3, norm="l2"), 2)):
        seen.clear()
        penalty(model, x, y, attack=attack)
        torch.testing.assert_close(seen[0], x)
        assert 0.1 < torch.linalg.vector_norm(seen[1] - x, ord=order, dim=1).max() <= 0.3 + 1e-9
        assert seen[1].min() >= 0
        assert seen[1].max() <= 1


class Gated(nn.Module):
    """A smooth model that is switched off, and flat, where the first feature is below 0.5."""

    def __init__(self):
        super().__init__()
        self.smooth = make_smooth()

    def forward(self, x):
        return self.smooth(x) * (x[:, :1] > 0.5)


def test_a_sample_without_a_gradient_at_either_point_adds_nothing():
    model, (x, y) = Gated(), make_batch(12)
    eta = 0.3 * (2 * torch.rand(x.shape, generator=seeded(), dtype=x.dtype) - 1)[:, 0]
    x[:8, 0] = 0.5 - eta[:8] / 2  # on at one of the points
    x[8:10, 0], x[10:, 0] = 0.0, 1.0
    on_first, on_second = x[:, 0] > 0.5, moved(x)[:, 0] > 0.5
    assert {*zip(on_first.tolist(), on_second.tolist(), strict=True)} == {(a, b) for a in (0, 1) for b in (0, 1)}
    expected = penalty(model.smooth, x, y) * (on_first & on_second)
    got = penalty(model, x, y)
    torch.testing.assert_close(got, expected)
    assert (got > 0).sum() == 2
    got_gradients = torch.autograd.grad(got.sum(), model.parameters())
    for mine, theirs in zip(got_gradients, torch.autograd.grad(expected.sum(), model.parameters()), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_gradients_whose_squares_underflow_count_as_none():
    model, (x, y) = make_smooth().float(), make_batch()
    with torch.no_grad():
        model[2].weight.zero_()[0].fill_(1e-3)
        model[2].bias.copy_(torch.tensor([70.0, 0, 0, 0]))  # probabilities of 4e-31
    got = penalty(model, x.float(), torch.zeros_like(y))
    assert torch.equal(got, torch.zeros_like(got))
    got.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


# What it leaves alone


@pytest.mark.parametrize("momentum", [0.1, None])
def test_statistics_and_gradients_are_left_as_they_were(momentum):
    model, (x, y) = make_normalised(), make_batch()
    model[1].momentum = momentum
    F.cross_entropy(model(x), y).backward()
    state = copy.deepcopy(model.state_dict())
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    penalty(model, x, y)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(p.grad, before) for p, before in zip(model.parameters(), gradients, strict=True))
    assert all(module.training for module in model.modules())


def test_it_looks_at_the_network_in_train_mode():
    """Against the same formula on a copy whose statistics may change."""
    model, (x, y) = make_normalised(), make_batch()
    penalty(model, x, y).sum().backward()
    twin = make_normalised()

    def gradient(at, create_graph):
        at = at.clone().requires_grad_()
        return torch.autograd.grad(F.cross_entropy(twin(at), y), at, create_graph=create_graph)[0]

    expected = 1 - F.cosine_similarity(gradient(x, False), gradient(moved(x), True), eps=1e-30)
    torch.testing.assert_close(penalty(model, x, y), expected)
    expected.sum().backward()
    for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


def test_batchnorm_learns_from_training_alone():
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))
    clf = fit(FastAT(gradalign=0.2), module=module)
    assert clf.net_.module_[2].num_batches_tracked == 3 * 3


def test_global_randomness_is_left_alone(global_randomness):
    before = global_randomness()
    fit(FastAT(gradalign=0.2))
    assert global_randomness() == before


# In training


@pytest.mark.parametrize(("gradalign", "forwards", "backwards"), [(0, 2, 2), (0.2, 4, 5)])
def test_its_passes_are_those_that_the_docstring_says(gradalign, forwards, backwards):
    cost = fit(FastAT(gradalign=gradalign)).cost_["full"]
    assert (cost.forwards, cost.backwards) == (3 * len(X) * forwards, 3 * len(X) * backwards)


@pytest.mark.parametrize("selector", ["gradmatch", "craig"])
@pytest.mark.parametrize("attack", [FGSM(eps=0.1), NFGSM(eps=0.1), BulletTrain(PGD(eps=0.1, steps=2))], ids=repr)
def test_gradalign_goes_with_coresets_and_attacks(selector, attack):
    settings = {"selector": selector, "max_epochs": 4, "select_every": 1, "attack": attack, "random_state": 0}
    one, other = (RobustClassifier(objective=FastAT(gradalign=0.5), **settings).fit(X, y) for _ in range(2))
    np.testing.assert_array_equal(one.predict_proba(X), other.predict_proba(X))
    assert one.coreset_ is not None


class Nowhere(Attack):
    """An attack without a ball."""

    _parameter_constraints = {}

    def _attack(self, problem, start):
        return problem.x.clone()


def test_gradalign_needs_a_ball():
    with pytest.raises(ValueError, match=r"gradalign=0\.2 .* attack=Nowhere\(\)"):
        RobustClassifier(objective=FastAT(gradalign=0.2, guard=None), attack=Nowhere()).fit(X, y)
    RobustClassifier(objective=FastAT(guard=None), attack=Nowhere(), max_epochs=1).fit(X, y)


@pytest.mark.parametrize(
    ("bad", "name", "value"),
    [
        (FastAT("previous"), "start", "previous"),
        (FastAT(gradalign=-0.1), "gradalign", "-0.1"),
        (FastAT(gradalign="auto"), "gradalign", "auto"),
        (FastAT(guard=0), "guard", "0"),
        (FastAT(guard=1.5), "guard", "1.5"),
        (FastAT(attack=3), "attack", "3"),
    ],
    ids=repr,
)
def test_bad_parameter_is_named_with_its_value(bad, name, value):
    with pytest.raises(ValueError, match=name) as error:
        bad.validate()
    assert value in str(error.value)
