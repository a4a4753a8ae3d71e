"""Labels and logits follow from cross-entropy's gradients at the logits, ``g = softmax(logits) - onehot(label)``."""

from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from sklearn_acs.gradients import LastLayerGradients


def undo_cross_entropy(gradients: LastLayerGradients, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Read labels (n,) and probabilities (n, C) off gradients of cross-entropy; raise ValueError for any others.

    The label is where g is smallest, and the probabilities are ``g + onehot``.
    """
    if len(gradients.branches) > 1:
        raise ValueError(f"they have {len(gradients.branches)} branches, and cross-entropy has one")
    given = gradients.branches[0][0]
    g = given.to(dtype)
    labels = g.argmin(1)
    p = g.scatter_add(1, labels[:, None], torch.ones_like(g[:, :1]))
    off = torch.maximum(-p.amin(1), g.sum(1).abs())
    if g.shape[1] < 2 or bool((off > max(1e-4, 16 * torch.finfo(given.dtype).eps)).any()):
        worst = int(off.argmax())
        raise ValueError(
            "each row of g must be softmax - onehot of two classes or more, with sum 0 and one entry from -1 to 0 as "
            f"the only negative one; row {worst} is {[round(entry, 4) for entry in g[worst].tolist()]}"
        )
    return labels, p


class CrossEntropy(NamedTuple):
    """Holds validation samples and their logits under a last layer, or under each of a batch of layers.

    Each sample is a column: for a few classes, softmax down the columns is 20 times as fast as along rows.
    """

    logits: Tensor  # (C, m) or (B, C, m), each column up to a constant
    labels: Tensor  # (C, m), one-hot
    inputs: Tensor  # (m, D + 1), the layer's inputs with their one

    @classmethod
    def of(cls, gradients: LastLayerGradients) -> Self:
        """Make it from gradients that `undo_cross_entropy` accepts: ``log p`` are the logits."""
        labels, p = undo_cross_entropy(gradients, gradients.dtype)
        g, h1 = gradients.branches[0]
        onehot = one_hot(labels, p.shape[1]).to(p)
        # A label's p is g + 1: where that is 0, the true p is anything up to half a unit of rounding.
        smallest = onehot * (torch.finfo(g.dtype).eps / 4) + torch.finfo(p.dtype).tiny
        return cls(p.clamp(min=smallest).log().T.contiguous(), onehot.T.contiguous(), h1.to(p.dtype))

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Move and convert all tensors."""
        return type(self)(*(tensor.to(device, dtype) for tensor in self))

    def gradient(self) -> Tensor:
        """Compute the mean loss's gradient with respect to each layer, flat as a row of LastLayerGradients."""
        return ((self.logits.softmax(-2) - self.labels) @ self.inputs).flatten(-2) / len(self.inputs)

    def after(self, step: Tensor) -> Self:
        """Update the logits for a layer from which a flat `step`, or one for each of B layers, is subtracted."""
        layers = step.unflatten(-1, (len(self.labels), -1))
        return self._replace(logits=self.logits - layers @ self.inputs.T)


class FixedGradient(NamedTuple):
    """Holds the gradient of a validation loss that does not change with the layer."""

    value: Tensor

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Move and convert the gradient."""
        return type(self)(self.value.to(device, dtype))

    def gradient(self) -> Tensor:
        """Return the gradient."""
        return self.value

    def after(self, step: Tensor) -> Self:
        """Return the same gradient, whatever the step."""
        return self
