"""Fast-LPA, LPA and PPGD: what they find, what they cost, and that they leave the models as they were."""

import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn

from sklearn_acs import LPA, MART, PPGD, TRADES, BulletTrain, FastLPA
from sklearn_acs.attacks.lpa import ascend
from sklearn_acs.attacks.perceptual_ball import PerceptualBall
from sklearn_acs.attacks.ppgd import steepest
from sklearn_acs.attacks.problem import margin_loss
from sklearn_acs.models import frozen, mlp, preact_resnet18

CLIP = (0.0, 1.0)
SHAPE = (3, 8, 8)


@pytest.fixture(autouse=True)
def same_weights():
    """Networks made in a test have the same weights in every run."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def make_model(seed=0, classes=3):
    """A convolutional net with BatchNorm and dropout whose statistics are those of data, not 0 and 1."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(512, 16),
            nn.ReLU(),
            nn.Linear(16, classes),
        )
        model(torch.rand(50, *SHAPE))
    return model


def make_judge(seed=9):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Tanh(), nn.Conv2d(6, 6, 3), nn.ReLU())


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A file with random weights of SqueezeNet's size, which needs no download."""
    from torchvision.models import squeezenet1_1

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = squeezenet1_1(weights=None).state_dict()
    path = tmp_path_factory.mktemp("weights") / "squeezenet.npz"
    np.savez(path, **{name: value.numpy() for name, value in state.items()})
    return str(path)


BOUND = 0.3
WITHIN = {
    "fast-lpa, newton": FastLPA(BOUND, projection="newton"),
    "fast-lpa, bisection": FastLPA(BOUND, projection="bisection"),
    "fast-lpa, another judge": FastLPA(BOUND, distance=make_judge(), projection="newton"),
    "lpa": LPA(BOUND, steps=8, distance="self"),
    "lpa, every sample": LPA(BOUND, steps=8, distance="self", only_correct=False),
    "lpa, another judge": LPA(BOUND, steps=8, distance=make_judge()),
    "lpa, squeeze": LPA(BOUND, steps=3, rounds=2, distance="squeeze"),
    "ppgd": PPGD(BOUND, steps=8, distance="self"),
    "ppgd, bisection": PPGD(BOUND, steps=8, distance="self", projection="bisection"),
    "ppgd, another judge": PPGD(BOUND, steps=8, distance=make_judge(), layers=["2"]),
    "ppgd, squeeze": PPGD(BOUND, steps=2, distance="squeeze"),
}
INSTANCES = {"fast-lpa": FastLPA(BOUND), "fast-lpa, every sample": FastLPA(BOUND, only_correct=False), **WITHIN}


def make_attack(name, weights):
    attack = clone(INSTANCES[name])
    return attack.set_params(weights=weights) if attack.distance == "squeeze" else attack


@pytest.fixture(params=INSTANCES)
def attack(request, weights):
    return make_attack(request.param, weights)


@pytest.fixture(params=WITHIN)
def attack_within(request, weights):
    return make_attack(request.param, weights)


def predict(model, x):
    with frozen(model), torch.no_grad():
        return model(x)


def make_batch(model, n=12, wrong=2):
    """Samples that the model gets right, but for the last ones."""
    x = torch.rand(n, *SHAPE, generator=seeded(1))
    y = predict(model, x).argmax(1)
    y[n - wrong :] = (y[n - wrong :] + 1) % 3
    return x, y


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


@pytest.mark.parametrize("seed", [0, 1])
def test_every_sample_is_within_the_bound(attack_within, seed):
    model = make_model(seed)
    x, y = make_batch(model)
    x_adv = attack_within.perturb(model, x, y, clip=CLIP, generator=seeded(seed))
    distance = attack_within.measure(model, x, x_adv, clip=CLIP)
    assert (distance <= BOUND).all()
    assert distance[:10].max() > 0.1


