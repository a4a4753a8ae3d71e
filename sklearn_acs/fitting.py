"""What `fit` does: read the data, make the parts, assemble net and batches, and train."""

from dataclasses import replace
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.utils.validation import _check_sample_weight, _num_samples
from skorch.callbacks import LRScheduler
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Dataset

from sklearn_acs.attacks import ATTACKS, Attack
from sklearn_acs.inputs import (
    InputFormat,
    Samples,
    check_labels,
    check_range,
    dataset_labels,
    dataset_sample,
    encode_labels,
    find_clip,
    make_data,
    n_samples,
    read_samples,
    statistics,
    take_samples,
)
from sklearn_acs.models import build_model
from sklearn_acs.objectives import OBJECTIVES, Objective
from sklearn_acs.parts import RoutedParamsMixin, make_part
from sklearn_acs.prediction import settle_attack
from sklearn_acs.selectors import SELECTORS
from sklearn_acs.selectors.base import BaseSelector
from sklearn_acs.training.adversary import Adversary
from sklearn_acs.training.augment import AUGMENTS, Augmentation
from sklearn_acs.training.averaging import AVERAGES, EMA, WeightAverage
from sklearn_acs.training.batches import Batches, StreamedData, batch_count
from sklearn_acs.training.best_state import BestState
from sklearn_acs.training.coreset import CoresetSelection, coreset_size
from sklearn_acs.training.cost import CostMeter, StepClock
from sklearn_acs.training.guard import CollapseGuard
from sklearn_acs.training.in_batch import InBatchSelection
from sklearn_acs.training.memory import PerturbationMemory
from sklearn_acs.training.net import AdversarialNet, Run, find_device
from sklearn_acs.training.optimization import FUSED_DEVICES, LR_SCHEDULES, OPTIMIZERS, LrFactor, LrSchedule
from sklearn_acs.training.precision import compile_forward
from sklearn_acs.training.progress import Progress
from sklearn_acs.training.schedule import CoresetSchedule
from sklearn_acs.training.seeds import Seeds, local_randomness, spawn_seeds
from sklearn_acs.training.validation import hold_out


