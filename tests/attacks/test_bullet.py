"""Bullet-Train: its groups against the formula, what each group gets, what it learns, and what it costs."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from torch import nn

from sklearn_acs import FGSM, PGD, TRADES, BulletTrain, FastLPA, RobustClassifier
from sklearn_acs.attacks import Attack

EPS = 0.3


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def make_model(classes=3):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.Tanh(), nn.Linear(12, classes)).eval()


def make_batch(n=60):
    x = torch.randn(n, 6, generator=seeded(1))
    y = torch.where(torch.rand(n, generator=seeded(2)) < 0.7, make_model()(x).argmax(1), torch.arange(n) % 3)
    return x, y


def with_share(share, *args, **params):
    bullet = BulletTrain(*args, **params)
    bullet.robust_share_ = torch.tensor(share)
    return bullet


class Spy(Attack):
    """Moves every sample by 1 + its number of steps, and remembers what it was given."""

    def __init__(self, steps=10, calls=None):
        self.steps = steps
        self.calls = calls

    def _attack(self, problem, start):
        return problem.x + 1 + self.steps


# Groups


def test_groups_follow_the_formula():
    x, y = make_batch()
    logits = make_model()(x).detach()
    boundary, robust = with_share(0.4).groups(logits, y)
    p = logits.softmax(1).numpy()
    sign = np.where(p.argmax(1) == y.numpy(), 1, -1)
    s = sign * p.std(1, ddof=1)
    threshold = max(0, np.quantile(s, 0.6))
    np.testing.assert_array_equal(robust.numpy(), s > threshold)
    np.testing.assert_array_equal(boundary.numpy(), (s >= 0) & (s <= threshold))
    assert 0 < robust.sum() < len(y) - boundary.sum()


def test_before_training_every_sample_that_is_right_is_at_the_boundary():
    x, y = make_batch()
    logits = make_model()(x).detach()
    boundary, robust = BulletTrain().groups(logits, y)
    assert not robust.any()
    assert torch.equal(boundary, logits.argmax(1) == y)


def test_wrong_samples_are_never_robust_even_where_all_are_said_to_be():
    logits = torch.tensor([[5.0, 0.0], [0.0, 5.0], [2.0, 0.0]])
    boundary, robust = with_share(1.0).groups(logits, torch.tensor([1, 1, 0]))
    assert robust.tolist() == [False, True, True]
    assert not boundary.any()


def test_each_group_gets_its_attack():
    x, y = make_batch()
    model, bullet = make_model(), with_share(0.4, Spy(steps=10), robust_steps=3)
    boundary, robust = bullet.groups(model(x).detach(), y)
    moved = (bullet.perturb(model, x, y) - x)[:, 0]
    expected = 11.0 * boundary + 4.0 * robust
    torch.testing.assert_close(moved, expected)
    assert {0.0, 4.0, 11.0} == set(expected.tolist())


def test_boundary_samples_get_what_the_attack_alone_gives():
    x, y = make_batch()
    model, attack = make_model(), PGD(eps=EPS, init="zero", steps=4)
    x_adv = BulletTrain(attack).perturb(model, x, y)
    right = model(x).argmax(1) == y
    torch.testing.assert_close(x_adv[right], attack.perturb(model, x, y)[right])
    assert torch.equal(x_adv[~right], x[~right])


# Balls, losses, starts


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_stays_in_the_ball_and_box(norm):
    x, y = make_batch()
    x = x.sigmoid()
    x_adv = with_share(0.4, PGD(eps=EPS, norm=norm)).perturb(make_model(), x, y, clip=(0, 1))
    order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
    assert torch.linalg.vector_norm(x_adv - x, ord=order, dim=1).max() <= EPS + 1e-5
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1


def test_robust_samples_take_three_times_the_step():
    x, y = make_batch()
    _, robust = with_share(0.4).groups(make_model()(x).detach(), y)
    once = with_share(0.4, PGD(eps=EPS, init="zero"), robust_steps=1).perturb(make_model(), x, y)
    moved = (once - x)[robust].abs().amax(1)
    torch.testing.assert_close(moved, torch.full_like(moved, 0.75 * EPS))
    told = with_share(0.4, PGD(eps=EPS, init="zero"), robust_steps=1, robust_step_size=0.1)
    moved = (told.perturb(make_model(), x, y) - x)[robust].abs().amax(1)
    torch.testing.assert_close(moved, torch.full_like(moved, 0.1))


def test_a_radius_for_each_feature():
    eps = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    x, y = make_batch()
    moved = (with_share(0.4, PGD(eps=eps)).perturb(make_model(), x, y) - x).abs()
    assert (moved <= torch.from_numpy(eps).float() + 1e-6).all()
    assert (moved.amax(0)[1:] > 0).all()


def test_clean_logits_and_starts_follow_the_groups():
    x, y = make_batch()
    model = make_model()
    clean, start = model(x).detach(), 0.1 * torch.ones_like(x)
    bullet = with_share(0.4, PGD(eps=EPS, steps=1))
    both = bullet.perturb(model, x, y, loss=TRADES().inner_loss, start=start, clean_logits=clean)
    boundary, _ = bullet.groups(clean, y)
    alone = PGD(eps=EPS, steps=1).perturb(
        model, x[boundary], y[boundary], loss=TRADES().inner_loss, start=start[boundary], clean_logits=clean[boundary]
    )
    torch.testing.assert_close(both[boundary], alone)


def test_a_name_means_the_attack_with_its_defaults():
    x, y = make_batch()
    named, made = (BulletTrain(attack).perturb(make_model(), x, y) for attack in ("pgd", PGD()))
    assert torch.equal(named, made)


def test_same_generator_same_examples_and_the_model_is_left_as_it_was():
    x, y = make_batch()
    model = make_model().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    bullet = with_share(0.4, PGD(eps=EPS))
    first, second = (bullet.perturb(model, x, y, generator=seeded(5)) for _ in range(2))
    assert torch.equal(first, second)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_batch_of_outliers_is_left_alone():
    x, _ = make_batch()
    y = (make_model()(x).argmax(1) + 1) % 3
    assert torch.equal(BulletTrain(PGD(eps=EPS)).perturb(make_model(), x, y), x)


# Learning


def test_the_share_is_a_moving_average_of_what_training_sees():
    bullet, y = BulletTrain(gamma=0.5, momentum=0.8), torch.tensor([0, 0, 1, 1])
    bullet.observe(torch.eye(2)[[0, 0, 1, 0]], y)
    assert bullet.robust_share_.item() == pytest.approx(0.2 * 0.5 * 0.75)
    bullet.observe(torch.eye(2)[y], y)
    assert bullet.robust_share_.item() == pytest.approx(0.8 * 0.075 + 0.2 * 0.5)


def test_a_copy_has_learned_nothing():
    assert clone(with_share(0.4)).robust_share_ == 0


def test_what_it_learned_is_pickled_as_a_number_and_goes_on_in_partial_fit():
    assert pickle.loads(pickle.dumps(with_share(0.4))).robust_share_ == pytest.approx(0.4)
    clf, shares = RobustClassifier(attack=BulletTrain(PGD(eps=0.05, steps=2)), random_state=0), []
    for _ in range(6):
        clf.partial_fit(X, labels)
        shares.append(float(clf.attack_.robust_share_))
    assert shares == sorted(shares)
    assert shares[-1] > 2 * shares[0]


def test_attacks_outside_of_training_teach_it_nothing():
    x, y = make_batch()
    bullet = with_share(0.4, PGD(eps=EPS))
    bullet.perturb(make_model(), x, y)
    assert bullet.robust_share_.item() == pytest.approx(0.4)


X = (load_digits(n_class=4).images / 16).astype(np.float32)[:320]
labels = load_digits(n_class=4).target[:320]


def fit(**params):
    settings = {"selector": None, "max_epochs": 8, "batch_size": 32, "random_state": 0}
    return RobustClassifier(**{**settings, **params}).fit(X, labels)


@pytest.mark.parametrize("objective", ["adversarial", "trades", "mart"])
def test_costs_less_than_the_attack_and_learns_as_well(objective):
    plain, bullet = (fit(objective=objective, attack=a) for a in (PGD(eps=0.1), BulletTrain(PGD(eps=0.1))))
    assert bullet.cost_.total.backwards < 0.75 * plain.cost_.total.backwards
    assert bullet.robust_score(X, labels) > plain.robust_score(X, labels) - 0.1
    assert 0 < bullet.attack_.robust_share_ < 0.8


@pytest.mark.parametrize(("objective", "forwards_for_groups"), [("adversarial", 1), ("trades", 0), ("mart", 1)])
def test_cost_is_that_of_the_groups(objective, forwards_for_groups):
    """With no sample counted robust: every sample a forward for the groups, those that are right ten steps."""
    clf = fit(objective=objective, attack=BulletTrain(PGD(eps=0.1), gamma=0), max_epochs=1)
    cost, n, branches = clf.cost_["full"], len(X), len(clf.net_.criterion_.branches)
    clean_pass = n * (objective == "trades")
    attacked = (cost.backwards - branches * n) / 10
    assert 0 < attacked < n
    assert cost.forwards == 10 * attacked + forwards_for_groups * n + clean_pass + branches * n


def test_robustness_is_measured_with_the_attack_itself():
    clf = fit(attack=BulletTrain(PGD(eps=0.1)), max_epochs=2)
    assert clf.robust_score(X, labels) == clf.robust_score(X, labels, attack=clf.attack_.attack)


def test_by_name_it_goes_around_the_default_attack_fitted_to_the_data():
    table = X.reshape(len(X), -1)[:, 25:30]
    clf = RobustClassifier(attack="bullet", selector="craig", max_epochs=2, random_state=0).fit(table, labels)
    np.testing.assert_allclose(clf.attack_.attack.eps, 0.1 * table.std(0), rtol=1e-5)
    assert fit(attack="bullet", objective="trades", max_epochs=1).attack_.attack.init == "normal"


# Parameters


@pytest.mark.parametrize(
    ("bad", "name"),
    [
        (BulletTrain(robust_steps=0), "robust_steps"),
        (BulletTrain(robust_step_size=-1.0), "robust_step_size"),
        (BulletTrain(gamma=2), "gamma"),
        (BulletTrain(momentum=1.0), "momentum"),
        (BulletTrain(attack="pdg"), "pdg"),
        (BulletTrain(attack=3), "attack"),
        (BulletTrain(PGD(eps=-1)), "eps"),
        (BulletTrain(FGSM()), "no number of steps"),
        (BulletTrain(BulletTrain()), "no number of steps"),
    ],
    ids=repr,
)
def test_bad_parameter_is_named(bad, name):
    with pytest.raises(ValueError, match=name):
        bad.validate()


def test_an_attack_that_is_measured_otherwise_than_it_trains_is_so_inside_too():
    inner = FastLPA()
    assert repr(BulletTrain(inner).for_evaluation()) == repr(inner.for_evaluation()) != repr(inner)
