"""One `random_state` for everything: a seed for each use, and local randomness while a model is built and trained."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import numpy as np
import torch
from sklearn.utils import check_random_state


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


@contextmanager
def local_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators inside, for modules that draw from them, and leave them as they were.

    A CUDA device is the current one inside, on whose streams events are timed and memory is pinned.
    """
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), torch.cuda.device(device) if cuda else nullcontext():
        torch.default_generator.manual_seed(seed)
        if cuda:
            torch.cuda.manual_seed(seed)
        yield
