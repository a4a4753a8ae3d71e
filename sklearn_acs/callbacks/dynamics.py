"""Dynamics counts how many samples are outliers, at the boundary or robust, epoch by epoch."""

from numbers import Integral
from typing import Any

import torch
from sklearn.base import clone
from skorch.callbacks import Callback

from sklearn_acs.attacks import PGD, Attack
from sklearn_acs.model import correct
from sklearn_acs.table import Table
from sklearn_acs.training.net import AdversarialNet
from sklearn_acs.training.training import Training

__all__ = ["Dynamics"]

STEPS = 5
"""Gradient steps that tell boundary samples from robust ones, as in the paper's figure."""

COLUMNS = ("outlier", "boundary", "robust", "clean_taken", "adversarial_taken")


class Dynamics(Callback):
    """Counts after each epoch how many training samples are outliers, at the boundary, and robust.

    Outliers are misclassified as they are, boundary samples under attack only, and robust ones are right under attack.

    Parameters
    ----------
    attack : Attack or None, default=None
        What tells them apart, without `eps` in the ball trained for. None is PGD with 5 steps in that ball, and another
        attack with 5 steps where it takes a number of steps.
    n_samples : int or None, default=None
        How many samples are looked at, evenly spaced over the data set; None looks at all. With 5 steps that takes 7
        passes forwards and 5 backwards for each; an epoch of training with 10 steps takes 11 of both.

    Attributes
    ----------
    table_ : Table
        One row per epoch: `epoch`, `outlier`, `boundary`, `robust`, and with `InBatchSelection` `clean_taken` and
        `adversarial_taken` (None without); `to_frame` makes a DataFrame of it.

    See Also
    --------
    BulletTrain : Attacks by these groups, as the clean prediction tells them.
    StabilityTracker : Counts sample by sample.

    Notes
    -----
    1. The counts also are in the classifier's `history_`, and what it takes is under "checks" in `cost_`.
    2. Training is the same bits with and without it.

    References
    ----------
    Li, Zhao, Lin, Kailkhura, Goldhahn, "Less is more: Data pruning for faster adversarial training", SafeAI 2023,
    Figure 1; "Adversarial training with informed data selection", 2023, arXiv:2301.04472, Figures 6 to 8.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_acs import Dynamics, RobustClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> dynamics = Dynamics()
    >>> clf = RobustClassifier(max_epochs=4, warmup_frac=0, callbacks=[dynamics], random_state=0).fit(X, y)
    >>> len(dynamics.table_), sum(dynamics.table_[group][0] for group in ("outlier", "boundary", "robust"))
    (4, 150)
    """

    def __init__(self, attack: Attack | None = None, *, n_samples: int | None = None) -> None:
        self.attack = attack
        self.n_samples = n_samples

    def on_train_begin(self, net: AdversarialNet, **kwargs: Any) -> None:
        """Settle the attack and the samples."""
        if not (self.attack is None or isinstance(self.attack, Attack)):
            raise TypeError(f"attack of Dynamics must be an Attack or None; got {self.attack!r}")
        if self.n_samples is not None and not (isinstance(self.n_samples, Integral) and self.n_samples >= 1):
            raise ValueError(f"n_samples of Dynamics must be None or an int of 1 or more; got {self.n_samples!r}")
        training: Training = net.training_
        within = training.adversary.attack.for_evaluation()
        self.attack_: Attack = clone(within)
        if self.attack is not None:
            self.attack_ = self.attack.settled(training.adversary.format, threat=within.threat)
        elif within.threat is not None:
            self.attack_ = PGD(within.threat.eps, steps=STEPS, norm=within.threat.norm)
        elif "steps" in within.get_params():
            self.attack_.set_params(steps=STEPS)
        self.attack_.validate()
        n = len(training.batches.data)
        self.rows_ = torch.linspace(0, n - 1, min(n, self.n_samples or n)).round().long()
        self.table_ = Table(["epoch", *COLUMNS], [])

    def on_epoch_end(self, net: AdversarialNet, **kwargs: Any) -> None:
        """Look at the samples and count."""
        training: Training = net.training_
        with training.checking():
            outlier, boundary, robust = self._count(training)
        last = net.history[-1]
        for name, count in zip(COLUMNS, (outlier, boundary, robust), strict=False):
            net.history.record(name, count)
        taken = [last.get(name) for name in ("clean_taken", "adversarial_taken")]
        self.table_.rows.append([len(net.history), outlier, boundary, robust, *taken])

    def _count(self, training: Training) -> list[int]:
        module, counts = training.module, []
        generator = torch.Generator(device=training.net.device).manual_seed(0)  # the same draws after every epoch
        for x, y in training.batches.aside(self.rows_):
            right = correct(module, x, y)
            x_adv = self.attack_.perturb(module, x[right], y[right], clip=training.adversary.clip, generator=generator)
            robust = correct(module, x_adv, y[right]).sum()
            counts.append(torch.stack([(~right).sum(), right.sum() - robust, robust]))
        return torch.stack(counts).sum(0).tolist()

    def state_dict(self) -> dict[str, Any]:
        """Name the rows of the table so far."""
        return {"rows": list(self.table_.rows)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the table of another training."""
        self.table_ = Table(["epoch", *COLUMNS], state["rows"])
