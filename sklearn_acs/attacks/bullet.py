"""Bullet-Train spends an attack's steps where they matter, on samples near the decision boundary."""

from dataclasses import KW_ONLY, dataclass, field
from numbers import Real
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from sklearn_acs._compat import Interval
from sklearn_acs.attacks.base import ATTACKS, COUNT, POSITIVE, Attack
from sklearn_acs.attacks.problem import Problem
from sklearn_acs.attacks.threat import Threat
from sklearn_acs.data.formats import DataFormat
from sklearn_acs.models.logits import predicted
from sklearn_acs.params import make_part

_STRIDE = 3  # a robust sample's step in those of the attack, as published: 6/255 and 2/255


@dataclass(eq=False, repr=False)
class BulletTrain(Attack):
    """Bullet-Train: it runs another attack, with fewer steps for samples that do not need them; for training.

    The clean prediction sorts each batch into three groups. Outliers are misclassified as they are: they are not
    attacked. Of the others, those predicted most surely are robust and get `robust_steps` steps; the rest are near
    the boundary and get the whole attack. How sure a prediction is says the standard deviation of its probabilities,
    and how many samples count as robust is learned: a moving average of `gamma` times the accuracy that training
    sees under attack.

    Parameters
    ----------
    attack : Attack, str or None, default=None
        The attack around which steps are saved: one with `steps`, as PGD; None is ``PGD()``.
    robust_steps : int, default=2
        Steps for robust samples.
    robust_step_size : float or None, default=None
        Length of these; None is three times the step of PGD, and what `robust_steps` mean to other attacks.
    gamma : float, default=0.8
        Share, in [0, 1], of the samples right under attack that is taken for robust.
    momentum : float, default=0.9
        Of the moving average, in [0, 1).

    Attributes
    ----------
    robust_share_ : float or Tensor
        The moving average; 0 before training, when no sample counts as robust.

    See Also
    --------
    PGD : The attack that it is mostly used around.

    Notes
    -----
    1. It goes with every objective and every ball, and selections use it as well. Costs one forward pass per sample
       for the groups, none where the objective has computed clean logits, and what the groups' attacks cost.
    2. The average learns from the training step's own predictions of the adversarial examples, made in train mode;
       that costs nothing, and attacks outside of training leave it as it is.
    3. Robustness is measured with the attack itself: see `for_evaluation`.

    References
    ----------
    Hua, Zhang, Guo, Wang, Suh, "BulletTrain: Accelerating robust neural network training via boundary example
    mining", NeurIPS 2021.

    Examples
    --------
    >>> from sklearn_acs import PGD, BulletTrain, RobustClassifier
    >>> RobustClassifier(objective="trades", attack=BulletTrain(PGD()))
    RobustClassifier(attack=BulletTrain(attack=PGD()), objective='trades')
    """

    _parameter_constraints: ClassVar[dict] = {
        "attack": [Attack, str, None],
        "robust_steps": [COUNT],
        "robust_step_size": [POSITIVE, None],
        "gamma": [Interval(Real, 0, 1, closed="both")],
        "momentum": [Interval(Real, 0, 1, closed="left")],
    }

    attack: Attack | str | None = None
    _: KW_ONLY
    robust_steps: int = 2
    robust_step_size: float | None = None
    gamma: float = 0.8
    momentum: float = 0.9
    robust_share_: float | Tensor = field(default=0.0, init=False)

    def validate(self) -> None:
        """Raise ValueError when a parameter is out of range; called once before any work."""
        super().validate()
        whole = self._whole()
        whole.validate()
        if "steps" not in whole.get_params():
            raise ValueError(f"attack={whole!r} of BulletTrain takes no number of steps, so that none can be saved")

    @property
    def threat(self) -> Threat | None:
        """The ball of the attack inside."""
        return self._whole().threat

    @property
    def radius(self) -> float | None:
        """That of the attack inside."""
        return self._whole().radius

    @property
    def remembers(self) -> bool:
        """Whether the attack inside does."""
        return self._whole().remembers

    @property
    def max_age(self) -> int | None:  # type: ignore[override]
        """How old what the attack inside remembers may get."""
        return self._whole().max_age

    @property
    def starts_at_sample(self) -> bool:
        """Whether the attack inside does."""
        return self._whole().starts_at_sample

    def settled(self, format: DataFormat, **options: Any) -> Self:
        """Make a copy around the attack inside, settled."""
        return self.with_params(attack=self._whole().settled(format, **options))

    def scaled(self, factor: float) -> Self:
        """Make a copy around the attack inside with another radius, which has learned as much; see `Attack.scaled`."""
        if factor == 1:
            return self
        robust_step_size = self.robust_step_size and factor * self.robust_step_size
        made = self.with_params(attack=self._whole().scaled(factor), robust_step_size=robust_step_size)
        made.load_state_dict(self.state_dict())
        return made

    def for_evaluation(self) -> Attack:
        """What measures robustness against the attack itself: all its steps, for every sample."""
        return self._whole().for_evaluation()

    def default_loss(self, logits: Tensor, y: Tensor, clean_logits: Tensor | None = None) -> Tensor:
        """What the attack raises unless told otherwise, per sample."""
        return self._whole().default_loss(logits, y, clean_logits)

    def targeted_loss(self, logits: Tensor, y_target: Tensor, clean_logits: Tensor | None = None) -> Tensor:
        """What the attack raises to have `y_target` predicted, per sample."""
        return self._whole().targeted_loss(logits, y_target, clean_logits)

    def observe(self, adv_logits: Tensor, y: Tensor) -> None:
        """Learn from a training step how many samples are robust."""
        share = self.gamma * (predicted(adv_logits) == y).float().mean()
        self.robust_share_ = self.momentum * self.robust_share_ + (1 - self.momentum) * share

    def state_dict(self) -> dict[str, Any]:
        """What it has learned: the share of robust samples."""
        return {"robust_share": self.robust_share_}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the share of robust samples, where another attack has learned one."""
        self.robust_share_ = state.get("robust_share", self.robust_share_)

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: no tensor that may be on a device."""
        return {**super().__getstate__(), "robust_share_": float(self.robust_share_)}

    def groups(self, logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Sort samples by their clean logits: some are at the boundary, some robust, and the others outliers.

        Parameters
        ----------
        logits : Tensor of shape (batch, C)
            Logits of the clean samples.
        y : Tensor of shape (batch,)
            Labels 0 to C-1.

        Returns
        -------
        boundary, robust : Tensor of shape (batch,)
            Boolean masks.
        """
        right = predicted(logits) == y
        sureness = torch.where(right, 1.0, -1.0) * logits.float().softmax(1).std(1)
        share = torch.as_tensor(self.robust_share_, device=logits.device)
        threshold = sureness.quantile((1 - share).clamp(0, 1)).clamp(min=0)
        robust = right & (sureness > threshold)
        return right & ~robust, robust

    def _attack(self, problem: Problem, start: Tensor | None) -> Tensor:
        logits = problem.clean_logits
        if logits is None:
            with torch.no_grad():
                logits = problem.model(problem.x)
        whole, x_adv = self._whole(), problem.x.clone()
        brief = whole.shortened(self.robust_steps, _STRIDE)
        if self.robust_step_size is not None:
            brief = brief.with_params(step_size=self.robust_step_size)
        for attack, group in zip((whole, brief), self.groups(logits, problem.y), strict=True):
            rows = group.nonzero().squeeze(1)
            if len(rows):
                x_adv[rows] = attack._solve(problem.take(rows), None if start is None else start[rows])
        return x_adv

    def _whole(self) -> Attack:
        attack = self.attack or "pgd"
        return attack if isinstance(attack, Attack) else make_part("attack", attack, ATTACKS, base=Attack)
