"""typical measures something a few times, and takes the median of its seconds."""

from collections.abc import Callable
from dataclasses import replace
from statistics import median
from time import perf_counter
from typing import Any

from sklearn_acs.training.cost import PhaseCost

LEAST, MOST = 3, 7
"""Times that something short is measured."""


def typical(measure: Callable[[], Any], seconds: float) -> PhaseCost:
    """Measure something several times, once where it is long, and give its last passes and the median of its seconds.

    Parameters
    ----------
    measure : callable
        Does it, and returns a `PhaseCost`; what returns something else is timed.
    seconds : float
        After which enough is known.
    """
    begun, found = perf_counter(), list[PhaseCost]()
    while len(found) < MOST:
        since = perf_counter()
        cost = measure()
        found.append(cost if isinstance(cost, PhaseCost) else PhaseCost(seconds=perf_counter() - since))
        gone = perf_counter() - begun
        if gone > seconds and (len(found) >= LEAST or gone > 2 * seconds):
            break
    return replace(found[-1], seconds=median(cost.seconds for cost in found))
