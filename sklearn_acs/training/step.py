"""Step attacks a batch, computes a loss for each sample, and the gradients of their weighted mean."""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from sklearn_acs.data.batches import Batch
from sklearn_acs.objectives import ADVERSARIAL
from sklearn_acs.training.adversary import Adversary
from sklearn_acs.training.cost import StepClock
from sklearn_acs.training.in_batch import InBatchSelection
from sklearn_acs.training.precision import uncompiled
from sklearn_acs.training.recorder import FactorRecorder, LossRecorder


@dataclass(eq=False)
class Step:
    """Computes the gradients of a training step.

    Attributes
    ----------
    module : nn.Module
        What is trained.
    adversary : Adversary
        Attacks each batch; its objective is what is minimised.
    scaler : GradScaler
        Scales losses in float16, and does nothing otherwise.
    clock : StepClock
        Times the attack.
    in_batch : InBatchSelection or None
        Which samples of a batch are trained on.
    recorder : FactorRecorder or None
        Keeps last-layer gradients, in epochs whose gradients a selection wants.
    losses : LossRecorder or None
        Keeps losses, for a selection that goes by them.
    """

    module: nn.Module
    adversary: Adversary
    scaler: GradScaler
    clock: StepClock
    in_batch: InBatchSelection | None = None
    recorder: FactorRecorder | None = None
    losses: LossRecorder | None = None

    def backward(self, batch: Batch, optimizer: Optimizer) -> dict[str, Any]:
        """Attack the batch, and leave the gradients of its weighted mean loss on the parameters.

        Returns
        -------
        dict
            "loss", and for callbacks "y_pred" (logits of the last branch), "trained" (the samples that are left of
            the batch) and "inputs" (of each branch).
        """
        module, adversary, objective = self.module, self.adversary, self.adversary.objective
        chosen_after = self.in_batch is not None and self.in_batch.when == "after"
        if self.in_batch is not None and not chosen_after:
            batch = self.in_batch.before_attack(module, objective, batch)
        inputs = adversary.inputs(module, batch)
        if self.in_batch is not None and chosen_after:
            batch, inputs = self.in_batch.after_attack(module, adversary, batch, inputs)
        self.clock.mark("attack")

        module.train()
        with nullcontext() if self.recorder is None else self.recorder.watching():
            logits: dict[str, Tensor] = {branch: module(x) for branch, x in inputs.items()}
        losses = objective.loss(logits, batch.y)
        if self.recorder is not None:
            self.recorder.keep(batch, logits, losses)
        if self.losses is not None:
            self.losses.keep(batch, losses)
        with uncompiled(module):
            penalty = objective.penalty(
                module, batch.x, batch.y, attack=adversary.current, clip=adversary.clip, generator=adversary.generator
            )
        loss = (batch.weight * (losses if penalty is None else losses + penalty)).mean()
        if not loss.requires_grad:
            raise ValueError(
                f"the logits of module={type(module).__name__} have no gradient: they are detached from its "
                "parameters, or callbacks have frozen all of these; there is nothing to train"
            )
        self.scaler.scale(loss).backward()
        if self.scaler.is_enabled():
            self.scaler.unscale_(optimizer)  # before callbacks look at gradients, or clip them
        y_pred = next(reversed(logits.values())).detach()
        if ADVERSARIAL in logits and not chosen_after:  # else it has been told of the whole batch
            adversary.attack.observe(y_pred, batch.y)
        return {"loss": loss.detach(), "y_pred": y_pred, "trained": batch, "inputs": inputs}
