"""The skorch net: one training step is attack, loss per sample, weighted mean, optimiser step."""

from contextlib import nullcontext
from copy import copy, deepcopy
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import LBFGS, Optimizer
from torch.utils.data import Dataset

from sklearn_acs.attacks import Attack
from sklearn_acs.data.batches import Batch, Batches
from sklearn_acs.data.formats import Clip
from sklearn_acs.objectives import ADVERSARIAL, CLEAN
from sklearn_acs.training.adversary import Adversary
from sklearn_acs.training.averaging import EMA, WeightAverage
from sklearn_acs.training.cost import CostMeter, StepClock
from sklearn_acs.training.precision import find_precision, set_precision, uncompiled
from sklearn_acs.training.progress import Progress
from sklearn_acs.training.rate import LrFactor
from sklearn_acs.training.recorder import FactorRecorder


@dataclass
class Run:
    """What belongs to one fit and is gone after it: the data, who attacks them, meter and progress bar."""

    batches: Batches
    rows: np.ndarray  # where in X the samples of `batches` come from
    n_given: int  # samples in X
    adversary: Adversary  # of the training steps
    selecting: Adversary  # of the same samples at selections
    meter: CostMeter
    clock: StepClock
    progress: Progress
    held_out: Batches | None = None  # for selectors that ask for them, and for early stopping
    validating: Adversary | None = None  # of the samples held out
    lr_factor: LrFactor | None = None
    recorder: FactorRecorder | None = None  # in epochs whose gradients a selection wants


