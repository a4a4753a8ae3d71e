"""StAdv, ReColor and JPEG: what they have in common, from their bounds' meaning to the model they leave behind."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from torch import nn

from sklearn_acs import JPEG, PGD, ReColor, RobustClassifier, StAdv
from sklearn_acs.attacks import ATTACKS
from sklearn_acs.attacks.problem import margin_loss
from sklearn_acs.attacks.transform import roughness
from sklearn_acs.models import frozen

CLIP = (0.0, 1.0)
INSTANCES = {
    "stadv": StAdv(bound=0.2, steps=6, step_size=0.05),
    "recolor": ReColor(bound=0.1, steps=6, step_size=0.03),
    "jpeg": JPEG(bound=0.5, steps=6),
}


@pytest.fixture(params=INSTANCES)
def attack(request):
    return clone(INSTANCES[request.param])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def make_model(seed=0, channels=3):
    """A convolutional net with BatchNorm and dropout, for images of any size."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(channels, 8, 3), nn.BatchNorm2d(8), nn.Tanh(), nn.Conv2d(8, 8, 3, stride=2), nn.Tanh(),
            nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Dropout(0.5), nn.Linear(72, 4),
        )  # fmt: skip
        model(torch.rand(50, channels, 16, 16))
    return model


def make_batch(model, n=12, shape=(3, 16, 16)):
    """Random images, and the model's own predictions of them as labels."""
    x = torch.rand(n, *shape, generator=seeded(1))
    with frozen(model), torch.no_grad():
        return x, model(x).argmax(1)


def share_right(model, x, y):
    with frozen(model), torch.no_grad():
        return (model(x).argmax(1) == y).double().mean().item()


# What comes out


@pytest.mark.parametrize("name", INSTANCES)
def test_a_larger_bound_fools_more(name):
    model = make_model()
    x, y = make_batch(model, n=24)
    shares = []
    for bound in (0.005, 0.02, 0.1, 0.5):
        attack = clone(INSTANCES[name]).set_params(bound=bound, steps=8, step_size=bound / 4)
        shares.append(share_right(model, attack.perturb(model, x, y, clip=CLIP), y))
    assert all(more <= fewer for fewer, more in pairwise(shares))
    assert shares[-1] < shares[0] - 0.3


@pytest.mark.parametrize("shape", [(28, 28), (8, 8), (33, 47)])
def test_images_may_have_any_size(attack, shape):
    model = make_model()
    x, y = make_batch(model, n=3, shape=(3, *shape))
    x_adv = attack.perturb(model, x, y, clip=CLIP)
    assert x_adv.shape == x.shape
    assert x_adv.isfinite().all()
    assert (x_adv != x).flatten(1).any(1).all()


@pytest.mark.parametrize("clip", [CLIP, (-0.4242, 2.8215)])
def test_samples_stay_in_the_box(attack, clip):
    model = make_model()
    x, y = make_batch(model)
    x = (clip[0] + (clip[1] - clip[0]) * x.round()).clamp(*clip)
    x_adv = attack.perturb(model, x, y, clip=clip)
    assert x_adv.min() >= torch.tensor(clip[0])
    assert x_adv.max() <= torch.tensor(clip[1])


def test_another_box_means_the_same_images(attack):
    model = make_model().double()
    x, y = make_batch(make_model())
    x = x.double()
    wide = nn.Sequential(Scale(0.25, 0.25), model)  # from (-1, 3)
    here = attack.perturb(model, x, y, clip=CLIP)
    there = attack.perturb(wide, 4 * x - 1, y, clip=(-1.0, 3.0))
    torch.testing.assert_close(there, 4 * here - 1, atol=1e-6, rtol=0)


class Scale(nn.Module):
    def __init__(self, factor, shift):
        super().__init__()
        self.factor, self.shift = factor, shift

    def forward(self, x):
        return self.factor * x + self.shift


def test_each_sample_keeps_the_best_of_all_steps(attack):
    model = make_model()
    x, y = make_batch(model)
    margins = []
    model.register_forward_hook(lambda m, inputs, logits: margins.append(margin_loss(logits.detach(), y)))
    x_adv = attack.set_params(steps=10).perturb(
        model, x, y, clip=CLIP, loss=lambda logits, y, _: margin_loss(logits, y)
    )
    found = torch.stack(margins)
    assert len(found) == 11
    with frozen(model), torch.no_grad():
        torch.testing.assert_close(margin_loss(model(x_adv), y), found.amax(0))