def test_without_a_box_every_sample_is_within_the_bound_and_a_unit_of_each_feature():
    model, scale = mlp((5,), 3), np.array([1.0, 10.0, 0.1, 1.0, 3.0])
    x = torch.randn(20, 5, generator=seeded()) * torch.from_numpy(scale).float()
    y = predict(model, x).argmax(1)
    for attack in (
        FastLPA(BOUND, scale=scale, projection="newton"),
        LPA(BOUND, steps=5, distance="self", scale=scale),
        PPGD(BOUND, steps=5, distance="self", scale=scale),
    ):
        x_adv = attack.perturb(model, x, y)
        assert (attack.measure(model, x, x_adv) <= BOUND).all()
        assert ((x_adv - x) / torch.from_numpy(scale)).square().mean(1).max() <= 1 + 1e-5


@pytest.mark.parametrize("clip", [CLIP, (-0.4242, 2.8215)])
def test_samples_stay_in_the_box(attack, clip):
    model = make_model()
    x = (clip[0] + (clip[1] - clip[0]) * torch.rand(30, *SHAPE, generator=seeded())).clamp(*clip)
    x_adv = attack.set_params(bound=2.0).perturb(model, x, predict(model, x).argmax(1), clip=clip)
    assert x_adv.min() >= torch.tensor(clip[0])
    assert x_adv.max() <= torch.tensor(clip[1])


def test_result_is_detached_and_its_own(attack):
    model = make_model()
    x, y = make_batch(model)
    before = x.clone()
    x_adv = attack.perturb(model, x, y, clip=CLIP)
    assert not x_adv.requires_grad
    assert (x_adv.shape, x_adv.dtype) == (x.shape, x.dtype)
    assert torch.equal(x, before)
    assert x_adv.data_ptr() != x.data_ptr()


def test_margin_rises_for_every_sample_attacked(attack):
    model = make_model()
    x, y = make_batch(model, wrong=0)
    x_adv = attack.perturb(model, x, y, clip=CLIP)
    assert (margin_loss(predict(model, x_adv), y) > margin_loss(predict(model, x), y)).all()


def test_attack_works_where_gradients_are_switched_off(attack):
    model = make_model()
    x, y = make_batch(model)
    with torch.no_grad():
        inside = attack.perturb(model, x, y, clip=CLIP)
    assert torch.equal(inside, attack.perturb(model, x, y, clip=CLIP))


def test_misclassified_samples_are_returned_as_they_are(attack):
    model = make_model()
    x, y = make_batch(model, wrong=4)
    same = (attack.perturb(model, x, y, clip=CLIP) == x).flatten(1).all(1)
    assert same.tolist() == [False] * 8 + [attack.only_correct] * 4


def test_a_batch_of_misclassified_samples_is_returned_as_it_is(attack):
    model = make_model()
    x, y = make_batch(model, n=4, wrong=4)
    if attack.only_correct:
        assert torch.equal(attack.perturb(model, x, y, clip=CLIP), x)


@pytest.mark.parametrize(
    ("name", "bounds"),
    [
        ("fast-lpa, newton", (0.01, 0.3, 1.2)),
        ("lpa, another judge", (0.01, 0.1, 0.8)),
        ("ppgd", (0.01, 0.3, 1.2)),
    ],
)
def test_larger_bounds_break_more(name, bounds):
    model = make_model()
    x = torch.rand(60, *SHAPE, generator=seeded())
    y = predict(model, x).argmax(1)
    broken = []
    for bound in bounds:
        x_adv = clone(INSTANCES[name]).set_params(bound=bound).perturb(model, x, y, clip=CLIP)
        broken.append((predict(model, x_adv).argmax(1) != y).float().mean())
    assert broken[0] < broken[1] < broken[2]
    assert broken[0] < 0.3
    assert broken[2] > 0.95


