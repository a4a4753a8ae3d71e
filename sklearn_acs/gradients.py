"""LastLayerGradients keeps every sample's gradient of the last layer as the two factors of an outer product."""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import frexp
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sklearn_acs.data.tensors import as_tensor

__all__ = ["LastLayerGradients", "as_gradients"]

_BLOCK_BYTES = 2**23  # that a block of rows may take in float64
_SAFE_EXPONENT = 20  # of 2: products of two such factors, squared and added up, are float32 numbers


class LastLayerGradients:
    """Holds the matrix of all samples' last-layer gradients as factors, without writing it out.

    The gradient of a loss with respect to the last linear layer is, for sample i, the outer product of the
    loss's gradient at the logits, ``g_i``, and the layer's input with a one appended, ``h1_i``. A loss with
    several forward passes (TRADES: clean and adversarial) adds up one such product per branch::

        G_i = sum_b g_b[i] (x) h1_b[i],   entry c * (D + 1) + d being sum_b g_b[i, c] * h1_b[i, d]

    Everything a coreset selector asks of the matrix follows from the factors. An ordinary matrix M has the same
    interface, as the product ``1 (x) M[i]``: see `as_gradients`.

    Parameters
    ----------
    branches : list of (Tensor of shape (n, C), Tensor of shape (n, D + 1))
        One pair ``(g, h1)`` per forward pass. ``h1`` has its column of ones already. Arrays and memory maps are
        taken too, and not copied. Factors may be stored in half precision; arithmetic on them is then done in
        float32.

    See Also
    --------
    as_gradients : Gives an ordinary matrix the same interface.

    Notes
    -----
    Memory is ``O(n (C + D))`` instead of ``O(n C D)``: for CIFAR-100 and a ResNet-18, 123 MB for 10 GB.
    ``<G_i, G_j> = sum_ab (g_a[i] . g_b[j]) (h1_a[i] . h1_b[j])`` and ``<G_i, R> = sum_b g_b[i]^T R h1_b[i]``.

    Examples
    --------
    >>> import torch
    >>> from sklearn_acs.gradients import LastLayerGradients
    >>> g = torch.tensor([[1.0, -1.0], [0.5, -0.5]])
    >>> h1 = torch.tensor([[2.0, 1.0], [4.0, 1.0]])
    >>> G = LastLayerGradients([(g, h1)])
    >>> G.shape
    (2, 4)
    >>> G.gram()
    tensor([[10.0000,  9.0000],
            [ 9.0000,  8.5000]])
    """

    def __init__(self, branches: Sequence[tuple[Tensor, Tensor]]) -> None:
        shapes = [(tuple(g.shape), tuple(h.shape)) for g, h in branches]
        n_dims, lengths = {len(s) for pair in shapes for s in pair}, {s[:1] for pair in shapes for s in pair}
        if n_dims != {2} or len(lengths) > 1 or len(set(shapes)) > 1:
            raise ValueError(
                "branches must be one or more pairs of matrices (n, C) and (n, D + 1), alike in every branch, "
                f"got the shapes {shapes}."
            )
        self.branches = [(as_tensor(g), as_tensor(h)) for g, h in branches]

    @property
    def shape(self) -> tuple[int, int]:
        """Number of samples and of the last layer's parameters, ``(n, C * (D + 1))``."""
        g, h = self.branches[0]
        return g.shape[0], g.shape[1] * h.shape[1]

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def dtype(self) -> torch.dtype:
        """Type of all results: the widest of the factors' types, and float32 at least."""
        types = [factor.dtype for pair in self.branches for factor in pair]
        return functools.reduce(torch.promote_types, types, torch.float32)

    @property
    def device(self) -> torch.device:
        """Device that holds the factors."""
        return self.branches[0][0].device

    def isfinite(self) -> bool:
        """Tell whether all factors are finite."""
        return all(bool(factor.isfinite().all()) for rows in self.blocks() for pair in rows.branches for factor in pair)

    def blocks(self, dtype: torch.dtype | None = None) -> Iterator["LastLayerGradients"]:
        """Yield all rows in order, as many at a time as take 8 MB in float64, converted to `dtype`."""
        numbers = sum(factor.shape[1] for pair in self.branches for factor in pair)
        size = max(1, _BLOCK_BYTES // (8 * numbers))
        for start in range(0, len(self), size):
            yield self.take(slice(start, start + size)).to(dtype)

    def to(self, *args: Any, **kwargs: Any) -> "LastLayerGradients":
        """Move or convert the factors, as :meth:`torch.Tensor.to` does."""
        return LastLayerGradients([(g.to(*args, **kwargs), h.to(*args, **kwargs)) for g, h in self.branches])

    def take(self, indices: Any) -> "LastLayerGradients":
        """Take the rows `indices`, in that order; a slice is not copied."""
        index = indices if isinstance(indices, slice) else torch.as_tensor(indices, device=self.device)
        return LastLayerGradients([(g[index], h[index]) for g, h in self.branches])

    def scaled(self) -> tuple["LastLayerGradients", int]:
        """Divide factors whose squares could overflow or vanish by powers of two, which is exact.

        Returns
        -------
        gradients : LastLayerGradients
            This object itself, where both sides of every outer product are in an ordinary range.
        exponent : int
            The gradients were divided by ``2**exponent``.
        """
        of_g, of_h = (_exponent(side) for side in zip(*self.branches, strict=True))
        if not (of_g or of_h):
            return self, 0
        return LastLayerGradients([(_halved(g, of_g), _halved(h, of_h)) for g, h in self.branches]), of_g + of_h

    def gram(self, other: "LastLayerGradients | None" = None) -> Tensor:
        """Compute the inner products of all n rows with all m rows of `other`, or of this matrix, shape (n, m)."""
        other = self if other is None else other
        left, right = self._factors(), other._factors()
        if [factor.shape[1] for factor in left[0]] != [factor.shape[1] for factor in right[0]]:
            return self.dense() @ other.dense().T  # of factors and an ordinary matrix
        return add_up((g_a @ g_b.T) * (h_a @ h_b.T) for g_a, h_a in left for g_b, h_b in right)

    def sum(self, weights: Tensor | None = None) -> Tensor:
        """Add up all rows, each times its weight, to a flat vector of length ``C * (D + 1)``."""
        if weights is None:
            return add_up(g.T @ h for g, h in self._factors()).flatten()
        column = weights.to(self.device, self.dtype)[:, None]
        return add_up((g * column).T @ h for g, h in self._factors()).flatten()

    def exact_sum(self, weights: Tensor | None = None) -> Tensor:
        """Add up all rows as `sum` does, in float64 and block by block."""
        result = torch.zeros(self.shape[1], dtype=torch.float64, device=self.device)
        start = 0
        for rows in self.blocks(torch.float64):
            result += rows.sum(None if weights is None else weights[start : start + len(rows)])
            start += len(rows)
        return result

    def mean_by(self, groups: Any) -> Tensor:
        """Average the rows of each group, shape ``(n_groups, C * (D + 1))``.

        The ``PB`` (per-batch) variants of CRAIG and GRAD-MATCH select from these means. `groups` numbers each row's
        group from 0; a number that it skips stands for an empty group, whose mean is given as zeros.
        """
        groups = torch.as_tensor(groups, device=self.device)
        sizes = torch.bincount(groups)
        members = torch.argsort(groups, stable=True).split(sizes.tolist())
        return torch.stack([self.take(rows).sum() / max(len(rows), 1) for rows in members])

    def norms(self) -> Tensor:
        """Compute the Euclidean norms of all rows, shape (n,)."""
        pairs = self._factors()
        squares = add_up((g_a * g_b).sum(1) * (h_a * h_b).sum(1) for g_a, h_a in pairs for g_b, h_b in pairs)
        return squares.clamp(min=0).sqrt()

    def dense(self) -> Tensor:
        """Write out the matrix, shape ``(n, C * (D + 1))``."""
        return add_up(torch.einsum("nc,nd->ncd", g, h) for g, h in self._factors()).flatten(1)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("A matrix of gradients exists only as factors: it cannot be had without a copy.")
        return np.asarray(self.dense().cpu().numpy(), dtype=dtype)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={self.shape}, branches={len(self.branches)}, dtype={self.dtype})"

    def _factors(self) -> list[tuple[Tensor, Tensor]]:
        """Convert all factors to `dtype`."""
        return [(g.to(self.dtype), h.to(self.dtype)) for g, h in self.branches]


