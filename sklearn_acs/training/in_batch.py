"""InBatchSelection lets training take the hardest samples of each batch alone."""

from dataclasses import KW_ONLY, dataclass
from math import ceil
from numbers import Real
from typing import Any, ClassVar

import torch
from sklearn.base import BaseEstimator
from skorch.callbacks import Callback
from torch import Tensor, nn

from sklearn_acs._compat import Interval, StrOptions
from sklearn_acs.attacks.base import cross_entropy
from sklearn_acs.data.batches import Batch
from sklearn_acs.models import frozen
from sklearn_acs.objectives import ADVERSARIAL, CLEAN, Objective
from sklearn_acs.training.adversary import Adversary

__all__ = ["InBatchSelection"]


@dataclass(eq=False, repr=False)
class InBatchSelection(BaseEstimator, Callback):
    """Keeps the share of each batch whose loss is largest, to train on.

    Parameters
    ----------
    share : float in (0, 1] or "adaptive", default=0.5
        How much of a batch is kept, rounded up. "adaptive" begins with everything and multiplies the share by the
        error rate of each epoch, down to `min_share`.
    when : {"before", "after"}, default="before"
        "before" chooses by the clean cross-entropy and attacks only what it keeps, which saves the others' attacks.
        "after" attacks all and chooses by the objective's loss, which saves no more than a part of the update. An
        objective that looks at adversarial examples alone then gets the clean samples as well, each an example of
        its own, as published.
    min_share : float in (0, 1], default=0.1
        The least that "adaptive" keeps.

    Attributes
    ----------
    share_ : float
        The share that the next epoch would keep, on the copy in ``clf.net_.training_.in_batch``.

    See Also
    --------
    RobustClassifier : Takes it as `in_batch`, with or without a coreset.

    Notes
    -----
    1. Losses are compared in eval mode by a forward pass without gradients, one per sample; the chosen ones then go
       through a training step of their own. The published code sends the whole batch forward in train mode and
       part of it backward: as most of its time is the attack's, it saved 2.1 %.
    2. The published adaptive share is multiplied by every epoch's error rate and vanishes within a few epochs.
       `min_share` ends that.
    3. Each epoch of the history has `in_batch_share`, `clean_taken` and `adversarial_taken`: how many clean samples and
       how many adversarial examples training took.

    References
    ----------
    "Adversarial training with informed data selection", 2023, arXiv:2301.04472.

    Examples
    --------
    >>> from sklearn_acs import InBatchSelection, RobustClassifier
    >>> RobustClassifier(in_batch=InBatchSelection(share=0.3))
    RobustClassifier(in_batch=InBatchSelection(share=0.3))
    """

    _parameter_constraints: ClassVar[dict] = {
        "share": [Interval(Real, 0, 1, closed="right"), StrOptions({"adaptive"})],
        "when": [StrOptions({"before", "after"})],
        "min_share": [Interval(Real, 0, 1, closed="right")],
    }

    share: float | str = 0.5
    _: KW_ONLY
    when: str = "before"
    min_share: float = 0.1

    def validate(self) -> None:
        """Raise ValueError when a parameter is out of range; called once before any work."""
        self._validate_params()

    def state_dict(self) -> dict[str, Any]:
        """Name the share that the next epoch would keep, and what the epoch under way has counted."""
        return {"share": self.share_, "taken": added(self._taken), "judged": added(self._judged)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the share of another training, and with its counts."""
        self.share_ = state["share"] if self.share == "adaptive" else float(self.share)
        self._judged: list[Tensor] = counted(state.get("judged"))  # samples wrong, samples judged
        self._taken: list[Tensor] = counted(state.get("taken"))  # clean samples, adversarial examples

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        """Begin with the share asked for."""
        if net.training_.in_batch is not self:
            raise ValueError("InBatchSelection does not go into `callbacks`: give it to RobustClassifier as `in_batch`")
        self.share_ = 1.0 if self.share == "adaptive" else float(self.share)
        self._judged, self._taken = [], []

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        """Let go of what is on the device."""
        self._judged.clear()
        self._taken.clear()

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        """Count anew."""
        self._judged, self._taken = [], []

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Read the epoch's counts from the device, and adapt the share."""
        clean, adversarial = added(self._taken)
        net.history.record("in_batch_share", self.share_)
        net.history.record("clean_taken", clean)
        net.history.record("adversarial_taken", adversarial)
        if self.share == "adaptive":
            wrong, judged = added(self._judged)
            self.share_ = max(self.min_share, self.share_ * wrong / judged)

    def before_attack(self, module: nn.Module, objective: Objective, batch: Batch) -> Batch:
        """Take the hardest samples of a batch, to attack and to train on."""
        with frozen(module), torch.no_grad():
            logits = module(batch.x)
        keep = self._hardest(cross_entropy(logits, batch.y), logits, batch.y)
        sees_clean, sees_adversarial = (branch in objective.branches for branch in (CLEAN, ADVERSARIAL))
        self._taken.append(torch.tensor([len(keep) * sees_clean, len(keep) * sees_adversarial]))
        return batch.take(keep)

    def after_attack(
        self, module: nn.Module, adversary: Adversary, batch: Batch, inputs: dict[str, Tensor]
    ) -> tuple[Batch, dict[str, Tensor]]:
        """Take the hardest samples of a batch that has been attacked, and their inputs, to train on."""
        n_clean = len(batch.y)
        if set(inputs) == {ADVERSARIAL}:
            inputs = {ADVERSARIAL: torch.cat([batch.x, inputs[ADVERSARIAL]])}
            batch = batch.take(torch.arange(2 * n_clean, device=batch.x.device) % n_clean)
        with frozen(module), torch.no_grad():
            logits = {branch: module(x) for branch, x in inputs.items()}
        if ADVERSARIAL in logits:
            adversary.attack.observe(logits[ADVERSARIAL][-n_clean:], batch.y[-n_clean:])
        keep = self._hardest(adversary.objective.loss(logits, batch.y), next(reversed(logits.values())), batch.y)
        if len(batch.y) > n_clean:
            n_clean_kept = (keep < n_clean).sum()
            self._taken.append(torch.stack([n_clean_kept, len(keep) - n_clean_kept]))
        else:
            self._taken.append(torch.tensor([len(keep) * (branch in inputs) for branch in (CLEAN, ADVERSARIAL)]))
        return batch.take(keep), {branch: x[keep] for branch, x in inputs.items()}

    def _hardest(self, losses: Tensor, logits: Tensor, y: Tensor) -> Tensor:
        """Find the positions of the largest losses, ascending; two at least where there are, for BatchNorm's sake."""
        wrong = (logits.argmax(1) != y).sum()
        self._judged.append(torch.stack([wrong, torch.full_like(wrong, len(y))]))
        n_kept = min(len(y), max(2, ceil(self.share_ * len(y))))
        return losses.argsort(descending=True, stable=True)[:n_kept].sort().values


def counted(sums: list[int] | None) -> list[Tensor]:
    """Begin counting with what `added` has found."""
    return [torch.tensor(sums)] if sums else []


def added(counts: list[Tensor]) -> list[int]:
    """Add up pairs of counts, with one reading from each device that has some."""
    on_device: dict[torch.device, list[Tensor]] = {}
    for pair in counts:
        on_device.setdefault(pair.device, []).append(pair)
    sums = [torch.stack(pairs).sum(0).tolist() for pairs in on_device.values()]
    return [sum(pair) for pair in zip(*sums, strict=True)] if sums else [0, 0]
