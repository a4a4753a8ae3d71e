"""Plan makes the parts of a fit from the classifier's parameters, and a Training from them and the data."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from sklearn_acs.attacks import ATTACKS, Attack
from sklearn_acs.attacks.slips import check_radius, check_selection
from sklearn_acs.callbacks.around import check_callbacks
from sklearn_acs.data.augment import AUGMENTS, Augmentation
from sklearn_acs.data.batches import Augment, Batches, StreamedData, batch_count, check_loader_options
from sklearn_acs.data.formats import DataFormat
from sklearn_acs.data.holdout import hold_out
from sklearn_acs.data.training_data import TrainingData
from sklearn_acs.models import check_logits, last_linear
from sklearn_acs.network import make_network
from sklearn_acs.objectives import ADVERSARIAL, OBJECTIVES, Objective
from sklearn_acs.params import make_part, numpy_values, options_of
from sklearn_acs.recipe import asks_for_coresets, default_attack, remembering
from sklearn_acs.selectors import SELECTORS
from sklearn_acs.selectors.base import BaseSelector
from sklearn_acs.training.adversary import make_adversaries
from sklearn_acs.training.averaging import AVERAGES, EMA, WeightAverage
from sklearn_acs.training.cost import CostMeter, StepClock
from sklearn_acs.training.course import Course
from sklearn_acs.training.in_batch import InBatchSelection
from sklearn_acs.training.net import check_single_sample, find_device
from sklearn_acs.training.precision import compile_forward, settle_precision
from sklearn_acs.training.progress import Progress
from sklearn_acs.training.ramp import Ramp
from sklearn_acs.training.rate import LR_SCHEDULES, LrSchedule, Rate
from sklearn_acs.training.recorder import FactorRecorder, LossRecorder
from sklearn_acs.training.schedule import DEFAULT_EPOCHS, CoresetSchedule, TimedSchedule, schedule_of
from sklearn_acs.training.seeds import LocalRandomness, Seeds, spawn_seeds
from sklearn_acs.training.selection import Selection, coreset_size
from sklearn_acs.training.step import Step
from sklearn_acs.training.training import Training
from sklearn_acs.training.weights import load_weights, weights_of


@dataclass(frozen=True)
class Plan:
    """Says what a fit will do: made from the classifier's parameters, fitted to the data's format, then unchanged."""

    params: Mapping[str, Any]  # the classifier's, those kept for its parts among them
    objective: Objective
    attack: Attack
    selector: BaseSelector | None
    selection_attack: Attack | None
    falls_back: bool  # nobody asked for this attack: where it cannot remember samples, another takes its place
    in_batch: InBatchSelection | None
    averaging: EMA | None
    augment: Augment | None  # change of each training batch
    schedule: CoresetSchedule | TimedSchedule  # which epoch trains on what
    lr_schedule: LrSchedule | None  # None leaves the learning rate alone
    one_pass: bool  # go on with the optimiser's state and the history, too: `partial_fit`
    device: torch.device
    seeds: Seeds
    n_planned: int  # epochs of this training and of those that it goes on from

    @classmethod
    def of(
        cls,
        params: Mapping[str, Any],
        *,
        one_pass: bool = False,
        validates: bool = False,
        before: Training | None = None,
    ) -> "Plan":
        """Make the parts that the parameters name, and check that they go together.

        Parameters
        ----------
        params : mapping of str to object
            The parameters of a `RobustClassifier`.
        one_pass : bool, default=False
            Train for one epoch on all data at a constant rate, as `partial_fit` does.
        validates : bool, default=False
            Whether validation samples are given beside those to train on.
        before : Training or None, default=None
            What it goes on from.

        Returns
        -------
        Plan

        Raises
        ------
        ValueError, TypeError
            A parameter cannot be used.
        """
        params = {**params, **numpy_values(params)}

        def part(name: str, known: Mapping[str, Any], base: type, default: Any = None) -> Any:
            value, options = params[name] if default is None else default, options_of(params, name)
            if value is None and options:
                advice = f"one of {sorted(known)} or " if known else ""
                raise ValueError(f"{name}=None has no parameters {sorted(options)}; give {advice}an object")
            return None if value is None else make_part(name, value, known, options, base=base)

        objective = part("objective", OBJECTIVES, Objective)
        attack = part("attack", ATTACKS, Attack, default_attack(params, objective))
        chosen = "gradmatch" if params["selector"] == "auto" else params["selector"]
        selector = part("selector", SELECTORS, BaseSelector, chosen) if asks_for_coresets(params) else None
        in_batch = part("in_batch", {}, InBatchSelection)
        if in_batch is not None and params["selection_gradients"] == "last":
            raise ValueError(
                "selection_gradients='last' takes gradients from training steps, of which in_batch spares samples; "
                "use 'fresh', or in_batch=None"
            )
        for name in ("iterator_train", "iterator_valid"):
            check_loader_options(options_of(params, name), name)
        schedule = schedule_of(params, selector)
        lr_schedule, augment = params["lr_schedule"], params["augment"]
        if one_pass:
            schedule, lr_schedule = CoresetSchedule(max_epochs=1, coreset_frac=1.0), "constant"
        selector = selector if schedule.n_selections else None
        holds_out = params["early_stopping"] or asks_for_validation(selector)
        if validates and not holds_out:
            raise ValueError(
                "X_val and y_val are for early_stopping=True and for selectors that look at validation samples, as "
                f"'glister' does; got early_stopping=False and selector={params['selector']!r}"
            )
        check_callbacks(params, objective, holds_out=holds_out, one_pass=one_pass)
        n_epochs = DEFAULT_EPOCHS if schedule.n_epochs == inf else int(schedule.n_epochs)
        n_planned = 0 if before is None else before.n_planned + n_epochs
        return cls(
            params=params,
            objective=objective,
            attack=attack,
            selector=selector,
            selection_attack=part("selection_attack", ATTACKS, Attack),
            falls_back=params["attack"] is None and objective.attack is None,
            in_batch=in_batch,
            averaging=part("averaging", AVERAGES, EMA),
            augment=AUGMENTS[augment] if isinstance(augment, str) else augment,
            schedule=schedule,
            lr_schedule=LR_SCHEDULES[lr_schedule] if isinstance(lr_schedule, str) else lr_schedule,
            one_pass=one_pass,
            device=find_device(params["device"]),
            seeds=spawn_seeds(params["random_state"], n_planned),
            n_planned=n_planned,
        )

    def settled(self, data: TrainingData) -> "Plan":
        """Fit the attacks to the data; refuse what cannot work with it, before any work."""
        init, selecting, format = self.objective.attack_init, self.selection_attack, data.format
        attack = remembering(self.attack, data, self.augment, one_pass=self.one_pass, falls_back=self.falls_back)
        attack = attack.settled(format, init=init)
        self.objective.check_attack(attack)
        if ADVERSARIAL in self.objective.branches:
            check_radius(attack, format, training=True)
        if selecting is not None:
            selecting = selecting.settled(format, init=init, threat=attack.for_evaluation().threat)
            self.objective.check_attack(selecting)
            check_selection(attack, selecting)
        if isinstance(self.augment, Augmentation):
            self.augment.check(format.inputs.is_table, format.clip)
        return replace(self, attack=attack, selection_attack=selecting)

    def training(
        self,
        data: TrainingData,
        validation: TrainingData | None,
        before: Training | None,
        randomness: LocalRandomness,
        meter: CostMeter,
    ) -> Training:
        """Make the network, its optimiser and all else that a training owns.

        Parameters
        ----------
        data : TrainingData
            What to train on; `settled` has seen its format.
        validation : TrainingData or None
            What to validate on; None holds out some of `data` where that is needed.
        before : Training or None
            What it goes on from.
        randomness : LocalRandomness
            From which initial weights are drawn.
        meter : CostMeter
            Counts what it costs.

        Returns
        -------
        Training
        """
        params, seeds = self.params, self.seeds
        selection_state = np.random.RandomState(seeds.selection)
        split_seed = seeds.selection if before is None else before.split_seed
        asks = asks_for_validation(self.selector)
        apart = validation
        if validation is None and (asks or params["early_stopping"]):
            # A fit that goes on must not hold out what the fit before it has learned.
            split_state = selection_state if before is None else np.random.RandomState(split_seed)
            data, apart = data.split(*hold_out(data.y.numpy(), params["validation_fraction"], split_state))
        held_out = None if apart is None else self._batches(apart, None)
        batches = self._batches(data, data.weight)
        if self.selector is not None:
            self.selector.keep_rows(data.rows, data.n_given)

        n_select = coreset_size(len(data.y), self.schedule.coreset_frac, params["select_by"], params["batch_size"])
        with randomness.in_use():
            n_epochs = self.schedule.n_epochs
            net = make_network(params, self.objective, self.in_batch, data.format, self.device, n_epochs)
            precision, average, layer = self._prepare(net.module_, batches, n_select, data.format, before)
        n_steps = self.schedule.n_steps(len(batches), batch_count(n_select, params["batch_size"]))
        course = Course(n_steps, getattr(self.schedule, "max_seconds", inf), meter.begun)
        ramp = Ramp(params["attack_ramp"], course) if params["attack_ramp"] and before is None else None
        adversaries = make_adversaries(
            self.attack, self.selection_attack, self.objective, batches.data, data.format, seeds.attack, ramp
        )
        scaler = GradScaler(self.device.type, init_scale=2.0**10, enabled=precision == "fp16")
        streams = any(isinstance(each.data, StreamedData) for each in (batches, held_out) if each is not None)
        # What is read in this process may draw with any item.
        randomness.drawn = streams and not options_of(params, "iterator_train").get("num_workers")
        net.step_ = Step(net.module_, adversaries.in_training, scaler, StepClock(self.device), self.in_batch)

        selection, attacked = None, 0.0
        if self.selector is not None:
            recorder, losses = None, None
            if "losses" in self.selector.fit_inputs:
                losses = net.step_.losses = LossRecorder(len(data.y), self.device)
            if layer is not None and params["selection_gradients"] == "last":
                recorder = FactorRecorder(layer, len(data.y))
            selection = Selection(
                self.selector,
                params["select_by"],
                n_select,
                selection_state,
                adversary=adversaries.at_selections,
                validating=adversaries.on_held_out,
                held_out=held_out,
                layer=layer,
                recorder=recorder,
                losses=losses,
            )
            attacked = self.selector.needs_pass + (len(apart.y) / len(data.y) if apart is not None and asks else 0)
        training = Training(
            net,
            batches,
            self.schedule,
            seeds,
            randomness,
            rows=data.rows,
            n_given=data.n_given,
            precision=precision,
            split_seed=split_seed,
            n_planned=self.n_planned,
            meter=meter,
            progress=Progress(self.schedule, len(data.y), n_select, attacked, bool(params["verbose"])),
            selection=selection,
            course=course,
            rate=None if self.lr_schedule is None else Rate(net.optimizer_, self.lr_schedule, course),
            average=average,
            memory=adversaries.memory,
            held_out=held_out,
            held_weight=None if apart is None else apart.weight,
        )
        if before is not None:
            training.take_over(before, with_optimizer=self.one_pass)
        return training

    def _batches(self, data: TrainingData, weight: Tensor | None) -> Batches:
        """Make batches of the data, each kind of draw with a generator of its own."""
        return Batches(
            data.on(self.device),
            self.params["batch_size"],
            generator=torch.Generator().manual_seed(self.seeds.batches),
            sample_weight=weight,
            augment=self.augment,
            augment_generator=torch.Generator(device=self.device).manual_seed(self.seeds.augment),
            **options_of(self.params, "iterator_train"),
        )

    def _prepare(
        self, module: nn.Module, batches: Batches, n_select: int, format: DataFormat, before: Training | None
    ) -> tuple[str, WeightAverage | None, nn.Linear | None]:
        """Set the module's precision, check it on some samples, find its last layer, and take over earlier weights."""
        example, _ = next(iter(batches.data.fetch([torch.arange(min(len(batches.data), 8))])))
        precision = settle_precision(self.params, module, example, len(batches.data), before)
        check_logits(module, example, len(format.classes))
        if min(self.params["batch_size"], n_select) == 1:
            check_single_sample(module, example)
        matches = self.selector is not None and "gradients" in self.selector.fit_inputs
        layer = last_linear(module, example) if matches else None
        if self.params["compile"]:
            compile_forward(module)
        if before is not None:
            load_weights(module, weights_of(before.module))
        average = None if self.averaging is None else WeightAverage(module, self.averaging)
        if average is not None and self.params["compile"]:
            compile_forward(average.module)
        return precision, average, layer


def asks_for_validation(selector: BaseSelector | None) -> bool:
    """Tell whether a selector looks at samples held out."""
    return selector is not None and "validation" in selector.fit_inputs
