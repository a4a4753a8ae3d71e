"""EMA averages the weights over the steps of training; the average predicts better than the last weights do."""

from copy import deepcopy
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar

import torch
from sklearn.base import BaseEstimator
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from sklearn_acs._compat import Interval
from sklearn_acs.training.weights import fits, load_weights, weights_of

__all__ = ["AVERAGES", "EMA", "WeightAverage"]


@dataclass(eq=False, repr=False)
class EMA(BaseEstimator):
    """Averages the weights exponentially: ``average = d * average + (1 - d) * weights`` after each step.

    Predictions, scores, adversarial examples and evaluations use the average; training goes on with the weights
    themselves, which attacks and selections look at meanwhile. It costs no pass through the network.

    Parameters
    ----------
    decay : float, default=0.995
        Share of the average that each step keeps, in [0, 1), once training is long: at step t, counted from 0, it is
        d = ``min(decay, (1 + t) / (10 + t))``, so that short trainings soon forget their initial weights. 0.995
        looks back over 200 steps, from step 1800 on.

    See Also
    --------
    RobustClassifier : Takes one as its `averaging`; ``"ema"``, the default, is this class with its default.

    Notes
    -----
    1. BatchNorm's running means and variances are averaged with the same d. Means of activations are linear in the
       weights that they come from, so that, to first order, their average is right for the averaged weights; the
       statistics of the last weights would not be. Counters and other integers are copied.
    2. The source's average begins after 2.5 % of the training and copies BatchNorm's statistics.
    3. Where the learning rate falls to 0, as with ``lr_schedule="one-cycle"``, the last weights are an average
       already, and this one is close to them; at a high rate it differs most.

    References
    ----------
    Gowal, Qin, Uesato, Mann, Kohli, "Uncovering the limits of adversarial training against norm-bounded adversarial
    examples", 2020, arXiv:2010.03593.
    Izmailov, Podoprikhin, Garipov, Vetrov, Wilson, "Averaging weights leads to wider optima and better
    generalization", UAI 2018.

    Examples
    --------
    >>> from sklearn_acs import EMA, RobustClassifier
    >>> RobustClassifier(averaging__decay=0.999)
    RobustClassifier(averaging__decay=0.999)
    >>> EMA().decay_at(0), EMA().decay_at(10_000)
    (0.1, 0.995)
    """

    _parameter_constraints: ClassVar[dict] = {"decay": [Interval(Real, 0, 1, closed="left")]}

    decay: float = 0.995

    def validate(self) -> None:
        """Raise ValueError when a parameter is out of range; called once before any work."""
        self._validate_params()

    def decay_at(self, step: int) -> float:
        """Tell which share of the average step `step` keeps, counted from 0."""
        return min(self.decay, (1 + step) / (10 + step))


Pairs = tuple[list[Tensor], list[Tensor]]

AVERAGES: dict[str, type[EMA]] = {"ema": EMA}


class WeightAverage:
    """Keeps the average of the weights of a module being trained, as a module like it.

    Parameters
    ----------
    trained : nn.Module
        Is not copied.
    averaging : EMA
        How much each step keeps.
    """

    def __init__(self, trained: nn.Module, averaging: EMA) -> None:
        self.trained, self.averaging = trained, averaging
        self.module, self.n_steps = deepcopy(trained), 0

    def state_dict(self) -> dict[str, Any]:
        """Name the averaged weights, and how many steps they have followed."""
        return {"weights": weights_of(self.module), "n_steps": self.n_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from another average."""
        load_weights(self.module, state["weights"])
        self.n_steps = state["n_steps"]

    @torch.no_grad()
    def follow(self, finite: set[str]) -> None:
        """Move the average towards the weights of a step, in few kernels.

        Buffers are looked up anew each time, since `forward` may put other tensors in their place.

        Parameters
        ----------
        finite : set of str
            Names of buffers that hold numbers alone. The others, as masks of -inf, have no average and are copied.
        """
        averaged: Pairs = [*self.module.parameters()], [*self.trained.parameters()]
        copied: Pairs = [], []
        averages = dict(self.module.named_buffers())
        for name, value in self.trained.named_buffers():
            if not fits(averages.get(name), value):
                owner, _, short = name.rpartition(".")
                self.module.get_submodule(owner)._buffers[short] = value.clone()
                continue
            pairs = averaged if name in finite and value.is_floating_point() else copied
            pairs[0].append(averages[name])
            pairs[1].append(value)
        get_ema_multi_avg_fn(self.averaging.decay_at(self.n_steps))(*averaged, self.n_steps)
        if copied[0]:
            torch._foreach_copy_(*copied)
        self.n_steps += 1
