"""The suites: every attack there is, with the settings of the papers."""

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_acs import PGD, AutoAttack, evaluate
from sklearn_acs.evaluation import SUITES
from sklearn_acs.evaluation.suites import make_attacks


def made(suite):
    return {name: attack for name, (attack, _) in make_attacks(suite).items()}


@pytest.mark.parametrize("suite", SUITES)
def test_every_suite_can_be_made(suite):
    assert list(made(suite)) == list(SUITES[suite])


@pytest.mark.parametrize("norm, eps, step", [("linf", 8 / 255, 1 / 255), ("l2", 80 / 255, 8 / 255)])
def test_pgd_50_10_is_that_of_the_papers(norm, eps, step):
    attack, auto = made(norm).values()
    assert isinstance(attack, PGD) and isinstance(auto, AutoAttack)
    assert (attack.norm, attack.threat.eps, attack.steps, attack.restarts) == (norm, eps, 50, 10)
    assert attack.step_size is None and attack.rel_step_size * eps == pytest.approx(step)
    assert (auto.norm, auto.threat.eps, auto.version) == (norm, eps, "standard")


def test_the_sweep_has_three_radii_and_one_step():
    attacks = list(made("linf-sweep").values())
    assert [attack.threat.eps * 255 for attack in attacks] == pytest.approx([4, 8, 16, 8])
    assert [attack.step_size * 255 for attack in attacks[:3]] == pytest.approx([2, 2, 2])


def test_unseen_attacks_have_the_published_bounds():
    attacks = made("unseen")
    assert attacks["AutoAttack l2"].eps == 1.0
    bounds = {name: getattr(attack, "bound", None) for name, attack in attacks.items()}
    assert {name: bound for name, bound in bounds.items() if bound} == {
        "JPEG": 0.25, "StAdv": 0.02, "ReColor": 0.06, "PPGD": 0.4, "LPA": 0.4,
    }  # fmt: skip
    steps = {name: getattr(attack, "steps", None) for name, attack in attacks.items()}
    assert (steps["StAdv"], steps["ReColor"], steps["PPGD"], steps["LPA"]) == (50, 100, 40, 40)


def test_names_given_by_name_are_known_as_such():
    by_name = {name: named for name, (_, named) in make_attacks(["quick", "fgsm", PGD()]).items()}
    assert by_name == {"PGD-20": True, "fgsm": True, "PGD()": False}


def test_autoattacks_warnings_are_told():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(9, 3)), np.random.default_rng(0).random((4, 3, 3))
    with torch.no_grad():
        y = model(torch.from_numpy(x).float()[:, None]).argmax(1).numpy()
    result = evaluate(model, x, y, {"auto": AutoAttack(eps=0.01, attacks=["apgd-ce", "apgd-t"])})
    assert any("auto: apgd-dlr runs for apgd-t" in warning for warning in result.warnings)
