"""What attacks are after: targets, losses that say what success is, and losses with something for each sample."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn
from torch.nn import functional as F

from sklearn_acs import (
    FGSM,
    JPEG,
    LPA,
    NFGSM,
    PGD,
    PPGD,
    AutoAttack,
    BulletTrain,
    FastLPA,
    ReColor,
    StAdv,
)
from sklearn_acs.attacks.problem import Goal, cross_entropy, margin_loss
from sklearn_acs.models import frozen

CLIP = (0.0, 1.0)
SHAPE = (3, 16, 16)
N, CLASSES = 60, 4

TARGETED = {
    "fgsm": FGSM(eps=0.03),
    "n-fgsm": NFGSM(eps=0.03),
    "pgd": PGD(eps=0.02, steps=4),
    "pgd, restarts": PGD(eps=0.02, steps=1, restarts=4),
    "pgd, l2": PGD(eps=0.3, steps=4, norm="l2", restarts=2),
    "bullet": BulletTrain(PGD(eps=0.02, steps=4, restarts=3)),
    "fast-lpa": FastLPA(bound=0.2, steps=4),
    "lpa": LPA(bound=0.2, steps=4, rounds=2, distance="self"),
    "ppgd": PPGD(bound=0.2, steps=4, distance="self", only_correct=False),
    "stadv": StAdv(bound=0.2, steps=6, step_size=0.08),
    "recolor": ReColor(bound=0.1, steps=6, step_size=0.03),
    "jpeg": JPEG(bound=0.3, steps=4, restarts=3),
}


def make_model():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Conv2d(8, 8, 3, stride=2), nn.Tanh(),
            nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(72, CLASSES),
        )  # fmt: skip
        with torch.no_grad():  # logits around 0, so that every class is predicted and every target near
            model[-1].weight *= 20
            model[-1].bias -= model(make_samples()).mean(0)
    return model


def make_samples():
    return torch.rand(N, *SHAPE, generator=torch.Generator().manual_seed(1))


def make_batch(model, wrong=6):
    """Samples, the model's own predictions as labels but for some, and targets that are neither."""
    x = make_samples()
    y = predict(model, x).argmax(1)
    target = (y + 1 + torch.arange(N) % (CLASSES - 1)) % CLASSES
    y[:wrong] = (target[:wrong] + 1) % CLASSES
    return x, y, target


def predict(model, x):
    with frozen(model), torch.no_grad():
        return model(x)


class ToTarget:
    """A loss of one's own with a target for each sample, as `targeted_loss` has it, that says what success is."""

    def __init__(self, attack, target):
        self.attack, self.target = attack, target

    def __call__(self, logits, y, clean_logits):
        return self.attack.targeted_loss(logits, self.target, clean_logits)

    def success(self, logits, y, clean_logits):
        return logits.argmax(1) == self.target


# Targets


@pytest.mark.parametrize("name", TARGETED)
def test_a_target_is_predicted_more_often(name):
    model, attack = make_model(), clone(TARGETED[name])
    x, y, target = make_batch(model, wrong=0)
    before, after = (predict(model, z) for z in (x, attack.perturb(model, x, y, y_target=target, clip=CLIP)))
    assert not (before.argmax(1) == target).any()
    assert (after.argmax(1) == target).sum() >= 5
    assert cross_entropy(after, target).mean() < cross_entropy(before, target).mean()


@pytest.mark.parametrize("name", TARGETED)
def test_a_loss_with_targets_of_its_own_gives_what_y_target_gives(name):
    # Restarts, Bullet-Train's groups, `only_correct` and LPA's samples left attack rows alone, and still find theirs.
    model, attack = make_model(), clone(TARGETED[name])
    x, y, target = make_batch(model)
    own = attack.perturb(model, x, y, loss=ToTarget(attack, target), clip=CLIP)
    torch.testing.assert_close(own, attack.perturb(model, x, y, y_target=target, clip=CLIP))


@pytest.mark.parametrize("given", ["y_target", "loss"])
@pytest.mark.parametrize("weak", [PGD(eps=0.02, steps=1, step_size=0.005), JPEG(bound=0.2, steps=1, step_size=0.02)])
def test_more_restarts_reach_more_targets(weak, given):
    model = make_model()
    x, y, target = make_batch(model, wrong=0)
    goal = {"y_target": target} if given == "y_target" else {"loss": ToTarget(weak, target)}
    reached = [
        predict(model, clone(weak).set_params(restarts=n).perturb(model, x, y, clip=CLIP, **goal)).argmax(1) == target
        for n in (1, 2, 5, 20)
    ]
    for fewer, more in pairwise(reached):
        assert (more | ~fewer).all()  # what has been reached is kept
    assert reached[-1].sum() > reached[0].sum()


def test_only_samples_short_of_their_target_are_attacked_again():
    model, attack = make_model(), PGD(eps=0.02, steps=2, restarts=2)
    x, y, target = make_batch(model)
    once = clone(attack).set_params(restarts=1).perturb(model, x, y, y_target=target, clip=CLIP)
    left = int((predict(model, once).argmax(1) != target).sum())
    sizes = []
    model.register_forward_hook(
        lambda module, inputs, logits: sizes.append(len(logits)) if logits.requires_grad else None
    )
    attack.perturb(model, x, y, y_target=target, clip=CLIP)
    assert 0 < left < N
    assert sizes == [N] * 2 + [left] * 2


