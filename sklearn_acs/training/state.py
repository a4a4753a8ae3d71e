"""TrainingState owns everything that changes while a network is trained, and hands it on."""

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sklearn_acs.data.batches import Batches
from sklearn_acs.selectors import Coreset
from sklearn_acs.training.adversary import Adversary
from sklearn_acs.training.averaging import WeightAverage
from sklearn_acs.training.cost import CostMeter
from sklearn_acs.training.course import Course
from sklearn_acs.training.in_batch import InBatchSelection
from sklearn_acs.training.interrupts import Interrupts
from sklearn_acs.training.memory import PerturbationMemory
from sklearn_acs.training.net import AdversarialNet
from sklearn_acs.training.optimizers import load_optimizer, take_over
from sklearn_acs.training.precision import compile_forward, is_compiled, set_precision
from sklearn_acs.training.progress import Progress
from sklearn_acs.training.rate import Rate
from sklearn_acs.training.schedule import CoresetSchedule, TimedSchedule
from sklearn_acs.training.seeds import LocalRandomness, Seeds
from sklearn_acs.training.selection import Selection
from sklearn_acs.training.weights import Weights, copy_of_weights, lay_out, load_weights, weights_of


@dataclass(frozen=True, eq=False)
class Best:
    """Holds the weights that scored best on samples held out."""

    epoch: int  # counted from 1, as in the history
    score: float
    weights: list[Weights]


@dataclass(eq=False)
class Epoch:
    """Holds what an epoch under way has come to."""

    phase: str
    lr: float = 0.0  # at its beginning
    losses: list[Tensor] = field(default_factory=list)  # of its batches, on the device
    sizes: list[int] = field(default_factory=list)
    begun: float = field(default_factory=perf_counter)


