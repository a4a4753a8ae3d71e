"""taylor_greedy chooses the rows whose gradient step lowers a validation loss most; it knows arrays, not estimators."""

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.utils.random import sample_without_replacement
from torch import Tensor

from sklearn_acs.gradients import LastLayerGradients, add_up
from sklearn_acs.selectors._cross_entropy import CrossEntropy, FixedGradient
from sklearn_acs.selectors._gram import Branches, stack_branches, take_rows

_TIE = 64  # rounding units of the largest gain: gains that differ by less are equal


def taylor_greedy(
    problems: Sequence[LastLayerGradients],
    budgets: Sequence[int],
    loss: CrossEntropy | FixedGradient,
    *,
    rate: float,
    rounds: int | None = None,
    n_candidates: Sequence[int] | None = None,
    rngs: Sequence[np.random.RandomState] = (),
) -> list[np.ndarray]:
    """Choose rows of G greedily, in several problems, so that the loss at ``W - rate * sum_{j in S} G_j`` falls most.

    A row's gain is the first term of the loss's Taylor series, ``rate * <G_e, grad L(W_S)>``. After every round each
    problem moves its layer W to W_S and computes the loss's gradient there, exactly, since the layer is linear.

    All problems take each step together, padded to the largest, as a GPU likes it; nothing is read from the device
    before the end. A single problem, on the CPU, is a batch of one.

    Parameters
    ----------
    problems : sequence of LastLayerGradients
        The rows to choose from in each, alike in width, number of branches, type and device.
    budgets : sequence of int
        Number of rows to choose in each, 1 to all.
    loss : CrossEntropy or FixedGradient
        The validation loss at W, on the same device and in the same precision.
    rate : float
        Length of the step per row.
    rounds : int or None
        The largest number of rounds that share the budget. None chooses one row in each round.
    n_candidates : sequence of int or None
        Number of rows, among those left of each problem, that such a round draws and looks at. None looks at all.
    rngs : sequence of RandomState
        One for each problem, to draw the candidates.

    Returns
    -------
    list of ndarray of shape (k,)
        The chosen rows of each problem, distinct, round by round; the lowest index on ties.
    """
    branches, device = stack_branches(problems), problems[0].device
    n_rows = torch.tensor([len(problem) for problem in problems], device=device)
    left = torch.arange(branches[0][0].shape[1], device=device) < n_rows[:, None]  # (B, n)
    sizes = _round_sizes(budgets, rounds)
    wanted = torch.from_numpy(sizes).to(device)
    # Drawn before the first step: the GPU would wait for copies of later draws.
    drawn = None if n_candidates is None else _draw(problems, budgets, n_candidates, rngs).to(device)
    picks: list[Tensor] = []
    for t, most in enumerate(sizes.max(1).tolist()):
        if t:
            loss = loss.after(rate * _sum(branches, picks[-1], wanted[t - 1]))
        if drawn is None:
            best = largest(_dots(branches, loss.gradient()), left, wanted[t], most)
        else:
            rows = torch.searchsorted(left.cumsum(1, dtype=torch.int32), drawn[t] + 1)
            gains = _dots(take_rows(branches, rows), loss.gradient())
            best = rows.gather(1, largest(gains, drawn[t] >= 0, wanted[t], most))
        left.scatter_(1, best, left.gather(1, best) & ~_first(wanted[t], most))
        picks.append(best)
    found = torch.cat(picks, 1).cpu().numpy()
    used = np.concatenate([np.arange(size.max()) < size[:, None] for size in sizes], axis=1)
    return [rows[mine] for rows, mine in zip(found, used, strict=True)]


def largest(gains: Tensor, among: Tensor, sizes: Tensor, most: int) -> Tensor:
    """Find the positions of the largest gains in each row, the largest first and the lowest position on ties.

    Parameters
    ----------
    gains : Tensor of shape (B, n)
        Any numbers.
    among : Tensor of shape (B, n)
        True for gains that count, which are at least as many in each row as it wants.
    sizes : Tensor of shape (B,)
        Number of positions that each row wants.
    most : int
        The largest of these numbers.

    Returns
    -------
    Tensor of shape (B, most)
        In each row the positions that it wants, followed by any others.
    """
    gains = gains.nan_to_num()  # a step of infinite length must not keep the budget from being used
    tie = _TIE * torch.finfo(gains.dtype).eps * (gains.abs() * among).amax(1, keepdim=True)
    gains = torch.where(among, gains, -torch.inf)
    if most == 1:
        return (among & (gains >= gains.amax(1, keepdim=True) - tie)).byte().argmax(1, keepdim=True)
    last = gains.topk(most).values.gather(1, (sizes[:, None] - 1).clamp(min=0))
    surely = gains > last + tie
    evenly = among & (gains >= last - tie) & ~surely
    chosen = surely | (evenly & (evenly.cumsum(1) <= sizes[:, None] - surely.sum(1, keepdim=True)))
    return torch.where(chosen, gains, -torch.inf).argsort(dim=1, descending=True, stable=True)[:, :most]


def _round_sizes(budgets: Sequence[int], rounds: int | None) -> np.ndarray:
    """Spread each problem's budget over its rounds as equally as can be, (R, B), with zeros after its last round."""
    n_rounds = [k if rounds is None else min(rounds, k) for k in budgets]
    sizes = np.zeros((max(n_rounds), len(budgets)), dtype=np.int64)
    for b, (r, k) in enumerate(zip(n_rounds, budgets, strict=True)):
        sizes[:r, b] = np.diff(np.arange(r + 1) * k // r)
    return sizes


def _draw(
    problems: Sequence[LastLayerGradients],
    budgets: Sequence[int],
    n_candidates: Sequence[int],
    rngs: Sequence[np.random.RandomState],
) -> Tensor:
    """Draw each round's candidates as sorted positions among the rows left, (R, B, m), padded with -1."""
    m = max(min(m, len(problem)) for m, problem in zip(n_candidates, problems, strict=True))
    drawn = np.full((max(budgets), len(problems), m), -1, dtype=np.int32)
    for b, (problem, k, m, rng) in enumerate(zip(problems, budgets, n_candidates, rngs, strict=True)):
        for places, n in zip(drawn[:k, b], range(len(problem), 0, -1), strict=False):
            some = np.arange(n) if m >= n else np.sort(sample_without_replacement(n, m, random_state=rng))
            places[: len(some)] = some
    return torch.from_numpy(drawn)


def _first(sizes: Tensor, most: int) -> Tensor:
    """Mark the first `sizes` (B,) of `most` picks, (B, most)."""
    return torch.arange(most, device=sizes.device) < sizes[:, None]


def _dots(branches: Branches, target: Tensor) -> Tensor:
    """Compute the inner products of all rows with a flat vector, or with one for each problem, (B, n)."""
    return add_up(((h @ target.unflatten(-1, (g.shape[2], -1)).mT) * g).sum(2) for g, h in branches)


def _sum(branches: Branches, picks: Tensor, sizes: Tensor) -> Tensor:
    """Add up the first `sizes` (B,) of the picks to a flat vector for each problem."""
    wanted = _first(sizes, picks.shape[1])[:, :, None]
    return add_up((g * wanted).mT @ h for g, h in take_rows(branches, picks)).flatten(1)
