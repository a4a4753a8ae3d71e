"""The default recipe is what a classifier trains with where its parameters leave it open."""

import warnings
from collections.abc import Mapping
from typing import Any

from sklearn_acs.attacks import Attack
from sklearn_acs.data.augment import AUGMENTS, Augmentation
from sklearn_acs.data.batches import Augment
from sklearn_acs.data.training_data import TrainingData
from sklearn_acs.objectives import Objective
from sklearn_acs.params import options_of
from sklearn_acs.training.memory import PerturbationMemory


def asks_for_coresets(params: Mapping[str, Any]) -> bool:
    """Tell whether parameters name a selector, or with ``selector="auto"`` what only a selector has."""
    if params["selector"] == "auto":
        return params["coreset_frac"] is not None or bool(options_of(params, "selector"))
    return params["selector"] is not None


def default_attack(params: Mapping[str, Any], objective: Objective) -> Attack | str:
    """Find the attack that is meant: the one given, else the objective's, else its default."""
    if params["attack"] is not None:
        return params["attack"]
    if objective.attack is not None:
        return objective.attack
    default = objective.default_attack()
    # Steps that go on from the last epoch are few; asked to start elsewhere, it takes as many as that needs.
    return default.without_memory() if "init" in options_of(params, "attack") else default


def remembering(
    attack: Attack, data: TrainingData, augment: Augment | None, *, one_pass: bool, falls_back: bool, kept: bool
) -> Attack:
    """Let an attack remember samples where it can.

    Parameters
    ----------
    attack : Attack
        One that does not remember is returned as it is.
    data : TrainingData
        What is trained on.
    augment : callable or None
        What changes each batch.
    one_pass : bool
        Whether each sample is seen once.
    falls_back : bool
        Nobody asked for this attack: where it cannot remember, the one that needs no memory takes its place.
    kept : bool
        The memory is kept with checkpoints. It is refused where there is no room: a fit that goes on cannot have
        another attack because of it.

    Returns
    -------
    Attack

    Raises
    ------
    ValueError
        Somebody asked for it, and it cannot remember.
    """
    if not attack.remembers:
        return attack
    obstacle = None
    if one_pass:
        obstacle = "partial_fit sees each sample once; use another init, with more steps, or fit"
    elif not isinstance(augment, Augmentation | None):
        obstacle = f"how augment={augment!r} moves it is not known; use one of {sorted(AUGMENTS)}"
    if falls_back:
        remembers = obstacle is None and data.repeats() and (kept or PerturbationMemory.has_room(data))
        return attack if remembers else attack.without_memory()
    about = f"attack={attack!r} remembers a sample's perturbation from one epoch to the next, and"
    if obstacle is not None:
        raise ValueError(f"{about} {obstacle}")
    if not data.repeats():
        hint = "If X crops or flips at random, leave that to augment="
        warnings.warn(f"{about} X gives another sample each time an item is read. {hint}", stacklevel=5)
    return attack
