"""Passes over all samples read their last-layer gradients, the sums of these by group, or scores."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from sklearn_acs.data.batches import Batches
from sklearn_acs.gradients import LastLayerGradients, batch_factors
from sklearn_acs.models import frozen
from sklearn_acs.objectives.base import Logits
from sklearn_acs.selectors._classes import where_float64_is
from sklearn_acs.selectors.score import margins
from sklearn_acs.training.adversary import Adversary

BranchLoss = Callable[[Logits, Tensor], Tensor]

Advance = Callable[[int], None]
"""Is told of so many samples done."""

NUMBERS_AT_ONCE = 2**20
"""Numbers of gradients written out at a time while they are added up."""


def skip(n_samples: int) -> None:
    """Show nothing of samples done."""


def last_layer_gradients(
    module: nn.Module,
    layer: nn.Linear,
    batches: Batches,
    adversary: Adversary,
    loss: BranchLoss | None = None,
    branch: str | None = None,
    advance: Advance = skip,
) -> LastLayerGradients:
    """Compute the gradients of the last layer at every sample's adversarial example, as factors.

    Samples are attacked, or their perturbations read from memory, forwarded and differentiated batch by batch, without
    augmentation and in eval mode, so that neither a batch's other samples nor another crop has a say.

    Parameters
    ----------
    module, layer : nn.Module
        The network and its last layer.
    batches : Batches
        The samples.
    adversary : Adversary
        Attacks them; has the objective.
    loss : callable or None, default=None
        ``loss({branch: logits}, y) -> (batch,)``; None is the objective's.
    branch : str or None, default=None
        The only branch that `loss` looks at; None is all of the objective's.
    advance : callable
        Is told of so many samples done.
    """
    n = len(batches.data)
    branches: list[tuple[Tensor, Tensor]] = []
    for rows, factors in _factors(module, layer, batches, adversary, loss or adversary.objective.loss, branch, advance):
        # Written where they stay: parts to be joined would take the memory of all of them twice.
        branches = branches or [(g.new_empty(n, g.shape[1]), h1.new_empty(n, h1.shape[1])) for g, h1 in factors]
        for (all_g, all_h1), (g, h1) in zip(branches, factors, strict=True):
            all_g[rows], all_h1[rows] = g, h1
    return where_float64_is(LastLayerGradients(branches))


def gradient_sums(
    module: nn.Module,
    layer: nn.Linear,
    batches: Batches,
    adversary: Adversary,
    groups: np.ndarray,
    advance: Advance = skip,
) -> Tensor:
    """Add up the last-layer gradients of each group of samples, without keeping those of single samples.

    Parameters
    ----------
    module, layer, batches, adversary, advance
        As `last_layer_gradients` takes them.
    groups : ndarray of int, of shape (n,)
        Each sample's group, numbered from 0; none is empty.

    Returns
    -------
    Tensor of shape (n_groups, C * (D + 1))
    """
    of_sample, sums = torch.as_tensor(groups), torch.empty(0)
    for rows, factors in _factors(module, layer, batches, adversary, adversary.objective.loss, None, advance):
        present, at = of_sample[rows].unique(return_inverse=True)
        # A product and no index_add, whose order of summation on a GPU is another every time.
        members, present = one_hot(at).T.to(factors[0][0]), present.to(factors[0][0].device)
        for g, h1 in factors:
            width = g.shape[1] * h1.shape[1]
            sums = sums if len(sums) else g.new_zeros(int(of_sample.max()) + 1, width)
            size = max(1, NUMBERS_AT_ONCE // width)
            for part in (slice(start, start + size) for start in range(0, len(g), size)):
                outer = (g[part, :, None] * h1[part, None]).flatten(1)
                sums[present] += members[:, part] @ outer
    return sums.cpu() if sums.device.type == "mps" else sums  # where there is no float64


def _factors(
    module: nn.Module,
    layer: nn.Linear,
    batches: Batches,
    adversary: Adversary,
    loss: BranchLoss,
    branch: str | None,
    advance: Advance,
) -> Iterator[tuple[slice, list[tuple[Tensor, Tensor]]]]:
    """Yield batch by batch where its samples stand, and the weighted factors of their gradients for each branch."""
    end = 0
    for batch in batches.everything():
        inputs = adversary.inputs(module, batch)
        inputs = inputs if branch is None else {branch: inputs[branch]}
        with frozen(module):
            factors = batch_factors(module, layer, loss, inputs, batch.y)
        begin, end = end, end + len(batch.y)
        yield slice(begin, end), [(batch.weight[:, None] * g, h1) for g, h1 in factors]
        advance(len(batch.y))


@torch.no_grad()
def sample_scores(
    module: nn.Module, score: str, batches: Batches, adversary: Adversary, advance: Advance = skip
) -> Tensor:
    """Compute the objective's "loss" of every attacked sample, or the "margin" of its last branch, (n,).

    Sample weights are left out.
    """
    found = []
    for batch in batches.everything():
        inputs = adversary.inputs(module, batch)
        if score == "margin":
            inputs = dict([inputs.popitem()])
        with frozen(module):
            logits = {branch: module(x).float() for branch, x in inputs.items()}
        if score == "margin":
            found.append(margins(next(iter(logits.values())).softmax(1), batch.y))
        else:
            found.append(adversary.objective.loss(logits, batch.y))
        advance(len(batch.y))
    return torch.cat(found)