def as_gradients(G: Any) -> LastLayerGradients:
    """Give an ordinary matrix the interface of LastLayerGradients.

    Parameters
    ----------
    G : LastLayerGradients, Tensor or array-like of shape (n, d)
        One gradient per row. LastLayerGradients are returned as they are; integers become floats.

    Returns
    -------
    LastLayerGradients
        A matrix is its second factor; its first is a column of ones.

    Raises
    ------
    ValueError
        If G does not have two dimensions.
    TypeError
        If G is of truth values or of complex numbers.

    Examples
    --------
    >>> from sklearn_acs.gradients import as_gradients
    >>> as_gradients([[3.0, 4.0]]).norms()
    tensor([5.], dtype=torch.float64)
    """
    if isinstance(G, LastLayerGradients):
        return G
    matrix = as_tensor(G, "G")
    if matrix.dtype == torch.bool or matrix.is_complex():
        raise TypeError(f"G must be real numbers, one gradient per row, got {matrix.dtype}.")
    if matrix.ndim != 2:
        raise ValueError(f"G must have shape (n, d), one gradient per row, got {tuple(matrix.shape)}.")
    matrix = matrix if matrix.is_floating_point() else matrix.double()
    return LastLayerGradients([(matrix.new_ones(len(matrix), 1), matrix)])


