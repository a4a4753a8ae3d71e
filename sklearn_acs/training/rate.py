"""Rate sets the learning rate step by step, as a schedule says; schedules have names."""

from collections.abc import Callable
from math import cos, pi

from torch.optim import Optimizer

from sklearn_acs.training.course import Course

LrSchedule = Callable[[float], float]
"""``schedule(progress) -> factor`` of `lr`; progress runs from 0 to 1 over the steps of a fit."""

PEAK = 0.3
"""Share of the training after which one-cycle reaches its highest rate."""


def cosine(progress: float) -> float:
    """Fall from `lr` to 0 along half a cosine."""
    return (1 + cos(pi * progress)) / 2


def multistep(progress: float) -> float:
    """Take a tenth of `lr` after two thirds, a hundredth after five sixths of the training."""
    return 1.0 if progress < 2 / 3 else 0.1 if progress < 5 / 6 else 0.01


def one_cycle(progress: float) -> float:
    """Rise straight from 0 to `lr` in the first 30 %, and fall straight to 0 after it."""
    return min(progress / PEAK, (1 - progress) / (1 - PEAK))


LR_SCHEDULES: dict[str, LrSchedule | None] = {
    "constant": None,
    "cosine": cosine,
    "multistep": multistep,
    "one-cycle": one_cycle,
}
"""None leaves the rate alone, so that callbacks may set it."""


class Rate:
    """Sets the learning rates of an optimiser step by step, as a schedule says.

    Parameters
    ----------
    optimizer : Optimizer
        Its parameter groups have the highest rate each.
    schedule : callable
        ``schedule(progress) -> factor``.
    course : Course
        Tells how far the training has come.
    """

    def __init__(self, optimizer: Optimizer, schedule: LrSchedule, course: Course) -> None:
        self.optimizer, self.schedule, self.course = optimizer, schedule, course
        self._highest = [group["lr"] for group in optimizer.param_groups]
        self.set()

    def set(self) -> None:
        """Set the rates of the step that is under way."""
        factor = self.schedule(self.course.progress)
        for group, highest in zip(self.optimizer.param_groups, self._highest, strict=True):
            group["lr"] = highest * factor