@pytest.mark.parametrize("name", ["fast-lpa, newton", "lpa", "ppgd"])
def test_residual_networks_are_broken(name):
    model = preact_resnet18((3, 8, 8), 3).eval()
    x = torch.rand(3, *SHAPE, generator=seeded())
    y = predict(model, x).argmax(1)
    x_adv = clone(INSTANCES[name]).set_params(bound=1.0).perturb(model, x, y, clip=CLIP)
    assert (predict(model, x_adv).argmax(1) != y).all()


# One step, by its formula


def activations(model, x):
    first = model[:3](x)
    second = model[3:7](first)
    return torch.cat(
        [
            (first / (first.norm(dim=1, keepdim=True) + 1e-10) / 8).flatten(1),
            second / (second.norm(dim=1, keepdim=True) + 1e-10),
        ],
        1,
    )


@pytest.mark.parametrize("far", [False, True], ids=["inside", "outside"])
def test_a_step_of_fast_lpa_is_its_formula(far):
    model = make_model().eval()
    x, y = make_batch(model, wrong=0)
    start = (0.3 if far else 0.01) * torch.randn(x.shape, generator=seeded())
    x_adv = FastLPA(0.2, steps=1, lam=10.0).perturb(model, x, y, clip=CLIP, start=start)

    point = (x + start).clamp(0, 1).requires_grad_()
    distance = (activations(model, point) - activations(model, x)).norm(dim=1)
    assert ((distance > 0.2) == far).all()
    logits = model(point)
    other = logits.masked_fill(nn.functional.one_hot(y, 3).bool(), -torch.inf).amax(1)
    value = other - logits[torch.arange(len(y)), y] - 10 * 0.1 * (distance - 0.2).clamp(min=0)
    (gradient,) = torch.autograd.grad(value.sum(), point)
    unit = gradient / (gradient.flatten(1).norm(dim=1) + 1e-8)[:, None, None, None]
    speed = (activations(model, point + 0.1 * unit) - activations(model, point)).norm(dim=1) / 0.1
    expected = (point + unit * (0.2 / (speed + 1e-4))[:, None, None, None]).clamp(0, 1)
    torch.testing.assert_close(x_adv, expected.detach())


def linear_ball(matrix, x, scale=1.0):
    return PerceptualBall(lambda x: x @ matrix, x, x @ matrix, 1.0, None, scale)


def test_a_step_moves_linear_activations_by_the_step_size():
    matrix, x = torch.randn(4, 6, generator=seeded()), torch.zeros(5, 4)
    gradient = torch.randn(5, 4, generator=seeded(1))
    moved = ascend(linear_ball(matrix, x), x, x @ matrix, gradient, 0.25, 1e-8)
    assert (moved @ matrix).norm(dim=1).numpy() == pytest.approx(0.25, rel=1e-5)
    torch.testing.assert_close(moved / moved.norm(dim=1, keepdim=True), gradient / gradient.norm(dim=1, keepdim=True))


@pytest.mark.parametrize("scale", [1.0, torch.tensor([1.0, 2.0, 0.5, 1.0])])
def test_conjugate_gradients_find_the_steepest_ascent_in_linear_activations(scale):
    # 5 steps are exact in 4 dimensions; stopping at a tenth of the gradient leaves a little.
    matrix = torch.linalg.qr(torch.randn(6, 4, generator=seeded()))[0] @ torch.diag(torch.tensor([1.0, 1.5, 2.0, 3.0]))
    matrix = matrix.T.double()
    point = torch.zeros(5, 4, dtype=torch.double, requires_grad=True)
    gradient = torch.randn(5, 4, generator=seeded(1)).double()
    ball = linear_ball(matrix, point.detach(), scale)
    move = steepest(ball, point, point @ matrix, gradient, 0.25)
    assert (move @ matrix).norm(dim=1).numpy() == pytest.approx(0.25)
    best = torch.linalg.solve(matrix @ matrix.T, gradient.T).T
    best = 0.25 * best / (best @ matrix).norm(dim=1, keepdim=True)
    assert ((move * gradient).sum(1) > 0.98 * (best * gradient).sum(1)).all()


