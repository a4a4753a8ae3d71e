"""StAdv: how far pixels move, and from where they are fetched."""

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch import nn

from sklearn_acs import StAdv
from sklearn_acs.attacks.spatial import warp


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def make_model(channels):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(channels, 6, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(96, 3)
        )


SIZES = pytest.mark.parametrize("size", [(28, 28), (8, 8), (33, 47)])


@SIZES
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_no_flow_is_no_change(size, channels):
    x = torch.rand(3, channels, *size, generator=seeded())
    torch.testing.assert_close(warp(x, torch.zeros(3, 2, *size)), x, atol=1e-5, rtol=0)


@SIZES
def test_warp_is_bilinear_with_edges_continued(size):
    x = torch.rand(1, 1, *size, generator=seeded(), dtype=torch.float64)
    flow = torch.rand(1, 2, *size, generator=seeded(1), dtype=torch.float64) - 0.5
    rows, columns = np.indices(size)
    rows = rows + flow[0, 1].numpy() * size[0] / 2
    columns = columns + flow[0, 0].numpy() * size[1] / 2
    expected = map_coordinates(x[0, 0].numpy(), [rows, columns], order=1, mode="nearest")
    np.testing.assert_allclose(warp(x, flow)[0, 0].numpy(), expected, atol=1e-10)


def test_two_pixels_in_x_and_one_in_y():
    x = torch.rand(1, 3, 10, 20, generator=seeded())
    flow = torch.tensor([2 * 2 / 20, -1 * 2 / 10]).reshape(1, 2, 1, 1).expand(1, 2, 10, 20)
    torch.testing.assert_close(warp(x, flow)[:, :, 1:, :-2], x[:, :, :-1, 2:], atol=1e-5, rtol=0)


@SIZES
def test_no_pixel_moves_farther_than_the_bound(size):
    # The first channel says how far right a pixel comes from, the second how far down; beyond edges neither tells.
    down, across = ((2 * torch.arange(side) + 1) / side - 1 for side in size)
    x = torch.stack([across.expand(size), down[:, None].expand(size)]).repeat(6, 1, 1, 1)
    x = torch.cat([x, torch.rand(6, 1, *size, generator=seeded())], dim=1)
    bound = 0.2
    attack = StAdv(bound=bound, steps=15, step_size=0.05, smoothness=1e-4)
    moved = (attack.perturb(make_model(3), x, torch.arange(6) % 3) - x)[:, :2].abs().amax((1, 2, 3))
    assert (moved <= bound + 1e-5).all()
    assert (moved > 0.9 * bound).all()


def test_values_are_those_of_the_image():
    x = 0.2 + 0.5 * torch.rand(6, 1, 8, 8, generator=seeded())
    x_adv = StAdv(bound=0.5, step_size=0.1).perturb(make_model(1), x, torch.arange(6) % 3)
    assert (x_adv.amax((1, 2, 3)) <= x.amax((1, 2, 3)) + 1e-6).all()
    assert (x_adv.amin((1, 2, 3)) >= x.amin((1, 2, 3)) - 1e-6).all()


def test_it_draws_no_random_numbers():
    x, y = torch.rand(6, 1, 8, 8, generator=seeded()), torch.arange(6) % 3
    one, two = (StAdv(bound=0.2, steps=3).perturb(make_model(1), x, y, generator=seeded(seed)) for seed in (1, 2))
    assert torch.equal(one, two)


def test_a_name_means_the_published_settings():
    assert StAdv().get_params() == {"bound": 0.02, "steps": 50, "step_size": 0.01, "smoothness": 0.0025}
