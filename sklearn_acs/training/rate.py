"""Rate sets the learning rate step by step, as a schedule says; schedules have names."""

from collections.abc import Callable
from math import cos, pi

from torch.optim import Optimizer

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
    n_steps : int
        Steps of the whole training.

    Attributes
    ----------
    step : int
        The step whose rate is set, counted from 0.
    """

    def __init__(self, optimizer: Optimizer, schedule: LrSchedule, n_steps: int) -> None:
        self.optimizer, self.schedule, self.n_steps, self.step = optimizer, schedule, n_steps, 0
        self._highest = [group["lr"] for group in optimizer.param_groups]
        self._set()

    def advance(self) -> None:
        """Set the rates of the next step."""
        self.step += 1
        self._set()

    def expect(self, steps_left: int) -> None:
        """Plan for so many more steps, as a new coreset makes known."""
        self.n_steps = self.step + steps_left

    def state_dict(self) -> dict[str, int]:
        """Tell how far the schedule has come."""
        return {"step": self.step, "n_steps": self.n_steps}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from there."""
        self.step, self.n_steps = state["step"], state["n_steps"]
        self._set()

    def _set(self) -> None:
        # In the middle of the step, so that none has factor 0.
        factor = self.schedule(min((self.step + 0.5) / self.n_steps, 1.0))
        for group, highest in zip(self.optimizer.param_groups, self._highest, strict=True):
            group["lr"] = highest * factor
