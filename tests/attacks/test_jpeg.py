"""JPEG: coefficients against SciPy's transform and Pillow's codec, and how far each may move."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.fft import dctn
from torch import nn

from sklearn_acs import JPEG
from sklearn_acs.attacks.jpeg import coefficients, decode

CLIP = (0.0, 1.0)
SIZES = [(28, 28), (8, 8), (33, 47), (16, 32)]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def make_model(channels=3):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(channels, 6, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(96, 3)
        )


def make_batch(channels=3, size=(32, 32), n=6):
    return torch.rand(n, channels, *size, generator=seeded()), torch.arange(n) % 3


def smooth_image(height, width):
    """Without detail that the codec's integer arithmetic would round to the other side."""
    rows, columns = np.mgrid[:height, :width]
    return np.uint8(127 + 60 * np.sin(rows / 5) + 60 * np.cos(columns / 7))


def through_pillow(image, **options):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=50, **options)
    return Image.open(file)


# Coefficients


@pytest.mark.parametrize("channels", [1, 3])
def test_coefficients_are_cosine_transforms_over_the_tables_of_quality_50(channels):
    luma, chroma = (
        np.reshape(t, (8, 8)) for t in through_pillow(np.zeros((16, 16, 3), np.uint8)).quantization.values()
    )
    x = torch.rand(1, channels, 16, 16, generator=seeded(), dtype=torch.float64)
    flat = coefficients(x)[0].numpy()
    red, green, blue = np.broadcast_to(255 * x[0].numpy(), (3, 16, 16))
    y = 0.299 * red + 0.587 * green + 0.114 * blue
    np.testing.assert_allclose(
        flat[:256].reshape(16, 16)[8:, :8], dctn(y[8:, :8] - 128, norm="ortho") / luma, atol=1e-9
    )
    differences = [(blue - y) / 1.772, (red - y) / 1.402] if channels == 3 else []
    for found, difference in zip(flat[256:].reshape(-1, 8, 8), differences, strict=True):
        half = difference.reshape(8, 2, 8, 2).mean((1, 3))
        np.testing.assert_allclose(found, dctn(half, norm="ortho") / chroma, atol=1e-9)


@pytest.mark.parametrize("size", SIZES)
def test_rounded_coefficients_decode_to_pillows_image(size):
    image = smooth_image(*size)
    x = torch.from_numpy(image).float()[None, None] / 255
    mine = 255 * decode(coefficients(x).round(), (1, *size))[0, 0].numpy() + 128
    assert np.abs(mine - np.asarray(through_pillow(image), dtype=float)).mean() < 1
    assert np.abs(mine - image).max() > 2  # rounding does lose something


@pytest.mark.parametrize("size", SIZES)
def test_unrounded_coefficients_of_a_grey_image_decode_to_it(size):
    x = torch.rand(3, 1, *size, generator=seeded())
    torch.testing.assert_close(decode(coefficients(x), (1, *size)) + 128 / 255, x, atol=1e-5, rtol=0)


def test_unrounded_coefficients_decode_to_the_image_with_colour_at_half_resolution():
    x = torch.rand(3, 3, 16, 32, generator=seeded()).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(decode(coefficients(x), (3, 32, 64)) + 128 / 255, x, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("channels", "n"), [(1, 32 * 48), (3, 32 * 48 + 2 * 16 * 24)])
def test_no_move_is_no_change(channels, n):
    assert torch.equal(decode(torch.zeros(2, n), (channels, 28, 47)), torch.zeros(2, channels, 28, 47))


# The bound


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bound", [0.25, 2.0])
def test_no_coefficient_moves_farther_than_the_bound(channels, bound):
    x, y = make_batch(channels)
    x_adv = JPEG(bound=bound, steps=10).perturb(make_model(channels), x, y)
    moved = (coefficients(x_adv) - coefficients(x)).abs().amax(1)
    assert (moved <= bound / 2 * (1 + 1e-3) + 1e-4).all()
    assert (moved > 0.9 * bound / 2).all()


@pytest.mark.parametrize("size", SIZES)
def test_no_pixel_moves_farther_than_all_coefficients_together_can_move_it(size):
    """Where a part is cut off, coefficients cannot be read back; this bound of pixels holds nevertheless."""
    x, y = make_batch(1, size)
    whole = [-(-side // 16) * 16 for side in size]
    basis = decode(torch.eye(whole[0] * whole[1]), (1, *size))
    moved = (JPEG(bound=0.5, steps=5).perturb(make_model(1), x, y) - x).abs().amax(0)
    assert (moved <= 0.5 / 2 * basis.abs().sum(0) + 1e-5).all()


def test_steps_are_the_published_share_of_the_bound():
    model, (x, y), seen = make_model(), make_batch(), []
    model.register_forward_pre_hook(lambda m, inputs: seen.append(inputs[0].detach().clone()))
    JPEG(bound=0.5, steps=4).perturb(model, x, y, start=torch.zeros(6, 1536))
    torch.testing.assert_close(seen[0], x)
    first = (coefficients(seen[1]) - coefficients(seen[0])).abs()
    torch.testing.assert_close(first, torch.full_like(first, 0.5 / 4**0.5 / 2), atol=1e-4, rtol=0)


def test_starts_are_uniform_and_depend_on_the_generator():
    model, (x, y), seen = make_model(1), make_batch(1), []
    model.register_forward_pre_hook(lambda m, inputs: seen.append(inputs[0].detach().clone()))
    JPEG(bound=1.0, steps=1, restarts=1).perturb(model, x, y)
    start = (coefficients(seen[0]) - coefficients(x)).flatten()
    quartiles = torch.quantile(start, torch.tensor([0.25, 0.5, 0.75]))
    assert quartiles.numpy() == pytest.approx([-0.25, 0, 0.25], abs=0.02)
    one, two = (JPEG(steps=1).perturb(make_model(1), x, y, generator=seeded(seed)) for seed in (1, 2))
    assert not torch.equal(one, two)


def test_more_restarts_never_leave_fewer_broken():
    model, (x, _) = make_model(1), make_batch(1, n=60)
    y = model(x).argmax(1)
    right = [
        model(JPEG(bound=0.3, steps=1, restarts=restarts).perturb(model, x, y)).argmax(1) == y for restarts in (1, 3, 6)
    ]
    assert not (right[1] & ~right[0]).any()
    assert not (right[2] & ~right[1]).any()


@pytest.mark.parametrize("channels", [2, 4])
def test_other_channels_are_refused(channels):
    x, y = make_batch(channels)
    with pytest.raises(ValueError, match=rf"1 or 3 channels; got samples of shape \({channels}, 32, 32\)"):
        JPEG().perturb(make_model(channels), x, y)


def test_default_settings():
    assert JPEG().get_params() == {"bound": 0.25, "steps": 200, "step_size": None, "restarts": 1}
