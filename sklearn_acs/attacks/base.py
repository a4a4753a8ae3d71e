"""An attack perturbs a batch, and says what bounds it, what it remembers and what it has learned."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import Tensor, nn

from sklearn_acs._compat import Interval
from sklearn_acs.attacks.problem import AttackLoss, Goal, Problem, check_batch, check_labels, cross_entropy
from sklearn_acs.attacks.threat import Threat, times
from sklearn_acs.data.formats import Clip, DataFormat
from sklearn_acs.models.freezing import frozen
from sklearn_acs.models.logits import predicted
from sklearn_acs.params import numpy_values

# What parameters may be.
POSITIVE = Interval(Real, 0, None, closed="neither")
NOT_NEGATIVE = Interval(Real, 0, None, closed="left")
COUNT = Interval(Integral, 1, None, closed="left")

RADII = ("eps", "bound")
"""Names that a radius has."""

SCALED = (*RADII, "step_size")
"""Parameters that grow with the radius."""

ATTACKS: "dict[str, Callable[..., Attack]]" = {}
"""What makes an attack, by its name; the package fills it with a row for each."""
SAW_NAN = (
    "the gradient of the loss is NaN for some samples; such a gradient makes no step, so that they are attacked less "
    "than the others. Look for sqrt, log or a division at 0 in the model or the loss"
)


class Attack(BaseEstimator, ABC):
    """Base class of attacks: a subclass says in `_attack` how one start becomes one adversarial example.

    Those here are data classes, whose parameters are their fields; how they print and compare is scikit-learn's.

    See Also
    --------
    NormBoundedAttack : The base class of those in the ball of a norm.
    """

    _parameter_constraints: ClassVar[dict] = {}
    has_targeted_form: ClassVar[bool] = True
    _validated: Sequence[Any] = ()  # the values of the parameters
    restarts: int = 1
    max_age: int | None = None  # epochs after which a remembered perturbation that was not renewed is forgotten
    sizes_: Tensor  # where sizes cannot be told from examples

    @property
    def threat(self) -> Threat | None:
        """The ball of a norm that bounds perturbations, or that they defend in training; None where there is none."""
        return None

    @property
    def radius(self) -> float | None:
        """Its `eps` or `bound`, the largest where features have their own; None where it has neither, or not yet."""
        values = [value for name in RADII if (value := getattr(self, name, None)) is not None]
        return float(np.max(np.asarray(values[0]))) if values else None

    @property
    def remembers(self) -> bool:
        """Whether training starts it from the perturbation that the same sample had last; that needs a `threat`."""
        return False

    @property
    def starts_at_sample(self) -> bool:
        """Whether it begins at the sample itself, where a divergence from the clean prediction has no gradient."""
        return False

    @property
    def metric(self) -> str | None:
        """Name of what `measure` measures; None where there is no such thing."""
        return None

    def measure(self, model: nn.Module, x: Tensor, x_adv: Tensor, *, clip: Clip = None) -> Tensor | None:
        """Measure perturbations in the metric that bounds this attack.

        Parameters
        ----------
        model : nn.Module
            The model under attack, whose own activations some attacks measure by.
        x, x_adv : Tensor of shape (batch, ...)
            Clean inputs and their adversarial examples.
        clip : (float, float) or None, default=None
            The box that inputs live in.

        Returns
        -------
        Tensor of shape (batch,) or None
            In the units of the attack's bound; None where there is no such metric.
        """
        return None

    def default_loss(self, logits: Tensor, y: Tensor, clean_logits: Tensor | None = None) -> Tensor:
        """What the attack raises unless told otherwise, per sample: cross-entropy."""
        return cross_entropy(logits, y)

    def targeted_loss(self, logits: Tensor, y_target: Tensor, clean_logits: Tensor | None = None) -> Tensor:
        """What the attack raises to have `y_target` predicted, per sample: the default loss of that, lowered."""
        return -self.default_loss(logits, y_target, clean_logits)

    def for_evaluation(self) -> "Attack":
        """The attack that measures robustness against this one: itself, unless it saves steps in training alone."""
        return self

    def without_memory(self) -> "Attack":
        """The attack for samples of which nothing is remembered: itself, or what measures it where it remembers."""
        return self.for_evaluation() if self.remembers else self

    def with_params(self, **params: Any) -> Self:
        """Make the same attack with other parameters."""
        return type(self)(**{**self.get_params(deep=False), **params})

    def shortened(self, steps: int, stride: float) -> Self:
        """Make the same attack with `steps` steps at most, `stride` times as long where it can say so."""
        return self.with_params(steps=min(steps, self.get_params(deep=False)["steps"]))

    def scaled(self, factor: float) -> Self:
        """Make the same attack with `factor` times its radius, and with steps as much longer where they are in units.

        Parameters
        ----------
        factor : float
            In (0, 1]; 1 gives the attack itself.

        Returns
        -------
        Attack
        """
        if factor == 1:
            return self
        given = {name: getattr(self, name, None) for name in SCALED}
        return self.with_params(**{name: times(factor, value) for name, value in given.items() if value is not None})

    def settled(self, format: DataFormat, *, init: str | None = None, threat: Threat | None = None) -> Self:
        """Fit a copy of the attack to the data.

        Parameters
        ----------
        format : DataFormat
            How samples look, their box, and the scale of each feature or channel where it is known.
        init : str or None, default=None
            What ``init="auto"`` means; None leaves it.
        threat : Threat or None, default=None
            The norm and radius of an attack that has no radius of its own; None fits one to the data.

        Returns
        -------
        Attack
            Another object; this one is left as it is.

        Raises
        ------
        ValueError
            Where the attack does not go with samples of this shape.
        """
        return self.with_params()

    def observe(self, adv_logits: Tensor, y: Tensor) -> None:
        """Be told the (detached) logits of a training step's adversarial examples, from which an attack may learn."""

    def state_dict(self) -> dict[str, Any]:
        """What the attack has learned in training, as numbers and tensors; nothing for most."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what another attack has learned, as far as this one knows it."""

    def validate(self) -> None:
        """Raise ValueError when a parameter is out of range; called once before any work."""
        self._validate_params()

    def perturb(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        y_target: Tensor | None = None,
        loss: AttackLoss | None = None,
        clip: Clip = None,
        generator: torch.Generator | None = None,
        start: Tensor | None = None,
        clean_logits: Tensor | None = None,
        saw_nan: Tensor | None = None,
    ) -> Tensor:
        """Make adversarial examples of one batch.

        Parameters
        ----------
        model : nn.Module
            Maps inputs to logits. Its modes, BatchNorm statistics and `requires_grad` flags are the same afterwards.
        x : Tensor of shape (batch, ...)
            Clean inputs.
        y : Tensor of shape (batch,)
            Labels 0 to C-1. Attacks that spare samples which are wrong as they are go by these, targeted or not.
        y_target : Tensor of shape (batch,) or None, default=None
            The class that each sample is to be taken for; success is that it is predicted. None is any but `y`.
        loss : callable or None, default=None
            ``loss(adv_logits, y, clean_logits) -> (batch,)``, raised by the attack; see Notes. None is the attack's
            own, cross-entropy for most.
        clip : (float, float) or None, default=None
            The box that inputs live in, (0, 1) for images.
        generator : torch.Generator or None, default=None
            Source of the random starts, on the device of `x`. None makes a fresh one with a fixed seed, so that the
            global generator is neither read nor changed.
        start : Tensor of shape (batch, ...) or None, default=None
            First perturbation, cut to the box and, in a norm's ball, projected into that; None draws it.
        clean_logits : Tensor of shape (batch, C) or None, default=None
            The model's (detached) logits at `x`, handed on to `loss`.
        saw_nan : Tensor of bool, of shape (), or None, default=None
            Becomes True, on its device, where a gradient is NaN, in place of the warning: training, whose steps do not
            wait for a GPU, reads it once an epoch.

        Returns
        -------
        Tensor of shape (batch, ...)
            The adversarial examples, detached.

        Raises
        ------
        ValueError
            If a parameter is out of range, labels do not go with `x` or with the model's classes, `y_target` and `loss`
            are given both, or `y_target` to an attack that has no targeted form.

        Warns
        -----
        UserWarning
            If a gradient is NaN. Such a gradient makes no step.

        Notes
        -----
        1. Samples whose attack has succeeded are spared further restarts, and keep the success. A `loss` says what
           success is by an attribute ``success(adv_logits, y, clean_logits) -> (batch,)`` of bools. Without one, as
           with the inner losses of objectives, it is not known: every sample takes part in all restarts and rounds,
           and keeps the run of highest loss.
        2. A `loss` always sees the whole batch, in the order given, with logits of 0 for samples that are not under
           attack: it may hold a target, or anything else, for each sample.
        3. Under ``torch.inference_mode()`` it does as under ``torch.no_grad()``.

        Examples
        --------
        >>> import torch
        >>> from sklearn_acs import PGD
        >>> model, x = torch.nn.Linear(4, 3), torch.rand(5, 4)
        >>> y, y_target = model(x).argmax(1), model(x).argmin(1)
        >>> x_adv = PGD(eps=9.0, restarts=2).perturb(model, x, y, y_target=y_target)
        >>> bool((model(x_adv).argmax(1) == y_target).all())
        True
        """
        if y_target is not None and loss is not None:
            raise ValueError("y_target and loss both say what to raise; give one of them")
        if y_target is not None and not self.has_targeted_form:
            raise ValueError(f"{type(self).__name__} has no targeted form; leave y_target out, or use PGD")
        self._validate_once()
        others = {"y_target": y_target, "start": start, "clean_logits": clean_logits}
        clip = check_batch(model, x, y, clip, loss=loss, generator=generator, **others)
        with torch.inference_mode(False), torch.enable_grad():
            x, y, y_target, start, clean_logits = map(_ordinary, (x, y, y_target, start, clean_logits))
            y, y_target = y.long(), y_target if y_target is None else y_target.long()
            if len(x) == 0:
                return x.clone()
            generator = generator or torch.Generator(device=x.device).manual_seed(0)
            goal = self._goal(y, y_target, loss, clean_logits)
            found = torch.zeros((), dtype=torch.bool, device=x.device) if saw_nan is None else saw_nan
            problem = Problem(model, x, y, goal, clip, generator, clean_logits, found)
            with frozen(model):
                try:
                    x_adv = self._solve(problem, start)
                except (IndexError, RuntimeError) as error:
                    if "out of bounds" in str(error):
                        check_labels(problem, y_target, error)
                    raise
        if saw_nan is None and found:
            warnings.warn(SAW_NAN, stacklevel=2)
        return x_adv

    def _validate_once(self) -> None:
        """Validate, unless the parameters are those that were validated last."""
        values = [getattr(self, name) for name in self._parameter_constraints]
        if len(values) != len(self._validated) or any(a is not b for a, b in zip(values, self._validated, strict=True)):
            self.validate()
            self._validated = values

    def _goal(self, y: Tensor, y_target: Tensor | None, loss: AttackLoss | None, clean_logits: Tensor | None) -> Goal:
        if loss is not None:
            success = getattr(loss, "success", lambda logits, y, _: torch.zeros_like(y, dtype=torch.bool))
        elif y_target is not None:
            loss, y, success = self.targeted_loss, y_target, lambda logits, y, _: predicted(logits) == y
        else:
            loss, success = self.default_loss, lambda logits, y, _: predicted(logits) != y
        return Goal(loss, success, y, clean_logits)

    def _solve(self, problem: Problem, start: Tensor | None) -> Tensor:
        """Make all runs on a frozen model, with Python's numbers in place of NumPy's, which may wrap or be refused."""
        given = {name: getattr(self, name) for name in self._parameter_constraints}
        self.__dict__.update(plain := numpy_values(given))
        try:
            return self._runs(problem, start)
        finally:
            self.__dict__.update({name: given[name] for name in plain})

    def _runs(self, problem: Problem, start: Tensor | None) -> Tensor:
        """Make all runs; a sample keeps its first success, or else the run of highest loss."""
        x_adv = self._attack(problem, start)
        if self.restarts == 1:
            return x_adv
        value, done = problem.judge(x_adv)
        sizes = getattr(self, "sizes_", None)  # of attacks that remember them; each run leaves its own
        for _ in range(self.restarts - 1):
            left = (~done).nonzero().squeeze(1)
            if len(left) == 0:
                break
            part = problem.take(left)
            again = self._attack(part, None)
            new_value, new_done = part.judge(again)
            better = new_done | (new_value > value[left])
            x_adv[left[better]] = again[better]
            value[left[better]] = new_value[better]
            done[left] = new_done
            if sizes is not None:
                sizes[left[better].cpu()] = self.sizes_[better.cpu()]
        if sizes is not None:
            self.sizes_ = sizes
        return x_adv

    @abstractmethod
    def _attack(self, problem: Problem, start: Tensor | None) -> Tensor:
        """Make one run from one start on a frozen model; returns detached adversarial examples."""


def _ordinary(given: Any) -> Any:
    """Detach a tensor, and copy one made in inference mode, which autograd refuses; None stays None."""
    if given is None:
        return None
    return given.detach().clone() if given.is_inference() else given.detach()
