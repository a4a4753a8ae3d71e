"""Selection attacks every sample, reads its last-layer gradient, and lets a selector choose a coreset."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils import check_random_state
from torch import Tensor, nn

from sklearn_acs.attacks.base import cross_entropy
from sklearn_acs.data.batches import Batches
from sklearn_acs.gradients import LastLayerGradients, as_gradients, batch_factors
from sklearn_acs.models import frozen
from sklearn_acs.objectives import ADVERSARIAL, CLEAN
from sklearn_acs.objectives.base import Logits
from sklearn_acs.selectors import BaseSelector, ClassSelection, Coreset
from sklearn_acs.selectors._classes import where_float64_is
from sklearn_acs.selectors.base import REMEMBERED, relative_error
from sklearn_acs.selectors.score import margins
from sklearn_acs.training.adversary import Adversary
from sklearn_acs.training.cost import CostMeter
from sklearn_acs.training.progress import Progress
from sklearn_acs.training.recorder import FactorRecorder, LossRecorder

BranchLoss = Callable[[Logits, Tensor], Tensor]

Advance = Callable[[int], None]
"""Is told of so many samples done."""

SELECT_BY = ("sample", "class", "batch")

GRADIENTS_FROM = ("fresh", "last")

MIN_GROUPS = 64
"""Batches to choose from at least, so that a small data set is not all or nothing; they are then smaller."""


def skip(n_samples: int) -> None:
    """Show nothing of samples done."""


@dataclass(eq=False)
class Selection:
    """Chooses coresets of the samples that a training goes through.

    Attributes
    ----------
    selector : BaseSelector
        What chooses.
    select_by : {"sample", "class", "batch"}
        Choose among all samples, within each class, or among random batches by their summed gradients.
    n_select : int
        Samples in a coreset; see `coreset_size`.
    random_state : numpy.random.RandomState
        Forms the batches of ``select_by="batch"`` and seeds the selector.
    adversary, validating : Adversary
        Attack the samples, and those held out.
    held_out : Batches or None
        For selectors that ask for validation samples.
    layer : nn.Linear or None
        The module's last layer, for selectors that match gradients.
    recorder : FactorRecorder or None
        Has the gradients of the last training steps, which are taken once all samples have been seen.
    losses : LossRecorder or None
        Has the losses of the last training steps, for selectors that go by them.
    coresets : dict of Coreset
        All of them, by the epoch that they were selected in, counted from 0; only the last of a selector that chooses
        in every epoch.
    seen : ndarray of bool, of shape (n,), or None
        Which samples coresets have had since all had been in one; for selectors that ask for it.
    """

    selector: BaseSelector
    select_by: str
    n_select: int
    random_state: np.random.RandomState
    adversary: Adversary
    validating: Adversary
    held_out: Batches | None = None
    layer: nn.Linear | None = None
    recorder: FactorRecorder | None = None
    losses: LossRecorder | None = None
    coresets: dict[int, Coreset] = field(default_factory=dict)
    seen: np.ndarray | None = None
    seconds: float = 0.0  # that the last selection took

    def __post_init__(self) -> None:
        own = getattr(self.selector, "random_state", None)
        if own is not None:  # it goes on drawing from a generator of its own
            self.random_state = check_random_state(own)

    def select(self, epoch: int, module: nn.Module, batches: Batches, meter: CostMeter, progress: Progress) -> Coreset:
        """Choose the coreset of an epoch and point the batches at it."""
        meter.enter("selection")
        given: dict[str, Any] = {}
        gradients: LastLayerGradients | None = None
        advance = progress.advance
        if self.recorder is not None and self.recorder.complete:
            gradients = where_float64_is(self.recorder.gradients(batches.sample_weight))
        elif self.layer is not None:
            gradients = last_layer_gradients(module, self.layer, batches, self.adversary, advance=advance)
        for score in {"loss", "margin"}.intersection(self.selector.fit_inputs):
            given["scores"] = sample_scores(module, score, batches, self.adversary, advance)
        if "validation" in self.selector.fit_inputs:
            given["validation"] = self.validation_gradients(module, advance)
        found = [values.isfinite() for values in (gradients, *given.values()) if values is not None]
        if not all(torch.as_tensor(finite).all() for finite in found):
            raise FloatingPointError(
                f"training diverged before epoch {epoch + 1}: gradients or losses are not finite. A smaller lr may help"
            )
        meter.enter("solver")
        given |= self._remembered(len(batches.data))
        how = self.select_by, self.n_select, batches.batch_size, self.random_state
        coreset = choose(self.selector, gradients, batches.data.y, *how, **given)
        if not self.selector.needs_pass:
            self.coresets.clear()
        self.coresets[epoch] = coreset
        if self.seen is not None:
            labels = batches.data.y.cpu().numpy() if self.select_by == "class" else None
            self.seen = seen_after(self.seen, coreset, labels)
        batches.use_coreset(coreset.indices, coreset.weights)
        return coreset

    def validation_gradients(self, module: nn.Module, advance: Advance = skip) -> LastLayerGradients:
        """Compute gradients of the cross-entropy of one branch at the samples held out, unweighted.

        What has to fall is the loss under attack (Li et al. 2023, Eq. 5), whatever else the objective adds up, and
        the clean loss only for an objective that attacks nothing.
        """
        assert self.layer is not None and self.held_out is not None
        branch = ADVERSARIAL if ADVERSARIAL in self.validating.objective.branches else CLEAN

        def loss(logits: Logits, y: Tensor) -> Tensor:
            return cross_entropy(logits[branch], y)

        return last_layer_gradients(module, self.layer, self.held_out, self.validating, loss, branch, advance)

    def _remembered(self, n_samples: int) -> dict[str, Any]:
        """Read what the selector asks for and training remembers."""
        found: dict[str, Any] = {}
        if self.losses is not None:
            found["losses"] = self.losses.losses
        if "seen" in self.selector.fit_inputs:
            self.seen = np.zeros(n_samples, dtype=bool) if self.seen is None else self.seen
            found["seen"] = self.seen
        return found

    @property
    def last(self) -> Coreset | None:
        """The coreset in use."""
        return next(reversed(self.coresets.values()), None)

    def state_dict(self) -> dict[str, Any]:
        """Name the coresets, the generator's state, and the gradients recorded."""
        recorders = {name: each.state_dict() for name, each in self._recorders()}
        random = self.random_state.get_state()
        return {"coresets": dict(self.coresets), "random": random, "seen": self.seen, "recorders": recorders}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.coresets = dict(state["coresets"])
        self.random_state.set_state(state["random"])
        self.seen = state["seen"]
        for name, each in self._recorders():
            each.load_state_dict(state["recorders"][name])

    def _recorders(self) -> list[tuple[str, Any]]:
        members = {"factors": self.recorder, "losses": self.losses}
        return [(name, each) for name, each in members.items() if each is not None]


