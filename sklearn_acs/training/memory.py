"""PerturbationMemory keeps the perturbation that each sample had last, in the frame without augmentation."""

from math import prod
from shutil import disk_usage
from tempfile import TemporaryFile, gettempdir
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklearn_acs.attacks.balls import Ball, per_sample
from sklearn_acs.attacks.threat import Threat
from sklearn_acs.data.batches import Batch
from sklearn_acs.data.training_data import TrainingData
from sklearn_acs.training.journal import JournaledRows, reserve

LEVELS = 127
"""Positive steps of 8 bits."""

STATE = ("_levels", "_largest", "_renewed", "epoch")


class PerturbationMemory:
    """Keeps the last perturbation of every sample of a data set, in 8 bits a value.

    A value is kept in steps of its sample's largest one over 127, both in radii of the ball, so that every norm and
    every feature's own bound keep their precision: 1 byte a value and 4 a sample, 154 MB for CIFAR-10.

    Parameters
    ----------
    threat : Threat
        The ball that they are in.
    shape : tuple of int
        Number of samples, and the shape of one.
    device : torch.device
        Where it is kept.
    max_age : int or None, default=None
        Epochs after which a perturbation is forgotten; None is never.
    on_disk : bool, default=False
        Keep it in a memory map instead, a temporary file that goes with the object. An OSError says where the disk is
        too small for it.
    journaled : bool, default=False
        Keep what is on disk as `JournaledRows`, for checkpoints; whoever makes these opens its files.

    Attributes
    ----------
    epoch : int
        The epoch that goes on; whoever trains counts it.
    """

    def __init__(
        self,
        threat: Threat,
        shape: tuple[int, ...],
        device: torch.device,
        *,
        max_age: int | None = None,
        on_disk: bool = False,
        journaled: bool = False,
    ) -> None:
        self._levels: Tensor | JournaledRows
        if on_disk and journaled:
            self._levels = JournaledRows(shape)
        elif on_disk:
            with TemporaryFile() as file:  # the map stays when the file is closed
                reserve(file, prod(shape), gettempdir(), "Let the variable TMPDIR name a larger place")
                self._levels = torch.from_numpy(np.memmap(file, np.int8, "w+", shape=shape))
        else:
            self._levels = torch.zeros(shape, dtype=torch.int8, device=device)
        self._largest = torch.zeros(shape[0], device=self._levels.device)
        # The epoch of each sample's last perturbation.
        self._renewed = torch.full_like(self._largest, -1, dtype=torch.long)
        self.threat, self.max_age, self.on_disk, self.epoch = threat, max_age, on_disk, 0

    @property
    def journal(self) -> JournaledRows | None:
        """Where checkpoints find the perturbations, if they are on disk for these."""
        return self._levels if isinstance(self._levels, JournaledRows) else None

    @staticmethod
    def has_room(data: TrainingData) -> bool:
        """Tell whether the perturbations of a Dataset's samples find room on the disk; those of arrays need none."""
        n_bytes = len(data.y) * prod(data.format.inputs.model_shape)
        return isinstance(data.samples, Tensor) or n_bytes <= disk_usage(gettempdir()).free

    def state_dict(self) -> dict[str, Any]:
        """Name every perturbation, its size and its age."""
        state = {name: getattr(self, name) for name in STATE}
        return state if self.journal is None else {**state, "_levels": self.journal.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the perturbations of another memory of the same samples."""
        if isinstance(self._levels, JournaledRows):
            self._levels.load_state_dict(state["_levels"])
        else:
            self._levels.copy_(state["_levels"])
        self._largest.copy_(state["_largest"])
        self._renewed.copy_(state["_renewed"])
        self.epoch = state["epoch"]

    def knows(self, rows: Tensor) -> Tensor:
        """Tell which of these samples have a perturbation that is not too old."""
        renewed = self._renewed[rows.to(self._renewed.device)]
        known = renewed >= 0
        return known if self.max_age is None else known & (self.epoch - renewed <= self.max_age)

    def recall(self, batch: Batch, ball: Ball) -> Tensor:
        """Read the last perturbations of a batch, as its view shows them; zeros where there are none."""
        remembered = self._read(batch, ball)
        return ball.project(remembered if batch.view is None else batch.view.see(remembered))

    def start(self, batch: Batch, ball: Ball, fresh: Tensor) -> Tensor:
        """Read the last perturbations of a batch as its view shows them, `fresh` ones where there are none or zeros.

        Zero is no place to start from: a divergence has no gradient there.
        """
        remembered = self._read(batch, ball)
        somewhere = per_sample(remembered.flatten(1).any(1), remembered)
        if batch.view is not None:
            remembered = batch.view.see(remembered)
        return ball.project(torch.where(somewhere, remembered, fresh))

    def keep(self, batch: Batch, ball: Ball, delta: Tensor) -> None:
        """Keep a batch's perturbations; pixels that its view does not show keep their old ones."""
        if batch.view is not None:
            delta = batch.view.put_back(delta, self._read(batch, ball))
        flat = (delta / ball.eps).nan_to_num(0.0, 0.0, 0.0).flatten(1)  # a radius of 0 allows none
        largest = flat.abs().amax(1)
        steps = (flat * (LEVELS / largest.clamp(min=1e-30))[:, None]).round_()
        at, rows = self._levels.device, batch.rows.to(self._levels.device)
        self._levels[rows] = steps.reshape(delta.shape).to(at, torch.int8)
        self._largest[rows] = largest.float().to(at)
        self._renewed[rows] = self.epoch

    def _read(self, batch: Batch, ball: Ball) -> Tensor:
        """Read perturbations as they were kept, in input units; zeros where none is known."""
        rows = batch.rows.to(self._levels.device)
        largest = torch.where(self.knows(rows), self._largest[rows], 0) / LEVELS
        return self._levels[rows].to(batch.x) * per_sample(largest.to(batch.x), batch.x) * ball.eps
