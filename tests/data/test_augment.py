"""Augmentation crops and flips a batch as slicing and mirroring do one image at a time."""

import numpy as np
import pytest
import torch

from sklearn_acs.data.augment import AUGMENTS, PADDING

crop, flip, crop_flip, cutout = (AUGMENTS[name] for name in ("crop", "flip", "crop-flip", "cutout"))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n=40, shape=(3, 6, 7), dtype=torch.float32):
    """Make images of pixels that all differ, so that every window is unique."""
    return torch.arange(1, 1 + n * int(np.prod(shape)), dtype=dtype).reshape(n, *shape)


def windows(image):
    """Cut every window of the image's size from the image with a black border."""
    _, height, width = image.shape
    padded = np.pad(image.numpy(), ((0, 0), (PADDING, PADDING), (PADDING, PADDING)))
    size = 2 * PADDING + 1
    return [padded[:, i : i + height, j : j + width] for i in range(size) for j in range(size)]


def position(image, cropped):
    """Find the one window that `cropped` equals."""
    matches = [k for k, window in enumerate(windows(image)) if np.array_equal(window, cropped.numpy())]
    assert len(matches) == 1
    return divmod(matches[0], 2 * PADDING + 1)


def test_crop_is_a_window_of_the_padded_image():
    x = images()
    for image, cropped in zip(x, crop(x, seeded()), strict=True):
        position(image, cropped)


def test_crop_is_drawn_for_each_image_and_each_direction():
    x = images()
    rows, columns = zip(*map(position, x, crop(x, seeded())), strict=True)
    assert len(set(rows)) > 5
    assert len(set(columns)) > 5
    assert rows != columns


def test_crop_reaches_every_offset_alike():
    x = images(1_000, (1, 1, 1))  # one pixel: it stays only at the middle offset, one of 9 * 9
    kept = (crop(x, seeded()) == x).double().mean().item()
    assert kept == pytest.approx(1 / 81, abs=0.01)
    rows, columns = zip(*map(position, images(600), crop(images(600), seeded())), strict=True)
    for offsets in (rows, columns):
        assert np.bincount(offsets, minlength=9) / 600 == pytest.approx([1 / 9] * 9, abs=0.05)


def test_flip_is_the_image_or_its_exact_mirror():
    x = images()
    for image, flipped in zip(x, flip(x, seeded()), strict=True):
        assert torch.equal(flipped, image) or torch.equal(flipped, image[:, :, torch.arange(6, -1, -1)])


def test_about_half_are_flipped():
    x = images(2_000, (1, 1, 2))
    assert (flip(x, seeded()) != x).any(3).double().mean().item() == pytest.approx(0.5, abs=0.04)


def test_crop_flip_is_a_flip_of_a_crop():
    x = images()
    generator = seeded()
    expected = flip(crop(x, generator), generator)
    assert torch.equal(crop_flip(x, seeded()), expected)


def test_crop_flip_mirrors_some_crops():
    x = images()
    found = crop_flip(x, seeded())
    straight = [any(np.array_equal(w, y.numpy()) for w in windows(image)) for image, y in zip(x, found, strict=True)]
    assert 0 < sum(straight) < len(x)


@pytest.fixture(params=AUGMENTS)
def augment(request):
    return AUGMENTS[request.param]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 7), (4, 1, 1)])
def test_shape_and_type_are_kept(augment, shape, dtype):
    x = images(5, shape, dtype)
    assert augment(x, seeded()).shape == x.shape
    assert augment(x, seeded()).dtype == dtype


def test_batch_is_not_written_to(augment):
    x = images()
    augment(x, seeded())
    assert torch.equal(x, images())


def test_same_seed_gives_the_same_batch(augment):
    assert torch.equal(augment(images(), seeded(3)), augment(images(), seeded(3)))


def test_another_seed_gives_another_batch(augment):
    assert not torch.equal(augment(images(), seeded(3)), augment(images(), seeded(4)))


def test_global_randomness_is_untouched(augment, global_randomness):
    before = global_randomness()
    augment(images(), seeded())
    assert global_randomness() == before