def coreset_size(n_samples: int, coreset_frac: float, select_by: str, batch_size: int) -> int:
    """Calculate the samples in a coreset: the fraction asked for, in whole batches where batches are chosen."""
    if select_by == "batch":
        n_groups = group_count(n_samples, batch_size)
        return round(max(1, round(coreset_frac * n_groups)) * n_samples / n_groups)
    return max(1, round(coreset_frac * n_samples))


def group_count(n_samples: int, batch_size: int) -> int:
    """Calculate how many random batches ``select_by="batch"`` chooses among."""
    size = max(1, min(batch_size, n_samples // MIN_GROUPS))
    return ceil(n_samples / size)


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
    loss, n, end = loss or adversary.objective.loss, len(batches.data), 0
    branches: list[tuple[Tensor, Tensor]] = []
    for batch in batches.everything():
        inputs = adversary.inputs(module, batch)
        inputs = inputs if branch is None else {branch: inputs[branch]}
        with frozen(module):
            factors = batch_factors(module, layer, loss, inputs, batch.y)
        # Written where they stay: parts to be joined would take the memory of all of them twice.
        branches = branches or [(g.new_empty(n, g.shape[1]), h1.new_empty(n, h1.shape[1])) for g, h1 in factors]
        begin, end = end, end + len(batch.y)
        for (all_g, all_h1), (g, h1) in zip(branches, factors, strict=True):
            all_g[begin:end], all_h1[begin:end] = batch.weight[:, None] * g, h1
        advance(len(batch.y))
    return where_float64_is(LastLayerGradients(branches))


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


def choose(
    selector: BaseSelector,
    gradients: LastLayerGradients | None,
    y: Tensor,
    select_by: str,
    n_select: int,
    batch_size: int,
    random_state: np.random.RandomState,
    **given: Any,
) -> Coreset:
    """Choose about `n_select` samples: among all, within each class, or as whole random batches.

    A selector that goes by what training remembers has nothing to gain from batches, and chooses among all samples.

    Without `gradients` the selector goes by what else is `given`, arguments of its `fit`, or by the number of samples
    alone, and the error is not known (NaN).
    """
    n = len(y)
    known = gradients is not None
    gradients = gradients or as_gradients(torch.zeros(n, 1))
    selector = clone(selector)
    if "random_state" in selector.get_params():
        selector.set_params(random_state=random_state.randint(np.iinfo(np.int32).max))
    if select_by == "batch" and not set(selector.fit_inputs) & REMEMBERED:
        n_groups = group_count(n, batch_size)
        groups = random_state.permutation(n) % n_groups  # as equal in size as can be
        selector.set_params(n_select=max(1, round(n_select * n_groups / n)), per_class=False)
        # Sums and not means: the batches' sizes differ by one, and what is matched is the sum over all samples. In
        # units of the mean size, since the step that Glister takes along them has a length.
        sizes = torch.from_numpy(np.bincount(groups) * n_groups / n).to(gradients.device, gradients.dtype)
        sums = gradients.mean_by(groups) * sizes[:, None]
        given = selector.for_groups(gradients, groups, **given)
        coreset = expand(selector.fit(sums, **given).coreset_, groups, gradients)
    else:
        if "n_select" in selector.get_params():
            selector.set_params(n_select=n_select)
        selector.set_params(per_class=select_by == "class")
        coreset = selector.fit(gradients, y.cpu().numpy(), **given).coreset_
    if known:
        return coreset
    unknown = float("nan")
    return replace(coreset, error=unknown, classes=tuple(part._replace(error=unknown) for part in coreset.classes))


def seen_after(seen: np.ndarray, coreset: Coreset, labels: np.ndarray | None) -> np.ndarray:
    """Add a coreset to the samples seen; where all have been, or all of a class by its labels, begin anew."""
    support = np.zeros_like(seen)
    support[coreset.indices] = True
    after = seen | support
    for rows in [np.arange(len(seen))] if labels is None else [labels == label for label in np.unique(labels)]:
        if after[rows].all():
            after[rows] = (support & seen)[rows]  # those drawn for a second time
    return after


def expand(batches: Coreset, groups: np.ndarray, gradients: LastLayerGradients) -> Coreset:
    """Turn a coreset of batches into one of their members, each with its batch's weight."""
    weight_of_group = np.zeros(groups.max() + 1)
    weight_of_group[batches.indices] = batches.weights
    indices = np.flatnonzero(np.isin(groups, batches.indices))
    weights = weight_of_group[groups]
    error = relative_error(gradients.exact_sum(torch.from_numpy(weights)), gradients.exact_sum())
    n_matched = int(np.isin(groups, batches.indices[: batches.n_matched]).sum())
    reason = f"of batches: {batches.stop_reason}"
    whole = ClassSelection(None, len(groups), len(indices), n_matched, float(weights.sum()), error, reason)
    return Coreset(indices, weights[indices], n_matched, reason, error, (whole,))
