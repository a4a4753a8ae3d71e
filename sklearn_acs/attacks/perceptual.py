"""Perceptual attacks: they search within a distance between the activations of a network."""

import os
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from sklearn_acs._compat import StrOptions
from sklearn_acs.attacks.balls import gaussian
from sklearn_acs.attacks.base import COUNT, POSITIVE, Attack
from sklearn_acs.attacks.features import Features, Look, looking
from sklearn_acs.attacks.lpips_networks import LPIPS_NETWORKS, check_weights, lpips_network
from sklearn_acs.attacks.perceptual_ball import PROJECTIONS, PerceptualBall
from sklearn_acs.attacks.problem import Problem, margin_loss
from sklearn_acs.attacks.radius import deviations
from sklearn_acs.data.formats import Clip, DataFormat
from sklearn_acs.models.freezing import frozen
from sklearn_acs.models.logits import predicted

NOISE = 0.01
"""Standard deviation of the start, in units of `scale`."""


@dataclass(frozen=True, kw_only=True)
class PerceptualProblem(Problem):
    """A problem with a bound on the perceptual distance."""

    look: Look  # the attacked model's logits, and the activations that are compared
    ball: PerceptualBall

    def take(self, rows: Tensor) -> Self:
        """The problem for some samples of the batch."""
        return replace(super().take(rows), ball=self.ball.take(rows))


