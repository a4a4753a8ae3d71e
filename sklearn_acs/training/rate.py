"""Optimisers and learning-rate schedules by name.

A schedule gives the factor of `lr` at a share of the training done, counted in the steps really taken.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, pi
from typing import Any

from torch.optim import SGD, Adam, AdamW, Optimizer

OPTIMIZERS: dict[str, tuple[type[Optimizer], float, dict[str, Any]]] = {
    "sgd": (SGD, 0.1, {"momentum": 0.9, "weight_decay": 5e-4}),
    "adam": (Adam, 2e-3, {}),
    "adamw": (AdamW, 2e-3, {}),
}
"""Each name with its learning rate, and its options unless ``optimizer__...`` parameters say otherwise."""

FUSED_DEVICES = ("cpu", "cuda")
"""Where these do a step in one pass over memory, a third of the time on a CPU, and on a GPU without waiting for it."""

LrSchedule = Callable[[float], float]
"""``schedule(progress) -> factor``: progress runs from 0 to 1 over the fit."""

PEAK = 0.3
"""Share of the training after which one-cycle reaches its highest rate."""


def constant(progress: float) -> float:
    """`lr` from first to last."""
    return 1.0


def cosine(progress: float) -> float:
    """From `lr` down to 0 along half a cosine."""
    return (1 + cos(pi * progress)) / 2


def multistep(progress: float) -> float:
    """A tenth of `lr` after two thirds, a hundredth after five sixths of the training."""
    return 1.0 if progress < 2 / 3 else 0.1 if progress < 5 / 6 else 0.01


def one_cycle(progress: float) -> float:
    """Straight up from 0 to `lr` in the first 30 %, straight down to 0 after it."""
    return min(progress / PEAK, (1 - progress) / (1 - PEAK))


LR_SCHEDULES: dict[str, LrSchedule] = {
    "constant": constant,
    "cosine": cosine,
    "multistep": multistep,
    "one-cycle": one_cycle,
}


@dataclass
class LrFactor:
    """A schedule as torch's LambdaLR wants it: the factor at a step, out of `n_steps`."""

    schedule: LrSchedule
    n_steps: int
    step: int = 0

    def expect(self, steps_left: int) -> None:
        """Be told how many steps are left, when that is known better than at the beginning."""
        self.n_steps = self.step + steps_left

    def __call__(self, step: int) -> float:
        """Factor of step `step`, taken in the middle of the step so that none has factor 0."""
        self.step = step
        return self.schedule(min((step + 0.5) / self.n_steps, 1.0))
