"""The contract of an objective: it says which forwards it needs, what the attack raises and what training lowers."""

from abc import ABC, abstractmethod
from numbers import Real
from typing import ClassVar

import torch
from sklearn.base import BaseEstimator
from torch import Tensor, nn
from torch.nn import functional as F

from sklearn_acs._compat import Interval
from sklearn_acs.attacks import PGD, Attack
from sklearn_acs.attacks.problem import cross_entropy
from sklearn_acs.data.formats import Clip

CLEAN, ADVERSARIAL = "clean", "adversarial"

Logits = dict[str, Tensor]
"""The logits of each branch, (batch, C), under the names "clean" and "adversarial"."""


class Objective(BaseEstimator, ABC):
    """Base class of objectives. A subclass names its `branches` and writes `loss`; everything else is inherited.

    The gradients that selectors work on come for free: by Danskin's theorem the adversarial example is a constant,
    so differentiating `loss` with respect to its logits gives the last layer's gradients of every sample.

    Parameters
    ----------
    attack : Attack, str or None, default=None
        The attack it trains against; None is `default_attack`. The classifier's own `attack`, where given, wins.

    Attributes
    ----------
    branches : tuple of str
        Which forward passes `loss` needs: "clean", "adversarial" or both.
    attack_init : str
        The start that an attack with ``init="auto"`` uses in training: "uniform", "normal" or "zero".
    attack_uses_clean : bool
        Whether `inner_loss` looks at the clean logits. One forward pass per batch (not per attack step) is spent
        on them when the objective has both branches; False saves it.
    guard : float or None
        The largest fall of a batch's robust accuracy, from one epoch to the next, that training accepts; see
        `CollapseGuard`. None does not look.

    Examples
    --------
    An objective of one's own, here clean plus adversarial cross-entropy, goes with every selector:

    >>> from torch.nn.functional import cross_entropy
    >>> from sklearn_acs import RobustClassifier
    >>> from sklearn_acs.objectives import Objective
    >>> class HalfAndHalf(Objective):
    ...     branches = ("clean", "adversarial")
    ...     attack_uses_clean = False
    ...
    ...     def loss(self, logits, y):
    ...         return sum(cross_entropy(logits[b], y, reduction="none") for b in self.branches) / 2
    >>> RobustClassifier(objective=HalfAndHalf())
    RobustClassifier(objective=HalfAndHalf())
    """

    _parameter_constraints: ClassVar[dict] = {"attack": [Attack, str, None]}

    branches: ClassVar[tuple[str, ...]]
    attack_init: ClassVar[str] = "uniform"
    attack_uses_clean: ClassVar[bool] = True
    guard: float | None = None

    def __init__(self, attack: Attack | str | None = None) -> None:
        self.attack = attack

    def validate(self) -> None:
        """Raise ValueError when a parameter is out of range; called once before any work."""
        self._validate_params()

    def default_attack(self) -> Attack:
        """Return the attack it trains against where none is given; its radius is then fitted to the data.

        One that remembers is replaced by its `without_memory` where samples cannot be remembered, as in `partial_fit`.
        """
        return PGD(init="previous", steps=1)

    def check_attack(self, attack: Attack) -> None:
        """Raise ValueError where training against `attack` cannot work; called once before any work.

        A divergence from the clean prediction, which starts at ``attack_init="normal"``, has no gradient at the sample.
        """
        if self.attack_init == "normal" and self.attack_uses_clean and attack.starts_at_sample:
            raise ValueError(
                f"attack={attack!r} starts at the sample itself, where what {type(self).__name__} maximises has no "
                "gradient; use FGSM(random_start=True) or PGD(init='normal')"
            )

    def inner_loss(self, adv_logits: Tensor, y: Tensor, clean_logits: Tensor | None) -> Tensor:
        """What the attack raises, per sample; cross-entropy unless a subclass says otherwise.

        With an attribute `success` it tells too what success is, see `Attack.perturb`; without one, restarts attack
        every sample, and keep what it rates highest.

        Parameters
        ----------
        adv_logits : Tensor of shape (batch, C)
            Logits at the current perturbation.
        y : Tensor of shape (batch,)
            Labels 0 to C-1.
        clean_logits : Tensor of shape (batch, C) or None
            Detached logits at the clean samples, where the objective has both branches and `attack_uses_clean`.

        Returns
        -------
        Tensor of shape (batch,)
        """
        return cross_entropy(adv_logits, y)

    @abstractmethod
    def loss(self, logits: Logits, y: Tensor) -> Tensor:
        """What training lowers, per sample.

        Parameters
        ----------
        logits : dict of Tensor of shape (batch, C)
            One entry for each of `branches`.
        y : Tensor of shape (batch,)
            Labels 0 to C-1.

        Returns
        -------
        Tensor of shape (batch,)
        """

    def penalty(
        self, model: nn.Module, x: Tensor, y: Tensor, *, attack: Attack, clip: Clip, generator: torch.Generator
    ) -> Tensor | None:
        """What training lowers besides, for terms that look at more than the logits; None unless a subclass has one.

        Selections do not see it: its gradient is not one of the last layer's factors.

        Parameters
        ----------
        model : nn.Module
            The model being trained, in train mode.
        x : Tensor of shape (batch, ...)
            The clean samples.
        y : Tensor of shape (batch,)
            Labels 0 to C-1.
        attack : Attack
            The attack trained against.
        clip : (float, float) or None
            The box that inputs live in.
        generator : torch.Generator
            Source of randomness, on the device of `x`.

        Returns
        -------
        Tensor of shape (batch,) or None
            Weighted as the losses are.
        """
        return None


class CrossEntropyObjective(Objective):
    """Base class of objectives whose loss has a cross-entropy with the labels, which may be smoothed.

    Parameters
    ----------
    attack : Attack, str or None, default=None
        As in `Objective`.
    label_smoothing : float, default=0.0
        Share of a label, in [0, 1), that is spread evenly over all classes.

    Notes
    -----
    1. What training lowers is smoothed, and with it the gradients that selections look at; what the attack raises is
       not.

    References
    ----------
    Pang, Yang, Dong, Su, Zhu, "Bag of tricks for adversarial training", ICLR 2021, which finds mild smoothing to help.
    """

    _parameter_constraints: ClassVar[dict] = {
        **Objective._parameter_constraints,
        "label_smoothing": [Interval(Real, 0, 1, closed="left")],
    }

    def __init__(self, attack: Attack | str | None = None, *, label_smoothing: float = 0.0) -> None:
        super().__init__(attack)
        self.label_smoothing = label_smoothing

    def cross_entropy(self, logits: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy with the smoothed labels, per sample."""
        return F.cross_entropy(logits, y, reduction="none", label_smoothing=self.label_smoothing)
