"""Starts, steps and projections of the balls, against what the geometry of each norm says they must be."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import kstest

from sklearn_acs.attacks.balls import BALLS, NORMAL_START, L1Ball, L2Ball, LinfBall

ORDER = {"linf": np.inf, "l2": 2, "l1": 1}
DUAL = {"linf": 1, "l2": 2, "l1": np.inf}
EPS = 0.7


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def size(delta, norm):
    """Norm of each sample's perturbation."""
    return torch.linalg.vector_norm(delta.flatten(1), ord=ORDER[norm], dim=1)


def random_images(n, low=0.0, high=1.0, shape=(2, 3, 4), dtype=torch.float64):
    return low + (high - low) * torch.rand(n, *shape, generator=seeded(1), dtype=dtype)


# Starts


@pytest.mark.parametrize("norm", BALLS)
def test_uniform_start_gives_every_shell_its_share_of_the_volume(norm):
    # Uniform in the unit ball of any norm in d dimensions means that radius ** d is uniform in [0, 1].
    x = torch.zeros(20_000, 2, 3, dtype=torch.float64)
    radius = size(BALLS[norm](x, EPS, None).uniform(seeded()), norm) / EPS
    assert (radius**6).mean() == pytest.approx(0.5, abs=0.01)
    assert kstest(radius.numpy() ** 6, "uniform").pvalue > 0.01


@pytest.mark.parametrize("norm", BALLS)
def test_uniform_start_is_never_outside_the_ball(norm):
    x = torch.zeros(20_000, 2, 3)
    assert size(BALLS[norm](x, EPS, None).uniform(seeded()), norm).max() <= EPS * (1 + 1e-6)


@pytest.mark.parametrize("norm", BALLS)
def test_uniform_start_prefers_no_direction(norm):
    delta = BALLS[norm](torch.zeros(20_000, 3, dtype=torch.float64), EPS, None).uniform(seeded())
    octants = (delta > 0).long() @ torch.tensor([1, 2, 4])
    assert (torch.bincount(octants, minlength=8) / len(delta)).numpy() == pytest.approx([1 / 8] * 8, abs=0.01)


def test_l1_start_is_not_on_the_surface():
    delta = L1Ball(torch.zeros(2_000, 2, dtype=torch.float64), EPS, None).uniform(seeded())
    # Half the volume of the plane's ball lies within radius eps / sqrt(2).
    assert (size(delta, "l1") < EPS / 2**0.5).double().mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("norm", BALLS)
def test_zero_start_is_the_sample(norm):
    assert not BALLS[norm](random_images(5), EPS, (0, 1)).start("zero", seeded()).any()


def test_normal_start_has_a_thousandth_of_standard_deviation_per_pixel():
    delta = LinfBall(torch.zeros(50, 1_000, dtype=torch.float64), EPS, None).start("normal", seeded())
    assert kstest(delta.flatten().numpy() / NORMAL_START, "norm").pvalue > 0.01
    assert NORMAL_START == 0.001


@pytest.mark.parametrize("norm", BALLS)
def test_normal_start_stays_in_a_ball_smaller_than_itself(norm):
    delta = BALLS[norm](random_images(50), 1e-4, None).start("normal", seeded())
    assert size(delta, norm).max() <= 1e-4 * (1 + 1e-9)


@pytest.mark.parametrize("init", ["uniform", "normal", "zero"])
@pytest.mark.parametrize("norm", BALLS)
def test_start_stays_in_the_box(norm, init):
    x = random_images(50)
    x[:, 0], x[:, 1] = 0, 1
    x_adv = x + BALLS[norm](x, 3.0, (0, 1)).start(init, seeded())
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1


def test_array_eps_starts_within_each_features_own_bound():
    eps = torch.tensor([0.0, 0.1, 5.0])
    delta = LinfBall(torch.zeros(5_000, 3), eps, None).start("uniform", seeded())
    assert delta.abs().amax(0).numpy() == pytest.approx(eps.numpy(), rel=0.01)


# Steps


@pytest.mark.parametrize("norm", BALLS)
def test_step_has_the_length_asked_for(norm):
    x, gradient = random_images(6), torch.randn(6, 2, 3, 4, generator=seeded(), dtype=torch.float64)
    step = BALLS[norm](x, EPS, None).ascend(torch.zeros_like(x), gradient, 0.3)
    assert size(step, norm).numpy() == pytest.approx([0.3] * 6)


@pytest.mark.parametrize("norm", BALLS)
def test_step_is_the_steepest_of_its_length(norm):
    # Among steps of length s, s times the dual norm of the gradient is the most that the loss can rise. Eight
    # coordinates: 5 % of them is one, which makes the l1 step exact too.
    gradient = torch.randn(6, 2, 4, generator=seeded(), dtype=torch.float64)
    x = torch.zeros_like(gradient)
    rise = (BALLS[norm](x, EPS, None).ascend(x, gradient, 0.3) * gradient).flatten(1).sum(1)
    most = 0.3 * torch.linalg.vector_norm(gradient.flatten(1), ord=DUAL[norm], dim=1)
    assert rise.numpy() == pytest.approx(most.numpy())


