"""PGD is foolbox's, sample by sample, from the same start."""

import eagerpy
import foolbox
import pytest
import torch
from foolbox.attacks import L2ProjectedGradientDescentAttack, LinfProjectedGradientDescentAttack
from torch import nn
from torch.nn import functional as F

from sklearn_acs import FGSM, PGD

CLIP = (0.0, 1.0)
SHAPE = (3, 10, 10)
THEIRS = {"linf": LinfProjectedGradientDescentAttack, "l2": L2ProjectedGradientDescentAttack}


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def make_model():
    """A convolutional net in eval mode, whose BatchNorm has the statistics of data.

    In float64, since two programs round differently: in float32 a gradient next to 0 may have either sign, and a ReLU
    either slope.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5),
        )  # fmt: skip
        model(torch.rand(100, *SHAPE))
    return model.double().eval()


def make_batch():
    """Images some of whose pixels are at the edge of the box, and any labels."""
    x = (1.4 * torch.rand(24, *SHAPE, generator=seeded(1), dtype=torch.float64) - 0.2).clamp(*CLIP)
    return x, torch.randint(5, (24,), generator=seeded(2))


def make_start(x, norm, eps):
    """Perturbations inside the ball; many lead out of the box."""
    start = 2 * torch.rand(x.shape, generator=seeded(3), dtype=x.dtype) - 1
    if norm == "l2":
        start = start / start.flatten(1).norm(dim=1)[:, None, None, None]
    return 0.9 * eps * start


def theirs(model, x, y, norm, eps, *, step_size, steps, start):
    """The last iterate of foolbox's attack; None as start is the sample itself."""

    class FromThere(THEIRS[norm]):
        def get_random_start(self, x0, epsilon):
            return x0 + eagerpy.astensor(start)

    attack = FromThere(abs_stepsize=step_size, steps=steps, random_start=start is not None)
    # `run` is the attack's loop; calling the attack adds nothing but a judgement of what comes out.
    return attack.run(foolbox.PyTorchModel(model, bounds=CLIP, device="cpu"), x, y, epsilon=eps)


@pytest.mark.parametrize("has_start", [True, False], ids=["start", "no start"])
@pytest.mark.parametrize(
    ("norm", "eps", "steps", "step_size"),
    [
        ("linf", 8 / 255, 1, None),
        ("linf", 8 / 255, 10, None),
        ("linf", 8 / 255, 20, 1 / 255),
        ("linf", 0.1, 50, 0.0125),
        ("linf", 0.3, 40, 0.01),
        ("linf", 2.0, 5, None),  # only the box is in the way
        ("l2", 0.5, 1, None),
        ("l2", 0.5, 10, None),
        ("l2", 80 / 255, 50, 8 / 255),
        ("l2", 2.0, 20, 0.3),
        ("l2", 50.0, 5, 8.0),
    ],
)
def test_the_last_iterate_is_foolboxs(norm, eps, steps, step_size, has_start):
    model, (x, y) = make_model(), make_batch()
    start = make_start(x, norm, eps) if has_start else None
    attack = PGD(eps, steps=steps, step_size=step_size, norm=norm, init="zero")
    ours = attack.perturb(model, x, y, clip=CLIP, start=start)
    expected = theirs(model, x, y, norm, eps, step_size=step_size or 2.5 * eps / steps, steps=steps, start=start)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
    # Not the same for want of moving: every sample's loss is higher than where it began.
    begun = x if start is None else (x + start).clamp(*CLIP)
    before, after = (F.cross_entropy(model(images), y, reduction="none") for images in (begun, expected))
    assert (after > before).all()


@pytest.mark.parametrize("norm", THEIRS)
def test_fgsm_is_foolboxs_single_step(norm):
    model, (x, y) = make_model(), make_batch()
    expected = theirs(model, x, y, norm, 0.1, step_size=0.1, steps=1, start=None)
    torch.testing.assert_close(FGSM(0.1, norm=norm).perturb(model, x, y, clip=CLIP), expected, atol=1e-5, rtol=0)
