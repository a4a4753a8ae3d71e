"""What holds for every attack: results are detached, and sizes are told in the metric that bounds them."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn

from sklearn_acs import (
    FGSM,
    JPEG,
    LPA,
    NFGSM,
    PGD,
    PGD5010,
    PPGD,
    AutoAttack,
    BulletTrain,
    FastLPA,
    ReColor,
    StAdv,
)
from sklearn_acs.attacks import ATTACKS
from sklearn_acs.models import frozen

CLIP = (0.0, 1.0)
SHAPE = (3, 16, 16)
PER_FEATURE = torch.linspace(0, 0.2, 768).reshape(SHAPE)


def judge():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return nn.Sequential(nn.Conv2d(3, 6, 3), nn.Tanh(), nn.Conv2d(6, 6, 3), nn.ReLU())


# Of each attack: the name of its metric, and its bound in that.
INSTANCES = {
    "fgsm": (FGSM(eps=0.1), "linf", 0.1),
    "n-fgsm": (NFGSM(eps=0.05, noise=2.0), "linf", 0.15),
    "pgd": (PGD(eps=0.1, steps=4, restarts=2), "linf", 0.1),
    "pgd, each feature": (PGD(eps=PER_FEATURE.numpy(), steps=4), "linf/eps", 1.0),
    "pgd, l2": (PGD(eps=1.0, steps=4, norm="l2"), "l2", 1.0),
    "pgd, l1": (PGD(eps=9.0, steps=4, norm="l1"), "l1", 9.0),
    "pgd-50-10": (PGD5010(eps=0.05, steps=3, restarts=2), "linf", 0.05),
    "bullet": (BulletTrain(PGD(eps=0.1, steps=2)), None, None),
    "fast-lpa": (FastLPA(bound=0.3, steps=3, projection="newton"), "lpips-self", 0.3),
    "lpa": (LPA(bound=0.3, steps=3, distance="self"), "lpips-self", 0.3),
    "ppgd": (PPGD(bound=0.3, steps=3, distance=judge()), "lpips-own", 0.3),
    "stadv": (StAdv(bound=0.2, steps=6, step_size=0.08), "flow", 0.2),
    "recolor": (ReColor(bound=0.1, steps=6, step_size=0.03), "colour", 0.1),
    "jpeg": (JPEG(bound=0.5, steps=4, restarts=3), "jpeg", 0.5),
    "autoattack": (AutoAttack(eps=0.5, norm="l2", attacks=["apgd-ce"]), "l2", 0.5),
}
MEASURED = {name: row for name, row in INSTANCES.items() if row[1] is not None}
TRANSFORMS = ("stadv", "recolor", "jpeg")


def make_model():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Conv2d(8, 8, 3, stride=2), nn.Tanh(),
            nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(72, 4),
        )  # fmt: skip


def make_batch(model, n=12):
    """Random images, and the model's own predictions of them as labels."""
    x = torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(1))
    with frozen(model), torch.no_grad():
        return x, model(x).argmax(1)


def run(name):
    model, attack = make_model(), clone(INSTANCES[name][0])
    x, y = make_batch(model)
    return attack, model, x, attack.perturb(model, x, y, clip=CLIP)


def test_every_attack_has_a_row():
    assert {type(attack) for attack, _, _ in INSTANCES.values()} == {type(make()) for make in ATTACKS.values()}
    assert set(ATTACKS) <= set(INSTANCES)


# Results


@pytest.mark.parametrize("name", INSTANCES)
def test_results_are_detached_when_samples_are_not(name):
    model, attack = make_model(), INSTANCES[name][0]
    x, y = make_batch(model)
    for given in (x, x[:0]):
        wants = given.clone().requires_grad_()
        x_adv = attack.perturb(model, wants, y[: len(given)], clip=CLIP)
        assert not x_adv.requires_grad
        assert wants.requires_grad and wants.grad is None
        assert torch.equal(x_adv, attack.perturb(model, given, y[: len(given)], clip=CLIP))
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("name", ["pgd", "n-fgsm", "lpa"])
def test_results_are_detached_when_the_start_is_not(name):
    model, attack = make_model(), INSTANCES[name][0]
    x, y = make_batch(model)
    assert not attack.perturb(model, x, y, clip=CLIP, start=torch.zeros_like(x, requires_grad=True)).requires_grad


# Sizes


@pytest.mark.parametrize("name", MEASURED)
def test_sizes_reach_for_the_bound_and_keep_it(name):
    attack, model, x, x_adv = run(name)
    _, metric, bound = INSTANCES[name]
    sizes = attack.measure(model, x, x_adv, clip=CLIP)
    assert attack.metric == metric
    assert sizes.shape == (12,) and sizes.device == x.device and not sizes.requires_grad
    assert sizes.min() >= 0
    rounding = 1e-3 if "/" in metric else 1e-5  # pixels round to 6e-8, and the smallest eps is 3e-4
    assert bound / 4 < sizes.max() <= bound * (1 + rounding)


