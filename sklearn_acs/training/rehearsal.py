"""Rehearsal measures what the parts of a training take, each once or a few times."""

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import replace
from functools import partial
from math import inf
from typing import Any

import numpy as np
import torch
from skorch.callbacks import Callback, ParamMapper
from torch import Tensor, nn
from torch.optim import LBFGS

from sklearn_acs.data.batches import Batches, StreamedData
from sklearn_acs.models import frozen
from sklearn_acs.models.logits import predicted
from sklearn_acs.training.cost import PhaseCost
from sklearn_acs.training.passes import skip
from sklearn_acs.training.peak import PeakBytes, bytes_of, shares_memory, tensors_in
from sklearn_acs.training.precision import uncompiled
from sklearn_acs.training.schedule import CORESET, CoresetSchedule
from sklearn_acs.training.selection import Selection, group_count
from sklearn_acs.training.solver_cost import solver_cost
from sklearn_acs.training.training import Training
from sklearn_acs.training.typical import typical

SECONDS = 0.4
"""That one kind of work is measured for, roughly; once at the least."""

IN_A_ROW = 16
"""Batches that are timed in a row, at most."""

EVERY = 10**9
"""Epochs from one selection to the next in a rehearsal: more than it has."""


class Rehearsal:
    """Measures a training's steps, checks, selection passes and solver.

    Callbacks of skorch and of one's own are not called, since they may write files, except those that freeze weights.

    Parameters
    ----------
    training : Training
        One that has not run; it is used up.
    samples : Tensor or Items
        What has been read of `X`.
    X : object
        What is there anyway, and not counted as memory.

    Attributes
    ----------
    n, n_select : int
        Samples in an epoch on all data, and in one on a coreset.
    setup, starting : float
        Seconds before the first epoch, and those that compiling, or starting workers, adds to the first epoch.
    checks, solving : PhaseCost
        Of what looks at the model after an epoch, and of a selection's solver.
    memory : dict of int
        Bytes by what they are for.
    """

    def __init__(self, training: Training, samples: Any = None, X: Any = None) -> None:
        self.training, self.meter, self.chosen_by = training, training.meter, training.selection
        net, batches, self.device = training.net, training.batches, training.randomness.device
        self.n, self.y = len(batches.data), batches.data.y.clone()
        self.n_select = self.n if self.chosen_by is None else self.chosen_by.n_select
        self._pretend()
        checkers = self._callbacks()
        net.notify("on_train_begin", X=batches.data, y=None)
        for checker in checkers:
            checker.on_train_begin(net, X=batches.data, y=None)
        self.meter.enter("setup")
        self.setup = self.meter.cost["setup"].seconds

        shared = bytes_of(samples, self.device) if shares_memory(samples, X) else 0
        self.memory = {"data": bytes_of([self._data(), samples], self.device) - shared}
        self.checks = self._checks(checkers)
        self._steps()
        self.memory |= {"gradients": 0, "pass": 0, "solver": 0, "recorded": 0}
        self.solving, self._looking, self._reading, self._validating = (PhaseCost() for _ in range(4))
        self._batches: dict[tuple[int, bool], tuple[PhaseCost, PhaseCost]] = {}
        if self.chosen_by is not None:
            self._selection(self.chosen_by)
        self._holdings(checkers)

    def epoch_of(self, n_samples: int, *, recorded: bool = False) -> tuple[PhaseCost, PhaseCost, int]:
        """Tell the cost of an epoch on so many samples, of its checks step by step, and how many batches it has.

        Gradients are `recorded` in epochs before a selection, where that takes them from training.
        """
        recorded = recorded and self.chosen_by is not None and self.chosen_by.recorder is not None
        epoch, checks = PhaseCost(seconds=self._an_epoch), PhaseCost()
        sizes = [len(rows) for rows in self.training.batches.split(torch.arange(n_samples))]
        for size in set(sizes):
            of_batch, beside = self._batch(size, recorded)
            epoch, checks = epoch + of_batch * sizes.count(size), checks + beside * sizes.count(size)
        return epoch, checks, len(sizes)

    def keeps_for(self, epochs: float) -> bool:
        """Tell whether perturbations are remembered for so many epochs."""
        memory = self.training.memory
        return memory is not None and epochs < inf and (memory.max_age is None or epochs <= memory.max_age)

    def selection(self, *, reads: bool, recorded: bool) -> PhaseCost:
        """Tell the cost of a selection's passes: from remembered perturbations, recorded gradients, or afresh."""
        if self.chosen_by is not None and self.chosen_by.recorder is not None and recorded:
            return self._validating
        return self._validating + (self._reading if reads else self._looking)

    def close(self) -> None:
        """Let go of the data, of its workers and files, as a training does that has run."""
        for batches in self._each_batches():
            del vars(batches)["aside"]
        self.training._finish()

    # Nothing is learned, no clock ends it, the radius is full

    def _pretend(self) -> None:
        training = self.training
        training.course.n_steps, training.course.max_seconds = 1e-9, inf
        training.rate = training.selection = None
        training.schedule = CoresetSchedule(3 * EVERY, 0.5, EVERY, warmup_frac=0)
        if not isinstance(training.net.optimizer_, LBFGS):  # which would stop at once
            for group in training.net.optimizer_.param_groups:
                group["lr"] = 0.0
        self._times = 1.0
        pairs = (training.batches, training.module), (training.held_out, training.final_module)
        for batches, module in pairs:
            if batches is not None:
                batches.data.y = batches.data.y.clone()
                if isinstance(batches.data, StreamedData):
                    batches.data.own = None
                vars(batches)["aside"] = self._few(batches.aside, module)
        if training.held_weight is not None:
            training.held_weight = training.held_weight[: self._most]

    @property
    def _most(self) -> int:
        """Samples that checks look at."""
        return max(128, self.training.batches.batch_size)

    def _few(self, aside: Callable[[Tensor], Any], module: nn.Module) -> Callable[[Tensor], Any]:
        """Give few of the samples asked for, with the labels that the module predicts, and note how few they are."""

        def few(rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
            some = rows[: self._most]
            self._times = len(rows) / len(some)
            for x, _ in aside(some):
                with self.meter.aside("setup"):
                    labels = self._predict(module, x)
                yield x, labels

        return few

    def _predict(self, module: nn.Module, x: Tensor) -> Tensor:
        with frozen(module), torch.no_grad():
            return predicted(module(x))

    def _callbacks(self) -> list[Any]:
        """Leave the net those callbacks that act in steps, and return those that look at the model after an epoch."""
        net, training = self.training.net, self.training
        self._scores = net.scores_held_out
        own = [each for each in net.callbacks_ if type(each[1]).__module__.startswith("sklearn_acs.")]
        steps = [each for each in own if each[1] is training.in_batch or _acts_in_steps(each[1])]
        freezing = [each for each in net.callbacks_ if isinstance(each[1], ParamMapper)]
        net.callbacks_ = [*steps, *freezing]
        return [each for _, each in own if all(each is not other for _, other in steps)]

    # Checks

    def _checks(self, checkers: list[Any]) -> PhaseCost:
        net, total = self.training.net, PhaseCost()
        net.history.new_epoch()
        net.history.record("seconds", 0.0)
        net.history.new_batch()

        def check(checker: Any) -> PhaseCost:
            before, self._times = self._spent("checks"), 1.0
            checker.on_epoch_begin(net)
            checker.on_epoch_end(net)
            self.training.stop_reason = None
            return (self._spent("checks") - before) * self._times

        def score() -> PhaseCost:
            before, held_out = self._spent("checks"), self.training.held_out
            assert held_out is not None
            with self.training.checking():
                net.validate(self.training.final_module, held_out.aside(torch.arange(len(held_out.data))))
            return (self._spent("checks") - before) * self._times

        for checker in checkers:
            total += typical(partial(check, checker), SECONDS)
        total += typical(score, SECONDS) if self._scores else PhaseCost()
        net.history.clear()
        return total

    def _spent(self, phase: str) -> PhaseCost:
        """Copy what a phase has taken so far."""
        self.meter.enter("setup")
        return copy(self.meter.cost[phase])

    # Steps

    def _steps(self) -> None:
        data, self._first = self.training.batches.data, len(self.training.batches.split(torch.arange(self.n))[0])
        rows = torch.arange(self._first)
        x, _ = next(iter(data.fetch([rows])))
        data.y[rows.to(data.y.device)] = self._predict(self.training.module, x).to(data.y.device)
        cold = self._epoch(self._first)[0]
        alone = typical(lambda: self._epoch(self._first)[0], SECONDS)
        self.in_a_row = max(2, min(IN_A_ROW, int(SECONDS / alone.seconds / 2)))
        row = typical(lambda: self._epoch(self.in_a_row * self._first)[0], SECONDS)
        in_row = max(row.seconds - alone.seconds, 0.0) / (self.in_a_row - 1)
        self._a_batch = min(in_row, alone.seconds) or alone.seconds
        self._an_epoch = alone.seconds - self._a_batch
        begins_slowly = isinstance(data, StreamedData) or _is_compiled(self.training.module)
        self.starting = max(cold.seconds - alone.seconds, 0.0) if begins_slowly else 0.0
        with PeakBytes() as peak, uncompiled(self.training.module):
            self._epoch(self._first)
        self.memory["step"] = peak.peak

    def _epoch(self, n_samples: int, recorded: bool = False) -> tuple[PhaseCost, PhaseCost]:
        """Train for an epoch on the first samples, over and over where they are too few, and tell what it took."""
        training, before = self.training, (self._spent(CORESET), self._spent("checks"))
        learned = [(each, each.state_dict()) for each in (training.adversary.attack, training.in_batch) if each]
        training.batches.indices = torch.arange(n_samples) % self.n
        # Of a coreset that is not chosen anew now, but before the next epoch if this one is to be recorded.
        training.epochs_done, training.coreset_epochs = EVERY - 1 if recorded else 1, 1
        training.selection = self.chosen_by if recorded else None
        training.epoch()
        training.selection = None
        for each, state in learned:
            each.load_state_dict(state)
        return self._spent(CORESET) - before[0], self._spent("checks") - before[1]

    def _batch(self, size: int, recorded: bool) -> tuple[PhaseCost, PhaseCost]:
        """Tell what a batch takes, and the checks in its step."""
        if (size, recorded) not in self._batches:
            epoch, checks = self._epoch(size, recorded)
            part = self._a_batch * size / self._first
            seconds = part if size == self._first else min(max(epoch.seconds - self._an_epoch, part), self._a_batch)
            self._batches[size, recorded] = replace(epoch, seconds=seconds), checks
        return self._batches[size, recorded]

    # Selections

    def _selection(self, selection: Selection) -> None:
        training, held_out = self.training, selection.held_out
        some, fresh, n_held_out = self._part(training.batches), replace(selection, recorder=None), 0
        if "validation" in selection.selector.fit_inputs:
            assert held_out is not None
            fresh.held_out, n_held_out = self._part(held_out), len(held_out.data)
            of_some = self._passing(lambda: fresh.validation_gradients(training.module))
            self._validating = of_some * (n_held_out / len(fresh.held_out.data))
        else:
            of_some = PhaseCost()
        gradients: Any = None
        given: dict[str, Any] = {}
        if selection.selector.needs_pass:
            attacking = replace(fresh, adversary=replace(selection.adversary, reads=False))
            of_sample = self.n / len(some.data)
            self._looking = (self._passing(lambda: self._look(attacking, some)) - of_some) * of_sample
            self._reading = self._looking
            if selection.adversary.reads and training.memory is not None:
                self._reading = (self._passing(lambda: self._look(fresh, some)) - of_some) * of_sample
            with PeakBytes() as peak:
                gradients, given = self._look(attacking, some)
            self.memory["pass"] = peak.peak
        y, batch_size = self.y, training.batches.batch_size
        solver = solver_cost(fresh, gradients, given, y, n_held_out, batch_size, SECONDS)
        self.solving = PhaseCost(seconds=solver.seconds)
        self.memory |= {"solver": solver.peak, "gradients": solver.kept}
        if selection.recorder is not None:
            self.memory["recorded"] = solver.kept

    def _look(self, selection: Selection, some: Batches) -> tuple[Any, dict[str, Any]]:
        """Make the passes of a selection over some samples; gradients that are added up are so by as many groups."""
        gradients, given = selection.look(0, self.training.module, some, self.meter, skip)
        if not callable(gradients):
            return gradients, given
        n_groups = group_count(self.n, some.batch_size)
        sums = gradients(np.arange(len(some.data)) % n_groups)
        return sums[torch.arange(n_groups, device=sums.device) % len(sums)], given

    def _passing(self, passes: Callable[[], Any]) -> PhaseCost:
        """Tell what passes take, which draw nothing that training would."""

        def measure() -> PhaseCost:
            before = self._spent("selection")
            self.meter.enter("selection")
            with self.training.randomness.where_drawn(going_on=False):
                passes()
            return self._spent("selection") - before

        return typical(measure, SECONDS)

    def _part(self, batches: Batches) -> Batches:
        """Take the first samples, which training has seen."""
        part, n_rows = copy(batches), min(len(batches.data), min(self.in_a_row, 4) * self._first)
        part.data = copy(batches.data)
        part.data.y = batches.data.y[:n_rows]
        return part

    # Memory

    def _data(self) -> list[Tensor]:
        """List the tensors that samples, their order and their weights are in."""
        found = tensors_in([[vars(each.data), each.indices, each.weight] for each in self._each_batches()])
        return [*found, self.y]

    def _each_batches(self) -> list[Batches]:
        return [each for each in (self.training.batches, self.training.held_out) if each is not None]

    def _holdings(self, checkers: list[Any]) -> None:
        training, device = self.training, self.device
        memory = None if training.memory is None else training.memory.state_dict()
        gradients = [parameter.grad for parameter in training.module.parameters() if parameter.grad is not None]
        state = {key: value for key, value in training.state_dict().items() if key not in ("memory", "batches")}
        held = [state, training._before_epoch, gradients, [vars(checker) for checker in checkers]]
        stored = memory is not None and isinstance(training.batches.data, StreamedData)
        self.memory["perturbations"] = bytes_of(memory, torch.device("cpu") if stored else device)
        self.memory["weights"] = bytes_of(held, device)


def _acts_in_steps(callback: Any) -> bool:
    return type(callback).on_batch_end is not Callback.on_batch_end


def _is_compiled(module: nn.Module) -> bool:
    return getattr(vars(module).get("forward"), "compiled", None) is not None
