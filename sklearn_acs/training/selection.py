"""The skorch callback that selects the coreset when the schedule says so and points the batches at it."""

from collections.abc import Callable
from dataclasses import replace
from math import ceil
from time import perf_counter
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils import check_random_state
from skorch.callbacks import Callback
from torch import Tensor, nn

from sklearn_acs.attacks.base import cross_entropy, frozen
from sklearn_acs.data.batches import Batches
from sklearn_acs.gradients import LastLayerGradients, as_gradients, batch_factors
from sklearn_acs.models import last_linear
from sklearn_acs.objectives import ADVERSARIAL, CLEAN
from sklearn_acs.objectives.base import Logits
from sklearn_acs.selectors import BaseSelector, ClassSelection, Coreset
from sklearn_acs.selectors.base import relative_error
from sklearn_acs.training.adversary import Adversary
from sklearn_acs.training.net import AdversarialNet
from sklearn_acs.training.recorder import FactorRecorder
from sklearn_acs.training.schedule import CoresetSchedule
from sklearn_acs.training.scores import sample_scores

BranchLoss = Callable[[Logits, Tensor], Tensor]

SELECT_BY = ("sample", "class", "batch")

GRADIENTS_FROM = ("fresh", "last")

MIN_GROUPS = 64
"""Batches to choose from at least, so that a small data set is not all or nothing; they are then smaller."""


class CoresetSelection(Callback):
    """Follows a `CoresetSchedule`: selects, points the batches at the coreset, and writes the epoch's history.

    Parameters
    ----------
    schedule : CoresetSchedule
        Which epochs select.
    selector : BaseSelector or None
        What chooses; None only where the schedule never selects.
    select_by : {"sample", "class", "batch"}
        Choose among all samples, within each class, or among random batches by their summed gradients.
    n_select : int
        Samples in a coreset; see `coreset_size`.
    gradients_from : {"fresh", "last"}
        Attack every sample for its gradient, or take that of the last training step on it.
    random_state : numpy.random.RandomState
        Forms the batches of ``select_by="batch"`` and seeds the selector.

    Attributes
    ----------
    coresets_ : dict of Coreset
        All of them, by the epoch that they were selected in, counted from 0.
    """

    def __init__(
        self,
        schedule: CoresetSchedule,
        selector: BaseSelector | None,
        select_by: str,
        n_select: int,
        gradients_from: str,
        random_state: np.random.RandomState,
    ) -> None:
        self.schedule = schedule
        self.selector = selector
        self.select_by = select_by
        self.n_select = n_select
        self.gradients_from = gradients_from
        self.random_state = random_state
        self.coresets_: dict[int, Coreset] = {}

    @property
    def needs_gradients(self) -> bool:
        """Whether a selection has to look at the gradient of every sample."""
        return self.selector is not None and "gradients" in self.selector.fit_inputs

    @property
    def attacks(self) -> bool:
        """Whether a selection has to attack every sample: for gradients or for anything else of the model's."""
        return self.selector is not None and bool(self.selector.fit_inputs)

    def prepare(self, module: nn.Module, example: Tensor, n_classes: int) -> None:
        """Find the layer whose gradients are matched, or say before any work what is wrong with the module."""
        with frozen(module), torch.no_grad():
            shape = tuple(module(example).shape)
        if shape != (len(example), n_classes):
            raise ValueError(
                f"module must give logits of shape (batch, n_classes) = {(len(example), n_classes)}; it gave {shape}"
            )
        needed = self.needs_gradients and self.schedule.n_selections
        self.layer_ = last_linear(module, example) if needed else None

    def on_train_begin(self, net: AdversarialNet, **kwargs: Any) -> None:
        """Begin the schedule; a selector with a `random_state` of its own goes on drawing from that."""
        self.epoch_ = 0
        own = getattr(self.selector, "random_state", None)
        self.random_state_ = self.random_state if own is None else check_random_state(own)
        self.coresets_ = {}
        self.recorder_: FactorRecorder | None = None
        if self.layer_ is not None and self.gradients_from == "last":
            self.recorder_ = FactorRecorder(self.layer_, len(net.run_.batches.data))

    def on_epoch_begin(self, net: AdversarialNet, **kwargs: Any) -> None:
        """Select if it is time, and say which phase the epoch belongs to."""
        run, self.begun_ = net.run_, perf_counter()
        loss = net.history[-2, "train_loss"] if len(net.history) > 1 else None
        if self.schedule.selects(self.epoch_):
            run.progress.enter("selecting", self.epoch_, loss)
            coreset = self.coresets_[self.epoch_] = self._select(net)
            run.batches.use_coreset(coreset.indices, coreset.weights)
            if run.lr_factor is not None:  # a coreset of batches may be a little larger or smaller than planned
                run.lr_factor.expect((self.schedule.n_epochs - self.epoch_) * len(run.batches))
        run.recorder = self.recorder_ if self.schedule.selects(self.epoch_ + 1) else None
        phase = self.schedule.phase(self.epoch_)
        run.progress.enter(phase, self.epoch_, loss)
        run.meter.enter(phase)
        net.history.record("phase", phase)
        net.history.record("coreset_size", len(run.batches.indices))
        last = next(reversed(self.coresets_.values()), None)
        net.history.record("approximation_error", last and last.error)

    def on_epoch_end(self, net: AdversarialNet, **kwargs: Any) -> None:
        """Count the epoch and its seconds, its selection included."""
        net.history.record("seconds", perf_counter() - self.begun_)
        self.epoch_ += 1

    def _select(self, net: AdversarialNet) -> Coreset:
        assert self.selector is not None
        meter, batches = net.run_.meter, net.run_.batches
        meter.enter("selection")
        gradients = None
        if self.recorder_ is not None and self.recorder_.complete:
            gradients = self.recorder_.gradients(batches.sample_weight)
        elif self.layer_ is not None:
            gradients = last_layer_gradients(net, self.layer_)
        given: dict[str, Any] = {}
        for score in {"loss", "margin"}.intersection(self.selector.fit_inputs):
            given["scores"] = sample_scores(net, score)
        if self.layer_ is not None and "validation" in self.selector.fit_inputs:
            assert net.run_.held_out is not None
            given["validation"] = validation_gradients(net, self.layer_, net.run_.held_out)
        found = [values.isfinite() for values in (gradients, *given.values()) if values is not None]
        if not all(torch.as_tensor(finite).all() for finite in found):
            raise FloatingPointError(
                f"training diverged before epoch {len(net.history)}: gradients or losses are not finite. "
                "A smaller lr may help"
            )
        meter.enter("solver")
        return choose(
            self.selector,
            gradients,
            batches.data.y,
            self.select_by,
            self.n_select,
            batches.batch_size,
            self.random_state_,
            **given,
        )


