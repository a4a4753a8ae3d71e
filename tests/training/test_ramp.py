"""A radius that grows over the first part of a training."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from sklearn_acs import FGSM, PGD, BulletTrain, FastAT, FastLPA, InBatchSelection, RobustClassifier
from sklearn_acs.attacks import ATTACKS, JPEG, NFGSM, ReColor, StAdv
from sklearn_acs.data.training_data import TrainingData
from sklearn_acs.training.course import Course
from sklearn_acs.training.ramp import Ramp

X, Y = load_digits(return_X_y=True)
X = (X.reshape(-1, 8, 8) / 16).astype("f4")[:200]
Y = Y[:200]


def fit(attack=None, **options):
    options = {"max_epochs": 4, "selector": None, "random_state": 0, "attack_ramp": 0.5, **options}
    return RobustClassifier("mlp", attack=attack or PGD(0.1, steps=2), **options).fit(X, Y)


def test_the_radius_grows_evenly_to_its_full_size():
    course = Course(10)
    ramp, found = Ramp(0.5, course), []
    for _ in range(10):
        found.append(ramp.factor)
        course.advance()
    assert found == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9, 1, 1, 1, 1, 1])


def test_history_has_the_radius_of_each_epoch():
    # Two steps an epoch: the middles of the first are at 1/16, 5/16, 9/16, 13/16 of the training.
    assert fit().history_[:, "radius"] == pytest.approx([0.1 / 8, 0.1 * 5 / 8, 0.1, 0.1])


def test_training_that_attacks_nothing_has_no_radius():
    assert "radius" not in fit(objective="natural").history_[0]


@pytest.mark.parametrize(
    ("attack", "bound"),
    [
        (PGD(0.2, step_size=0.04), {"eps": 0.1, "step_size": 0.02}),
        (PGD(1.0, norm="l2", rel_step_size=0.3), {"eps": 0.5, "rel_step_size": 0.3}),
        (PGD(np.array([0.2, 0.0])), {"eps": [0.1, 0.0]}),
        (NFGSM(0.2), {"eps": 0.1, "noise": 2.0}),
        (FastLPA(bound=0.5, step_size=0.2), {"bound": 0.25, "step_size": 0.1}),
        (StAdv(bound=0.05), {"bound": 0.025}),
        (ReColor(bound=0.06), {"bound": 0.03}),
        (JPEG(bound=0.5), {"bound": 0.25}),
    ],
)
def test_every_bound_is_scaled_and_steps_in_its_units_with_it(attack, bound):
    scaled = attack.scaled(0.5)
    for name, value in bound.items():
        np.testing.assert_allclose(getattr(scaled, name), value)
    assert attack.scaled(1.0) is attack
    assert scaled.radius == pytest.approx(attack.radius / 2)


def test_bullet_train_is_scaled_with_what_it_has_learned():
    attack = BulletTrain(PGD(0.2), robust_step_size=0.1)
    attack.robust_share_ = 0.4
    scaled = attack.scaled(0.5)
    assert (scaled.radius, scaled.robust_step_size, scaled.robust_share_) == (0.1, 0.05, 0.4)


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_every_attack_by_name_has_a_radius(name):
    assert ATTACKS[name]().settled(TrainingData.read(X, Y, None).format).radius > 0


def sizes_of(attack, **options):
    """The largest perturbation of each training step."""
    found, perturb = [], type(attack).perturb

    def noting(self, model, x, y, **given):
        x_adv = perturb(self, model, x, y, **given)
        found.append(float((x_adv - x).abs().max()))
        return x_adv

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(attack), "perturb", noting)
        clf = fit(attack, **options)
    return found, clf


@pytest.mark.parametrize(
    "attack", [PGD(0.1, steps=3), PGD(0.1, steps=1, init="previous"), BulletTrain(PGD(0.1, steps=3))]
)
def test_no_step_leaves_the_ball_of_its_radius(attack):
    found, _ = sizes_of(attack)
    limits = [0.1 * min(1, (step + 0.5) / 4) for step in range(8)]
    assert all(size <= limit + 1e-6 for size, limit in zip(found, limits, strict=True))
    assert found[-1] == pytest.approx(0.1, abs=1e-6)


def test_a_penalty_sees_the_radius_of_its_time(monkeypatch):
    seen, penalty = [], FastAT.penalty

    def noting(self, module, x, y, *, attack, **given):
        seen.append(attack.radius)
        return penalty(self, module, x, y, attack=attack, **given)

    monkeypatch.setattr(FastAT, "penalty", noting)
    fit(FGSM(0.1), objective=FastAT(start="zero", gradalign=0.2))
    assert seen == pytest.approx([0.1 * min(1, (step + 0.5) / 4) for step in range(8)])


def test_selections_attack_with_the_radius_of_their_time():
    found, _ = sizes_of(
        PGD(0.1, steps=2),
        selector="gradmatch",
        coreset_frac=0.5,
        warmup_frac=0.0,
        select_every=1,
        max_epochs=8,
        attack_ramp=1.0,
    )
    assert max(found[:2]) < 0.02 < 0.08 < max(found[-2:])


@pytest.mark.parametrize(
    "options",
    [
        {"objective": "trades"},
        {"objective": "fast", "attack": "fgsm"},
        {"objective": "fast"},
        {"in_batch": InBatchSelection(0.5)},
        {"selector": "craig", "attack": PGD(0.1, steps=1, init="previous")},
        {"early_stopping": True},
        {"objective": "pat", "module": "convnet"},
    ],
)
def test_a_ramp_goes_with_everything(options):
    options = {"max_epochs": 5, "random_state": 0, "attack_ramp": 0.5, "selector": None, "module": "mlp", **options}
    clf = RobustClassifier(**options).fit(X, Y)
    radius = clf.history_[:, "radius"]
    assert radius[0] < radius[1] <= radius[-1] == pytest.approx(clf.attack_.radius)


def test_early_stopping_is_patient_while_the_radius_grows():
    options = {"early_stopping": True, "n_iter_no_change": 1, "lr": 1e-9, "max_epochs": 6}
    assert len(fit(**options, attack_ramp=0.0).history_) == 2
    assert len(fit(**options, attack_ramp=0.5).history_) == 3


def test_training_that_goes_on_begins_with_the_full_radius():
    clf = fit(warm_start=True)
    assert clf.fit(X, Y).history_[0, "radius"] == pytest.approx(0.1)
    assert clf.partial_fit(X, Y).history_[-1, "radius"] == pytest.approx(0.1)


def test_without_a_ramp_the_radius_is_full_from_the_beginning():
    assert fit(attack_ramp=0.0).history_[:, "radius"] == [0.1] * 4


@pytest.mark.filterwarnings("ignore:the trained model predicts")
def test_a_large_radius_is_learned_with_a_ramp_where_training_ends_at_one_class_without():
    X, y = load_digits(return_X_y=True)
    X, y = (X.reshape(-1, 8, 8) / 16)[:400], y[:400]

    def accuracy(ramp):
        options = {"selector": None, "max_epochs": 12, "batch_size": 32, "random_state": 0, "attack_ramp": ramp}
        return RobustClassifier("convnet", attack=PGD(0.4, steps=5), **options).fit(X, y).score(X, y)

    assert accuracy(0.0) < 0.2
    assert accuracy(0.5) > 0.3


@pytest.mark.parametrize("share", [-0.1, 1.1, "long", float("nan")])
def test_shares_out_of_range_are_refused(share):
    with pytest.raises(ValueError, match="attack_ramp"):
        fit(attack_ramp=share)
