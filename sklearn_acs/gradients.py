"""Per-sample gradients of the last layer, kept as the two factors of their outer products."""

import functools
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["DenseGradients", "LastLayerGradients", "as_gradients"]

_BLOCK_BYTES = 2**23  # that one block of rows may take in float64


class LastLayerGradients:
    """The matrix of all samples' last-layer gradients, never written out.

    The gradient of a loss with respect to the last linear layer is, for sample i, the outer product of the
    loss's gradient at the logits, ``g_i``, and the layer's input with a one appended, ``h1_i``. A loss with
    several forward passes (TRADES: clean and adversarial) adds up one such product per branch::

        G_i = sum_b g_b[i] (x) h1_b[i],   entry c * (D + 1) + d being sum_b g_b[i, c] * h1_b[i, d]

    Everything a coreset selector asks of the matrix follows from the factors.

    Parameters
    ----------
    branches : list of (Tensor of shape (n, C), Tensor of shape (n, D + 1))
        One pair ``(g, h1)`` per forward pass. ``h1`` has its column of ones already. Arrays and memory maps are
        taken too, and not copied. Factors may be stored in half precision; arithmetic on them is then done in
        float32.

    See Also
    --------
    DenseGradients : The same interface around an ordinary matrix.
    as_gradients : Either of them, from whatever was given.

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
        if not branches:
            raise ValueError("branches must hold at least one (g, h1) pair, got none.")
        shapes = [(tuple(g.shape), tuple(h.shape)) for g, h in branches]
        (g_shape, h_shape), n_dims = shapes[0], {len(s) for pair in shapes for s in pair}
        if n_dims != {2} or g_shape[0] != h_shape[0] or len(set(shapes)) > 1:
            raise ValueError(
                "branches must be pairs of matrices (n, C) and (n, D + 1), alike in every branch, "
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
        """The type that results have: that of the factors, float32 where these are in half precision."""
        types = [factor.dtype for pair in self.branches for factor in pair]
        return functools.reduce(torch.promote_types, types, torch.float32)

    @property
    def device(self) -> torch.device:
        """Where the factors are."""
        return self.branches[0][0].device

    @property
    def nbytes(self) -> int:
        """Bytes that the factors take."""
        return sum(factor.nbytes for pair in self.branches for factor in pair)

    def isfinite(self) -> bool:
        """Whether no factor holds a NaN or an infinity."""
        return all(bool(factor.isfinite().all()) for part in self.blocks() for pair in part.branches for factor in pair)

    def blocks(self, dtype: torch.dtype | None = None) -> Iterator["LastLayerGradients"]:
        """Consecutive rows, 8 MB of factors at a time, converted to `dtype`: nothing else is copied."""
        numbers = sum(factor.shape[1] for pair in self.branches for factor in pair)
        size = max(1, _BLOCK_BYTES // (8 * numbers))
        for start in range(0, len(self), size):
            yield self._alike(
                [(g[start : start + size].to(dtype), h[start : start + size].to(dtype)) for g, h in self.branches]
            )

    def to(self, *args: Any, **kwargs: Any) -> "LastLayerGradients":
        """Move or convert the factors, as :meth:`torch.Tensor.to` does."""
        return self._alike([(g.to(*args, **kwargs), h.to(*args, **kwargs)) for g, h in self.branches])

    def take(self, indices: Any) -> "LastLayerGradients":
        """Pick the rows `indices`, in that order; a slice is not copied."""
        index = indices if isinstance(indices, slice) else torch.as_tensor(indices, device=self.device)
        return self._alike([(g[index], h[index]) for g, h in self.branches])

    def gram(self, rows: Any = None, cols: Any = None) -> Tensor:
        """Inner products ``<G_i, G_j>`` for i in `rows` and j in `cols`; None stands for all of them."""
        left = self if rows is None else self.take(rows)
        return left.cross_gram(self if cols is None else self.take(cols))

    def cross_gram(self, other: "LastLayerGradients") -> Tensor:
        """Inner products of all rows with all rows of another such matrix of the same width."""
        left, right = self._factors(), other._factors()
        if [factor.shape[1] for factor in left[0]] != [factor.shape[1] for factor in right[0]]:
            return self.dense() @ other.dense().T  # factors and an ordinary matrix
        return _total((g_a @ g_b.T) * (h_a @ h_b.T) for g_a, h_a in left for g_b, h_b in right)

    def gram_column(self, j: int) -> Tensor:
        """Inner products of all rows with row `j`, shape (n,)."""
        return self.gram(None, [j])[:, 0]

    def dot(self, target: Tensor) -> Tensor:
        """Inner products of all rows with one flat vector `target`, shape (n,)."""
        matrix = target.to(self.device, self.dtype).reshape(self.branches[0][0].shape[1], -1)  # (C, D + 1)
        return _total(((h @ matrix.T) * g).sum(1) for g, h in self._factors())

    def sum(self, weights: Tensor | None = None) -> Tensor:
        """Add up all rows, each times its weight, to a flat vector of length ``C * (D + 1)``."""
        if weights is None:
            return _total(g.T @ h for g, h in self._factors()).flatten()
        column = weights.to(self.device, self.dtype)[:, None]
        return _total((g * column).T @ h for g, h in self._factors()).flatten()

    def mean_by(self, groups: Any) -> Tensor:
        """Average the rows of each group 0..n_groups-1, shape ``(n_groups, C * (D + 1))``.

        This is what the ``PB`` (per-batch) variants of CRAIG and GRAD-MATCH select from. A number below the
        largest that no sample bears gives a row of zeros.
        """
        groups = torch.as_tensor(groups, device=self.device)
        sizes = torch.bincount(groups)
        members = torch.argsort(groups, stable=True).split(sizes.tolist())
        return torch.stack([self.take(rows).sum() / max(len(rows), 1) for rows in members])

    def norms(self) -> Tensor:
        """Euclidean norms of all rows, shape (n,)."""
        pairs = self._factors()
        squares = _total((g_a * g_b).sum(1) * (h_a * h_b).sum(1) for g_a, h_a in pairs for g_b, h_b in pairs)
        return squares.clamp(min=0).sqrt()

    def dense(self) -> Tensor:
        """Write the matrix out, shape ``(n, C * (D + 1))``: for small ones."""
        return _total(torch.einsum("nc,nd->ncd", g, h) for g, h in self._factors()).flatten(1)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("A matrix of gradients exists only as factors: it cannot be had without a copy.")
        return np.asarray(self.dense().cpu().numpy(), dtype=dtype)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={self.shape}, branches={len(self.branches)}, dtype={self.dtype})"

    def _alike(self, branches: list[tuple[Tensor, Tensor]]) -> "LastLayerGradients":
        return LastLayerGradients(branches)

    def _factors(self) -> list[tuple[Tensor, Tensor]]:
        """Both factors of every branch in the arithmetic's precision."""
        return [(g.to(self.dtype), h.to(self.dtype)) for g, h in self.branches]


