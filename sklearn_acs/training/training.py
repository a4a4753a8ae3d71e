"""Training loops over the epochs of a training."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import isfinite
from threading import Event
from time import perf_counter

import torch
from torch import Tensor

from sklearn_acs.data.batches import Batch, batch_count
from sklearn_acs.training.interrupts import noting_interrupts
from sklearn_acs.training.schedule import CORESET, FULL
from sklearn_acs.training.seeds import current_device
from sklearn_acs.training.state import TrainingState
from sklearn_acs.training.weights import diverged, finite_buffers


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
            current_device(self.randomness.device),
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
        phase = schedule.phase(self.epochs_done, self.course.progress)
        if phase == FULL:
            self.batches.use_all()
        elif self.coreset_epochs % schedule.select_every == 0:
            self._select(loss)
        recorder = None if self.selection is None else self.selection.recorder
        self.net.step_.recorder = recorder if schedule.selects(self.epochs_done + 1) else None
        self.progress.enter(phase, self.epochs_done, loss)
        self.meter.enter(phase)

        valid = self.held_out if self.net.scores_held_out else None
        data = {"dataset_train": self.batches.data, "dataset_valid": valid and valid.data}
        self.net.notify("on_epoch_begin", **data)
        coreset = self.selection.last if self.selection is not None and phase == CORESET else None
        history.record("phase", phase)
        history.record("coreset_size", len(self.batches.indices))
        if (radius := self.adversary.radius) is not None:
            history.record("radius", radius)
        history.record("approximation_error", coreset and coreset.error)
        if self.stop_reason is None:
            self._train_on_batches()
        if self.stop_reason is None:
            if valid is not None:
                with self.checking():
                    self.net.validate(self.final_module, valid.aside(torch.arange(len(valid.data))))
            history.record("seconds", perf_counter() - begun)
            self.epochs_done += 1
            self.coreset_epochs += phase == CORESET
            ended = perf_counter()
            self.net.notify("on_epoch_end", **data)
            self.course.reserve = perf_counter() - ended
            if self.course.seconds_left <= 0:
                self.stop(f"the {self.course.max_seconds:g} seconds of max_seconds have gone by")

    def _select(self, loss: float | None) -> None:
        """Choose a coreset, unless the time that is left is shorter than what the last one took."""
        selection, begun = self.selection, perf_counter()
        assert selection is not None
        if self.course.seconds_left < selection.seconds:
            return
        self.progress.enter("selecting", self.epochs_done, loss)
        with self.randomness.where_drawn():
            selection.select(self.epochs_done, self.module, self.batches, self.meter, self.progress)
        selection.seconds = perf_counter() - begun
        # A coreset of batches may be a little larger or smaller than planned.
        n_batches = batch_count(len(self.batches.data), self.batches.batch_size)
        self.course.expect(self.schedule.n_steps(n_batches, len(self.batches), since=self.epochs_done))

    def _train_on_batches(self) -> None:
        """Go through the batches once; read their losses from the device at the end, so that no GPU waits."""
        self._before_epoch, self._finite_before = self.weights(), finite_buffers(self.module)
        lr = self.net.optimizer_.param_groups[0]["lr"]
        losses, sizes, clock = [], [], self.net.step_.clock
        if self.memory is not None:
            self.memory.epoch += 1
        clock.mark("callbacks")
        for batch in self.randomness.each(self.batches):
            clock.mark("data")
            losses.append(self.step(batch))
            sizes.append(len(batch.y))
            clock.mark("callbacks")
            if self.stop_reason is not None:
                return
            if self.course.seconds_left <= 0:  # the last epoch may be a short one
                break

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
        self._before_epoch = []

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
        self.selection = self.memory = self.held_out = self.held_weight = self.rate = None
        del self.batches, self.progress, self.randomness, self.rows