@dataclass(eq=False, repr=False)
class PerceptualAttack(Attack):
    """Base class of attacks within a perceptual distance; a subclass says in `_ascend` how they search."""

    _parameter_constraints: ClassVar[dict] = {
        "bound": [POSITIVE],
        "steps": [COUNT],
        "step_size": [POSITIVE, None],
        "distance": [StrOptions({"self", *LPIPS_NETWORKS}), nn.Module],
        "layers": ["array-like", None],
        "weights": [str, os.PathLike, None],
        "scale": [StrOptions({"auto"}), POSITIVE, "array-like"],
        "only_correct": ["boolean"],
        "projection": [StrOptions(set(PROJECTIONS))],
    }

    cap: ClassVar[float] = 1.0

    bound: float = 0.5
    _: KW_ONLY
    steps: int = 40
    step_size: float | None = None
    distance: str | nn.Module = "alex"
    layers: Sequence[str] | None = None
    weights: str | os.PathLike | None = None
    scale: str | float | ArrayLike = "auto"
    only_correct: bool = True
    projection: str = "newton"

    def default_loss(self, logits: Tensor, y: Tensor, clean_logits: Tensor | None = None) -> Tensor:
        """What the attack raises unless told otherwise, per sample: the margin of the best wrong class."""
        return margin_loss(logits, y, self.cap)

    def targeted_loss(self, logits: Tensor, y_target: Tensor, clean_logits: Tensor | None = None) -> Tensor:
        """What the attack raises to have `y_target` predicted, per sample: the margin by which it is."""
        return (-margin_loss(logits, y_target)).clamp(max=self.cap)

    def settled(self, format: DataFormat, **options: Any) -> Self:
        """Fit a copy to the data: ``scale="auto"`` becomes the `deviations` of a classifier's table."""
        settled = super().settled(format, **options)
        in_scale = format.inputs.is_table and format.scale is not None and isinstance(self.scale, str)
        return settled.set_params(scale=deviations(format)) if in_scale else settled

    def validate(self) -> None:
        """Raise ValueError when a parameter is out of range; called once before any work."""
        super().validate()
        by_lpips = self.distance in LPIPS_NETWORKS
        if self.weights is not None and not by_lpips:
            raise ValueError(f"weights={self.weights!r} are for distance in {LPIPS_NETWORKS}, not {self.distance!r}")
        if self.weights is not None:
            check_weights(self.weights)
        if self.layers is not None and by_lpips:
            raise ValueError(f"layers={self.layers!r} are for distance='self' or a module, not {self.distance!r}")
        if self.layers is not None and not (len(self.layers) and all(isinstance(name, str) for name in self.layers)):
            raise ValueError(f"layers={self.layers!r} must be names of layers, one or more, or None")
        if not isinstance(self.scale, str) and not ((scale := np.asarray(self.scale)) >= 0).all() & (scale > 0).any():
            raise ValueError(f"scale={self.scale!r} must be 'auto' or numbers >= 0, one of them > 0")

    def __getstate__(self) -> dict[str, Any]:
        """A module is copied and pickled as it is on the CPU: the next machine may have no GPU."""
        own = {"distance": deepcopy(self.distance).cpu()} if isinstance(self.distance, nn.Module) else {}
        return {**super().__getstate__(), **own}

    @property
    def metric(self) -> str:
        """The distance and who judges: "lpips-alex", "lpips-squeeze", "lpips-self", or "lpips-own" for a module."""
        return f"lpips-{self.distance if isinstance(self.distance, str) else 'own'}"

    def measure(self, model: nn.Module, x: Tensor, x_adv: Tensor, *, clip: Clip = None) -> Tensor:
        """Measure the perceptual distance between samples, as this attack does.

        Parameters
        ----------
        model : nn.Module
            The model under attack, which judges where ``distance="self"``.
        x, x_adv : Tensor of shape (batch, ...)
            What to compare.
        clip : (float, float) or None, default=None
            The box that inputs live in; None means (0, 1) to the networks of LPIPS.

        Returns
        -------
        Tensor of shape (batch,)
        """
        with frozen(model), torch.no_grad(), self._looking(model, x, clip) as (_, features):
            return torch.linalg.vector_norm(features(x_adv) - features(x), dim=1)

    @contextmanager
    def _looking(self, model: nn.Module, x: Tensor, clip: Clip) -> Iterator[tuple[Look, Features]]:
        """Ways to look at samples like `x`: for the model's logits and what is compared, and for the latter alone."""
        if self.distance == "self":
            with looking(model, self.layers) as look:
                yield look, lambda x: look(x)[1]
        elif isinstance(self.distance, nn.Module):
            judge = self.distance.to(x.device)
            with frozen(judge), looking(judge, self.layers) as look:
                yield _beside(model, lambda x: look(x)[1])
        else:
            weights = None if self.weights is None else os.fspath(self.weights)
            network = lpips_network(self.distance, weights, x.device)
            low, high = clip or (0.0, 1.0)
            yield _beside(model, lambda x: network((x - low) / (high - low)))

    def _unit(self, x: Tensor, clip: Clip) -> float | Tensor:
        """What one step is counted in; see `scale`."""
        if isinstance(self.scale, str):
            return 1.0 if clip is None else clip[1] - clip[0]
        unit = torch.as_tensor(np.asarray(self.scale), dtype=x.dtype, device=x.device)
        if unit.ndim and unit.shape != x.shape[1:]:
            raise ValueError(
                f"scale must be a number or of the shape of one sample, {tuple(x.shape[1:])}; got {tuple(unit.shape)}"
            )
        return unit

    def _attack(self, problem: Problem, start: Tensor | None) -> Tensor:
        x, clip, clean_logits = problem.x, problem.clip, problem.clean_logits
        unit = self._unit(x, clip)
        # Drawn for all samples, so that one's start does not depend on which others are right.
        delta = NOISE * unit * gaussian(x, problem.generator) if start is None else start
        with self._looking(problem.model, x, clip) as (look, features):
            with torch.no_grad():
                needs_logits = self.only_correct and clean_logits is None
                logits, phi = look(x) if needs_logits else (clean_logits, features(x))
            ball = PerceptualBall(features, x, phi, self.bound, clip, unit)
            judged = PerceptualProblem(**vars(problem), look=look, ball=ball)
            x_adv = ball.cut(x + delta)
            if not self.only_correct or logits is None:
                return self._ascend(judged, x_adv)
            rows = (predicted(logits) == problem.y).nonzero().squeeze(1)
            if len(rows) == 0:
                return x.clone()
            return x.index_copy(0, rows, self._ascend(judged.take(rows), x_adv[rows]))

    @abstractmethod
    def _ascend(self, problem: PerceptualProblem, x_adv: Tensor) -> Tensor:
        """Make the way from the start to detached adversarial examples."""

    def _project(self, problem: PerceptualProblem, x_adv: Tensor) -> Tensor:
        return PROJECTIONS[self.projection](problem.ball, x_adv)


def _beside(model: nn.Module, features: Callable[[Tensor], Tensor]) -> tuple[Look, Features]:
    """Ways to look where another network than the model judges."""
    return lambda x: (model(x), features(x)), features
