"""Learning stability: how often each sample's adversarial example was misclassified while a model was trained."""

from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata
from sklearn.exceptions import NotFittedError
from skorch.callbacks import Callback
from torch import Tensor

from sklearn_acs.training.batches import Batch
from sklearn_acs.training.net import AdversarialNet


class StabilityTracker(Callback):
    """Counts in how many epochs of a training each sample was seen, and in how many it was misclassified.

    What is classified is what training goes through: the adversarial example of the training step, the clean sample
    where the objective has no other. Every `fit` that the same tracker is given to is a run of its own, and
    `scores_` averages over the runs.

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

    def __init__(self) -> None:
        self.runs_: list[np.ndarray] = []  # (2, n_samples) each: seen, wrong

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

    def on_train_begin(self, net: AdversarialNet, **kwargs: Any) -> None:
        """Begin a run."""
        n = net.run_.n_given
        if self.runs_ and n != self.runs_[0].shape[1]:
            raise ValueError(
                f"this StabilityTracker has followed trainings on {self.runs_[0].shape[1]} samples, and X has {n}: "
                "other samples need a tracker of their own"
            )
        self.counts_ = np.zeros((2, n), dtype=np.int64)

    def on_epoch_begin(self, net: AdversarialNet, **kwargs: Any) -> None:
        """Forget an epoch that was cut short."""
        self.rows_: list[Tensor] = []
        self.wrong_: list[Tensor] = []

    def on_batch_end(
        self, net: AdversarialNet, trained: Batch | None = None, y_pred: Tensor | None = None, **kwargs: Any
    ) -> None:
        """Remember who was trained on, and, on the device, who of them was misclassified."""
        assert trained is not None and y_pred is not None
        self.rows_.append(trained.rows)
        self.wrong_.append(y_pred.argmax(1) != trained.y)

    def on_epoch_end(self, net: AdversarialNet, **kwargs: Any) -> None:
        """Read the epoch from the device and count; a run counts from its first whole epoch on."""
        rows, wrong = net.run_.rows[torch.cat(self.rows_).numpy()], torch.cat(self.wrong_).cpu().numpy()
        if not self.counts_.any():
            self.runs_.append(self.counts_)
        self.counts_ += [np.bincount(found, minlength=net.run_.n_given) for found in (rows, rows[wrong])]
        self.rows_, self.wrong_ = [], []

    def _all_counts(self) -> np.ndarray:
        if not self.runs_:
            raise NotFittedError("StabilityTracker has followed no training; pass it to one as callbacks=[tracker].")
        return np.stack(self.runs_)  # (n_runs, 2, n_samples)


def _ranks(seen: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Ranks by the share of wrong epochs, the middle one for samples never seen."""
    known = seen > 0
    ranks = np.full(len(seen), (known.sum() + 1) / 2)
    ranks[known] = rankdata(wrong[known] / seen[known])
    return ranks
