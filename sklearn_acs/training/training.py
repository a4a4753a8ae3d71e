"""Training owns everything that changes while a network is trained, and loops over its epochs."""

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, field, replace
from math import isfinite
from threading import Event
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sklearn_acs.data.batches import Batch, Batches
from sklearn_acs.selectors import Coreset
from sklearn_acs.training.adversary import Adversary
from sklearn_acs.training.averaging import WeightAverage
from sklearn_acs.training.cost import CostMeter
from sklearn_acs.training.in_batch import InBatchSelection
from sklearn_acs.training.interrupts import noting_interrupts
from sklearn_acs.training.memory import PerturbationMemory
from sklearn_acs.training.net import AdversarialNet
from sklearn_acs.training.optimizers import load_optimizer, take_over
from sklearn_acs.training.progress import Progress
from sklearn_acs.training.rate import Rate
from sklearn_acs.training.schedule import CoresetSchedule
from sklearn_acs.training.seeds import LocalRandomness, Seeds
from sklearn_acs.training.selection import Selection
from sklearn_acs.training.weights import Weights, copy_of_weights, diverged, finite_buffers, load_weights, weights_of


@dataclass(frozen=True, eq=False)
class Best:
    """Holds the weights that scored best on samples held out."""

    epoch: int  # counted from 1, as in the history
    score: float
    weights: list[Weights]


