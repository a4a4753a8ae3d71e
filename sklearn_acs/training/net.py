"""AdversarialNet is the engine of a training: skorch's net, with optimiser, history and callbacks."""

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from numbers import Number
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import PrintLog
from torch import Tensor, nn
from torch.optim import LBFGS

from sklearn_acs.data.batches import Batch
from sklearn_acs.models import frozen
from sklearn_acs.objectives import Objective
from sklearn_acs.params import check_names, check_options, options_of
from sklearn_acs.training.history import History
from sklearn_acs.training.optimizers import begin_late_momentum, find_optimizer
from sklearn_acs.training.step import Step


class AdversarialNet(NeuralNet):
    """Is skorch's net with an attack in its training step: what callbacks get, and ``net_`` of a fitted classifier.

    Its loop over epochs is `Training`'s, which hands each batch to `train_step`. The criterion is the objective.

    Parameters
    ----------
    module : callable
        Builds the model.
    criterion : Objective
        What is minimised.
    **kwargs
        As in skorch's NeuralNet.

    Attributes
    ----------
    module_ : nn.Module
        What is trained until training ends, and what predicts after it: with averaging, the average.
    training_ : Training
        The owner of everything that changes.
    step_ : Step
        What a batch goes through.
    """

    history_: History
    training_: Any
    step_: Step
    cuda_dependent_attributes_ = [*NeuralNet.cuda_dependent_attributes_, "training_", "step_"]

    def __init__(self, module: Any, criterion: Any, **kwargs: Any) -> None:
        super().__init__(module, criterion, **{"train_split": None, "predict_nonlinearity": softmax, **kwargs})

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take up what was pickled, and be the net of its training again."""
        super().__setstate__(state)
        if "training_" in vars(self):
            self.training_.net = self

    def get_default_callbacks(self) -> list:
        """Return none: the training writes the history and shows its progress."""
        return []

    def initialize_history(self) -> "AdversarialNet":
        """Begin with no epochs."""
        self.history_ = History()
        return self

    @property
    def history(self) -> History:
        """What is known of each epoch."""
        return self.history_

    @history.setter
    def history(self, rows: list[dict[str, Any]]) -> None:
        """Take rows, as skorch's `load_params` does from a file."""
        self.history_ = History(rows)

    def initialize_criterion(self) -> "AdversarialNet":
        """Take the objective as it is: it has no weights to build."""
        self.criterion_ = self.criterion
        return self

    def initialize_optimizer(self, *args: Any, **kwargs: Any) -> "AdversarialNet":
        """Make the optimiser; where its options are at fault, the error says so."""
        try:
            return super().initialize_optimizer(*args, **kwargs)
        except (TypeError, ValueError) as error:
            options = {key: value for key, value in vars(self).items() if key.startswith("optimizer__")}
            given = ", ".join(f"{name}={value!r}" for name, value in options.items())
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"optimizer={self.optimizer.__name__} cannot be made with {given}: {error}") from error

    def _get_module(self, name: str, msg: str) -> Any:
        """Let skorch's Checkpoint save and load an empty module for the objective, which has no weights."""
        return nn.Module() if name == "criterion_" else super()._get_module(name, msg)

    @property
    def raw_module_(self) -> nn.Module:
        """What is trained, and what training would go on from."""
        return self.training_.module

    @property
    def precision_(self) -> str:
        """What `precision` came to."""
        return self.training_.precision

    def predict(self, X: Any) -> np.ndarray:
        """Predict the most probable class of each sample, 0 to C-1, as skorch's classifiers do."""
        return self.predict_proba(X).argmax(1)

    def on_epoch_end(self, net: Any, **about: Any) -> None:
        """Let loggers, which take numbers alone, pass by what else is in the history: skorch calls this first."""
        no_numbers = {name for name, value in self.history[-1].items() if not isinstance(value, Number)}
        for _, callback in self.callbacks_:
            if hasattr(callback, "keys_ignored_") and not isinstance(callback, PrintLog):
                given = callback.keys_ignored or []
                callback.keys_ignored_ = {*([given] if isinstance(given, str) else given), *no_numbers}

    @property
    def scores_held_out(self) -> bool:
        """Whether a callback scores samples held out, as skorch's EpochScoring does."""
        return any(getattr(callback, "on_train", True) is False for _, callback in self.callbacks_)

    def validate(self, module: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Show callbacks the predictions of samples held out, as skorch does after each epoch of training."""
        for x, y in batches:
            self.notify("on_batch_begin", batch=(x, y), training=False)
            self.history.record_batch("valid_batch_size", len(y))
            with frozen(module), torch.no_grad():
                logits = module(x)
            self.notify("on_batch_end", batch=(x, y), training=False, y_pred=logits)

    def train_step_single(self, batch: Batch, **fit_params: Any) -> dict[str, Any]:
        """Attack the batch, and compute the gradients of its weighted mean loss."""
        done = self.step_.backward(batch, self.optimizer_)
        begin_late_momentum(self.optimizer_)
        return done

    def _step_optimizer(self, step_fn: Any) -> None:
        """Take the optimiser's step; in float16, where gradients have overflowed, only a smaller scale comes of it."""
        scaler = self.step_.scaler
        if not scaler.is_enabled():
            super()._step_optimizer(step_fn)
            return
        step_fn()
        scaler.step(self.optimizer_)
        scaler.update()


def make_net(
    module: Callable[[], nn.Module],
    objective: Objective,
    callbacks: list[Any],
    params: Mapping[str, Any],
    device: torch.device,
    n_epochs: float,
) -> AdversarialNet:
    """Make a net ready to be trained.

    Parameters
    ----------
    module : callable
        Builds the module.
    objective : Objective
        What is minimised.
    callbacks : list
        As skorch takes them.
    params : mapping of str to object
        The classifier's, of which those of the optimiser and of skorch are looked at.
    device : torch.device
        Where training is done.
    n_epochs : float
        Epochs of the training.
    """
    optimizer, lr, options = find_optimizer(params["optimizer"], params["lr"], options_of(params, "optimizer"), device)
    check_options("optimizer", optimizer, options.keys() - {"param_groups"}, "params")
    routed = {f"optimizer__{key}": value for key, value in options.items()}
    routed |= {f"callbacks__{key}": value for key, value in options_of(params, "callbacks").items()}
    net = AdversarialNet(
        module,
        objective,
        optimizer=optimizer,
        lr=lr,
        max_epochs=n_epochs,
        batch_size=params["batch_size"],
        callbacks=callbacks,
        device=str(device),
        verbose=params["verbose"],
        **routed,
    ).initialize()
    check_names("callbacks", "callbacks", options_of(params, "callbacks"), dict(net.callbacks_))
    if params["precision"] == "fp16" and isinstance(net.optimizer_, LBFGS):
        raise ValueError("precision='fp16' scales losses, which LBFGS cannot undo; use 'fp32' or 'bf16'")
    return net


def softmax(logits: Tensor) -> Tensor:
    """Turn logits into probabilities of the classes."""
    return logits.softmax(-1)


def check_single_sample(module: nn.Module, example: Tensor) -> None:
    """Raise ValueError if a module cannot be trained on one sample alone, as BatchNorm of single features cannot."""
    try:
        with torch.no_grad(), torch.random.fork_rng([example.device] if example.is_cuda else []):
            deepcopy(module).train()(example[:1])
    except ValueError as error:
        raise ValueError(
            "the module cannot be trained on a batch of one sample, which is what X, batch_size and coreset_frac come "
            f"to here; use a batch_size of 2 or more and more samples, or a module without BatchNorm: {error}"
        ) from error


def find_device(device: str | torch.device) -> torch.device:
    """Find the device of that name, "auto" being CUDA where there is one; one that is not there is a ValueError."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device={device!r} is not a torch device; use 'auto', 'cpu', 'cuda' or 'cuda:N'") from error
    if found.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"device={device!r} is not there: torch sees no Apple GPU; use 'auto' or 'cpu'")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device={device!r} is not there: torch sees {torch.cuda.device_count()} CUDA devices; use 'auto' or 'cpu'"
        )
    return found
