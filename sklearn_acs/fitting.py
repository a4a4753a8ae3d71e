"""What `fit` does: the course of a training, from the data to the coresets that it leaves."""

from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike

from sklearn_acs.assembly import AssemblyMixin
from sklearn_acs.training.batches import batch_count
from sklearn_acs.training.best_state import BestState
from sklearn_acs.training.coreset import CoresetSelection, coreset_size
from sklearn_acs.training.cost import CostMeter, StepClock
from sklearn_acs.training.net import Run, find_device
from sklearn_acs.training.optimization import LR_SCHEDULES, LrFactor, LrSchedule
from sklearn_acs.training.precision import compile_forward
from sklearn_acs.training.progress import Progress
from sklearn_acs.training.schedule import CoresetSchedule
from sklearn_acs.training.seeds import local_randomness, spawn_seeds
from sklearn_acs.training.validation import hold_out


class FittingMixin(AssemblyMixin):
    """Training of a classifier from its parameters; `RobustClassifier` documents them."""

    def _train(
        self,
        X: Any,
        y: Any,
        sample_weight: ArrayLike | None,
        schedule: CoresetSchedule,
        lr_schedule: str | LrSchedule,
        *,
        continues: bool,
        classes: ArrayLike | None = None,
        one_pass: bool = False,
    ) -> Self:
        """Validate, read, assemble and train; `one_pass` goes on with the optimiser's state and the history.

        A fit that fails, or is interrupted, before its first epoch is over leaves everything as it was.
        """
        before = vars(self).copy()
        n_before = len(self.history_) if one_pass and "history_" in before else 0
        try:
            self._train_anew(X, y, sample_weight, schedule, lr_schedule, continues, classes, one_pass)
        except BaseException as error:
            trained = vars(self).get("net_") is not before.get("net_") and len(self.net_.history) > n_before
            if not (trained or isinstance(error, FloatingPointError)):
                vars(self).clear()
                vars(self).update(before)
            raise
        return self

    def _train_anew(
        self,
        X: Any,
        y: Any,
        sample_weight: ArrayLike | None,
        schedule: CoresetSchedule,
        lr_schedule: str | LrSchedule,
        continues: bool,
        classes: ArrayLike | None,
        one_pass: bool,
    ) -> None:
        meter = CostMeter()
        self._validate_params()  # type: ignore[attr-defined]
        self._check_routed()
        device, parts = find_device(self.device), self._make_parts()
        selector = parts.selector if schedule.n_selections else None
        self._epochs_done = self._epochs_done + schedule.n_epochs if continues else 0
        seeds = spawn_seeds(self.random_state, self._epochs_done)
        selection_state = np.random.RandomState(seeds.selection)
        with local_randomness(seeds.model, device):
            given = self._read(X, y, sample_weight, classes, reset=not continues)
            if not continues:
                self._split_seed = seeds.selection
            # A fit that goes on must not hold out what the fit before it has learned.
            split_state = np.random.RandomState(self._split_seed) if continues else selection_state
            held_out, best, asks = None, None, selector is not None and "validation" in selector.fit_inputs
            if asks or self.early_stopping:
                given, apart = given.split(*hold_out(given.y.numpy(), self.validation_fraction, split_state))
                held_out = self._make_batches(apart, None, seeds, device)
                best = BestState(apart.weight, self.n_iter_no_change) if self.early_stopping else None
            batches = self._make_batches(given, given.weight, seeds, device)
            if selector is not None:
                selector.keep_rows(given.rows, given.n_given)
            self._settle_attacks(parts, one_pass)

            n_select = coreset_size(len(given.y), schedule.coreset_frac, self.select_by, self.batch_size)
            selection = CoresetSelection(
                schedule, parts.selector, self.select_by, n_select, self.selection_gradients, selection_state
            )
            per_coreset = batch_count(n_select, self.batch_size)
            n_steps = schedule.full_epochs * len(batches) + schedule.coreset_epochs * per_coreset
            follow = LR_SCHEDULES[lr_schedule] if isinstance(lr_schedule, str) else lr_schedule
            lr_factor = None if one_pass else LrFactor(follow, n_steps)
            net = self._make_net(parts, selection, best, lr_factor, schedule.n_epochs, device)
            example, _ = next(iter(batches.data.fetch([torch.arange(min(len(given.y), 8))])))
            selection.prepare(net.module_, example, len(self.classes_))
            if self.compile:
                compile_forward(net.module_)
            if continues:
                net.go_on_from(self.net_, with_optimizer=one_pass)
            if parts.averaging is not None:
                net.average(parts.averaging, self.net_ if continues else None)

            self.net_, self.history_, self.cost_, self.schedule_ = net, net.history, meter.cost, schedule
            self._evaluation_seed = seeds.evaluation
            selection_cost = selection.attacks + (len(apart.y) / len(given.y) if asks else 0)
            progress = Progress(schedule, len(given.y), n_select, selection_cost, bool(self.verbose))
            generator = torch.Generator(device=device).manual_seed(seeds.attack)
            training, selecting, validating = self._make_adversaries(parts, batches.data, generator)
            clock = StepClock(device)
            run = Run(
                *(batches, given.rows, given.n_given, training, selecting, meter, clock, progress),
                *(held_out, validating, lr_factor),
            )
            try:
                net.train(run)
            finally:
                selection.layer_ = selection.recorder_ = None
                self.history_ = net.history  # another one, where a callback has loaded it
                self.best_epoch_, self.best_validation_score_ = None, None
                if best is not None:
                    best.restore(net)
                    self.best_epoch_, self.best_validation_score_ = best.best_epoch_, best.best_score_
                self.coresets_ = {
                    epoch: replace(coreset, indices=given.rows[coreset.indices])
                    for epoch, coreset in selection.coresets_.items()
                }
                self.coreset_ = next(reversed(self.coresets_.values()), None)