@pytest.mark.parametrize("norm", BALLS)
def test_step_adds_to_the_perturbation_before(norm):
    x, gradient = random_images(3), torch.randn(3, 2, 3, 4, generator=seeded(), dtype=torch.float64)
    before = 0.01 * random_images(3)
    ball = BALLS[norm](x, EPS, None)
    from_zero = ball.ascend(torch.zeros_like(x), gradient, 0.3)
    torch.testing.assert_close(ball.ascend(before, gradient, 0.3), before + from_zero)


@pytest.mark.parametrize("norm", BALLS)
def test_step_without_a_gradient_is_finite(norm):
    x = random_images(3)
    assert BALLS[norm](x, EPS, (0, 1)).ascend(torch.zeros_like(x), torch.zeros_like(x), 0.3).isfinite().all()


def test_l1_step_moves_the_steepest_five_percent_by_equal_amounts():
    gradient = torch.randn(4, 100, generator=seeded(), dtype=torch.float64)
    x = torch.full_like(gradient, 0.5)
    step = L1Ball(x, EPS, (0, 1)).ascend(torch.zeros_like(x), gradient, 0.1)
    for moved, slope in zip(step.numpy(), gradient.numpy(), strict=True):
        steepest = np.argsort(-np.abs(slope))[:5]
        expected = np.zeros(100)
        expected[steepest] = 0.1 / 5 * np.sign(slope[steepest])
        np.testing.assert_allclose(moved, expected, atol=1e-15)


def test_l1_step_gives_the_place_of_a_coordinate_stuck_at_the_box_to_another():
    x = torch.tensor([[0.0, 1.0, 0.5, 0.5]])
    gradient = torch.tensor([[-9.0, 8.0, -2.0, 1.0]])  # the two steepest would leave the box
    step = L1Ball(x, EPS, (0, 1)).ascend(torch.zeros_like(x), gradient, 0.1)
    torch.testing.assert_close(step, torch.tensor([[0.0, 0.0, -0.1, 0.0]]))


def test_l1_step_lets_a_coordinate_at_the_box_come_back():
    x = torch.tensor([[0.0, 1.0, 0.5, 0.5]])
    step = L1Ball(x, EPS, (0, 1)).ascend(torch.zeros_like(x), torch.tensor([[9.0, 8.0, -2.0, 1.0]]), 0.1)
    torch.testing.assert_close(step, torch.tensor([[0.1, 0.0, 0.0, 0.0]]))


def test_l1_step_knows_a_stuck_coordinate_whatever_the_rounding_of_the_box():
    # x + (high - x) is not always high in floating point; the coordinate is stuck nevertheless.
    clip = (-0.4242, 2.8215)
    x = random_images(2_000, *clip, shape=(1,), dtype=torch.float32)
    ball = L1Ball(x, 10.0, clip)
    top = ball.project(torch.full_like(x, 10.0))
    assert torch.equal(ball.ascend(top, torch.ones_like(x), 0.5), top)


# Projections


@pytest.mark.parametrize("clip", [None, (0.0, 1.0), (-0.4242, 2.8215)])
@pytest.mark.parametrize("norm", BALLS)
def test_projection_ends_in_ball_and_box(norm, clip):
    x = random_images(200, *(clip or (0, 1)))
    delta = BALLS[norm](x, EPS, clip).project(3 * torch.randn(x.shape, generator=seeded(), dtype=x.dtype))
    assert size(delta, norm).max() <= EPS * (1 + 1e-9)
    if clip is not None:
        assert (x + delta).min() >= clip[0] - 1e-12
        assert (x + delta).max() <= clip[1] + 1e-12


@pytest.mark.parametrize("norm", BALLS)
def test_projection_leaves_what_is_inside(norm):
    x = torch.full((50, 2, 3), 0.5, dtype=torch.float64)
    inside = 0.5 * BALLS[norm](x, EPS, (0, 1)).uniform(seeded())
    torch.testing.assert_close(BALLS[norm](x, EPS, (0, 1)).project(inside), inside, atol=1e-12, rtol=0)


@pytest.mark.parametrize("norm", BALLS)
@settings(deadline=None, max_examples=100)
@given(given_point=arrays(np.float64, (2, 6), elements=st.floats(-3, 3)), eps=st.floats(0.01, 5))
def test_projection_is_the_nearest_point_of_the_ball(norm, given_point, eps):
    # p is the nearest point of a convex set to v if and only if <v - p, z - p> <= 0 for every z in the set; the
    # largest <v - p, z> over the ball is eps times the dual norm of v - p.
    v = torch.from_numpy(given_point)
    p = BALLS[norm](torch.zeros_like(v), eps, None).project(v)
    farthest = eps * torch.linalg.vector_norm(v - p, ord=DUAL[norm], dim=1)
    assert size(p, norm).max() <= eps * (1 + 1e-9)
    assert (farthest - ((v - p) * p).sum(1)).max() <= 1e-9


def test_projection_to_a_bound_per_feature_clamps_each_one():
    eps = torch.tensor([0.0, 0.1, 5.0])
    delta = LinfBall(torch.zeros(1, 3), eps, None).project(torch.tensor([[1.0, -1.0, 1.0]]))
    torch.testing.assert_close(delta, torch.tensor([[0.0, -0.1, 1.0]]))


def test_samples_are_projected_independently():
    v = torch.tensor([[3.0, 4.0], [0.3, 0.4]])
    expected = torch.tensor([[0.6, 0.8], [0.3, 0.4]])
    torch.testing.assert_close(L2Ball(torch.zeros(2, 2), 1.0, None).project(v), expected)