NORM_ORDER = {"linf": np.inf, "l2": 2, "l1": 1}


@pytest.mark.parametrize("name", [name for name, row in MEASURED.items() if row[1] in NORM_ORDER])
def test_in_a_norm_sizes_are_those_of_numpy(name):
    attack, model, x, x_adv = run(name)
    expected = np.linalg.norm((x_adv - x).reshape(12, -1).numpy(), NORM_ORDER[attack.metric], axis=1)
    np.testing.assert_allclose(attack.measure(model, x, x_adv, clip=CLIP), expected, rtol=1e-5)


def test_with_a_bound_for_each_feature_the_size_is_the_largest_share_of_it():
    attack, model, x, x_adv = run("pgd, each feature")
    delta = (x_adv - x).abs().flatten(1).numpy()
    eps = PER_FEATURE.flatten().numpy()
    assert (delta[:, eps == 0] == 0).all()  # what may not move counts for nothing
    expected = (delta[:, eps > 0] / eps[eps > 0]).max(1)
    np.testing.assert_allclose(attack.measure(model, x, x_adv, clip=CLIP), expected, rtol=1e-5)
    away = x.clone()
    away[0, 0, 0, 0] += 0.1  # and is beyond every bound where it does
    assert attack.measure(model, x, away).tolist() == [torch.inf] + 11 * [0]


@pytest.mark.parametrize("name", ["fast-lpa", "lpa", "ppgd"])
def test_perceptual_sizes_are_distances_of_activations_scaled_by_hand(name):
    attack, model, x, x_adv = run(name)
    network, layers = (model, (1, 3)) if attack.metric == "lpips-self" else (judge(), (1, 3))

    def activations(x):
        maps = []
        for number, layer in enumerate(network[: layers[-1] + 1]):
            x = layer(x)
            if number in layers:
                map = x.detach().double().numpy()
                length = np.sqrt((map**2).sum(1, keepdims=True))
                maps.append((map / (length + 1e-10) / np.sqrt(map[0, 0].size)).reshape(len(x), -1))
        return np.concatenate(maps, 1)

    expected = np.linalg.norm(activations(x_adv) - activations(x), axis=1)
    np.testing.assert_allclose(attack.measure(model, x, x_adv, clip=CLIP), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_sizes_of_a_transform_are_those_of_the_parameters_that_made_each_example(name, monkeypatch):
    model, attack = make_model(), clone(INSTANCES[name][0])
    x, y = make_batch(model)
    y[::4] = (y[::4] + 1) % 4  # some are wrong as they are, and leave before the restarts
    if name == "jpeg":
        attack.set_params(bound=0.1, step_size=1e-4)  # so that no size is just the bound
    tried = []
    make = type(attack)._transform

    def spying(self, x, clip):
        transform = make(self, x, clip)

        def spy(parameters):
            made = transform(parameters).clamp(*CLIP)
            sizes = parameters.detach().abs().flatten(1).amax(1)
            tried.extend(zip(made.detach().clone(), sizes.tolist(), strict=True))
            return made

        return spy

    monkeypatch.setattr(type(attack), "_transform", spying)
    x_adv = attack.perturb(model, x, y, clip=CLIP)
    for example, size in zip(x_adv, attack.measure(model, x, x_adv), strict=True):
        assert {size.item()} == {other for made, other in tried if torch.equal(made, example)}
    whole = 12 * (attack.steps + 1)
    assert whole < len(tried) < 3 * whole if name == "jpeg" else len(tried) == whole


def test_one_parameter_moves_the_image_by_what_its_size_says():
    # JPEG's parameters can be told from an image that needed no cutting to its box.
    from sklearn_acs.attacks.jpeg import coefficients

    model, attack = make_model(), clone(INSTANCES["jpeg"][0])
    x, y = make_batch(model)
    x = 0.3 + 0.4 * x
    x_adv = attack.perturb(model, x, y)
    expected = 2 * (coefficients(x_adv) - coefficients(x)).abs().amax(1)
    np.testing.assert_allclose(attack.measure(model, x, x_adv), expected, rtol=1e-3)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_what_a_transform_remembers_is_of_its_last_batch_alone(name):
    attack, model, x, x_adv = run(name)
    first = attack.measure(model, x, x_adv)
    assert torch.equal(pickle.loads(pickle.dumps(attack)).measure(model, x, x_adv), first)
    with pytest.raises(ValueError, match="x_adv must be the last batch, of 12 samples; got 5"):
        attack.measure(model, x[:5], x_adv[:5])
    attack.perturb(model, x[:5], torch.zeros(5, dtype=torch.long), clip=CLIP)
    assert len(attack.sizes_) == 5 and len(first) == 12