def last_layer_gradients(net: AdversarialNet, layer: nn.Linear) -> LastLayerGradients:
    """Gradients of the last layer at every sample's current adversarial example, as factors.

    Attacked, or read from the memory of an attack that remembers, forwarded and differentiated batch by batch on the
    same tensors, without augmentation and in eval mode, so that neither the batch's other samples nor another crop has
    a say; only the factors are kept.
    """
    run, objective = net.run_, net.criterion_
    return _gather(net, layer, run.batches, run.selecting, objective.loss, objective.branches)


def validation_gradients(net: AdversarialNet, layer: nn.Linear, held_out: Batches) -> LastLayerGradients:
    """Cross-entropy gradients at the held-out samples, one branch and unweighted: those of `Glister`'s validation loss.

    They are attacked as in training, and clean only for an objective that attacks none: what has to fall is the loss
    under attack (Li et al. 2023, Eq. 5), whatever else the objective adds up.
    """
    branch = ADVERSARIAL if ADVERSARIAL in net.criterion_.branches else CLEAN
    adversary = net.run_.validating
    assert adversary is not None
    return _gather(net, layer, held_out, adversary, lambda logits, y: cross_entropy(logits[branch], y), (branch,))


def _gather(
    net: AdversarialNet,
    layer: nn.Linear,
    batches: Batches,
    adversary: Adversary,
    loss: BranchLoss,
    branches: tuple[str, ...],
) -> LastLayerGradients:
    """Attack the batches, and differentiate `loss`, which looks at `branches`, batch by batch."""
    parts = []
    for batch in batches.everything():
        inputs = net.branch_inputs(batch, adversary)
        inputs = {branch: inputs[branch] for branch in branches}
        with frozen(net.module_):
            factors = batch_factors(net.module_, layer, loss, inputs, batch.y)
        parts.append([(batch.weight[:, None] * g, h1) for g, h1 in factors])
        net.run_.progress.advance(len(batch.y))
    return LastLayerGradients(
        [
            (torch.cat([g for g, _ in branch]), torch.cat([h1 for _, h1 in branch]))
            for branch in zip(*parts, strict=True)
        ]
    )


def coreset_size(n_samples: int, coreset_frac: float, select_by: str, batch_size: int) -> int:
    """Samples in a coreset: the fraction asked for, in whole batches where batches are chosen."""
    if select_by == "batch":
        n_groups = group_count(n_samples, batch_size)
        return round(max(1, round(coreset_frac * n_groups)) * n_samples / n_groups)
    return max(1, round(coreset_frac * n_samples))


def group_count(n_samples: int, batch_size: int) -> int:
    """Random batches that ``select_by="batch"`` chooses among."""
    size = max(1, min(batch_size, n_samples // MIN_GROUPS))
    return ceil(n_samples / size)


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

    Without `gradients` the selector goes by what else is `given`, arguments of its `fit`, or by the number of samples
    alone, and the error is not known (NaN).
    """
    n = len(y)
    known = gradients is not None
    gradients = gradients or as_gradients(torch.zeros(n, 1))
    selector = clone(selector)
    if "random_state" in selector.get_params():
        selector.set_params(random_state=random_state.randint(np.iinfo(np.int32).max))
    if select_by == "batch":
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
        selector.set_params(n_select=n_select, per_class=select_by == "class")
        coreset = selector.fit(gradients, y.cpu().numpy(), **given).coreset_
    if known:
        return coreset
    unknown = float("nan")
    return replace(coreset, error=unknown, classes=tuple(one._replace(error=unknown) for one in coreset.classes))


def expand(batches: Coreset, groups: np.ndarray, gradients: LastLayerGradients) -> Coreset:
    """A coreset of batches -> one of their members, each with its batch's weight."""
    weight_of_group = np.zeros(groups.max() + 1)
    weight_of_group[batches.indices] = batches.weights
    indices = np.flatnonzero(np.isin(groups, batches.indices))
    weights = weight_of_group[groups]
    error = relative_error(gradients.exact_sum(torch.from_numpy(weights)), gradients.exact_sum())
    n_matched = int(np.isin(groups, batches.indices[: batches.n_matched]).sum())
    reason = f"of batches: {batches.stop_reason}"
    whole = ClassSelection(None, len(groups), len(indices), n_matched, float(weights.sum()), error, reason)
    return Coreset(indices, weights[indices], n_matched, reason, error, (whole,))
