"""Evaluation looks for masked gradients: an attack that finds no gradient makes a model look robust that is not."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sklearn_acs.attacks import FGSM, PGD
from sklearn_acs.attacks.balls import gaussian
from sklearn_acs.attacks.base import cross_entropy
from sklearn_acs.attacks.threat import Threat
from sklearn_acs.data.batches import Reader
from sklearn_acs.data.formats import Clip
from sklearn_acs.data.labels import UNKNOWN
from sklearn_acs.model import FittedModel, correct
from sklearn_acs.models import frozen

SAMPLES = 500
"""Samples that are looked at, at most, evenly spaced."""

STEPS = 20
NOISES = 20
"""Random perturbations of each sample."""

TOLERANCE = 0.02
"""By how much, in shares of the samples, a weaker attack may do better on a sound model."""

CHANCE = 2
"""The same in standard deviations of a paired difference, which allows for more where samples are few."""

LEFT_AT_LARGE = 0.05
"""Share of the samples that may be left right within a radius in which every sample can be turned into any other."""

FLAT = 0.05
"""Share of the samples that may have no gradient."""

UNBOXED = 100
"""The large radius, in those of the attack, where samples live in no box."""


CUT = "The logits cannot be differentiated by the input: attacks by gradients find nothing."


class MaskingCheck(NamedTuple):
    """Tells whether one sign of masked gradients was found.

    Attributes
    ----------
    name : str
        Which one.
    flagged : bool
        Whether it was found.
    reason : str
        What was measured and what it means, in a sentence.
    """

    name: str
    flagged: bool
    reason: str


def connected(module: nn.Module, warn: Callable[[str], None]) -> RemovableHandle:
    """Let attacks run on a module that cuts the graph, as a quantiser does: its gradient is zero, and a warning.

    It lasts until the handle is removed, which it is where a ``with`` of it ends.
    """

    def connect(module: nn.Module, inputs: tuple[Tensor, ...], logits: Tensor) -> Tensor | None:
        x = inputs[0]
        if logits.requires_grad or not (torch.is_grad_enabled() and x.requires_grad):
            return None
        warn(CUT)
        return logits + 0 * x.flatten(1).sum(1, keepdim=True)

    return module.register_forward_hook(connect)


def generator_for(device: torch.device, *seed: int) -> torch.Generator:
    """Make a generator for one piece of work, the same for the same seeds."""
    state = np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]
    return torch.Generator(device=device).manual_seed(int(state >> np.uint64(1)))


def find_masking(
    model: FittedModel, fetch: Reader, y: Tensor, reference: Threat, batch_size: int, random_state: int
) -> list[MaskingCheck]:
    """Look for signs of masked gradients around PGD with the radius and norm of `reference`.

    Parameters
    ----------
    model : FittedModel
        The model.
    fetch : callable
        Reads the samples, of which up to 500 are looked at.
    y : Tensor of shape (n,)
        Labels 0 to C-1, or `UNKNOWN`, on the CPU.
    reference : Threat
        Norm and radius.
    batch_size : int
        Samples attacked together.
    random_state : int
        Seed of random starts and noise.

    Returns
    -------
    list of MaskingCheck

    References
    ----------
    Athalye, Carlini, Wagner, "Obfuscated gradients give a false sense of security", ICML 2018.
    Carlini et al., "On evaluating adversarial robustness", 2019, arXiv:1902.06705.
    """
    known = (y != UNKNOWN).nonzero().squeeze(1)
    rows = known[torch.linspace(0, len(known) - 1, min(len(known), SAMPLES)).round().long()]
    parts = [
        outcomes(model.module, *batch, reference, model.format.clip, generator_for(model.device, random_state, number))
        for number, batch in enumerate(fetch(list(rows.split(batch_size))))
    ]
    return judge({name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]})


def outcomes(
    module: nn.Module, x: Tensor, y: Tensor, reference: Threat, clip: Clip, generator: torch.Generator
) -> dict[str, Tensor]:
    """Tell which samples are right as they are and under attacks of several strengths, and which have no gradient.

    Parameters
    ----------
    module : nn.Module
        The model.
    x, y : Tensor
        A batch.
    reference : Threat
        Norm and radius.
    clip : (float, float) or None
        The box.
    generator : torch.Generator
        Of random starts and noise.

    Returns
    -------
    dict of Tensor of bool, of shape (batch,), on the CPU
    """
    eps, norm = reference.eps, reference.norm
    attacks = {
        "attack": PGD(eps, steps=STEPS, norm=norm),
        "few": PGD(eps, steps=STEPS // 4, norm=norm),
        "one": FGSM(eps, norm=norm),
        "large": PGD(_large_eps(reference, x, clip), steps=STEPS, norm=norm),
    }
    with frozen(module):
        right = {"clean": correct(module, x, y)}
        for name, attack in attacks.items():
            right[name] = correct(module, attack.perturb(module, x, y, clip=clip, generator=generator), y)
        right["noise"] = torch.ones_like(right["clean"])
        around = reference.ball(x, clip)
        for _ in range(NOISES):
            # One step up a random direction: as far out as the ball goes, where noise does the most.
            delta = around.project(around.ascend(torch.zeros_like(x), gaussian(x, generator), around.eps))
            right["noise"] &= correct(module, x + delta, y)
        point = x.detach().clone().requires_grad_()
        with torch.enable_grad():
            gradient = torch.autograd.grad(cross_entropy(module(point), y).sum(), point)[0]
        size = gradient.flatten(1).abs().amax(1)
        right["flat"] = (size == 0) | ~size.isfinite()
    return {name: values.cpu() for name, values in right.items()}


def judge(found: dict[str, np.ndarray]) -> list[MaskingCheck]:
    """Judge by the outcomes of samples whether gradients are masked, and tell each sign with its numbers.

    Parameters
    ----------
    found : dict of ndarray of bool
        What `outcomes` returns.

    Returns
    -------
    list of MaskingCheck

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_acs.evaluation.masking import judge
    >>> yes, no = np.ones(100, dtype=bool), np.zeros(100, dtype=bool)
    >>> sound = {"clean": yes, "attack": no, "few": no, "one": no, "large": no, "noise": yes, "flat": no}
    >>> [check.name for check in judge({**sound, "flat": yes}) if check.flagged]
    ['no gradient']
    """
    clean, raw = found["clean"], found["attack"]
    n, n_right, n_raw, n_flat = len(clean), int(clean.sum()), int(raw.sum()), int((clean & found["flat"]).sum())
    right = {name: clean & found[name] for name in ("attack", "few", "one", "large", "noise")}
    share = {name: float(outcome.mean()) for name, outcome in right.items()}
    name = f"PGD-{STEPS}"
    signs = {
        "noise": (
            clearly_more(right["attack"], right["noise"]),
            f"accuracy is {share['noise']:.1%} under the worst of {NOISES} random perturbations and "
            f"{share['attack']:.1%} under {name}; noise should not do better than an attack that follows gradients.",
        ),
        "fewer steps": (
            clearly_more(right["attack"], right["few"]),
            f"accuracy is {share['few']:.1%} under {STEPS // 4} steps and {share['attack']:.1%} under {STEPS}; more "
            "steps should not do worse.",
        ),
        "one step": (
            clearly_more(right["attack"], right["one"]),
            f"accuracy is {share['one']:.1%} under one step (FGSM) and {share['attack']:.1%} under {name}; one step "
            "should not do better than many.",
        ),
        "large radius": (
            share["large"] > LEFT_AT_LARGE,
            f"accuracy is {share['large']:.1%} within a radius in which every sample can be turned into any other; it "
            f"should fall to 0, and to at most {LEFT_AT_LARGE:.0%} here.",
        ),
        "better under attack": (
            clearly_more(raw, clean),
            f"of {n} samples, {n_right} are right as they are and {n_raw} under {name}, the wrong ones attacked as "
            "well; an attack should not help.",
        ),
        "no gradient": (
            n_flat > FLAT * n_right,
            f"of {n_right} samples that are classified rightly, {n_flat} have a loss whose gradient is zero or not "
            "finite; attacks by gradients do not move those.",
        ),
    }
    return [MaskingCheck(sign, flagged, reason) for sign, (flagged, reason) in signs.items()]


def clearly_more(these: np.ndarray, those: np.ndarray) -> bool:
    """Tell whether an outcome is more frequent than another of the same samples, beyond `TOLERANCE` and chance.

    As in McNemar's test only samples whose outcomes differ count. If each of these m were as likely to differ in either
    direction, their balance would have a standard deviation of ``sqrt(m)``.

    Parameters
    ----------
    these, those : ndarray of bool, of shape (n,)
        Outcomes.

    Returns
    -------
    bool

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_acs.evaluation.masking import clearly_more
    >>> samples = np.arange(200)
    >>> clearly_more(samples < 73, samples < 70), clearly_more(samples < 80, samples < 70)
    (False, True)
    """
    more, fewer = int((these & ~those).sum()), int((those & ~these).sum())
    return more - fewer > max(TOLERANCE * len(these), CHANCE * (more + fewer) ** 0.5)


def _large_eps(reference: Threat, x: Tensor, clip: Clip) -> Any:
    """Make a radius as large as the box, or many times that of the attack where there is none."""
    if clip is None:
        return UNBOXED * np.asarray(reference.eps) if np.ndim(reference.eps) else UNBOXED * reference.eps
    return (clip[1] - clip[0]) * x[0].numel() ** {"linf": 0.0, "l2": 0.5, "l1": 1.0}[reference.norm]
