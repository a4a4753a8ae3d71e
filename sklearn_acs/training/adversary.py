"""An Adversary attacks batches: in training, at selections, and on samples held out."""

import warnings
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sklearn_acs.attacks import Attack
from sklearn_acs.attacks.base import SAW_NAN
from sklearn_acs.data.batches import ArrayData, Batch, StreamedData
from sklearn_acs.data.formats import Clip, DataFormat
from sklearn_acs.models import frozen
from sklearn_acs.objectives import ADVERSARIAL, CLEAN, Objective
from sklearn_acs.training.memory import PerturbationMemory
from sklearn_acs.training.ramp import Ramp


@dataclass
class Adversary:
    """Attacks batches by what an objective's inner loss raises, from the perturbations remembered if there are any.

    Attributes
    ----------
    attack : Attack
        The attack, of full radius.
    objective : Objective
        Has the inner loss.
    format : DataFormat
        How samples look, and the box that they live in.
    generator : torch.Generator
        Source of its random starts, on the device of the batches.
    memory : PerturbationMemory or None
        Of the data set that the batches come from, for an attack that remembers.
    ramp : Ramp or None
        What share of the radius is attacked with; None is all of it.
    reads : bool
        Take the remembered perturbations as they are, where all of a batch are known, without an attack.
    """

    attack: Attack
    objective: Objective
    format: DataFormat
    generator: torch.Generator
    memory: PerturbationMemory | None = None
    ramp: Ramp | None = None
    reads: bool = False
    saw_nan: Tensor = field(init=False)

    def __post_init__(self) -> None:
        """Note NaN gradients on the device, from which it is read once an epoch."""
        self.saw_nan = torch.zeros((), dtype=torch.bool, device=self.generator.device)

    def tell_of_nan(self) -> None:
        """Warn where a gradient has been NaN since the last call."""
        if self.saw_nan:
            warnings.warn(SAW_NAN, stacklevel=2)
            self.saw_nan.zero_()

    @property
    def clip(self) -> Clip:
        """The box that inputs live in."""
        return self.format.clip

    @property
    def factor(self) -> float:
        """The radius that the training has come to, in full ones."""
        return 1.0 if self.ramp is None else self.ramp.factor

    @property
    def current(self) -> Attack:
        """The attack of that radius."""
        return self.attack.scaled(self.factor)

    @property
    def radius(self) -> float | None:
        """The radius that the training has come to; None where nothing is attacked or the attack has no radius."""
        return self.current.radius if ADVERSARIAL in self.objective.branches else None

    def inputs(self, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Make the inputs of each forward pass that the objective needs: clean, adversarial, or both."""
        inputs = {CLEAN: batch.x} if CLEAN in self.objective.branches else {}
        if ADVERSARIAL in self.objective.branches:
            inputs[ADVERSARIAL] = self.examples(module, batch)
        return inputs

    def examples(self, module: nn.Module, batch: Batch) -> Tensor:
        """Make adversarial examples of a batch."""
        attack = self.attack.scaled(factor := self.factor)
        if self.memory is None:
            return self._attack(attack, module, batch, None)
        ball = self.memory.threat.scaled(factor).ball(batch.x, self.clip)  # what is remembered, in radii, grows with it
        if self.reads and self.memory.knows(batch.rows).all():
            x_adv = batch.x + self.memory.recall(batch, ball)
            return x_adv if self.clip is None else x_adv.clamp_(*self.clip)
        start = self.memory.start(batch, ball, ball.start("uniform", self.generator))
        x_adv = self._attack(attack, module, batch, start)
        self.memory.keep(batch, ball, x_adv - batch.x)
        return x_adv

    def _attack(self, attack: Attack, module: nn.Module, batch: Batch, start: Tensor | None) -> Tensor:
        clean_logits = None
        if CLEAN in self.objective.branches and self.objective.attack_uses_clean:
            with frozen(module), torch.no_grad():
                clean_logits = module(batch.x)
        return attack.perturb(
            module,
            batch.x,
            batch.y,
            loss=self.objective.inner_loss,
            clip=self.clip,
            generator=self.generator,
            start=start,
            clean_logits=clean_logits,
            saw_nan=self.saw_nan,
        )


class Adversaries(NamedTuple):
    """Has the adversaries of a training, which draw from one generator, and what they remember."""

    in_training: Adversary
    at_selections: Adversary
    on_held_out: Adversary
    memory: PerturbationMemory | None


def make_adversaries(
    attack: Attack,
    selection_attack: Attack | None,
    objective: Objective,
    data: ArrayData | StreamedData,
    format: DataFormat,
    seed: int,
    ramp: Ramp | None,
    journaled: bool = False,
) -> Adversaries:
    """Make the adversaries of training, of selections and of samples held out.

    Parameters
    ----------
    attack : Attack
        That of training.
    selection_attack : Attack or None
        That of selections; None is that of training, or what it remembers.
    objective : Objective
        What the attacks raise the inner loss of.
    data : ArrayData or StreamedData
        The samples, whose perturbations may be remembered.
    format : DataFormat
        How the samples look.
    seed : int
        Of the generator.
    ramp : Ramp or None
        How the radius grows.
    journaled : bool, default=False
        Whether perturbations that are remembered on disk are kept for checkpoints.
    """
    generator = torch.Generator(device=data.device).manual_seed(seed)
    selecting = selection_attack or attack
    remembering, memory = next((each for each in (attack, selecting) if each.remembers), None), None
    if remembering is not None:
        if remembering.threat is None:
            raise ValueError(f"attack={remembering!r} remembers perturbations, but has no ball that they are in")
        shape, on_disk = (len(data), *format.inputs.model_shape), isinstance(data, StreamedData)
        memory = PerturbationMemory(
            remembering.threat, shape, data.device, max_age=remembering.max_age, on_disk=on_disk, journaled=journaled
        )

    def adversary(each: Attack, reads: bool = False) -> Adversary:
        remembered = memory if each.remembers else None
        return Adversary(each, objective, format, generator, remembered, ramp, reads)

    reads = selection_attack is None
    return Adversaries(adversary(attack), adversary(selecting, reads), adversary(selecting.without_memory()), memory)
