"""An evaluation runs suites by name, single attacks, and lists or dicts of them."""

from collections.abc import Iterator, Mapping
from typing import Any

from sklearn_acs.attacks import ATTACKS, Attack
from sklearn_acs.params import make_part

AttackSpec = tuple[str, dict[str, Any]]
"""A name in `ATTACKS`, and the parameters that differ from its defaults."""


SUITES: dict[str, dict[str, AttackSpec]] = {
    "quick": {"PGD-20": ("pgd", {"steps": 20})},
    "linf": {"PGD-50-10": ("pgd-50-10", {}), "AutoAttack": ("autoattack", {})},
    "l2": {
        "PGD-50-10": ("pgd-50-10", {"eps": 80 / 255, "norm": "l2"}),
        "AutoAttack": ("autoattack", {"eps": 80 / 255, "norm": "l2"}),
    },
    "unseen": {
        "AutoAttack linf": ("autoattack", {}),
        "AutoAttack l2": ("autoattack", {"eps": 1.0, "norm": "l2"}),
        "JPEG": ("jpeg", {"bound": 0.25}),
        "StAdv": ("stadv", {"bound": 0.02}),
        "ReColor": ("recolor", {"bound": 0.06}),
        "PPGD": ("ppgd", {"bound": 0.4}),
        "LPA": ("lpa", {"bound": 0.4}),
    },
    "linf-sweep": {
        **{f"PGD-50-10 {n}/255": ("pgd-50-10", {"eps": n / 255, "step_size": 2 / 255}) for n in (4, 8, 16)},
        "AutoAttack 8/255": ("autoattack", {}),
    },
}
"""Suites by name, for images in [0, 1], with the settings that papers on coresets report for CIFAR-10."""

TABLE_SUITES = ("quick",)
"""Suites that go with tables too, where they mean what the attack's name means."""


def make_attacks(attacks: Any, *, is_table: bool = False) -> dict[str, tuple[Attack, bool]]:
    """Make attacks by the name of their row, and tell whether each was given by name.

    Parameters
    ----------
    attacks : str, Attack, sequence or mapping
        A suite, an attack by name or as an object, several of these, or attacks by the names that rows shall have.
    is_table : bool, default=False
        Whether the samples are rows of a table; radii of most suites are for images.

    Returns
    -------
    dict of (Attack, bool)
        Attacks that only save steps in training are replaced by what they are built around.
    """
    made: dict[str, tuple[Attack, bool]] = {}
    for given_name, attack, by_name in _listed(attacks, is_table):
        name, count = given_name, 1
        while name in made:
            count += 1
            name = f"{given_name} ({count})"
        made[name] = attack.for_evaluation(), by_name
    if not made:
        raise ValueError(f"attacks={attacks!r} has no attack")
    return made


def _listed(attacks: Any, is_table: bool) -> Iterator[tuple[str, Attack, bool]]:
    if isinstance(attacks, Mapping):
        for name, attack in attacks.items():
            yield str(name), _make(attack), isinstance(attack, str)
    elif isinstance(attacks, list | tuple):
        for attack in attacks:
            yield from _listed(attack, is_table)
    elif isinstance(attacks, str) and attacks in SUITES:
        if is_table and attacks not in TABLE_SUITES:
            raise ValueError(
                f"attacks={attacks!r} has radii for images in [0, 1], and X is a table; suites for tables are "
                f"{list(TABLE_SUITES)}, or give attacks with radii in the units of the features"
            )
        for name, (attack, options) in SUITES[attacks].items():
            yield name, make_part("attacks", attack, ATTACKS, options, base=Attack), True
    else:
        yield " ".join(str(attacks).split()), _make(attacks), isinstance(attacks, str)


def _make(attack: Any) -> Attack:
    if isinstance(attack, str) and attack not in ATTACKS:
        raise ValueError(f"attacks={attack!r} is not known; suites are {sorted(SUITES)}, attacks {sorted(ATTACKS)}")
    return make_part("attacks", attack, ATTACKS, base=Attack)
