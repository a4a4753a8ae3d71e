"""What a fit is made of: its data, its parts, the net and its batches, each made from the estimator's parameters."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from skorch.callbacks import LRScheduler
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Dataset

from sklearn_acs._compat import check_sample_weight
from sklearn_acs.attacks import ATTACKS, Attack
from sklearn_acs.callbacks.best_state import BestState
from sklearn_acs.callbacks.guard import CollapseGuard
from sklearn_acs.data.augment import AUGMENTS, Augmentation
from sklearn_acs.data.batches import ArrayData, Batches, StreamedData, check_loader_options
from sklearn_acs.data.formats import (
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
from sklearn_acs.params import RoutedParamsMixin, make_part
from sklearn_acs.prediction import settle_attack
from sklearn_acs.selectors import SELECTORS
from sklearn_acs.selectors.base import BaseSelector
from sklearn_acs.training.adversary import Adversary
from sklearn_acs.training.averaging import AVERAGES, EMA
from sklearn_acs.training.in_batch import InBatchSelection
from sklearn_acs.training.memory import PerturbationMemory
from sklearn_acs.training.net import AdversarialNet
from sklearn_acs.training.rate import FUSED_DEVICES, OPTIMIZERS, LrFactor
from sklearn_acs.training.seeds import Seeds
from sklearn_acs.training.selection import CoresetSelection


@dataclass
class Parts:
    """What a fit is made of: copies of the estimator's parts, checked."""

    objective: Objective
    attack: Attack
    selector: BaseSelector | None
    selection_attack: Attack | None
    in_batch: InBatchSelection | None
    averaging: EMA | None
    by_name: dict[str, bool]  # whether the two attacks were, so that their radius is to be fitted to the data


@dataclass
class Given:
    """What a fit is given: samples as they came, with their encoded labels and weights of mean 1."""

    samples: Samples
    y: Tensor
    weight: Tensor
    rows: np.ndarray  # where in X they stand
    n_given: int  # samples in X

    def split(self, kept: np.ndarray, held: np.ndarray) -> tuple["Given", "Given"]:
        """Samples to train on, with weights of mean 1 again, and samples held out."""
        parts = [
            Given(take_samples(self.samples, at), self.y[at], self.weight[at], self.rows[at], self.n_given)
            for at in (kept, held)
        ]
        parts[0].weight /= parts[0].weight.mean()
        return parts[0], parts[1]


