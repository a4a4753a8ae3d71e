"""A selector returns its choice as a `Coreset`, which records each class in a `ClassSelection`."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from sklearn_acs.table import Table


class ClassSelection(NamedTuple):
    """Records what a selector chose of one class, or of the whole set.

    Attributes
    ----------
    label : object
        The class; None for the whole set.
    n_samples, n_selected : int
        Number of its samples, and of those chosen.
    n_matched : int
        How many of these the algorithm chose itself.
    weight : float
        Sum of their weights.
    error : float
        Relative error of their weighted sum, measured as in `Coreset`.
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
    """Holds a weighted subset whose gradients stand for those of the whole set.

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
        if the chosen do too, and else infinite. Solvers leave it out; `BaseSelector.fit` measures it.
    classes : tuple of ClassSelection
        One for each class where the selector chose class by class, else a single one for the whole set.
    """

    indices: np.ndarray
    weights: np.ndarray
    n_matched: int
    stop_reason: str
    error: float = np.nan
    classes: tuple[ClassSelection, ...] = ()

    def report(self) -> Table:
        """Tabulate what was chosen: a row for each class, and one for all of them where there are several."""
        rows = list(self.classes)
        if len(rows) != 1:
            n, weight = sum(row.n_samples for row in rows), float(self.weights.sum())
            sizes = n, len(self.indices), self.n_matched
            rows.append(ClassSelection("all", *sizes, weight, self.error, self.stop_reason))
        columns = ["class", "samples", "selected", "matched", "weight", "error", "why it stopped"]
        return Table(columns, [("all" if row.label is None else str(row.label), *row[1:]) for row in rows])


NOTHING = Coreset(np.empty(0, dtype=np.int64), np.empty(0), 0, "the budget leaves it without a row")
