"""What is under evaluation: a module, and samples as it takes them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.utils.data import Dataset

from sklearn_acs.attacks import Attack
from sklearn_acs.attacks.base import frozen
from sklearn_acs.attacks.judging import predicted
from sklearn_acs.data.batches import ArrayData, StreamedData
from sklearn_acs.data.formats import (
    Clip,
    InputFormat,
    Samples,
    check_labels,
    dataset_labels,
    dataset_sample,
    encode_labels,
    image_tensor,
    make_data,
    n_samples,
    read_samples,
)
from sklearn_acs.prediction import PredictionMixin, settle_attack

CUT = "The logits cannot be differentiated by the input: attacks by gradients find nothing."


@dataclass(frozen=True)
class Subject:
    """A model and the samples that it is judged on.

    Attributes
    ----------
    module : nn.Module
        From inputs to logits.
    data : ArrayData or StreamedData
        Samples as the module takes them, with labels 0 to C-1.
    samples : Tensor or Dataset
        The samples as given.
    form : InputFormat
        Their shape and layout.
    clip : (float, float) or None
        The box that they live in.
    device : torch.device
        Where the module is.
    scale : Tensor or None
        Scale of each feature, where a classifier knows it.
    """

    module: nn.Module
    data: ArrayData | StreamedData
    samples: Samples
    form: InputFormat
    clip: Clip
    device: torch.device
    scale: Tensor | None = None

    @classmethod
    def of(cls, model: Any, X: Any, y: Any, clip: Clip) -> "Subject":
        """A fitted classifier, which knows its clip range and labels, or a module for which they are given."""
        labels = dataset_labels(X) if y is None and isinstance(X, Dataset) else y
        if isinstance(model, PredictionMixin):
            check_is_fitted(model)
            device, clip, form = torch.device(model.net_.device), model.clip_, model.input_format_
            samples = read_samples(model, X, reset=False)
            codes = encode_labels(check_labels(labels, n_samples(samples)), model.classes_)
            data = make_data(samples, codes, form, clip, device)
            return cls(model.net_.module_, data, samples, form, clip, device, model._statistics[1])
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a fitted RobustClassifier or an nn.Module; got {type(model).__name__}")
        tensors = [*model.parameters(), *model.buffers()]
        device = tensors[0].device if tensors else torch.device("cpu")
        samples = X if isinstance(X, Dataset) else image_tensor(X)
        example = dataset_sample(samples) if isinstance(samples, Dataset) else samples
        form = InputFormat.of(tuple(example.shape))
        if form.is_table and isinstance(samples, Tensor):
            samples = samples.float()  # uint8 means pixels in images alone
        codes = torch.from_numpy(check_labels(labels, n_samples(samples)).astype(np.int64))
        return cls(model, make_data(samples, codes, form, clip, device), samples, form, clip, device)

    def __len__(self) -> int:
        return len(self.data)

    def fetch(self, batches: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Samples and labels of each batch of row numbers."""
        return self.data.fetch(list(batches))

    def settle(self, attack: Attack, by_name: bool) -> Attack:
        """Fit an attack to the samples, as `robust_score` does."""
        if self.scale is not None:
            return settle_attack(attack, by_name, self.form, self.scale)
        width = 1.0 if self.clip is None else self.clip[1] - self.clip[0]
        return settle_attack(attack, False, self.form, torch.full(self.form.given_shape[-1:], width))

    def predictions(self, batch_size: int) -> Tensor:
        """Predicted class of every sample as it is, on the CPU; -1 where the logits are NaN."""
        parts = []
        for x, _ in self.fetch(torch.arange(len(self)).split(batch_size)):
            logits = self.logits(x)
            if logits.ndim != 2 or int(self.data.y.min()) < 0 or int(self.data.y.max()) >= logits.shape[1]:
                raise ValueError(
                    f"y must have labels 0 to C-1 for logits of shape (batch, C); got labels {int(self.data.y.min())} "
                    f"to {int(self.data.y.max())} and logits of shape {tuple(logits.shape)}"
                )
            parts.append(predicted(logits).cpu())
        return torch.cat(parts)

    def logits(self, x: Tensor) -> Tensor:
        """Logits of a batch in eval mode."""
        with frozen(self.module), torch.no_grad():
            return self.module(x)

    @contextmanager
    def connected(self, warnings: list[str]) -> Iterator[None]:
        """Let attacks run on a module that cuts the graph, as a quantiser does: its gradient is zero, and a warning."""

        def connect(module: nn.Module, inputs: tuple[Tensor, ...], logits: Tensor) -> Tensor | None:
            x = inputs[0]
            if logits.requires_grad or not (torch.is_grad_enabled() and x.requires_grad):
                return None
            if CUT not in warnings:
                warnings.append(CUT)
            return logits + 0 * x.flatten(1).sum(1, keepdim=True)

        handle = self.module.register_forward_hook(connect)
        try:
            yield
        finally:
            handle.remove()

    def generator(self, *seed: int) -> torch.Generator:
        """A generator for one piece of work, the same for the same seeds."""
        state = np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]
        return torch.Generator(device=self.device).manual_seed(int(state >> np.uint64(1)))