@pytest.mark.parametrize("cap", [np.inf, 1.0])
def test_attacks_on_the_margin_raise_that_of_the_target(cap):
    attack = FastLPA() if cap == np.inf else PPGD()
    logits, target = torch.tensor([[1.0, 3.0, 0.5], [9.0, 2.0, 0.0]]), torch.tensor([0, 0])
    assert attack.targeted_loss(logits, target).tolist() == [-2.0, min(7.0, cap)]


def test_what_cannot_be_asked_for():
    model = make_model()
    x, y, target = make_batch(model)
    with pytest.raises(ValueError, match="y_target and loss both"):
        PGD().perturb(model, x, y, y_target=target, loss=cross_entropy_loss)
    with pytest.raises(ValueError, match="AutoAttack has no targeted form"):
        AutoAttack().perturb(model, x, y, y_target=target, clip=CLIP)


def cross_entropy_loss(logits, y, clean_logits):
    return F.cross_entropy(logits, y, reduction="none")


# Losses of one's own


@pytest.mark.parametrize("name", ["pgd, restarts", "bullet", "fast-lpa", "lpa", "jpeg"])
def test_the_default_loss_given_as_ones_own_with_its_success_changes_nothing(name):
    model, attack = make_model(), clone(TARGETED[name])
    x, y, _ = make_batch(model)

    def own(logits, y, clean_logits):
        return attack.default_loss(logits, y, clean_logits)

    own.success = lambda logits, y, clean_logits: logits.argmax(1) != y
    assert torch.equal(attack.perturb(model, x, y, loss=own, clip=CLIP), attack.perturb(model, x, y, clip=CLIP))


def test_lpa_searches_on_for_a_loss_that_knows_no_success():
    model = make_model()
    x, y, _ = make_batch(model, wrong=0)
    attack, sizes = LPA(bound=0.3, steps=4, rounds=2, distance="self"), []
    model.register_forward_hook(
        lambda module, inputs, logits: sizes.append(len(logits)) if logits.requires_grad else None
    )
    attack.perturb(model, x, y, loss=lambda logits, y, _: margin_loss(logits, y), clip=CLIP)
    assert sizes[:8] == [N] * 8
    sizes.clear()
    attack.perturb(model, x, y, clip=CLIP)
    assert sum(sizes) < 8 * N


def test_a_goal_taken_twice_sees_the_whole_batch_and_gives_the_rows_left():
    weight = torch.arange(6.0)
    y = torch.zeros(6)
    goal = Goal(lambda logits, y, _: weight * logits[:, 0], lambda logits, y, _: weight > 3, y)
    part = goal.take(torch.tensor([1, 3, 5])).take(torch.tensor([0, 2]))
    logits = torch.tensor([[10.0, 0.0], [20.0, 0.0]], requires_grad=True)
    value = part.value(logits)
    assert value.tolist() == [10.0, 100.0]
    assert part.reached(logits).tolist() == [False, True]
    value.sum().backward()
    assert logits.grad.tolist() == [[1.0, 0.0], [5.0, 0.0]]
    assert not PGD()._goal(y, None, goal.loss, None).take(torch.tensor([1, 4])).reached(logits).any()


class NanForSome(nn.Module):
    """Two classes by the first feature, and NaN beyond 1.05."""

    def forward(self, x):
        logits = torch.stack([x[:, 0], 1 - x[:, 0]], dim=1)
        return torch.where(x[:, :1] > 1.05, torch.nan, logits)


def test_nan_logits_are_a_success_where_any_other_class_is_and_no_target():
    x, y, model = torch.tensor([[1.0], [0.2]]), torch.tensor([0, 1]), NanForSome()
    up = torch.tensor([[0.1], [0.0]])
    goals = (PGD()._goal(y, None, None, None), PGD()._goal(y, torch.tensor([0, 0]), None, None))
    untargeted, targeted = (goal.reached(model(x + up)).tolist() for goal in goals)
    assert untargeted == [True, False]
    assert targeted == [False, False]


# Inference mode


@pytest.mark.parametrize("name", [*TARGETED, "autoattack"])
def test_in_inference_mode_it_is_what_it_is_without_gradients(name):
    attack = AutoAttack(eps=0.02, attacks=["apgd-ce"]) if name == "autoattack" else clone(TARGETED[name])
    model = make_model()
    x, y, _ = make_batch(model)
    with torch.no_grad():
        expected = attack.perturb(model, x, y, clip=CLIP)
        sizes = attack.measure(model, x, expected, clip=CLIP)
    with torch.inference_mode():
        found = attack.perturb(model, x.clone(), y.clone(), clip=CLIP)
        again = attack.measure(model, x.clone(), found, clip=CLIP)
    assert torch.equal(found, expected)
    assert sizes is again is None or torch.equal(sizes, again)


def test_starts_targets_and_clean_logits_may_be_of_inference_mode_too():
    model, attack = make_model(), BulletTrain(PGD(eps=0.02, steps=2, restarts=2))
    x, y, target = make_batch(model)
    start, clean_logits = torch.full_like(x, 0.01), predict(model, x)
    expected = attack.perturb(model, x, y, y_target=target, start=start, clean_logits=clean_logits, clip=CLIP)
    with torch.inference_mode():
        x, y, target, start, clean_logits = (tensor.clone() for tensor in (x, y, target, start, clean_logits))
        found = attack.perturb(model, x, y, y_target=target, start=start, clean_logits=clean_logits, clip=CLIP)
    assert torch.equal(found, expected)
