"""The best weights on samples held out, and the end of a training that finds no better ones."""

from math import inf
from typing import Any

import torch
from skorch.callbacks import Callback
from torch import Tensor

from sklearn_acs.attacks.base import frozen
from sklearn_acs.attacks.judging import robust_correct
from sklearn_acs.callbacks.guard import guard_attack
from sklearn_acs.objectives import ADVERSARIAL
from sklearn_acs.training.net import AdversarialNet


class BestState(Callback):
    """Measures accuracy on held-out samples after every epoch; keeps the best weights, their average and the buffers.

    The accuracy is that under attack, of the weights that would predict: 5 steps of PGD in the ball of a norm, also
    where training takes one step, to which it may overfit; otherwise the training attack's own `for_evaluation`. It
    is clean where the objective attacks nothing. Among equals the last state is kept, which was trained longest.

    Parameters
    ----------
    weight : Tensor of shape (n,)
        The held-out samples' weights in the mean.
    n_iter_no_change : int or None
        Training ends after so many epochs in a row without a better score; None never ends it.

    Attributes
    ----------
    best_epoch_ : int or None
        Counted from 1, as in the history; None where no epoch was finished.
    best_score_ : float or None
        Accuracy after that epoch.
    """

    best_epoch_: int | None = None
    best_score_: float | None = None

    def __init__(self, weight: Tensor, n_iter_no_change: int | None) -> None:
        self.weight = weight
        self.n_iter_no_change = n_iter_no_change

    def on_train_begin(self, net: AdversarialNet, **kwargs: Any) -> None:
        """Settle the attack."""
        self.best_: list[dict[str, Tensor]] = []
        self.since_ = 0
        within = net.attack.for_evaluation()
        self.attack_ = within if within.threat is None else guard_attack(within.threat)
        self.column_ = "valid_robust" if ADVERSARIAL in net.criterion_.branches else "valid_accuracy"

    def on_epoch_begin(self, net: AdversarialNet, **kwargs: Any) -> None:
        """End the training where nothing improves: here, and not before all callbacks have seen the last epoch."""
        if self.n_iter_no_change is not None and self.since_ >= self.n_iter_no_change:
            raise KeyboardInterrupt  # which skorch's loop takes for the end of training

    def on_epoch_end(self, net: AdversarialNet, **kwargs: Any) -> None:
        """Measure, and keep what is best."""
        with net.run_.meter.aside("checks"):
            score = self._score(net)
        net.history.record(self.column_, score)
        best = -inf if self.best_score_ is None else self.best_score_
        self.since_ = 0 if score > best else self.since_ + 1
        if score >= best:
            self.best_epoch_, self.best_score_, self.best_ = len(net.history), score, net.weights()

    def restore(self, net: AdversarialNet) -> None:
        """Go back to the best state where there is one, however training ended, and let go of it."""
        if self.best_epoch_ is not None:
            net.restore(self.best_)
        self.best_ = []

    def _score(self, net: AdversarialNet) -> float:
        module, held_out = net.final_module_, net.run_.held_out
        batches = held_out.aside(torch.arange(len(held_out.data)))
        if self.column_ == "valid_robust":  # from the same random starts every time
            generator = torch.Generator(device=net.device).manual_seed(0)
            right = robust_correct(module, batches, self.attack_, net.clip, generator)
        else:
            with frozen(module), torch.no_grad():
                right = torch.cat([(module(x).argmax(1) == y).cpu() for x, y in batches])
        weight = self.weight.double()
        return ((right * weight).sum() / weight.sum()).item()
