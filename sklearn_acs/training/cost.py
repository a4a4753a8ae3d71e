"""Cost tells what a fit took, phase by phase: samples through the network, and seconds."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

PHASES = ("setup", "full", "selection", "solver", "coreset", "checks")

STEP_PARTS = ("data", "attack", "update", "callbacks")
"""What a training step consists of: its batch, its attack, its loss and the optimiser's step, and who is told of it."""


@dataclass
class PhaseCost:
    """Counts for one phase the samples sent forwards and backwards and the seconds of wall clock."""

    forwards: int = 0
    backwards: int = 0
    seconds: float = 0.0

    def __add__(self, other: "PhaseCost") -> "PhaseCost":
        return PhaseCost(self.forwards + other.forwards, self.backwards + other.backwards, self.seconds + other.seconds)

    def __mul__(self, times: float) -> "PhaseCost":
        return PhaseCost(round(self.forwards * times), round(self.backwards * times), self.seconds * times)

    def __sub__(self, other: "PhaseCost") -> "PhaseCost":
        return self + other * -1


class Cost(Mapping[str, PhaseCost]):
    """Tells the cost of a fit by phase; the phases' seconds add up to the whole fit.

    The phases are "setup" (checking and moving data, building the model), "full" (epochs on all data), "selection"
    (attacking every sample and reading its gradients), "solver" (choosing the coreset from them), "coreset" (epochs on
    it) and "checks" (early stopping and callbacks that look at the model: `Dynamics`, `CollapseGuard`,
    `StabilityTracker`). A sample counts once for each forward and for each backward pass through the whole network,
    measured where they happen, whatever the attack. (Backward passes that begin at activations, and not at the logits,
    are not counted: those of projections into a perceptual distance that the model itself judges.)

    `step_seconds` says how the seconds of "full" and "coreset" divide into those for batches ("data"), attacks
    ("attack"), loss, gradients and the optimiser's step ("update") and for what is called after each step
    ("callbacks"). On CUDA they are measured there, so that nothing waits for a clock.

    Examples
    --------
    >>> from sklearn_acs.training.cost import Cost
    >>> cost = Cost()
    >>> cost["full"].forwards += 128
    >>> cost.total.forwards
    128
    >>> cost.to_frame().loc[["full", "total"], "forwards"].tolist()
    [128, 128]
    """

    def __init__(self) -> None:
        self._phases = {name: PhaseCost() for name in PHASES}
        self.step_seconds = dict.fromkeys(STEP_PARTS, 0.0)

    def __getitem__(self, phase: str) -> PhaseCost:
        return self._phases[phase]

    def __iter__(self) -> Iterator[str]:
        return iter(self._phases)

    def __len__(self) -> int:
        return len(self._phases)

    @property
    def total(self) -> PhaseCost:
        """Sum over the phases."""
        return sum(self.values(), PhaseCost())

    def to_frame(self) -> Any:
        """Convert to a pandas DataFrame: a row for each phase, and one for the total."""
        import pandas

        rows = {**self, "total": self.total}
        return pandas.DataFrame(map(vars, rows.values()), index=pandas.Index(rows, name="phase"))

    def __repr__(self) -> str:
        rows = [*self.items(), ("total", self.total)]
        lines = [f"{name:<10}{c.forwards:>14,}{c.backwards:>14,}{c.seconds:>10.2f}" for name, c in rows]
        head = f"{'phase':<10}{'forwards':>14}{'backwards':>14}{'seconds':>10}"
        parts = ", ".join(f"{seconds:.2f} {part}" for part, seconds in self.step_seconds.items())
        return "\n".join([head, *lines, f"seconds of full and coreset: {parts}"])


class CostMeter:
    """Adds the passes through a module and the seconds to the phase of a `Cost` that is under way."""

    def __init__(self, phase: str = "setup") -> None:
        self.cost = Cost()
        self._phase, self._since = phase, perf_counter()
        self.begun = self._since

    def enter(self, phase: str) -> None:
        """End the phase that runs and begin another; every second belongs to exactly one."""
        now = perf_counter()
        self.cost[self._phase].seconds += now - self._since
        self._phase, self._since = phase, now

    def state_dict(self) -> dict[str, Any]:
        """Copy the cost so far."""
        self.enter(self._phase)
        return {"cost": deepcopy(self.cost)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the cost of another training, beside what has been spent here already."""
        for name, spent in state["cost"].items():
            self.cost._phases[name] = self.cost[name] + spent
        for part, seconds in state["cost"].step_seconds.items():
            self.cost.step_seconds[part] += seconds

    @contextmanager
    def aside(self, phase: str) -> Iterator[None]:
        """Count to another phase inside, and after it to the one before."""
        before = self._phase
        self.enter(phase)
        try:
            yield
        finally:
            self.enter(before)

    @contextmanager
    def watching(self, *modules: nn.Module) -> Iterator[None]:
        """Count the samples that go through each of the modules, forwards and backwards."""
        handles = [module.register_forward_hook(self._count) for module in dict.fromkeys(modules)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self.enter(self._phase)

    def _count(self, module: nn.Module, inputs: tuple[Tensor, ...], logits: Tensor) -> None:
        self.cost[self._phase].forwards += len(logits)
        if logits.requires_grad:
            logits.register_hook(self._count_backward)

    def _count_backward(self, gradient: Tensor) -> None:
        self.cost[self._phase].backwards += len(gradient)


class StepClock:
    """Times the parts of training steps, one after the other; on CUDA by events, which no one waits for.

    Parameters
    ----------
    device : torch.device
        Where the work is done.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_cuda = device.type == "cuda"
        self._marks: list[tuple[str, Any]] = []

    def mark(self, part: str) -> None:
        """Say that a part ends here; the next begins."""
        if self._on_cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._marks.append((part, event))
        else:
            self._marks.append((part, perf_counter()))

    def read(self) -> dict[str, float]:
        """Wait for the device, and tell the seconds of each part since the first mark or the last reading."""
        seconds = dict.fromkeys(STEP_PARTS, 0.0)
        if self._on_cuda and self._marks:
            self._marks[-1][1].synchronize()
        for (_, begun), (part, ended) in pairwise(self._marks):
            seconds[part] += begun.elapsed_time(ended) / 1000 if self._on_cuda else ended - begun
        self._marks = []
        return seconds