def test_ppgd_stays_where_the_loss_is_flat():
    model = make_model()
    x, y = make_batch(model, wrong=0)
    calls = Calls(model)

    def flat(logits, y, clean_logits):
        return 0 * logits[:, 0]

    start = 0.001 * torch.randn(x.shape, generator=seeded())
    x_adv = PPGD(distance="self").perturb(model, x, y, loss=flat, clip=CLIP, start=start)
    torch.testing.assert_close(x_adv, (x + start).clamp(0, 1))
    assert len(calls.backwards) == 1


def test_lpa_leaves_broken_samples_alone():
    model, x = mlp((2,), 3), torch.randn(200, 2, generator=seeded())
    y = predict(model, x).argmax(1)
    calls = Calls(model)
    x_adv = LPA(0.05, steps=3, rounds=4, distance="self").perturb(model, x, y)
    assert len(calls.backwards) == 12
    assert calls.backwards[0] == 200
    assert calls.backwards == sorted(calls.backwards, reverse=True)
    left = (predict(model, x_adv).argmax(1) == y).sum()
    assert 0 < left <= calls.backwards[-1] < 200


def test_lpas_penalty_rises_until_samples_are_inside():
    # One round with its small penalty ends outside, and projection alone has to bring the samples back.
    model = make_model()
    x, y = make_batch(model, wrong=0)

    def distances(rounds):
        attack = LPA(0.02, steps=10, rounds=rounds, distance="self")
        attack._project = lambda task, x_adv: x_adv
        return attack.measure(model, x, attack.perturb(model, x, y, clip=CLIP))

    assert distances(1).mean() > 3 * distances(5).mean()


# Losses, clean logits and other parts


def test_margin_is_the_best_wrong_logit_minus_the_right_one():
    logits = torch.tensor([[1.0, 3.0, 2.0], [1.0, 3.0, 2.0], [5.0, 0.0, 0.0]])
    y = torch.tensor([1, 0, 1])
    assert margin_loss(logits, y).tolist() == [-1, 2, 5]
    assert margin_loss(logits, y, cap=1.0).tolist() == [-1, 1, 1]
    assert margin_loss(logits[:, :2], y).tolist() == [-2, 2, 5]


def test_margins_gradient_ends_at_the_cap():
    logits = torch.tensor([[0.0, 0.5], [0.0, 2.0]], requires_grad=True)
    margin_loss(logits, torch.tensor([0, 0]), cap=1.0).sum().backward()
    assert logits.grad.tolist() == [[-1, 1], [0, 0]]


@pytest.mark.parametrize(("attack", "cap"), [(FastLPA(), np.inf), (LPA(), 1), (PPGD(), 1)])
def test_default_loss_is_the_margin(attack, cap):
    logits, y = 3 * torch.randn(20, 4, generator=seeded()), torch.arange(20) % 4
    assert torch.equal(attack.default_loss(logits, y), margin_loss(logits, y).clamp(max=cap))


def test_given_loss_sees_the_whole_batch_and_zeros_where_nothing_is_attacked(attack):
    model = make_model()
    x, y = make_batch(model, wrong=4)
    clean_logits, attacked = predict(model, x), []

    def loss(logits, y_seen, clean):
        assert torch.equal(y_seen, y) and torch.equal(clean, clean_logits)
        attacked.append(logits.detach().any(1).nonzero().squeeze(1).tolist())
        return -logits[:, 0]

    attack.perturb(model, x, y, loss=loss, clip=CLIP, clean_logits=clean_logits)
    assert attacked[0] == list(range(8 if attack.only_correct else 12))


