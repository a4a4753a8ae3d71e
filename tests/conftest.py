"""What all tests share."""

import os
import random
import signal

import numpy as np
import pytest
import torch

from sklearn_acs.table import Table

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


def pytest_terminal_summary(terminalreporter):
    """Print how the generated bad inputs ended, where they were among the tests."""
    ends = [
        (entrance, counts)
        for reports in terminalreporter.stats.values()
        for report in reports
        for entrance, counts in getattr(report, "user_properties", ())
        if getattr(report, "when", None) == "call" and isinstance(counts, dict)
    ]
    if not ends:
        return
    kinds = sorted({kind for _, counts in ends for kind in counts})
    total = {kind: sum(counts.get(kind, 0) for _, counts in ends) for kind in kinds}
    rows = [(entrance, sum(counts.values()), *(counts.get(kind, 0) for kind in kinds)) for entrance, counts in ends]
    rows.append(("all", sum(total.values()), *total.values()))
    terminalreporter.section("bad inputs, by how they ended")
    terminalreporter.write_line(str(Table(["entrance", "cases", *kinds], rows)))