class AssemblyMixin(RoutedParamsMixin):
    """The parts of a fit, made from the parameters; `RobustClassifier` documents them."""

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

    def _make_parts(self) -> Parts:
        """Copies of the parts, made from their names where they have one, with the parameters routed to them."""
        objective = make_part("objective", self.objective, OBJECTIVES, self._routed("objective"), base=Objective)
        given = self.attack if self.attack is not None else objective.attack
        default = objective.default_attack() if given is None else given
        attack = make_part("attack", default, ATTACKS, self._routed("attack"), base=Attack)
        by_name = {
            "attack": not isinstance(given, Attack) and "attack__eps" not in vars(self),
            "selection_attack": isinstance(self.selection_attack, str) and "selection_attack__eps" not in vars(self),
        }
        selector = None
        if self.selector is not None:
            selector = make_part("selector", self.selector, SELECTORS, self._routed("selector"), base=BaseSelector)
        if self.in_batch is not None and self.selection_gradients == "last":
            raise ValueError(
                "selection_gradients='last' takes gradients from training steps, of which in_batch spares samples; "
                "use 'fresh', or in_batch=None"
            )
        for part in ("iterator_train", "iterator_valid"):
            check_loader_options(self._routed(part), part)
        selection_attack = self._optional_part("selection_attack", ATTACKS, Attack, "give an attack")
        in_batch = self._optional_part("in_batch", {}, InBatchSelection, "give an InBatchSelection")
        averaging = self._optional_part("averaging", AVERAGES, EMA, "use averaging='ema'")
        return Parts(objective, attack, selector, selection_attack, in_batch, averaging, by_name)

    def _optional_part(self, parameter: str, known: Mapping[str, Callable[..., Any]], base: type, advice: str) -> Any:
        """A part that may be None, to which then no parameters lead."""
        value, options = getattr(self, parameter), self._routed(parameter)
        if value is None and options:
            raise ValueError(f"{parameter}=None has no parameters {sorted(options)}; {advice}")
        return None if value is None else make_part(parameter, value, known, options, base=base)

    def _settle_attacks(self, parts: Parts, one_pass: bool) -> None:
        """Fit the attacks to the data; refuse one that remembers where nothing can be remembered, before any work."""
        form, scale = self.input_format_, self._statistics[1]
        self.attack_ = settle_attack(parts.attack, parts.by_name["attack"], form, scale, parts.objective)
        if parts.selection_attack is not None:
            threat = self.attack_.for_evaluation().threat
            parts.selection_attack = settle_attack(
                parts.selection_attack, parts.by_name["selection_attack"], form, scale, parts.objective, threat
            )
        for attack in (self.attack_, parts.selection_attack):
            if attack is not None and attack.remembers and attack.threat is None:
                raise ValueError(
                    f"attack={attack!r} remembers perturbations, and only those in the ball of a norm can be"
                )
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
        self, parts: Parts, data: ArrayData | StreamedData, generator: torch.Generator
    ) -> tuple[Adversary, Adversary, Adversary]:
        """Who attacks in training, at selections, and the samples held out for them."""
        attack, at_selections = self.attack_, parts.selection_attack or self.attack_
        remembering, memory = next((one for one in (attack, at_selections) if one.remembers), None), None
        if remembering is not None and remembering.threat is not None:
            shape, streamed = (len(data), *self.input_format_.model_shape), isinstance(data, StreamedData)
            memory = PerturbationMemory(
                remembering.threat, shape, generator.device, max_age=remembering.max_age, on_disk=streamed
            )

        def adversary(attack: Attack, reads: bool = False) -> Adversary:
            remembered = memory if attack.remembers else None
            return Adversary(attack, parts.objective, self.clip_, generator, remembered, reads)

        reads = parts.selection_attack is None
        return adversary(attack), adversary(at_selections, reads), adversary(at_selections.without_memory())

    def _read(
        self, X: Any, y: Any, sample_weight: ArrayLike | None, classes: ArrayLike | None, *, reset: bool
    ) -> Given:
        """What is left of the data: samples of positive weight. Sets what `fit` learns from the data alone."""
        samples = read_samples(self, X, reset=reset)
        if y is None and not isinstance(X, Dataset):
            raise ValueError(f"This {type(self).__name__} estimator requires y to be passed, but the target y is None.")
        labels = check_labels(dataset_labels(X) if y is None else y, n_samples(samples))
        weight = check_sample_weight(sample_weight, labels, dtype=np.float32, ensure_non_negative=True)
        rows, n_given = np.flatnonzero(weight), len(labels)
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
        y_codes, weight = encode_labels(labels, self.classes_), torch.from_numpy(weight / weight.mean())
        return Given(samples, y_codes, weight, rows, n_given)

    def _make_batches(self, given: Given, weight: Tensor | None, seeds: Seeds, device: torch.device) -> Batches:
        """Batches of the data, each kind of draw with a generator of its own."""
        augment = AUGMENTS[self.augment] if isinstance(self.augment, str) else self.augment
        if isinstance(augment, Augmentation):
            if self.input_format_.is_table:
                raise ValueError(f"augment={self.augment!r} is for images, and X is a table")
            shows_black = augment.crop or augment.cutout
            if shows_black and self.clip_ is not None and not self.clip_[0] <= 0 <= self.clip_[1]:
                raise ValueError(
                    f"augment={self.augment!r} shows 0 beyond an image's border, which is outside clip={self.clip_}; "
                    "shift the images so that black is 0"
                )
        return Batches(
            make_data(given.samples, given.y, self.input_format_, self.clip_, device),
            self.batch_size,
            generator=torch.Generator().manual_seed(seeds.batches),
            sample_weight=weight,
            augment=augment,
            augment_generator=torch.Generator(device=device).manual_seed(seeds.augment),
            **self._routed("iterator_train"),
        )

    def _make_net(
        self,
        parts: Parts,
        selection: CoresetSelection,
        best: BestState | None,
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
        if parts.in_batch is not None:
            callbacks.append(("in_batch", parts.in_batch))
        callbacks += self.callbacks or []
        if parts.objective.guard is not None:
            callbacks.append(("collapse_guard", CollapseGuard(parts.objective.guard)))
        net = AdversarialNet(
            module,
            parts.objective,
            attack=self.attack_,
            clip=self.clip_,
            in_batch=parts.in_batch,
            optimizer=optimizer,
            lr=lr,
            max_epochs=n_epochs,
            batch_size=self.batch_size,
            callbacks=callbacks,
            device=str(device),
            verbose=self.verbose,
            **options,
        ).initialize()
        net.use_precision(self.precision)
        return net