class AdversarialNet(NeuralNet):
    """skorch's net with an attack in each training step and its batches from `Batches`.

    The criterion is the objective. Losses stay on the device until the epoch ends, where skorch's own loop reads
    one per batch, which makes a GPU wait. An epoch that ends with a loss or a weight that is not finite raises
    FloatingPointError and leaves the weights of the epoch before.

    With an `average_`, `module_` is what is being trained until training ends, and the average of its weights after
    that; `raw_module_` and `final_module_` are the two at any time.

    Parameters
    ----------
    module : callable
        Builds the model.
    criterion : Objective
        What is minimised.
    attack : Attack
        The inner maximiser.
    clip : (float, float) or None
        The box that inputs live in.
    in_batch : InBatchSelection or None
        Which samples of a batch are trained on.
    **kwargs
        As in skorch's NeuralNet.
    """

    history_: Any  # skorch's History
    cuda_dependent_attributes_ = [*NeuralNet.cuda_dependent_attributes_, "average_"]

    def __init__(
        self, module: Any, criterion: Any, *, attack: Attack, clip: Clip, in_batch: Any = None, **kwargs: Any
    ) -> None:
        super().__init__(module, criterion, **{"train_split": None, "predict_nonlinearity": softmax, **kwargs})
        self.attack = attack
        self.clip = clip
        self.in_batch = in_batch
        self.run_: Any = None  # a Run during training
        self.average_: WeightAverage | None = None
        self.precision_ = "fp32"
        self.last_finite_: list[dict[str, Tensor]] = []  # weights from before the epoch that goes on
        self.scaling_: dict[str, Any] = {}  # the state of the scaler of losses, for "fp16"

    def get_default_callbacks(self) -> list:
        """None: history and progress are written here and by the coreset callback."""
        return []

    def initialize_criterion(self) -> "AdversarialNet":
        """Take the objective as it is: it has no weights to build."""
        self.criterion_ = self.criterion
        return self

    def _get_module(self, name: str, msg: str) -> Any:
        """The objective has no weights: of it skorch's Checkpoint saves and loads an empty module."""
        return nn.Module() if name == "criterion_" else super()._get_module(name, msg)

    def use_precision(self, precision: str) -> None:
        """Let the module compute in a precision, "auto" being what suits it and the device."""
        self.precision_ = find_precision(precision, self.module_, torch.device(self.device))
        if self.precision_ == "fp16" and isinstance(self.optimizer_, LBFGS):
            raise ValueError("precision='fp16' scales losses, which LBFGS cannot undo; use 'fp32' or 'bf16'")
        set_precision(self.module_, self.precision_)

    def go_on_from(self, before: "AdversarialNet", *, with_optimizer: bool) -> None:
        """Take over another net's weights and what its attack and batches have learned, perhaps its optimiser too."""
        self.module_.load_state_dict(before.raw_module_.state_dict())
        self.attack.load_state_dict(before.attack.state_dict())
        if self.in_batch is not None and before.in_batch is not None:
            self.in_batch.share_ = before.in_batch.share_
        if with_optimizer:
            self.resume_optimizer(before)

    def average(self, averaging: EMA, before: "AdversarialNet | None") -> None:
        """Average the weights from now on, or go on with the average of another net."""
        self.average_ = WeightAverage(self.module_, averaging)
        if before is not None and before.average_ is not None:
            self.average_.resume(before.average_)

    def resume_optimizer(self, before: "AdversarialNet") -> None:
        """Go on with another net's history and, of an optimiser of the same kind, with its momentum; at our rate."""
        self.history_, self.scaling_ = copy(before.history_), before.scaling_
        if kind_of(self.optimizer_) != kind_of(before.optimizer_):
            return
        state = deepcopy(before.optimizer_.state_dict())  # each net's own: one of them may be thrown away
        self.optimizer_.load_state_dict({**state, "param_groups": self.optimizer_.state_dict()["param_groups"]})
        for parameter, values in self.optimizer_.state.items():
            for name, value in values.items():
                # Fused optimisers take the parameter's memory format for granted.
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    values[name] = torch.empty_like(parameter).copy_(value)

    @property
    def raw_module_(self) -> nn.Module:
        """What is trained."""
        return self.module_ if self.average_ is None else self.average_.trained

    @property
    def final_module_(self) -> nn.Module:
        """What predicts when training is over: the averaged weights where there are any."""
        return self.module_ if self.average_ is None else self.average_.module

    def weights(self) -> list[dict[str, Tensor]]:
        """Copy the weights and buffers, and their average; for `restore`."""
        modules = dict.fromkeys([self.raw_module_, self.final_module_])
        return [deepcopy(module.state_dict()) for module in modules]

    def restore(self, weights: list[dict[str, Tensor]]) -> None:
        """Go back to earlier weights, and forget the optimiser's momentum, which leads where they went."""
        for module, state in zip(dict.fromkeys([self.raw_module_, self.final_module_]), weights, strict=True):
            module.load_state_dict(state)
        self.optimizer_.state.clear()

    def train(self, run: Run) -> None:
        """Train for `max_epochs` epochs on the run's batches; KeyboardInterrupt ends it early, as in skorch."""
        self.run_ = run
        # A scale that makes the first step overflow, as torch's own often does, would be a step lost.
        self.scaler_ = GradScaler(torch.device(self.device).type, init_scale=2.0**10, enabled=self.precision_ == "fp16")
        if self.scaling_:
            self.scaler_.load_state_dict(self.scaling_)
        try:
            with run.meter.watching(self.raw_module_, self.final_module_):
                self.partial_fit(run.batches.data)
        finally:
            self._drop_unfinished()
            run.progress.close()
            self.scaling_ = self.scaler_.state_dict()
            del self.scaler_
            self.run_ = None
            self.module_ = self.final_module_

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        """Show callbacks, which come after this, finished epochs alone, with weights that are numbers."""
        self._drop_unfinished()

    def _drop_unfinished(self) -> None:
        """Forget an epoch that was cut short, and its weights where it was about to diverge."""
        if len(self.history) and "train_loss" not in self.history[-1]:
            self.history.pop()
            if self.last_finite_ and not all_finite(self.module_):
                self.restore(self.last_finite_)
        self.last_finite_ = []

    def predict(self, X: Any) -> np.ndarray:
        """Most probable class of each sample, 0 to C-1, as skorch's classifiers predict."""
        return self.predict_proba(X).argmax(1)

    def get_iterator(self, dataset: Dataset, training: bool = False) -> Any:
        """Hand out the run's batches in training, skorch's iterator otherwise."""
        return self.run_.batches if training and self.run_ else super().get_iterator(dataset, training)

    def branch_inputs(self, batch: Batch, adversary: Adversary | None = None) -> dict[str, Tensor]:
        """Inputs of each forward pass that the objective needs: the batch, its adversarial examples, or both.

        The adversary is that of the training steps unless another is given.
        """
        adversary = adversary or self.run_.adversary
        inputs = {CLEAN: batch.x} if CLEAN in self.criterion_.branches else {}
        if ADVERSARIAL in self.criterion_.branches:
            inputs[ADVERSARIAL] = adversary.examples(self.module_, batch)
        return inputs

    def train_step_single(self, batch: Batch, **fit_params: Any) -> dict[str, Tensor]:
        """Attack the batch, then gradients of the weighted mean loss."""
        objective, module = self.criterion_, self.module_
        chosen_after = self.in_batch is not None and self.in_batch.when == "after"
        if self.in_batch is not None and not chosen_after:
            batch = self.in_batch.before_attack(self, batch)
        inputs = self.branch_inputs(batch)
        if chosen_after:
            batch, inputs = self.in_batch.after_attack(self, batch, inputs)
        self.run_.clock.mark("attack")
        self._set_training(True)
        recorder = self.run_.recorder
        with nullcontext() if recorder is None else recorder.watching():
            logits = {branch: module(x) for branch, x in inputs.items()}
        losses = objective.loss(logits, batch.y)
        if recorder is not None:
            recorder.keep(batch, logits, losses)
        generator = self.run_.adversary.generator
        with uncompiled(module):
            penalty = objective.penalty(
                module, batch.x, batch.y, attack=self.attack, clip=self.clip, generator=generator
            )
        loss = (batch.weight * (losses if penalty is None else losses + penalty)).mean()
        self.scaler_.scale(loss).backward()
        if self.scaler_.is_enabled():
            self.scaler_.unscale_(self.optimizer_)  # before callbacks look at gradients, or clip them
        y_pred = next(reversed(logits.values())).detach()
        if ADVERSARIAL in logits and not chosen_after:  # else it has been told of the whole batch
            self.attack.observe(y_pred, batch.y)
        return {"loss": loss.detach(), "y_pred": y_pred, "trained": batch, "inputs": inputs}

    def _step_optimizer(self, step_fn: Any) -> None:
        """Take the optimiser's step; in float16, where gradients have overflowed, only a smaller scale comes of it."""
        if not self.scaler_.is_enabled():
            super()._step_optimizer(step_fn)
            return
        step_fn()
        self.scaler_.step(self.optimizer_)
        self.scaler_.update()

    def run_single_epoch(self, iterator: Any, training: bool, prefix: str, step_fn: Any, **fit_params: Any) -> None:
        """One epoch; its losses are read from the device once, at the end."""
        if iterator is None:
            return
        self.last_finite_ = self.weights()
        follow = None if self.average_ is None else self.average_.follow()
        lr = self.optimizer_.param_groups[0]["lr"]
        losses, sizes, clock = [], [], self.run_.clock
        memory = self.run_.adversary.memory or self.run_.selecting.memory
        if memory is not None:
            memory.epoch += 1
        clock.mark("callbacks")
        for batch in iterator:
            pair = (batch.x, batch.y)  # what skorch's callbacks take for a batch
            clock.mark("data")
            self.notify("on_batch_begin", batch=pair, training=training)
            clock.mark("callbacks")
            step = step_fn(batch, **fit_params)
            if follow is not None:
                follow()
            clock.mark("update")
            losses.append(step["loss"])
            sizes.append(len(batch.y))
            self.history.record_batch(f"{prefix}_batch_size", sizes[-1])
            kept = step["trained"]
            self.notify("on_batch_end", batch=(kept.x, kept.y), training=training, **step)
            self.run_.progress.advance(sizes[-1])
            clock.mark("callbacks")

        for part, seconds in clock.read().items():
            self.run_.meter.cost.parts[part] += seconds
        values = torch.stack(losses).tolist()
        for i, value in enumerate(values):
            self.history[-1]["batches"][i][f"{prefix}_loss"] = value
        mean = sum(value * size for value, size in zip(values, sizes, strict=True)) / sum(sizes)
        self.history.record(f"{prefix}_loss", mean)
        self.history.record(f"{prefix}_batch_count", len(values))
        self.history.record("lr", lr)
        if not isfinite(mean) or not all_finite(self.module_):
            self.restore(self.last_finite_)
            raise FloatingPointError(
                f"training diverged in epoch {len(self.history)}: the loss is {mean} at lr={lr:g}. "
                f"The weights from before that epoch are kept; a smaller lr may help"
            )


def softmax(logits: Tensor) -> Tensor:
    """Probabilities of the classes."""
    return logits.softmax(-1)


def all_finite(module: nn.Module) -> bool:
    """Whether every weight and every running statistic of the module is finite."""
    return bool(torch.stack([value.isfinite().all() for value in module.state_dict().values()]).all())


def kind_of(optimizer: Optimizer) -> tuple:
    """What decides which state an optimiser keeps: its class and its switches, as Adam's `amsgrad`."""
    switches = {name: value for name, value in optimizer.defaults.items() if isinstance(value, bool)}
    return type(optimizer), switches


def find_device(device: str | torch.device) -> torch.device:
    """The device of that name, "auto" being CUDA where there is one; one that is not there is a ValueError."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device={device!r} is not a torch device; use 'auto', 'cpu', 'cuda' or 'cuda:N'") from error
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device={device!r} is not there: torch sees {torch.cuda.device_count()} CUDA devices; use 'auto' or 'cpu'"
        )
    return found
