"""Greedy choice of the rows whose gradient step lowers a validation loss most: no estimator in sight."""

from typing import NamedTuple, Self

import numpy as np
import torch
from sklearn.utils.random import sample_without_replacement
from torch import Tensor
from torch.nn.functional import one_hot

from sklearn_acs.gradients import LastLayerGradients

_TIE = 64  # units of rounding, of the largest gain: inner products closer than this are equal


class CrossEntropy(NamedTuple):
    """Validation samples as the last layer and its cross-entropy see them.

    A column per sample: over a few classes, softmax down the columns is 20 times as fast as along rows.
    """

    logits: Tensor  # (C, m), each column up to a constant
    labels: Tensor  # (C, m), one-hot
    inputs: Tensor  # (m, D + 1), the layer's inputs with their one

    @classmethod
    def of(cls, gradients: LastLayerGradients) -> Self:
        """Read labels and logits off gradients ``g = softmax(logits) - onehot(label)``; others are a ValueError.

        The label is where g is smallest, ``p = g + onehot`` are the probabilities, and log p are logits.
        """
        if len(gradients.branches) > 1:
            raise ValueError(f"they have {len(gradients.branches)} branches, and cross-entropy has one")
        g, h1 = gradients.branches[0]
        rounding = torch.finfo(g.dtype).eps
        g, h1 = g.to(gradients.dtype), h1.to(gradients.dtype)
        labels = one_hot(g.argmin(1), g.shape[1]).to(g)
        p = g + labels
        off = torch.maximum(-p.min(1).values, g.double().sum(1).abs())
        worst = int(off.argmax())
        if off[worst] > max(1e-4, 16 * rounding):
            raise ValueError(
                "each row of g must be softmax - onehot, with sum 0 and one entry from -1 to 0 as the only negative "
                f"one; row {worst} is {[round(entry, 4) for entry in g[worst].tolist()]}"
            )
        # A label's p is the difference of g and -1: 0 stands for anything up to half a unit of rounding.
        smallest = labels * (rounding / 4) + torch.finfo(p.dtype).tiny
        return cls(p.clamp(min=smallest).log().T.contiguous(), labels.T.contiguous(), h1)

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Move and convert all of it."""
        return type(self)(*(tensor.to(device, dtype) for tensor in self))

    def gradient(self) -> Tensor:
        """Gradient of the mean loss with respect to the layer, flat as a row of LastLayerGradients."""
        return ((self.logits.softmax(0) - self.labels) @ self.inputs).flatten() / len(self.inputs)

    def after(self, step: Tensor) -> Self:
        """The same samples after `step` was taken off the layer."""
        return self._replace(logits=self.logits - step.reshape(len(self.logits), -1) @ self.inputs.T)


def taylor_greedy(
    gradients: LastLayerGradients,
    loss: CrossEntropy,
    sizes: np.ndarray,
    *,
    rate: float,
    n_candidates: int | None = None,
    rng: np.random.RandomState | None = None,
) -> np.ndarray:
    """Choose rows of G greedily so that the loss at ``W - rate * sum_{j in S} G_j`` falls most.

    A row's gain is the first term of the loss's Taylor series, ``rate * <G_e, grad L(W_S)>``. The layer W moves
    after every round, and the loss's gradient is computed anew at W_S: exactly, since the layer is linear.

    Parameters
    ----------
    gradients : LastLayerGradients
        The n rows to choose from.
    loss : CrossEntropy
        The validation loss at W, on the same device and in the same precision.
    sizes : ndarray of int
        How many rows each round takes, all at least 1.
    rate : float
        Length of the step per row.
    n_candidates : int or None
        Every round looks at this many of the rows that are left, drawn by `rng`; None is all of them.
    rng : RandomState or None
        Draws the candidates.

    Returns
    -------
    picks : ndarray of shape (sum(sizes),)
        The chosen rows, distinct, round by round; the lowest index on ties.
    """
    left = torch.arange(len(gradients), device=gradients.device)
    rounds = []
    for size in sizes.tolist():
        gradient = loss.gradient()
        if n_candidates is None or n_candidates >= len(left):
            candidates = None
            gains = gradients.dot(gradient)[left]
        else:
            drawn = sample_without_replacement(len(left), n_candidates, random_state=rng)
            candidates = torch.from_numpy(np.sort(drawn)).to(left)
            gains = gradients.take(left[candidates]).dot(gradient)
        best = largest(gains, size)
        best = best if candidates is None else candidates[best]
        picks = left[best]
        rounds.append(picks)
        left = left[torch.ones_like(left, dtype=torch.bool).index_fill_(0, best, False)]
        loss = loss.after(rate * gradients.take(picks).sum())
    return torch.cat(rounds).cpu().numpy()


def largest(gains: Tensor, size: int) -> Tensor:
    """Positions of the `size` largest gains, the largest first; the first positions where rounding hides which."""
    gains = gains.nan_to_num()  # a step of infinite length must not keep the budget from being used
    tie = _TIE * torch.finfo(gains.dtype).eps * gains.abs().max()
    last = gains.topk(size).values[-1]
    surely = (gains > last + tie).nonzero()[:, 0]
    evenly = (gains >= last - tie).nonzero()[:, 0]
    evenly = evenly[gains[evenly] <= last + tie][: size - len(surely)]
    best = torch.cat([surely, evenly])
    return best[gains[best].argsort(descending=True, stable=True)]
