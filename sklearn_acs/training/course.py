"""Course tells how far a training has come, by which learning rate, radius and phases go."""

from dataclasses import dataclass, field
from math import inf
from time import perf_counter
from typing import Any


@dataclass
class Course:
    """Tells how far a training has come: by its steps, or by its seconds where those come to their end first.

    Attributes
    ----------
    n_steps : float
        Steps of the whole training; inf where seconds alone end it.
    max_seconds : float
        Seconds of the whole training; inf where steps alone end it.
    begun : float
        When it began, by `time.perf_counter`.
    step : int
        The step that is under way, counted from 0.
    reserve : float
        Seconds to keep for what comes after the last step.
    """

    n_steps: float
    max_seconds: float = inf
    begun: float = field(default_factory=perf_counter)
    step: int = 0
    reserve: float = 0.0

    @property
    def seconds(self) -> float:
        """Seconds that have gone by."""
        return perf_counter() - self.begun

    @property
    def progress(self) -> float:
        """Share of the training that is done in the middle of this step, in (0, 1]."""
        by_seconds = self.seconds / max(self.max_seconds - self.reserve, 1e-9)
        return min(max((self.step + 0.5) / self.n_steps, by_seconds), 1.0)

    @property
    def seconds_left(self) -> float:
        """Seconds left for steps; inf where seconds do not end it."""
        return self.max_seconds - self.reserve - self.seconds

    def advance(self) -> None:
        """Go on to the next step."""
        self.step += 1

    def expect(self, steps_left: float) -> None:
        """Plan for so many more steps, as a new coreset makes known."""
        self.n_steps = self.step + steps_left

    def state_dict(self) -> dict[str, Any]:
        """Name what is done and planned."""
        return {"step": self.step, "n_steps": self.n_steps, "seconds": self.seconds, "reserve": self.reserve}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there; the time between does not count."""
        self.step, self.n_steps, self.reserve = state["step"], state["n_steps"], state.get("reserve", 0.0)
        self.begun = perf_counter() - state["seconds"]