class FittingMixin(RoutedParamsMixin):
    """Training of a classifier from its parameters; `RobustClassifier` documents them."""

    # The estimator's parameters, and what a fit before this one left.
    module: Any
    objective: Any
    attack: Any
    selector: Any
    select_by: str
    selection_attack: Any
    selection_gradients: str
    in_batch: Any
    validation_fraction: float
    early_stopping: bool
    n_iter_no_change: int | None
    batch_size: int
    optimizer: Any
    lr: float | None
    averaging: Any
    augment: Any
    clip: Any
    device: Any
    precision: str
    compile: bool
    callbacks: Any
    random_state: Any
    verbose: int
    net_: AdversarialNet
    classes_: np.ndarray
    input_format_: InputFormat
    _epochs_done: int
    _split_seed: int
    _statistics: tuple[Tensor, Tensor]

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

        A fit that fails before its first epoch is over leaves everything as it was.
        """
        before = vars(self).copy()
        try:
            self._train_anew(X, y, sample_weight, schedule, lr_schedule, continues, classes, one_pass)
        except Exception as error:
            trained = self.__dict__.get("net_") is not before.get("net_") and len(self.history_)
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
        device = find_device(self.device)
        objective = make_part("objective", self.objective, OBJECTIVES, self._routed("objective"), base=Objective)
        selector = None
        if self.selector is not None:
            selector = make_part("selector", self.selector, SELECTORS, self._routed("selector"), base=BaseSelector)
        given = self.attack if self.attack is not None else objective.attack
        default = objective.default_attack() if given is None else given
        attack = make_part("attack", default, ATTACKS, self._routed("attack"), base=Attack)

        selection_attack = self.selection_attack
        if selection_attack is not None:
            options = self._routed("selection_attack")
            selection_attack = make_part("selection_attack", selection_attack, ATTACKS, options, base=Attack)
        elif options := self._routed("selection_attack"):
            raise ValueError(f"selection_attack=None has no parameters {sorted(options)}; give an attack")
        in_batch = None
        if self.in_batch is not None:
            in_batch = make_part("in_batch", self.in_batch, {}, base=InBatchSelection)
            if self.selection_gradients == "last":
                raise ValueError(
                    "selection_gradients='last' takes gradients from training steps, of which in_batch spares samples; "
                    "use 'fresh', or in_batch=None"
                )
        elif options := self._routed("in_batch"):
            raise ValueError(f"in_batch=None has no parameters {sorted(options)}; give an InBatchSelection")
        averaging = None
        if self.averaging is not None:
            averaging = make_part("averaging", self.averaging, AVERAGES, self._routed("averaging"), base=EMA)
        elif options := self._routed("averaging"):
            raise ValueError(f"averaging=None has no parameters {sorted(options)}; use averaging='ema'")

        self._epochs_done = self._epochs_done + schedule.n_epochs if continues else 0
        seeds = spawn_seeds(self.random_state, self._epochs_done)
        with local_randomness(seeds.model, device):
            samples, labels, weight, rows = self._read(X, y, sample_weight, classes, reset=not continues)
            n_given = _num_samples(X)
            if selector is not None and schedule.n_selections:
                selector.keep_rows(rows, n_given)
            selection_state, held_out, best = np.random.RandomState(seeds.selection), None, None
            asks = selector is not None and "validation" in selector.fit_inputs and schedule.n_selections
            if not continues:
                self._split_seed = seeds.selection
            if asks or self.early_stopping:
                # A fit that goes on must not hold out what the fit before it has learned.
                split = np.random.RandomState(self._split_seed) if continues else selection_state
                kept, held = hold_out(labels.numpy(), self.validation_fraction, split)
                apart = make_data(take_samples(samples, held), labels[held], self.input_format_, self.clip_, device)
                held_out = self._make_batches(apart, None, seeds, device)
                if self.early_stopping:
                    best = BestState(weight[held], self.n_iter_no_change)
                samples, labels, rows = take_samples(samples, kept), labels[kept], rows[kept]
                weight = weight[kept] / weight[kept].mean()
            data = make_data(samples, labels, self.input_format_, self.clip_, device)
            by_name = not isinstance(given, Attack) and "attack__eps" not in vars(self)
            self.attack_ = settle_attack(attack, by_name, self.input_format_, self._statistics[1], objective)
            if selection_attack is not None:
                by_name = isinstance(self.selection_attack, str) and "selection_attack__eps" not in vars(self)
                settle_attack(selection_attack, by_name, self.input_format_, self._statistics[1], objective)
            self._check_memory(one_pass)
            n_select = coreset_size(len(data), schedule.coreset_frac, self.select_by, self.batch_size)
            selection = CoresetSelection(
                schedule, selector, self.select_by, n_select, self.selection_gradients, selection_state
            )
            batches = self._make_batches(data, weight, seeds, device)
            per_coreset = batch_count(n_select, self.batch_size)
            n_steps = schedule.full_epochs * len(batches) + schedule.coreset_epochs * per_coreset
            follow = LR_SCHEDULES[lr_schedule] if isinstance(lr_schedule, str) else lr_schedule
            lr_factor = None if one_pass else LrFactor(follow, n_steps)
            net = self._make_net(objective, selection, best, in_batch, lr_factor, schedule.n_epochs, device)
            net.use_precision(self.precision)
            example, _ = next(iter(data.fetch([torch.arange(min(len(data), 8))])))
            selection.prepare(net.module_, example, len(self.classes_))
            if self.compile:
                compile_forward(net.module_)
            if continues:
                net.module_.load_state_dict(self.net_.raw_module_.state_dict())
                self.attack_.resume(self.net_.attack)
                if in_batch is not None and self.net_.in_batch is not None:
                    in_batch.share_ = self.net_.in_batch.share_
            if continues and one_pass:
                net.resume_optimizer(self.net_)
            if averaging is not None:
                net.average_ = WeightAverage(net.module_, averaging)
                if continues and self.net_.average_ is not None:
                    net.average_.resume(self.net_.average_)

            self.net_, self.history_, self.cost_, self.schedule_ = net, net.history, meter.cost, schedule
            self._evaluation_seed = seeds.evaluation
            selection_cost = selection.attacks + (len(held_out.data) / len(data) if held_out and asks else 0)
            progress = Progress(schedule, len(data), n_select, selection_cost, bool(self.verbose))
            generator = torch.Generator(device=device).manual_seed(seeds.attack)
            adversaries = self._make_adversaries(objective, selection_attack, data, generator)
            training, selecting, validating = adversaries
            clock = StepClock(device)
            run = Run(
                batches, rows, n_given, training, selecting, meter, clock, progress, held_out, validating, lr_factor
            )
            try:
                net.train(run)
            finally:
                selection.layer_ = selection.recorder_ = None
                self.best_epoch_, self.best_validation_score_ = None, None
                if best is not None:
                    best.restore(net)
                    self.best_epoch_, self.best_validation_score_ = best.best_epoch_, best.best_score_
                self.coresets_ = {
                    epoch: replace(coreset, indices=rows[coreset.indices])
                    for epoch, coreset in selection.coresets_.items()
                }
                self.coreset_ = next(reversed(self.coresets_.values()), None)

    def _check_memory(self, one_pass: bool) -> None:
        """Refuse a remembering attack where nothing can be remembered, before any work."""
        if not self.attack_.remembers:
            return
        if one_pass:
            raise ValueError(
                f"attack={self.attack_!r} remembers a sample's perturbation from one epoch to the next, and "
                "partial_fit sees each sample once; use another init, with more steps, or fit"
            )
        if not (self.augment is None or isinstance(self.augment, str | Augmentation)):
            raise ValueError(
                f"attack={self.attack_!r} moves remembered perturbations along with the augmentation, and that of "
                f"augment={self.augment!r} is not known; use one of {sorted(AUGMENTS)}"
            )

    def _make_adversaries(
        self, objective: Objective, selection_attack: Attack | None, data: Any, generator: torch.Generator
    ) -> tuple[Adversary, Adversary, Adversary]:
        """Who attacks in training, at selections, and the samples held out for them."""
        attack, memory = self.attack_, None
        if attack.remembers:
            shape, streamed = (len(data), *self.input_format_.model_shape), isinstance(data, StreamedData)
            max_age = attack.get_params().get("max_age")
            memory = PerturbationMemory(shape, generator.device, on_disk=streamed, max_age=max_age)
        training = Adversary(attack, objective, self.clip_, generator, memory)
        if selection_attack is None:
            validating = attack.for_evaluation() if attack.remembers else attack
            return training, replace(training, reads=True), replace(training, attack=validating, memory=None)
        forgetful = replace(training, attack=selection_attack, memory=None)
        selecting = replace(forgetful, memory=memory) if selection_attack.remembers else forgetful
        return training, selecting, forgetful

    def _read(
        self, X: Any, y: Any, sample_weight: ArrayLike | None, classes: ArrayLike | None, *, reset: bool
    ) -> tuple[Samples, Tensor, Tensor, np.ndarray]:
        """Samples as given, encoded labels, weights of mean 1, and the rows of X that are left: those of weight > 0.

        Sets what `fit` learns from the data alone.
        """
        samples = read_samples(self, X, reset=reset)
        if y is None and not isinstance(X, Dataset):
            raise ValueError(f"This {type(self).__name__} estimator requires y to be passed, but the target y is None.")
        labels = check_labels(dataset_labels(X) if y is None else y, n_samples(samples))
        weight = _check_sample_weight(sample_weight, labels, dtype=np.float32, ensure_non_negative=True)
        rows = np.flatnonzero(weight)
        if len(rows) < len(labels):
            samples, labels, weight = take_samples(samples, rows), labels[rows], weight[rows]
        if reset:
            self.classes_ = np.unique(labels if classes is None else np.asarray(classes))
            if len(self.classes_) < 2:
                raise ValueError(
                    f"y must have at least two classes among samples of positive weight; got {len(self.classes_)} "
                    f"class: {self.classes_.tolist()}"
                )
            example = dataset_sample(samples) if isinstance(samples, Dataset) else samples
            self.input_format_ = InputFormat.of(tuple(example.shape))
            self.clip_ = find_clip(self.clip, self.input_format_.is_table)
            check_range(example, self.clip_)
            self._statistics = statistics(self.input_format_.to_model(example))
        return samples, encode_labels(labels, self.classes_), torch.from_numpy(weight / weight.mean()), rows

    def _make_batches(self, data: Any, weight: Tensor | None, seeds: Seeds, device: torch.device) -> Batches:
        """Batches of the data, each kind of draw with a generator of its own."""
        return Batches(
            data,
            self.batch_size,
            generator=torch.Generator().manual_seed(seeds.batches),
            sample_weight=weight,
            augment=AUGMENTS[self.augment] if isinstance(self.augment, str) else self.augment,
            augment_generator=torch.Generator(device=device).manual_seed(seeds.augment),
            **self._routed("iterator_train"),
        )

    def _make_net(
        self,
        objective: Objective,
        selection: CoresetSelection,
        best: BestState | None,
        in_batch: InBatchSelection | None,
        lr_factor: LrFactor | None,
        n_epochs: int,
        device: torch.device,
    ) -> AdversarialNet:
        """The skorch net, its module built and its optimiser ready."""
        mean, scale = self._statistics
        module = partial(
            build_model,
            self.module,
            self.input_format_.model_shape,
            len(self.classes_),
            mean=mean,
            scale=scale,
            **self._routed("module"),
        )
        optimizer, lr, options = self.optimizer, self.lr, self._routed("optimizer")
        if isinstance(self.optimizer, str):
            optimizer, default_lr, defaults = OPTIMIZERS[self.optimizer]
            lr, options = default_lr if lr is None else lr, {**defaults, **options}
            if device.type in FUSED_DEVICES and not options.keys() & {"fused", "foreach", "differentiable"}:
                options["fused"] = True
        elif lr is None:
            raise ValueError(f"lr=None has no default for optimizer={self.optimizer!r}; give a number")
        options = {f"optimizer__{key}": value for key, value in options.items()}
        options |= {f"callbacks__{key}": value for key, value in self._routed("callbacks").items()}
        callbacks: list = [] if best is None else [("best_state", best)]  # first: it may end the training
        callbacks.append(("coreset_selection", selection))
        if lr_factor is not None:
            follow = LRScheduler(policy=LambdaLR, lr_lambda=lr_factor, step_every="batch", event_name=None)
            callbacks.append(("lr_schedule", follow))
        if in_batch is not None:
            callbacks.append(("in_batch", in_batch))
        callbacks += self.callbacks or []
        if objective.guard is not None:
            callbacks.append(("collapse_guard", CollapseGuard(objective.guard)))
        return AdversarialNet(
            module,
            objective,
            attack=self.attack_,
            clip=self.clip_,
            in_batch=in_batch,
            optimizer=optimizer,
            lr=lr,
            max_epochs=n_epochs,
            batch_size=self.batch_size,
            callbacks=callbacks,
            device=str(device),
            verbose=self.verbose,
            **options,
        ).initialize()
