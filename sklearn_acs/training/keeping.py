"""Keeping finds a fit's place in a folder of checkpoints, by all that its result depends on."""

import random
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral
from os import PathLike
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from torch import nn

from sklearn_acs._version import __version__
from sklearn_acs.attacks import Attack
from sklearn_acs.data.datasets import Items
from sklearn_acs.data.training_data import TrainingData
from sklearn_acs.saving.identity import Identity
from sklearn_acs.training.checkpoint import STATELESS, Checkpoint
from sklearn_acs.training.place import Fit, Place, checkpoint_folder, near, places
from sklearn_acs.training.schedule import DEFAULT_EPOCHS
from sklearn_acs.training.seeds import Seeds, current_device
from sklearn_acs.training.state import keeps_state
from sklearn_acs.training.training import Training
from sklearn_acs.training.weights import weights_of

WITHOUT_SAY = {"verbose", "checkpoint", "checkpoint_seconds", "max_epochs", "warm_start", "device", "module"}
"""Parameters of which the result is no other, and those that have a part of their own in what tells fits apart."""

TORCH = "torch's"


class Keeping:
    """Finds where a fit is kept in a folder, and where it goes on.

    Parameters
    ----------
    checkpoint : str or Path
        The folder.
    seconds : float
        After which an epoch under way is kept, too.

    Raises
    ------
    ValueError, OSError
        The folder cannot be used; see `checkpoint_folder`.
    """

    def __init__(self, checkpoint: str | PathLike, seconds: float) -> None:
        self.folder, self.seconds, self.name = checkpoint_folder(checkpoint), seconds, str(checkpoint)
        self._drawn: set[str] = set()
        self._place: Place | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Note whether what is read inside draws from global generators."""
        before = _global_states()
        yield
        after = _global_states()
        self._drawn = {name for name in before if not _equal(before[name], after[name])}

    def know(
        self,
        params: Mapping[str, Any],
        attack: Attack,
        data: TrainingData,
        validation: TrainingData | None,
        before: Training | None,
        device: torch.device,
        seeds: Seeds,
    ) -> Seeds:
        """Learn which fit it is; give the seeds that it draws with, which may be those of one that was killed.

        Parameters
        ----------
        params : mapping of str to object
            The classifier's.
        attack : Attack
            What it came to with this data.
        data, validation : TrainingData
            What it trains on, and validates on.
        before : Training or None
            What it goes on from.
        device : torch.device
            Where it trains.
        seeds : Seeds
            Those that it would draw with.

        Returns
        -------
        Seeds
        """
        told, given = Identity(), {name: each for name, each in params.items() if name not in WITHOUT_SAY}
        if not isinstance(params["random_state"], Integral):
            given.pop("random_state")
            what = "None" if params["random_state"] is None else "a generator"
            told.doubts.append(f"random_state={what} gives other draws every time")
        if not any(isinstance(each.samples, Items) for each in (data, validation) if each is not None):
            self._drawn = set()
        # What items draw from torch's generator in this process is kept.
        self._unkept = self._drawn if params.get("iterator_train__num_workers") else self._drawn - {TORCH}
        told.doubts += [f"the items of X draw from {each} global generator" for each in sorted(self._drawn - {TORCH})]
        parts = {
            "parameters": told.of(sorted(given.items()), attack, told.of(params["module"], weights=False)),
            "data": self._data_digest(told, data),
            "validation": self._data_digest(told, validation),
            "start": told.of(None if before is None else _learned(before)),
            "device": device.type,
            "library": __version__,
        }
        epochs = params["max_epochs"]
        if epochs is None and params["max_seconds"] is None:
            epochs = DEFAULT_EPOCHS
        self.fit = Fit(parts, told.sources, None if epochs is None else int(epochs), list(seeds), told.doubts)
        self._place = self._unfinished() if told.doubts else None
        return seeds if self._place is None else Seeds(*self.fit.seeds)

    def _data_digest(self, told: Identity, data: TrainingData | None) -> str:
        if data is None:
            return told.of(None)
        form, labels = data.format, (data.y, data.weight, data.rows, data.n_given)
        about = form.classes, form.clip, form.inputs.given_shape, form.inputs.channel_axis
        if not isinstance(data.samples, Items):
            return told.of(data.samples, labels, about)
        # The statistics are of the items that are read anyway.
        read = (
            None
            if self._drawn - {TORCH} or (self._drawn and told.doubts)
            else (form.mean, form.scale, form.n_values, form.limits)
        )
        return told.of(type(data.samples.dataset), len(data.samples.dataset), labels, about, read)

    def _unfinished(self) -> Place | None:
        """Find a fit that looks the same and was killed."""
        for place, other in places(self.folder):
            if other.finished or self.fit.differs(other) - {"network"} or not place.take(wait=False):
                continue
            place.close()  # until the training is made
            self.fit.seeds = other.seeds
            return place
        return None

    def begin(self, training: Training) -> Checkpoint:
        """Find the fit's place, and let the training go on from what is kept there.

        Parameters
        ----------
        training : Training
            Has not run yet.

        Returns
        -------
        Checkpoint
            To be given to `Training.run`; `close` is to be called after that.
        """
        self._know_network(training.module)
        place = self._place
        if place is None or self.fit.key != getattr(place.fit(), "key", None) or not place.take(wait=False):
            suffix = f"-{uuid4().hex[:8]}" if self.fit.doubts else ""
            place = self._place = Place(self.folder / f"{self.fit.key[:16]}{suffix}")
            place.take(wait=True)
        try:
            if place.fit() is None:
                self._tell_of_near_match()
                place.describe(self.fit)
            with torch.inference_mode(False), torch.enable_grad(), current_device(training.randomness.device):
                checkpoint = Checkpoint(place, training, self.seconds)
            self._tell(training, checkpoint)
            return checkpoint
        except BaseException:
            self.close()
            raise

    def _know_network(self, module: nn.Module) -> None:
        told = Identity()
        self.fit.parts["network"] = told.of(module)
        self.fit.sources.update(told.sources)
        self.fit.doubts += [doubt for doubt in told.doubts if doubt not in self.fit.doubts]

    def shorter(self, training: Training) -> int | None:
        """Find how many epochs the longest fit had that is over, and is the same but for fewer of them."""
        self._know_network(training.module)
        if self.fit.doubts or self.fit.max_epochs is None or Place(self.folder / self.fit.key[:16]).folder.exists():
            return None
        found = [
            other.max_epochs
            for _, other in places(self.folder)
            if other.finished and other.max_epochs is not None and self.fit.differs(other) == {"max_epochs"}
        ]
        return max((epochs for epochs in found if epochs < self.fit.max_epochs), default=None)

    def _tell_of_near_match(self) -> None:
        other = near(self.folder, self.fit)
        if other is not None:
            warnings.warn(
                f"checkpoint={self.name!r} has this fit with {self.fit.told(other)}: it is trained anew", stacklevel=5
            )

    def _tell(self, training: Training, checkpoint: Checkpoint) -> None:
        """Say from where the fit goes on, what it is not known by, and what may end with other bits."""
        where = (
            f"epoch {training.epochs_done}"
            if training.under_way is None
            else (f"batch {len(training.under_way.losses)} of epoch {training.epochs_done + 1}")
        )
        if checkpoint.finished:
            training.progress.say(f"found finished in {self.name!r}: nothing is trained")
        elif checkpoint.went_on:
            training.progress.say(f"goes on after {where}, from {self.name!r}")
        if self.fit.doubts:
            done = f"it goes on with one that was killed after {where}" if checkpoint.went_on else "it begins anew"
            warnings.warn(
                f"checkpoint={self.name!r}: {self.fit.doubts[0]}, so that this fit is not known again once it is over; "
                f"{done}",
                stacklevel=5,
            )
        callbacks = [name for name, each in training.net.callbacks_ if not _is_kept(each)]
        unkept = [f"callbacks {callbacks} have no state_dict"] if callbacks else []
        unkept += [f"the items of X draw from {each} global generator" for each in sorted(self._unkept)]
        if unkept:
            warnings.warn(
                f"checkpoint={self.name!r}: {' and '.join(unkept)}, which is not kept: a training that was killed and "
                "goes on may end with other bits",
                stacklevel=5,
            )

    def close(self, checkpoint: Checkpoint | None = None) -> None:
        """Let others have the place; note there that the fit is over, or delete what would not be known again."""
        if self._place is None:
            return
        if checkpoint is not None:
            checkpoint.close()
        if checkpoint is not None and checkpoint.finished:
            if self.fit.doubts:
                self._place.remove()
            elif not self.fit.finished:
                self.fit.finished = True
                self._place.describe(self.fit)
        self._place.close()
        self._place = None


def _is_kept(callback: Any) -> bool:
    return keeps_state(callback) or type(callback).__name__ in STATELESS


def _learned(before: Training) -> list[Any]:
    """List what a training that goes on takes over from the one before."""
    average = before.average and before.average.state_dict()
    in_batch = before.in_batch and before.in_batch.state_dict()
    state = before.adversary.attack.state_dict()
    return [weights_of(before.module), average, in_batch, state, before.n_planned, before.split_seed]


def _global_states() -> dict[str, Any]:
    return {"NumPy's": np.random.get_state(), "Python's": random.getstate(), TORCH: torch.get_rng_state()}


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