def test_a_success_is_better_than_a_point_of_higher_loss(attack):
    model = make_model()
    x, y = make_batch(model, n=24)
    broken = []
    model.register_forward_hook(lambda m, inputs, logits: broken.append(logits.argmax(1) != y))
    attack.set_params(bound=0.5, step_size=0.1)

    def falling(logits, y, clean_logits):
        return -margin_loss(logits, y)

    falling.success = lambda logits, y, clean_logits: logits.argmax(1) != y
    x_adv = attack.perturb(model, x, y, clip=CLIP, loss=falling)
    once = torch.stack(broken).any(0)
    assert share_right(model, x_adv, y) == 1 - once.double().mean().item()


def test_result_is_detached_and_samples_are_not_written_to(attack):
    model = make_model()
    x, y = make_batch(model)
    before = x.clone()
    x_adv = attack.perturb(model, x, y, clip=CLIP)
    assert not x_adv.requires_grad
    assert x_adv.dtype == torch.float32
    assert torch.equal(x, before)


def test_a_samples_result_does_not_depend_on_the_others_in_its_batch(attack):
    model = make_model().double().train()
    x, y = make_batch(make_model(), n=6)
    x, start = x.double(), first_of(attack, x.double())
    together = attack.perturb(model, x, y, clip=CLIP, start=start)
    alone = [attack.perturb(model, x[i : i + 1], y[i : i + 1], clip=CLIP, start=start[i : i + 1]) for i in range(6)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-9, rtol=0)


def first_of(attack, x):
    """Random parameters in the bound."""
    like = attack._start(x, seeded())
    return attack.bound * (2 * torch.rand(like.shape, generator=seeded(3), dtype=x.dtype) - 1)


def test_start_is_where_the_ascent_begins(attack):
    model = make_model()
    x, y = make_batch(model)
    seen = []
    model.register_forward_pre_hook(lambda m, inputs: seen.append(inputs[0].detach().clone()))
    start, transform = first_of(attack, x), attack._transform(x, CLIP)
    attack.perturb(model, x, y, clip=CLIP, start=start)
    torch.testing.assert_close(seen[0], transform(start).clamp(*CLIP))
    attack.perturb(model, x, y, clip=CLIP, start=3 * start)
    torch.testing.assert_close(seen[7], transform((3 * start).clamp(-attack.bound, attack.bound)).clamp(*CLIP))


def test_same_seed_gives_the_same_bits(attack):
    model = make_model()
    x, y = make_batch(model)
    one, two = (attack.perturb(model, x, y, clip=CLIP, generator=seeded(5)) for _ in range(2))
    assert torch.equal(one, two)
    assert torch.equal(attack.perturb(model, x, y, clip=CLIP), attack.perturb(model, x, y, clip=CLIP))


@pytest.mark.parametrize("generator", [None, seeded()], ids=["no generator", "generator"])
def test_global_randomness_is_untouched(attack, generator, global_randomness):
    model = make_model()
    x, y = make_batch(model)
    before = global_randomness()
    attack.perturb(model, x, y, clip=CLIP, generator=generator)
    assert global_randomness() == before


# The model


def test_model_is_the_same_afterwards(attack):
    model = make_model().train()
    x, y = make_batch(make_model())
    model[1].eval()
    model[0].bias.requires_grad_(False)
    model[8].weight.grad = torch.full_like(model[8].weight, 3.0)

    def state():
        modes = [module.training for module in model.modules()]
        parameters = [(p.requires_grad, None if p.grad is None else p.grad.tolist()) for p in model.parameters()]
        return modes, parameters, {name: value.tolist() for name, value in model.state_dict().items()}

    before = state()
    attack.perturb(model, x, y, clip=CLIP)
    assert state() == before


def test_gradients_are_those_of_the_transforms_parameters_alone(attack):
    model = make_model().train()
    x, y = make_batch(model)
    seen, backwards = [], []

    def forward(module, inputs, logits):
        seen.extend([module.training, module[1].training, *(p.requires_grad for p in module.parameters())])
        if logits.requires_grad:
            logits.register_hook(lambda gradient: backwards.append(len(gradient)))

    model.register_forward_hook(forward)
    attack.perturb(model, x, y, clip=CLIP)
    assert seen
    assert not any(seen)
    assert backwards == [12] * 6