@dataclass(eq=False, repr=False)
class Training:
    """Trains a network: made by a `Plan`, run once.

    ``run`` goes through the schedule by ``epoch``: a selection if it is time, and a ``step`` for each batch.
    ``stop`` ends it early. ``state_dict`` has everything that a training stopped between two epochs needs to go on to
    the same bits. When it has run, the data is let go, and what is left is what another training goes on from.
    """

    net: AdversarialNet  # skorch's engine: optimiser, history, callbacks, the step of a batch
    batches: Batches  # of the samples, or of the coreset in use
    schedule: CoresetSchedule  # which epoch trains on what
    seeds: Seeds
    randomness: LocalRandomness  # of what the network itself draws
    rows: np.ndarray  # where in X the samples of `batches` stand
    n_given: int  # samples in X
    precision: str  # of convolutions and matrix products
    split_seed: int  # by which samples were held out
    n_planned: int  # epochs of this training and of those that it goes on from
    meter: CostMeter
    progress: Progress
    selection: Selection | None = None
    rate: Rate | None = None  # None leaves the learning rate as it is
    average: WeightAverage | None = None  # of the weights, with which the model then predicts
    memory: PerturbationMemory | None = None
    held_out: Batches | None = None  # for early stopping and for selectors that ask for them
    held_weight: Tensor | None = None
    epochs_done: int = 0
    stop_reason: str | None = None  # why it ended before its last epoch
    best: Best | None = None  # what early stopping has kept
    interrupted: bool = False  # whether a user's Ctrl-C ended it
    coresets: dict[int, Coreset] = field(default_factory=dict)  # when it is over: in rows of X, by epoch from 0
    _before_epoch: list[Weights] = field(default_factory=list)
    _finite_before: set[str] = field(default_factory=set)  # buffers that held numbers alone before the epoch
    _callbacks: dict[str, Any] = field(default_factory=dict)  # states to go on from, once the callbacks have begun
    _callbacks_began: bool = False

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

    def stop(self, reason: str) -> None:
        """End the training when the callbacks have seen this epoch, or, amid one, after this batch.

        The first reason is kept as `stop_reason`.
        """
        self.stop_reason = self.stop_reason or reason

    def run(self, after_epoch: Callable[["Training"], None] | None = None) -> None:
        """Train until the schedule ends or something stops it.

        Parameters
        ----------
        after_epoch : callable or None, default=None
            Called with the training when all callbacks have been told of an epoch: the time to keep its `state_dict`.

        Raises
        ------
        FloatingPointError
            The loss or a weight became NaN or infinite; the weights from before that epoch are back.
        KeyboardInterrupt
            The user's Ctrl-C, raised again when everything is in order. (A callback that raises one itself, as skorch's
            EarlyStopping does, only stops the training.)
        RuntimeError
            It has run before.
        """
        self._check_not_over()
        about, pressed, held = {"X": self.batches.data, "y": None}, Event(), Event()
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            self.randomness.in_use(),
            noting_interrupts(pressed, held),
            self.meter.watching(self.module, self.final_module),
        ):
            try:
                self.net.notify("on_train_begin", **about)
                for name, callback in self.net.callbacks_:
                    if name in self._callbacks:
                        callback.load_state_dict(self._callbacks[name])
                self._callbacks_began = True
                try:
                    while self.stop_reason is None and self.epochs_done < self.schedule.n_epochs:
                        self.epoch()
                        if after_epoch is not None:
                            after_epoch(self)
                except KeyboardInterrupt:
                    if not pressed.is_set():
                        self.stop("a callback raised KeyboardInterrupt")
                held.set()
                self._drop_unfinished()
                self.net.notify("on_train_end", **about)
            finally:
                held.set()
                self._finish()
                self.interrupted = pressed.is_set()
        if self.interrupted:
            raise KeyboardInterrupt

    def epoch(self) -> None:
        """Select if it is time, train for an epoch, and tell the callbacks."""
        begun, history, schedule = perf_counter(), self.net.history, self.schedule
        loss = history[-1, "train_loss"] if len(history) else None
        if self.selection is not None and schedule.selects(self.epochs_done):
            self.progress.enter("selecting", self.epochs_done, loss)
            self.selection.select(self.epochs_done, self.module, self.batches, self.meter, self.progress)
            if self.rate is not None:  # a coreset of batches may be a little larger or smaller than planned
                self.rate.expect((schedule.n_epochs - self.epochs_done) * len(self.batches))
        recorder = None if self.selection is None else self.selection.recorder
        self.net.step_.recorder = recorder if schedule.selects(self.epochs_done + 1) else None
        phase = schedule.phase(self.epochs_done)
        self.progress.enter(phase, self.epochs_done, loss)
        self.meter.enter(phase)

        data = {"dataset_train": self.batches.data, "dataset_valid": None}
        self.net.notify("on_epoch_begin", **data)
        coreset = None if self.selection is None else self.selection.last
        history.record("phase", phase)
        history.record("coreset_size", len(self.batches.indices))
        history.record("approximation_error", coreset and coreset.error)
        if self.stop_reason is None:
            self._train_on_batches()
        if self.stop_reason is None:
            history.record("seconds", perf_counter() - begun)
            self.epochs_done += 1
            self.net.notify("on_epoch_end", **data)

    def _train_on_batches(self) -> None:
        """Go through the batches once; read their losses from the device at the end, so that no GPU waits."""
        self._before_epoch, self._finite_before = self.weights(), finite_buffers(self.module)
        lr = self.net.optimizer_.param_groups[0]["lr"]
        losses, sizes, clock = [], [], self.net.step_.clock
        if self.memory is not None:
            self.memory.epoch += 1
        clock.mark("callbacks")
        for batch in self.batches:
            clock.mark("data")
            losses.append(self.step(batch))
            sizes.append(len(batch.y))
            clock.mark("callbacks")
            if self.stop_reason is not None:
                return

        for part, seconds in clock.read().items():
            self.meter.cost.step_seconds[part] += seconds
        values, history = torch.stack(losses).tolist(), self.net.history
        for i, value in enumerate(values):
            history[-1]["batches"][i]["train_loss"] = value
        mean = sum(value * size for value, size in zip(values, sizes, strict=True)) / sum(sizes)
        for name, value in (("train_loss", mean), ("train_batch_count", len(values)), ("lr", lr)):
            history.record(name, value)
        if not isfinite(mean) or diverged(self.module, self._finite_before):
            self.restore(self._before_epoch)
            raise FloatingPointError(
                f"training diverged in epoch {len(history)}: the loss is {mean} at lr={lr:g}. "
                f"The weights from before that epoch are kept; a smaller lr may help"
            )
        self.adversary.tell_of_nan()

    def step(self, batch: Batch) -> Tensor:
        """Take one step on a batch: attack, gradients, optimiser, average, rate.

        Returns
        -------
        Tensor
            The weighted mean loss, on the device.
        """
        net, clock = self.net, self.net.step_.clock
        net.notify("on_batch_begin", batch=(batch.x, batch.y), training=True)  # what skorch takes for a batch
        clock.mark("callbacks")
        done = net.train_step(batch)
        if self.average is not None:
            self.average.follow(self._finite_before)
        clock.mark("update")
        net.history.record_batch("train_batch_size", len(batch.y))
        if self.rate is not None:
            self.rate.advance()
        net.notify("on_batch_end", batch=(done["trained"].x, done["trained"].y), training=True, **done)
        self.progress.advance(len(batch.y))
        return done["loss"]

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

    def take_over(self, before: "Training", *, with_optimizer: bool) -> None:
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
        """Name all that a training needs to go on between two epochs; tensors are those in use: copy or save them.

        What callbacks without a `state_dict` have learned, and Datasets that draw in worker processes, is not in it.
        """
        self._check_not_over()
        callbacks = self._callbacks
        if self._callbacks_began:
            callbacks = {name: each.state_dict() for name, each in self.net.callbacks_ if hasattr(each, "state_dict")}
        return {
            "epochs_done": self.epochs_done,
            "stop_reason": self.stop_reason,
            "weights": weights_of(self.module),
            "optimizer": self.net.optimizer_.state_dict(),
            "history": copy(self.net.history_),
            "best": self.best,
            "attack_generator": self.adversary.generator.get_state(),
            "callbacks": callbacks,
            **{name: member.state_dict() for name, member in self._members()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the state of another training of the same plan on the same data."""
        self.epochs_done, self.stop_reason, self.best = (state[key] for key in ("epochs_done", "stop_reason", "best"))
        load_weights(self.module, state["weights"])
        load_optimizer(self.net.optimizer_, state["optimizer"])
        self.net.history_ = copy(state["history"])
        self.adversary.generator.set_state(state["attack_generator"])
        self._callbacks = state["callbacks"]
        for name, member in self._members():
            member.load_state_dict(state[name])

    def _members(self) -> Iterator[tuple[str, Any]]:
        """List what else changes, each with a `state_dict` of its own."""
        members = {
            "attack": self.adversary.attack,
            "average": self.average,
            "batches": self.batches,
            "cost": self.meter,
            "memory": self.memory,
            "randomness": self.randomness,
            "rate": self.rate,
            "scaler": self.net.step_.scaler,
            "selection": self.selection,
        }
        return ((name, member) for name, member in members.items() if member is not None)

    def _modules(self) -> list[nn.Module]:
        return list(dict.fromkeys([self.module, self.final_module]))

    def _check_not_over(self) -> None:
        if not hasattr(self, "batches"):
            raise RuntimeError("this training is over and has let its data go; a plan makes another one")

    def _drop_unfinished(self) -> None:
        """Forget an epoch that was cut short, and its weights where it was about to diverge."""
        history = self.net.history
        if len(history) and "train_loss" not in history[-1]:
            history.pop()
            if self._before_epoch and diverged(self.module, self._finite_before):
                self.restore(self._before_epoch)
        self._before_epoch = []

    def _finish(self) -> None:
        """Leave the weights that are to be kept, in eval mode, and let go of the data."""
        self._drop_unfinished()  # after an error nobody has done so
        if self.best is not None:
            self.restore(self.best.weights)
            self.best = replace(self.best, weights=[])
        for module in self._modules():
            module.eval()
        self.net.module_ = self.final_module
        self.progress.close(self.stop_reason)
        if self.selection is not None:  # in rows of X, where samples of weight 0 and those held out stand too
            self.coresets = {
                epoch: replace(coreset, indices=self.rows[coreset.indices])
                for epoch, coreset in self.selection.coresets.items()
                if epoch < self.epochs_done
            }
        self.adversary.memory = self.net.step_.recorder = None
        self.selection = self.memory = self.held_out = self.held_weight = self.rate = None
        del self.batches, self.progress, self.randomness, self.rows
