"""Training loops over the epochs of a training."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import isfinite
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from sklearn_acs.data.batches import Batch, batch_count
from sklearn_acs.training.schedule import CORESET, FULL
from sklearn_acs.training.seeds import current_device
from sklearn_acs.training.state import Epoch, TrainingState
from sklearn_acs.training.weights import diverged, finite_buffers

AFTER_EPOCH, AFTER_SELECTION, AFTER_BATCH, AFTER_ALL = "epoch", "selection", "batch", "training"

Keep = Callable[["Training", str], None]
"""``keep(training, after)`` may keep the training's state: after an "epoch", a "selection", a "batch", or all of it."""


@dataclass(eq=False, repr=False)
class Training(TrainingState):
    """Trains a network: made by a `Plan`, run once.

    ``run`` goes through the schedule by ``epoch``: a selection if it is time, and a ``step`` for each batch.
    ``stop`` ends it early. When it has run, the data is let go, and what is left is what another training goes on from.
    """

    def stop(self, reason: str) -> None:
        """End the training when the callbacks have seen this epoch, or, amid one, after this batch.

        The first reason is kept as `stop_reason`.
        """
        self.stop_reason = self.stop_reason or reason

    def run(self, keep: Keep | None = None) -> None:
        """Train until the schedule ends or something stops it.

        Parameters
        ----------
        keep : callable or None, default=None
            Called with the training wherever its `state_dict` can be kept, and with what has just been done: an "epoch"
            of which all callbacks have been told, a "selection", a "batch", or the "training". Ctrl-C and SIGTERM then
            take effect after the next call, or amid a selection at once.

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
        about, interrupts = {"X": self.batches.data, "y": None}, self._interrupts
        self._keep = keep
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            current_device(self.randomness.device),
            interrupts.noting(termination=keep is not None),
            self.meter.watching(self.module, self.final_module),
        ):
            try:
                self.net.notify("on_train_begin", **about)
                if self.under_way is not None:
                    self._begin_again()
                for name, callback in self.net.callbacks_:
                    if name in self._callbacks:
                        callback.load_state_dict(self._callbacks[name])
                self._callbacks_began, interrupts.held = True, keep is not None
                try:
                    while self.stop_reason is None and self.epochs_done < self.schedule.n_epochs:
                        self.epoch()
                        self._done(AFTER_EPOCH)
                except KeyboardInterrupt:
                    if not interrupts.pressed:
                        self.stop("a callback raised KeyboardInterrupt")
                interrupts.held = True
                self._drop_unfinished()
                if not interrupts.pressed:
                    self._done(AFTER_ALL)
                self.net.notify("on_train_end", **about)
            finally:
                interrupts.held = True
                self._finish()
                self.interrupted = interrupts.pressed
        if self.interrupted:
            raise KeyboardInterrupt

    def _done(self, what: str) -> None:
        """Let the state be kept, and let a signal that came meanwhile take effect."""
        if self._keep is not None:
            self._keep(self, what)
            self._interrupts.deliver(interrupt=what != AFTER_ALL)

    def _begin_again(self) -> None:
        """Begin the epoch that a state was taken amid, for the callbacks; what it has come to stays in the history."""
        row = self.net.history.pop()
        self.net.notify("on_epoch_begin", **self._epoch_data())
        self.net.history[-1] = row

    def _epoch_data(self) -> dict[str, Any]:
        """Name what skorch tells callbacks of an epoch."""
        valid = self.held_out if self.net.scores_held_out else None
        return {"dataset_train": self.batches.data, "dataset_valid": valid and valid.data}

    def epoch(self) -> None:
        """Select if it is time, train for an epoch, and tell the callbacks; go on with an epoch under way."""
        history, schedule, going_on = self.net.history, self.schedule, self.under_way is not None
        loss = history[-1].get("train_loss") if len(history) else None
        epoch = self.under_way or Epoch(schedule.phase(self.epochs_done, self.course.progress))
        phase = epoch.phase
        if phase == FULL:
            self.batches.use_all()
        elif not going_on and self._selects:
            self._select(loss)
        recorder = None if self.selection is None else self.selection.recorder
        self.net.step_.recorder = recorder if schedule.selects(self.epochs_done + 1) else None
        self.progress.enter(phase, self.epochs_done, loss)
        self.meter.enter(phase)

        if not going_on:
            self.net.notify("on_epoch_begin", **self._epoch_data())
            coreset = self.selection.last if self.selection is not None and phase == CORESET else None
            history.record("phase", phase)
            history.record("coreset_size", len(self.batches.indices))
            if (radius := self.adversary.radius) is not None:
                history.record("radius", radius)
            history.record("approximation_error", coreset and coreset.error)
        if self.stop_reason is None:
            self._train_on_batches(epoch)
        if self.stop_reason is None:
            if self.net.scores_held_out and self.held_out is not None:
                with self.checking():
                    everything = torch.arange(len(self.held_out.data))
                    self.net.validate(self.final_module, self.held_out.aside(everything))
            history.record("seconds", perf_counter() - epoch.begun)
            self.epochs_done += 1
            self.coreset_epochs += phase == CORESET
            ended = perf_counter()
            self.net.notify("on_epoch_end", **self._epoch_data())
            self.course.reserve = perf_counter() - ended
            if self.course.seconds_left <= 0:
                self.stop(f"the {self.course.max_seconds:g} seconds of max_seconds have gone by")

    @property
    def _selects(self) -> bool:
        """Whether the epoch to come, one of the coreset's, begins with a selection; one that is done counts."""
        if self.coreset_epochs % self.schedule.select_every:
            return False
        assert self.selection is not None
        return self.epochs_done not in self.selection.coresets

    def _select(self, loss: float | None) -> None:
        """Choose a coreset, unless the time that is left is shorter than what the last one took."""
        selection, begun = self.selection, perf_counter()
        assert selection is not None
        if self.course.seconds_left < selection.seconds:
            return
        self.progress.enter("selecting", self.epochs_done, loss)
        with self._interrupts.at_once(), self.randomness.where_drawn():  # half a selection cannot be kept
            selection.select(self.epochs_done, self.module, self.batches, self.meter, self.progress)
        selection.seconds = perf_counter() - begun
        # A coreset of batches may be a little larger or smaller than planned.
        n_batches = batch_count(len(self.batches.data), self.batches.batch_size)
        self.course.expect(self.schedule.n_steps(n_batches, len(self.batches), since=self.epochs_done))
        self._done(AFTER_SELECTION)

    def _train_on_batches(self, epoch: Epoch) -> None:
        """Go through the batches once; read their losses from the device at the end, so that no GPU waits."""
        if self.under_way is None:
            self._before_epoch, self._finite_before = self.weights(), finite_buffers(self.module)
            epoch.lr = self.net.optimizer_.param_groups[0]["lr"]
            self.under_way = epoch
            if self.memory is not None:
                self.memory.epoch += 1
        losses, sizes, clock = epoch.losses, epoch.sizes, self.net.step_.clock
        clock.mark("callbacks")
        for batch in self.randomness.each(self.batches):
            clock.mark("data")
            losses.append(self.step(batch))
            sizes.append(len(batch.y))
            clock.mark("callbacks")
            if self.stop_reason is not None:
                return
            self._done(AFTER_BATCH)
            if self.course.seconds_left <= 0:  # the last epoch may be a short one
                break

        self._read_clock()
        values, history = torch.stack(losses).tolist(), self.net.history
        for i, value in enumerate(values):
            history[-1]["batches"][i]["train_loss"] = value
        mean = sum(value * size for value, size in zip(values, sizes, strict=True)) / sum(sizes)
        for name, value in (("train_loss", mean), ("train_batch_count", len(values)), ("lr", epoch.lr)):
            history.record(name, value)
        if not isfinite(mean) or diverged(self.module, self._finite_before):
            self.restore(self._before_epoch)
            raise FloatingPointError(
                f"training diverged in epoch {len(history)}: the loss is {mean} at lr={epoch.lr:g}. "
                f"The weights from before that epoch are kept; a smaller lr may help"
            )
        self.adversary.tell_of_nan()
        self.under_way = None

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
        with self.randomness.where_drawn():
            done = net.train_step(batch)
        if self.average is not None:
            self.average.follow(self._finite_before)
        clock.mark("update")
        net.history.record_batch("train_batch_size", len(batch.y))
        self.course.advance()
        if self.rate is not None:
            self.rate.set()
        net.notify("on_batch_end", batch=(done["trained"].x, done["trained"].y), training=True, **done)
        self.progress.advance(len(batch.y))
        return done["loss"]

    @contextmanager
    def checking(self) -> Iterator[None]:
        """Let a callback look at the model: counted as "checks", and with draws that are no part of training's."""
        with self.meter.aside("checks"), self.randomness.where_drawn(going_on=False):
            yield

    def _drop_unfinished(self) -> None:
        """Forget an epoch that was cut short, and its weights where it was about to diverge."""
        history = self.net.history
        if len(history) and "train_loss" not in history[-1]:
            history.pop()
            if self._before_epoch and diverged(self.module, self._finite_before):
                self.restore(self._before_epoch)
        self._before_epoch, self.under_way = [], None

    def _finish(self) -> None:
        """Leave the weights that are to be kept, in eval mode, and let go of the data."""
        self._drop_unfinished()  # after an error nobody has done so
        if self.best is not None:
            self.restore(self.best.weights)
            self.best = replace(self.best, weights=[])
        self.progress.close(self.stop_reason)
        if self.selection is not None:  # in rows of X, where samples of weight 0 and those held out stand too
            self.coresets = {
                epoch: replace(coreset, indices=self.rows[coreset.indices])
                for epoch, coreset in self.selection.coresets.items()
                if epoch < self.epochs_done
            }
        self.let_go()

    def let_go(self) -> None:
        """Leave in eval mode what predicts, and let go of the data and of what is needed while it runs alone."""
        for module in self._modules():
            module.eval()
        self.net.module_ = self.final_module
        self.adversary.memory = self.net.step_.recorder = self.net.step_.losses = None
        self.selection = self.memory = self.held_out = self.held_weight = self.rate = self._keep = None
        del self.batches, self.progress, self.randomness, self.rows