# Roughness


@pytest.mark.parametrize("shape", [(2, 3, 4), (3, 2, 3, 4)], ids=["plane", "space"])
def test_roughness_is_the_sum_over_neighbours(shape):
    field = torch.rand(2, *shape, generator=seeded(), dtype=torch.float64)
    expected = []
    for sample in field.numpy():
        total, points = 0.0, list(np.ndindex(*shape[1:]))
        for p in points:
            for q in points:
                if np.abs(np.subtract(p, q)).sum() == 1:
                    total += np.linalg.norm(sample[(slice(None), *p)] - sample[(slice(None), *q)])
        expected.append(total)
    np.testing.assert_allclose(roughness(field).numpy(), expected, rtol=1e-6)


def test_roughness_of_a_constant_has_a_finite_gradient():
    field = torch.zeros(1, 2, 3, 3, requires_grad=True)
    gradient = torch.autograd.grad(roughness(field).sum(), field)[0]
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("attack", [StAdv(bound=0.5, smoothness=0.0), ReColor(bound=0.5, smoothness=0.0)], ids=repr)
def test_a_heavier_weight_leaves_images_closer(attack):
    model = make_model()
    x, y = make_batch(model)
    change = [
        (attack.set_params(steps=10, step_size=0.02, smoothness=weight).perturb(model, x, y, clip=CLIP) - x)
        .abs()
        .mean()
        for weight in (0.0, 100.0)
    ]
    assert change[1] < change[0]


# In use

X, labels = (load_digits(n_class=4).images / 16).astype(np.float32), load_digits(n_class=4).target


@pytest.fixture(scope="module")
def classifiers():
    """Plain nets for grey digits and for coloured ones."""
    settings = {"objective": "natural", "selector": None, "max_epochs": 12, "batch_size": 32, "random_state": 0}
    tint = np.random.default_rng(0).uniform(0.6, 1, (len(X), 3, 1, 1)).astype(np.float32)
    colours = X[:, None] * tint
    return {data.ndim: (RobustClassifier(**settings).fit(data, labels), data) for data in (X, colours)}


@pytest.mark.parametrize(("name", "axes"), [("stadv", 3), ("stadv", 4), ("recolor", 4), ("jpeg", 3), ("jpeg", 4)])
def test_by_name_it_judges_a_classifier(classifiers, name, axes):
    classifier, data = classifiers[axes]
    few = data[:10], labels[:10]
    clean = classifier.score(*few)
    assert clean > 0.8
    robust = classifier.robust_score(*few, attack=name)
    much = ATTACKS[name](bound=0.9, steps=10).set_params(step_size=0.2)
    assert classifier.robust_score(*few, attack=much) < robust <= clean


@pytest.mark.parametrize("name", INSTANCES)
def test_tables_are_refused(name):
    table = X.reshape(len(X), -1)
    classifier = RobustClassifier(attack=PGD(steps=1), selector=None, max_epochs=1, random_state=0).fit(table, labels)
    with pytest.raises(ValueError, match=rf"{type(INSTANCES[name]).__name__} is for images; .*\(64,\)"):
        classifier.robust_score(table, labels, attack=name)


def test_start_of_another_shape_is_refused(attack):
    model = make_model()
    x, y = make_batch(model)
    with pytest.raises(ValueError, match=r"start must be of shape \(12, .*got \(12, 1\)"):
        attack.perturb(model, x, y, start=torch.zeros(12, 1))


# Parameters


@pytest.mark.parametrize(
    ("attack", "name", "value"),
    [
        (cls(**{name: value}), name, str(value))
        for cls in (StAdv, ReColor, JPEG)
        for name, value in [("bound", 0), ("bound", -0.1), ("steps", 0), ("steps", 2.5), ("step_size", -1)]
    ]
    + [
        (StAdv(smoothness=-1.0), "smoothness", "-1.0"),
        (ReColor(step_size=None), "step_size", "None"),
        (JPEG(restarts=0), "restarts", "0"),
    ],
    ids=repr,
)
def test_bad_parameter_is_named_with_its_value(attack, name, value):
    with pytest.raises(ValueError, match=name) as error:
        attack.validate()
    assert value in str(error.value)