@pytest.mark.parametrize("objective", [TRADES(), MART()], ids=["trades", "mart"])
def test_inner_losses_of_other_objectives_rise(attack, objective):
    model = make_model()
    x, y = make_batch(model, wrong=0)
    clean_logits = predict(model, x)
    x_adv = attack.perturb(model, x, y, loss=objective.inner_loss, clip=CLIP, clean_logits=clean_logits)
    before = objective.inner_loss(clean_logits, y, clean_logits)
    assert (objective.inner_loss(predict(model, x_adv), y, clean_logits) > before).all()


def test_bullet_train_goes_around_fast_lpa():
    model = make_model()
    x, y = make_batch(model)
    bullet = BulletTrain(FastLPA(BOUND, steps=6))
    bullet.robust_share_ = torch.tensor(0.5)
    calls = Calls(model)
    x_adv = bullet.perturb(model, x, y, clip=CLIP)
    assert torch.equal(x_adv[10:], x[10:])
    assert (margin_loss(predict(model, x_adv), y) > margin_loss(predict(model, x), y))[:10].all()
    assert sum(calls.backwards) < 10 * 6


def test_start_is_where_the_ascent_begins(attack):
    model = make_model()
    x, y = make_batch(model)
    start, seen = 0.01 * torch.randn(x.shape, generator=seeded()), []
    hook = model.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].detach().clone()) if inputs[0].requires_grad else None
    )
    attack.perturb(model, x, y, clip=CLIP, start=start)
    hook.remove()
    expected = (x + start).clamp(0, 1)
    torch.testing.assert_close(seen[0], expected[:10] if attack.only_correct else expected)


# Tables


def test_result_does_not_depend_on_the_units_of_the_features():
    model, scale = mlp((4,), 3).double(), torch.tensor([1.0, 1000.0, 0.001, 5.0], dtype=torch.double)
    rescaled = copy.deepcopy(model)
    with torch.no_grad():
        rescaled[1].weight /= scale
    x = torch.randn(20, 4, generator=seeded()).double()
    y = predict(model, x).argmax(1)
    for attack in (FastLPA(BOUND), LPA(BOUND, steps=3, distance="self"), PPGD(BOUND, steps=3, distance="self")):
        plain = attack.perturb(model, x, y)
        scaled = clone(attack).set_params(scale=scale.numpy()).perturb(rescaled, x * scale, y)
        torch.testing.assert_close(scaled / scale, plain, atol=1e-4, rtol=0)


def test_units_of_a_box_are_its_width():
    model, wide = make_model().eval(), nn.Sequential(nn.Identity(), make_model()).eval()
    wide[0].forward = lambda x: x / 255
    x, y = make_batch(model)
    plain = FastLPA(BOUND).perturb(model, x, y, clip=CLIP)
    torch.testing.assert_close(FastLPA(BOUND).perturb(wide, 255 * x, y, clip=(0, 255)) / 255, plain, atol=1e-3, rtol=0)


def test_scale_of_another_shape_is_refused():
    model = mlp((4,), 3)
    x = torch.zeros(2, 4)
    with pytest.raises(ValueError, match=r"scale must be a number or of the shape of one sample, \(4,\); got \(3,\)"):
        FastLPA(scale=[1, 2, 3]).perturb(model, x, predict(model, x).argmax(1))


# Seeds


def test_same_seed_gives_the_same_bits(attack):
    model = make_model()
    x, y = make_batch(model)
    one, two = (attack.perturb(model, x, y, clip=CLIP, generator=seeded(5)) for _ in range(2))
    assert torch.equal(one, two)


def test_another_seed_starts_elsewhere(attack):
    model = make_model()
    x, y = make_batch(model)
    one, two = (attack.perturb(model, x, y, clip=CLIP, generator=seeded(seed)) for seed in (5, 6))
    assert not torch.equal(one, two)


