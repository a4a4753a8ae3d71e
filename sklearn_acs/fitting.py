"""What `fit` does: the course of a training, from the data to the coresets that it leaves."""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike

from sklearn_acs.assembly import AssemblyMixin, Parts
from sklearn_acs.callbacks.best_state import BestState
from sklearn_acs.data.batches import Batches, batch_count
from sklearn_acs.data.holdout import hold_out
from sklearn_acs.training.cost import CostMeter, StepClock
from sklearn_acs.training.net import AdversarialNet, Run, find_device
from sklearn_acs.training.precision import compile_forward
from sklearn_acs.training.progress import Progress
from sklearn_acs.training.rate import LR_SCHEDULES, LrFactor, LrSchedule
from sklearn_acs.training.schedule import CoresetSchedule
from sklearn_acs.training.seeds import local_randomness, spawn_seeds
from sklearn_acs.training.selection import CoresetSelection, coreset_size


@dataclass(frozen=True)
class Course:
    """How a training goes, and what it takes over from the one before."""

    schedule: CoresetSchedule
    lr_schedule: str | LrSchedule
    continues: bool  # from the weights there are
    one_pass: bool = False  # with the optimiser's state and the history, too, at a constant rate
    classes: ArrayLike | None = None  # None: those that y has


class FittingMixin(AssemblyMixin):
    """Training of a classifier from its parameters; `RobustClassifier` documents them."""

    def _train(self, X: Any, y: Any, sample_weight: ArrayLike | None, course: Course) -> Self:
        """Validate, read, assemble and train.

        A fit that fails, or is interrupted, before its first epoch is over leaves everything as it was.
        """
        before = vars(self).copy()
        n_before = len(self.history_) if course.one_pass and course.continues else 0
        try:
            self._train_anew(X, y, sample_weight, course)
        except BaseException as error:
            trained = vars(self).get("net_") is not before.get("net_") and len(self.net_.history) > n_before
            if not (trained or isinstance(error, FloatingPointError)):
                vars(self).clear()
                vars(self).update(before)
            raise
        return self

    def _train_anew(self, X: Any, y: Any, sample_weight: ArrayLike | None, course: Course) -> None:
        meter, schedule = CostMeter(), course.schedule
        self._validate_params()  # type: ignore[attr-defined]
        self._check_routed()
        device, parts = find_device(self.device), self._make_parts()
        self._epochs_done = self._epochs_done + schedule.n_epochs if course.continues else 0
        seeds = spawn_seeds(self.random_state, self._epochs_done)
        selection_state = np.random.RandomState(seeds.selection)
        with local_randomness(seeds.model, device):
            given = self._read(X, y, sample_weight, course.classes, reset=not course.continues)
            if not course.continues:
                self._split_seed = seeds.selection
            selector = parts.selector if schedule.n_selections else None
            asks = selector is not None and "validation" in selector.fit_inputs
            apart, best, held_out = None, None, None
            if asks or self.early_stopping:
                # A fit that goes on must not hold out what the fit before it has learned.
                split_state = np.random.RandomState(self._split_seed) if course.continues else selection_state
                given, apart = given.split(*hold_out(given.y.numpy(), self.validation_fraction, split_state))
                held_out = self._make_batches(apart, None, seeds, device)
                best = BestState(apart.weight, self.n_iter_no_change) if self.early_stopping else None
            batches = self._make_batches(given, given.weight, seeds, device)
            if selector is not None:
                selector.keep_rows(given.rows, given.n_given)
            self._settle_attacks(parts, course.one_pass)
            n_select = coreset_size(len(given.y), schedule.coreset_frac, self.select_by, self.batch_size)
            selection = CoresetSelection(
                schedule, parts.selector, self.select_by, n_select, self.selection_gradients, selection_state
            )
            lr_factor = self._plan_rate(course, batches, n_select)
            net = self._make_net(parts, selection, best, lr_factor, schedule.n_epochs, device)
            self._prepare(net, selection, batches, parts, course)

            attacked = selection.attacks + (len(apart.y) / len(given.y) if apart is not None and asks else 0)
            generator = torch.Generator(device=device).manual_seed(seeds.attack)
            training, selecting, validating = self._make_adversaries(parts, batches.data, generator)
            run = Run(
                batches=batches,
                rows=given.rows,
                n_given=given.n_given,
                adversary=training,
                selecting=selecting,
                meter=meter,
                clock=StepClock(device),
                progress=Progress(schedule, len(given.y), n_select, attacked, bool(self.verbose)),
                held_out=held_out,
                validating=validating,
                lr_factor=lr_factor,
            )
            self.net_, self.cost_, self.schedule_ = net, meter.cost, schedule
            self._evaluation_seed = seeds.evaluation
            try:
                net.train(run)
            finally:
                self._finish(selection, best, given.rows)

    def _plan_rate(self, course: Course, batches: Batches, n_select: int) -> LrFactor | None:
        """The learning rate's schedule over the steps that the course will take."""
        if course.one_pass:
            return None
        name, per_coreset = course.lr_schedule, batch_count(n_select, self.batch_size)
        n_steps = course.schedule.full_epochs * len(batches) + course.schedule.coreset_epochs * per_coreset
        return LrFactor(LR_SCHEDULES[name] if isinstance(name, str) else name, n_steps)

    def _prepare(
        self, net: AdversarialNet, selection: CoresetSelection, batches: Batches, parts: Parts, course: Course
    ) -> None:
        """Check the module on some samples, compile it, and take over what the training goes on from."""
        example, _ = next(iter(batches.data.fetch([torch.arange(min(len(batches.data), 8))])))
        selection.prepare(net.module_, example, len(self.classes_))
        if self.compile:
            compile_forward(net.module_)
        if course.continues:
            net.go_on_from(self.net_, with_optimizer=course.one_pass)
        if parts.averaging is not None:
            net.average(parts.averaging, self.net_ if course.continues else None)

    def _finish(self, selection: CoresetSelection, best: BestState | None, rows: np.ndarray) -> None:
        """What a training leaves, however it ended."""
        selection.layer_ = selection.recorder_ = None
        self.history_ = self.net_.history
        self.best_epoch_, self.best_validation_score_ = None, None
        if best is not None:
            best.restore(self.net_)
            self.best_epoch_, self.best_validation_score_ = best.best_epoch_, best.best_score_
        self.coresets_ = {
            epoch: replace(coreset, indices=rows[coreset.indices]) for epoch, coreset in selection.coresets_.items()
        }
        self.coreset_ = next(reversed(self.coresets_.values()), None)
