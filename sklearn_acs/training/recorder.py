"""Recorders keep what training steps compute anyway, losses or last-layer gradients, for the next selection."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sklearn_acs.data.batches import Batch
from sklearn_acs.gradients import LastLayerGradients, entering


class FactorRecorder:
    """Keeps the factors of each sample's last-layer gradient as the last training step on it had them.

    A step's losses are differentiated with respect to its logits, which costs no pass through the network, and a hook
    reads what enters the last layer. Both are the step's own: in train mode, of the sample as augmented, and at the
    weights of that step.

    Parameters
    ----------
    layer : nn.Linear
        The last layer.
    n_samples : int
        In the data set.
    """

    def __init__(self, layer: nn.Linear, n_samples: int) -> None:
        self.layer = layer
        self._seen = torch.zeros(n_samples, dtype=torch.bool, device=layer.weight.device)
        self._factors: list[tuple[Tensor, Tensor]] = []  # (g, h1) of all samples, for each branch
        self._entered: list[Tensor] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Read what enters the last layer in the forward passes inside, one for each branch."""
        with entering(self.layer) as self._entered:
            yield

    def keep(self, batch: Batch, logits: dict[str, Tensor], losses: Tensor) -> None:
        """Keep the factors of a batch, whose losses are those of the forward passes watched last."""
        gradients = torch.autograd.grad(
            losses.sum(), list(logits.values()), retain_graph=True, materialize_grads=True, allow_unused=True
        )
        if not self._factors:
            n, width = len(self._seen), self.layer.in_features + (self.layer.bias is not None)
            self._factors = [(g.new_zeros(n, g.shape[1]).float(), g.new_ones(n, width).float()) for g in gradients]
        for (g, h1), gradient, entered in zip(self._factors, gradients, self._entered, strict=True):
            g[batch.rows] = gradient.float()
            h1[batch.rows, : self.layer.in_features] = entered.float()
        self._seen[batch.rows] = True
        self._entered = []

    @property
    def complete(self) -> bool:
        """Whether every sample has been trained on."""
        return bool(self._seen.all())

    def gradients(self, weight: Tensor) -> LastLayerGradients:
        """Give all samples' gradients, each loss times its weight."""
        return LastLayerGradients([(weight.to(g.device)[:, None] * g, h1) for g, h1 in self._factors])

    def state_dict(self) -> dict[str, Any]:
        """Name the samples that have been seen, and their factors."""
        return {"seen": self._seen, "factors": self._factors}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with what another recorder has kept."""
        self._seen, self._factors = state["seen"], state["factors"]


class LossRecorder:
    """Keeps each sample's loss as the last training step on it had it: in train mode, of the sample as augmented.

    Parameters
    ----------
    n_samples : int
        In the data set.
    device : torch.device
        Where the losses are computed.

    Attributes
    ----------
    losses : Tensor of shape (n_samples,)
        NaN for samples that have not been trained on.
    """

    def __init__(self, n_samples: int, device: torch.device) -> None:
        self.losses = torch.full((n_samples,), torch.nan, device=device)

    def keep(self, batch: Batch, losses: Tensor) -> None:
        """Keep the losses of a batch."""
        self.losses[batch.rows] = losses.detach().float()

    def state_dict(self) -> dict[str, Any]:
        """Name the losses."""
        return {"losses": self.losses}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with what another recorder has kept."""
        self.losses.copy_(state["losses"])
