"""CollapseGuard ends a training in which robust accuracy falls off a cliff: catastrophic overfitting."""

import warnings
from numbers import Real
from typing import Any

import torch
from sklearn.exceptions import ConvergenceWarning
from skorch.callbacks import Callback
from torch import Tensor

from sklearn_acs.attacks import FGSM, PGD
from sklearn_acs.model import robust_correct
from sklearn_acs.training.net import AdversarialNet
from sklearn_acs.training.training import Training
from sklearn_acs.training.weights import Weights

__all__ = ["CollapseGuard"]

N_SAMPLES = 128
"""Samples that are looked at: a batch, as published."""


class CollapseGuard(Callback):
    """Ends training when robust accuracy collapses, with the weights of the epoch before.

    Single-step adversarial training can overfit to its one step within an epoch ("catastrophic overfitting"): accuracy
    under one step goes on rising, and accuracy under PGD goes to 0. After every epoch this callback attacks some
    training samples with 5 steps of PGD, of the norm and radius trained against, and with one step. Where PGD finds
    their robust accuracy lower by more than `max_fall` than an epoch before, not counting what is lost under one step
    too, it restores the weights, their average and the buffers from before that epoch, stops the training, and warns.

    Parameters
    ----------
    max_fall : float, default=0.2
        Largest fall in robust accuracy from one epoch to the next, beyond that under one step, in (0, 1].

    Attributes
    ----------
    collapsed_epoch_ : int or None
        The epoch in which robust accuracy collapsed, counted from 1 as in ``history_[:, "epoch"]``; None where it did
        not.

    See Also
    --------
    FastAT : Single-step training, which brings a guard.

    Notes
    -----
    1. 128 samples are drawn once for a whole fit, from all of its data and not augmented; the published guard takes
       the first batch of each epoch. With the same samples twice, a fall is one of the model and not of the draw, and
       a new coreset, whose samples may be harder, is no collapse.
    2. The published guard looks at PGD alone, and so takes the dips of a high learning rate for collapses, from which
       training recovers in the next epoch; there accuracy falls under one step as well.
    3. Every epoch's accuracies are in the classifier's history as ``guard_accuracy`` and ``guard_one_step``, the
       collapsed epoch's too, and what they cost, 10 passes forwards and 6 backwards a sample at most, in
       ``cost_["checks"]``.
    4. The first epoch of a `fit` is compared with none; that of a `partial_fit`, with the model as it was.
       A fall spread over several epochs passes.
    5. Training is the same bits with and without a guard that finds nothing.
    6. FastAT's comes last in the list; it is ``dict(clf.net_.callbacks_)["collapse_guard"]``.

    References
    ----------
    Wong, Rice, Kolter, "Fast is better than free: Revisiting adversarial training", ICLR 2020, Section 5.4.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_acs import CollapseGuard, RobustClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> guard = CollapseGuard()
    >>> clf = RobustClassifier(attack="fgsm", max_epochs=4, callbacks=[guard], random_state=0).fit(X, y)
    >>> guard.collapsed_epoch_ is None, len(clf.history_[:, "guard_accuracy"]) == len(clf.history_)
    (True, True)
    """

    def __init__(self, max_fall: float = 0.2) -> None:
        self.max_fall = max_fall

    def on_train_begin(self, net: AdversarialNet, **kwargs: Any) -> None:
        """Draw the samples, and look at a model that has been trained before."""
        if not (isinstance(self.max_fall, Real) and 0 < self.max_fall <= 1):
            raise ValueError(f"max_fall of CollapseGuard must be a number in (0, 1]; got {self.max_fall!r}")
        training: Training = net.training_
        attack = training.adversary.attack
        if attack.for_evaluation().threat is None:
            raise ValueError(
                f"CollapseGuard attacks with PGD in the ball of a norm, and attack={attack!r} has none; use "
                "FGSM, NFGSM, PGD or one of them inside another attack, or leave the guard out (guard=None in FastAT)"
            )
        with training.checking():
            self.samples_: list[tuple[Tensor, Tensor]] = draw_samples(training)
            # Weights that are not trained yet may predict one class only, which no attack can change.
            self.accuracies_: tuple[float, float] = self._accuracies(training) if len(net.history) else (0.0, 0.0)
        self.collapsed_epoch_: int | None = None
        self.good_: list[Weights] = []

    def state_dict(self) -> dict[str, Any]:
        """Name the accuracies of the last epoch, the epoch in which they fell, and amid an epoch what was good."""
        return {"accuracies": self.accuracies_, "collapsed_epoch": self.collapsed_epoch_, "good": self.good_}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on comparing with the last epoch of another training."""
        self.accuracies_, self.collapsed_epoch_ = tuple(state["accuracies"]), state["collapsed_epoch"]
        self.good_ = state.get("good", [])

    def on_epoch_begin(self, net: AdversarialNet, **kwargs: Any) -> None:
        """Keep a copy of what was good so far."""
        self.good_ = net.training_.weights()

    def on_epoch_end(self, net: AdversarialNet, **kwargs: Any) -> None:
        """Look at the samples again; go on, or go back and end the training."""
        training: Training = net.training_
        with training.checking():
            (before, one_before), (after, one_after) = self.accuracies_, self._accuracies(training)
        self.accuracies_ = after, one_after
        net.history.record("guard_accuracy", after)
        net.history.record("guard_one_step", one_after)
        if before - after - max(0.0, one_before - one_after) <= self.max_fall:
            self.good_ = []
            return
        self.collapsed_epoch_ = len(net.history)
        training.restore(self.good_)
        self.good_ = []
        found = f"robust accuracy collapsed in epoch {self.collapsed_epoch_}, from {before:.2f} to {after:.2f}"
        warnings.warn(
            f"{found} on {sum(len(y) for _, y in self.samples_)} training samples; training ends with the weights from "
            "before that epoch. FastAT(start='noise'), a larger gradalign, a smaller lr or eps, or more attack steps "
            "may help",
            ConvergenceWarning,
            stacklevel=2,
        )
        training.stop(found)

    def on_train_end(self, net: AdversarialNet, **kwargs: Any) -> None:
        """Let go of the samples and of the weights."""
        self.samples_, self.good_ = [], []

    def _accuracies(self, training: Training) -> tuple[float, float]:
        """Measure accuracy of the samples under PGD, from the same random starts every time, and under one step."""
        generator = torch.Generator(device=training.net.device).manual_seed(0)
        threat = training.adversary.current.for_evaluation().threat
        assert threat is not None
        self.attack_ = PGD(threat.eps, steps=5, rel_step_size=1 / 4, norm=threat.norm)  # as published
        both = (
            robust_correct(training.module, self.samples_, attack, training.adversary.clip, generator)
            for attack in (self.attack_, FGSM(threat.eps, norm=threat.norm))
        )
        under_pgd, under_one_step = (right.double().mean().item() for right in both)
        return under_pgd, under_one_step


def draw_samples(training: Training) -> list[tuple[Tensor, Tensor]]:
    """Draw training samples, once for all."""
    batches = training.batches
    rows = torch.randperm(len(batches.data), generator=torch.Generator().manual_seed(0))[:N_SAMPLES]
    return list(batches.aside(rows))
