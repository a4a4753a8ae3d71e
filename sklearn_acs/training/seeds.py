"""Seeds for each use of randomness from one `random_state`, and a local stand-in for torch's global generators."""

from contextlib import ExitStack
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from sklearn.utils import check_random_state
from torch import Tensor


class Seeds(NamedTuple):
    """One seed for each use of randomness, so that more of one use does not shift another."""

    model: int  # initial weights, and what the module itself draws, as dropout does
    batches: int
    augment: int
    attack: int
    selection: int
    evaluation: int


def spawn_seeds(random_state: int | np.random.RandomState | None, epochs_done: int = 0) -> Seeds:
    """Seeds from a `random_state`: an int always gives the same, None fresh ones from the operating system.

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
    """A generator of a training's own for what draws from torch's global ones, as dropout and initial weights do.

    Inside the context torch's global generators go on from where the context before this one ended, and after it they
    are as they were. A CUDA device is the current one inside, on whose streams events are timed and memory is pinned.

    Parameters
    ----------
    seed : int
        Of the first context.
    device : torch.device
        Where the training is.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self._cuda = [device] if device.type == "cuda" else []
        self._stack: ExitStack | None = None
        with self:
            torch.default_generator.manual_seed(seed)
            if self._cuda:
                torch.cuda.manual_seed(seed)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng(devices=self._cuda))
            if self._cuda:
                stack.enter_context(torch.cuda.device(self._cuda[0]))
            self._stack = stack.pop_all()
        if hasattr(self, "_states"):
            self._set(self._states)
        return self

    def __exit__(self, *error: object) -> None:
        assert self._stack is not None
        self._states, stack, self._stack = self._get(), self._stack, None
        stack.close()

    def state_dict(self) -> dict[str, Any]:
        """States of the generators."""
        return {"states": self._states if self._stack is None else self._get()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from these states."""
        self._states = state["states"]
        if self._stack is not None:
            self._set(self._states)

    def _get(self) -> list[Tensor]:
        return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in self._cuda)]

    def _set(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        for device, state in zip(self._cuda, states[1:], strict=True):
            torch.cuda.set_rng_state(state, device)
