"""One `random_state` seeds each use of randomness, also what draws from torch's global generators."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import RLock
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from sklearn.utils import check_random_state
from torch import Tensor

T = TypeVar("T")


class Seeds(NamedTuple):
    """Has one seed for each use of randomness, so that more draws of one use do not shift another."""

    model: int  # initial weights, and what the module itself draws, as dropout does
    batches: int
    augment: int
    attack: int
    selection: int
    evaluation: int


def spawn_seeds(random_state: int | np.random.RandomState | None, epochs_done: int = 0) -> Seeds:
    """Make seeds of a `random_state`: an int always gives the same, None fresh ones from the operating system.

    scikit-learn's None is NumPy's global generator; that one is neither read nor changed here. Training that
    continues after `epochs_done` epochs gets seeds of its own, or it would repeat the same draws.
    """
    entropy = None
    if random_state is not None:
        drawn = check_random_state(random_state).randint(np.iinfo(np.int32).max, size=4)
        entropy = [*drawn.tolist(), epochs_done]
    state = np.random.SeedSequence(entropy).generate_state(len(Seeds._fields))
    return Seeds(*(int(seed) for seed in state))


GLOBAL = RLock()
"""Held by the thread that uses torch's global generators as its own: that of the CPU is one for all threads."""


class LocalRandomness:
    """Stands in for torch's global generators, from which modules draw dropout and initial weights.

    Threads in which something draws take turns. Where nothing does, the global generators are left alone, and no
    thread waits: the first step of every epoch shows whether anything draws.

    Parameters
    ----------
    seed : int
        Where its generators begin.
    device : torch.device
        Where the training is.

    Attributes
    ----------
    drawn : bool
        Whether something has drawn in training.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self.device, self._others = device, [device] if device.type in ("cuda", "mps") else []
        generators = [torch.Generator(each).manual_seed(seed) for each in (torch.device("cpu"), *self._others)]
        self._states = [generator.get_state() for generator in generators]
        self._in_use, self._looking, self.drawn = False, True, False

    @contextmanager
    def in_use(self, *, going_on: bool = True) -> Iterator[None]:
        """Let the global generators go on where this one stopped last, and set them back to what they were.

        Unless `going_on`, the next use draws the same again.
        """
        with GLOBAL:
            before = self._global_states()
            self._set_global_states(self._states)
            self._in_use = True
            try:
                yield
            finally:
                if going_on:
                    self._states = self._global_states()
                self._in_use = False
                self._set_global_states(before)

    @contextmanager
    def where_drawn(self, *, going_on: bool = True) -> Iterator[None]:
        """Be in use if something draws, or if it is time to look whether something does."""
        if not (self.drawn or self._looking):
            yield
            return
        with self.in_use(going_on=going_on):
            yield
            self.drawn = self.drawn or not all(map(torch.equal, self._states, self._global_states()))

    def each(self, items: Iterable[T]) -> Iterator[T]:
        """Give items that may draw when they are made, and look until the second whether something draws."""
        iterator, self._looking = iter(items), True
        while True:
            with self.where_drawn():
                item = next(iterator, None)
            if item is None:
                return
            yield item
            self._looking = False

    def state_dict(self) -> dict[str, Any]:
        """Name the states of the generators, and whether something draws from them."""
        return {"states": self._global_states() if self._in_use else self._states, "drawn": self.drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from these states."""
        self._states, self.drawn = state["states"], state["drawn"]

    def _global_states(self) -> list[Tensor]:
        return [torch.get_rng_state(), *(torch.get_device_module(d).get_rng_state(d) for d in self._others)]

    def _set_global_states(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        for device, state in zip(self._others, states[1:], strict=True):
            torch.get_device_module(device).set_rng_state(state, device)


def current_device(device: torch.device) -> AbstractContextManager[None]:
    """Make a CUDA device the current one, on whose streams events are timed and memory is pinned."""
    return torch.cuda.device(device if device.type == "cuda" else -1)