@pytest.mark.parametrize("generator", [None, seeded()], ids=["no generator", "generator"])
def test_global_randomness_is_untouched(attack, generator, global_randomness):
    model = make_model()
    x, y = make_batch(model, n=4)
    before = global_randomness()
    attack.perturb(model, x, y, clip=CLIP, generator=generator)
    assert global_randomness() == before


# What it costs


@pytest.mark.parametrize("steps", [1, 4])
def test_a_step_of_fast_lpa_is_two_forward_passes_and_one_backward_pass(steps):
    model = make_model()
    x, y = make_batch(model, n=12, wrong=5)
    calls = Calls(model)
    FastLPA(steps=steps).perturb(model, x, y, clip=CLIP)
    assert calls.forwards == [12] + [7] * (2 * steps)
    assert calls.backwards == [7] * steps


def test_clean_logits_save_a_pass_where_another_network_judges():
    model, judge = make_model(), make_judge()
    x, y = make_batch(model, n=12, wrong=5)
    clean_logits, calls, looks = predict(model, x), Calls(model), Calls(judge)
    FastLPA(steps=3, distance=judge).perturb(model, x, y, clip=CLIP, clean_logits=clean_logits)
    assert calls.forwards == calls.backwards == [7] * 3
    assert looks.forwards == [12] + [7] * 6


# The models afterwards


def disturb(model):
    """Mixed modes, mixed `requires_grad`, and gradients from some step before."""
    model.train()
    model[1].eval()
    model[0].bias.requires_grad_(False)
    model[0].weight.grad = torch.full_like(model[0].weight, 3.0)


