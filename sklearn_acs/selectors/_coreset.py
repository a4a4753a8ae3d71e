"""What a selection gives."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from sklearn_acs.table import Table


class Part(NamedTuple):
    """What was chosen of one class, or of the whole set.

    Attributes
    ----------
    label : object
        The class; None for the whole set.
    n_samples, n_selected : int
        How many samples it has, and how many of them were chosen.
    n_matched : int
        How many of these the algorithm chose itself.
    weight : float
        The sum of their weights.
    error : float
        The relative error of their weighted sum, as that of `Coreset`.
    stop_reason : str
        Why the algorithm stopped there.
    """

    label: Any
    n_samples: int
    n_selected: int
    n_matched: int
    weight: float
    error: float
    stop_reason: str


@dataclass(frozen=True, eq=False)
class Coreset:
    """A weighted subset whose gradients stand for those of the whole set.

    Attributes
    ----------
    indices : ndarray of shape (k,)
        The chosen rows, distinct, in the order chosen.
    weights : ndarray of shape (k,)
        ``sum_j weights[j] * G[indices[j]]`` approximates ``sum_i G[i]``.
    n_matched : int
        How many the algorithm chose itself; the rest fills the budget.
    stop_reason : str
        Why it stopped there.
    error : float
        ``||sum_j w_j G_j - sum_i G_i|| / ||sum_i G_i||``. Where all gradients add up to zero, but for rounding, it is 0
        if the chosen do too, and else infinite. A solver leaves it to `BaseSelector.fit`, which measures it for all in
        the same way.
    parts : tuple of Part
        The same, class by class where classes were chosen from one by one, each with the error of its own sum.
    """

    indices: np.ndarray
    weights: np.ndarray
    n_matched: int
    stop_reason: str
    error: float = np.nan
    parts: tuple[Part, ...] = ()

    def report(self) -> Table:
        """Tell what was chosen: a row for each part, and one for all of them where there are several."""
        rows = list(self.parts)
        if len(rows) != 1:
            n = sum(part.n_samples for part in rows)
            total = float(self.weights.sum())
            rows.append(Part("all", n, len(self.indices), self.n_matched, total, self.error, self.stop_reason))
        columns = ["class", "samples", "selected", "matched", "weight", "error", "why it stopped"]
        return Table(columns, [("all" if part.label is None else str(part.label), *part[1:]) for part in rows])


NOTHING = Coreset(np.empty(0, dtype=np.int64), np.empty(0), 0, "the budget leaves it without a row")
