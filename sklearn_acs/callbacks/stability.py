"""StabilityTracker counts how often each sample's adversarial example was misclassified in training."""

from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata
from sklearn.exceptions import NotFittedError
from skorch.callbacks import Callback
from torch import Tensor, nn

from sklearn_acs.data.batches import Batch
from sklearn_acs.models import frozen
from sklearn_acs.training.net import AdversarialNet
from sklearn_acs.training.training import Training


class StabilityTracker(Callback):
    """Counts in how many epochs of a training each sample was seen, and in how many it was misclassified.

    What is classified is what training goes through: the adversarial example of the training step, the clean sample
    where the objective has no other. Every `fit` that the same tracker is given to is a run of its own, and
    `scores_` averages over the runs.

    Parameters
    ----------
    minimum : bool, default=False
        Whether to measure how small a perturbation would do as well, see `minimum_`. Takes 5 more forward passes per
        sample that is trained on; an epoch with a 10-step attack has 11, and as many backward.

    Attributes
    ----------
    n_runs_ : int
        Fits that were tracked for an epoch or more.
    times_seen_ : ndarray of int, of shape (n_runs_, n_samples)
        Epochs in which each sample was trained on.
    times_wrong_ : ndarray of int, of shape (n_runs_, n_samples)
        Epochs in which it was misclassified.
    scores_ : ndarray of shape (n_samples,)
        Mean over the runs of the sample's rank, from 1 on, by the share of its epochs in which it was misclassified:
        low is stable. Ties share their mean rank. A sample that a run never trained on (its weight is 0, say) gets
        the middle rank there, so that neither end of the ranking begins with it.
    minimum_ : ndarray of shape (n_runs_, n_samples)
        With `minimum`, the smallest adversarial share of each sample's perturbation, a mean over its epochs: the least
        t, in eighths, for which ``x + t (x' - x)`` is misclassified after the training step. 0 is misclassified as it
        is, 1 withstands all, or all but the last eighth. NaN for samples never seen.

    See Also
    --------
    ScoreSelector : Keeps the samples of lowest scores.

    Notes
    -----
    1. All arrays are aligned with the X of `fit`, and all runs have to be on the same samples.
    2. Ranks go by the share and not by the number of wrong epochs, so that training on coresets, where samples are
       seen unequally often, can be tracked too. In ordinary training both are the same, and the paper's.
    3. Predictions stay on the device until the epoch ends; an epoch that is cut short does not count.
    4. A warm-started `fit` and a `partial_fit` are runs as well.
    5. With ``InBatchSelection(when="after")`` clean samples are trained on beside adversarial ones, and count too.

    References
    ----------
    C. Dong, L. Liu, J. Shang, "Data Quality Matters For Adversarial Training: An Empirical Study", 2021,
    arXiv:2102.07437: ranks averaged over 10 runs of PGD training, and the most stable samples kept.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_acs import RobustClassifier, ScoreSelector, StabilityTracker
    >>> X, y = load_iris(return_X_y=True)
    >>> tracker = StabilityTracker()
    >>> for seed in range(2):
    ...     clf = RobustClassifier(selector=None, max_epochs=4, callbacks=[tracker], random_state=seed).fit(X, y)
    >>> tracker.n_runs_, tracker.scores_.shape
    (2, (150,))
    >>> clf = RobustClassifier(selector=ScoreSelector(scores=tracker.scores_, order="lowest"), select_by="class")
    """

    def __init__(self, *, minimum: bool = False) -> None:
        self.minimum = minimum
        self.runs_: list[np.ndarray] = []  # (2, n_samples) each: seen, wrong
        self.sums_: list[np.ndarray] = []  # (n_samples,) each: of the smallest adversarial shares

    @property
    def n_runs_(self) -> int:
        """How many fits were tracked."""
        return len(self.runs_)

    @property
    def times_seen_(self) -> np.ndarray:
        """Epochs in which each sample was trained on, run by run."""
        return self._all_counts()[:, 0]

    @property
    def times_wrong_(self) -> np.ndarray:
        """Epochs in which each sample was misclassified, run by run."""
        return self._all_counts()[:, 1]

    @property
    def scores_(self) -> np.ndarray:
        """Mean rank of each sample over the runs; low is stable."""
        return np.mean([_ranks(seen, wrong) for seen, wrong in self._all_counts()], axis=0)

    @property
    def minimum_(self) -> np.ndarray:
        """Smallest adversarial share of each sample's perturbation, a mean over its epochs, run by run."""
        if not self.minimum:
            raise AttributeError("minimum_ is there with StabilityTracker(minimum=True) alone")
        seen = self.times_seen_
        return np.divide(np.stack(self.sums_), seen, out=np.full(seen.shape, np.nan), where=seen > 0)

    def on_train_begin(self, net: AdversarialNet, **kwargs: Any) -> None:
        """Begin a run."""
        n = net.training_.n_given
        if self.runs_ and n != self.runs_[0].shape[1]:
            raise ValueError(
                f"this StabilityTracker has followed trainings on {self.runs_[0].shape[1]} samples, and X has {n}: "
                "other samples need a tracker of their own"
            )
        self.counts_, self.sum_ = np.zeros((2, n), dtype=np.int64), np.zeros(n)
        self._begin_epoch()

    def on_epoch_begin(self, net: AdversarialNet, **kwargs: Any) -> None:
        """Forget an epoch that was cut short."""
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        self.rows_: list[Tensor] = []
        self.wrong_: list[Tensor] = []
        self.minima_: list[Tensor] = []

    def on_batch_end(
        self,
        net: AdversarialNet,
        trained: Batch | None = None,
        inputs: dict[str, Tensor] | None = None,
        y_pred: Tensor | None = None,
        **kwargs: Any,
    ) -> None:
        """Keep, on the device, which samples were trained on and which of them were misclassified."""
        if trained is None:  # samples held out
            return
        assert inputs is not None and y_pred is not None
        self.rows_.append(trained.rows)
        self.wrong_.append(y_pred.argmax(1) != trained.y)
        if self.minimum:
            with net.training_.checking():
                last = next(reversed(inputs.values()))
                self.minima_.append(smallest_adversarial(net.training_.module, trained.x, last, trained.y))

    def on_epoch_end(self, net: AdversarialNet, **kwargs: Any) -> None:
        """Read the epoch from the device and count; a run counts from its first whole epoch on."""
        training: Training = net.training_
        rows, wrong = training.rows[torch.cat(self.rows_).cpu().numpy()], torch.cat(self.wrong_).cpu().numpy()
        if not self.counts_.any():
            self.runs_.append(self.counts_)
            self.sums_.append(self.sum_)
        self.counts_ += [np.bincount(found, minlength=training.n_given) for found in (rows, rows[wrong])]
        if self.minimum:
            minima = torch.cat(self.minima_).cpu().numpy()
            self.sum_ += np.bincount(rows, minima, minlength=training.n_given)
        self.rows_, self.wrong_, self.minima_ = [], [], []

    def state_dict(self) -> dict[str, Any]:
        """Name what all runs have counted, the present one among them, and what its epoch under way has seen."""
        parts = {"rows": self.rows_, "wrong": self.wrong_, "minima": self.minima_}
        amid = {name: torch.cat(each) if each else None for name, each in parts.items()}
        return {"runs": [*self.runs_], "sums": [*self.sums_], "counts": self.counts_, "sum": self.sum_, **amid}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the counts of another tracker."""
        self.runs_, self.sums_ = [*state["runs"]], [*state["sums"]]
        self.counts_, self.sum_ = state["counts"].copy(), state["sum"].copy()
        if self.counts_.any():  # the run that goes on is the last of them
            self.runs_[-1], self.sums_[-1] = self.counts_, self.sum_
        self.rows_, self.wrong_, self.minima_ = (
            [] if state.get(name) is None else [state[name]] for name in ("rows", "wrong", "minima")
        )

    def _all_counts(self) -> np.ndarray:
        if not self.runs_:
            raise NotFittedError("StabilityTracker has followed no training; pass it to one as callbacks=[tracker].")
        return np.stack(self.runs_)  # (n_runs, 2, n_samples)


@torch.no_grad()
def smallest_adversarial(module: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, halvings: int = 3) -> Tensor:
    """Find the least share of each perturbation that is misclassified, to ``2 ** -halvings``; 1 where none is.

    By bisection along the way from x to x_adv, in eval mode.
    """
    with frozen(module):
        low, high = torch.zeros(len(y), device=x.device), torch.ones(len(y), device=x.device)
        wrong_at_once = module(x).argmax(1) != y
        withstood = module(x_adv).argmax(1) == y
        for _ in range(halvings):
            middle = (low + high) / 2
            wrong = module(torch.lerp(x, x_adv, middle.reshape(-1, *[1] * (x.ndim - 1)).to(x))).argmax(1) != y
            low, high = torch.where(wrong, low, middle), torch.where(wrong, middle, high)
    return high.masked_fill(withstood, 1.0).masked_fill(wrong_at_once, 0.0)


def _ranks(seen: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Rank by the share of wrong epochs; samples never seen get the middle rank."""
    known = seen > 0
    ranks = np.full(len(seen), (known.sum() + 1) / 2)
    ranks[known] = rankdata(wrong[known] / seen[known])
    return ranks
