"""What all tests share."""

import os
import random
import signal

import numpy as np
import pytest
import torch

os.environ.setdefault("MPLBACKEND", "Agg")  # pictures are drawn in memory

# Two pytest workers run on two cores: more threads than that would only wait for each other.
torch.set_num_threads(1)

# A shell starts what runs in its background with Ctrl-C ignored; the tests of interrupts press it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def global_randomness():
    """A function that reads Python's, NumPy's and torch's global random states, to compare before and after."""

    def read():
        name, keys, *rest = np.random.get_state()
        return random.getstate(), name, keys.tolist(), rest, torch.get_rng_state().tolist()

    return read
