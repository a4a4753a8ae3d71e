"""The default recipe: one remembered step, a radius that grows, averaged weights, a coreset where it is asked for."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.utils.data import Dataset

from sklearn_acs import PAT, PGD, TRADES, GradMatch, RobustClassifier
from sklearn_acs.training import memory

DIGITS = load_digits(n_class=3)
X, y = (DIGITS.images / 16).astype(np.float32)[:96], DIGITS.target[:96]
ONE_STEP = {"init": "previous", "steps": 1}


def fitted(**params):
    X_, y_ = params.pop("data", (X, y))
    return RobustClassifier(**{"max_epochs": 2, "batch_size": 32, "random_state": 0, **params}).fit(X_, y_)


def is_remembered(clf):
    return {name: getattr(clf.attack_, name) for name in ONE_STEP} == ONE_STEP


def is_pgd_10(clf):
    return (clf.attack_.init, clf.attack_.steps) == ("uniform", 10)


class Digits(Dataset):
    def __init__(self, noise=0.0):
        self.noise = noise

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return torch.as_tensor(X[i])[None] * (1 - self.noise * torch.rand(1)), int(y[i])


@pytest.mark.parametrize("objective", ["adversarial", "trades", "mart"])
def test_one_remembered_step_a_growing_radius_and_averaged_weights_are_the_default(objective):
    clf = fitted(objective=objective, max_epochs=8)
    assert is_remembered(clf)
    assert clf.history_[0, "radius"] < clf.history_[-1, "radius"] == pytest.approx(8 / 255)
    assert clf.net_.raw_module_ is not clf.net_.module_
    assert (clf.coreset_, clf.schedule_.n_selections) == (None, 0)


def test_one_step_an_epoch_costs_two_passes_of_each_kind_a_sample():
    cost = fitted(max_epochs=3).cost_["full"]
    assert (cost.forwards, cost.backwards) == (2 * 3 * len(X), 2 * 3 * len(X))


@pytest.mark.parametrize("params", [{"coreset_frac": 0.5}, {"selector__ridge": 0.2}, {"selector": "gradmatch"}])
def test_a_coreset_is_asked_for_by_its_share_or_its_selector(params):
    clf = fitted(max_epochs=4, **params)
    assert (clf.schedule_.coreset_frac, clf.schedule_.n_selections) == (0.5, 1)
    assert isinstance(clf.net_.training_.coresets[1].indices, np.ndarray)


def test_the_share_alone_means_gradmatch():
    asked, named = fitted(max_epochs=4, coreset_frac=0.5), fitted(max_epochs=4, selector=GradMatch())
    np.testing.assert_array_equal(asked.coreset_.indices, named.coreset_.indices)


def test_no_selector_trains_on_everything_whatever_the_share():
    assert fitted(selector=None, coreset_frac=0.5).coreset_ is None


def test_a_selection_reads_what_training_remembers():
    cost = fitted(max_epochs=4, coreset_frac=0.5).cost_["selection"]
    assert (cost.forwards, cost.backwards) == (len(X), 0)


@pytest.mark.parametrize(
    ("params", "steps"),
    [({"attack": "pgd"}, 10), ({"attack": PGD(steps=3)}, 3), ({"objective": TRADES(attack=PGD(steps=4))}, 4)],
)
def test_an_attack_by_name_or_as_an_object_means_what_it_says(params, steps):
    attack = fitted(**params).attack_
    assert attack.steps == steps and not attack.remembers


def test_options_reach_the_recipe():
    attack = fitted(attack__eps=0.05, attack__norm="l2", attack__steps=2).attack_
    assert (attack.eps, attack.norm, attack.steps, attack.init) == (0.05, "l2", 2, "previous")


def test_steps_that_start_elsewhere_are_ten():
    assert fitted(attack__init="zero").attack_.steps == 10


def test_an_objective_with_an_attack_of_its_own_keeps_it():
    assert type(fitted(objective=PAT(), module="convnet", max_epochs=1).attack_).__name__ == "FastLPA"


def test_natural_training_remembers_nothing():
    clf = fitted(objective="natural")
    assert is_pgd_10(clf) and clf.robust_score(X, y) <= clf.score(X, y)


def test_partial_fit_takes_ten_fresh_steps():
    clf = RobustClassifier(random_state=0).partial_fit(X, y)
    assert is_pgd_10(clf)
    with pytest.raises(ValueError, match="partial_fit sees each sample once"):
        RobustClassifier(attack=PGD(**ONE_STEP)).partial_fit(X, y)


def test_an_augmentation_of_ones_own_takes_ten_fresh_steps():
    def darker(x, generator):
        return x * 0.9

    assert is_pgd_10(fitted(augment=darker)) and is_remembered(fitted(augment="crop"))
    with pytest.raises(ValueError, match="moves it is not known"):
        fitted(attack=PGD(**ONE_STEP), augment=darker)


def test_a_dataset_is_remembered_where_it_gives_the_same_sample_each_time():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert is_remembered(fitted(data=(Digits(), None))) and is_pgd_10(fitted(data=(Digits(noise=0.1), None)))


def test_remembering_a_dataset_that_changes_is_told_of():
    with pytest.warns(UserWarning, match="X gives another sample each time an item is read"):
        fitted(data=(Digits(noise=0.1), None), attack=PGD(**ONE_STEP))


def test_looking_whether_a_dataset_changes_draws_nothing_from_what_training_draws():
    before = torch.get_rng_state()
    named, default = fitted(data=(Digits(noise=0.1), None), attack="pgd"), fitted(data=(Digits(noise=0.1), None))
    assert torch.equal(before, torch.get_rng_state())
    for one, other in zip(named.net_.module_.parameters(), default.net_.module_.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_dataset_too_large_for_the_disk_takes_ten_fresh_steps(monkeypatch):
    monkeypatch.setattr(memory, "disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    assert is_pgd_10(fitted(data=(Digits(), None))) and is_remembered(fitted())


def test_the_recipe_is_more_robust_than_natural_training():
    long = {"max_epochs": 20, "attack__eps": 0.1}
    robust, natural = fitted(**long), fitted(objective="natural", **long)
    attack = PGD(eps=0.1, steps=20)
    assert robust.robust_score(X, y, attack=attack) > natural.robust_score(X, y, attack=attack) + 0.1
