"""solver_cost tells what a selector takes to choose among all samples, from the gradients of a few."""

from collections.abc import Iterator
from functools import partial
from math import log2
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sklearn_acs.gradients import LastLayerGradients
from sklearn_acs.training.peak import PeakBytes, bytes_of
from sklearn_acs.training.selection import Selection, choose
from sklearn_acs.training.typical import typical

FIRST = 1024
"""Samples that a solver chooses among first; their number is doubled until all are there, or time is up."""

SPREAD = 0.1
"""Relative noise by which samples made from the same one differ: rows that are equal would end a solver early."""


class SolverCost(NamedTuple):
    """Has what choosing a coreset takes."""

    seconds: float
    peak: int  # bytes that come and go
    kept: int  # bytes of the gradients


def solver_cost(
    selection: Selection,
    gradients: LastLayerGradients | Tensor | None,
    given: dict[str, Any],
    y: Tensor,
    n_held_out: int,
    batch_size: int,
    seconds: float,
) -> SolverCost:
    """Let the selector choose among samples made from a few; where all are too many, go by how time grows.

    Parameters
    ----------
    selection : Selection
        Has the selector, and how it chooses.
    gradients : LastLayerGradients, Tensor or None
        Of a few samples, or the sums of each group of all; None for a selector that asks for none.
    given : dict
        What else its `fit` is given, of as many samples.
    y : Tensor of shape (n,)
        Labels of all.
    n_held_out : int
        Samples held out.
    batch_size : int
        Samples in a batch.
    seconds : float
        What this may take, roughly.
    """
    n, generator = len(y), torch.Generator().manual_seed(0)
    order = torch.randperm(n, generator=generator).to(y.device)

    def choosing(size: int) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
        made: Any = gradients
        if isinstance(gradients, LastLayerGradients):
            made = more(gradients, size, generator)
        elif gradients is not None:
            made = partial(_sums, noisy(gradients, generator))
        how = y[order[:size]], selection.select_by, max(1, round(selection.n_select * size / n)), batch_size
        beside = {name: grown(name, value, size, n_held_out, generator) for name, value in given.items()}
        return made, how, beside | remembered(selection, size, generator)

    def choose_of(size: int) -> float:
        made, how, beside = choosing(size)
        return typical(lambda: _choose(selection, made, how, beside), seconds).seconds

    sizes = list(_sizes(n)) if isinstance(gradients, LastLayerGradients) else [n]
    times: list[float] = []
    for size in sizes:
        times.append(choose_of(size))
        if 4 * times[-1] > seconds:
            break
    reached = sizes[len(times) - 1]
    growth = log2(max(times[-1] / times[-2], 1e-9)) if len(times) > 1 else 1.0
    made, how, beside = choosing(reached)
    with PeakBytes() as peak:
        _choose(selection, made, how, beside)
    kept = bytes_of(gradients if isinstance(gradients, Tensor) else getattr(made, "branches", []), y.device)
    times_more = n / reached
    total = times[-1] * times_more ** min(max(growth, 1.0), 3.0)
    return SolverCost(total, round(peak.peak * times_more), round(kept * times_more))


def _sums(sums: Tensor, groups: np.ndarray) -> Tensor:
    return sums


def _choose(selection: Selection, made: Any, how: tuple[Any, ...], beside: dict[str, Any]) -> None:
    y, select_by, n_select, batch_size = how
    choose(selection.selector, made, y, select_by, n_select, batch_size, np.random.RandomState(0), **beside)


def _sizes(n: int) -> Iterator[int]:
    size = FIRST
    while size < n:
        yield size
        size *= 2
    yield n


def more(gradients: LastLayerGradients, size: int, generator: torch.Generator) -> LastLayerGradients:
    """Make gradients of so many samples; what enters the layer varies, and the gradients at the logits stay real."""
    rows = torch.randint(len(gradients), (size,), generator=generator)
    branches = []
    for g, h1 in gradients.branches:
        entering = noisy(h1[rows.to(h1.device)], generator)
        entering[:, -1] = h1[0, -1]
        branches.append((g[rows.to(g.device)], entering))
    return LastLayerGradients(branches)


def noisy(rows: Tensor, generator: torch.Generator) -> Tensor:
    """Copy rows with noise of a share of their size."""
    noise = torch.randn(rows.shape, generator=generator).to(rows)
    return rows + SPREAD * rows.abs().mean() * noise


def grown(name: str, value: Any, size: int, n_held_out: int, generator: torch.Generator) -> Any:
    """Make of what is given for a few samples what would be given for all."""
    if name == "validation":
        return more(value, n_held_out, generator)
    return value[torch.randint(len(value), (size,), generator=generator).to(value.device)]


def remembered(selection: Selection, size: int, generator: torch.Generator) -> dict[str, Any]:
    """Make up what training would remember."""
    found: dict[str, Any] = {}
    if selection.losses is not None:
        found["losses"] = torch.rand(size, generator=generator).exp()
    if "seen" in selection.selector.fit_inputs:
        found["seen"] = np.zeros(size, dtype=bool)
    return found
