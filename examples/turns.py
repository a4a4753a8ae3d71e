"""Several fits at once, an epoch each in turns: a machine that slows down does so for all of them alike."""

from concurrent.futures import ThreadPoolExecutor
from threading import Condition
from time import perf_counter
from typing import Any

from skorch.callbacks import Callback

from sklearn_acs import RobustClassifier


class Turns:
    """Hands the turn to whichever fit has come least far."""

    def __init__(self, n_fits: int) -> None:
        self.done = dict.fromkeys(range(n_fits), 0.0)  # of the fits that still run: share of the epochs
        self.condition = Condition()

    def wait(self, fit: int) -> None:
        with self.condition:
            self.condition.wait_for(lambda: min(self.done, key=self.done.__getitem__) == fit)

    def advance(self, fit: int, done: float | None) -> None:
        """Note how far a fit has come; None: it has ended."""
        with self.condition:
            if done is None:
                del self.done[fit]
            else:
                self.done[fit] = done
            self.condition.notify_all()


class TakeTurns(Callback):
    """Lets the others train after each epoch, and counts the seconds spent waiting."""

    def __init__(self, turns: Turns, fit: int) -> None:
        self.turns, self.fit, self.waited = turns, fit, 0.0

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        begun = perf_counter()
        self.turns.advance(self.fit, len(net.history) / net.max_epochs)
        self.turns.wait(self.fit)
        self.waited += perf_counter() - begun


def fit_in_turns(classifiers: list[RobustClassifier], X: Any, y: Any) -> list[float]:
    """Fit all of them, one epoch at a time; returns the seconds that each fit took by itself."""
    if not classifiers:
        return []
    turns = Turns(len(classifiers))

    def fit(i: int) -> float:
        take_turns = TakeTurns(turns, i)
        turns.wait(i)
        try:
            classifiers[i].set_params(callbacks=[take_turns]).fit(X, y)
        finally:
            turns.advance(i, None)
        return classifiers[i].cost_.total.seconds - take_turns.waited

    with ThreadPoolExecutor(len(classifiers)) as pool:
        return list(pool.map(fit, range(len(classifiers))))