class DenseGradients(LastLayerGradients):
    """An ordinary matrix of gradients behind the interface of :class:`LastLayerGradients`.

    A matrix M is the product ``1 (x) M[i]`` in every row, so that it needs no formula of its own.

    Parameters
    ----------
    matrix : Tensor of shape (n, d)
        One gradient per row.

    See Also
    --------
    LastLayerGradients : Gradients as factors.

    Examples
    --------
    >>> import torch
    >>> from sklearn_acs.gradients import DenseGradients
    >>> DenseGradients(torch.eye(3)).sum()
    tensor([1., 1., 1.])
    """

    def __init__(self, matrix: Any) -> None:
        matrix = as_tensor(matrix)
        if matrix.ndim != 2:
            raise ValueError(f"matrix must have shape (n, d), got {tuple(matrix.shape)}.")
        super().__init__([(matrix.new_ones(len(matrix), 1), matrix)])

    def _alike(self, branches: list[tuple[Tensor, Tensor]]) -> "DenseGradients":
        return DenseGradients(branches[0][1])


def as_gradients(G: Any) -> LastLayerGradients:
    """`G` behind the interface that selectors know.

    Parameters
    ----------
    G : LastLayerGradients, Tensor or array-like of shape (n, d)
        Gradients are handed back as they are; integers become floats.

    Returns
    -------
    LastLayerGradients

    Examples
    --------
    >>> from sklearn_acs.gradients import as_gradients
    >>> as_gradients([[3.0, 4.0]]).norms()
    tensor([5.], dtype=torch.float64)
    """
    if isinstance(G, LastLayerGradients):
        return G
    G = as_tensor(G)
    return DenseGradients(G if G.is_floating_point() else G.double())


def exact_sum(gradients: LastLayerGradients, weights: Tensor | None = None) -> Tensor:
    """Add up all rows in float64, each times its weight, a block at a time."""
    weights = torch.ones(len(gradients)) if weights is None else weights
    total = torch.zeros(gradients.shape[1], dtype=torch.float64, device=gradients.device)
    start = 0
    for part in gradients.blocks(torch.float64):
        total += part.sum(weights[start : start + len(part)])
        start += len(part)
    return total


def as_tensor(array: Any) -> Tensor:
    """A tensor on the memory of `array`, that of a read-only memory map too: nothing here writes to it."""
    if isinstance(array, Tensor):
        return array.detach()
    array = np.asarray(array)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if any(stride < 0 for stride in array.strides):
        array = array.copy()  # which torch cannot take either
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable", category=UserWarning)
        return torch.from_numpy(array)


def _total(terms: Iterable[Tensor]) -> Tensor:
    """Add up tensors of the same shape."""
    return functools.reduce(torch.add, terms)


def batch_factors(
    model: nn.Module,
    layer: nn.Linear,
    loss: Callable[[dict[str, Tensor], Tensor], Tensor],
    inputs: dict[str, Tensor],
    y: Tensor,
) -> list[tuple[Tensor, Tensor]]:
    """Factors ``(g, h1)`` of one batch's last-layer gradients, a pair for each branch.

    One forward pass per branch without a graph; then `loss` is differentiated with respect to its logits alone.
    The adversarial example is a constant here (Danskin's theorem), whatever made it.

    Parameters
    ----------
    model : nn.Module
        The model, in the mode it is to be judged in.
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
    features: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda module, args: features.append(args[0].detach()))
    try:
        with torch.no_grad():
            logits = {branch: model(x).float() for branch, x in inputs.items()}
    finally:
        hook.remove()
    leaves = {branch: z.requires_grad_() for branch, z in logits.items()}
    with torch.enable_grad():
        total = loss(leaves, y).sum()
    gradients = torch.autograd.grad(total, list(leaves.values()), materialize_grads=True)
    ones = torch.ones(len(y), 0 if layer.bias is None else 1, device=y.device)
    return [(g, torch.cat([h.float(), ones], dim=1)) for g, h in zip(gradients, features, strict=True)]
