"""Selection attacks every sample, reads its last-layer gradient, and lets a selector choose a coreset."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from math import ceil
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils import check_random_state
from torch import Tensor, nn

from sklearn_acs.attacks.base import cross_entropy
from sklearn_acs.data.batches import Batches
from sklearn_acs.gradients import LastLayerGradients, as_gradients
from sklearn_acs.objectives import ADVERSARIAL, CLEAN
from sklearn_acs.objectives.base import Logits
from sklearn_acs.selectors import BaseSelector, ClassSelection, Coreset
from sklearn_acs.selectors._classes import where_float64_is
from sklearn_acs.selectors.base import REMEMBERED, relative_error
from sklearn_acs.training.adversary import Adversary
from sklearn_acs.training.cost import CostMeter
from sklearn_acs.training.passes import Advance, gradient_sums, last_layer_gradients, sample_scores, skip
from sklearn_acs.training.progress import Progress
from sklearn_acs.training.recorder import FactorRecorder, LossRecorder

SELECT_BY = ("sample", "class", "batch")

Sums = Callable[[np.ndarray], Tensor]
"""``sums(groups) -> (n_groups, C * (D + 1))``: the gradients of the samples of each group, added up."""

GRADIENTS_FROM = ("fresh", "last")

MIN_GROUPS = 64
"""Batches to choose from at least, so that a small data set is not all or nothing; they are then smaller."""


def check_finite(epoch: int, *found: Any) -> None:
    """Raise FloatingPointError if gradients or losses of those found are not finite."""
    values = [each.isfinite() for each in found if hasattr(each, "isfinite")]
    if not all(torch.as_tensor(finite).all() for finite in values):
        raise FloatingPointError(
            f"training diverged before epoch {epoch + 1}: gradients or losses are not finite. A smaller lr may help"
        )


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
        gradients, given = self.look(epoch, module, batches, meter, progress.advance)
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

    def look(
        self, epoch: int, module: nn.Module, batches: Batches, meter: CostMeter, advance: Advance
    ) -> tuple[LastLayerGradients | Sums | None, dict[str, Any]]:
        """Make the passes that the selector asks for: gradients, if it does, and what else its `fit` is given."""
        meter.enter("selection")
        given: dict[str, Any] = {}
        gradients: LastLayerGradients | Sums | None = None
        if self.recorder is not None and self.recorder.complete:
            gradients = where_float64_is(self.recorder.gradients(batches.sample_weight))
        elif self.layer is not None and self.select_by == "batch" and not self.selector.groups_by_samples:
            gradients = partial(self._sums, epoch, module, batches, meter, advance)
        elif self.layer is not None:
            gradients = last_layer_gradients(module, self.layer, batches, self.adversary, advance=advance)
        for score in {"loss", "margin"}.intersection(self.selector.fit_inputs):
            given["scores"] = sample_scores(module, score, batches, self.adversary, advance)
        if "validation" in self.selector.fit_inputs:
            given["validation"] = self.validation_gradients(module, advance)
        check_finite(epoch, gradients, *given.values())
        return gradients, given

    def _sums(
        self,
        epoch: int,
        module: nn.Module,
        batches: Batches,
        meter: CostMeter,
        advance: Advance,
        groups: np.ndarray,
    ) -> Tensor:
        """Add up the gradients of each group of samples while they are made, so that those of samples are not kept."""
        assert self.layer is not None
        with meter.aside("selection"):
            sums = gradient_sums(module, self.layer, batches, self.adversary, groups, advance)
        check_finite(epoch, sums)
        return sums

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


def choose(
    selector: BaseSelector,
    gradients: LastLayerGradients | Sums | None,
    y: Tensor,
    select_by: str,
    n_select: int,
    batch_size: int,
    random_state: np.random.RandomState,
    **given: Any,
) -> Coreset:
    """Choose about `n_select` samples: among all, within each class, or as whole random batches.

    A selector that goes by what training remembers has nothing to gain from batches, and chooses among all samples.

    `gradients` are those of the samples, or for batches a function that adds them up by groups. Without them the
    selector goes by what else is `given`, arguments of its `fit`, or by the number of samples alone, and the error is
    not known (NaN).
    """
    n = len(y)
    known = gradients is not None
    gradients = as_gradients(torch.zeros(n, 1)) if gradients is None else gradients
    selector = clone(selector)
    if "random_state" in selector.get_params():
        selector.set_params(random_state=random_state.randint(np.iinfo(np.int32).max))
    if select_by == "batch" and not set(selector.fit_inputs) & REMEMBERED:
        n_groups = group_count(n, batch_size)
        groups = random_state.permutation(n) % n_groups  # as equal in size as can be
        selector.set_params(n_select=max(1, round(n_select * n_groups / n)), per_class=False)
        # Sums and not means: the batches' sizes differ by one, and what is matched is the sum over all samples. In
        # units of the mean size, since the step that Glister takes along them has a length.
        if isinstance(gradients, LastLayerGradients):
            sizes = torch.from_numpy(np.bincount(groups) * n_groups / n).to(gradients.device, gradients.dtype)
            sums = gradients.mean_by(groups) * sizes[:, None]
            given = selector.for_groups(gradients, groups, **given)
        else:
            sums = gradients(groups) * (n_groups / n)
        coreset = expand(selector.fit(sums, **given).coreset_, groups, sums.double())
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


def expand(batches: Coreset, groups: np.ndarray, sums: Tensor) -> Coreset:
    """Turn a coreset of batches, whose gradients add up to `sums`, into one of their members with its weights."""
    weight_of_group = np.zeros(len(sums))
    weight_of_group[batches.indices] = batches.weights
    indices = np.flatnonzero(np.isin(groups, batches.indices))
    weights = weight_of_group[groups]
    error = relative_error(torch.from_numpy(weight_of_group).to(sums) @ sums, sums.sum(0))
    n_matched = int(np.isin(groups, batches.indices[: batches.n_matched]).sum())
    reason = f"of batches: {batches.stop_reason}"
    whole = ClassSelection(None, len(groups), len(indices), n_matched, float(weights.sum()), error, reason)
    return Coreset(indices, weights[indices], n_matched, reason, error, (whole,))
