"""One `random_state` seeds each use of randomness, also what draws from torch's global generators."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.utils import check_random_state
from torch import Tensor


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


class LocalRandomness:
    """Stands in for torch's global generators, from which modules draw dropout and initial weights.

    Parameters
    ----------
    seed : int
        Where its generators begin.
    device : torch.device
        Where the training is.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self._cuda = [device] if device.type == "cuda" else []
        self._states = [
            torch.Generator(each).manual_seed(seed).get_state() for each in (torch.device("cpu"), *self._cuda)
        ]
        self._in_use = False

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Let the global generators go on where this one stopped last, and set them back to what they were.

        A CUDA device is the current one inside, on whose streams events are timed and memory is pinned.
        """
        with torch.random.fork_rng(devices=self._cuda), torch.cuda.device(self._cuda[0] if self._cuda else -1):
            self._set(self._states)
            self._in_use = True
            try:
                yield
            finally:
                self._states, self._in_use = self._get(), False

    def state_dict(self) -> dict[str, Any]:
        """Name the states of the generators."""
        return {"states": self._get() if self._in_use else self._states}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from these states."""
        self._states = state["states"]

    def _get(self) -> list[Tensor]:
        return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in self._cuda)]

    def _set(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        for device, state in zip(self._cuda, states[1:], strict=True):
            torch.cuda.set_rng_state(state, device)
