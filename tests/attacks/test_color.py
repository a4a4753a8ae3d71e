"""ReColor: the colour space against known values, the function of colour, and how far it may change one."""

import numpy as np
import pytest
import torch
from scipy.interpolate import RegularGridInterpolator
from torch import nn

from sklearn_acs import ReColor
from sklearn_acs.attacks import color
from sklearn_acs.attacks.color import NODES, luv_of_rgb, recolor, rgb_of_luv

CLIP = (0.0, 1.0)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def make_model():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 6, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 3))


def make_batch(low=0.0, high=1.0, n=6):
    return low + (high - low) * torch.rand(n, 3, 12, 12, generator=seeded()), torch.arange(n) % 3


# Colours


@pytest.mark.parametrize(
    ("rgb", "luv"),
    [
        ((1, 0, 0), (53.24, 175.01, 37.76)),
        ((0, 1, 0), (87.73, -83.08, 107.40)),
        ((0, 0, 1), (32.30, -9.40, -130.35)),
        ((1, 1, 1), (100, 0, 0)),
        ((0.5, 0.5, 0.5), (53.39, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
    ],
)
def test_colours_have_their_known_coordinates(rgb, luv):
    found = luv_of_rgb(torch.tensor(rgb, dtype=torch.float64).reshape(1, 3, 1, 1)).flatten()
    lightness, u, v = (100 * found[0], 200 * found[1] - 100, 200 * found[2] - 100)
    np.testing.assert_allclose([lightness, u, v], luv, atol=0.05)  # as tables have them, for slightly different whites


def test_all_colours_of_a_screen_survive_the_round_trip():
    levels = torch.linspace(0, 1, 33)
    rgb = torch.stack(torch.meshgrid(levels, levels, levels, indexing="ij")).reshape(1, 3, 33, -1)
    torch.testing.assert_close(rgb_of_luv(luv_of_rgb(rgb)), rgb, atol=3e-5, rtol=0)
    dark = rgb / 255
    torch.testing.assert_close(rgb_of_luv(luv_of_rgb(dark)), dark, atol=3e-5, rtol=0)


def test_gradients_are_finite_even_for_colours_that_do_not_exist():
    luv = (3 * torch.rand(1, 3, 50, 50, generator=seeded()) - 1).requires_grad_()
    black = torch.tensor([0.0, 0.5, 0.5]).reshape(1, 3, 1, 1).requires_grad_()
    for colour in (luv, black):
        rgb = rgb_of_luv(colour)
        assert ((rgb >= 0) & (rgb <= 1)).all()
        assert torch.autograd.grad(rgb.sum(), colour)[0].isfinite().all()


# The function


@pytest.mark.parametrize("size", [(28, 28), (8, 8), (33, 47)])
def test_no_change_of_nodes_is_no_change_of_the_image(size):
    x = torch.rand(3, 3, *size, generator=seeded())
    same = rgb_of_luv(recolor(luv_of_rgb(x), torch.zeros(3, 3, *NODES)))
    torch.testing.assert_close(same, x, atol=3e-5, rtol=0)


def test_recolour_is_trilinear_between_nodes():
    luv = 1.2 * torch.rand(1, 3, 9, 7, generator=seeded(), dtype=torch.float64) - 0.1
    delta = torch.rand(1, 3, *NODES, generator=seeded(1), dtype=torch.float64)
    axes = [np.linspace(0, 1, n) for n in NODES]
    at = luv[0].permute(1, 2, 0).numpy()
    for component in range(3):
        table = RegularGridInterpolator(axes, delta[0, component].numpy())
        expected = at[..., component] + table(at.clip(0, 1))
        np.testing.assert_allclose(recolor(luv, delta)[0, component].numpy(), expected, atol=1e-10)


def test_equal_colours_stay_equal():
    x, y = make_batch()
    x[:, :, 6:] = x[:, :, :6].flip(2)
    x_adv = ReColor(steps=5, step_size=0.02).perturb(make_model(), x, y, clip=CLIP)
    assert (x_adv != x).any()
    torch.testing.assert_close(x_adv[:, :, 6:], x_adv[:, :, :6].flip(2), atol=1e-6, rtol=0)


# The bound


def test_no_colour_moves_farther_than_the_bound():
    # Colours from which no change of this size leaves those of a screen, where they would be cut.
    x, y = make_batch(0.4, 0.6)
    attack = ReColor(bound=0.06, steps=20, step_size=0.01, smoothness=0.0)
    moved = (luv_of_rgb(attack.perturb(make_model(), x, y, clip=CLIP)) - luv_of_rgb(x)).abs().amax((1, 2, 3))
    assert (moved <= 0.06 + 1e-5).all()
    assert (moved > 0.9 * 0.06).all()


def test_no_node_moves_farther_than_the_bound(monkeypatch):
    moved = []

    def watched(luv, delta):
        moved.append(delta.detach().abs().amax().item())
        return recolor(luv, delta)

    monkeypatch.setattr(color, "recolor", watched)
    x, y = make_batch()
    ReColor(bound=0.06, steps=10, step_size=0.02, smoothness=0.0).perturb(make_model(), x, y, clip=CLIP)
    assert moved[0] == 0
    assert max(moved) == pytest.approx(0.06)


@pytest.mark.parametrize("brightest", [0.0, 0.02, 0.1, 1.0])
def test_colours_that_a_screen_lacks_are_cut_to_near_ones(brightest):
    rgb = brightest * torch.rand(1, 3, 100, 100, generator=seeded(), dtype=torch.float64)
    luv = luv_of_rgb(rgb)
    changed = luv + 0.06 * (2 * torch.rand(luv.shape, generator=seeded(1), dtype=torch.float64) - 1)
    moved = (luv_of_rgb(rgb_of_luv(changed)) - luv).abs()
    assert moved.max() < 0.06 * 2
    assert rgb_of_luv(changed).max() <= brightest + 0.4


@pytest.mark.parametrize("brightest", [0.0, 0.02, 0.1])
def test_dark_images_stay_dark(brightest):
    class Blue(nn.Module):
        def forward(self, x):
            return torch.stack([torch.zeros(len(x)), x[:, 2].mean((1, 2))], dim=1)

    x, _ = make_batch(0.0, brightest)
    x_adv = ReColor(steps=30).perturb(Blue(), x, torch.zeros(6, dtype=torch.long), clip=CLIP)
    assert x_adv.max() < 0.3
    assert (luv_of_rgb(x_adv) - luv_of_rgb(x)).abs().max() < 2 * 0.06


def test_without_a_box_it_is_that_of_images():
    x, y = make_batch()
    attack = ReColor(steps=3, step_size=0.02)
    assert torch.equal(attack.perturb(make_model(), x, y), attack.perturb(make_model(), x, y, clip=CLIP))


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_images_that_are_not_in_colour_are_refused(channels):
    x = torch.rand(2, channels, 8, 8)
    with pytest.raises(ValueError, match=rf"3 colour channels; got samples of shape \({channels}, 8, 8\)"):
        ReColor().perturb(make_model(), x, torch.zeros(2, dtype=torch.long), clip=CLIP)


def test_it_draws_no_random_numbers():
    x, y = make_batch()
    attack = ReColor(steps=3, step_size=0.02)
    one, two = (attack.perturb(make_model(), x, y, clip=CLIP, generator=seeded(seed)) for seed in (1, 2))
    assert torch.equal(one, two)


def test_a_name_means_the_published_settings():
    assert ReColor().get_params() == {"bound": 0.06, "steps": 100, "step_size": 0.001, "smoothness": 0.0036}
