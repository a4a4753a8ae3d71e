"""BestState stops early: it scores held-out samples, and ends a training that finds no better weights."""

from math import inf
from time import perf_counter
from typing import Any

import torch
from skorch.callbacks import Callback

from sklearn_acs.attacks import PGD
from sklearn_acs.model import correct, robust_correct
from sklearn_acs.objectives import ADVERSARIAL, Objective
from sklearn_acs.training.net import AdversarialNet
from sklearn_acs.training.training import Training


class BestState(Callback):
    """Measures accuracy on held-out samples after every epoch, and lets the training keep the best weights.

    The accuracy is that under attack, of the weights that would predict: 5 steps of PGD in the ball of a norm, also
    where training takes one step, to which it may overfit; otherwise the training attack's own `for_evaluation`. It
    is clean where the objective attacks nothing. Among equals the last weights are kept, which were trained longest.

    Parameters
    ----------
    n_iter_no_change : int or None
        Training ends after so many epochs in a row without a better score; None never ends it.
    """

    def __init__(self, n_iter_no_change: int | None) -> None:
        self.n_iter_no_change = n_iter_no_change

    def state_dict(self) -> dict[str, int]:
        """Tell how many epochs have found no better score."""
        return {"since": self.since_}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on counting."""
        self.since_ = state["since"]

    def on_train_begin(self, net: AdversarialNet, **kwargs: Any) -> None:
        """Settle the attack."""
        training: Training = net.training_
        within, self.since_ = training.adversary.attack.for_evaluation(), 0
        threat = within.threat
        self.attack_ = within if threat is None else PGD(threat.eps, steps=5, rel_step_size=1 / 4, norm=threat.norm)
        self.column_ = score_column(training.adversary.objective)

    def on_epoch_end(self, net: AdversarialNet, **kwargs: Any) -> None:
        """Measure, keep what is best, and stop where nothing improves."""
        training: Training = net.training_
        begun, best = perf_counter(), -inf if training.best is None else training.best.score
        with training.checking():
            score = self._score(training)
        net.history.record(self.column_, score)
        net.history.record(f"{self.column_}_best", score >= best)  # for skorch's Checkpoint
        net.history.record("seconds", net.history[-1, "seconds"] + perf_counter() - begun)
        self.since_ = 0 if score > best else self.since_ + 1
        training.keep_if_best(score)
        if self.n_iter_no_change is not None and self.since_ >= self.n_iter_no_change:
            training.stop(f"no better score on samples held out in {self.since_} epochs")

    def _score(self, training: Training) -> float:
        module, held_out = training.final_module, training.held_out
        assert held_out is not None and training.held_weight is not None
        batches = held_out.aside(torch.arange(len(held_out.data)))
        if self.column_ == "valid_robust":  # from the same random starts every time
            generator = torch.Generator(device=training.net.device).manual_seed(0)
            right = robust_correct(module, batches, self.attack_, training.adversary.clip, generator)
        else:
            right = torch.cat([correct(module, x, y).cpu() for x, y in batches])
        weight = training.held_weight.double()
        return ((right * weight).sum() / weight.sum()).item()


def score_column(objective: Objective) -> str:
    """Name the column of the history that early stopping writes its score into."""
    return "valid_robust" if ADVERSARIAL in objective.branches else "valid_accuracy"
