"""What is under evaluation: a model, and samples as it takes them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sklearn_acs.attacks import Attack
from sklearn_acs.data.batches import ArrayData, StreamedData
from sklearn_acs.data.formats import Clip, Samples
from sklearn_acs.model import FittedModel
from sklearn_acs.models import frozen
from sklearn_acs.models.logits import predicted

CUT = "The logits cannot be differentiated by the input: attacks by gradients find nothing."


@dataclass(frozen=True)
class Subject:
    """A model and the samples that it is judged on.

    Attributes
    ----------
    model : FittedModel
        The model.
    samples : Tensor or Dataset
        The samples as given.
    data : ArrayData or StreamedData
        Samples as the module takes them, with labels 0 to C-1, or `UNKNOWN`.
    """

    model: FittedModel
    samples: Samples
    data: ArrayData | StreamedData

    @classmethod
    def of(cls, model: Any, X: Any, y: Any, clip: Clip) -> "Subject":
        """A fitted classifier, which knows its clip range and labels, or a module for which they are given."""
        fitted = FittedModel.of(model, X, clip)
        samples = fitted.read(X)
        return cls(fitted, samples, fitted.data(samples, fitted.codes(X, y)))

    @property
    def module(self) -> nn.Module:
        """From inputs to logits."""
        return self.model.module

    @property
    def clip(self) -> Clip:
        """The box that samples live in."""
        return self.model.format.clip

    def __len__(self) -> int:
        return len(self.data)

    def fetch(self, batches: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Samples and labels of each batch of row numbers."""
        return self.data.fetch(list(batches))

    def settle(self, attack: Attack, by_name: bool) -> Attack:
        """Fit an attack to the samples, as `robust_score` does."""
        return self.model.settled(attack, by_name=by_name)

    def predictions(self, batch_size: int) -> Tensor:
        """Predicted class of every sample as it is, on the CPU; -1 where the logits are NaN."""
        batches = self.fetch(torch.arange(len(self)).split(batch_size))
        return torch.cat([predicted(self.logits(x)).cpu() for x, _ in batches])

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
        return torch.Generator(device=self.model.device).manual_seed(int(state >> np.uint64(1)))