def state_of(model):
    modes = [module.training for module in model.modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    gradients = [None if p.grad is None else p.grad.tolist() for p in model.parameters()]
    hooks = [len(module._forward_hooks) for module in model.modules()]
    return modes, flags, gradients, hooks, {name: value.tolist() for name, value in model.state_dict().items()}


def test_models_are_the_same_afterwards(attack):
    model = make_model()
    x, y = make_batch(model)
    models = [model, *([attack.distance] if isinstance(attack.distance, nn.Module) else [])]
    for one in models:
        disturb(one)
    before = [copy.deepcopy(state_of(one)) for one in models]
    attack.perturb(model, x, y, clip=CLIP)
    attack.measure(model, x, x)
    assert [state_of(one) for one in models] == before


def test_model_is_the_same_after_it_raised_in_the_middle(attack):
    model = make_model()
    x, y = make_batch(model)
    disturb(model)
    calls = []

    def fail_at_the_third(module, inputs):
        calls.append(module.training)
        if len(calls) == 3:
            raise RuntimeError("out of memory")

    model[5].register_forward_pre_hook(fail_at_the_third)
    before = copy.deepcopy(state_of(model))
    with pytest.raises(RuntimeError, match="out of memory"):
        attack.perturb(model, x, y, clip=CLIP)
    assert state_of(model) == before


def test_every_forward_runs_in_eval_mode_without_parameters_in_the_graph(attack):
    model = make_model().train()
    x, y = make_batch(model)
    judge = attack.distance if isinstance(attack.distance, nn.Module) else model
    seen = []
    for one in (model, judge):
        one.register_forward_hook(lambda m, inputs, output: seen.extend(module.training for module in m.modules()))
        one.register_forward_hook(lambda m, inputs, output: seen.extend(p.requires_grad for p in m.parameters()))
    attack.perturb(model, x, y, clip=CLIP)
    assert seen
    assert not any(seen)


def test_a_samples_result_does_not_depend_on_the_others_in_its_batch(attack):
    if attack.distance == "squeeze":
        return  # float32, where rounding decides which side of a threshold a sample is on
    model = make_model().double()
    if isinstance(attack.distance, nn.Module):
        attack.distance.double()
    x, y = make_batch(model.float())
    model, x = model.double(), x.double()
    start = 0.01 * torch.randn(x.shape, generator=seeded(), dtype=x.dtype)
    together = attack.perturb(model, x, y, clip=CLIP, start=start)
    alone = [attack.perturb(model, x[i : i + 1], y[i : i + 1], clip=CLIP, start=start[i : i + 1]) for i in range(4)]
    torch.testing.assert_close(together[:4], torch.cat(alone), atol=1e-6, rtol=0)


# The attack as an estimator


def test_attack_can_be_cloned_and_pickled_after_use(attack):
    model = make_model()
    x, y = make_batch(model)
    x_adv = attack.perturb(model, x, y, clip=CLIP)
    for other in (clone(attack), pickle.loads(pickle.dumps(attack))):
        other.validate()
        assert torch.equal(other.perturb(model, x, y, clip=CLIP), x_adv)


def test_a_module_that_measures_is_pickled_from_the_cpu():
    class Elsewhere(nn.Linear):
        at = "elsewhere"

        def cpu(self):
            self.at = "cpu"
            return self

    attack = BulletTrain(FastLPA(distance=Elsewhere(2, 2)))
    assert copy.deepcopy(attack).attack.distance.at == "cpu"
    assert attack.attack.distance.at == "elsewhere"


def test_fast_lpa_is_evaluated_within_the_bound():
    assert FastLPA(0.2).for_evaluation().get_params() == FastLPA(0.2, projection="newton").get_params()
    attack = FastLPA(projection="bisection")
    assert attack.for_evaluation() is attack


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        (FastLPA(bound=0), ["bound", "0"]),
        (LPA(bound=-1.0), ["bound", "-1.0"]),
        (PPGD(steps=0), ["steps", "0"]),
        (FastLPA(step_size=-0.1), ["step_size", "-0.1"]),
        (FastLPA(lam=-1), ["lam", "-1"]),
        (LPA(lam=0), ["lam", "0"]),
        (LPA(rounds=0), ["rounds", "0"]),
        (FastLPA(distance="vgg"), ["distance", "'vgg'", "'self'", "'alex'", "'squeeze'", "Module"]),
        (FastLPA(distance=nn.Linear), ["distance", "Linear"]),
        (FastLPA(projection="halving"), ["projection", "'halving'", "'newton'", "'bisection'", "'none'"]),
        (LPA(projection="none"), ["projection", "'none'", "'newton'", "'bisection'"]),
        (PPGD(only_correct="yes"), ["only_correct", "'yes'"]),
        (FastLPA(layers="layer1"), ["layers", "'layer1'"]),
        (FastLPA(layers=[]), ["layers", "[]", "one or more"]),
        (FastLPA(layers=[1]), ["layers", "[1]", "names"]),
        (LPA(layers=["0"]), ["layers", "['0']", "'self'", "'alex'"]),
        (FastLPA(weights="alexnet.npz"), ["weights", "'alexnet.npz'", "'alex'", "'self'"]),
        (LPA(weights="no/such/file.npz"), ["weights", "'no/such/file.npz'", ".npz", ".pth"]),
        (PPGD(weights=__file__), ["weights", __file__, ".npz", ".pth"]),
        (FastLPA(scale="unit"), ["scale", "'unit'", "'auto'"]),
        (FastLPA(scale=0), ["scale", "0"]),
        (FastLPA(scale=[0.0, 0.0]), ["scale", "[0.0, 0.0]", "> 0"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_bad_parameter_is_named_with_its_value_and_what_is_allowed(attack, words):
    with pytest.raises(ValueError) as error:
        attack.validate()
    assert all(word in str(error.value) for word in words)


def test_good_parameters_pass(attack):
    attack.validate()


def test_unknown_layer_is_named(attack):
    model = make_model()
    x, y = make_batch(model)
    if attack.distance != "squeeze":
        with pytest.raises(ValueError, match=r"layers=\['conv9'\].*no layer 'conv9'; it has \['0', '1'"):
            attack.set_params(layers=["conv9"]).perturb(model, x, y, clip=CLIP)