def _exponent(side: Sequence[Tensor]) -> int:
    """Find the power of two to divide factors by, so that their squares stay in float32's range; 0 for most."""
    size = max((float(torch.stack(factor.aminmax()).abs().amax()) for factor in side if factor.numel()), default=0.0)
    exponent = frexp(size)[1]
    return exponent if abs(exponent) > _SAFE_EXPONENT else 0


def _halved(factor: Tensor, times: int) -> Tensor:
    """Divide a factor by two so many times, in two steps, since ``2**times`` itself may overflow."""
    return factor * 2.0 ** -(times // 2) * 2.0 ** -(times - times // 2)


def add_up(terms: Iterable[Tensor]) -> Tensor:
    """Add up tensors of the same shape, in their order."""
    return functools.reduce(torch.add, terms)


@contextmanager
def entering(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the inputs of `layer`, detached, one for each forward pass within the context.

    Parameters
    ----------
    layer : nn.Module
        Is called with one tensor.

    Yields
    ------
    list of Tensor
        Grows with every forward pass.

    Examples
    --------
    >>> import torch
    >>> from sklearn_acs.gradients import entering
    >>> layer = torch.nn.Linear(2, 3)
    >>> with entering(layer) as inputs:
    ...     logits = layer(torch.ones(1, 2))
    >>> inputs
    [tensor([[1., 1.]])]
    """
    inputs: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda module, args: inputs.append(args[0].detach()))
    try:
        yield inputs
    finally:
        hook.remove()


def batch_factors(
    model: nn.Module,
    layer: nn.Linear,
    loss: Callable[[dict[str, Tensor], Tensor], Tensor],
    inputs: dict[str, Tensor],
    y: Tensor,
) -> list[tuple[Tensor, Tensor]]:
    """Compute the factors ``(g, h1)`` of one batch's last-layer gradients, a pair for each branch.

    Each branch is forwarded once without a graph; then `loss` is differentiated with respect to the logits alone.
    By Danskin's theorem the adversarial example is a constant.

    Parameters
    ----------
    model : nn.Module
        The model, in the mode that the gradients are of.
    layer : nn.Linear
        Its last layer, whose output is the model's.
    loss : callable
        ``loss({branch: logits}, y) -> (batch,)``, an objective's.
    inputs : dict of Tensor
        The input of each branch.
    y : Tensor of shape (batch,)
        Labels 0 to C-1.

    Returns
    -------
    list of (Tensor of shape (batch, C), Tensor of shape (batch, D + 1))
        In the order of `inputs`.
    """
    with entering(layer) as features, torch.no_grad():
        logits = {branch: model(x).float().requires_grad_() for branch, x in inputs.items()}
    with torch.enable_grad():
        total = loss(logits, y).sum()
    gradients = torch.autograd.grad(total, list(logits.values()), materialize_grads=True)
    ones = torch.ones(len(y), 0 if layer.bias is None else 1, device=y.device)
    return [(g, torch.cat([h.float(), ones], dim=1)) for g, h in zip(gradients, features, strict=True)]
