"""Ways back to a perceptual bound: every sample arrives, and those inside stay."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sklearn_acs.attacks.features import looking
from sklearn_acs.attacks.perceptual_ball import PROJECTIONS, PerceptualBall
from sklearn_acs.models import mlp, preact_resnet18

CLIP = (0.0, 1.0)
WAYS = sorted(PROJECTIONS)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def conv_features(seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU())

    def features(x):
        with looking(network.requires_grad_(False)) as look:
            return look(x)[1]

    return features


def make_ball(features, x, bound=0.5, clip=CLIP, scale=1.0):
    with torch.no_grad():
        return PerceptualBall(features, x, features(x), bound, clip, scale)


def distance(ball, x_adv):
    with torch.no_grad():
        return ball.distance(ball.features(x_adv))


@pytest.mark.parametrize("way", WAYS)
@given(
    seed=st.integers(0, 10_000),
    bound=st.floats(0.01, 1.5),
    reach=st.floats(0.001, 1.0),
    clip=st.sampled_from([CLIP, None]),
)
@settings(max_examples=25, deadline=None)
def test_every_sample_is_within_the_bound_and_the_box(way, seed, bound, reach, clip):
    x = torch.rand(6, 1, 7, 7, generator=seeded(seed))
    ball = make_ball(conv_features(seed), x, bound, clip)
    x_adv = ball.cut(x + reach * torch.randn(x.shape, generator=seeded(seed + 1)))
    result = PROJECTIONS[way](ball, x_adv)
    assert (distance(ball, result) <= bound).all()
    assert not result.requires_grad
    if clip:
        assert result.min() >= 0 and result.max() <= 1


@pytest.mark.parametrize("way", WAYS)
def test_samples_inside_stay_as_they_are(way):
    x = torch.rand(6, 1, 7, 7, generator=seeded())
    ball = make_ball(conv_features(0), x)
    x_adv = ball.cut(x + torch.tensor([1e-4, 1.0] * 3).reshape(6, 1, 1, 1) * torch.randn(x.shape, generator=seeded(1)))
    inside = distance(ball, x_adv) <= 0.4999
    assert inside.tolist() == [True, False] * 3
    assert torch.equal(PROJECTIONS[way](ball, x_adv)[inside], x_adv[inside])


def test_newton_stops_close_to_the_bound():
    x = 3 + torch.rand(50, 5, generator=seeded())
    ball = make_ball(lambda x: x.square(), x, 2.0, None)
    start = ball.cut(x + torch.randn(x.shape, generator=seeded(1)))
    outside = distance(ball, start) > 2
    assert outside.sum() > 25
    assert distance(ball, ball.newton(start))[outside].mean() > 0.96 * 2


def test_bisection_ends_within_a_thousandth_of_the_bound_where_distance_grows_along_the_segment():
    x = torch.zeros(4, 3)
    ball = make_ball(lambda x: x, x, 0.5, None)
    result = ball.bisection(torch.eye(4, 3))
    assert distance(ball, result)[:3].numpy() == pytest.approx(0.5, abs=1e-3)


def test_samples_without_a_gradient_are_halved_back():
    x = torch.full((4, 3), 0.5)
    ball = make_ball(lambda x: (10 * x).round() / 10 + 0 * x, x, 0.2)
    result = ball.newton(torch.ones(4, 3))
    assert (distance(ball, result) <= 0.2).all()
    assert (result > 0.5).all()


def test_a_sample_that_newton_fails_on_leaves_the_others_alone():
    # The first sample's features are steps, where Newton has nothing to go by; the second's are smooth.
    def features(x):
        stepped = (10 * x).round() / 10 + 0 * x
        return torch.where(x[:, :1] > 0.9, stepped, x.square())

    x = torch.tensor([[0.95, 0.5, 0.5], [0.2, 0.5, 0.5]])
    x_adv = torch.tensor([[0.95, 1.0, 1.0], [0.2, 1.0, 0.9]])
    together = make_ball(features, x, 0.2).newton(x_adv)
    alone = make_ball(features, x[1:], 0.2).newton(x_adv[1:])
    torch.testing.assert_close(together[1:], alone)
    assert (distance(make_ball(features, x, 0.2), together) <= 0.2).all()


@pytest.mark.parametrize("way", WAYS)
def test_a_samples_way_does_not_depend_on_the_others(way):
    x = torch.rand(6, 1, 7, 7, generator=seeded())
    x_adv = x + 0.3 * torch.rand(x.shape, generator=seeded(1))
    features = conv_features(0)
    together = PROJECTIONS[way](make_ball(features, x, 0.2), x_adv)
    alone = [PROJECTIONS[way](make_ball(features, x[i : i + 1], 0.2), x_adv[i : i + 1]) for i in range(6)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=0)


def test_distance_at_the_centre_has_gradient_0():
    x = torch.rand(3, 1, 7, 7, generator=seeded())
    ball = make_ball(conv_features(0), x)
    point = x.clone().requires_grad_()
    ball.distance(ball.features(point)).sum().backward()
    assert torch.equal(point.grad, torch.zeros_like(x))


def test_without_a_box_no_sample_moves_farther_than_its_unit():
    scale = torch.tensor([1.0, 10.0, 0.1])
    x = torch.zeros(5, 3)
    ball = make_ball(lambda x: x, x, 1e9, None, scale)
    result = ball.cut(torch.randn(5, 3, generator=seeded()) * torch.tensor([0.01, 0.1, 10, 100, 1e6])[:, None])
    size = (result / scale).square().mean(1).sqrt()
    assert (size <= 1 + 1e-6).all()
    assert size[-2:].numpy() == pytest.approx(1)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("network", ["mlp", "preact_resnet18"])
def test_networks_of_the_library(way, network):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = mlp((1, 16, 16), 4) if network == "mlp" else preact_resnet18((1, 16, 16), 4)
    model.eval().requires_grad_(False)
    x = torch.rand(4, 1, 16, 16, generator=seeded())
    with looking(model) as look:
        ball = make_ball(lambda x: look(x)[1], x, 0.1)
        result = PROJECTIONS[way](ball, torch.rand(x.shape, generator=seeded(1)))
        assert (distance(ball, result) <= 0.1).all()
