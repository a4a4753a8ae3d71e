"""Models that hide their gradients are found out, and sound ones are not accused."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from sklearn_acs import PGD, RobustClassifier, evaluate
from sklearn_acs.evaluation.masking import CUT, clearly_more, judge

X, Y = (load_digits(n_class=5).images / 16).astype(np.float32), load_digits(n_class=5).target
EPS = 0.2


def train(attack):
    objective = "natural" if attack is None else "adversarial"
    clf = RobustClassifier(attack=attack, objective=objective, selector=None, max_epochs=8, lr=0.03, random_state=0)
    return clf.fit(X[:600], Y[:600])


@pytest.fixture(scope="module")
def natural():
    return train(None)


@pytest.fixture(scope="module")
def robust():
    return train(PGD(eps=EPS, steps=5))


def flagged(model, attack=None, **options):
    result = evaluate(model, X[600:700], Y[600:700], attack or PGD(eps=EPS), check_masking=True, **options)
    return {check.name for check in result.masking if check.flagged}, result


class Before(nn.Module):
    """Something in front of a model."""

    def __init__(self, model, change):
        super().__init__()
        self.model, self.change = model, change

    def forward(self, x):
        return self.model(self.change(x))


def quantise(x, levels=3):
    """Each pixel becomes the nearest of a few levels, as by an argmax over distances."""
    values = torch.linspace(0, 1, levels, device=x.device)
    return values[(x[..., None] - values).abs().argmin(-1)]


@pytest.mark.parametrize("norm, eps", [("linf", EPS), ("l2", 1.0), ("l1", 5.0)])
@pytest.mark.parametrize("name", ["natural", "robust"])
def test_sound_models_are_not_flagged(request, name, norm, eps):
    found, result = flagged(request.getfixturevalue(name), PGD(eps=eps, norm=norm))
    assert found == set()
    assert "None of 6 signs of masked gradients was found." in str(result)


def test_a_quantiser_is_found_out(natural):
    # Wide enough a step that noise crosses the thresholds between the levels.
    module = Before(natural.net_.module_, quantise)
    found, result = flagged(module)
    assert {"no gradient", "noise", "large radius"} <= found
    assert result["accuracy"][1] > 0.5  # it looks robust
    for name in found:
        assert f"Sign of masked gradients ({name}):" in str(result)


def test_a_module_that_cuts_the_graph_is_said_to(tmp_path):
    class Detached(nn.Module):
        def forward(self, x):
            return torch.cat([x, 1 - x], 1).round().detach()

    x = np.linspace(0.01, 0.99, 20)[:, None]
    for _ in range(2):  # from the file as well
        y, path = (x[:, 0] < 0.5).astype(int), tmp_path / "state"
        result = evaluate(Detached(), x, y, PGD(eps=0.1), check_masking=True, state_path=path)
        assert result.warnings == [CUT]
        assert "no gradient" in [check.name for check in result.masking if check.flagged]


def test_a_quantiser_with_a_gradient_straight_through_is_not(natural):
    module = Before(natural.net_.module_, lambda x: x + (quantise(x) - x).detach())
    assert "no gradient" not in flagged(module)[0]


def test_saturated_logits_are_found_out(natural):
    class Saturated(nn.Module):
        def forward(self, x):
            return 1e4 * natural.net_.module_(x)

    assert "no gradient" in flagged(Saturated())[0]


def test_a_noisy_gradient_is_found_out(natural):
    class Shattered(torch.autograd.Function):
        """The identity, with a gradient that points anywhere after the first step."""

        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            (x,) = ctx.saved_tensors
            on_the_grid = ((16 * x).round() == 16 * x).flatten(1).all(1)
            sign = torch.where(on_the_grid, 1.0, -1.0)
            return gradient * sign[:, None, None, None]

    found, result = flagged(Before(natural.net_.module_, Shattered.apply))
    assert "one step" in found
    assert result.masking[2].name == "one step" and "FGSM" in result.masking[2].reason


def test_a_classifier_of_a_table_is_judged_in_its_own_ball():
    from sklearn.datasets import load_iris

    X, y = load_iris(return_X_y=True)
    clf = RobustClassifier(max_epochs=10, random_state=0).fit(X, y)
    result = evaluate(clf, X, y, "fgsm", check_masking=True)
    assert [check.name for check in result.masking if check.flagged] == []


def test_it_is_the_same_every_time_and_leaves_global_randomness_alone(robust, global_randomness):
    before = global_randomness()
    one, two = (flagged(robust, batch_size=32)[1].masking for _ in range(2))
    assert one == two
    assert global_randomness() == before


def test_without_being_asked_nothing_is_looked_for(robust):
    result = evaluate(robust, X[600:620], Y[600:620], PGD(eps=EPS, steps=1))
    assert result.masking is None and result.notes == []


YES, NO = np.ones(100, dtype=bool), np.zeros(100, dtype=bool)
SOUND = {"clean": YES, "attack": NO, "few": NO, "one": NO, "large": NO, "noise": YES, "flat": NO}


def share(percent):
    return np.arange(100) < percent


@pytest.mark.parametrize(
    "change, name, numbers",
    [
        ({"attack": YES, "noise": share(90)}, "noise", "90.0% under the worst of 20 random perturbations and 100.0%"),
        ({"attack": share(50), "few": share(30)}, "fewer steps", "30.0% under 5 steps and 50.0% under 20"),
        ({"attack": share(50), "one": share(30)}, "one step", "30.0% under one step (FGSM) and 50.0% under PGD-20"),
        ({"large": share(20)}, "large radius", "accuracy is 20.0%"),
        ({"clean": share(60), "attack": share(70)}, "better under attack", "60 are right as they are and 70 under"),
        ({"flat": share(30)}, "no gradient", "of 100 samples that are classified rightly, 30 have"),
    ],
)
def test_each_sign_is_told_with_its_numbers(change, name, numbers):
    checks = {check.name: check for check in judge({**SOUND, **change})}
    assert checks[name].flagged
    assert numbers in checks[name].reason
    assert not any(check.flagged for check in judge(SOUND))


@pytest.mark.parametrize("name", ["few", "one", "noise"])
def test_four_samples_of_a_hundred_are_chance(name):
    half = {**SOUND, "attack": share(50), "few": share(50), "one": share(50)}
    assert not any(check.flagged for check in judge({**half, name: share(46)}))
    assert [check.flagged for check in judge({**half, name: share(45)})].count(True) == 1


def test_a_sound_underfit_model_is_not_flagged_by_three_samples():
    # Of 200 samples 35.0 % are right under noise and 36.5 % under PGD, which breaks others than noise does.
    def first(n, total=200):
        return np.arange(total) < n

    clean, attack = first(80), first(73)
    found = {"clean": clean, "attack": attack, "few": attack, "one": attack, "large": first(0), "flat": first(0)}
    for noise in (first(70), first(80) & ~first(10)):
        checks = {check.name: check for check in judge({**found, "noise": noise})}
        assert "35.0% under the worst of 20 random perturbations and 36.5% under PGD-20" in checks["noise"].reason
        assert not any(check.flagged for check in checks.values())
    assert [check.name for check in judge({**found, "noise": first(60)}) if check.flagged] == ["noise"]


@pytest.mark.parametrize("n, still_chance", [(20, 4), (50, 4), (100, 4), (200, 4), (500, 10)])
def test_what_is_chance_grows_slower_than_the_samples(n, still_chance):
    samples = np.arange(n)
    assert not clearly_more(samples < 15, samples < 15 - still_chance)
    assert clearly_more(samples < 15, samples < 14 - still_chance)


def test_samples_that_differ_in_either_direction_are_chance():
    # 30 of 200 against 20 others: 10 more, which 5 % would not call significant.
    samples = np.arange(200)
    assert not clearly_more(samples < 30, (samples >= 30) & (samples < 50))
    assert clearly_more(samples < 30, samples < 20)


@pytest.mark.parametrize("seed", range(3))
def test_sound_underfit_models_are_not_flagged(seed):
    clf = RobustClassifier(attack=PGD(eps=EPS, steps=3), selector=None, max_epochs=1, lr=0.003, random_state=seed)
    clf.fit(X[:600], Y[:600])
    result = evaluate(clf, X[600:800], Y[600:800], PGD(eps=EPS, steps=1), check_masking=True)
    assert result["accuracy"][0] < 0.8
    assert not any(check.flagged for check in result.masking)


def test_a_model_that_is_never_right_is_no_evidence():
    assert not any(check.flagged for check in judge({**SOUND, "clean": NO}))