@dataclass(eq=False, repr=False)
class TrainingState:
    """Owns everything that changes while a network is trained.

    ``state_dict`` has all that a training stopped between two steps needs to go on to the same bits.
    """

    net: AdversarialNet  # skorch's engine: optimiser, history, callbacks, the step of a batch
    batches: Batches  # of the samples, or of the coreset in use
    schedule: CoresetSchedule | TimedSchedule  # which epoch trains on what
    seeds: Seeds
    randomness: LocalRandomness  # of what the network itself draws
    rows: np.ndarray  # where in X the samples of `batches` stand
    n_given: int  # samples in X
    precision: str  # of convolutions and matrix products
    split_seed: int  # by which samples were held out
    n_planned: int  # epochs of this training and of those that it goes on from
    course: Course  # how far it has come
    meter: CostMeter
    progress: Progress
    selection: Selection | None = None
    rate: Rate | None = None  # None leaves the learning rate as it is
    average: WeightAverage | None = None  # of the weights, with which the model then predicts
    memory: PerturbationMemory | None = None
    held_out: Batches | None = None  # for early stopping and for selectors that ask for them
    held_weight: Tensor | None = None
    epochs_done: int = 0
    coreset_epochs: int = 0  # of these on coresets
    stop_reason: str | None = None  # why it ended before its last epoch
    best: Best | None = None  # what early stopping has kept
    interrupted: bool = False  # whether a user's Ctrl-C ended it
    coresets: dict[int, Coreset] = field(default_factory=dict)  # when it is over: in rows of X, by epoch from 0
    under_way: Epoch | None = None  # once its first batch is to come
    _before_epoch: list[Weights] = field(default_factory=list)
    _finite_before: set[str] = field(default_factory=set)  # buffers that held numbers alone before the epoch
    _callbacks: dict[str, Any] = field(default_factory=dict)  # states to go on from, once the callbacks have begun
    _callbacks_began: bool = False
    _interrupts: Interrupts = field(default_factory=Interrupts)
    _keep: Callable[[Any, str], None] | None = None  # while it runs, what keeps its state

    def __post_init__(self) -> None:
        self.net.training_ = self
        self.module: nn.Module = self.net.module_

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the net, of which this is a part when it is pickled."""
        return {name: value for name, value in vars(self).items() if name != "net"}

    @property
    def final_module(self) -> nn.Module:
        """What predicts when training is over: the average of the weights where there is one."""
        return self.module if self.average is None else self.average.module

    @property
    def adversary(self) -> Adversary:
        """Attacks the batches: has the attack, the objective, the box and their generator."""
        return self.net.step_.adversary

    @property
    def in_batch(self) -> InBatchSelection | None:
        """Which samples of a batch are trained on."""
        return self.net.step_.in_batch

    @property
    def is_signalled(self) -> bool:
        """Whether Ctrl-C or SIGTERM waits for the state to be kept."""
        return self._interrupts.noted

    def weights(self) -> list[Weights]:
        """Copy the weights and all buffers, and their average; for `restore`."""
        return [copy_of_weights(module) for module in self._modules()]

    def restore(self, weights: list[Weights]) -> None:
        """Go back to earlier weights, and forget the optimiser's momentum, which leads where they went."""
        for module, earlier in zip(self._modules(), weights, strict=True):
            load_weights(module, earlier)
        self.net.optimizer_.state.clear()

    def keep_if_best(self, score: float) -> None:
        """Keep the weights if none scored higher; among equals the last, which was trained longest."""
        if self.best is None or score >= self.best.score:
            self.best = Best(len(self.net.history), score, self.weights())

    def take_over(self, before: "TrainingState", *, with_optimizer: bool) -> None:
        """Go on with what another training has learned beside its weights, perhaps with its optimiser too."""
        self.adversary.attack.load_state_dict(before.adversary.attack.state_dict())
        if self.in_batch is not None and before.in_batch is not None:
            self._callbacks["in_batch"] = before.in_batch.state_dict()
        if self.average is not None and before.average is not None:
            self.average.load_state_dict(before.average.state_dict())
        if with_optimizer:
            self.net.history_ = copy(before.net.history_)
            self.net.step_.scaler.load_state_dict(before.net.step_.scaler.state_dict())
            take_over(self.net.optimizer_, before.net.optimizer_)

    def state_dict(self) -> dict[str, Any]:
        """Name all that a training needs to go on, between two epochs or two steps.

        Tensors are those in use: copy or save them.

        What callbacks without a `state_dict` have learned, and Datasets that draw in worker processes, is not in it.
        """
        self._check_not_over()
        callbacks = self._callbacks
        if self._callbacks_began:
            callbacks = {name: each.state_dict() for name, each in self.net.callbacks_ if keeps_state(each)}
        return {
            "under_way": None if self.under_way is None else self._epoch_state(self.under_way),
            "precision": self.precision,
            "epochs_done": self.epochs_done,
            "coreset_epochs": self.coreset_epochs,
            "stop_reason": self.stop_reason,
            "weights": weights_of(self.module),
            "optimizer": self.net.optimizer_.state_dict(),
            "history": copy(self.net.history_),
            "best": self.best,
            "attack_generator": self.adversary.generator.get_state(),
            "saw_nan": self.adversary.saw_nan,
            "callbacks": callbacks,
            **{name: member.state_dict() for name, member in self._members()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the state of another training of the same plan on the same data."""
        for name in ("epochs_done", "coreset_epochs", "stop_reason", "best"):
            setattr(self, name, state[name])
        if state["precision"] != self.precision:
            self._compute_in(state)
        load_weights(self.module, state["weights"])
        load_optimizer(self.net.optimizer_, state["optimizer"])
        self.net.history_ = copy(state["history"])
        self.adversary.generator.set_state(state["attack_generator"])
        self.adversary.saw_nan.copy_(state["saw_nan"])
        self._callbacks = state["callbacks"]
        for name, member in self._members():
            if name in state:  # what a training that is over has let go of is not
                member.load_state_dict(state[name])
        if state["under_way"] is not None:
            self._load_epoch(state["under_way"])
        if self.rate is not None:
            self.rate.set()

    def _compute_in(self, state: dict[str, Any]) -> None:
        """Compute in the precision of a state, where "auto" has found another one faster this time."""
        self.precision = state["precision"]
        for module in self._modules():
            was_compiled = is_compiled(module)
            set_precision(module, self.precision)
            if was_compiled:
                compile_forward(module)
        lay_out(self.module, state["weights"])
        if self.average is not None:
            lay_out(self.average.module, state["average"]["weights"])

    def _epoch_state(self, epoch: Epoch) -> dict[str, Any]:
        """Name what the epoch under way has come to, and what it would go back to if it diverged."""
        self._read_clock()
        return {
            "phase": epoch.phase,
            "lr": epoch.lr,
            "losses": torch.stack(epoch.losses),
            "sizes": list(epoch.sizes),
            "seconds": perf_counter() - epoch.begun,
            "before": self._before_epoch,
            "finite_before": sorted(self._finite_before),
        }

    def _load_epoch(self, state: dict[str, Any]) -> None:
        begun, losses = perf_counter() - state["seconds"], list(state["losses"])
        self.under_way = Epoch(state["phase"], state["lr"], losses, list(state["sizes"]), begun)
        self._before_epoch, self._finite_before = state["before"], set(state["finite_before"])

    def _read_clock(self) -> None:
        """Add what the parts of steps have taken since the last reading to the cost."""
        for part, seconds in self.net.step_.clock.read().items():
            self.meter.cost.step_seconds[part] += seconds

    def _members(self) -> Iterator[tuple[str, Any]]:
        """List what else changes, each with a `state_dict` of its own."""
        members = {
            "attack": self.adversary.attack,
            "average": self.average,
            "batches": self.batches,
            "cost": self.meter,
            "course": self.course,
            "memory": self.memory,
            "progress": self.progress,
            "randomness": self.randomness,
            "scaler": self.net.step_.scaler,
            "selection": self.selection,
        }
        return ((name, member) for name, member in members.items() if member is not None)

    def _modules(self) -> list[nn.Module]:
        return list(dict.fromkeys([self.module, self.final_module]))

    def _check_not_over(self) -> None:
        if not hasattr(self, "batches"):
            raise RuntimeError("this training is over and has let its data go; a plan makes another one")


def keeps_state(callback: Any) -> bool:
    """Tell whether what a callback has learned can be kept, and given to another one."""
    return hasattr(callback, "state_dict") and hasattr(callback, "load_state_dict")
