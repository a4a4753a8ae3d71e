"""AutoAttack: the authors' own result, with any number of classes, and nothing left behind in the process."""

import logging
import sys

import numpy as np
import pyautoattack
import pytest
import torch
from pyautoattack.square import SquareAttack
from sklearn.datasets import load_digits
from torch import nn

from sklearn_acs import AutoAttack, RobustClassifier
from sklearn_acs.attacks.autoattack import _Log, _square_fits
from sklearn_acs.models import frozen

CLIP = (0.0, 1.0)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def seed_of(generator):
    """The seed that an attack with this generator hands to the package."""
    return int(torch.randint(2**31 - 1, (1,), generator=generator))


@pytest.fixture(autouse=True)
def shortened(monkeypatch):
    """Few iterations, for our calls and for those made directly; the list of all runs' objects."""
    whole, made = pyautoattack.AutoAttack, []

    class Short(whole):
        def __init__(self, *args, **params):
            super().__init__(*args, **params)
            for part in (self.apgd, self.apgd_targeted):
                part.n_iter = part.n_iter_orig = 5
                part.eot_iter = min(part.eot_iter, 2)
            self.fab.n_iter, self.square.n_queries = 4, 15
            self.fab.n_restarts = self.apgd.n_restarts = min(self.fab.n_restarts, 2)
            made.append(self)

    monkeypatch.setattr(pyautoattack, "AutoAttack", Short)
    return made


def make_model(classes=10, channels=2):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(channels, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5),
            nn.Linear(6 * 36, classes),
        )  # fmt: skip
        model(torch.rand(50, channels, 8, 8))
    return model


def make_batch(model, n=16, wrong=4, classes=10, channels=2):
    """Random images with the model's own predictions as labels, but for the last few."""
    x = torch.rand(n, channels, 8, 8, generator=seeded(1))
    with frozen(model), torch.no_grad():
        y = model(x).argmax(1)
    y[n - wrong :] = (y[n - wrong :] + 1) % classes
    return x, y


def directly(model, x, y, *, seed, **params):
    """The package itself, as its own README calls it."""
    with torch.random.fork_rng(devices=[]), frozen(model):
        adversary = pyautoattack.AutoAttack(model, seed=seed, device="cpu", **params)
        adversary.verbose = False
        adversary.logger = adversary.apgd.logger = adversary.apgd_targeted.logger = logging.Logger("quiet", 100)
        return adversary.run_standard_evaluation(x, y, batch_size=len(x))[0]


# The result


@pytest.mark.parametrize(
    ("norm", "eps", "version"),
    [
        ("linf", 0.02, "standard"),
        ("l2", 0.15, "standard"),
        ("l1", 1.0, "standard"),
        ("linf", 0.02, "plus"),
        ("l2", 0.15, "rand"),
    ],
)
def test_it_is_what_the_package_returns_for_the_same_seed(norm, eps, version):
    model = make_model()
    x, y = make_batch(model)
    x_adv = AutoAttack(eps, norm=norm, version=version).perturb(model, x, y, clip=CLIP, generator=seeded(7))
    expected = directly(model, x, y, seed=seed_of(seeded(7)), norm=norm.capitalize(), eps=eps, version=version)
    assert torch.equal(x_adv, expected)
    changed = (x_adv != x).flatten(1).any(1)
    assert 0 < changed.sum() < len(x)


@pytest.mark.parametrize(("norm", "order"), [("linf", np.inf), ("l2", 2), ("l1", 1)])
@pytest.mark.parametrize("clip", [CLIP, (-0.4242, 2.8215)])
def test_samples_stay_in_the_ball_and_in_the_box(norm, order, clip):
    model = make_model()
    x = (clip[0] + (clip[1] - clip[0]) * torch.rand(12, 2, 8, 8, generator=seeded(1))).clamp(*clip)
    with frozen(model), torch.no_grad():
        y = model(x).argmax(1)
    x_adv = AutoAttack(0.3, norm=norm).perturb(model, x, y, clip=clip)
    size = torch.linalg.vector_norm((x_adv - x).flatten(1).double(), ord=order, dim=1)
    assert 0 < size.max() <= 0.3 * (1 + 1e-4)
    assert x_adv.min() >= torch.tensor(clip[0])
    assert x_adv.max() <= torch.tensor(clip[1])


