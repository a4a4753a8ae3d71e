"""PGD and FGSM: what they find, what they cost, and that they leave the model as it was."""

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn
from torch.nn import functional as F

from sklearn_acs.attacks import ATTACKS, FGSM, PGD
from sklearn_acs.models import frozen

CLIP = (0.0, 1.0)
SHAPE = (2, 4, 4)
ARRAY_EPS = np.linspace(0, 0.2, 32).reshape(SHAPE)
ORDER = {"linf": np.inf, "l2": 2, "l1": 1}

INSTANCES = {
    "linf": PGD(eps=0.1),
    "linf, eps per feature": PGD(eps=ARRAY_EPS),
    "linf, restarts": PGD(eps=0.1, steps=3, restarts=3),
    "linf, normal start": PGD(eps=0.1, init="normal"),
    "l2": PGD(eps=0.5, norm="l2"),
    "l1": PGD(eps=2.0, norm="l1"),
    "fgsm": FGSM(eps=0.1),
    "fgsm, random start": FGSM(eps=0.1, random_start=True),
    "fgsm, eps per feature": FGSM(eps=ARRAY_EPS),
}


@pytest.fixture(params=INSTANCES)
def attack(request):
    return clone(INSTANCES[request.param])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def make_model(seed=0):
    """A convolutional net with BatchNorm and dropout whose statistics are those of data, not 0 and 1."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(96, 3)
        )
        model(torch.rand(50, *SHAPE))
    return model


def make_batch(n=16):
    return torch.rand(n, *SHAPE, generator=seeded(1)), torch.randint(3, (n,), generator=seeded(2))


def linear(weight, bias):
    """Two classes, the second's logit being ``weight @ x + bias`` and the first's 0."""
    model = nn.Linear(len(weight), 2)
    with torch.no_grad():
        model.weight.copy_(torch.stack([torch.zeros(len(weight)), torch.tensor(weight)]))
        model.bias.copy_(torch.tensor([0.0, bias]))
    return model


def loss_of(model, x, y):
    with frozen(model), torch.no_grad():
        return F.cross_entropy(model(x), y, reduction="none")


class Calls:
    """Counts what goes through a model, and what comes back, as long as it exists."""

    def __init__(self, model):
        self.forwards, self.backwards = [], []
        model.register_forward_hook(self.forward)

    def forward(self, module, inputs, logits):
        self.forwards.append(len(logits))
        if logits.requires_grad:
            logits.register_hook(lambda gradient: self.backwards.append(len(gradient)))


# What comes out


def test_samples_stay_in_the_ball(attack):
    x, y = make_batch()
    delta = (attack.perturb(make_model(), x, y, clip=CLIP) - x).double()
    if np.ndim(attack.eps):
        assert (delta.abs() <= torch.from_numpy(attack.eps) + 1e-6).all()
    else:
        size = torch.linalg.vector_norm(delta.flatten(1), ord=ORDER[attack.norm], dim=1)
        assert size.max() <= attack.eps * (1 + 1e-5)


@pytest.mark.parametrize("clip", [CLIP, (-0.4242, 2.8215)])
def test_samples_stay_in_the_box(attack, clip):
    # In float32 x + (high - x) may round to more than high, so the second box is not the first one over again.
    x, y = make_batch(200)
    x = (clip[0] + (clip[1] - clip[0]) * x).clamp(*clip)
    x_adv = attack.set_params(eps=3.0).perturb(make_model(), x, y, clip=clip)
    assert x_adv.min() >= torch.tensor(clip[0])
    assert x_adv.max() <= torch.tensor(clip[1])


def test_without_a_box_samples_leave_the_unit_cube(attack):
    x, y = make_batch()
    x_adv = attack.perturb(make_model(), x.round(), y)
    assert x_adv.min() < 0
    assert x_adv.max() > 1


def test_result_is_detached_and_float32(attack):
    x, y = make_batch()
    x_adv = attack.perturb(make_model(), x, y, clip=CLIP)
    assert not x_adv.requires_grad
    assert x_adv.dtype == torch.float32
    assert x_adv.shape == x.shape


def test_clean_samples_are_not_written_to(attack):
    x, y = make_batch()
    before = x.clone()
    attack.perturb(make_model(), x, y, clip=CLIP)
    assert torch.equal(x, before)


def test_loss_rises_for_every_sample(attack):
    model, (x, y) = make_model(), make_batch()
    assert (loss_of(model, attack.perturb(model, x, y, clip=CLIP), y) > loss_of(model, x, y)).all()


def test_attack_works_where_gradients_are_switched_off(attack):
    model, (x, y) = make_model(), make_batch()
    with torch.no_grad():
        inside = attack.perturb(model, x, y, clip=CLIP)
    assert torch.equal(inside, attack.perturb(model, x, y, clip=CLIP))


def test_feature_with_eps_0_stays_as_it_is():
    x, y = make_batch()
    x_adv = PGD(eps=ARRAY_EPS).perturb(make_model(), x, y, clip=CLIP)
    assert torch.equal(x_adv[:, 0, 0, 0], x[:, 0, 0, 0])


def test_feature_with_the_largest_eps_moves_farther_than_any_other_may():
    x, y = make_batch()
    delta = PGD(eps=ARRAY_EPS).perturb(make_model(), x, y) - x
    assert delta[:, -1, -1, -1].abs().max() > np.sort(ARRAY_EPS.ravel())[-2]


def test_array_of_equal_bounds_is_the_number():
    model, (x, y) = make_model(), make_batch()
    number, array = PGD(eps=0.125), PGD(eps=np.full(SHAPE, 0.125))
    assert torch.equal(number.perturb(model, x, y, clip=CLIP), array.perturb(model, x, y, clip=CLIP))


@pytest.mark.parametrize("eps", [np.float32(0.1), np.float64(0.1), 1])
def test_eps_may_be_any_kind_of_number(eps):
    x, y = make_batch(4)
    delta = PGD(eps=eps).perturb(make_model(), x, y) - x
    assert delta.dtype == torch.float32
    assert delta.abs().max().item() == pytest.approx(float(eps), rel=1e-5)


# How good it is


WEIGHT, BIAS = [0.8, -0.3, 0.05, -1.5, 0.4], 0.2


@pytest.mark.parametrize(
    ("norm", "worst"), [("linf", np.abs(WEIGHT).sum()), ("l2", np.linalg.norm(WEIGHT)), ("l1", np.abs(WEIGHT).max())]
)
def test_linear_model_is_brought_to_its_analytic_worst_margin(norm, worst):
    # Over the ball, w @ delta is least at -eps times the dual norm of w.
    model, x = linear(WEIGHT, BIAS), torch.rand(20, 5, generator=seeded())
    attack = PGD(eps=0.3, steps=50, step_size=0.3, norm=norm)
    x_adv = attack.perturb(model, x, torch.ones(20, dtype=torch.long))
    expected = x @ torch.tensor(WEIGHT) + BIAS - 0.3 * worst
    torch.testing.assert_close(model(x_adv)[:, 1].detach(), expected.float(), atol=2e-6, rtol=0)


def test_default_steps_reach_the_analytic_worst_margin_in_the_box():
    model, x = linear(WEIGHT, BIAS), torch.rand(20, 5, generator=seeded())
    x_adv = PGD(eps=0.3).perturb(model, x, torch.ones(20, dtype=torch.long), clip=CLIP)
    worst = (x - 0.3 * torch.tensor(WEIGHT).sign()).clamp(0, 1)
    torch.testing.assert_close(x_adv, worst)


@pytest.mark.parametrize(("eps", "norm"), [(0.25, "linf"), (ARRAY_EPS, "linf"), (0.5, "l2"), (2.0, "l1")])
def test_a_relative_step_is_that_share_of_the_radius(eps, norm):
    model, (x, y) = make_model(), make_batch()
    once = PGD(eps, steps=1, rel_step_size=0.5, norm=norm, init="zero")
    assert once.measure(model, x, once.perturb(model, x, y)) == pytest.approx(
        np.full(16, 0.5 if np.ndim(eps) else 0.5 * eps), rel=1e-4
    )


def test_fewer_steps_are_longer_by_the_stride():
    model, (x, y) = make_model(), make_batch()
    for attack in (PGD(0.1), PGD(0.1, step_size=0.025), PGD(0.1, rel_step_size=0.25), PGD(ARRAY_EPS)):
        short = attack.shortened(1, 3).set_params(init="zero")
        moved = short.measure(model, x, short.perturb(model, x, y))
        assert moved == pytest.approx(np.full(16, 0.75 if np.ndim(attack.eps) else 0.075), rel=1e-4)
        assert attack.shortened(10, 3).get_params() == attack.get_params()


def test_attack_raises_the_loss_it_is_given():
    model, x = linear(WEIGHT, BIAS), torch.rand(20, 5, generator=seeded())

    def second_logit(logits, y, clean_logits):
        return logits[:, 1]

    x_adv = PGD(eps=0.1).perturb(model, x, torch.ones(20, dtype=torch.long), loss=second_logit)
    torch.testing.assert_close(x_adv, x + 0.1 * torch.tensor(WEIGHT).sign())


def test_more_restarts_never_leave_fewer_broken():
    model, (x, y) = make_model(), make_batch(200)
    right = []
    for restarts in (1, 2, 4, 8):
        x_adv = PGD(eps=0.06, steps=1, step_size=0.02, restarts=restarts).perturb(model, x, y, clip=CLIP)
        with frozen(model), torch.no_grad():
            right.append(model(x_adv).argmax(1) == y)
    for fewer, more in pairwise(right):
        assert not (more & ~fewer).any()  # what was broken stays broken
    assert right[-1].sum() < right[0].sum()


def test_restarts_keep_the_run_of_highest_loss():
    # Margins out of reach: nothing breaks, so every sample keeps the best of its runs.
    model, x, y = linear(WEIGHT, 5.0), torch.rand(30, 5, generator=seeded()), torch.ones(30, dtype=torch.long)

    def logit(restarts):
        weak = PGD(eps=0.3, steps=1, step_size=1e-6, restarts=restarts)
        return model(weak.perturb(model, x, y)).detach()[:, 1]

    few, many = logit(2), logit(6)
    assert (many <= few + 1e-6).all()
    assert (many < few - 1e-3).any()


# Starts


def test_auto_starts_uniformly():
    model, (x, y) = make_model(), make_batch()
    auto, uniform = (PGD(eps=0.1, init=init).perturb(model, x, y, clip=CLIP) for init in ("auto", "uniform"))
    assert torch.equal(auto, uniform)


def test_zero_start_needs_no_randomness():
    model, (x, y) = make_model(), make_batch()
    attack = PGD(eps=0.1, init="zero")
    one, two = (attack.perturb(model, x, y, clip=CLIP, generator=seeded(seed)) for seed in (1, 2))
    assert torch.equal(one, two)


def test_given_start_is_where_the_ascent_begins():
    x, y = make_batch()
    seen = []
    model = make_model()
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach().clone()))
    start = 0.2 * torch.rand(x.shape, generator=seeded()) - 0.1
    PGD(eps=0.05, steps=1).perturb(model, x, y, start=start)
    torch.testing.assert_close(seen[0], x + start.clamp(-0.05, 0.05))


# Seeds


def test_same_seed_gives_the_same_bits(attack):
    model, (x, y) = make_model(), make_batch()
    one, two = (attack.perturb(model, x, y, clip=CLIP, generator=seeded(5)) for _ in range(2))
    assert torch.equal(one, two)


@pytest.mark.parametrize("norm", ORDER)
def test_another_seed_starts_elsewhere(norm):
    model, (x, y) = make_model(), make_batch()
    attack = PGD(eps=0.1, steps=1, step_size=1e-3, norm=norm)
    one, two = (attack.perturb(model, x, y, generator=seeded(seed)) for seed in (5, 6))
    assert not torch.equal(one, two)


def test_without_a_generator_the_result_is_always_the_same(attack):
    model, (x, y) = make_model(), make_batch()
    assert torch.equal(attack.perturb(model, x, y, clip=CLIP), attack.perturb(model, x, y, clip=CLIP))


@pytest.mark.parametrize("generator", [None, seeded()], ids=["no generator", "generator"])
def test_global_randomness_is_untouched(attack, generator, global_randomness):
    model, (x, y) = make_model(), make_batch()
    before = global_randomness()
    attack.perturb(model, x, y, clip=CLIP, generator=generator)
    assert global_randomness() == before


# What it costs


@pytest.mark.parametrize("steps", [1, 7])
def test_a_step_is_one_forward_and_one_backward_pass(steps):
    model, (x, y) = make_model(), make_batch(16)
    calls = Calls(model)
    PGD(eps=0.1, steps=steps).perturb(model, x, y, clip=CLIP)
    assert calls.forwards == calls.backwards == [16] * steps


def test_fgsm_is_one_forward_and_one_backward_pass():
    model, (x, y) = make_model(), make_batch(16)
    calls = Calls(model)
    FGSM(eps=0.1, random_start=True).perturb(model, x, y, clip=CLIP)
    assert calls.forwards == calls.backwards == [16]


def test_restarts_attack_only_unbroken_samples_again():
    # Margins of -1 (broken at once), 0.01 (broken by the first run) and 100 (out of reach).
    model = linear([1.0], 0.0)
    x = torch.tensor([-1.0] * 4 + [0.01] * 3 + [100.0] * 2)[:, None]
    calls = Calls(model)
    PGD(eps=0.1, steps=5, restarts=3).perturb(model, x, torch.ones(9, dtype=torch.long))
    assert calls.backwards == [9] * 5 + [2] * 5 + [2] * 5
    assert calls.forwards == [9] * 6 + [2] * 6 + [2] * 6  # one more per run to judge it


def test_a_sample_that_a_restart_has_broken_is_not_attacked_again():
    # Starts alone break some samples in each run, so run k has those that k - 1 runs leave.
    model, x, y = linear([1.0], 0.0), torch.linspace(0, 0.1, 50)[:, None], torch.ones(50, dtype=torch.long)

    def attack(restarts):
        return PGD(eps=0.1, steps=1, step_size=1e-6, restarts=restarts).perturb(model, x, y)

    left = [(model(attack(restarts)).argmax(1) == y).sum().item() for restarts in (1, 2, 3)]
    calls = Calls(model)
    attack(4)
    assert calls.backwards == [50, *left]
    assert 50 > left[0] > left[1] > left[2] > 0


def test_restarts_end_when_every_sample_is_broken():
    model, x = linear([1.0], 0.0), torch.full((4, 1), 0.01)
    calls = Calls(model)
    PGD(eps=0.1, steps=5, restarts=10).perturb(model, x, torch.ones(4, dtype=torch.long))
    assert calls.forwards == [4] * 6


def test_a_loss_that_knows_no_success_is_raised_for_every_sample_in_every_restart():
    # The first sample is misclassified from the beginning, which is not what this loss asks for.
    model, x, y = linear([1.0], 0.0), torch.tensor([-1.0, 100.0])[:, None], torch.ones(2, dtype=torch.long)
    calls, weak = Calls(model), {"eps": 0.3, "steps": 1, "step_size": 1e-6}

    def lowest(logits, y, clean_logits):
        return -logits[:, 1]

    few, many = (PGD(**weak, restarts=restarts).perturb(model, x, y, loss=lowest) for restarts in (2, 8))
    assert calls.backwards == [2] * 10
    assert (many <= few).all()
    assert many[0] < few[0]


# The model afterwards


def disturb(model):
    """Mixed modes, mixed `requires_grad`, and gradients from some step before."""
    model.train()
    model[1].eval()
    model[4].eval()
    model[0].bias.requires_grad_(False)
    model[5].weight.grad = torch.full_like(model[5].weight, 3.0)


def state_of(model):
    modes = [module.training for module in model.modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    gradients = [None if p.grad is None else p.grad.tolist() for p in model.parameters()]
    return modes, flags, gradients, {name: value.tolist() for name, value in model.state_dict().items()}


def test_model_is_the_same_afterwards(attack):
    model, (x, y) = make_model(), make_batch()
    disturb(model)
    before = copy.deepcopy(state_of(model))
    attack.perturb(model, x, y, clip=CLIP)
    assert state_of(model) == before


def test_model_in_train_mode_keeps_its_batchnorm_statistics(attack):
    model, (x, y) = make_model().train(), make_batch()
    before = [model[1].running_mean.clone(), model[1].running_var.clone(), model[1].num_batches_tracked.clone()]
    attack.perturb(model, x, y, clip=CLIP)
    after = [model[1].running_mean, model[1].running_var, model[1].num_batches_tracked]
    assert all(map(torch.equal, before, after))
    assert model[1].training


def test_model_is_the_same_after_it_raised_in_the_middle():
    model, (x, y) = make_model(), make_batch()
    disturb(model)
    before = copy.deepcopy(state_of(model))
    calls = []

    def fail_at_the_third(module, inputs):
        calls.append(module.training)
        if len(calls) == 3:
            raise RuntimeError("out of memory")

    model[5].register_forward_pre_hook(fail_at_the_third)
    with pytest.raises(RuntimeError, match="out of memory"):
        PGD(eps=0.1).perturb(model, x, y, clip=CLIP)
    assert len(calls) == 3
    assert state_of(model) == before


def test_parameters_take_no_part_in_the_graph(attack):
    model, (x, y) = make_model(), make_batch()
    seen = []
    model.register_forward_hook(lambda m, inputs, logits: seen.extend(p.requires_grad for p in m.parameters()))
    attack.perturb(model, x, y, clip=CLIP)
    assert seen
    assert not any(seen)


def test_every_forward_runs_in_eval_mode(attack):
    model, (x, y) = make_model().train(), make_batch()
    seen = []
    model.register_forward_hook(lambda m, inputs, logits: seen.extend(module.training for module in m.modules()))
    attack.perturb(model, x, y, clip=CLIP)
    assert seen
    assert not any(seen)


@pytest.mark.parametrize("norm", ORDER)
def test_a_samples_result_does_not_depend_on_the_others_in_its_batch(norm):
    model, (x, y) = make_model().double().train(), make_batch()
    x = x.double()
    start = 0.1 * torch.rand(x.shape, generator=seeded(), dtype=x.dtype)
    attack = PGD(eps=0.3, norm=norm)
    together = attack.perturb(model, x, y, clip=CLIP, start=start)
    alone = [attack.perturb(model, x[i : i + 1], y[i : i + 1], clip=CLIP, start=start[i : i + 1]) for i in range(5)]
    torch.testing.assert_close(together[:5], torch.cat(alone), atol=1e-9, rtol=0)


# FGSM


def input_gradient(model, x, y):
    x = x.clone().requires_grad_()
    with frozen(model):
        F.cross_entropy(model(x), y).backward()
    return x.grad


def test_fgsm_is_its_closed_form():
    model, (x, y) = make_model(), make_batch()
    expected = (x + 0.1 * input_gradient(model, x, y).sign()).clamp(0, 1)
    torch.testing.assert_close(FGSM(eps=0.1).perturb(model, x, y, clip=CLIP), expected)


def test_fgsm_from_a_random_start_takes_a_step_of_five_quarters():
    model, (x, y) = make_model(), make_batch()
    start = 0.2 * torch.rand(x.shape, generator=seeded()) - 0.1
    delta = (start + 0.125 * input_gradient(model, x + start, y).sign()).clamp(-0.1, 0.1)
    torch.testing.assert_close(FGSM(eps=0.1, random_start=True).perturb(model, x, y, start=start), x + delta)


def test_fgsm_from_a_random_start_begins_uniformly():
    x, y = make_batch(200)
    seen = []
    model = make_model()
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach().clone()))
    FGSM(eps=0.1, random_start=True).perturb(model, x, y)
    start = (seen[0] - x).flatten()
    assert torch.quantile(start, torch.tensor([0.25, 0.5, 0.75])).numpy() == pytest.approx([-0.05, 0, 0.05], abs=0.005)


def test_fgsm_takes_the_step_size_given():
    model, (x, y) = make_model(), make_batch()
    delta = FGSM(eps=0.1, step_size=0.03).perturb(model, x, y) - x
    torch.testing.assert_close(delta, 0.03 * input_gradient(model, x, y).sign(), atol=1e-6, rtol=0)


# Parameters


@pytest.mark.parametrize(
    ("attack", "name", "value"),
    [
        (PGD(eps=0), "eps", "0"),
        (PGD(eps=-0.1), "eps", "-0.1"),
        (PGD(eps="big"), "eps", "big"),
        (PGD(eps=float("nan")), "eps", "nan"),
        (PGD(eps=[0.1, -0.2]), "eps", "-0.2"),
        (PGD(eps=[0.0, 0.0]), "eps", "0.0"),
        (PGD(eps=[0.1, float("nan")]), "eps", "nan"),
        (PGD(eps=[0.1, float("inf")]), "eps", "inf"),
        (PGD(eps=["a", "b"]), "eps", "'a'"),
        (PGD(eps=[0.1, 0.2], norm="l2"), "eps", "l2"),
        (PGD(steps=0), "steps", "0"),
        (PGD(steps=2.5), "steps", "2.5"),
        (PGD(step_size=0), "step_size", "0"),
        (PGD(rel_step_size=0), "rel_step_size", "0"),
        (PGD(step_size=0.1, rel_step_size=0.25), "give one", "rel_step_size=0.25"),
        (PGD(norm="l3"), "norm", "l3"),
        (PGD(init="somewhere"), "init", "somewhere"),
        (PGD(restarts=0), "restarts", "0"),
        (FGSM(eps=-1), "eps", "-1"),
        (FGSM(random_start="maybe"), "random_start", "maybe"),
        (FGSM(norm="l0"), "norm", "l0"),
    ],
    ids=repr,
)
def test_bad_parameter_is_named_with_its_value(attack, name, value):
    with pytest.raises(ValueError, match=name) as error:
        attack.validate()
    assert value in str(error.value)


@pytest.mark.parametrize("name", INSTANCES)
def test_good_parameters_pass(name):
    INSTANCES[name].validate()


@pytest.mark.parametrize("name", ATTACKS)
def test_names_mean_classes_that_pass_with_their_defaults(name):
    ATTACKS[name]().validate()
