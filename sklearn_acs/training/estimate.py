"""estimate_cost says what a training will take, from a few of its steps."""

import warnings
from collections.abc import Mapping
from copy import copy, deepcopy
from dataclasses import dataclass, field
from math import inf
from typing import Any

import torch
from sklearn.base import clone

from sklearn_acs.data.batches import StreamedData
from sklearn_acs.training.cost import PHASES, Cost, PhaseCost
from sklearn_acs.training.rehearsal import Rehearsal
from sklearn_acs.training.schedule import CORESET, FULL
from sklearn_acs.training.seeds import current_device
from sklearn_acs.training.training import Training


class CostEstimate(Cost):
    """Tells what a fit will cost by phase, passes and seconds as its `Cost` will, and memory.

    Attributes
    ----------
    n_epochs : float
        Epochs that the fit will have; a part of one is an epoch that `max_seconds` cuts short.
    memory : dict of int
        For each phase the bytes that the fit needs at most, beside X itself and the libraries, on the device that
        trains.
    held : dict of int
        Bytes of what a fit holds all the time: "data" (copies of X, labels), "perturbations" (those remembered) and
        "weights" (of the network and their average, gradients, the optimiser's state, copies to go back to).
    on_disk : int
        Bytes of a temporary file, which remembered perturbations of a Dataset are in.
    """

    def __init__(self) -> None:
        super().__init__()
        self.n_epochs, self.on_disk = 0.0, 0
        self.memory = dict.fromkeys(PHASES, 0)
        self.held: dict[str, int] = {}

    def to_frame(self) -> Any:
        """Convert to a pandas DataFrame: a row for each phase, and one for the total, whose memory is the most."""
        return super().to_frame().assign(memory=[*self.memory.values(), max(self.memory.values())])

    def __repr__(self) -> str:
        rows = {**self, "total": self.total}
        sizes = [*self.memory.values(), max(self.memory.values())]
        lines = [f"{'phase':<10}{'forwards':>14}{'backwards':>14}{'seconds':>10}{'megabytes':>11}"]
        lines += [
            f"{name:<10}{c.forwards:>14,}{c.backwards:>14,}{c.seconds:>10.2f}{size / 1e6:>11,.1f}"
            for (name, c), size in zip(rows.items(), sizes, strict=True)
        ]
        held = ", ".join(f"{size / 1e6:,.1f} {name}" for name, size in self.held.items())
        disk = f"; {self.on_disk / 1e6:,.1f} megabytes on disk" if self.on_disk else ""
        return "\n".join([*lines, f"{self.n_epochs:.3g} epochs; megabytes held: {held}{disk}"])


def untouched(params: Mapping[str, Any]) -> dict[str, Any]:
    """Copy a classifier's parameters, so that neither its parts nor generators of random numbers change."""
    parts = [name for name in params if not name.startswith(("callbacks", "iterator_"))]
    copied = {name: clone(params[name], safe=False) for name in parts}
    if isinstance(given := params["callbacks"], list):
        copied["callbacks"] = [tuple(map(_like, each)) if isinstance(each, tuple) else _like(each) for each in given]
    return {**copied, "verbose": 0}


def _like(callback: Any) -> Any:
    """Copy a callback: as a whole one of this library, and others, which are not called, without what they hold."""
    return deepcopy(callback) if type(callback).__module__.startswith("sklearn_acs.") else copy(callback)


def start_torch() -> None:
    """Let torch do what it does once in a process, which is no fit's cost: its optimisers bring much code along."""
    weight = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=1.0)
    weight.sum().backward()
    optimizer.step()


def estimate_cost(training: Training, samples: Any = None, X: Any = None) -> CostEstimate:
    """Measure a few steps, selection passes and checks of a training, and multiply by what its schedule has in store.

    They are the training's own, at full radius and at a rate of 0. What attacks spare is counted as if the network
    were right about every sample. The training is of no other use afterwards.

    Parameters
    ----------
    training : Training
        One that has not run; its meter has been on "setup" since the fit would have begun.
    samples : Tensor or Items
        What has been read of `X`.
    X : object
        What is there anyway, and not counted as memory.

    Returns
    -------
    CostEstimate
    """
    schedule, course = training.schedule, training.course
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        current_device(training.randomness.device),
        training.meter.watching(training.module, training.final_module),
        warnings.catch_warnings(action="ignore"),
    ):
        forecast = Forecast(schedule, course.max_seconds, course.n_steps)
        rehearsal = Rehearsal(training, samples, X)
        forecast.go_through(rehearsal)
        estimate = with_memory(forecast.estimate, rehearsal)
        rehearsal.close()
    return estimate


@dataclass
class Forecast:
    """Goes through the epochs of a schedule without training."""

    schedule: Any
    max_seconds: float
    n_steps: float
    estimate: CostEstimate = field(default_factory=CostEstimate)

    def go_through(self, measured: Rehearsal) -> None:
        """Add up the cost of every epoch, as `Training.run` would have them."""
        estimate, schedule, steps, done, coreset_epochs = self.estimate, self.schedule, 0.0, 0, 0
        self._add("setup", PhaseCost(seconds=measured.setup))
        left = self.max_seconds - measured.checks.seconds
        samples = {FULL: measured.n, CORESET: measured.n_select}
        renewed, seen_all, selecting = -inf, False, 0.0  # epochs at whose end all is remembered, or recorded
        while done < schedule.n_epochs and (remains := left - estimate.total.seconds) > 0:
            progress = min(max((steps + 0.5) / self.n_steps, 1 - remains / left if left < inf else 0.0), 1.0)
            phase = schedule.phase(done, progress)
            if phase == CORESET and coreset_epochs % schedule.select_every == 0 and remains >= selecting:
                cost = measured.selection(reads=measured.keeps_for(done - renewed), recorded=seen_all)
                renewed = max(renewed, done)
                self._add("selection", cost)
                self._add("solver", measured.solving)
                selecting = (cost + measured.solving).seconds
                remains -= selecting
            recorded = schedule.n_selections > 0 and schedule.selects(done + 1)
            epoch, checks, n_batches = measured.epoch_of(samples[phase], recorded=recorded)
            share = min(1.0, max(remains, 0.0) / ((epoch + checks).seconds or 1.0))
            if not done:
                epoch = epoch + PhaseCost(seconds=measured.starting)
            self._add(phase, epoch * share)
            self._add("checks", checks * share + measured.checks)
            if phase == FULL and share == 1:
                renewed, seen_all = done + 1, True
            steps, done, coreset_epochs = steps + share * n_batches, done + 1, coreset_epochs + (phase == CORESET)
            estimate.n_epochs += share

    def _add(self, phase: str, cost: PhaseCost) -> None:
        self.estimate._phases[phase] += cost


def with_memory(estimate: CostEstimate, measured: Rehearsal) -> CostEstimate:
    """Add what the phases need at most, and what is held all the time."""
    memory = measured.memory
    stored = isinstance(measured.training.batches.data, StreamedData)
    estimate.on_disk = memory["perturbations"] if stored else 0
    estimate.held = {"data": memory["data"], "perturbations": memory["perturbations"] - estimate.on_disk}
    estimate.held["weights"] = memory["weights"]
    always, kept = sum(estimate.held.values()), memory["gradients"]
    recorded = memory["recorded"]
    beside = {"setup": 0, "selection": kept + memory["pass"], "solver": kept + memory["solver"]}
    for phase, cost in estimate.items():
        if cost.seconds:
            estimate.memory[phase] = always + recorded + beside.get(phase, memory["step"])
    return estimate