def test_another_box_is_scaled_to_the_packages():
    class Unscaled(nn.Module):
        def forward(self, z):
            return model((z + 1) / 2)

    model = make_model().eval()
    x, y = make_batch(model)
    there = AutoAttack(0.06).perturb(Unscaled(), 2 * x - 1, y, clip=(-1.0, 1.0), generator=seeded(7))
    here = AutoAttack(0.03).perturb(model, x, y, clip=CLIP, generator=seeded(7))
    right = [net(images).argmax(1) == y for net, images in ((Unscaled(), there), (model, here))]
    assert torch.equal(*right)
    torch.testing.assert_close((there + 1) / 2, here, atol=1e-3, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_samples_that_are_wrong_anyway_or_robust_are_left_as_they_are(dtype):
    model = make_model().to(dtype)
    x, y = make_batch(model.float(), wrong=8)
    model, x = model.to(dtype), (x * 0.9 + 0.05).to(dtype)
    x_adv = AutoAttack(1e-7).perturb(model, x, y, clip=(-0.3, 1.7))
    assert torch.equal(x_adv, x)
    with frozen(model), torch.no_grad():
        wrong = model(x).argmax(1) != y
    assert wrong.any()
    assert torch.equal(AutoAttack(0.1).perturb(model, x, y, clip=(-0.3, 1.7))[wrong], x[wrong])


# Any number of classes


@pytest.mark.parametrize(
    ("classes", "version", "expected"),
    [
        (10, "standard", ["apgd-ce", "apgd-t", "fab-t", "square"]),
        (4, "standard", ["apgd-ce", "apgd-t", "fab-t", "square"]),
        (3, "standard", ["apgd-ce", "apgd-dlr", "fab-t", "square"]),
        (2, "standard", ["apgd-ce", "fab", "square"]),
        (3, "plus", ["apgd-ce", "apgd-dlr", "fab", "square", "fab-t"]),
        (2, "plus", ["apgd-ce", "fab", "square"]),
        (3, "rand", ["apgd-ce", "apgd-dlr"]),
        (2, "rand", ["apgd-ce"]),
    ],
)
def test_attacks_are_those_that_are_defined_for_the_classes(classes, version, expected, shortened):
    model = make_model(classes)
    x, y = make_batch(model, classes=classes)
    attack = AutoAttack(0.02, version=version)
    x_adv = attack.perturb(model, x, y, clip=CLIP)
    assert attack.attacks_ == expected
    assert (x_adv - x).abs().max() <= 0.02 + 1e-6
    targets = [shortened[0].apgd_targeted.n_target_classes, shortened[0].fab.n_target_classes]
    assert max(targets) <= classes - 1
    said = " ".join(attack.warnings_)
    for name in {"standard": {"apgd-t", "fab-t"}, "plus": {"apgd-dlr", "apgd-t", "fab-t"}, "rand": {"apgd-dlr"}}[
        version
    ]:
        assert (name in expected) or f"{name} is left out" in said or f"for {name}, which is not defined" in said


@pytest.mark.parametrize("classes", [4, 10])
def test_all_is_well_with_enough_classes(classes):
    model = make_model(classes)
    x, y = make_batch(model, classes=classes)
    attack = AutoAttack(1e-6)
    attack.perturb(model, x, y, clip=CLIP)
    assert attack.warnings_ == []


@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes_are_said_and_are_no_reason_for_the_packages_warning(classes):
    model = make_model(classes)
    x, y = make_batch(model, classes=classes)
    attack = AutoAttack(1e-6)
    attack.perturb(model, x, y, clip=CLIP)
    assert attack.warnings_
    assert all(f"not defined for {classes} classes" in sentence for sentence in attack.warnings_)


def test_one_logit_is_refused():
    model = make_model(1)
    with pytest.raises(ValueError, match="2 classes or more"):
        AutoAttack().perturb(model, torch.rand(3, 2, 8, 8), torch.zeros(3, dtype=torch.long), clip=CLIP)


def test_attacks_may_be_chosen():
    model = make_model()
    x, y = make_batch(model)
    attack = AutoAttack(0.02, attacks=["square", "apgd-ce"])
    attack.perturb(model, x, y, clip=CLIP)
    assert attack.attacks_ == ["square", "apgd-ce"]


@pytest.mark.parametrize(
    ("size", "norm"),
    [
        ((h, w), norm)
        for norm in ("l2", "l1")
        for h, w in [(8, 8), (9, 9), (12, 12), (14, 14), (28, 28), (33, 47), (4, 4)]
    ],
)
def test_square_runs_for_just_those_sizes_that_it_can_tile(size, norm):
    x = torch.rand(2, 1, *size, generator=seeded())
    square = SquareAttack(lambda x: x.flatten(1)[:, :3].clone(), norm=norm.capitalize(), n_queries=2, eps=0.1)
    with torch.random.fork_rng(devices=[]):
        try:
            square.perturb(x, x.flatten(1)[:, :3].argmax(1))
            runs = True
        except (RuntimeError, ZeroDivisionError):
            runs = False
    assert _square_fits((1, *size), norm) is runs


def test_square_is_left_out_where_it_cannot_run():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Linear(6, 4)
    x = torch.rand(20, 6, generator=seeded())
    y = model(x).argmax(1)
    attack = AutoAttack(0.05)
    assert (model(attack.perturb(model, x, y, clip=CLIP)).argmax(1) != y).any()
    assert attack.attacks_ == ["apgd-ce", "apgd-t", "fab-t"]
    assert attack.warnings_ == ["square is left out: it does not work on samples of shape (6,) in linf"]
    with pytest.raises(ValueError, match=r"nothing to run: square is left out.* shape \(6,\)"):
        AutoAttack(attacks=["square"]).perturb(model, x, y, clip=CLIP)


# What it says


class Random(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x) + 0.1 * torch.randn(len(x), 10)


class Dynamic(Random):
    def forward(self, x):
        with torch.enable_grad():
            z = x.detach().requires_grad_()
            torch.autograd.grad(self.model(z).sum(), z)
        return self.model(x)


@pytest.mark.parametrize(
    ("wrap", "sentence"),
    [
        (Random, "randomized defense"),
        (Dynamic, "dynamic defense"),
        (lambda model: nn.Sequential(model, nn.Softmax(1)), "probability distribution"),
        (lambda model: nn.Sequential(Round(), model), "zero gradient"),
    ],
)
def test_what_the_package_warns_of_is_kept(wrap, sentence, capfd, caplog):
    model = make_model()
    x, y = make_batch(model)
    attack = AutoAttack(0.02)
    attack.perturb(wrap(model), x, y, clip=CLIP)
    assert any(sentence in warning for warning in attack.warnings_)
    assert not any("flags_doc" in warning for warning in attack.warnings_)
    attack.perturb(wrap(model), x, y, clip=CLIP)
    assert len(set(attack.warnings_)) == len(attack.warnings_)
    other = AutoAttack(1e-6)
    other.perturb(model, x, y, clip=CLIP)
    assert other.warnings_ == []
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


class Round(nn.Module):
    def forward(self, x):
        return (4 * x).round() / 4


def test_a_warning_is_one_however_many_batches_there_are():
    class HalfDead(nn.Module):
        def forward(self, x):
            return model(torch.where(x[:, :1, :1, :1] > 0.5, x.detach(), x))

    model = make_model().eval()
    x, y = make_batch(model, n=16, wrong=0)
    attack = AutoAttack(0.02, attacks=["apgd-ce", "apgd-t"])
    for batch in (slice(0, 3), slice(3, 9), slice(9, 16)):
        attack.perturb(HalfDead(), x[batch], y[batch], clip=CLIP)
    (sentence,) = attack.warnings_
    assert sentence.startswith("there are points with zero gradient!")


def test_a_square_that_finds_more_is_told_without_the_batchs_share():
    log = _Log()
    for share in (1.23, 12.0):
        log.warning(
            f"Square Attack has decreased the robust accuracy of {share:.2%}. This might. See flags_doc.md for details."
        )
    assert set(log.sentences) == {"Square Attack has decreased the robust accuracy. This might."}


def test_result_is_detached():
    model = make_model()
    x, y = make_batch(model)
    assert not AutoAttack(0.02).perturb(model, x.requires_grad_(), y, clip=CLIP).requires_grad


# What it leaves behind


def test_global_randomness_is_untouched(global_randomness):
    model = make_model()
    x, y = make_batch(model)
    before = global_randomness()
    one = AutoAttack(0.02).perturb(model, x, y, clip=CLIP, generator=seeded(3))
    assert global_randomness() == before
    torch.rand(5)
    assert torch.equal(AutoAttack(0.02).perturb(model, x, y, clip=CLIP, generator=seeded(3)), one)


def test_another_seed_is_another_result():
    model = make_model()
    x, y = make_batch(model)
    one, two = (AutoAttack(0.02).perturb(model, x, y, clip=CLIP, generator=seeded(seed)) for seed in (3, 4))
    assert not torch.equal(one, two)


def test_a_tracer_survives_and_so_does_everything_when_the_model_fails():
    model = make_model()
    x, y = make_batch(model)

    def tracer(frame, event, argument):
        return None

    before = sys.gettrace()
    state = torch.get_rng_state()
    try:
        sys.settrace(tracer)
        AutoAttack(0.02).perturb(model, x, y, clip=CLIP)
        assert sys.gettrace() is tracer
        calls = []
        model.register_forward_pre_hook(lambda m, inputs: calls.append(1) or (len(calls) == 12 and 1 / 0) or None)
        with pytest.raises(ZeroDivisionError):
            AutoAttack(0.02).perturb(model, x, y, clip=CLIP)
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(before)
    assert torch.equal(torch.get_rng_state(), state)


def test_model_is_the_same_afterwards_and_in_eval_mode_during():
    model = make_model().train()
    x, y = make_batch(make_model())
    model[1].eval()
    model[0].bias.requires_grad_(False)
    model[5].weight.grad = torch.full_like(model[5].weight, 3.0)

    def state():
        modes = [module.training for module in model.modules()]
        parameters = [(p.requires_grad, None if p.grad is None else p.grad.tolist()) for p in model.parameters()]
        return modes, parameters, {name: value.tolist() for name, value in model.state_dict().items()}

    seen, before = [], state()
    model.register_forward_hook(
        lambda m, inputs, logits: seen.extend([m.training, *(p.requires_grad for p in m.parameters())])
    )
    AutoAttack(0.02).perturb(model, x, y, clip=CLIP)
    assert state() == before
    assert seen
    assert not any(seen)


# In use


@pytest.mark.parametrize("classes", [2, 10])
def test_by_name_it_judges_a_classifier(classes):
    X, y = load_digits(n_class=classes, return_X_y=True)
    X = (X.reshape(-1, 8, 8) / 16).astype(np.float32)
    clf = RobustClassifier(objective="natural", selector=None, max_epochs=4, batch_size=32, random_state=0).fit(X, y)
    few = X[:16], y[:16]
    robust = clf.robust_score(*few, attack="autoattack")
    assert clf.robust_score(*few, attack=AutoAttack(eps=0.4)) < robust <= clf.score(*few)


def test_a_table_without_a_box_is_refused_with_what_to_do():
    X, y = load_digits(n_class=3, return_X_y=True)
    settings = {"objective": "natural", "selector": None, "max_epochs": 1, "random_state": 0}
    clf = RobustClassifier(**settings).fit(X, y)
    with pytest.raises(ValueError, match=r"clip=None.*clip=\(low, high\).*RobustClassifier"):
        clf.robust_score(X[:50], y[:50], attack=AutoAttack(eps=8))
    clf = RobustClassifier(**settings, clip=(0, 16)).fit(X, y)
    with pytest.raises(ValueError, match=r"one number for AutoAttack, as in AutoAttack\(eps=0.1\)"):
        clf.robust_score(X[:50], y[:50], attack="autoattack")
    assert clf.robust_score(X[:50], y[:50], attack=AutoAttack(eps=8)) < clf.score(X[:50], y[:50])


@pytest.mark.parametrize(
    ("attack", "name", "value"),
    [
        (AutoAttack(eps=0), "eps", "0"),
        (AutoAttack(eps=[0.1, 0.2]), "eps", "0.2"),
        (AutoAttack(norm="l0"), "norm", "l0"),
        (AutoAttack(version="custom"), "version", "custom"),
        (AutoAttack(attacks=["pgd"]), "attacks", "apgd-ce"),
        (AutoAttack(attacks=[]), "attacks", "[]"),
    ],
    ids=repr,
)
def test_bad_parameter_is_named_with_its_value(attack, name, value):
    with pytest.raises(ValueError, match=name) as error:
        attack.validate()
    assert value in str(error.value)
